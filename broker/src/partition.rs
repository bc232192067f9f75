//! Finding a partition: from a name or id to the shard that owns its log.

use corelog_storage::LogId;
use corelog_wire::{ErrorCode, Uuid};

use crate::controller::{Image, RecentChanges, TopicImage};
use crate::ids::ShardId;
use crate::placement;

/// Where a partition's log is, and the epoch of its leader, this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub log: LogId,
    pub owner: ShardId,
    pub leader_epoch: i32,
}

/// Finds partitions by the metadata of one moment.
pub struct Router<'a> {
    pub image: &'a Image,
    pub changes: &'a RecentChanges,
    pub shards: usize,
}

impl Router<'_> {
    pub fn route(&self, topic: &str, partition: i32) -> Result<Route, ErrorCode> {
        let topic = self.image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        self.route_in(topic, partition)
    }

    pub fn route_by_id(&self, topic: Uuid, partition: i32) -> Result<Route, ErrorCode> {
        let topic = self.image.topic_by_id(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)?;
        self.route_in(topic, partition)
    }

    fn route_in(&self, topic: &TopicImage, partition: i32) -> Result<Route, ErrorCode> {
        let found = topic.partition(partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let log = LogId { topic: topic.id, partition };
        let owner = placement::owner(log, self.shards);
        Ok(Route { log, owner, leader_epoch: found.leader_epoch })
    }
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
