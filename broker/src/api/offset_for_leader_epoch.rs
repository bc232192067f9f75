//! OffsetForLeaderEpoch (KIP-101, KIP-320): where an epoch's records end.

use corelog_io::yield_if_needed;
use corelog_wire::ErrorCode;
use corelog_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use corelog_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::context::Context;

pub async fn handle(context: Context, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let shard = &context.shard;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            yield_if_needed().await;
            let mut answer = EpochEndOffset {
                partition: asked.partition,
                leader_epoch: -1,
                end_offset: -1,
                ..Default::default()
            };
            let found = match shard.route(&topic.topic, asked.partition) {
                Err(code) => Err(code),
                Ok(route) => shard
                    .on(route.owner, move |shard| async move {
                        let partition = shard.partitions.led(route.log, asked.current_leader_epoch)?;
                        Ok(partition.epoch_end(asked.leader_epoch))
                    })
                    .await
                    .unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
            };
            match found {
                Ok(end) => {
                    answer.leader_epoch = end.epoch;
                    answer.end_offset = end.end_offset;
                }
                Err(code) => answer.error_code = code.0,
            }
            partitions.push(answer);
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}
