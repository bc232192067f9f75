//! Randomness of the current world.

/// A random number: from the operating system's seed on glommio, from the simulation's seed when simulated.
/// Not for secrets.
pub fn random_u64() -> u64 {
    unimplemented!()
}
