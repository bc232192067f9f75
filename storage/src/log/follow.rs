//! A follower's append: entries that a leader has given their places are taken as they are, or not at all.

use super::append::Placed;
use super::entries::Entry;
use super::{BatchKind, Log, State};
use crate::batch;
use crate::error::FollowError;
use crate::format::entry::entry_span;
use crate::ids::RaftIndex;
use crate::journal::Durable;
use corelog_io::{worked, yield_if_needed};
use corelog_wire::records::BatchHeader;

/// Entries that are in the log.
#[must_use = "they are acknowledged when `durable` completes"]
pub struct Accepted {
    /// The index after the last of them.
    pub next: RaftIndex,
    /// How many of them were not there before.
    pub appended: usize,
    /// Completes when all of them are on stable storage.
    pub durable: Durable,
}

impl Log {
    /// Appends what a leader has in its log from `prev` on: the index of the first entry, and the term of the one before
    /// it. Entries that are here already are skipped; what is here in another term is cut off first, with all that follows.
    ///
    /// The entries may come from anywhere: each is checked by itself (size, checksum, the offsets it takes), in its order
    /// (index, term), and against the log (base offset). One that is refused leaves those before it in the log.
    ///
    /// # Errors
    /// [`FollowError::Gap`] says what the leader is to send instead.
    pub async fn append_entries(
        &self,
        prev: (RaftIndex, i32),
        entries: &[Entry],
    ) -> Result<Accepted, FollowError> {
        let mut headers = Vec::with_capacity(entries.len());
        let (mut index, mut term) = prev;
        for entry in entries {
            headers.push(self.check_entry(entry, index, term)?);
            (index, term) = (index.next(), entry.term);
            worked(entry.bytes.len());
            yield_if_needed().await;
        }
        let known = self.state.borrow().matching(self, prev, entries)?;
        let new = entries.iter().zip(&headers).skip(known);
        if let Some((first, _)) = new.clone().next()
            && first.index < self.next_index()
        {
            // The leader's own term, not told here, is the highest of all.
            let term = self.state.borrow().next.term.max(first.term);
            // Durable before what is appended behind it.
            let _cut = self.truncate(first.index, term).await?;
        }
        for (entry, header) in new {
            let span = entry_span(entry.bytes.len());
            let kind = BatchKind::Coordinator;
            let _turn = self.shard.admit(span, span, || self.check_space(kind)).await?;
            self.follow(entry, header)?;
        }
        let durable = self.durable_before(index);
        Ok(Accepted { next: index, appended: entries.len() - known, durable })
    }

    /// What can be said of an entry by itself, where one at `index` is expected, of `term` or later.
    fn check_entry(&self, entry: &Entry, index: RaftIndex, term: i32) -> Result<BatchHeader, FollowError> {
        let invalid = |what: String| Err(FollowError::Invalid { index, what });
        if entry.index != index {
            return invalid(format!("the entry is for Raft index {}", entry.index));
        }
        if entry.term < term.max(0) {
            return invalid(format!("term {} follows term {term}", entry.term));
        }
        let header = match BatchHeader::parse(&entry.bytes) {
            Ok(header) => header,
            Err(error) => return invalid(error.to_string()),
        };
        if header.size() != entry.bytes.len() {
            let given = entry.bytes.len();
            return invalid(format!("the batch states {} bytes, {given} were given", header.size()));
        }
        if header.partition_leader_epoch != entry.term {
            let epoch = header.partition_leader_epoch;
            return invalid(format!("the batch bears leader epoch {epoch}, the entry term {}", entry.term));
        }
        if header.base_offset < 0 || !batch::takes_its_offsets(&header) {
            let (base, delta) = (header.base_offset, header.last_offset_delta);
            return invalid(format!("base offset {base} with a last offset delta of {delta}"));
        }
        if !batch::crc_matches([&entry.bytes[..]]) {
            return invalid("the batch's checksum does not match".into());
        }
        let max = self.shard.journal.payload_max();
        if entry.bytes.len() > max {
            return invalid(format!(
                "the batch has {} bytes; a journal group holds {max}",
                entry.bytes.len()
            ));
        }
        Ok(header)
    }

    /// The entry takes its place, if the log still ends there. Nothing is awaited.
    fn follow(&self, entry: &Entry, header: &BatchHeader) -> Result<(), FollowError> {
        let state = &mut *self.state.borrow_mut();
        state.check_writable(self.id)?;
        state.check_appendable()?;
        let end = state.next;
        let index = entry.index;
        if end.index != index {
            // Another wrote to the log meanwhile.
            return Err(state.gap(self, index, None));
        }
        if end.offset != header.base_offset || end.term > entry.term {
            let what = format!(
                "it begins at offset {} in term {}; the log ends at offset {}, in term {}",
                header.base_offset, entry.term, end.offset, end.term
            );
            return Err(FollowError::Invalid { index, what });
        }
        let placed = Placed { header, claim: batch::claim(header), head: &[], rest: &entry.bytes };
        let _ = self.put(state, placed);
        Ok(())
    }

    /// Completes when every entry below `index` is durable.
    fn durable_before(&self, index: RaftIndex) -> Durable {
        let state = self.state.borrow();
        let last = index.0.checked_sub(1).map(RaftIndex).filter(|last| *last >= state.durable.index);
        match last.and_then(|last| state.tail.at_index(last)) {
            Some(batch) => self.shard.journal.durable(batch.sequence),
            None => Durable::already(),
        }
    }
}

impl State {
    /// How many of `entries` the log has already. What follows them here is not committed, if anything does and any is left.
    fn matching(&self, log: &Log, prev: (RaftIndex, i32), entries: &[Entry]) -> Result<usize, FollowError> {
        self.check_writable(log.id)?;
        let (index, term) = prev;
        let (first, next) = (self.terms.first(), self.next.index);
        if index > next || self.term_before(index).is_some_and(|known| known != term) {
            return Err(self.gap(log, index, Some(term)));
        }
        // What is below the first entry was committed, here and at the leader.
        let is_known = |entry: &&Entry| {
            entry.index < first || (entry.index < next && self.term_at(entry.index) == Some(entry.term))
        };
        let known = entries.iter().take_while(is_known).count();
        match entries.get(known) {
            Some(entry) if entry.index < self.committed.index => {
                let (index, term, committed) = (entry.index, entry.term, self.committed.index);
                let known = self.term_at(index).unwrap_or(crate::NO_TERM);
                Err(FollowError::Committed { index, term, known, committed })
            }
            _ => Ok(known),
        }
    }

    /// The term of the entry before `index`; `None` if it is not known any more.
    pub(super) fn term_before(&self, index: RaftIndex) -> Option<i32> {
        if index == self.terms.first() {
            return Some(self.terms.before());
        }
        self.term_at(RaftIndex(index.0.checked_sub(1)?))
    }

    fn gap(&self, log: &Log, index: RaftIndex, term: Option<i32>) -> FollowError {
        let known = self.term_before(index);
        FollowError::Gap { log: log.id, index, term, known, next: self.next.index }
    }
}
