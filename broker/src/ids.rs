//! What tells things of this broker apart, and the well-known ones.

use corelog_wire::Uuid;

/// A shard of this process: 0 to the number of shards less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub usize);

/// The shard that runs the controller.
pub const CONTROLLER_SHARD: ShardId = ShardId(0);

/// The controller's log has the well-known id of Kafka's `__cluster_metadata`.
pub const CONTROLLER_TOPIC: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
