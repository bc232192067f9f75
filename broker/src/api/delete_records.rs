//! DeleteRecords (KIP-107): moves log start offsets up.

use corelog_io::Instant;
use corelog_storage::ReadError;
use corelog_wire::ErrorCode;
use corelog_wire::messages::delete_records_response::{PartitionResult, TopicResult};
use corelog_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use futures_util::{StreamExt, stream};

use super::context::Context;
use crate::audit;
use crate::cluster::trim;
use crate::controller::is_internal;

/// "Up to the high watermark".
const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;
/// Partitions of a request, each of which may wait for a follower that does not answer.
const DELETED_AT_ONCE: usize = 32;

pub async fn handle(context: Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let until = trim::deadline(request.timeout_ms);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let details = audit::list(
            topic.partitions.iter().map(|it| format!("{} before {}", it.partition_index, it.offset)),
        );
        let change = context.change("delete records", &topic.name, details);
        let mut failed = ErrorCode::NONE;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let asked = topic.partitions.iter();
        let deleted = asked.map(async |asked| {
            let result = delete(&context, &topic.name, asked.partition_index, asked.offset, until).await;
            (asked.partition_index, result)
        });
        let deleted: Vec<_> = stream::iter(deleted).buffered(DELETED_AT_ONCE).collect().await;
        for (partition_index, result) in deleted {
            failed = result.err().unwrap_or(failed);
            partitions.push(PartitionResult {
                partition_index,
                low_watermark: result.unwrap_or(NO_LOW_WATERMARK),
                error_code: result.err().unwrap_or(ErrorCode::NONE).0,
            });
        }
        change.done_with_code(failed);
        topics.push(TopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

async fn delete(
    context: &Context,
    topic: &str,
    index: i32,
    offset: i64,
    until: Instant,
) -> Result<i64, ErrorCode> {
    let shard = &context.shard;
    let route = shard.route(topic, index)?;
    let internal = is_internal(topic);
    let view = shard.view();
    let topic = view.image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    if !internal && !view.config(topic).cleanup_policy.delete {
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    shard
        .on(route.owner, move |shard| async move {
            // As in Kafka; but where its coordinator cannot load it, this is the way out.
            if internal && !shard.groups.has_failed(index) {
                return Err(ErrorCode::INVALID_TOPIC_EXCEPTION);
            }
            let partition = shard.partitions.led(route.log, -1)?;
            let before = (offset != HIGH_WATERMARK).then_some(offset);
            let log_start = partition.delete_records(before).await.map_err(|error| match error {
                ReadError::OffsetOutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
                ReadError::Storage(error) => shard.storage_failed("DeleteRecords", route.log, error),
            })?;
            if partition.has_group() && !trim::tell(&shard, route.log, log_start, until).await {
                return Err(ErrorCode::REQUEST_TIMED_OUT);
            }
            if internal {
                tracing::warn!(
                    partition = index,
                    log_start,
                    "records of an unreadable group log deleted on request"
                );
                shard.groups.load_again(index);
            }
            Ok(log_start)
        })
        .await
        .unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}
