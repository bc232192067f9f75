//! A running hash of all that happens: equal for equal runs, and so the test of determinism.

use std::cell::Cell;

pub(crate) struct Trace(Cell<u64>);

impl Trace {
    pub(crate) fn new(seed: u64) -> Trace {
        Trace(Cell::new(seed))
    }

    /// What happened, in two numbers.
    pub(crate) fn mix(&self, a: u64, b: u64) {
        self.0.set(step(step(self.0.get(), a), b));
    }

    /// Bytes that were read, written or sent.
    pub(crate) fn mix_bytes(&self, bytes: &[u8]) {
        let mut hash = step(self.0.get(), bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            hash = step(hash, u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
        for &byte in words.remainder() {
            hash = step(hash, u64::from(byte));
        }
        self.0.set(hash);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0.get()
    }
}

fn step(hash: u64, word: u64) -> u64 {
    // Odd multiplier, so no step loses information of the word; the rotation spreads it to the low bits.
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
