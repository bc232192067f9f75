//! Randomness of the current world.

use crate::real;
use crate::world::{self, World};
use std::time::Duration;

/// A random number: from the operating system's seed on glommio, from the simulation's seed when simulated.
/// Not for secrets.
pub fn random_u64() -> u64 {
    match world::current() {
        World::Real(core) => core.random_u64(),
        World::Sim(context) => context.random_u64(),
    }
}

/// Random bytes that nobody can guess: from the operating system on glommio, from the simulation's seed when simulated.
/// For what opens doors to whoever knows it.
pub fn random_secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match world::current() {
        World::Real(_) => real::random::fill(&mut bytes),
        World::Sim(context) => {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&context.random_u64().to_ne_bytes()[..chunk.len()]);
            }
        }
    }
    bytes
}

/// A generator that its seed repeats, for plans and for what must come out the same elsewhere: Steele, Lea and Flood's SplitMix64
/// ("Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 where that is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// One of the indexes of `len` things.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// A time of less than so many milliseconds.
    pub fn millis(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.below(below * 1000))
    }
}
