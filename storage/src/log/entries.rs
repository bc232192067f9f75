//! What replication reads of a log: its entries by Raft index, and their terms.

use super::read::{Hint, wrong_term};
use super::{Log, State, lookup};
use crate::error::{EntriesError, StorageError};
use crate::ids::RaftIndex;
use crate::segment::{Found, INTERVAL, Scanner, SegmentSpan, check_header};
use bytes::Bytes;
use corelog_io::{worked, yield_if_needed};
use corelog_wire::records::BatchHeader;

/// One batch as Raft knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub index: RaftIndex,
    /// The leader epoch that the batch bears.
    pub term: i32,
    /// The batch, with the base offset it has in the log.
    pub bytes: Bytes,
}

/// Entries as they are gathered.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
    next: RaftIndex,
    to: RaftIndex,
}

impl Taken {
    /// Whether the next entry, of `size` bytes, is within the limits.
    fn takes(&self, size: usize) -> bool {
        self.next < self.to && (self.entries.is_empty() || self.bytes + size <= self.bytes_max)
    }

    fn push(&mut self, term: i32, bytes: Bytes) {
        self.bytes += bytes.len();
        self.entries.push(Entry { index: self.next, term, bytes });
        self.next = self.next.next();
    }

    fn bytes_left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes) as u64
    }
}

/// Where an entry is.
enum Place {
    Tail,
    Segments,
    /// In a segment, and the directory has not been looked at.
    Unseen,
}

impl Log {
    /// The first entry that is kept and given by index. Moves up as whole segments go.
    pub fn first_index(&self) -> RaftIndex {
        self.state.borrow().terms.first()
    }

    /// The term of the entry before [`Log::first_index`], [`crate::NO_TERM`] if there was none.
    pub fn term_before_first(&self) -> i32 {
        self.state.borrow().terms.before()
    }

    /// The term of the entry at `index`, durable or not; `None` below [`Log::first_index`] and from [`Log::next_index`] on.
    pub fn term_at(&self, index: RaftIndex) -> Option<i32> {
        self.state.borrow().term_at(index)
    }

