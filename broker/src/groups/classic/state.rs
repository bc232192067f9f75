//! The states of a classic group.

use std::fmt;

/// The states of a classic group, as DescribeGroups and ListGroups name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// No members. Offsets may be committed from outside; they expire.
    Empty,
    /// Waiting for members to (re)join.
    PreparingRebalance,
    /// Members have joined; waiting for the leader's assignment to arrive and to be durable.
    CompletingRebalance,
    /// Every member has, or can get, its assignment.
    Stable,
    /// Not there. No group rests in this state: it is what a group that does not exist is described as.
    Dead,
}

impl GroupState {
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }

    pub fn may_follow(self, from: GroupState) -> bool {
        use GroupState::{CompletingRebalance, Dead, Empty, PreparingRebalance, Stable};
        match self {
            Empty => from == PreparingRebalance,
            PreparingRebalance => matches!(from, Stable | CompletingRebalance | Empty),
            CompletingRebalance => from == PreparingRebalance,
            Stable => from == CompletingRebalance,
            Dead => true,
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What ends the join phase that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinPhase {
    /// The first rebalance of an empty group: it waits for the initial delay, again for each delay in which a member
    /// came, at most for the rebalance timeout in all.
    Initial { delay_ms: i32, remaining_ms: i32 },
    /// Ends when every member has rejoined, or at the rebalance timeout.
    Rejoin,
}
