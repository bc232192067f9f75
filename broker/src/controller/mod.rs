//! The controller: topics, partitions, configs and producer-id ranges.
//!
//! Its state is what a log of Kafka's own metadata records says ([`records`]); [`image`] is that state finished
//! for reading, immutable, and held by every shard. [`Controller`] lives in a task of shard 0, decides on changes one
//! at a time ([`change`]), makes them durable in its log, and publishes the new image to every shard before it answers:
//! when a client hears that a topic exists, every core serves it. All changes come by [`Shard::change`]. Now and then the log
//! begins anew with a [`snapshot`].
//!
//! [`Shard::change`]: crate::shard::Shard::change

mod change;
pub mod image;
pub mod records;
mod snapshot;
mod state;

pub use change::{
    Change, ChangeError, NewTopic, PRODUCER_ID_BLOCK, ResourceKey, TOPIC_PARTITIONS_MAX, too_many_partitions,
};
pub use image::{Image, TopicImage};
pub use state::{Controller, ControllerHandle};

pub use crate::ids::{CONTROLLER_SHARD, CONTROLLER_TOPIC};

pub const CONTROLLER_TOPIC_NAME: &str = "__cluster_metadata";

pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Topics the broker itself writes: clients may read, not create or produce to them freely.
pub fn is_internal(topic: &str) -> bool {
    topic == OFFSETS_TOPIC
}
