//! Configuration of the broker and of topics.
//!
//! Every name, type, default, limit and sentence of documentation stands once, in the tables under [`rows`].
//! Everything else reads them: the start-up loader ([`load`]), the typed values the core works with
//! ([`BrokerConfig`], [`TopicConfig`]), DescribeConfigs and the AlterConfigs family ([`describe`], [`alter`]),
//! and the generated page ([`markdown`]).
//!
//! A broker value is looked up in four layers (KIP-226), the first that has it wins: this broker's dynamic
//! configs, the cluster's dynamic defaults, what the process was started with (flags, then `CORELOG_...`
//! variables, then the TOML file), and the table's default. A topic value is looked up in the topic's own
//! configs first, then in the broker's value for its synonym.
//!
//! Nothing here does I/O after start-up: alteration returns the validated key and value list, the controller
//! stores it.

pub mod alter;
mod args;
mod broker;
pub mod convert;
pub mod cpus;
pub mod describe;
mod error;
mod file;
mod layers;
mod listener;
mod load;
mod machine;
pub mod markdown;
pub(crate) mod nearest;
pub mod quantity;
pub mod resource;
pub mod rows;
mod spec;
pub mod template;
mod topic;

pub use args::Args;
pub use broker::{
    BrokerConfig, ConnectionLimits, GroupLimits, MetricsLimits, OffsetsTopic, RECEIVE_SHARE, REQUEST_PERCENT,
    StorageLimits, request_bytes_max,
};
pub use error::{BadValue, ConfigError, Origin};
pub use layers::{ConfigMap, Layers, Source, StaticConfig};
pub use listener::{Endpoint, Listener};
pub use load::load;
pub use machine::Machine;
pub use spec::{Effect, Kind, Spec, Unit, Update, WITHOUT_EFFECT, split_list};
pub use topic::{CleanupPolicy, Compression, TimestampType, TopicConfig};
