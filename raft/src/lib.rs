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
//!   hears no leader asks whether it was. So a replica is opened when the change that brings it in was taken up by a leader,
//!   and where that change was lost the next try brings another [`ReplicaId`].
//! - A replica that lost its disk comes back under a new [`ReplicaId`]: the old one's votes and answers are nobody's. So does
//!   one that was removed, whatever its disk still has: going through its own removal it would forget what it is counted for.
//! - A group that finds a rule broken ([`Violation`]) stops, with what it found, and harms no other group.
//!
//! # Membership
//!
//! A change is in force on a replica from the moment its log has the entry, and no more if the entry is cut. There is one
//! at a time, and none before the leader has committed in its own term. More than one replica, or a voter that goes,
//! changes by way of a joint configuration, which the leader leaves by itself; if it goes itself it hands over first.
//!
//! # Time
//!
//! Each input brings the moment it came at, on a clock that is this shard's own and never goes back. It is read after the
//! frame was, never before: a follower's promise counts from there, and a leader's lease from before the frame was sent.
//! [`Driver::may_lead`] is asked with the clock as it is when the answer is made, not as it was when the turn began. Two
//! clocks may differ by [`config::Timing::lease_margin`] in an election timeout, about one part in six.
//!
//! # Rest
//!
//! A group without news for [`config::Timing::rest`] whose replicas all have all of it goes to rest: no deadline, no
//! heartbeat, no look. Replicas whose peer is disconnected or silent are not waited for, as long as a majority is there; that
//! peer's return wakes the group. So a broker that is gone costs a second of heartbeats, not a heartbeat of each group for
//! ever. The drivers' own heartbeats, one frame for each pair and interval, stand for those of all groups at rest, for their
//! leases too.
//!
//! That lease is safe for what each echo means: *since it agreed to the rest, the replica promised its vote to this leader
//! up to an election timeout after each of its peer's frames.* So a follower ends a rest only
//!
//! - at its leader's word, or at that of a later term's leader: whoever elected that one had broken its promise before, and
//!   shares a replica with every majority that a lease can stand on;
//! - when the leader's peer was silent for an election timeout, whether a tick saw it or the next frame of that peer, or when
//!   it could not be told something, or when the leader's replica has moved: the count of lapses, which goes with every echo,
//!   is another one from then on, and what agreed to a rest and was not sent yet no longer does;
//! - when it is closed, which it tells;
//! - with a connection that begins anew.
//!
//! At a new count and a new connection a leader wakes and asks, and counts no agreement from before. A leader that resigns
//! needs the votes of those that rest with it: a promise holds for nobody but the leader, so not against it.
//!
//! A proposal wakes a group, and so does any message but the heartbeats of rest. What follows a broker's death is spread:
//! [`config::Bounds::elections_per_tick`]. All of this takes connections that lose and double nothing while they last.
//!
//! # Snapshots
//!
//! A follower that needs what retention took shows up in [`GroupTurn::snapshots_wanted`]. The shard makes sure that
//! there is something to fetch and says from where on the log goes on: [`Driver::offer_snapshot`]. At the follower it is
//! [`GroupTurn::install`]; the state comes outside of Raft, and [`Driver::snapshot_installed`] says that it is there.
//!
//! A transfer that ends without a word does no harm: [`config::Timing::snapshot`] after its offer a follower that is still
//! behind is asked what it has, and wanted a snapshot for again. So `install` may come while its state is being fetched: the
//! shard goes on with what it has of it, and may take the later offer after. A shard that knows that a transfer is over says
//! so sooner: [`Driver::snapshot_failed`].
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
