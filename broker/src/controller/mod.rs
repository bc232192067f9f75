//! The controller: brokers, topics, partitions, configs and producer-id ranges.
//!
//! Its state is what a log of Kafka's own metadata records says ([`records`]): the [`image`], the same for all who applied the
//! same records. What a broker makes of it is its [`view`], which every shard holds. A change goes three steps, each of which
//! knows nothing of the others: [`change`] decides on records, [`log`] makes them hold, [`image`] applies them, and tells in a
//! [`delta`] what that has changed. [`Controller`] takes changes through them one at a time, in a task of shard 0, and
//! publishes view and delta to every shard before it answers: when a client hears that a topic exists, every core serves it.
//! All changes come by [`Shard::change`]. Now and then the log begins anew with a [`snapshot`].
//!
//! [`Shard::change`]: crate::shard::Shard::change

mod balance;
mod brokers;
mod change;
#[cfg(test)]
mod cluster_tests;
mod delta;
mod follow;
mod forward;
mod handle;
pub mod image;
mod leaders;
mod log;
mod member;
mod membership;
mod placer;
mod reassign;
mod recent;
pub mod records;
mod replay;
mod snapshot;
mod task;
#[cfg(test)]
mod tests;
mod view;

pub use balance::{INTERNAL_REPLICAS, next_moves};
pub use brokers::JoinRequest;
pub use change::{
    Change, ChangeError, ConfigChange, NewTopic, PRODUCER_ID_BLOCK, Placement, ResourceKey,
    TOPIC_PARTITIONS_MAX, too_many_partitions,
};
pub use delta::Delta;
pub use handle::Terms;
pub use image::{BrokerImage, Endpoint, Image, TopicImage};
pub use leaders::Led;
pub use member::{Group, Leader};
pub use recent::{Changed, RecentChanges};
pub use task::{Controller, ControllerHandle, Update};
pub use view::{View, Viewer};

pub use crate::ids::{CONTROLLER_SHARD, CONTROLLER_TOPIC};

pub const CONTROLLER_TOPIC_NAME: &str = "__cluster_metadata";

pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Topics the broker itself writes: clients may read, not create or produce to them freely.
pub fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC
}
