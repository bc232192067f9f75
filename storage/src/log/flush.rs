//! Flush: writes the log's dirty batches from memory to its segments, and rolls segments.

use super::{End, Log, end_after};
use crate::config::{LogConfig, SEGMENT_BYTES_MAX};
use crate::error::StorageError;
use crate::format::segment_file::FIRST_BATCH;
use crate::ids::RaftIndex;
use crate::segment::{Active, Expected, Sealed, SegmentWriter, load};
use crate::tail::TailBatch;
use corelog_io::wall_clock_ms;
use corelog_wire::records::BatchHeader;

/// Bytes written between two syncs: memory is let go in steps of this.
const ROUND: u64 = 16 << 20;

impl Log {
    /// Writes every batch that is durable now and not in a segment to one, synced. Not those that are appended meanwhile:
    /// going after them, a flush of a busy log would never end, in pieces of a batch each. What a refused log has is put
    /// aside instead.
    pub(crate) async fn flush(&self) -> Result<(), StorageError> {
        let _turn = self.upkeep.acquire(1).await;
        match self.refused() {
            None => self.flush_in_turn().await,
            Some(_) => self.put_aside_in_turn().await,
        }
    }

    /// As [`Log::flush`]; the caller has the turn of `upkeep`.
    pub(super) async fn flush_in_turn(&self) -> Result<(), StorageError> {
        let until = self.state.borrow().durable.index;
        loop {
            if self.to_flush(until).is_empty() {
                return Ok(());
            }
            self.load_in_turn().await?;
            // It may have been cut meanwhile.
            if self.is_cut_due() {
                continue;
            }
            let batches = self.to_flush(until);
            if batches.is_empty() {
                return Ok(());
            }
            self.flush_round(&batches).await?;
            corelog_io::yield_if_needed().await;
        }
    }

    /// The oldest dirty batches below `until` that may be flushed now.
    fn to_flush(&self, until: RaftIndex) -> Vec<TailBatch> {
        let state = &mut *self.state.borrow_mut();
        if state.check_writable(self.id).is_err() || state.unsaved_cut.is_some() {
            return Vec::new();
        }
        let until = match &state.uncut {
            // Before a cut is durable, only what stays.
            Some(uncut) if uncut.sequence > self.shard.journal.durable_through() => {
                uncut.end.index.min(until)
            }
            _ => until,
        };
        let batches = state.tail.dirty_below(until.min(state.durable.index), ROUND);
        if let Some(last) = batches.last() {
            state.reach = state.reach.max(last.index.next());
        }
        batches
    }

