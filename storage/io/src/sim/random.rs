//! Deterministic randomness.

use crate::random::Dice;
use std::ops::Range;
use std::time::Duration;

pub(crate) struct Random(Dice);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Dice(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// Uniform in `0..n`; 0 for an empty range.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        // The high half of a 128-bit product: uniform up to 2^-64, without division.
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform index of a collection of `len` elements, which must not be empty.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "nothing to choose from");
        self.below(len as u64) as usize
    }

    /// True once in `n` times; never for 0.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// Nanoseconds in the range; its start if it is empty.
    pub(crate) fn nanos(&mut self, range: &Range<Duration>) -> u64 {
        let start = range.start.as_nanos() as u64;
        let end = range.end.as_nanos() as u64;
        start + self.below(end.saturating_sub(start))
    }
}
