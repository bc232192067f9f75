//! A replica's log on a disk that is slow and forgets what was not synced.

use bytes::Bytes;
use corelog_raft::*;

/// What a sync that is under way will have made durable.
enum Write {
    Entries(Vec<Entry>),
    HardState(HardState),
}

pub struct Disk {
    pub start: LogStart,
    /// From `start` on, as the shard sees them.
    pub entries: Vec<Entry>,
    durable: Vec<Entry>,
    hard_state: HardState,
    writes: Vec<(u64, Write)>,
    /// Each with the index from which it holds; the last two.
    memberships: Vec<(RaftIndex, Membership)>,
    pub committed: RaftIndex,
    /// What a restart knows to be committed.
    checkpoint: RaftIndex,
}

/// What became durable.
pub enum Synced {
    Entries(RaftIndex, Term),
    HardState(HardState),
}

impl Disk {
    pub fn new(membership: Membership) -> Disk {
        Disk {
            start: LogStart::default(),
            entries: Vec::new(),
            durable: Vec::new(),
            hard_state: HardState::default(),
            writes: Vec::new(),
            memberships: vec![(RaftIndex(0), membership)],
            committed: RaftIndex(0),
            checkpoint: RaftIndex(0),
        }
    }

    pub fn end(&self) -> RaftIndex {
        RaftIndex(self.start.first.0 + self.entries.len() as u64)
    }

    pub fn entry(&self, index: RaftIndex) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.start.first.0)? as usize)
    }

    pub fn append(&mut self, entries: Vec<Entry>, done_at: u64) -> Result<(), String> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        if first > self.end() || first < self.committed {
            return Err(format!("entries from {first} for a log of {} to {}", self.committed, self.end()));
        }
        self.entries.truncate((first.0 - self.start.first.0) as usize);
        self.entries.extend(entries);
        self.writes.push((done_at, Write::Entries(self.entries.clone())));
        Ok(())
    }

    pub fn save(&mut self, hard_state: HardState, done_at: u64) {
        self.writes.push((done_at, Write::HardState(hard_state)));
    }

    pub fn set_membership(&mut self, index: RaftIndex, membership: Membership) {
        self.memberships.push((index, membership));
        if self.memberships.len() > 2 {
            self.memberships.remove(0);
        }
    }

    /// Syncs that are done, in order.
    pub fn synced(&mut self, now: u64) -> Vec<Synced> {
        let done = self.writes.iter().take_while(|&&(at, _)| at <= now).count();
        let done: Vec<_> = self.writes.drain(..done).collect();
        done.into_iter().filter_map(|(_, write)| self.sync(write)).collect()
    }

    fn sync(&mut self, write: Write) -> Option<Synced> {
        match write {
            Write::Entries(entries) => {
                let last = entries.last().map(|entry| (entry.index.next(), entry.term));
                self.durable = entries;
                // Of entries that were cut since nothing is told: the log they are durable in is gone.
                let (end, term) = last?;
                let kept = self.entry(RaftIndex(end.0 - 1)).is_some_and(|entry| entry.term == term);
                kept.then_some(Synced::Entries(end, term))
            }
            Write::HardState(hard_state) => {
                self.hard_state = hard_state;
                Some(Synced::HardState(hard_state))
            }
        }
    }

    /// Some of what was being written made it, the last of it in part.
    pub fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.writes.len() as u64 + 1) as usize;
        let mut writes = std::mem::take(&mut self.writes);
        let torn = (kept < writes.len()).then(|| writes.remove(kept).1);
        writes.truncate(kept);
        for (_, write) in writes {
            self.sync(write);
        }
        if let Some(Write::Entries(entries)) = torn {
            let same = self.durable.iter().zip(&entries).take_while(|(a, b)| a == b).count();
            let more = random.below((entries.len() - same) as u64 + 1) as usize;
            if more > 0 {
                self.durable = entries[..same + more].to_vec();
            }
        }
        self.entries = self.durable.clone();
        // An older checkpoint, as long as the log has what came after it.
        let latest = self.membership().0;
        if self.memberships.len() > 1 && latest > self.start.first && random.below(3) == 0 {
            self.memberships.pop();
        }
        let known = self.committed.min(self.end()).0;
        let from = self.checkpoint.0.max(self.start.first.0);
        self.checkpoint = RaftIndex(from + random.below(known.saturating_sub(from) + 1));
        self.committed = self.checkpoint;
    }

    pub fn forget_vote(&mut self) {
        self.hard_state.vote = None;
    }

    /// Retention.
    pub fn drop_below(&mut self, first: RaftIndex) {
        if first <= self.start.first {
            return;
        }
        let drop = (first.0 - self.start.first.0) as usize;
        self.start = LogStart { first, term_before: self.entries[drop - 1].term };
        let below = |entry: &Entry| entry.index < first;
        self.entries.retain(|entry| !below(entry));
        self.durable.retain(|entry| !below(entry));
        for (_, write) in &mut self.writes {
            if let Write::Entries(entries) = write {
                entries.retain(|entry| !below(entry));
            }
        }
        self.checkpoint = self.checkpoint.max(first);
    }

    pub fn reset(&mut self, offer: &SnapshotOffer) {
        self.start = LogStart { first: offer.end, term_before: offer.term };
        self.entries.clear();
        self.durable.clear();
        self.writes.retain(|(_, write)| matches!(write, Write::HardState(_)));
        self.memberships = vec![(offer.end, offer.membership.clone())];
        (self.committed, self.checkpoint) = (offer.end, offer.end);
    }
}

impl Log for Disk {
    fn start(&self) -> LogStart {
        self.start
    }

    fn next_index(&self) -> RaftIndex {
        self.end()
    }

    fn durable_index(&self) -> RaftIndex {
        self.end()
    }

    fn commit_index(&self) -> RaftIndex {
        self.checkpoint.max(self.start.first)
    }

    fn terms(&self) -> Vec<(RaftIndex, Term)> {
        let mut terms: Vec<(RaftIndex, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        terms
    }

    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn membership(&self) -> (RaftIndex, Membership) {
        self.memberships.last().expect("the founding one").clone()
    }

    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)> {
        let from = self.membership().0;
        let changes =
            self.entries.iter().filter(|entry| entry.kind == EntryKind::Membership && entry.index >= from);
        changes.map(|entry| (entry.index, entry.bytes.clone())).collect()
    }
}