    /// The entries from `from` to before `to`, or to the log's end, as far as they fit into `bytes_max`; the first in any
    /// case. Also those that are not durable yet. From memory, else from segments, verified: checksum, offsets, terms.
    ///
    /// # Errors
    /// `from` is below the first entry or not below the log's end; storage errors. Of damage the log is refused.
    pub async fn entries(
        &self,
        from: RaftIndex,
        to: RaftIndex,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, EntriesError> {
        let mut has_failed = false;
        if from >= to {
            return Ok(Vec::new());
        }
        loop {
            let cuts = self.cuts();
            let taken = Taken { entries: Vec::new(), bytes: 0, bytes_max, next: from, to };
            match self.gather(taken).await {
                Ok(mut entries) => {
                    // What was cut off meanwhile is not given.
                    let state = self.state.borrow();
                    let kept = entries.iter().take_while(|e| state.term_at(e.index) == Some(e.term)).count();
                    entries.truncate(kept);
                    if !entries.is_empty() {
                        return Ok(entries);
                    }
                }
                Err(EntriesError::Storage(_)) if self.was_cut_since(cuts).await => {}
                // It may have gone with its segment as it was read.
                Err(EntriesError::Storage(_)) if !has_failed => has_failed = true,
                Err(EntriesError::Storage(error)) => {
                    self.refuse_damage(&error);
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn gather(&self, mut taken: Taken) -> Result<Vec<Entry>, EntriesError> {
        loop {
            let place = match self.state.borrow().place_of(self, taken.next) {
                Err(_) if !taken.entries.is_empty() => return Ok(taken.entries),
                place => place?,
            };
            match place {
                Place::Unseen => self.ensure_loaded().await?,
                Place::Tail => {
                    take_from_tail(&self.state.borrow(), &mut taken);
                    return Ok(taken.entries);
                }
                Place::Segments => match self.gather_in_segment(&mut taken).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(taken.entries),
                    Err(_) if !taken.entries.is_empty() => return Ok(taken.entries),
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Goes on in the segment that holds the next entry. `true`: up to the segment's end.
    async fn gather_in_segment(&self, taken: &mut Taken) -> Result<bool, EntriesError> {
        let (segment, base_index) = self.segment_of(taken.next).await?;
        let sought = taken.next;
        let number = u32::try_from(sought.0 - base_index.0).unwrap_or(u32::MAX);
        let mut ahead = taken.bytes_left();
        let hint = self.hints.borrow_mut().find_number(number, segment.base_offset);
        let start = match hint.filter(|start| start.position < segment.end) {
            Some(start) => start,
            None => {
                ahead += INTERVAL;
                self.start_in(segment, |index| index.start_for_number(segment.base_offset, number)).await?
            }
        };
        let mut scanner = self.scanner(segment, start, ahead).await?;
        while let Some(header) = scanner.peek().await? {
            if base_index.0 + u64::from(scanner.at().number) < taken.next.0 {
                scanner.skip(&header);
                continue;
            }
            if !taken.takes(header.size()) {
                let hint = Hint { segment: segment.base_offset, next: scanner.at() };
                self.hints.borrow_mut().note(hint);
                return Ok(false);
            }
            let found = self.take_entry(&mut scanner, header, taken.next).await?;
            taken.push(header.partition_leader_epoch, lookup::whole(found.body));
            worked(header.size());
            yield_if_needed().await;
        }
        if taken.next == sought {
            let what = format!("the segment ends before Raft index {sought}, which it held");
            return Err(scanner.corrupt(segment.end, what).into());
        }
        Ok(true)
    }

    /// As `take`; the term must be the one that the history has at this index.
    async fn take_entry(
        &self,
        scanner: &mut Scanner,
        header: BatchHeader,
        index: RaftIndex,
    ) -> Result<Found, StorageError> {
        let found = scanner.take(header).await?;
        let known = self.state.borrow().terms.term_at(index);
        let (offset, epoch) = (header.base_offset, header.partition_leader_epoch);
        match known == Some(epoch) {
            true => Ok(found),
            false => Err(scanner.corrupt(found.position, wrong_term(offset, epoch, known))),
        }
    }

    /// The segment that holds the entry at `index`, and the index of its first.
    async fn segment_of(&self, index: RaftIndex) -> Result<(SegmentSpan, RaftIndex), EntriesError> {
        let (spans, active, flushed) = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().expect("they were loaded");
            let spans: Vec<SegmentSpan> = segments.sealed.iter().map(SegmentSpan::from).collect();
            let active =
                segments.active.as_ref().map(|active| (SegmentSpan::from(active), active.base_index));
            (spans, active, state.flushed.index)
        };
        if let Some(active) = active.filter(|(_, base_index)| index >= *base_index) {
            return Ok(active);
        }
        let (mut from, mut to) = (0, spans.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.base_index(spans[middle]).await? <= index {
                true => from = middle + 1,
                false => to = middle,
            }
        }
        if let Some(holding) = from.checked_sub(1) {
            return Ok((spans[holding], self.base_index(spans[holding]).await?));
        }
        // It went, and the state is from before that.
        let first = match (spans.first(), active) {
            (Some(span), _) => self.base_index(*span).await?,
            (None, Some((_, base_index))) => base_index,
            (None, None) => flushed,
        };
        self.state.borrow_mut().terms.forget_below(first);
        Err(EntriesError::Compacted { index, first })
    }

    /// The Raft index of a segment's first entry.
    pub(super) async fn base_index(&self, segment: SegmentSpan) -> Result<RaftIndex, StorageError> {
        if let Some(known) = self.sealed(segment).and_then(|sealed| sealed.base_index.get()) {
            return Ok(known);
        }
        let path = self.dir.join(crate::paths::segment_file(segment.base_offset));
        let file = self.shard.files.open(&path, false).await?;
        let header = check_header(&file, &path, self.id, segment.base_offset).await?;
        let state = self.state.borrow();
        let segments = state.segments.as_ref();
        let sealed = segments.and_then(|s| s.sealed.iter().find(|s| s.base_offset == segment.base_offset));
        if let Some(sealed) = sealed {
            sealed.base_index.set(Some(header.base_index));
        }
        Ok(header.base_index)
    }

    /// Reading met an error: if it is damage, the log is refused.
    fn refuse_damage(&self, error: &StorageError) {
        if !matches!(error, StorageError::Io { .. }) {
            self.refuse(error);
        }
    }
}

impl State {
    pub(super) fn term_at(&self, index: RaftIndex) -> Option<i32> {
        if index < self.durable.index {
            return self.terms.term_at(index);
        }
        let batch = self.tail.at_index(index)?;
        Some(BatchHeader::parse(&batch.bytes).expect("the tail holds batches").partition_leader_epoch)
    }

    fn place_of(&self, log: &Log, index: RaftIndex) -> Result<Place, EntriesError> {
        self.check_writable(log.id)?;
        let (first, next) = (self.terms.first(), self.next.index);
        if index < first {
            return Err(EntriesError::Compacted { index, first });
        }
        if index >= next {
            return Err(EntriesError::Beyond { index, next });
        }
        if self.tail.at_index(index).is_some() {
            return Ok(Place::Tail);
        }
        Ok(if self.segments.is_some() { Place::Segments } else { Place::Unseen })
    }
}

fn take_from_tail(state: &State, taken: &mut Taken) {
    while let Some(batch) = state.tail.at_index(taken.next)
        && taken.takes(batch.bytes.len())
    {
        let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
        taken.push(header.partition_leader_epoch, batch.bytes.clone());
    }
}
