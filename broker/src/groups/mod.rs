//! Groups: the classic consumer group protocol, and committed offsets.
//!
//! One state machine ([`Groups`]) for each partition of `__consumer_offsets`, a tenant of the coordinators' frame
//! ([`crate::coordinator`], which has the rules of state, records and answers). [`GroupPartition`] is one at work,
//! [`GroupShard`] holds those of a shard.
//!
//! | folder | holds |
//! |---|---|
//! | `state.rs`, `records.rs` | the replicated state, and the records that change it |
//! | [`classic`] | the classic protocol: members, joins, syncs, rebalances; soft state beside the records of generations |
//! | [`offsets`] | commit, fetch, delete and expiry of offsets |
//! | (`consumer`) | the protocol of KIP-848, to come: its records join [`GroupRecord`], its groups stand beside `classic` ones |
//!
//! # What is visible when
//! - OffsetFetch sees committed offsets. ListGroups and DescribeGroups see groups whose first record is committed, and,
//!   before that, those that have members: these may have their answer already, and look.
//! - Who decides goes by what will be when everything on its way is committed: [`Groups::group`],
//!   [`Groups::latest_offset`].
//! - A member gets its assignment, and a static member its new id, when the record of it is committed.
//!
//! # Soft state
//! The members of a group as they come and go, the rebalance under way, requests that wait, member ids handed out and
//! not yet used, sessions and other deadlines. It is made of the last record when the log is loaded: members that had
//! joined and not synced join again, the others have their whole session to be heard of. When a record is refused:
//! - a group whose first record it was ends, and whoever waits in it is refused;
//! - a generation whose assignment it was joins again;
//! - a static member is again as the record before has it;
//! - an empty group stays empty; one that was to be removed stays, with its offsets.
//!
//! # Offsets and topics
//! An offset bears the id of its topic (as in Kafka since 4.1): one of a topic that is gone is served to nobody, also
//! where a topic was created anew under the name. Such offsets are removed when the topic is deleted
//! ([`Groups::topics_deleted`]); those that this has missed, when retention looks. Offsets without an id (of older
//! logs, and those with an expiry of their own, whose record has no room for it) go by the name alone.
//!
//! # Bounds
//! Groups, members, handed-out member ids, offsets and writes on their way of all coordinators of a shard count into
//! one [`GroupMemory`]; when that is used up, additions are refused. What is kept is copied out of the request it
//! came in, so that no receive buffer lives on. Group records are bounded by what a batch of the topic may be.
//!
//! Sources: KIP-62, 134, 345, 394, 447, 496, 518, 559, 709, 800, 814, 1043; behaviour as of Apache Kafka 4.
//!
//! [`Groups`]: machine::Groups
//! [`Groups::group`]: machine::Groups::group
//! [`Groups::latest_offset`]: machine::Groups::latest_offset
//! [`Groups::topics_deleted`]: machine::Groups::topics_deleted
//! [`GroupRecord`]: records::GroupRecord
//! [`GroupPartition`]: serve::GroupPartition
//! [`GroupMemory`]: memory::GroupMemory

mod classic;
mod config;
mod delete;
mod describe;
mod env;
mod list;
mod machine;
mod memory;
mod observe;
mod offsets;
mod placement;
mod records;
mod request;
mod serve;
mod shard;
mod state;
mod then;
mod topics;

#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use observe::GroupRow;
pub use placement::group_partition;
pub use request::{GroupRequest, GroupResponse, RequestContext};
pub use shard::GroupShard;
pub use topics::TopicIds;
