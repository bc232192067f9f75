//! The tail of a log in memory: its newest batches, in order, by reference into the blocks they were journaled from.
//!
//! ```text
//!   [ clean: in the segment, synced ][ dirty: in the journal only                     ]
//!               [ committed, visible              ][ not committed yet                ]
//!   evicted from the front as memory needs it      appended at the back
//! ```

use crate::ids::RaftIndex;
use bytes::Bytes;
use std::collections::VecDeque;

/// One batch of the tail.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub index: RaftIndex,
    pub base_offset: i64,
    /// The Kafka offset after the batch; equals `base_offset` for an internal batch.
    pub next_offset: i64,
    /// Greatest timestamp, -1 if it has none.
    pub max_timestamp: i64,
    /// The journal group it is in, whose memory its bytes share; 0 if it came from a former generation's journal.
    pub sequence: u64,
    pub bytes: Bytes,
}

impl TailBatch {
    pub fn is_internal(&self) -> bool {
        self.base_offset == self.next_offset
    }
}

#[derive(Default)]
pub struct Tail {
    batches: VecDeque<TailBatch>,
    /// How many batches at the front are clean.
    clean: usize,
    /// Bytes of the dirty batches.
    dirty_bytes: u64,
}

impl Tail {
    pub fn push(&mut self, batch: TailBatch) {
        if let Some(last) = self.batches.back() {
            assert_eq!(batch.index, last.index.next(), "the tail has no gaps in its Raft indexes");
            assert_eq!(batch.base_offset, last.next_offset, "the tail has no gaps in its offsets");
        }
        self.dirty_bytes += batch.bytes.len() as u64;
        self.batches.push_back(batch);
    }

    /// The first offset a read is served from here; `None` if the tail is empty.
    pub fn first_offset(&self) -> Option<i64> {
        self.batches.front().map(|b| b.base_offset)
    }

    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// The journal group of the oldest dirty batch.
    pub fn first_dirty_sequence(&self) -> Option<u64> {
        self.batches.get(self.clean).map(|b| b.sequence)
    }

    /// The journal group of this generation's oldest dirty batch.
    pub fn first_dirty_own_sequence(&self) -> Option<u64> {
        let own = self.batches.partition_point(|b| b.sequence == 0);
        self.batches.get(own.max(self.clean)).map(|b| b.sequence)
    }

    /// Greatest timestamp of the dirty batches, -1 if none.
    pub fn dirty_max_timestamp(&self) -> i64 {
        self.batches.range(self.clean..).map(|b| b.max_timestamp).max().unwrap_or(-1)
    }

    /// Batches from the one that contains `offset` on (or the first after it), oldest first.
    pub fn since(&self, offset: i64) -> impl Iterator<Item = &TailBatch> {
        let start = self.batches.partition_point(|b| b.next_offset <= offset);
        self.batches.range(start..)
    }

    /// The batch with this Raft index.
    pub fn at_index(&self, index: RaftIndex) -> Option<&TailBatch> {
        let first = self.batches.front()?.index.0;
        self.batches.get(usize::try_from(index.0.checked_sub(first)?).ok()?)
    }

