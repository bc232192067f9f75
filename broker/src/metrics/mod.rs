//! What the broker counts, and how Prometheus is told.
//!
//! Each shard counts on its own, in plain cells: an update is an add to memory that no other core touches. When
//! somebody asks, every shard hands a [`Snapshot`] to the service thread, which merges and writes them. Nothing is
//! shared and nothing is atomic.
//!
//! Every family of metrics stands in one table, [`families`], with what it means; `METRICS.md` is made of it.

mod cells;
mod entities;
pub mod families;
mod markdown;
mod process;
mod shard;
mod snapshot;
mod text;

pub use cells::{Counter, Gauge, Histogram};
pub use entities::Entities;
pub use families::Family;
pub use markdown::page;
pub use process::process;
pub use shard::ShardMetrics;
pub use snapshot::Snapshot;
pub use text::{CONTENT_TYPE, encode};

/// What a scrape found.
pub struct Page {
    pub snapshots: Vec<Snapshot>,
    /// Topics, partitions and groups; `None` if no shard could be asked what there is.
    pub entities: Option<Entities>,
}

impl Page {
    /// The text, in pieces to be sent one by one.
    pub fn pieces(self) -> impl Iterator<Item = String> + Send {
        let entities = self.entities.into_iter().flat_map(Entities::pieces);
        std::iter::once(encode(&self.snapshots)).chain(entities)
    }
}
