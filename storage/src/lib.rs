#![doc = include_str!("../README.md")]

mod batch;
mod cache;
mod checkpoint;
mod config;
mod counters;
mod dirs;
mod epochs;
mod error;
mod files;
mod flusher;
pub mod format;
mod ids;
mod journal;
mod log;
pub mod paths;
mod producers;
mod quarantine;
pub mod rebuild;
mod recovery;
mod segment;
mod shard;
mod space;
mod tail;
mod uncommitted;

pub use config::{CommitMode, LogConfig, StorageConfig};
pub use counters::StorageMetrics;
pub use epochs::{EpochEnd, EpochHistory, UNDEFINED};
pub use error::{AppendError, ReadError, StorageError};
pub use format::entry::HardState;
pub use ids::{HashLogId, LogId, RaftIndex};
pub use journal::Durable;
pub use log::{
    ActiveProducer, AppendBatch, Appended, BatchKind, Log, LogStats, Read, TimestampOffset, Traffic,
};
pub use paths::{topic_of_dir, topics_dir};
pub use producers::SequenceError;
pub use quarantine::refused_topics;
pub use recovery::{Recovered, Replayed, read_journals};
pub use shard::ShardStorage;
