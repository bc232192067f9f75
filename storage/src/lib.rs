#![doc = include_str!("../README.md")]

mod batch;
mod cache;
mod checkpoint;
mod config;
mod counters;
mod dirs;
mod error;
mod files;
mod flusher;
pub mod format;
mod ids;
mod journal;
mod log;
pub mod paths;
mod producers;
mod progress;
mod quarantine;
pub mod rebuild;
mod recovery;
mod segment;
mod shard;
mod space;
mod tail;
mod terms;
mod uncommitted;

pub use config::{CommitMode, LogConfig, StorageConfig};
pub use counters::StorageMetrics;
pub use error::{AppendError, EntriesError, FollowError, ReadError, StorageError, TransferError};
pub use format::entry::HardState;
pub use format::log_sections::{MEMBERSHIP_BYTES_MAX, Membership};
pub use ids::{HashLogId, LogId, RaftIndex};
pub use journal::Durable;
pub use log::{
    Accepted, ActiveProducer, AppendBatch, Appended, BatchKind, Entry, Leads, Log, LogStart, LogState,
    LogStats, NotTaken, Read, SegmentInfo, SegmentList, TimestampOffset, Traffic,
};
pub use paths::{topic_of_dir, topics_dir};
pub use producers::SequenceError;
pub use progress::Progress;
pub use quarantine::refused_topics;
pub use recovery::{Recovered, Replayed, read_journals};
pub use shard::ShardStorage;
pub use terms::{EpochEnd, NO_TERM, TERMS_MAX, TermHistory, TermStart, UNDEFINED};
