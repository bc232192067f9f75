//! The sparse index of a segment in memory.

use crate::format::index_page::IndexEntry;
use crate::format::segment_file::FIRST_BATCH;
use crate::ids::{LogId, RaftIndex};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of batches between two entries, at the least.
pub const INTERVAL: u64 = 64 << 10;

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

    /// Where a scan for `relative_offset` begins.
    pub fn position_of_offset(&self, relative_offset: u32) -> u64 {
        let after = self.entries.partition_point(|e| e.relative_offset <= relative_offset);
        self.at(after)
    }

    /// Where a scan for the first record with a timestamp of at least `timestamp` begins.
    pub fn position_of_timestamp(&self, timestamp: i64) -> u64 {
        let after = self.entries.partition_point(|e| e.max_timestamp_before < timestamp);
        self.at(after)
    }

    fn at(&self, after: usize) -> u64 {
        after.checked_sub(1).map_or(FIRST_BATCH, |i| u64::from(self.entries[i].position))
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
        assert_eq!(index.position_of_offset(0), FIRST_BATCH);
        assert_eq!(index.position_of_offset(19), FIRST_BATCH);
        assert_eq!(index.position_of_offset(20), FIRST_BATCH + INTERVAL);
        assert_eq!(index.position_of_offset(39), FIRST_BATCH + INTERVAL);
        assert_eq!(index.position_of_offset(u32::MAX), FIRST_BATCH + 49 * INTERVAL);
        assert_eq!(index.position_of_timestamp(0), FIRST_BATCH);
        assert_eq!(index.position_of_timestamp(199), FIRST_BATCH);
        assert_eq!(index.position_of_timestamp(200), FIRST_BATCH + INTERVAL);
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
