//! Hash maps whose order is chance, except in builds for the simulation: there a seed has to give the same run each time.

#[cfg(feature = "simulation")]
type Keys = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
#[cfg(not(feature = "simulation"))]
type Keys = std::hash::RandomState;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, Keys>;
pub(crate) type HashSet<T> = std::collections::HashSet<T, Keys>;
