//! The sparse index of a segment in memory.

use crate::format::index_page::IndexEntry;
use crate::format::segment_file::FIRST_BATCH;
use crate::ids::{LogId, RaftIndex};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of batches between two entries, at the least.
pub const INTERVAL: u64 = 64 << 10;

/// Where a batch begins: in its segment's file, and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchStart {
    pub position: u64,
    pub offset: i64,
    /// Batches of the segment that come before it.
    pub number: u32,
}

impl BatchStart {
    /// The first batch of the segment of `base_offset`.
    pub fn of_segment(base_offset: i64) -> BatchStart {
        BatchStart { position: FIRST_BATCH, offset: base_offset, number: 0 }
    }
}

/// Points of a segment where a batch begins, in order. The segment's first batch needs no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseIndex {
    pub entries: Vec<IndexEntry>,
}

impl SparseIndex {
    /// A batch of `base_offset` and `index` begins at `position`; an entry is made when the last one is
    /// [`INTERVAL`] bytes back. `segment`: base offset and index of the segment.
    pub fn note(
        &mut self,
        segment: (i64, RaftIndex),
        base_offset: i64,
        index: RaftIndex,
        position: u64,
        max_timestamp_before: i64,
    ) {
        let last = self.entries.last().map_or(FIRST_BATCH, |e| u64::from(e.position));
        if position >= last + INTERVAL {
            self.entries.push(IndexEntry {
                relative_offset: (base_offset - segment.0) as u32,
                position: position as u32,
                relative_index: (index.0 - segment.1.0) as u32,
                max_timestamp_before,
            });
        }
    }

    /// Where a scan for `offset` begins, in the segment of `base_offset`.
    pub fn start_for_offset(&self, base_offset: i64, offset: i64) -> BatchStart {
        let relative = u32::try_from(offset - base_offset).unwrap_or(u32::MAX);
        self.start(base_offset, self.entries.partition_point(|e| e.relative_offset <= relative))
    }

    /// Where a scan for the batch begins that `number` others come before.
    pub fn start_for_number(&self, base_offset: i64, number: u32) -> BatchStart {
        self.start(base_offset, self.entries.partition_point(|e| e.relative_index <= number))
    }

    /// Where a scan for the first record with a timestamp of at least `timestamp` begins.
    pub fn start_for_timestamp(&self, base_offset: i64, timestamp: i64) -> BatchStart {
        self.start(base_offset, self.entries.partition_point(|e| e.max_timestamp_before < timestamp))
    }

    fn start(&self, base_offset: i64, after: usize) -> BatchStart {
        match after.checked_sub(1).map(|i| &self.entries[i]) {
            None => BatchStart::of_segment(base_offset),
            Some(entry) => BatchStart {
                position: u64::from(entry.position),
                offset: base_offset + i64::from(entry.relative_offset),
                number: entry.relative_index,
            },
        }
    }

    fn bytes(&self) -> u64 {
        (self.entries.len() * size_of::<IndexEntry>() + 64) as u64
    }
}

/// Indexes of sealed segments, as many as fit; the ones longest unused go.
pub struct IndexCache {
    limit: u64,
    state: RefCell<CacheState>,
}

#[derive(Default)]
struct CacheState {
    indexes: BTreeMap<(LogId, i64), (Rc<SparseIndex>, u64)>,
    by_use: BTreeMap<u64, (LogId, i64)>,
    uses: u64,
    bytes: u64,
}

impl IndexCache {
    pub fn new(limit: u64) -> IndexCache {
        IndexCache { limit, state: RefCell::default() }
    }

    pub fn get(&self, log: LogId, base_offset: i64) -> Option<Rc<SparseIndex>> {
        let state = &mut *self.state.borrow_mut();
        let (index, used) = state.indexes.get_mut(&(log, base_offset))?;
        state.uses += 1;
        state.by_use.remove(used);
        *used = state.uses;
        state.by_use.insert(state.uses, (log, base_offset));
        Some(Rc::clone(index))
    }

    pub fn insert(&self, log: LogId, base_offset: i64, index: Rc<SparseIndex>) {
        self.forget(log, base_offset);
        let state = &mut *self.state.borrow_mut();
        state.uses += 1;
        state.bytes += index.bytes();
        state.by_use.insert(state.uses, (log, base_offset));
        state.indexes.insert((log, base_offset), (index, state.uses));
        // The newest stays even if it is larger than the limit alone: its reader is about to use it.
        while state.bytes > self.limit && state.indexes.len() > 1 {
            let (_, oldest) = state.by_use.pop_first().expect("every index has a last use");
            let (index, _) = state.indexes.remove(&oldest).expect("it is in the cache");
            state.bytes -= index.bytes();
        }
    }

    pub fn forget(&self, log: LogId, base_offset: i64) {
        let state = &mut *self.state.borrow_mut();
        if let Some((index, used)) = state.indexes.remove(&(log, base_offset)) {
            state.by_use.remove(&used);
            state.bytes -= index.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::Uuid;

    const SEGMENT: (i64, RaftIndex) = (1000, RaftIndex(500));

    fn sample() -> SparseIndex {
        let mut index = SparseIndex::default();
        for i in 0..100u64 {
            let position = FIRST_BATCH + i * (INTERVAL / 2);
            index.note(SEGMENT, 1000 + i as i64 * 10, RaftIndex(500 + i), position, i as i64 * 100 - 1);
        }
        index
    }

    #[test]
    fn an_entry_every_interval() {
        let index = sample();
        assert_eq!(index.entries.len(), 49);
        assert_eq!(index.entries[0].relative_offset, 20);
        assert_eq!(index.entries[0].relative_index, 2);
    }

    #[test]
    fn a_scan_begins_at_or_before_what_is_sought() {
        let index = sample();
        let interval = |n: u64| BatchStart {
            position: FIRST_BATCH + n * INTERVAL,
            offset: 1000 + n as i64 * 20,
            number: n as u32 * 2,
        };
        for (offset, expected) in [(1000, 0), (1019, 0), (1020, 1), (1039, 1), (i64::MAX, 49)] {
            assert_eq!(index.start_for_offset(1000, offset), interval(expected), "offset {offset}");
        }
        for (number, expected) in [(0, 0), (1, 0), (2, 1), (3, 1), (u32::MAX, 49)] {
            assert_eq!(index.start_for_number(1000, number), interval(expected), "batch {number}");
        }
        for (timestamp, expected) in [(0, 0), (199, 0), (200, 1)] {
            assert_eq!(
                index.start_for_timestamp(1000, timestamp),
                interval(expected),
                "timestamp {timestamp}"
            );
        }
    }

    #[test]
    fn the_cache_lets_the_longest_unused_go() {
        let log = LogId { topic: Uuid([0; 16]), partition: 0 };
        let cache = IndexCache::new(3 * sample().bytes());
        for base in 0..3 {
            cache.insert(log, base, Rc::new(sample()));
        }
        assert!(cache.get(log, 0).is_some());
        cache.insert(log, 3, Rc::new(sample()));
        assert!(cache.get(log, 1).is_none() && cache.get(log, 0).is_some() && cache.get(log, 3).is_some());
        cache.forget(log, 0);
        assert!(cache.get(log, 0).is_none());
    }
}
