//! The frame of all coordinators: state machines, each on the leader of one partition of an internal topic.
//!
//! ```text
//!   ask(request) ──────────┐                 ┌─> Effect::Respond { ticket, response }
//!   a deadline ────────────┤   Coordinator   │
//!   committed(write) ──────┼> (StateMachine ─┼─> Effect::Append { id, records }  ──> CoordinatorLog
//!   refused(write) ────────┤     and Desk)   │
//!   act (nobody asked) ────┘                 └─> next_deadline()
//! ```
//!
//! A tenant is a [`StateMachine`]; [`frame::Coordinator`] runs it without I/O, [`CoordinatorPartition`] on a core,
//! over a [`CoordinatorLog`] (in the broker a [`StorageLog`]). Tenants today: [`groups`](crate::groups).
//!
//! # The rule
//! - **Records alone change the replicated state.** A request is decided against the state and what is on its way
//!   ([`pending::Pending`]), and comes to records and an answer. [`StateMachine::replay`] applies a record; it is the
//!   same code when the log is loaded, when a record of our own is committed, and on a follower.
//! - **The state is what is committed.** So readers look at it and at nothing else, and who decides looks at what is
//!   pending first. Nothing is changed ahead, and nothing is ever undone: records on their way wait beside the state,
//!   by key, in the order of their writes.
//! - **An answer that tells of a record is held until the record is committed.**
//! - **A write that the log refuses** (it is known not to be there: the disk is full, a record is too large) is
//!   dropped, with every write decided after it, since those took it for granted; their answers are refusals. A
//!   record that no batch could hold is refused where it is decided, before anything can follow it.
//! - **A write that is lost** (whether the log has it is not known) ends the state: it is dropped whole, whoever
//!   waits is answered NOT_COORDINATOR, and it is loaded again from the log. So it is when the partition is led
//!   elsewhere.
//! - **Soft state** (who has joined and waits, when a member was last heard of, deadlines) is no record, is lost with
//!   its coordinator, and stands beside the replicated state: made from it by [`StateMachine::wake`] after loading,
//!   changed by requests and deadlines at once, and told of records only when they are committed or refused
//!   ([`StateMachine::committed`], [`StateMachine::refused`]). It may be ahead of the log, as a rebalance is ahead of
//!   the generation that will come of it. It never stands in for a record: what must survive is written, and what is
//!   told to clients as done is committed.
//!
//! # Life
//! ```text
//!   Loading ──> Serving ──a write is lost──> Loading         every phase ──close()──> Closed
//!      └─ the log is damaged ─> Failed ──mended, or half a minute──> Loading
//! ```
//! Loading ends where the log ends, not where it can be read to: what a coordinator before this one appended may be on
//! its way to stable storage still, and is waited for. A coordinator is of one leader epoch; in another one it is started
//! anew, since others may have appended in between.
//!
//! Requests find a coordinator that is not serving refused by [`NotServing`]. Bounds: 64 appends wait for their
//! durability at a time; what may wait before that a tenant bounds by the room its requests bring
//! ([`CoordinatorPartition::ask`]) and the memory its state may have.
//!
//! # A transaction coordinator in this frame
//! Key: a transactional id; record: TransactionMetadata; timer: a transaction's timeout, or the expiry of an idle id.
//! - InitProducerId, AddPartitionsToTxn, EndTxn: an id that has a record in `Pending` is answered
//!   CONCURRENT_TRANSACTIONS; else decided against the state into one record, the answer held with it.
//! - EndTxn writes `PrepareCommit` and answers with that write. [`StateMachine::committed`] then sees by its `Then`
//!   that markers are due and puts them on a list of calls to others and wakes its owner (by a `Notify` that the
//!   machine was made with), who sends them; each result comes back by [`CoordinatorPartition::act`]; with the last
//!   one `CompleteCommit` is written, with no answer.
//! - After loading, `wake` goes through the ids: a prepared one has its markers sent again (sending twice is
//!   harmless), an open one gets its deadline. A refused `CompleteCommit` is tried again by a timer.

mod desk;
mod frame;
mod load;
mod log;
mod machine;
mod partition;
mod pending;
mod storage_log;
mod timers;
mod write_queue;

#[cfg(test)]
pub mod tests;

pub use desk::{Desk, Ticket, WriteId};
pub use log::CoordinatorLog;
pub use machine::{Lines, NotServing, RawRecord, Record, StateMachine, WriteFailure};
pub use partition::{CoordinatorPartition, CoordinatorSettings};
pub use storage_log::StorageLog;

#[cfg(test)]
pub use {
    desk::{Effect, Now},
    frame::Coordinator,
    log::{LogRead, NotAppended, ReadFailed, WriteLost},
};
