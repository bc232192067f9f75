//! What the broker counts, and how Prometheus is told.
//!
//! Each shard counts on its own, in plain cells: an update is an add to memory that no other core touches. When
//! somebody asks, every shard hands a [`Snapshot`] to the service thread, which merges and writes them. Nothing is
//! shared and nothing is atomic.
//!
//! Every family of metrics stands in one table, [`families`], with what it means.

mod cells;
pub mod families;
mod process;
mod shard;
mod snapshot;
mod text;

pub use cells::{Counter, Gauge, Histogram};
pub use families::Family;
pub use process::process;
pub use shard::ShardMetrics;
pub use snapshot::Snapshot;
pub use text::{CONTENT_TYPE, encode};
