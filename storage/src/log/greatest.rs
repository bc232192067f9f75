//! The record with the greatest timestamp (ListOffsets, KIP-734): of what is kept and committed, the first that bears it.

use super::Log;
use super::lookup::{TimestampOffset, first_record, whole};
use crate::batch;
use crate::error::StorageError;
use crate::segment::{BatchStart, INTERVAL, SegmentSpan};
use bytes::Bytes;
use corelog_wire::records::{BatchHeader, BatchView, TimestampType, with_scratch};
use std::cmp::Reverse;

/// What counts: offsets from `start` to before `end`.
#[derive(Clone, Copy)]
struct Kept {
    start: i64,
    end: i64,
}

/// Of two, the one with the greater timestamp; of equal ones, the first.
fn greater(a: Option<TimestampOffset>, b: Option<TimestampOffset>) -> Option<TimestampOffset> {
    a.into_iter().chain(b).max_by_key(|found| (found.timestamp, Reverse(found.offset)))
}

impl Log {
    /// The first record that bears the greatest timestamp (KIP-734). Reads what says so: indexes, and of the segment that
    /// the log begins in all headers if a record with a greater timestamp was deleted from it.
    pub async fn max_timestamp(&self) -> Result<Option<TimestampOffset>, StorageError> {
        self.ensure_loaded().await?;
        loop {
            let kept = {
                let state = self.state.borrow();
                Kept { start: state.log_start_offset, end: state.committed.offset }
            };
            let cuts = self.cuts();
            match self.greatest(kept).await {
                // Retention may have taken a segment that we were about to read, or a cut.
                Err(_) if self.log_start_offset() != kept.start || self.was_cut_since(cuts).await => {}
                outcome => return outcome,
            }
        }
    }

    async fn greatest(&self, kept: Kept) -> Result<Option<TimestampOffset>, StorageError> {
        let segments: Vec<(SegmentSpan, Option<i64>)> = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref();
            let sealed = segments.iter().flat_map(|s| &s.sealed).map(|s| (SegmentSpan::from(s), None));
            let active = segments.and_then(|s| s.active.as_ref());
            let active =
                active.and_then(|a| Some((segments?.holding(a.base_offset)?, Some(a.max_timestamp))));
            let counts = |(segment, _): &(SegmentSpan, Option<i64>)| segment.base_offset < kept.end;
            sealed.chain(active).filter(counts).collect()
        };
        // Flushes go on meanwhile: nothing is missed, since what is in memory now is in no segment seen above.
        let mut found = self.greatest_in_tail(kept);
        let mut bounds = Vec::with_capacity(segments.len());
        for (segment, known) in segments {
            let bound = match known {
                Some(bound) => bound,
                None => self.footer(segment).await?.max_timestamp,
            };
            bounds.push((Reverse(bound), segment.base_offset, segment));
        }
        bounds.sort_unstable_by_key(|(bound, base_offset, _)| (*bound, *base_offset));
        for (Reverse(bound), _, segment) in bounds {
            if bound < found.map_or(0, |found| found.timestamp) {
                break;
            }
            found = greater(found, self.greatest_in(segment, bound, kept).await?);
        }
        Ok(found)
    }

    /// What is in no segment.
    fn greatest_in_tail(&self, kept: Kept) -> Option<TimestampOffset> {
        let state = self.state.borrow();
        let from = kept.start.max(state.flushed.offset);
        let (mut begun, mut whole) = (None, None::<&crate::tail::TailBatch>);
        for batch in state.tail.since(from).take_while(|batch| batch.next_offset <= kept.end) {
            if batch.is_internal() {
                continue;
            }
            if batch.base_offset < kept.start {
                let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
                begun = greatest_record(&header, &batch.bytes, kept.start);
            } else if whole.is_none_or(|greatest| greatest.max_timestamp < batch.max_timestamp) {
                whole = Some(batch);
            }
        }
        let whole = whole.filter(|batch| batch.max_timestamp >= 0).and_then(|batch| {
            let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
            first_record(&header, batch.bytes.clone(), batch.max_timestamp, kept.start)
        });
        greater(begun, whole)
    }

    /// In a segment none of whose records is later than `bound`.
    async fn greatest_in(
        &self,
        segment: SegmentSpan,
        bound: i64,
        kept: Kept,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        let base_offset = segment.base_offset;
        let from = self.start_in(segment, |index| index.start_for_timestamp(base_offset, bound)).await?;
        if let Some(found) = self.first_in(segment, from, bound, kept).await? {
            return Ok(Some(found));
        }
        // It was deleted, or cut off, or is not committed. What counts of the segment is looked at by its headers, and one batch by its
        // records.
        let first = kept.start.max(base_offset);
        let from = self.start_in(segment, |index| index.start_for_offset(base_offset, first)).await?;
        let mut scanner = self.scanner(segment, from, INTERVAL).await?;
        let (mut begun, mut whole_batch) = (None, None::<(i64, BatchStart)>);
        while scanner.at().offset < kept.end
            && let Some(header) = scanner.peek().await?
        {
            if header.base_offset < kept.start && header.next_offset() > kept.start {
                let batch = self.take(&mut scanner, header).await?;
                begun = greatest_record(&header, &whole(batch.body), kept.start);
                continue;
            }
            let timestamp = batch::timestamp(&header);
            if header.base_offset >= kept.start
                && !header.is_internal()
                && whole_batch.is_none_or(|(greatest, _)| greatest < timestamp)
            {
                whole_batch = Some((timestamp, scanner.at()));
            }
            scanner.skip(&header);
            corelog_io::yield_if_needed().await;
        }
        let found = match whole_batch {
            Some((timestamp, at)) if timestamp >= 0 => self.first_in(segment, at, timestamp, kept).await?,
            _ => None,
        };
        Ok(greater(begun, found))
    }

    /// The first record that counts with a timestamp of at least `timestamp`, from the batch at `from` on.
    async fn first_in(
        &self,
        segment: SegmentSpan,
        from: BatchStart,
        timestamp: i64,
        kept: Kept,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        let mut scanner = self.scanner(segment, from, INTERVAL).await?;
        while scanner.at().offset < kept.end
            && let Some(header) = scanner.peek().await?
        {
            if batch::timestamp(&header) < timestamp || header.next_offset() <= kept.start {
                scanner.skip(&header);
                corelog_io::yield_if_needed().await;
                continue;
            }
            let found = self.take(&mut scanner, header).await?;
            if let Some(record) = first_record(&found.header, whole(found.body), timestamp, kept.start) {
                return Ok(Some(record).filter(|record| record.offset < kept.end));
            }
        }
        Ok(None)
    }
}

/// The first record with the greatest timestamp of those at or after offset `start`.
fn greatest_record(header: &BatchHeader, bytes: &Bytes, start: i64) -> Option<TimestampOffset> {
    let of = |offset, timestamp| TimestampOffset {
        offset,
        timestamp,
        leader_epoch: header.partition_leader_epoch,
    };
    let unknown = || Some(of(header.base_offset.max(start), header.max_timestamp));
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return unknown();
    }
    let view = BatchView::parse(bytes).ok()?;
    with_scratch(|scratch| {
        let Ok(records) = view.records(scratch, super::lookup::RECORDS_BYTES_MAX) else { return unknown() };
        let mut greatest = None;
        for record in records {
            let Ok(record) = record else { return unknown() };
            let offset = header.base_offset + i64::from(record.offset_delta);
            let timestamp = header.timestamp_at(record.timestamp_delta);
            if offset >= start && timestamp >= 0 {
                greatest = greater(greatest, Some(of(offset, timestamp)));
            }
        }
        greatest
    })
}
