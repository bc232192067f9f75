//! The classic protocol: members join, the one that leads assigns, all sync and send heartbeats (KIP-62, 345, 394, 559,
//! 800, 814).
//!
//! A [`Group`] is soft state: its members as they come and go, the rebalance under way, who waits. Its record is
//! written when a generation has its assignment, when a static member has a new id, and when the last member is gone;
//! what a record says is handed out when it is committed.
//!
//! JoinGroup and SyncGroup are parked until other members, the leader or a deadline resolve them. A member has at
//! most one of each; a later one supersedes an earlier one, which is answered with REBALANCE_IN_PROGRESS.

mod group;
mod heartbeat;
mod join;
mod leave;
mod member;
mod parked;
mod rebalance;
mod state;
mod static_member;
mod subscription;
mod sync;

use corelog_wire::Str;

use super::machine::Groups;

pub use group::Group;
pub use join::refusal as join_refusal;
pub use leave::refusal as leave_refusal;
pub use member::Member;
pub use parked::Parked;
pub use rebalance::{prepare_rebalance, refuse_waiting};
pub use state::GroupState;
pub use static_member::StaticReturn;
pub use sync::AwaitedAssignment;

impl Groups {
    pub(super) fn join_is_due(&mut self, group: &Str) {
        if let Some(group) = self.groups.get_mut(group) {
            rebalance::join_deadline(group, &mut self.env);
        }
    }

    pub(super) fn sync_is_due(&mut self, group: &Str) {
        if let Some(group) = self.groups.get_mut(group) {
            rebalance::sync_deadline(group, &mut self.env);
        }
    }

    pub(super) fn session_is_due(&mut self, group: &Str, member: &Str) {
        if let Some(group) = self.groups.get_mut(group) {
            rebalance::session_deadline(group, &mut self.env, member);
        }
    }
}
