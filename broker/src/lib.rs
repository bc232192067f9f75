//! The Corelog broker as a library: what the `corelog` binary is put together from.

pub mod config;
pub mod groups;
pub mod logging;
