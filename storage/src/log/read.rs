//! Read: whole batches from an offset on, from memory or from segments, or from both.

use super::{Log, State};
use crate::error::{ReadError, StorageError};
use crate::segment::{BatchStart, Body, Found, INTERVAL, Scanner, SegmentSpan};
use bytes::Bytes;
use corelog_io::{worked, yield_if_needed};
use corelog_wire::records::BatchHeader;

/// Places where recent reads ended, so that a reader that goes on there need not search.
const HINTS: usize = 4;

/// What a read gives.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Whole batches, in order; each part holds one or more, or a piece of one. To be sent as they are.
    pub parts: Vec<Bytes>,
    /// Bytes of all parts.
    pub len: usize,
    /// The offset after the last batch given.
    pub next_offset: i64,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    /// Equals the high watermark: there are no transactions yet.
    pub last_stable_offset: i64,
    /// With nothing given: the size of the first batch, which was larger than allowed; 0 if there is none.
    pub lacking: usize,
}

/// How much a read may give.
#[derive(Clone, Copy)]
struct Limits {
    bytes: usize,
    first_batch: usize,
}

/// A read from `segment` ended before the batch at `next`.
#[derive(Clone, Copy)]
pub(super) struct Hint {
    pub segment: i64,
    pub next: BatchStart,
}

#[derive(Default)]
pub(super) struct Hints {
    places: [Option<Hint>; HINTS],
    next: usize,
}

impl Hints {
    fn find(&mut self, offset: i64, segment: i64) -> Option<BatchStart> {
        self.take(|h| h.next.offset == offset && h.segment == segment)
    }

    /// Where the batch begins that `number` others of the segment come before.
    pub(super) fn find_number(&mut self, number: u32, segment: i64) -> Option<BatchStart> {
        self.take(|h| h.next.number == number && h.segment == segment)
    }

    fn take(&mut self, is_it: impl Fn(Hint) -> bool) -> Option<BatchStart> {
        let found = self.places.iter_mut().find(|h| h.is_some_and(&is_it))?;
        found.take().map(|h| h.next)
    }

    pub(super) fn note(&mut self, hint: Hint) {
        self.places[self.next] = Some(hint);
        self.next = (self.next + 1) % HINTS;
    }

    pub(super) fn clear(&mut self) {
        self.places = [None; HINTS];
    }
}

impl Read {
    /// Whether a batch of `size` is within the limits.
    fn takes(&mut self, size: usize, limits: Limits) -> bool {
        let takes = self.len + size <= limits.bytes || (self.len == 0 && size <= limits.first_batch);
        if !takes && self.len == 0 {
            self.lacking = size;
        }
        takes
    }

    /// Adds a batch; joins it to the part before when both lie side by side in memory.
    fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.parts.push(bytes);
    }
}

impl Log {
    /// Batches from the one that holds `offset` on, up to the high watermark and to `max_bytes`. With `at_least_one`
    /// the first batch is given even if it is larger (KIP-74). At the high watermark there is nothing: no error.
    ///
    /// # Errors
    /// `offset` is below the log start offset or above the high watermark; storage errors.
    pub async fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Result<Read, ReadError> {
        self.read_within(offset, max_bytes, if at_least_one { usize::MAX } else { 0 }).await
    }

    /// As `read`, where the first batch is given up to a size of its own. A larger one is not brought into memory, and
    /// `lacking` tells what it would take.
    ///
    /// # Errors
    /// As those of `read`.
    pub async fn read_within(
        &self,
        offset: i64,
        max_bytes: usize,
        first_batch: usize,
    ) -> Result<Read, ReadError> {
        let limits = Limits { bytes: max_bytes, first_batch };
        let mut read = Read { next_offset: offset, ..Read::default() };
        loop {
            let (segment, hint, limit, cuts) = {
                let state = self.state.borrow();
                self.check_readable(&state, offset)?;
                let at = read.next_offset;
                let in_memory =
                    state.tail.first_offset().unwrap_or(state.flushed.offset).min(state.flushed.offset);
                if at >= state.committed.offset {
                    break;
                }
                if at >= in_memory && state.tail.first_offset().is_some_and(|first| at >= first) {
                    let before = read.len;
                    take_from_tail(&state, &mut read, limits);
                    self.shard.counters.note_tail_read(read.len - before);
                    break;
                }
                match &state.segments {
                    None => (None, None, 0, 0),
                    Some(segments) => {
                        let Some(span) = segments.holding(at) else {
                            drop(state);
                            return Err(self.no_segment(at).into());
                        };
                        let hint = self.hints.borrow_mut().find(at, span.base_offset);
                        let limit = state.flushed.offset.min(state.committed.offset);
                        (Some(span), hint, limit, state.cuts)
                    }
                }
            };
            let Some(segment) = segment else {
                let _turn = self.upkeep.acquire(1).await;
                self.load_in_turn().await?;
                continue;
            };
            match self.read_segment(segment, hint, limit, &mut read, limits).await {
                Ok(true) => {}
                Ok(false) => break,
                // What is whole before the damage is served; who asks for the damage itself is told.
                Err(_) if read.len > 0 => break,
                // Retention may have taken the segment while we read it, or a cut what is behind what we read.
                Err(error) => {
                    let start = self.state.borrow().log_start_offset;
                    if read.next_offset >= start && !self.is_deleted() && !self.was_cut_since(cuts).await {
                        return Err(error.into());
                    }
                }
            }
        }
        let state = self.state.borrow();
        read.high_watermark = state.committed.offset;
        read.last_stable_offset = state.committed.offset;
        read.log_start_offset = state.log_start_offset;
        Ok(read)
    }

