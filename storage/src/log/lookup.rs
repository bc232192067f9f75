//! Lookup by timestamp (ListOffsets), and the indexes and footers of segments.

use super::Log;
use crate::batch;
use crate::error::StorageError;
use crate::format::index_page::Footer;
use crate::format::segment_file::SegmentHeader;
use crate::ids::RaftIndex;
use crate::segment::{
    BatchStart, Body, Found, INTERVAL, Scanner, Sealed, SegmentSpan, SparseIndex, check_header, load_sealed,
    rewrite_index,
};
use bytes::{Bytes, BytesMut};
use corelog_io::{worked, yield_if_needed};
use corelog_wire::records::{BatchHeader, BatchView, TimestampType, with_scratch};
use std::rc::Rc;

/// Most bytes a batch's records may take uncompressed when its timestamps are looked at; above, the batch's first
/// offset stands for them.
pub(super) const RECORDS_BYTES_MAX: usize = 128 << 20;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub leader_epoch: i32,
}

impl Log {
    /// The first record, from the log start offset to the high watermark, whose timestamp is at least `timestamp`.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        self.ensure_loaded().await?;
        loop {
            let cuts = self.cuts();
            match self.first_since(timestamp).await {
                // What was met may be behind what we look at, and was cut.
                Err(_) if self.was_cut_since(cuts).await => {}
                outcome => return outcome,
            }
        }
    }

    async fn first_since(&self, timestamp: i64) -> Result<Option<TimestampOffset>, StorageError> {
        let (mut at, limit) = {
            let state = self.state.borrow();
            (state.log_start_offset, state.committed.offset)
        };
        let start = at;
        // Flushes go on meanwhile: at each step `at` says how far we have looked, in segments or in memory.
        while at < limit {
            let Some((segment, end, active_max)) = self.segment_at(at) else {
                return Ok(self.search_tail(at, limit, timestamp, start));
            };
            let max_timestamp = match active_max {
                Some(max) => max,
                None => self.footer(segment).await?.max_timestamp,
            };
            if max_timestamp >= timestamp {
                let base_offset = segment.base_offset;
                let from =
                    self.start_in(segment, |index| index.start_for_timestamp(base_offset, timestamp)).await?;
                let mut scanner = self.scanner(segment, from, INTERVAL).await?;
                while scanner.at().offset < limit
                    && let Some(header) = scanner.peek().await?
                {
                    if batch::timestamp(&header) < timestamp || header.next_offset() <= at {
                        scanner.skip(&header);
                        continue;
                    }
                    let found = self.take(&mut scanner, header).await?;
                    if let Some(record) = first_record(&found.header, whole(found.body), timestamp, start) {
                        return Ok(Some(record).filter(|r| r.offset < limit));
                    }
                }
            }
            at = end;
        }
        Ok(None)
    }

    /// The segment that holds `at`, the offset after what it holds, and, of the active one, its greatest timestamp.
    /// `None`: from there on all is in memory.
    fn segment_at(&self, at: i64) -> Option<(SegmentSpan, i64, Option<i64>)> {
        let state = self.state.borrow();
        if state.tail.first_offset().is_some_and(|first| first <= at) {
            return None;
        }
        let segments = state.segments.as_ref()?;
        let segment = segments.holding(at)?;
        let end = segments.base_after(segment.base_offset).unwrap_or(state.flushed.offset);
        let active = segments.active.as_ref().filter(|_| !segment.sealed);
        Some((segment, end, active.map(|a| a.max_timestamp)))
    }

    fn search_tail(&self, at: i64, limit: i64, timestamp: i64, start: i64) -> Option<TimestampOffset> {
        let state = self.state.borrow();
        let batches = state.tail.since(at).take_while(|b| b.base_offset < limit);
        batches.filter(|b| b.max_timestamp >= timestamp && !b.is_internal()).find_map(|batch| {
            let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
            first_record(&header, batch.bytes.clone(), timestamp, start)
        })
    }

    /// Makes sure that the log's directory has been looked at.
    pub(super) async fn ensure_loaded(&self) -> Result<(), StorageError> {
        self.check_state()?;
        if self.state.borrow().segments.is_none() {
            let _turn = self.upkeep.acquire(1).await;
            self.load_in_turn().await?;
        }
        Ok(())
    }

    /// The footer of a sealed segment.
    pub(super) async fn footer(&self, segment: SegmentSpan) -> Result<Footer, StorageError> {
        let known = self.sealed(segment).and_then(|sealed| sealed.footer.get());
        match known {
            Some(footer) => Ok(footer),
            None => self.load_index(segment).await.map(|(_, footer)| footer),
        }
    }

    /// A start that the segment's index gives; the index is loaded if it is not in memory.
    pub(super) async fn start_in(
        &self,
        segment: SegmentSpan,
        look_up: impl Fn(&SparseIndex) -> BatchStart,
    ) -> Result<BatchStart, StorageError> {
        if !segment.sealed {
            let state = self.state.borrow();
            let active = state.segments.as_ref().and_then(|s| s.active.as_ref());
            if let Some(active) = active.filter(|a| a.base_offset == segment.base_offset) {
                // The index may be ahead of what is synced.
                let start = look_up(&active.index.borrow());
                let first = BatchStart::of_segment(segment.base_offset);
                return Ok(if start.position < segment.end { start } else { first });
            }
        }
        match self.shard.indexes.get(self.id, segment.base_offset) {
            Some(index) => Ok(look_up(&index)),
            None => self.load_index(segment).await.map(|(index, _)| look_up(&index)),
        }
    }

    pub(super) fn sealed(&self, segment: SegmentSpan) -> Option<Sealed> {
        let state = self.state.borrow();
        let sealed = &state.segments.as_ref()?.sealed;
        sealed.iter().find(|s| s.base_offset == segment.base_offset).cloned()
    }

    /// Reads a sealed segment's index file, or builds it anew from the batches.
    async fn load_index(&self, segment: SegmentSpan) -> Result<(Rc<SparseIndex>, Footer), StorageError> {
        let Some(sealed) = self.sealed(segment) else {
            let what = format!("segment {} is gone", segment.base_offset);
            return Err(StorageError::corrupt(&self.dir, 0, what));
        };
        let (index, footer) = match load_sealed(&self.dir, &self.shard.files, &sealed).await? {
            Some(loaded) => loaded,
            None => {
                tracing::warn!(log = %self.id, segment = segment.base_offset, "its index is missing: building it anew");
                let (index, footer) = self.rebuild_index(segment).await?;
                // It serves from memory too, as on a disk that is full. What may be cut is left alone.
                if footer.next_index <= self.commit_index()
                    && let Err(error) =
                        rewrite_index(&self.shard, &self.dir, segment.base_offset, &index, footer).await
                {
                    tracing::warn!(log = %self.id, segment = segment.base_offset, %error, "its index stays missing");
                }
                (index, footer)
            }
        };
        let index = Rc::new(index);
        let state = self.state.borrow();
        if footer.next_index > state.committed.index {
            // It may be cut, and another bear its name.
            return Ok((index, footer));
        }
        self.shard.indexes.insert(self.id, segment.base_offset, Rc::clone(&index));
        if let Some(segments) = &state.segments
            && let Some(sealed) = segments.sealed.iter().find(|s| s.base_offset == segment.base_offset)
        {
            sealed.footer.set(Some(footer));
        }
        Ok((index, footer))
    }

    async fn rebuild_index(&self, segment: SegmentSpan) -> Result<(SparseIndex, Footer), StorageError> {
        let path = self.dir.join(crate::paths::segment_file(segment.base_offset));
        let file = self.shard.files.open(&path, false).await?;
        let header = check_header(&file, &path, self.id, segment.base_offset).await?;
        let first = BatchStart::of_segment(segment.base_offset);
        let mut scanner = Scanner::new(file, path, first, segment.end, 1 << 20);
        index_batches(&mut scanner, &header, segment.end, |_, _| Ok(())).await
    }
}

