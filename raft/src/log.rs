//! What a group needs of the log that it replicates.

use bytes::Bytes;

use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::membership::Membership;

/// What an entry is. The log keeps all but [`EntryKind::Batch`] as internal batches, which take no Kafka offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// One record batch.
    Batch,
    /// The first of each term: with it a leader commits what earlier ones left.
    TermStart,
    /// A change of the group's replicas, in [`crate::membership::Change`]'s encoding.
    Membership,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub index: RaftIndex,
    pub term: Term,
    pub kind: EntryKind,
    pub bytes: Bytes,
}

/// What must be durable before a vote or an append of this term is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    pub vote: Option<ReplicaId>,
}

/// What is known to be committed: a membership is kept once its change is, and so is all before it that there is here. It may
/// hold from behind the log's end, if it came with another replica's segments.
pub(crate) fn committed(log: &impl Log) -> RaftIndex {
    log.commit_index().max(log.membership().0.min(log.next_index()))
}

/// Where a kept log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStart {
    pub first: RaftIndex,
    /// The term of the entry before it.
    pub term_before: Term,
}

/// A log as its group finds it when it opens. All of it is in memory: nothing here may block.
pub trait Log {
    fn start(&self) -> LogStart;
    fn next_index(&self) -> RaftIndex;
    fn durable_index(&self) -> RaftIndex;
    /// Below this all is known to be committed: at least the start, more where a durable record proves it. A kept membership
    /// proves it too, and need not be counted in.
    fn commit_index(&self) -> RaftIndex;
    /// Each term of the kept entries with the first index it has there, in order.
    fn terms(&self) -> Vec<(RaftIndex, Term)>;
    fn hard_state(&self) -> HardState;
    /// The membership that holds for all entries below its index.
    fn membership(&self) -> (RaftIndex, Membership);
    /// The entries of kind [`EntryKind::Membership`] from that index on.
    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)>;
}

/// The logs of a shard, as its driver reads them to send.
pub trait Logs {
    /// The entries from `from` below `to`, at least one, no more than `max_bytes` of them otherwise. `None`: they are not
    /// in memory; the shard reads them and calls [`crate::Driver::entries_read`].
    fn entries(
        &mut self,
        group: crate::GroupId,
        from: RaftIndex,
        to: RaftIndex,
        max_bytes: u64,
    ) -> Option<Vec<Entry>>;
}
