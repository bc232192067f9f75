//! Figures from measurements: percentiles, courses over time, spreads of repeated runs, and whether a run was steady.

pub mod gauge;
pub mod recorder;
pub mod spread;
pub mod steady;
pub mod summary;