    /// Dirty batches below `commit`, oldest first, up to `max_bytes` (one at the least).
    pub fn dirty_below(&self, commit: RaftIndex, max_bytes: u64) -> Vec<TailBatch> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        for batch in self.batches.range(self.clean..) {
            if batch.index >= commit || (bytes > 0 && bytes + batch.bytes.len() as u64 > max_bytes) {
                break;
            }
            bytes += batch.bytes.len() as u64;
            taken.push(batch.clone());
        }
        taken
    }

    /// The dirty batches below `index` are in the segment now; how many bytes they have.
    pub fn mark_clean_below(&mut self, index: RaftIndex) -> u64 {
        let mut bytes = 0;
        while let Some(batch) = self.batches.get(self.clean)
            && batch.index < index
        {
            bytes += batch.bytes.len() as u64;
            self.clean += 1;
        }
        self.dirty_bytes -= bytes;
        bytes
    }

    /// Whether the batches of all groups up to `sequence` are clean.
    pub fn is_clean_through(&self, sequence: u64) -> bool {
        self.first_dirty_sequence().is_none_or(|first| first > sequence)
    }

    /// Lets the batches of all groups up to `sequence` go; they are clean and at the front.
    pub fn evict_through(&mut self, sequence: u64) {
        while self.batches.front().is_some_and(|b| b.sequence <= sequence) {
            assert!(self.clean > 0, "only batches that are in a segment are let go");
            self.batches.pop_front();
            self.clean -= 1;
        }
        if self.batches.is_empty() {
            self.batches.shrink_to_fit();
        }
    }

    /// Takes the batches from `index` on off the end.
    pub fn cut_back(&mut self, index: RaftIndex) {
        while let Some(cut) = self.batches.pop_back_if(|batch| batch.index >= index) {
            if self.clean > self.batches.len() {
                self.clean = self.batches.len();
            } else {
                self.dirty_bytes -= cut.bytes.len() as u64;
            }
        }
    }

    /// Drops everything: the log is deleted.
    pub fn clear(&mut self) {
        *self = Tail::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(index: u64, base_offset: i64, records: i64, sequence: u64) -> TailBatch {
        TailBatch {
            index: RaftIndex(index),
            base_offset,
            next_offset: base_offset + records,
            max_timestamp: base_offset,
            sequence,
            bytes: Bytes::from(vec![0; 100]),
        }
    }

    fn tail() -> Tail {
        let mut t = Tail::default();
        t.push(batch(5, 10, 2, 1));
        t.push(batch(6, 12, 0, 1));
        t.push(batch(7, 12, 3, 2));
        t.push(batch(8, 15, 1, 3));
        t
    }

    fn indexes<'a>(batches: impl Iterator<Item = &'a TailBatch>) -> Vec<u64> {
        batches.map(|b| b.index.0).collect()
    }

    #[test]
    fn reads_begin_with_the_batch_that_holds_the_offset() {
        let t = tail();
        assert_eq!(indexes(t.since(10)), [5, 6, 7, 8]);
        assert_eq!(indexes(t.since(11)), [5, 6, 7, 8]);
        assert_eq!(indexes(t.since(12)), [7, 8]);
        assert_eq!(indexes(t.since(14)), [7, 8]);
        assert_eq!(indexes(t.since(16)), [0; 0]);
        assert_eq!(t.at_index(RaftIndex(7)).unwrap().base_offset, 12);
        assert!(t.at_index(RaftIndex(4)).is_none() && t.at_index(RaftIndex(9)).is_none());
    }

    #[test]
    fn flush_and_evict() {
        let mut t = tail();
        assert_eq!(t.dirty_below(RaftIndex(8), 1000).len(), 3);
        assert_eq!(t.dirty_below(RaftIndex(8), 10).len(), 1);
        assert_eq!(t.first_dirty_sequence(), Some(1));
        assert_eq!(t.mark_clean_below(RaftIndex(7)), 200);
        assert_eq!((t.dirty_bytes(), t.first_dirty_sequence()), (200, Some(2)));
        assert!(t.is_clean_through(1) && !t.is_clean_through(2));
        t.evict_through(1);
        assert_eq!((t.first_offset(), t.dirty_bytes()), (Some(12), 200));
        t.cut_back(RaftIndex(8));
        assert_eq!((indexes(t.since(0)), t.dirty_bytes()), (vec![7], 100));
        t.mark_clean_below(RaftIndex(8));
        t.cut_back(RaftIndex(7));
        assert_eq!((indexes(t.since(0)), t.dirty_bytes(), t.first_dirty_sequence()), (vec![], 0, None));
    }

    #[test]
    fn recovered_batches_do_not_hide_this_generations_own() {
        let mut t = Tail::default();
        t.push(batch(0, 0, 1, 0));
        t.push(batch(1, 1, 1, 0));
        assert_eq!((t.first_dirty_sequence(), t.first_dirty_own_sequence()), (Some(0), None));
        t.push(batch(2, 2, 1, 5));
        t.push(batch(3, 3, 1, 6));
        assert_eq!((t.first_dirty_sequence(), t.first_dirty_own_sequence()), (Some(0), Some(5)));
        t.mark_clean_below(RaftIndex(1));
        assert_eq!(t.first_dirty_own_sequence(), Some(5));
        t.mark_clean_below(RaftIndex(3));
        assert_eq!((t.first_dirty_sequence(), t.first_dirty_own_sequence()), (Some(6), Some(6)));
    }

    #[test]
    #[should_panic(expected = "only batches that are in a segment")]
    fn dirty_batches_are_never_evicted() {
        tail().evict_through(1);
    }

    #[test]
    #[should_panic(expected = "no gaps in its offsets")]
    fn a_gap_is_a_broken_invariant() {
        tail().push(batch(9, 17, 1, 3));
    }
}
