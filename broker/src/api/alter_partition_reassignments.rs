//! AlterPartitionReassignments (KIP-455): says where the replicas of partitions are to be.

use corelog_wire::ErrorCode;
use corelog_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use corelog_wire::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::context::{Context, told};
use crate::audit;
use crate::controller::{Change, ChangeError, Terms};
use crate::ids::BrokerId;

pub async fn handle(
    context: Context,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let terms = Terms::new(false, Some(request.timeout_ms));
    let may_resize = request.allow_replication_factor_change;
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let details = audit::list(topic.partitions.iter().map(|it| match &it.replicas {
            Some(replicas) => format!("{} to {replicas:?}", it.partition_index),
            None => format!("{} cancelled", it.partition_index),
        }));
        let change = context.change("reassign partitions", &topic.name, details);
        let (mut partitions, mut failed) = (Vec::with_capacity(topic.partitions.len()), ErrorCode::NONE);
        for asked in topic.partitions {
            let target = asked.replicas.map(|ids| ids.into_iter().map(BrokerId).collect::<Vec<_>>());
            let result = match &target {
                Some(target) if !may_resize => {
                    keeps_size(&context, &topic.name, asked.partition_index, target)
                }
                _ => Ok(()),
            };
            let (name, partition) = (topic.name.clone(), asked.partition_index);
            let made = match result {
                Ok(()) => {
                    let change = Change::Reassign { topic: name, partition, target };
                    context.shard.change(change, terms).await.map(drop)
                }
                Err(error) => Err(error),
            };
            let mut answer =
                ReassignablePartitionResponse { partition_index: partition, ..Default::default() };
            if let Err(error) = made {
                failed = error.code;
                (answer.error_code, answer.error_message) = (error.code.0, told(error.message));
            }
            partitions.push(answer);
        }
        change.done_with_code(failed);
        responses.push(ReassignableTopicResponse { name: topic.name, partitions });
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_resize,
        responses,
        ..Default::default()
    }
}

/// Of requests that would not change how many replicas there are (KIP-860).
fn keeps_size(
    context: &Context,
    topic: &str,
    partition: i32,
    target: &[BrokerId],
) -> Result<(), ChangeError> {
    let image = context.shard.image();
    let found = image.topic(topic).and_then(|topic| topic.partition(partition));
    match found.map(|found| found.replicas.len() - found.adding.len()) {
        Some(have) if have != target.len() => Err(ChangeError::new(
            ErrorCode::INVALID_REPLICATION_FACTOR,
            format!(
                "The replication factor is changed from {have} to {}, and the request does not allow that.",
                target.len()
            ),
        )),
        _ => Ok(()),
    }
}
