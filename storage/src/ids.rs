//! Names and numbers that must not be mixed.

pub use corelog_wire::Uuid;
use std::fmt;

/// One partition's log: topic id and partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    pub topic: Uuid,
    pub partition: i32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Position of a batch in its partition's Raft log, from 0, without gaps. Every batch has one; Kafka offsets are
/// taken only by the records of batches that are not internal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RaftIndex(pub u64);

impl RaftIndex {
    /// The index after this one.
    pub fn next(self) -> RaftIndex {
        RaftIndex(self.0 + 1)
    }
}

impl fmt::Display for RaftIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
