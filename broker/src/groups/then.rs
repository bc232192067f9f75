//! What follows when a write is committed, and when it is refused.

use corelog_wire::{ErrorCode, Str};
use tracing::warn;

use super::classic::{AwaitedAssignment, StaticReturn, refuse_waiting};
use super::machine::Groups;
use super::memory::Account;
use crate::coordinator::{WriteFailure, WriteId};

/// What a write on its way stands for.
#[derive(Debug)]
pub struct Then {
    pub change: GroupChange,
    /// Its records, as long as they are on their way.
    pub(super) _account: Account,
}

#[derive(Debug)]
pub enum GroupChange {
    None,
    /// The group begins to exist.
    Created {
        group: Str,
    },
    /// A generation has its assignment.
    Assigned(AwaitedAssignment),
    /// A static member has a new id.
    StaticMember(StaticReturn),
    /// The last member is gone.
    Emptied {
        group: Str,
    },
    /// Groups end.
    Removed {
        groups: Vec<Str>,
    },
}

impl Groups {
    pub(super) fn write_committed(&mut self, id: WriteId, then: Then) {
        match then.change {
            GroupChange::None | GroupChange::Created { .. } | GroupChange::Emptied { .. } => {}
            GroupChange::Assigned(awaited) => {
                if let Some(group) = self.groups.get_mut(awaited.group_id())
                    && let Some(stored) = self.state.stored.get(awaited.group_id())
                {
                    awaited.committed(group, &mut self.env, id, stored);
                }
            }
            GroupChange::StaticMember(back) => {
                if let Some(group) = self.groups.get_mut(back.group_id()) {
                    back.committed(group, &mut self.env);
                }
            }
            GroupChange::Removed { groups } => {
                for group in groups {
                    self.end_if_gone(&group, ErrorCode::UNKNOWN_MEMBER_ID);
                }
            }
        }
    }

    pub(super) fn write_refused(&mut self, id: WriteId, change: GroupChange, failure: WriteFailure) {
        match change {
            GroupChange::None => {}
            GroupChange::Created { group } => {
                self.env.sparingly("new group not stored", |left_out| {
                    warn!(group = &*group, ?failure, left_out, "new group not stored");
                });
                self.end_if_gone(&group, failure.error());
            }
            GroupChange::Assigned(awaited) => {
                if let Some(group) = self.groups.get_mut(awaited.group_id()) {
                    awaited.refused(group, &mut self.env, id, failure);
                }
            }
            GroupChange::StaticMember(back) => {
                if let Some(group) = self.groups.get_mut(back.group_id()) {
                    let stored = self.state.stored.get(back.group_id());
                    back.refused(group, &mut self.env, stored, failure);
                }
            }
            // The generation before stays in the log. Should the broker stop now, its members come back with it, and go
            // when their sessions end: harmless, since an empty group has nobody to confuse.
            GroupChange::Emptied { group } => self.env.sparingly("empty group not stored", |left_out| {
                warn!(group = &*group, ?failure, left_out, "empty group not stored");
            }),
            GroupChange::Removed { groups } => {
                for group in groups {
                    self.env.sparingly("group not removed", |left_out| {
                        warn!(group = &*group, ?failure, left_out, "removal of the group not stored");
                    });
                }
            }
        }
    }

    /// Soft state of a group that no record tells of, and none on its way, goes: whoever waits in it is refused.
    fn end_if_gone(&mut self, group_id: &Str, error: ErrorCode) {
        if self.state.has(group_id) || self.has_pending(group_id) {
            return;
        }
        if let Some(group) = self.groups.get_mut(group_id) {
            refuse_waiting(group, &mut self.env, error);
        }
        self.drop_group(group_id);
    }
}

#[cfg(test)]
impl Then {
    pub fn bytes(&self) -> usize {
        self._account.bytes()
    }
}
