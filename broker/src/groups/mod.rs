//! Group coordination: the classic consumer group protocol, and committed offsets.
//!
//! One [`GroupCoordinator`] per partition of `__consumer_offsets`. It is a deterministic state machine without I/O:
//! requests, the log's reports and the time go in, [`Effect`]s come out.
//!
//! ```text
//!   handle(ticket, context, request, now) ─┐            ┌─> Effect::Respond { ticket, response }
//!   expire(now) ───────────────────────────┤  Group-    │
//!   written(write, result, now) ───────────┼> Coordi- ──┼─> Effect::Append { id, records }  ──> the log
//!   topics_deleted(topics, now) ───────────┘  nator     └─> next_deadline()
//! ```
//!
//! [`GroupShard`] holds the coordinators of a shard; [`GroupPartition`] runs one: it appends to the [`GroupLog`] (in the
//! broker a [`StorageLog`]), reports what is durable, and keeps the deadlines.
//!
//! # What is visible when
//! - A response that tells of a change of durable state (an offset, a generation's assignment, a static member's new
//!   id, a deletion) is released when the record of that change is durable, and turned into a refusal when its write
//!   fails.
//! - Readers (OffsetFetch, ListGroups, DescribeGroups) see offsets and groups that are durable. Writers go by what will
//!   be when everything on its way is durable.
//! - JoinGroup and SyncGroup are parked until other members, the leader or a deadline resolve them. A member has at
//!   most one of each; a later one supersedes an earlier one, which is answered with REBALANCE_IN_PROGRESS.
//!
//! # Loading
//! A new coordinator is loading: [`GroupCoordinator::replay`] takes the records of the log in their order (the last one
//! of a key wins), [`GroupCoordinator::loaded`] opens it. The state after a replay of everything that was written is
//! the state that was live, but for members that had joined and not synced: those join again.
//!
//! # Offsets and topics
//! An offset bears the id of its topic (as in Kafka since 4.1): one of a topic that is gone is served to nobody, also
//! where a topic was created anew under the name. Such offsets are removed when the topic is deleted
//! ([`GroupCoordinator::topics_deleted`]); those that this has missed, when the log is loaded. Offsets without an id
//! (of older logs, and those with an expiry of their own, whose record has no room for it) go by the name alone.
//!
//! [`GroupCoordinator::topics_deleted`]: coordinator::GroupCoordinator::topics_deleted
//!
//! # Bounds
//! Groups, members, handed-out member ids and offsets of all coordinators of a shard count into one [`GroupMemory`];
//! when that is used up, additions are refused. What is kept is copied out of the request it came in, so that no
//! receive buffer lives on. Group records are bounded by what a batch of the topic may be.
//!
//! Sources: KIP-62, 134, 345, 394, 447, 496, 518, 559, 709, 800, 814, 1043; behaviour as of Apache Kafka 4.
//!
//! [`GroupCoordinator`]: coordinator::GroupCoordinator
//! [`GroupCoordinator::replay`]: coordinator::GroupCoordinator::replay
//! [`GroupCoordinator::loaded`]: coordinator::GroupCoordinator::loaded
//! [`Effect`]: effect::Effect
//! [`GroupPartition`]: driver::GroupPartition
//! [`GroupLog`]: group_log::GroupLog
//! [`GroupMemory`]: memory::GroupMemory

mod config;
mod coordinator;
mod delete;
mod describe;
mod driver;
mod effect;
mod env;
mod group;
mod group_log;
mod heartbeat;
mod join;
mod leave;
mod list;
mod load;
mod member;
mod memory;
mod observe;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offsets;
mod parked;
mod partition;
mod rebalance;
mod records;
mod request;
mod retention;
mod shard;
mod static_member;
mod storage_log;
mod subscription;
mod sync;
mod timers;
mod topics;
mod write_queue;
mod written;

#[cfg(test)]
mod tests;

pub use config::GroupConfig;
pub use observe::GroupRow;
pub use partition::group_partition;
pub use request::{GroupRequest, GroupResponse, RequestContext};
pub use shard::GroupShard;
pub use storage_log::StorageLog;
pub use topics::TopicIds;
