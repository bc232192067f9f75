//! ListOffsets (KIP-79, KIP-734, KIP-405, KIP-1005, KIP-1023).

use std::collections::HashSet;
use std::rc::Rc;

use corelog_io::{worked, yield_if_needed};
use corelog_wire::messages::list_offsets_request::Topic;
use corelog_wire::messages::list_offsets_response::{PartitionResponse, TopicResponse};
use corelog_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::Context;
use crate::partition::{Isolation, OffsetQuery, Route};
use crate::shard::Shard;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// First version whose answer bears leader epochs (KIP-320).
const LEADER_EPOCHS_FROM: i16 = 4;

/// First request version that knows a special timestamp.
fn known_from(timestamp: i64) -> i16 {
    match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 0,
    }
}

pub async fn handle(context: Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let version = context.api_version;
    let shard = &context.shard;
    let isolation = Isolation::from_level(request.isolation_level);
    let mut topics = request.topics;
    let twice = keep_first(&mut topics);
    let lookups = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (&topic.name, partition)));
    let lookups = lookups.map(|(topic, partition)| {
        let (index, epoch, timestamp) =
            (partition.partition_index, partition.current_leader_epoch, partition.timestamp);
        let unclear = twice.contains(&(topic.clone(), index));
        let topic = topic.clone();
        async move {
            yield_if_needed().await;
            let mut answer = PartitionResponse { partition_index: index, ..Default::default() };
            let Some(isolation) = isolation.filter(|_| !unclear) else {
                answer.error_code = ErrorCode::INVALID_REQUEST.0;
                return answer;
            };
            if version == 0 {
                // Version 0 spoke of segment boundaries; the oldest and newest offset is what its clients use.
                answer = version_0(shard, &topic, index, timestamp).await;
            } else {
                match one(shard, &topic, index, epoch, timestamp, isolation, version).await {
                    Ok((offset, timestamp, leader_epoch)) => {
                        answer.offset = offset;
                        answer.timestamp = timestamp;
                        if version >= LEADER_EPOCHS_FROM {
                            answer.leader_epoch = leader_epoch;
                        }
                    }
                    Err(code) => answer.error_code = code.0,
                }
            }
            answer
        }
    });
    let mut answers = futures_util::future::join_all(lookups).await.into_iter();
    let topics = topics.iter().filter(|topic| !topic.partitions.is_empty());
    let topics = topics.map(|topic| TopicResponse {
        name: topic.name.clone(),
        partitions: answers.by_ref().take(topic.partitions.len()).collect(),
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

/// Leaves each partition in once. Those that were there more often are returned: what is asked of them is unclear.
fn keep_first(topics: &mut [Topic]) -> HashSet<(Str, i32)> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for topic in topics {
        let name = &topic.name;
        topic.partitions.retain(|partition| {
            let place = (name.clone(), partition.partition_index);
            let first = seen.insert(place.clone());
            if !first {
                twice.insert(place);
            }
            first
        });
    }
    twice
}

/// Offset, timestamp and leader epoch that answer `timestamp`; -1 where there is none.
async fn one(
    shard: &Rc<Shard>,
    topic: &Str,
    index: i32,
    epoch: i32,
    timestamp: i64,
    isolation: Isolation,
    version: i16,
) -> Result<(i64, i64, i32), ErrorCode> {
    // Thousands may be asked for at once.
    worked(size_of::<Route>());
    yield_if_needed().await;
    let route: Route = shard.route(topic, index)?;
    let known = timestamp >= EARLIEST_PENDING_UPLOAD && version >= known_from(timestamp);
    let found = shard
        .on(route.owner, move |shard| async move {
            let partition = shard.partitions.led(route.log, epoch)?;
            if !known {
                return Err(ErrorCode::UNSUPPORTED_VERSION);
            }
            let query = match timestamp {
                LATEST => OffsetQuery::Latest(isolation),
                EARLIEST | EARLIEST_LOCAL => OffsetQuery::Earliest,
                // Nothing is tiered: no newest tiered offset, and nothing waits to be.
                LATEST_TIERED | EARLIEST_PENDING_UPLOAD => return Ok(None),
                MAX_TIMESTAMP => OffsetQuery::MaxTimestamp,
                timestamp => OffsetQuery::Timestamp(timestamp),
            };
            let found = partition.find_offset(query).await;
            found.map_err(|error| shard.storage_failed("ListOffsets", route.log, error))
        })
        .await;
    let found = found.unwrap_or(Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))?;
    Ok(found.map_or((-1, -1, -1), |found| (found.offset, found.timestamp, found.leader_epoch)))
}

async fn version_0(shard: &Rc<Shard>, topic: &Str, index: i32, timestamp: i64) -> PartitionResponse {
    let mut answer = PartitionResponse { partition_index: index, ..Default::default() };
    match one(shard, topic, index, -1, timestamp, Isolation::ReadUncommitted, 0).await {
        Ok((-1, ..)) => {}
        Ok((offset, ..)) => answer.old_style_offsets = vec![offset],
        Err(code) => answer.error_code = code.0,
    }
    answer
}
