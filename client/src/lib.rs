//! Kafka producer, consumer and admin for Rust programs.
// Locks are for data cores to avoid. Here an application's threads meet the client's own, for the length of an append.
#![allow(clippy::disallowed_types)]

mod admin;
mod block_on;
mod client;
mod config;
mod consumer;
mod core;
mod driver;
mod error;
mod groups;
mod leaders;
mod metadata;
mod net;
mod producer;
mod topic_partition;

pub use admin::*;
pub use block_on::block_on;
pub use client::Client;
pub use config::ClientConfig;
pub use consumer::*;
pub use corelog_wire::records::{Compression, Encoding, TimestampType};
pub use corelog_wire::{ApiKey, ErrorCode, Str, Uuid};
pub use error::{Error, Result};
pub use leaders::{Isolation, ListedOffset, OffsetSpec};
pub use metadata::{Broker, Partition, Topic};
pub use producer::*;
pub use topic_partition::TopicPartition;
