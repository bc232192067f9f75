//! Finding a partition: from a name or id to the shard that owns its log.

use corelog_storage::LogId;
use corelog_wire::{ErrorCode, Uuid};

use crate::controller::TopicImage;
use crate::shard::{Shard, ShardId};

/// Where a partition's log is, and the epoch of its leader, this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub log: LogId,
    pub owner: ShardId,
    pub leader_epoch: i32,
}

pub fn route(shard: &Shard, topic: &str, partition: i32) -> Result<Route, ErrorCode> {
    let image = shard.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    route_in(shard, topic, partition)
}

pub fn route_by_id(shard: &Shard, topic: Uuid, partition: i32) -> Result<Route, ErrorCode> {
    let image = shard.image();
    let topic = image.topic_by_id(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
    route_in(shard, topic, partition)
}

fn route_in(shard: &Shard, topic: &TopicImage, partition: i32) -> Result<Route, ErrorCode> {
    let image = usize::try_from(partition)
        .ok()
        .and_then(|index| topic.partitions.get(index))
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let log = LogId { topic: topic.id, partition };
    Ok(Route { log, owner: shard.owner(log), leader_epoch: image.leader_epoch })
}

/// Compares the leader epoch that a client knows with the partition's (KIP-320); -1 is "does not say".
pub fn check_epoch(client: i32, current: i32) -> Result<(), ErrorCode> {
    match client {
        -1 => Ok(()),
        client if client < current => Err(ErrorCode::FENCED_LEADER_EPOCH),
        client if client > current => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}