    /// Writes `batches`, the oldest dirty ones, and syncs them.
    async fn flush_round(&self, batches: &[TailBatch]) -> Result<(), StorageError> {
        let shard = &*self.shard;
        let (active, config) = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().expect("they were loaded");
            (segments.active.clone(), state.config)
        };
        let mut left: u64 = batches.iter().map(|b| b.bytes.len() as u64).sum();
        let first = &batches[0];
        let mut writer = match active {
            None => None,
            Some(active) => {
                let next = (first.base_offset, first.index);
                Some(SegmentWriter::resume(shard, &self.dir, self.id, active, next, left).await?)
            }
        };
        let now_ms = wall_clock_ms();
        let mut last: Option<&TailBatch> = None;
        for batch in batches {
            if let Some(full) = writer.take_if(|w| must_roll(w.active(), batch, &config, now_ms)) {
                let sealed = full.seal().await?;
                self.note_flushed(None, Some(sealed), last);
            }
            let w = match &mut writer {
                Some(w) => w,
                None => {
                    let (offset, index) = (batch.base_offset, batch.index);
                    let w = SegmentWriter::create(shard, &self.dir, self.id, offset, index, left).await?;
                    writer.insert(w)
                }
            };
            w.push(batch).await?;
            corelog_io::worked(batch.bytes.len());
            corelog_io::yield_if_needed().await;
            left -= batch.bytes.len() as u64;
            last = Some(batch);
        }
        let mut writer = writer.expect("there are batches");
        writer.sync().await?;
        self.note_flushed(Some(writer.active().clone()), None, last);
        Ok(())
    }

    /// The active segment has been synced up to and with `last`, or sealed. (`None`: nothing was added to it.)
    fn note_flushed(&self, active: Option<Active>, sealed: Option<Sealed>, last: Option<&TailBatch>) {
        {
            let state = &mut *self.state.borrow_mut();
            let Some(segments) = &mut state.segments else { return }; // It was deleted meanwhile.
            segments.active = active;
            segments.sealed.extend(sealed);
            if let Some(batch) = last {
                let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
                // Of what was cut meanwhile nothing counts.
                state.flushed = match &state.uncut {
                    Some(uncut) if uncut.end.index <= batch.index => uncut.end,
                    _ => end_after(batch, &header),
                };
                let bytes = state.tail.mark_clean_below(state.flushed.index);
                self.shard.counters.note_flush(bytes);
            }
        }
        self.shard.journal.room.notify_all();
    }

    /// Seals the active segment, if there is one with records; the next flush begins another. Whether there is none now.
    pub(super) async fn roll_in_turn(&self) -> Result<bool, StorageError> {
        self.cut_in_turn().await?;
        let (active, flushed) = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().expect("they were loaded");
            match &segments.active {
                None => return Ok(true),
                Some(active) if state.uncut.is_none() && state.flushed.offset > active.base_offset => {
                    (active.clone(), state.flushed)
                }
                _ => return Ok(false),
            }
        };
        let next = (flushed.offset, flushed.index);
        let writer = SegmentWriter::resume(&self.shard, &self.dir, self.id, active, next, 0).await?;
        let sealed = writer.seal().await?;
        self.note_flushed(None, Some(sealed), None);
        Ok(true)
    }

    /// Looks at the log's directory, the first time, and cuts its segments if the log was cut.
    pub(super) async fn load_in_turn(&self) -> Result<(), StorageError> {
        self.cut_in_turn().await?;
        {
            let state = self.state.borrow();
            // Looking removes what the log's state does not know of; a refused log's state is not to be believed.
            state.check_writable(self.id)?;
            if state.segments.is_some() {
                return Ok(());
            }
        }
        let expected = {
            let state = self.state.borrow();
            // Before a cut is durable they are as they were.
            let End { offset, index, .. } = state.uncut.as_ref().map_or(state.flushed, |uncut| uncut.reached);
            Expected {
                log: self.id,
                active: state.active.clone(),
                flushed_offset: offset,
                found_end: state.found_end.offset,
                found_more: state.found_end.index > index,
                log_start_offset: state.log_start_offset,
            }
        };
        let segments = load(&self.dir, &self.shard.files, &expected).await?;
        self.state.borrow_mut().segments = Some(segments);
        Ok(())
    }
}

/// Whether `batch` begins a new segment. A segment that holds no record yet is never left: two segments would bear
/// the same name.
fn must_roll(active: &Active, batch: &TailBatch, config: &LogConfig, now_ms: i64) -> bool {
    assert!(
        batch.index >= active.base_index && batch.base_offset >= active.base_offset,
        "the batch at Raft index {}, offset {} is before the segment that is written to: {}, {}",
        batch.index,
        batch.base_offset,
        active.base_index,
        active.base_offset
    );
    if batch.base_offset == active.base_offset {
        return false;
    }
    let bytes = active.position - FIRST_BATCH + batch.bytes.len() as u64;
    bytes > config.segment_bytes.min(SEGMENT_BYTES_MAX)
        || now_ms.saturating_sub(active.created_ms) > config.segment_ms
        || batch.next_offset - active.base_offset > i64::from(i32::MAX)
        || batch.index.0 - active.base_index.0 > i32::MAX as u64
}

const _: () = assert!(
    FIRST_BATCH + SEGMENT_BYTES_MAX + i32::MAX as u64 <= u32::MAX as u64 + FIRST_BATCH,
    "the position of every batch of a segment fits into 32 bits"
);
