//! Randomness of the current world.

use crate::real;
use crate::world::{self, World};

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

/// Steele, Lea and Flood's generator ("Fast splittable pseudorandom number generators", 2014).
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
