//! Whether a message keeps the rules that raft-rs would panic over.

use crate::log::Entry;
use crate::message::Append;

use super::*;

impl Core {
    /// Whether this message keeps the rules that raft-rs would panic over.
    pub fn check(&self, message: &Message) -> Result<(), Violation> {
        let malformed = |what| Err(Violation::Malformed { from: message.from, what });
        let (from, term) = (message.from, message.term);
        if from.0 == 0 || from == self.id || term <= Term(0) || term > TERM_MAX {
            return malformed("a message of a term or replica that can't be");
        }
        match &message.body {
            Body::Append(append) => self.check_append(from, term, append),
            Body::Heartbeat(beat) if term >= self.term() && beat.committed > self.terms().next() => {
                let (committed, next) = (beat.committed, self.terms().next());
                Err(Violation::Forgotten { from, term, committed, next })
            }
            Body::AppendAnswer(answer) => match answer.outcome {
                Outcome::Matched { end } if self.leads_in(term) && end > self.terms().next() => {
                    malformed("an answer for entries that were not sent")
                }
                Outcome::Mismatch { start, hint, .. } if start.0 > INDEX_MAX || hint.0 > INDEX_MAX => {
                    malformed("an answer with an index out of range")
                }
                _ => Ok(()),
            },
            Body::SnapshotOffer(offer) if offer.end.0 > INDEX_MAX || offer.term > term => {
                malformed("a snapshot out of range")
            }
            _ => Ok(()),
        }
    }

    fn leads_in(&self, term: Term) -> bool {
        self.role() == Role::Leader && term == self.term()
    }

    fn check_append(&self, from: ReplicaId, term: Term, append: &Append) -> Result<(), Violation> {
        let malformed = |what| Err(Violation::Malformed { from, what });
        if append.start.0 > INDEX_MAX {
            return malformed("an append with an index out of range");
        }
        if self.leads_in(term) {
            return malformed("an append in a term that this replica leads");
        }
        let mut before = append.term_before;
        for (at, entry) in append.entries.iter().enumerate() {
            if entry.index.0 != append.start.0 + at as u64 || entry.term < before || entry.term > term {
                return malformed("entries whose indexes or terms are out of order");
            }
            before = entry.term;
        }
        if term < self.term() || self.is_mismatch(term, append) {
            return Ok(());
        }
        let committed = self.committed();
        let replaced = |entry: &&Entry| {
            entry.index < committed && self.terms().at(entry.index).is_some_and(|kept| kept != entry.term)
        };
        match append.entries.iter().find(replaced) {
            Some(entry) => Err(Violation::CommittedReplaced { from, term, index: entry.index, committed }),
            None => Ok(()),
        }
    }

    pub(super) fn is_mismatch(&self, term: Term, append: &Append) -> bool {
        term >= self.term()
            && append.start >= self.committed()
            && self.terms().before(append.start) != Some(append.term_before)
    }
}