    fn check_readable(&self, state: &State, offset: i64) -> Result<(), ReadError> {
        // A refused log ends earlier than it did for those who read it before.
        state.check_writable(self.id)?;
        if offset < state.log_start_offset || offset > state.committed.offset {
            let (log_start_offset, log_end_offset) = (state.log_start_offset, state.committed.offset);
            return Err(ReadError::OffsetOutOfRange { offset, log_start_offset, log_end_offset });
        }
        Ok(())
    }

    fn no_segment(&self, offset: i64) -> StorageError {
        StorageError::corrupt(&self.dir, 0, format!("no segment holds offset {offset}"))
    }

    /// Goes on with `read` in `segment`, not beyond offset `limit`. `true`: it ended there, or at the segment's end.
    /// `start`: where the batch at `read.next_offset` begins, if known.
    async fn read_segment(
        &self,
        segment: SegmentSpan,
        start: Option<BatchStart>,
        limit: i64,
        read: &mut Read,
        limits: Limits,
    ) -> Result<bool, StorageError> {
        let sought = read.next_offset;
        let mut ahead = limits.bytes.saturating_sub(read.len) as u64;
        let start = match start {
            Some(start) => start,
            None => {
                ahead += INTERVAL;
                let base_offset = segment.base_offset;
                self.start_in(segment, |index| index.start_for_offset(base_offset, sought)).await?
            }
        };
        let mut scanner = self.scanner(segment, start, ahead).await?;
        let before = read.len;
        let mut more = true;
        loop {
            // What is behind the limit may be cut while it is looked at. It goes on in memory, or is in the segment by now.
            if scanner.at().offset >= limit {
                break;
            }
            let Some(header) = scanner.peek().await? else { break };
            if header.next_offset() <= sought || header.is_internal() {
                scanner.skip(&header);
                continue;
            }
            if !read.takes(header.size(), limits) {
                more = false;
                break;
            }
            let found = self.take(&mut scanner, header).await?;
            match found.body {
                Body::Whole(bytes) => read.push(bytes),
                Body::Parts(parts) => parts.into_iter().for_each(|part| read.push(part)),
            }
            read.next_offset = found.header.next_offset();
            worked(found.header.size());
            yield_if_needed().await;
            if read.len >= limits.bytes {
                more = false;
                break;
            }
        }
        if more && read.next_offset == sought {
            return Err(scanner
                .corrupt(segment.end, format!("the segment ends before offset {sought}, which it held")));
        }
        self.shard.counters.note_cold_read(read.len - before);
        if !more {
            self.hints.borrow_mut().note(Hint { segment: segment.base_offset, next: scanner.at() });
        }
        Ok(more)
    }

    /// A scanner of `segment` from the batch that begins at `start` on.
    pub(super) async fn scanner(
        &self,
        segment: SegmentSpan,
        start: BatchStart,
        ahead: u64,
    ) -> Result<Scanner, StorageError> {
        let path = self.dir.join(crate::paths::segment_file(segment.base_offset));
        let file = self.shard.files.open(&path, false).await?;
        Ok(Scanner::new(file, path, start, segment.end, ahead))
    }

    /// The batch of `header`, which the scanner is at, with all of it checked: its leader epoch, which no checksum
    /// covers, must be what the log's history says.
    pub(super) async fn take(
        &self,
        scanner: &mut Scanner,
        header: BatchHeader,
    ) -> Result<Found, StorageError> {
        let found = scanner.take(header).await?;
        let state = self.state.borrow();
        // Of what is deleted the history knows nothing any more: a batch that reaches beyond bears the epoch there.
        let (offset, epoch) = (header.base_offset, header.partition_leader_epoch);
        let known_at = offset.max(state.log_start_offset);
        // Deleted while it was read: nobody is given it.
        let is_deleted = header.next_offset() <= state.log_start_offset;
        if is_deleted || state.terms.admits(epoch, known_at) {
            return Ok(found);
        }
        Err(scanner.corrupt(found.position, wrong_term(offset, epoch, state.terms.epoch_at(known_at))))
    }
}

/// What is wrong with a batch that bears a leader epoch which the log's history does not know there.
pub(super) fn wrong_term(offset: i64, epoch: i32, known: Option<i32>) -> String {
    let known = known.map_or("none".into(), |epoch| epoch.to_string());
    format!("the batch at offset {offset} bears leader epoch {epoch}, not {known}")
}

fn take_from_tail(state: &State, read: &mut Read, limits: Limits) {
    for batch in state.tail.since(read.next_offset) {
        if batch.next_offset > state.committed.offset || batch.index >= state.committed.index {
            break;
        }
        if batch.is_internal() {
            continue;
        }
        if !read.takes(batch.bytes.len(), limits) {
            break;
        }
        read.push(batch.bytes.clone());
        read.next_offset = batch.next_offset;
    }
}