/// The index and the footer of the segment that `scanner` is at the beginning of, up to byte `end`. `check`: what else is to
/// be said of each batch and its Raft index, or what is wrong with it.
pub(super) async fn index_batches(
    scanner: &mut Scanner,
    header: &SegmentHeader,
    end: u64,
    mut check: impl FnMut(&Found, RaftIndex) -> Result<(), String>,
) -> Result<(SparseIndex, Footer), StorageError> {
    let base = (header.base_offset, header.base_index);
    let mut index = SparseIndex::default();
    let mut footer = Footer {
        end,
        next_offset: base.0,
        next_index: base.1,
        max_timestamp: -1,
        sealed_ms: corelog_io::wall_clock_ms(),
    };
    while let Some(found) = scanner.next().await? {
        let (position, max_timestamp) = (found.position, footer.max_timestamp);
        if found.header.base_offset - base.0 > i64::from(i32::MAX) {
            return Err(scanner.corrupt(position, "the segment has more offsets than one can have"));
        }
        check(&found, footer.next_index).map_err(|what| scanner.corrupt(position, what))?;
        index.note(base, found.header.base_offset, footer.next_index, position, max_timestamp);
        footer.max_timestamp = max_timestamp.max(batch::timestamp(&found.header));
        footer.next_offset = found.header.next_offset();
        footer.next_index = footer.next_index.next();
        worked(found.header.size());
        yield_if_needed().await;
    }
    Ok((index, footer))
}

/// A batch's bytes in one piece.
pub(super) fn whole(body: Body) -> Bytes {
    match body {
        Body::Whole(bytes) => bytes,
        Body::Parts(parts) => {
            let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    }
}

/// The first record of a batch at or after offset `start` with a timestamp of at least `timestamp`.
pub(super) fn first_record(
    header: &BatchHeader,
    bytes: Bytes,
    timestamp: i64,
    start: i64,
) -> Option<TimestampOffset> {
    let found = |offset, timestamp| {
        Some(TimestampOffset { offset, timestamp, leader_epoch: header.partition_leader_epoch })
    };
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return found(header.base_offset.max(start), header.max_timestamp);
    }
    let view = BatchView::parse(&bytes).ok()?;
    with_scratch(|scratch| {
        let Ok(records) = view.records(scratch, RECORDS_BYTES_MAX) else {
            return found(header.base_offset.max(start), header.max_timestamp);
        };
        for record in records {
            let Ok(record) = record else {
                return found(header.base_offset.max(start), header.max_timestamp);
            };
            let offset = header.base_offset + i64::from(record.offset_delta);
            let at = header.timestamp_at(record.timestamp_delta);
            if at >= timestamp && offset >= start {
                return found(offset, at);
            }
        }
        None
    })
}
