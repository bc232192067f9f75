//! The Corelog broker. `ARCHITECTURE.md` beside this crate tells the shape and the path of a request.

pub mod admin;
pub mod api;
mod audit;
mod call;
pub mod config;
mod controller;
mod disk;
mod fetch;
mod groups;
pub mod identity;
mod ids;
mod leftovers;
mod lifecycle;
pub mod logging;
pub mod metrics;
mod net;
mod partition;
pub mod process;
mod producer_ids;
mod retention;
pub mod server;
pub mod settings;
mod shard;
pub mod told;
mod topic_creation;
mod topic_name;
pub mod version;
