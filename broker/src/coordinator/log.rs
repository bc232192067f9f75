//! What a coordinator needs of its log: one partition of an internal topic.

use std::future::Future;

use bytes::Bytes;

use super::machine::WriteFailure;

/// The log of one coordinator. Its owner is the only one who appends to it.
pub trait CoordinatorLog: 'static {
    /// Completes when the batch is on stable storage. An error says that it is not known to be.
    type Durable: Future<Output = Result<(), WriteLost>> + 'static;

    /// Fixes the order of one v2 batch behind those before it. After an error the batch is not in the log.
    fn append(&self, batch: Bytes) -> impl Future<Output = Result<Self::Durable, NotAppended>>;

    /// Whole batches from `offset` on (the one that holds it first), about `bytes_max` bytes of them and at least one.
    fn read(&self, offset: i64, bytes_max: usize) -> impl Future<Output = Result<LogRead, ReadFailed>>;

    /// The first offset that is kept.
    fn start_offset(&self) -> i64;

    /// The offset behind what was appended, also by a coordinator before this one: what is not on stable storage yet can't
    /// be read, and will be.
    fn end_offset(&self) -> i64;

    /// The epoch in which this broker leads the partition.
    fn leader_epoch(&self) -> i32;
}

/// A piece of the log.
#[derive(Debug)]
pub struct LogRead {
    /// Whole v2 batches, one after the other; none at the end of the log.
    pub batches: Bytes,
    /// Where to read on.
    pub next_offset: i64,
}

/// Why a batch is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAppended {
    Refused(WriteFailure),
    /// Another broker leads the partition by now, or this one does in a later epoch.
    Fenced,
}

/// Whether a write is in the log is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WriteLost(pub String);

/// The log can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadFailed(pub String);
