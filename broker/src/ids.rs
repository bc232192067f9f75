//! What tells things of this broker apart, and the well-known ones.

use std::sync::Arc;

pub use corelog_raft::ReplicaId;
use corelog_wire::Uuid;

/// A shard of this process: 0 to the number of shards less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub usize);

/// The shard that runs the controller.
pub const CONTROLLER_SHARD: ShardId = ShardId(0);

/// The controller's log has the well-known id of Kafka's `__cluster_metadata`.
pub const CONTROLLER_TOPIC: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// A broker of the cluster (`node.id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

impl BrokerId {
    /// As the protocol and metadata name it: -1 is none.
    pub fn known(id: i32) -> Option<BrokerId> {
        (id >= 0).then_some(BrokerId(id))
    }

    pub fn number(known: Option<BrokerId>) -> i32 {
        known.map_or(-1, |broker| broker.0)
    }

    /// Brokers as the protocol and metadata have lists of them.
    pub fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
        brokers.iter().map(|broker| broker.0).collect()
    }

    pub fn of_numbers(numbers: &[i32]) -> Arc<[BrokerId]> {
        numbers.iter().copied().map(BrokerId).collect()
    }
}

/// Counts the leaders that a partition has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);
