//! Committed offsets: commit, fetch, delete, expiry.

mod commit;
mod delete;
mod fetch;
mod latest;
mod retention;
mod store;

pub use fetch::WaitingFetch;
pub use store::{CommittedOffset, OffsetKey, OffsetStore};
