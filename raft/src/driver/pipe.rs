//! What one follower is still to be sent, and what it owes an answer for.

use std::collections::VecDeque;

use crate::core::AppendOrder;
use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::Entry;

/// Raft orders ranges; they leave as there is room for their bytes.
pub(super) struct Pipe {
    pub to: ReplicaId,
    pub term: Term,
    /// The first entry that is not sent, and the term before it.
    pub next: RaftIndex,
    pub term_before: Term,
    pub end: RaftIndex,
    /// An append without entries is to go: what is committed, or whether the logs match.
    pub notice: bool,
    /// Raft asks whether the logs match: what goes next is answered.
    asks: bool,
    /// It is not known where the logs match: one frame goes at a time.
    probing: bool,
    /// Ends and bytes of what is sent and not answered.
    in_flight: VecDeque<(RaftIndex, u64)>,
    pub bytes: u64,
    /// The shard reads entries from there.
    pub reading: Option<RaftIndex>,
}

impl Pipe {
    pub fn new(order: &AppendOrder) -> Pipe {
        Pipe {
            to: order.to,
            term: order.term,
            next: order.start,
            term_before: order.term_before,
            end: order.end,
            notice: order.start == order.end,
            asks: !order.quiet,
            probing: true,
            in_flight: VecDeque::new(),
            bytes: 0,
            reading: None,
        }
    }

    /// True: it begins anew, and what was in flight counts no more.
    pub fn order(&mut self, order: &AppendOrder) -> bool {
        let goes_on = order.term == self.term && order.start == self.end;
        if goes_on {
            self.notice |= order.start == order.end;
            self.asks |= !order.quiet;
            self.end = order.end;
        } else {
            *self = Pipe::new(order);
        }
        !goes_on
    }

    pub fn wants(&self) -> bool {
        self.reading.is_none() && (self.notice || self.wants_entries())
    }

    pub fn wants_entries(&self) -> bool {
        self.next < self.end && (!self.probing || self.in_flight.is_empty())
    }

    /// What goes without entries needs no answer.
    pub fn is_quiet(&self) -> bool {
        !self.probing && !self.asks
    }

    pub fn sent(&mut self, entries: &[Entry]) -> u64 {
        (self.notice, self.asks) = (false, false);
        let Some(last) = entries.last() else { return 0 };
        let bytes = entries.iter().map(|entry| entry.bytes.len() as u64).sum();
        self.next = last.index.next();
        self.term_before = last.term;
        self.in_flight.push_back((self.next, bytes));
        self.bytes += bytes;
        bytes
    }

    /// The follower has all below `end`. Says how many bytes are in flight no more.
    pub fn matched(&mut self, end: RaftIndex) -> u64 {
        self.probing = false;
        let mut freed = 0;
        while let Some(&(sent, bytes)) = self.in_flight.front().filter(|&&(sent, _)| sent <= end) {
            debug_assert!(sent <= self.next);
            self.in_flight.pop_front();
            freed += bytes;
        }
        self.bytes -= freed;
        freed
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.next == self.end && !self.notice
    }
}
