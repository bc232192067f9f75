//! A log for tests.

use bytes::Bytes;

use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::{HardState, Log, LogStart};
use crate::membership::Membership;

/// Entries of term 1 up to `next`, nothing known to be committed.
pub(crate) struct Kept {
    next: RaftIndex,
    membership: (RaftIndex, Membership),
}

impl Kept {
    pub fn new(next: u64, voters: &[ReplicaId]) -> Kept {
        Kept { next: RaftIndex(next), membership: (RaftIndex(0), Membership::of_voters(voters)) }
    }

    /// Its membership came with the entry before `from`.
    pub fn since(mut self, from: u64) -> Kept {
        self.membership.0 = RaftIndex(from);
        self
    }
}

impl Log for Kept {
    fn start(&self) -> LogStart {
        LogStart::default()
    }

    fn next_index(&self) -> RaftIndex {
        self.next
    }

    fn durable_index(&self) -> RaftIndex {
        self.next
    }

    fn commit_index(&self) -> RaftIndex {
        RaftIndex(0)
    }

    fn terms(&self) -> Vec<(RaftIndex, Term)> {
        if self.next.0 == 0 { Vec::new() } else { vec![(RaftIndex(0), Term(1))] }
    }

    fn hard_state(&self) -> HardState {
        HardState { term: Term(1), vote: None }
    }

    fn membership(&self) -> (RaftIndex, Membership) {
        self.membership.clone()
    }

    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)> {
        Vec::new()
    }
}
