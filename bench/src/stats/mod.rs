//! Figures from measurements: percentiles, courses over time, spreads of repeated runs.

pub mod recorder;
pub mod spread;
pub mod summary;
