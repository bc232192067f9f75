//! What a log asks of, and tells, the Raft group that it belongs to.

use super::{Log, State};
use crate::ids::{LogId, RaftIndex};
use crate::log::entries::{Entry, Taken, take_from_tail};
use crate::terms::TermStart;
use bytes::Bytes;
use corelog_wire::records::BatchHeader;
use std::rc::Rc;

/// Says of a log that a quorum commits whether a batch may take its place.
pub trait Leads {
    /// The batch is about to take `index`, in the leader epoch that its header bears: group and log take it in one step, or
    /// neither does. Nothing here may ask the log anything.
    ///
    /// # Errors
    /// Why not, for whoever wanted it appended.
    fn take(&self, log: LogId, index: RaftIndex, header: &BatchHeader, bytes: &Bytes)
    -> Result<(), NotTaken>;
}

/// The group does not take the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// This replica does not lead, or not in this term, or hands its leadership over.
    NotLeading,
    /// A change of its replicas that can't be made, or not now.
    Change(String),
}

impl Log {
    /// Who is asked for each batch that is appended; of a log without one the leader epoch decides alone.
    pub fn lead_by(&self, leads: Option<Rc<dyn Leads>>) {
        *self.leads.borrow_mut() = leads;
    }

    /// As [`Log::entries`], as far as they are in memory; `None` if the first is not.
    pub fn entries_in_memory(&self, from: RaftIndex, to: RaftIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        let mut taken = Taken::new(from, to, bytes_max);
        take_from_tail(&self.state.borrow(), &mut taken);
        (!taken.entries.is_empty()).then_some(taken.entries)
    }

    /// Where each term begins of which entries are kept, durable ones.
    pub fn term_starts(&self) -> Vec<TermStart> {
        self.state.borrow().terms.starts().to_vec()
    }

    /// The Kafka offset that a batch at `index` has, or would have; `None` of what is committed or beyond the log's end.
    pub fn offset_at(&self, index: RaftIndex) -> Option<i64> {
        let state = self.state.borrow();
        (index >= state.committed.index && index <= state.next.index).then(|| state.end_at_or_next(index))
    }
}

impl State {
    fn end_at_or_next(&self, index: RaftIndex) -> i64 {
        if index == self.next.index { self.next.offset } else { self.end_at(index).offset }
    }
}
