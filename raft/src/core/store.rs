//! The log as raft-rs reads it: terms, no bytes.

use std::cell::RefCell;

use raft::eraftpb::{ConfState, Entry, EntryType, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::{HardState, Log, LogStart};
use crate::message::SnapshotOffer;
use crate::terms::Terms;

use super::convert;

/// All answers come from memory at once, whichever entries are on disk only: raft-rs has nothing to wait for.
pub(super) struct Store {
    pub terms: Terms,
    initial: RaftState,
    /// Where there are membership changes that are not committed.
    changes: Vec<RaftIndex>,
    /// raft-rs asks for snapshots through a shared reference.
    snapshots: RefCell<Snapshots>,
}

#[derive(Default)]
struct Snapshots {
    offer: Option<(ReplicaId, Snapshot)>,
    wanted: Vec<ReplicaId>,
}

impl Store {
    pub fn new(log: &impl Log, terms: Terms) -> Store {
        let mut initial = RaftState::default();
        let mut hard_state = log.hard_state();
        let of_log = terms.before(terms.next()).unwrap_or_default();
        if hard_state.term < of_log {
            // A crash between the two. Nothing was said in that term before its hard state was durable.
            hard_state = HardState { term: of_log, vote: None };
        }
        initial.hard_state.term = hard_state.term.0 as u64;
        initial.hard_state.vote = hard_state.vote.map_or(raft::INVALID_ID, |vote| vote.0);
        initial.hard_state.commit = crate::log::committed(log).0;
        initial.conf_state = convert::conf_state(&log.membership().1);
        let changes = log.membership_entries().iter().map(|&(index, _)| index).collect();
        Store { terms, initial, changes, snapshots: RefCell::default() }
    }

    pub fn put(&mut self, entries: &[(RaftIndex, Term)], changes: &[RaftIndex]) {
        let first = entries[0].0;
        self.changes.retain(|&index| index < first);
        self.changes.extend_from_slice(changes);
        entries.iter().for_each(|&(index, term)| self.terms.put(index, term));
    }

    pub fn forget_changes_below(&mut self, end: RaftIndex) {
        self.changes.retain(|&index| index >= end);
    }

    pub fn begin_after(&mut self, offer: &SnapshotOffer) {
        self.terms.reset(LogStart { first: offer.end, term_before: offer.term });
        self.changes.clear();
    }

    pub fn set_offer(&mut self, to: ReplicaId, offer: &SnapshotOffer) {
        self.snapshots.get_mut().offer = Some((to, snapshot(offer)));
    }

    pub fn clear_offer(&mut self) {
        self.snapshots.get_mut().offer = None;
    }

    pub fn take_wanted(&mut self) -> Vec<ReplicaId> {
        std::mem::take(&mut self.snapshots.get_mut().wanted)
    }

    fn entry(&self, raft_index: u64) -> Entry {
        let index = RaftIndex(raft_index - 1);
        let term = self.terms.at(index).expect("an entry of this log");
        let mut entry = Entry { index: raft_index, term: term.0 as u64, ..Entry::default() };
        if self.changes.contains(&index) {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        entry
    }
}

pub(super) fn snapshot(offer: &SnapshotOffer) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = offer.end.0;
    metadata.term = offer.term.0 as u64;
    let state: ConfState = convert::conf_state(&offer.membership);
    metadata.set_conf_state(state);
    snapshot
}

impl Storage for Store {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.terms.first().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        // Twelve bytes are the least that raft-rs counts for one; it cuts the list to size itself.
        let at_most = max_size.into().map_or(high - low, |size| (size / 12).max(1));
        Ok((low..high.min(low + at_most)).map(|index| self.entry(index)).collect())
    }

    fn term(&self, raft_index: u64) -> Result<u64> {
        if raft_index < self.terms.first().0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.terms.before(RaftIndex(raft_index)) {
            Some(term) => Ok(term.0 as u64),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.terms.first().0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.terms.next().0)
    }

    fn snapshot(&self, _: u64, to: u64) -> Result<Snapshot> {
        let mut snapshots = self.snapshots.borrow_mut();
        let to = ReplicaId(to);
        match &snapshots.offer {
            Some((replica, snapshot)) if *replica == to => return Ok(snapshot.clone()),
            _ if !snapshots.wanted.contains(&to) => snapshots.wanted.push(to),
            _ => {}
        }
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
