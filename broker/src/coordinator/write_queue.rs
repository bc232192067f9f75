//! Writes that wait for the log, and how they become record batches: small ones together, large ones apart.

use std::collections::VecDeque;

use bytes::Bytes;
use corelog_wire::records::{BatchBuilder, BatchOptions, BuildError};

use super::desk::WriteId;
use super::machine::{RawRecord, WriteFailure};

/// Bytes of a record beside its key and value, at most: lengths, deltas, attributes, header count.
const RECORD_OVERHEAD: usize = 32;
/// Bytes of a batch before its records.
const BATCH_OVERHEAD: usize = 61;

#[derive(Debug)]
struct QueuedWrite {
    id: WriteId,
    records: Vec<RawRecord>,
    timestamp_ms: i64,
    /// What the records take in a batch, at most.
    bytes: usize,
}

/// In the order of their ids.
#[derive(Debug, Default)]
pub struct WriteQueue {
    writes: VecDeque<QueuedWrite>,
}

/// What is to be appended next, for the writes it stands for.
#[derive(Debug)]
pub struct NextAppend {
    pub ids: Vec<WriteId>,
    /// Several where one write does not fit into a batch.
    pub batches: Result<Vec<Bytes>, WriteFailure>,
}

impl WriteQueue {
    pub fn push(&mut self, id: WriteId, records: Vec<RawRecord>, timestamp_ms: i64) {
        let bytes = records.iter().map(record_bytes).sum();
        self.writes.push_back(QueuedWrite { id, records, timestamp_ms, bytes });
    }

    /// Drops the writes from `first` on.
    pub fn drop_from(&mut self, first: WriteId) {
        while self.writes.pop_back_if(|write| write.id >= first).is_some() {}
    }

    /// Takes the next write, and those behind it which go into the same batch of at most `batch_bytes_max` bytes.
    pub fn next_append(&mut self, batch_bytes_max: usize) -> Option<NextAppend> {
        let room = batch_bytes_max.saturating_sub(BATCH_OVERHEAD);
        let mut taken = vec![self.writes.pop_front()?];
        if !fit(&taken[0].records, batch_bytes_max) {
            return Some(NextAppend { ids: vec![taken[0].id], batches: Err(WriteFailure::TooLarge) });
        }
        let mut bytes = taken[0].bytes;
        while let Some(next) = self.writes.pop_front_if(|next| bytes + next.bytes <= room) {
            bytes += next.bytes;
            taken.push(next);
        }
        let batches = batches(&taken, room).map_err(|_| WriteFailure::TooLarge);
        Some(NextAppend { ids: taken.iter().map(|write| write.id).collect(), batches })
    }
}

/// Whether every record fits into a batch of at most `batch_bytes_max` bytes.
pub fn fit(records: &[RawRecord], batch_bytes_max: usize) -> bool {
    let room = batch_bytes_max.saturating_sub(BATCH_OVERHEAD);
    records.iter().all(|record| record_bytes(record) <= room)
}

fn record_bytes(record: &RawRecord) -> usize {
    RECORD_OVERHEAD + record.key.len() + record.value.as_ref().map_or(0, Bytes::len)
}

fn batches(writes: &[QueuedWrite], room: usize) -> Result<Vec<Bytes>, BuildError> {
    let mut done = Vec::new();
    let mut open: Option<(BatchBuilder, usize)> = None;
    for write in writes {
        for record in &write.records {
            let bytes = record_bytes(record);
            let (mut builder, used) = match open.take() {
                Some((builder, used)) if used + bytes <= room => (builder, used),
                full => {
                    if let Some((builder, _)) = full {
                        done.push(builder.build()?);
                    }
                    (BatchBuilder::new(BatchOptions::default()), 0)
                }
            };
            builder.append(write.timestamp_ms, Some(&record.key), record.value.as_deref(), &[])?;
            open = Some((builder, used + bytes));
        }
    }
    if let Some((builder, _)) = open {
        done.push(builder.build()?);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::records::{BatchView, with_scratch};

    fn record(key: &str, value_bytes: usize) -> RawRecord {
        RawRecord { key: Bytes::copy_from_slice(key.as_bytes()), value: Some(vec![7; value_bytes].into()) }
    }

    fn keys(batch: &Bytes) -> Vec<String> {
        let view = BatchView::parse(batch).expect("a batch");
        view.verify_checksum().expect("its checksum");
        with_scratch(|scratch| {
            let records = view.records(scratch, usize::MAX).expect("records");
            records.map(|record| String::from_utf8(record.unwrap().key.unwrap().to_vec()).unwrap()).collect()
        })
    }

    #[test]
    fn small_writes_share_a_batch_in_their_order() {
        let mut queue = WriteQueue::default();
        for id in 0..3 {
            queue.push(WriteId(id), vec![record(&format!("{id}a"), 10), record(&format!("{id}b"), 10)], 5);
        }
        let next = queue.next_append(1_000).expect("writes");
        assert_eq!(next.ids, [WriteId(0), WriteId(1), WriteId(2)]);
        let batches = next.batches.expect("they fit");
        assert_eq!(batches.len(), 1);
        assert_eq!(keys(&batches[0]), ["0a", "0b", "1a", "1b", "2a", "2b"]);
        assert!(queue.next_append(1_000).is_none());
    }

    #[test]
    fn no_batch_is_larger_than_it_may_be() {
        let max = 400;
        let mut queue = WriteQueue::default();
        queue.push(WriteId(0), vec![record("a", 100)], 5);
        queue.push(WriteId(1), (0..10).map(|n| record(&n.to_string(), 100)).collect(), 5);
        queue.push(WriteId(2), vec![record("b", 100)], 5);
        let first = queue.next_append(max).expect("writes");
        assert_eq!(first.ids, [WriteId(0)]);
        let second = queue.next_append(max).expect("writes");
        assert_eq!(second.ids, [WriteId(1)]);
        let batches = second.batches.expect("each record fits");
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() <= max));
        let all: Vec<String> = batches.iter().flat_map(keys).collect();
        assert_eq!(all, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_record_that_fits_into_no_batch_fails_alone() {
        let mut queue = WriteQueue::default();
        queue.push(WriteId(0), vec![record("a", 10), record("large", 1_000)], 5);
        queue.push(WriteId(1), vec![record("b", 10)], 5);
        let first = queue.next_append(500).expect("writes");
        assert_eq!((first.ids, first.batches), (vec![WriteId(0)], Err(WriteFailure::TooLarge)));
        assert_eq!(queue.next_append(500).expect("writes").batches.map(|batches| batches.len()), Ok(1));
    }
}
