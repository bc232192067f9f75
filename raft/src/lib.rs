//! Raft for a shard with thousands of logs: values in, values out.
//!
//! Nothing here waits, reads a clock, opens a file or a socket, or draws a random number of its own. A shard hands in what
//! came (frames, ticks, proposals, "this is durable") and takes out what is to be done. So a whole cluster runs in one
//! test, from one seed: `tests/simulation`.
//!
//! # Three layers
//!
//! | | what it knows | what it never sees |
//! |---|---|---|
//! | `core` | who leads, which logs match, who belongs to the group: raft-rs | bytes, time, disks |
//! | [`Group`] | what must be durable before what is said; deadlines, leases, rest; membership | other groups, brokers, connections |
//! | [`Driver`] | all groups of a shard: who needs a look, what leaves to which peer, what is in flight | batches' contents |
//!
//! Beside them [`frame`] is what drivers say to each other on the wire. raft-rs is named in `core` alone: another core
//! takes its place there.
//!
//! A driver is one shard of one broker, and so is each [`PeerId`] that it speaks to. Brokers may differ in their number of
//! shards and place their replicas themselves; [`Driver::set_peers`] says where a group's replicas are now. Who a peer is,
//! and that it belongs to this cluster, is settled before its frames come here.
//!
//! # A turn of a shard
//!
//! 1. **In**: [`Driver::receive`] for each frame, [`Driver::propose`] with all batches that came for a group in this turn,
//!    [`Driver::durable`] and [`Driver::hard_state_durable`] for what the flusher and the journal finished,
//!    [`Driver::tick`] every [`config::TICK`].
//! 2. [`Driver::collect`]: one [`GroupTurn`] for each group that has something to do. Its `append` goes into the log (cut
//!    before, where it begins below the log's end), its `hard_state` into the shard's journal: both begin their way to
//!    stable storage here, all groups of the turn under one sync. `committed` moves the log's commit index.
//! 3. [`Driver::send`]: now that the logs have the turn's entries, frames are made of them, as many as there is room for.
//!    What is not in memory is asked for, and goes when [`Driver::entries_read`] brings it.
//! 4. **Out**: [`Driver::take_frame`] for each peer's connection.
//!
//! A leader's own sync and its followers' begin in the same turn: nothing of step 3 waits for step 2's disk.
//!
//! # What waits for what
//!
//! | said | only once on this replica's stable storage |
//! |---|---|
//! | anything at all | the term and the vote it is said with |
//! | "I have all below N" ([`Outcome::Matched`]) | the entries below N |
//! | a vote asked for | its whole log |
//! | "N is committed" by a leader | nothing more: a majority said so, itself counted only for what it has durable |
//!
//! What was held for entries that another leader replaced is never said. A group whose only voter is this replica commits
//! what is durable, without a message.
//!
//! # What each may answer
//!
//! - A **follower** answers clients nothing; it knows who leads ([`Leadership`]).
//! - A **candidate** knows nobody.
//! - A **leader** takes proposals at once. It may read, and say what the log's end is, while [`Driver::may_lead`] holds: it
//!   committed an entry of its own term, a majority answered heartbeats that are younger than the lease, and it hands its
//!   leadership to nobody. Followers keep their part whatever else they hear: they vote for no other until an election
//!   timeout after the leader was last heard, and for as long after they start.
//! - A replica that is **removed** says so once ([`GroupTurn::removed`]); its data may go then. One that is no voter and
//!   hears no leader asks whether it was.
//! - A replica that lost its disk comes back under a new [`ReplicaId`]: the old one's votes and answers are nobody's.
//! - A group that finds a rule broken ([`Violation`]) stops, with what it found, and harms no other group.
//!
//! # Membership
//!
//! A change is in force on a replica from the moment its log has the entry, and no more if the entry is cut. There is one
//! at a time, and none before the leader has committed in its own term. More than one replica, or a voter that goes,
//! changes by way of a joint configuration, which the leader leaves by itself; if it goes itself it hands over first.
//!
//! # Rest
//!
//! A group without news for [`config::Timing::rest`] whose replicas all have all of it goes to rest: no deadline, no
//! heartbeat, no look. The drivers' own heartbeats, one frame for each pair and interval, stand for those of all groups at
//! rest, for their leases too. A proposal wakes a group, and so does any message but the heartbeats of rest, a leader's
//! peer that fell silent, or a connection that began anew. What follows a broker's death is spread:
//! [`config::Bounds::elections_per_tick`].
//!
//! # Snapshots
//!
//! A follower that needs what retention took shows up in [`GroupTurn::snapshots_wanted`]. The shard makes sure that
//! there is something to fetch and says from where on the log goes on: [`Driver::offer_snapshot`]. At the follower it is
//! [`GroupTurn::install`]; the state comes outside of Raft, and [`Driver::snapshot_installed`] says that it is there.
//!
//! # Known gaps
//!
//! A leader gives up a snapshot transfer only when it is told ([`Driver::snapshot_failed`]): the shard that moves the bytes
//! notices one that stalls. A group with a dead replica never goes to rest, until the replica is replaced.
//!
//! Not proven yet: of the simulation's seeds 0 to 4999, 2392, 3109 and 3978 end without a leader, and in 4064 a replica
//! holds an entry to be committed that it does not have. None of the four is understood.
//!
//! # What it costs
//!
//! Instructions of a round, one proposal of batches of 16 KiB that is committed everywhere: core, gate, driver and frames
//! together, without disks and sockets.
//!
//! | | one batch | 16 batches in one list |
//! |---|---|---|
//! | a group of one replica | 7,600 | 23,000: 1,400 a batch |
//! | the leader of three, with what it hears of its followers | 53,000 | 87,000: 5,400 a batch |
//! | all three brokers, with a copy and the checksums that receiving takes | 105,000 | 703,000: 44,000 a batch |
//!
//! `cargo run --release -p corelog-raft --example costs` counts them again; it wants valgrind.

pub mod config;
mod core;
mod driver;
pub mod frame;
mod group;
mod ids;
mod log;
mod membership;
mod message;
mod random;
mod terms;
#[cfg(test)]
mod testing;

pub use crate::core::{AppendOrder, Progress, Role, Violation};
pub use driver::{Counters, Driver, GroupTurn, NotDone, Replica};
pub use group::{Group, Leadership, OpenError, Output, Refused};
pub use ids::{GroupId, PeerId, RaftIndex, ReplicaId, Term, Tick};
pub use log::{Entry, EntryKind, HardState, Log, LogStart, Logs};
pub use membership::{Change, Membership};
pub use message::*;
pub use random::Random;
