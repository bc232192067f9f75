//! Finding a partition: from a name or id to the shard that has it.

use corelog_storage::LogId;
use corelog_wire::{ErrorCode, Uuid};

use super::leadership::{Leadership, Role};
use super::placement;
use crate::controller::{Image, RecentChanges, TopicImage};
use crate::ids::{BrokerId, ShardId};

/// Where this broker has its replica of a partition. Whether it leads there, and in which epoch, the partition says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub log: LogId,
    pub owner: ShardId,
}

/// Finds partitions by the metadata of one moment.
pub struct Router<'a> {
    pub image: &'a Image,
    pub changes: &'a RecentChanges,
    /// This one.
    pub broker: BrokerId,
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

    /// # Errors
    /// There is no such partition; or it is elsewhere, on other brokers alone.
    pub fn route_in(&self, topic: &TopicImage, partition: i32) -> Result<Route, ErrorCode> {
        let found = topic.partition(partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        if Leadership::of(found, self.broker).role == Role::None {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let log = LogId { topic: topic.id, partition };
        Ok(Route { log, owner: placement::owner(log, self.shards) })
    }
}
