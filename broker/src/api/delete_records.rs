//! DeleteRecords (KIP-107): moves log start offsets up.

use corelog_wire::ErrorCode;
use corelog_wire::messages::delete_records_response::{PartitionResult, TopicResult};
use corelog_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Context;
use crate::audit;
use crate::controller::is_internal;

/// "Up to the high watermark".
const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

pub async fn handle(context: Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let details = audit::list(
            topic.partitions.iter().map(|it| format!("{} before {}", it.partition_index, it.offset)),
        );
        let change = context.change("delete records", &topic.name, details);
        let mut failed = ErrorCode::NONE;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let result = delete(&context, &topic.name, asked.partition_index, asked.offset).await;
            failed = result.err().unwrap_or(failed);
            partitions.push(PartitionResult {
                partition_index: asked.partition_index,
                low_watermark: result.unwrap_or(NO_LOW_WATERMARK),
                error_code: result.err().unwrap_or(ErrorCode::NONE).0,
            });
        }
        change.done_with_code(failed);
        topics.push(TopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}

async fn delete(context: &Context, topic: &str, index: i32, offset: i64) -> Result<i64, ErrorCode> {
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
            let log = shard.sound_log(route.log)?;
            let end = log.high_watermark();
            let before = if offset == HIGH_WATERMARK { end } else { offset };
            if before < 0 || before > end {
                return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
            }
            log.delete_records(before).await.map_err(|error| {
                shard.sparingly("DeleteRecords failed", move |left_out| {
                    tracing::error!(log = ?route.log, %error, left_out, "DeleteRecords");
                });
                ErrorCode::KAFKA_STORAGE_ERROR
            })?;
            if internal {
                tracing::warn!(
                    partition = index,
                    before,
                    "records of an unreadable group log deleted on request"
                );
                shard.groups.load_again(index);
            }
            Ok(log.log_start_offset())
        })
        .await
        .unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
}
