//! The Corelog broker.

pub mod groups;
