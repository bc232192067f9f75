//! What the coordinator wants done, and what it is told when it was.

use bytes::Bytes;
use corelog_wire::ErrorCode;

use super::parked::Ticket;
use super::request::GroupResponse;

/// Numbers the writes of one coordinator, from 0, in the order in which they go to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// A record of `__consumer_offsets`. No value: a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl CoordinatorRecord {
    /// Bytes it holds in memory, about.
    pub fn bytes(&self) -> usize {
        64 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append the records, behind those of every earlier write, with the given record timestamp (wall clock). To be
    /// answered by [`super::coordinator::GroupCoordinator::written`], in the order of the ids.
    Append { id: WriteId, records: Vec<CoordinatorRecord>, timestamp_ms: i64 },
    /// Answer a request.
    Respond { ticket: Ticket, response: GroupResponse },
}

/// Why a write is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// A record is larger than a batch of the topic may be.
    TooLarge,
    /// The log takes no writes now: the disk is full, or the partition is moving.
    Unavailable,
    /// The log failed; this broker does not coordinate the group any more.
    Failed,
}

impl WriteFailure {
    /// What members are told (Kafka maps the errors of its log in the same way).
    pub fn error(self) -> ErrorCode {
        match self {
            WriteFailure::TooLarge => ErrorCode::UNKNOWN_SERVER_ERROR,
            WriteFailure::Unavailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
            WriteFailure::Failed => ErrorCode::NOT_COORDINATOR,
        }
    }
}
