//! Where a state machine leaves what it wants done, and finds what it needs to decide: the time of this step, and the
//! records that are on their way.

use std::collections::VecDeque;
use std::fmt;

use super::machine::{RawRecord, Record, StateMachine};
use super::pending::Pending;
use super::timers::Timers;

/// Names one request from the time it is handed to the coordinator until its [`Effect::Respond`].
/// The caller chooses it; no two open requests of one coordinator bear the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Numbers the writes of one coordinator, from 0, in the order in which they go to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The time of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back: deadlines go by it.
    pub mono_ms: u64,
    /// The wall clock: it goes into records.
    pub wall_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect<A> {
    /// Append the records, behind those of every earlier write, with the given record timestamp (wall clock). To be
    /// reported on in the order of the ids.
    Append { id: WriteId, records: Vec<RawRecord>, timestamp_ms: i64 },
    /// Answer a request.
    Respond { ticket: Ticket, response: A },
}

/// A write that is on its way to the log.
pub(super) struct Write<M: StateMachine> {
    pub id: WriteId,
    /// Of its records, in their order.
    pub keys: Vec<<M::Record as Record>::Key>,
    /// Held until it is committed; replaced by a refusal when it fails.
    pub answer: Option<(Ticket, M::Answer)>,
    pub then: M::Then,
}

pub struct Desk<M: StateMachine> {
    pub now: Now,
    pub timers: Timers<M::Timer>,
    effects: Vec<Effect<M::Answer>>,
    writes: VecDeque<Write<M>>,
    pending: Pending<M::Record>,
    next_write: u64,
}

impl<M: StateMachine> Default for Desk<M> {
    fn default() -> Desk<M> {
        Desk {
            now: Now::default(),
            timers: Timers::default(),
            effects: Vec::new(),
            writes: VecDeque::new(),
            pending: Pending::default(),
            next_write: 0,
        }
    }
}

impl<M: StateMachine> Desk<M> {
    pub fn respond(&mut self, ticket: Ticket, response: M::Answer) {
        self.effects.push(Effect::Respond { ticket, response });
    }

    /// Sends records to the log. They change the state when they are committed; then the answer is given, and `then`
    /// follows.
    pub fn write(
        &mut self,
        records: Vec<M::Record>,
        answer: Option<(Ticket, M::Answer)>,
        then: impl FnOnce(&[RawRecord]) -> M::Then,
    ) -> WriteId {
        let id = self.next_write_id();
        self.next_write += 1;
        let raw: Vec<RawRecord> = records.iter().map(Record::encode).collect();
        let keys = records.iter().map(Record::key).collect();
        self.writes.push_back(Write { id, keys, answer, then: then(&raw) });
        for record in records {
            self.pending.push(id, record);
        }
        self.effects.push(Effect::Append { id, records: raw, timestamp_ms: self.now.wall_ms });
        id
    }

    /// Answers now, or when `write` is committed if there is one.
    pub fn respond_when_written(&mut self, write: Option<WriteId>, ticket: Ticket, response: M::Answer) {
        let pending = write.and_then(|id| self.writes.iter_mut().rev().find(|pending| pending.id == id));
        match pending {
            Some(pending) => pending.answer = Some((ticket, response)),
            None => self.respond(ticket, response),
        }
    }

    /// The records on their way.
    pub fn pending(&self) -> &Pending<M::Record> {
        &self.pending
    }

    /// The id that the next write will bear.
    pub fn next_write_id(&self) -> WriteId {
        WriteId(self.next_write)
    }

    /// Whether the write is on its way: neither committed nor refused.
    pub fn is_pending(&self, write: WriteId) -> bool {
        self.writes.binary_search_by_key(&write, |pending| pending.id).is_ok()
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect<M::Answer>> {
        std::mem::take(&mut self.effects)
    }

    /// Takes the write that is committed.
    ///
    /// # Panics
    /// When writes are reported out of their order: the state would then differ from the log.
    pub(super) fn take_committed(&mut self, id: WriteId) -> Write<M> {
        let write = self.writes.pop_front().expect("a write that is reported on is on its way");
        assert_eq!(write.id, id, "writes are reported on in their order");
        write
    }

    /// Takes the next record of the key, which is one of the committed write.
    pub(super) fn take_record(&mut self, key: <M::Record as Record>::Key, committed: WriteId) -> M::Record {
        self.pending.take_first(key, committed)
    }

    /// Takes the writes from `first` on, in their order, and drops their records.
    pub(super) fn take_refused(&mut self, first: WriteId) -> Vec<Write<M>> {
        let kept = self.writes.partition_point(|write| write.id < first);
        let refused = self.writes.split_off(kept);
        for key in refused.iter().flat_map(|write| &write.keys) {
            self.pending.drop_from(key, first);
        }
        refused.into()
    }
}

impl<M: StateMachine> fmt::Debug for Desk<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("now", &self.now)
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl<M: StateMachine> Desk<M> {
    pub fn thens(&self) -> impl Iterator<Item = &M::Then> {
        self.writes.iter().map(|write| &write.then)
    }
}
