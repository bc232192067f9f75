//! ListPartitionReassignments (KIP-455): partitions whose replicas move.

use corelog_io::yield_if_needed;
use corelog_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use corelog_wire::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::context::Context;
use crate::controller::TopicImage;
use crate::controller::image::PartitionImage;
use crate::ids::BrokerId;

pub async fn handle(
    context: Context,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = context.shard.image();
    let mut topics = Vec::new();
    match request.topics {
        Some(asked) => {
            for asked in asked {
                yield_if_needed().await;
                let Some(topic) = image.topic(&asked.name) else { continue };
                let found = asked.partition_indexes.into_iter();
                put(&mut topics, topic, found.filter_map(|at| Some((at, topic.partition(at)?))));
            }
        }
        None => {
            for topic in image.topics() {
                yield_if_needed().await;
                put(&mut topics, topic, (0..).zip(&topic.partitions));
            }
        }
    }
    ListPartitionReassignmentsResponse { topics, ..Default::default() }
}

fn put<'a>(
    topics: &mut Vec<OngoingTopicReassignment>,
    topic: &TopicImage,
    partitions: impl Iterator<Item = (i32, &'a PartitionImage)>,
) {
    let moving = partitions.filter(|(_, found)| found.is_moving());
    let partitions: Vec<_> = moving
        .map(|(partition_index, found)| OngoingPartitionReassignment {
            partition_index,
            replicas: BrokerId::numbers(&found.replicas),
            adding_replicas: BrokerId::numbers(&found.adding),
            removing_replicas: BrokerId::numbers(&found.removing),
        })
        .collect();
    if !partitions.is_empty() {
        topics.push(OngoingTopicReassignment { name: topic.name.clone(), partitions });
    }
}
