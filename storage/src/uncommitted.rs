//! The batches of a log that no quorum has confirmed yet: what is needed of each to commit or to cut it, wherever its bytes
//! are by then. They may be in a segment, and out of memory.

use std::collections::VecDeque;

/// A batch counts as so many bytes at the least: what is kept of it here, and in checkpoints, takes memory too.
const BATCH_BYTES_MIN: u64 = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UncommittedBatch {
    /// The Kafka offset after it.
    pub next_offset: i64,
    pub term: i32,
    /// Bytes.
    pub len: u32,
}

impl UncommittedBatch {
    fn counts(&self) -> u64 {
        u64::from(self.len).max(BATCH_BYTES_MIN)
    }
}

/// In order; the first is the one after the last committed.
#[derive(Default)]
pub struct Uncommitted {
    batches: VecDeque<UncommittedBatch>,
    bytes: u64,
}

impl Uncommitted {
    pub fn push(&mut self, batch: UncommittedBatch) {
        self.bytes += batch.counts();
        self.batches.push_back(batch);
    }

    /// The first one is committed now.
    pub fn pop(&mut self) -> Option<UncommittedBatch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= batch.counts();
        if self.batches.is_empty() && self.batches.capacity() > 1024 {
            self.batches = VecDeque::new();
        }
        Some(batch)
    }

    /// Cuts all but the first `kept`.
    pub fn cut_back(&mut self, kept: usize) {
        self.bytes -= self.batches.iter().skip(kept).map(UncommittedBatch::counts).sum::<u64>();
        self.batches.truncate(kept);
    }

    /// The bytes they count as.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn get(&self, at: usize) -> Option<&UncommittedBatch> {
        self.batches.get(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &UncommittedBatch> {
        self.batches.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_or_cut_counts_no_more() {
        let batch = |next_offset, len| UncommittedBatch { next_offset, term: 1, len };
        let mut u = Uncommitted::default();
        [batch(1, 100), batch(2, 10_000), batch(3, 5_000)].into_iter().for_each(|b| u.push(b));
        assert_eq!(u.bytes(), BATCH_BYTES_MIN + 15_000);
        u.cut_back(2);
        assert_eq!(u.bytes(), BATCH_BYTES_MIN + 10_000);
        assert_eq!(u.pop(), Some(batch(1, 100)));
        assert_eq!((u.bytes(), u.get(0)), (10_000, Some(&batch(2, 10_000))));
        u.cut_back(0);
        assert_eq!((u.bytes(), u.pop()), (0, None));
    }
}
