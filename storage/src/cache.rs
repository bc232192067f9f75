//! Memory of the tail caches of all logs of a shard: journal groups, let go oldest first once all their batches are
//! in segments.

use crate::log::Log;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Weak;

/// What is worth a write to a segment of its own.
const THIN_PIECE: u64 = 128 << 10;

pub struct TailCache {
    limit: u64,
    bytes: Cell<u64>,
    /// Bytes added since [`TailCache::wants_clean`] has said so.
    unlooked: Cell<u64>,
    groups: RefCell<VecDeque<CachedGroup>>,
}

/// The memory of one durable journal group.
pub struct CachedGroup {
    /// 0: recovered from a former generation's journal.
    pub sequence: u64,
    pub bytes: u64,
    /// The logs that have batches in it.
    pub logs: Vec<Weak<Log>>,
}

impl TailCache {
    pub fn new(limit: u64) -> TailCache {
        TailCache { limit, bytes: Cell::new(0), unlooked: Cell::new(0), groups: RefCell::default() }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// A group became durable. Groups come in order; those of former generations before all others.
    pub fn add(&self, group: CachedGroup) {
        self.bytes.set(self.bytes.get() + group.bytes);
        self.unlooked.set(self.unlooked.get() + group.bytes);
        let mut groups = self.groups.borrow_mut();
        if group.sequence == 0 { groups.push_front(group) } else { groups.push_back(group) }
    }

    /// Bytes that may be in no segment yet, with `logs` that have such. The fewer, the sooner the disk has them and the
    /// smaller is each burst; but thousands of thin logs would be written in thousands of small pieces.
    pub fn dirty_wanted(&self, logs: usize) -> u64 {
        (logs as u64 * THIN_PIECE).clamp(self.limit / 4, self.limit / 8 * 5)
    }

    /// Whether it is time to have all but the newest `dirty` bytes in segments, so that they can go when they must. Not
    /// more often than is worth a look at every log.
    pub fn wants_clean(&self, dirty: u64) -> bool {
        let wants = self.bytes.get() > dirty && self.unlooked.get() > self.limit / 32;
        if wants {
            self.unlooked.set(0);
        }
        wants
    }

    /// Lets the oldest groups go until `need` more bytes fit. `false`: the oldest is not in segments yet.
    pub fn make_room(&self, need: u64) -> bool {
        let mut groups = self.groups.borrow_mut();
        while self.bytes.get() + need > self.limit {
            let Some(oldest) = groups.front() else { return true };
            let clean =
                |log: &Weak<Log>| log.upgrade().is_none_or(|log| log.is_clean_through(oldest.sequence));
            if !oldest.logs.iter().all(clean) {
                return false;
            }
            for log in oldest.logs.iter().filter_map(Weak::upgrade) {
                log.evict_through(oldest.sequence);
            }
            self.bytes.set(self.bytes.get() - oldest.bytes);
            groups.pop_front();
        }
        true
    }

    /// The journal group below which at least `bytes` lie, from the oldest on: flushing through it makes that much
    /// room.
    pub fn sequence_after(&self, bytes: u64) -> u64 {
        let mut seen = 0;
        let groups = self.groups.borrow();
        for group in groups.iter() {
            seen += group.bytes;
            if seen >= bytes {
                return group.sequence;
            }
        }
        groups.back().map_or(0, |g| g.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_logs_are_flushed_soon_and_many_in_pieces_worth_a_write() {
        let cache = TailCache::new(400 << 20);
        assert_eq!(cache.dirty_wanted(0), 100 << 20);
        assert_eq!(cache.dirty_wanted(100), 100 << 20);
        assert_eq!(cache.dirty_wanted(1600), 200 << 20);
        assert_eq!(cache.dirty_wanted(100_000), 250 << 20);
    }
}
