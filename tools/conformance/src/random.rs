//! Random numbers that a seed repeats.

use corelog_wire::testing;

#[derive(Clone, Debug)]
pub struct Random(testing::Random);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(testing::Random(seed))
    }

    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Between `least` and `most`, as often of the order of the one as of the other.
    pub fn log_uniform(&mut self, least: u64, most: u64) -> u64 {
        let fraction = self.below(1 << 20) as f64 / (1u64 << 20) as f64;
        let value = (least as f64).ln() + ((most as f64).ln() - (least as f64).ln()) * fraction;
        (value.exp() as u64).clamp(least, most)
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.bits().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A seed that has nothing to do with the last one.
    pub fn fresh_seed() -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish() >> 16
    }
}
