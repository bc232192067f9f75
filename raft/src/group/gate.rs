//! What waits for stable storage.

use crate::core::Said;
use crate::ids::RaftIndex;
use crate::log::HardState;
use crate::message::{Body, Outcome};

use super::Output;

/// Holds every message until the term and vote that it speaks with are durable, and an answer to an append until the
/// entries are, too. A leader's appends wait for its term alone: its own log and its followers' sync at the same time.
pub(super) struct Gate {
    asked: HardState,
    saved: HardState,
    /// The log is durable below this.
    durable: RaftIndex,
    next: RaftIndex,
    /// Entries were replaced in the output that nobody took yet: what is durable is told of the log before.
    cut: bool,
    held: Vec<Held>,
}

struct Held {
    said: Said,
    hard_state: HardState,
    end: RaftIndex,
}

impl HardState {
    /// Whether with this on stable storage a crash forgets nothing of `needed`.
    fn covers(&self, needed: HardState) -> bool {
        self.term > needed.term
            || (self.term == needed.term && (needed.vote.is_none() || self.vote == needed.vote))
    }
}

impl Gate {
    pub fn new(saved: HardState, durable: RaftIndex) -> Gate {
        Gate { asked: saved, saved, durable, next: durable, cut: false, held: Vec::new() }
    }

    /// Entries from `first` to `next` join the log, in place of what it had from `first` on.
    pub fn append(&mut self, first: RaftIndex, next: RaftIndex) {
        if first < self.next {
            self.cut = true;
            self.durable = self.durable.min(first);
            // An answer for what is replaced is true no more.
            self.held.retain(|held| held.end <= first);
        }
        self.next = next;
    }

    pub fn begin_anew(&mut self, end: RaftIndex) {
        (self.durable, self.next) = (end, end);
        self.held.retain(|held| held.end == RaftIndex(0));
    }

    pub fn handed_over(&mut self) {
        self.cut = false;
    }

    pub fn durable(&mut self, end: RaftIndex) {
        if !self.cut {
            self.durable = self.durable.max(end.min(self.next));
        }
    }

    /// True once for each that differs from the last.
    pub fn must_save(&mut self, hard_state: HardState) -> bool {
        std::mem::replace(&mut self.asked, hard_state) != hard_state
    }

    pub fn hard_state_durable(&mut self, saved: HardState) {
        if saved.covers(self.saved) {
            self.saved = saved;
        }
    }

    /// What of the log may be counted: nothing new before the term that it was written in is durable.
    pub fn persisted(&self) -> Option<RaftIndex> {
        self.saved.covers(self.asked).then_some(self.durable)
    }

    pub fn all_durable(&self) -> bool {
        self.durable == self.next && self.saved.covers(self.asked)
    }

    pub fn say(&mut self, said: Said, hard_state: HardState) {
        let end = match &said {
            Said::Message(message) => match message.body {
                Body::AppendAnswer(answer) => match answer.outcome {
                    Outcome::Matched { end } => end,
                    Outcome::Mismatch { .. } => RaftIndex(0),
                },
                _ => RaftIndex(0),
            },
            Said::Append(_) => RaftIndex(0),
        };
        self.held.push(Held { said, hard_state, end });
    }

    /// Moves what may be said to `output`, in order.
    pub fn release(&mut self, output: &mut Output) {
        let (saved, durable) = (self.saved, self.durable);
        let may_go = |held: &mut Held| saved.covers(held.hard_state) && held.end <= durable;
        for held in self.held.extract_if(.., may_go) {
            match held.said {
                Said::Append(order) => output.orders.push(order),
                Said::Message(message) => output.messages.push(message),
            }
        }
    }
}
