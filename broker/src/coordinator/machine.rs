//! What a coordinator is a coordinator of: the state machine that the frame runs.

use std::fmt;

use bytes::Bytes;
use corelog_wire::ErrorCode;

use super::desk::{Desk, Ticket, WriteId};

/// A record as it stands in the log. No value: a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl RawRecord {
    /// Bytes it holds in memory, about.
    pub fn bytes(&self) -> usize {
        64 + self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// One change of the replicated state. Of the records of a key the last one counts.
///
/// What is read of an encoded record is the record: a state that is loaded is the state that was live.
pub trait Record: Sized {
    type Key: Clone + Ord + fmt::Debug;
    type DecodeError: fmt::Display;

    fn key(&self) -> Self::Key;
    fn encode(&self) -> RawRecord;
    /// `None` for a record that is nothing to this coordinator.
    fn decode(raw: RawRecord) -> Result<Option<Self>, Self::DecodeError>;
}

/// Why a coordinator takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotServing {
    Loading,
    /// Its log cannot be loaded.
    Damaged,
    /// This broker does not coordinate it.
    Elsewhere,
}

impl NotServing {
    pub fn error(self) -> ErrorCode {
        match self {
            NotServing::Loading => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            NotServing::Damaged => ErrorCode::COORDINATOR_NOT_AVAILABLE,
            NotServing::Elsewhere => ErrorCode::NOT_COORDINATOR,
        }
    }
}

/// Why a write is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// A record is larger than a batch of the topic may be.
    TooLarge,
    /// The log takes no writes now: the disk is full, or the partition is moving.
    Unavailable,
    /// The log failed; this broker does not coordinate the partition any more.
    Failed,
}

impl WriteFailure {
    /// What clients are told (Kafka maps the errors of its log in the same way).
    pub fn error(self) -> ErrorCode {
        match self {
            WriteFailure::TooLarge => ErrorCode::UNKNOWN_SERVER_ERROR,
            WriteFailure::Unavailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
            WriteFailure::Failed => ErrorCode::NOT_COORDINATOR,
        }
    }
}

/// What the log lines of a coordinator say.
pub struct Lines {
    pub damaged: &'static str,
    pub begins_anew: &'static str,
    pub large_record: &'static str,
    /// The kind of `large_record`, of which there is one a minute.
    pub large_record_kind: &'static str,
}

/// The state machine of one partition. The [module's page](super) has its rules.
///
/// It has no I/O and no clock of its own: what it wants done (write, answer, wake it later) it leaves on its [`Desk`].
pub trait StateMachine: Sized + 'static {
    /// Who asks.
    type Context;
    type Request;
    type Answer;
    type Record: Record;
    /// What a deadline is for. One deadline per key.
    type Timer: Clone + Ord + fmt::Debug;
    /// What follows when a write is committed, beside its answer.
    type Then;

    const LINES: Lines;

    fn desk(&mut self) -> &mut Desk<Self>;
    fn desk_ref(&self) -> &Desk<Self>;

    // ---- replicated state

    /// The only way in which replicated state changes: on loading, and when a record of our own is committed.
    fn replay(&mut self, record: Self::Record);

    // ---- soft state

    /// The log is loaded: puts soft state (deadlines, sessions) beside what was replayed, for as many things as fit
    /// into a turn of the core. False: there is more to do.
    fn wake(&mut self) -> bool;

    /// A request: it is answered through the desk, at once, with a write, or when others have come.
    fn handle(&mut self, ticket: Ticket, context: &Self::Context, request: Self::Request);

    /// A deadline has come.
    fn due(&mut self, timer: Self::Timer);

    /// A write is committed: its records are replayed, its answer is given.
    fn committed(&mut self, id: WriteId, then: Self::Then);

    /// A write is not in the log, nor is any that was decided after it: all their records are dropped by now, its
    /// answer is a refusal. Soft state that awaited it goes back to what is replicated.
    fn refused(&mut self, id: WriteId, then: Self::Then, failure: WriteFailure);

    /// The state goes: refuses with `error` whoever waits for something other than a write.
    fn unload(&mut self, error: ErrorCode);

    /// The line about what was loaded: of which partition, from how many records, up to which offset.
    fn tell_loaded(&self, partition: i32, records: usize, end: i64);

    // ---- answers

    /// The answer to a request that finds no coordinator at work.
    fn refuse(request: Self::Request, context: &Self::Context, why: NotServing) -> Self::Answer;

    /// What is said in place of an answer whose write has failed.
    fn failed(answer: Self::Answer, error: ErrorCode) -> Self::Answer;
}
