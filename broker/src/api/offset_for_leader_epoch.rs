//! OffsetForLeaderEpoch (KIP-101, KIP-320): where an epoch's records end.

use corelog_io::yield_if_needed;
use corelog_storage::EpochEnd;
use corelog_wire::ErrorCode;
use corelog_wire::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use corelog_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::Context;
use crate::partition;

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
                Ok(route) => match partition::check_epoch(asked.current_leader_epoch, route.leader_epoch) {
                    Err(code) => Err(code),
                    Ok(()) => shard
                        .on(route.owner, move |shard| async move {
                            let log = shard.sound_log(route.log)?;
                            Ok(match asked.leader_epoch {
                                // The leader's own, which lasts, though nothing may have been written in it yet.
                                epoch if epoch == route.leader_epoch => {
                                    EpochEnd { epoch, end_offset: log.high_watermark() }
                                }
                                epoch => log.epoch_end_offset(epoch),
                            })
                        })
                        .await
                        .unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
                },
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
