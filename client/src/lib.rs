//! Kafka producer, consumer and admin for Rust programs, under any async runtime or none.
//!
//! A [`Client`] has one thread, which owns all connections to the cluster. [`Producer`], [`Consumer`] and [`Admin`] talk to it; what they
//! return are plain futures that tokio, glommio, smol or [`block_on`] can await.
//!
//! ```no_run
//! use corelog_client::{Client, ClientConfig, ConsumerConfig, NewTopic, ProducerConfig, ProducerRecord};
//! use std::time::Duration;
//!
//! corelog_client::block_on(async {
//!     let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
//!     client.admin().create_topic(NewTopic::new("greetings").partitions(3)).await?;
//!
//!     let producer = client.producer(ProducerConfig::default())?;
//!     let delivery = producer.send(ProducerRecord::to("greetings").key("en").value("hello")).await?;
//!     println!("written to {}", delivery.await?.partition);
//!
//!     let consumer = client.consumer(ConsumerConfig::group("greeters").from_earliest())?;
//!     consumer.subscribe(["greetings"])?;
//!     for record in consumer.poll(Duration::from_secs(10)).await? {
//!         println!("{:?}: {:?}", record.key, record.value);
//!     }
//!     consumer.close().await
//! })?;
//! # Ok::<(), corelog_client::Error>(())
//! ```
//!
//! What holds:
//! - Every queue is bounded: records waiting for delivery by `buffer_bytes_max` of [`ProducerConfig`], records fetched ahead by that of
//!   [`ConsumerConfig`], requests without an answer by `requests_in_flight_max`.
//! - Producers are idempotent unless told otherwise: retries neither repeat nor reorder records. With a `transactional_id` all records of a
//!   transaction become visible together, or none does.
//! - A consumer's commits take effect in the order in which they were asked for, and only for what the application said that it is done
//!   with: by its next poll, by committing, or by [`Consumer::close`]. A consumer that is dropped says nothing.
//! - Consumers notice when a new leader's log is not what they read (KIP-320), and go on where the two part, or fail.
//! - What can be retried is, within `api_timeout` or `delivery_timeout`; an [`Error`] says what was asked for, why it failed and what to do.
//! - Dropping a future cancels what it waits for, except that a sent record stays sent.
//!
//! Not here: the KIP-848 group protocol, TLS and SASL.
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
mod hashing;
mod leaders;
mod metadata;
mod net;
mod planted;
mod producer;
#[cfg(feature = "simulation")]
pub mod simulation;
mod topic_partition;

pub use admin::*;
pub use block_on::block_on;
pub use client::Client;
pub use config::ClientConfig;
pub use consumer::*;
pub use corelog_wire::records::{Compression, Encoding, TimestampType};
pub use corelog_wire::{ApiKey, ErrorCode, Str, Uuid};
pub use error::{Error, Result, explained};
pub use groups::GroupMetadata;
pub use leaders::{Isolation, ListedOffset, OffsetSpec};
pub use metadata::{Broker, Partition, Topic};
pub use producer::*;
pub use topic_partition::TopicPartition;
