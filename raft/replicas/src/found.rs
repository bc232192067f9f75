//! A log as its group finds it when it opens.

use bytes::Bytes;
use corelog_io::yield_if_needed;
use corelog_raft::{EntryKind, HardState, LogStart, Membership, RaftIndex, ReplicaId, Term};
use corelog_storage::{EntriesError, Log, NO_TERM};

use crate::{CannotOpen, entries};

/// Bytes of entries that are looked through at a time.
const READ_BYTES: usize = 1 << 20;

pub struct Found {
    start: LogStart,
    next: RaftIndex,
    durable: RaftIndex,
    committed: RaftIndex,
    terms: Vec<(RaftIndex, Term)>,
    hard_state: HardState,
    membership: (RaftIndex, Membership),
    changes: Vec<(RaftIndex, Bytes)>,
}

pub fn term(term: i32) -> Term {
    Term(if term == NO_TERM { 0 } else { term })
}

pub fn index(index: corelog_storage::RaftIndex) -> RaftIndex {
    RaftIndex(index.0)
}

impl Found {
    pub async fn read(log: &Log, founders: &Membership) -> Result<Found, CannotOpen> {
        loop {
            let first = log.first_index();
            match Found::try_read(log, founders).await {
                // Which one is first a log learns when it looks for one that is gone.
                Err(CannotOpen::Read(EntriesError::Compacted { .. })) if log.first_index() > first => {}
                found => return found,
            }
        }
    }

    async fn try_read(log: &Log, founders: &Membership) -> Result<Found, CannotOpen> {
        let first = log.first_index();
        let membership = match log.membership() {
            Some(kept) => {
                let decoded = Membership::decode(&kept.bytes);
                let decoded = decoded.ok_or(CannotOpen::Membership("its bytes are no membership"))?;
                (index(kept.index).max(index(first)), decoded)
            }
            None => (index(first), founders.clone()),
        };
        let hard_state = log.hard_state();
        Ok(Found {
            start: LogStart { first: index(first), term_before: term(log.term_before_first()) },
            next: index(log.next_index()),
            durable: index(log.durable_index()),
            committed: index(log.commit_index()).max(index(first)),
            terms: terms(log, first),
            hard_state: HardState {
                term: term(hard_state.term),
                vote: u64::try_from(hard_state.vote).ok().filter(|vote| *vote > 0).map(ReplicaId),
            },
            changes: changes(log, membership.0).await?,
            membership,
        })
    }
}

/// Where each term begins, of those that have an entry from `first` on: a log knows its last term when its entries are gone.
fn terms(log: &Log, first: corelog_storage::RaftIndex) -> Vec<(RaftIndex, Term)> {
    let starts = log.term_starts();
    let ends = starts.iter().skip(1).map(|next| next.index).chain([log.next_index()]);
    let kept = starts.iter().zip(ends).filter(|(start, end)| start.index.max(first) < *end);
    kept.map(|(start, _)| (index(start.index.max(first)), term(start.term))).collect()
}

/// The changes of its replicas that a log has from `from` on.
async fn changes(log: &Log, from: RaftIndex) -> Result<Vec<(RaftIndex, Bytes)>, CannotOpen> {
    let (mut at, mut changes) = (corelog_storage::RaftIndex(from.0), Vec::new());
    while at < log.next_index() {
        let found = log.entries(at, log.next_index(), READ_BYTES).await?;
        let Some(last) = found.last() else { break };
        at = last.index.next();
        let own = found.iter().filter_map(entries::from_log);
        let own = own.filter(|entry| entry.kind == EntryKind::Membership);
        changes.extend(own.map(|entry| (entry.index, entry.bytes)));
        yield_if_needed().await;
    }
    Ok(changes)
}

impl corelog_raft::Log for Found {
    fn start(&self) -> LogStart {
        self.start
    }

    fn next_index(&self) -> RaftIndex {
        self.next
    }

    fn durable_index(&self) -> RaftIndex {
        self.durable
    }

    fn commit_index(&self) -> RaftIndex {
        self.committed
    }

    fn terms(&self) -> Vec<(RaftIndex, Term)> {
        self.terms.clone()
    }

    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn membership(&self) -> (RaftIndex, Membership) {
        self.membership.clone()
    }

    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)> {
        self.changes.clone()
    }
}
