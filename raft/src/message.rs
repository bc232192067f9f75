//! What replicas of a group tell each other.

use crate::ids::{RaftIndex, ReplicaId, Term, Tick};
use crate::log::Entry;
use crate::membership::Membership;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: ReplicaId,
    pub to: ReplicaId,
    /// The sender's term; of a pre-vote, and of a granted one's answer, the term that is asked for.
    pub term: Term,
    pub body: Body,
}

impl Message {
    /// An answer that is not sent yet agrees to no rest.
    pub(crate) fn take_back_rest(&mut self) {
        if let Body::HeartbeatAnswer(answer) = &mut self.body {
            answer.rest = false;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Append(Append),
    AppendAnswer(AppendAnswer),
    Vote(Vote),
    VoteAnswer(VoteAnswer),
    Heartbeat(Heartbeat),
    HeartbeatAnswer(HeartbeatAnswer),
    /// The receiver is to stand for election at once. `sent` as in [`Heartbeat`]: one that was overtaken by a later
    /// heartbeat is void.
    TimeoutNow {
        sent: Tick,
    },
    SnapshotOffer(SnapshotOffer),
    /// From a leader that surely leads, to a replica that asked for votes: the group goes on without it.
    Removed,
}

/// Entries from `start` on, after one of `term_before`; none: what is committed, or a question whether the logs match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    pub start: RaftIndex,
    pub term_before: Term,
    pub committed: RaftIndex,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendAnswer {
    pub committed: RaftIndex,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The follower has all below `end` as the leader has it, on stable storage.
    Matched { end: RaftIndex },
    /// The logs differ before `start`; they can match up to `hint`, before which the follower has `hint_term`.
    Mismatch { start: RaftIndex, hint: RaftIndex, hint_term: Term },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Asks whether a real one would be granted; changes nothing at who answers.
    pub pre: bool,
    /// The leader itself asked for this election: its lease is given up.
    pub forced: bool,
    pub end: RaftIndex,
    pub last_term: Term,
    pub committed: RaftIndex,
    pub committed_term: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteAnswer {
    pub pre: bool,
    pub granted: bool,
    pub committed: RaftIndex,
    pub committed_term: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub committed: RaftIndex,
    /// On the sender's clock. It comes back in the answer, and the lease counts from it.
    pub sent: Tick,
    /// All is said: rest, until something comes or the leader's peer falls silent.
    pub rest: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub committed: RaftIndex,
    pub sent: Tick,
    pub rest: bool,
}

/// The leader no longer keeps what the follower needs. It has state up to `end` to be fetched outside of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    pub end: RaftIndex,
    /// Of the entry before `end`.
    pub term: Term,
    pub membership: Membership,
}
