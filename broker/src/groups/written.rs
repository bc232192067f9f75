//! What follows when a write is durable, or when it is not.

use corelog_wire::{ErrorCode, Str};
use tracing::warn;

use super::coordinator::GroupCoordinator;
use super::effect::{WriteFailure, WriteId};
use super::env::Now;
use super::group::GroupState;
use super::offsets::OffsetKey;
use super::static_member::StaticMemberChange;
use super::sync::Assignment;

/// What a write on its way stands for.
#[derive(Debug)]
pub struct OnWritten {
    /// Offsets it sets or removes.
    pub offsets: Vec<OffsetKey>,
    pub change: GroupChange,
}

#[derive(Debug)]
pub enum GroupChange {
    None,
    /// The group begins to exist.
    Created {
        group: Str,
    },
    /// A generation has its assignment.
    Assigned(Assignment),
    /// A static member has a new id.
    StaticMember(StaticMemberChange),
    /// The last member is gone.
    Emptied {
        group: Str,
    },
    /// Groups end.
    Removed {
        groups: Vec<Str>,
    },
}

impl GroupCoordinator {
    /// The log reports on a write: it is durable, or it never came to the log. To be called once for each
    /// [`super::effect::Effect::Append`], in the order of the ids.
    ///
    /// # Panics
    /// When called out of order.
    pub fn written(&mut self, id: WriteId, result: Result<(), WriteFailure>, now: Now) {
        self.env.now = now;
        let write = self.env.take_write(id);
        for key in &write.on_written.offsets {
            match result {
                Ok(()) => self.offsets.commit(key, id),
                Err(_) => self.offsets.abort(key, id),
            }
        }
        self.apply(write.on_written.change, id, result);
        if let Some((ticket, answer)) = write.answer {
            let answer = match result {
                Ok(()) => answer,
                Err(failure) => answer.failed(failure.error()),
            };
            self.env.respond(ticket, answer);
        }
        self.answer_waiting_fetches(id);
    }

    fn apply(&mut self, change: GroupChange, id: WriteId, result: Result<(), WriteFailure>) {
        match change {
            GroupChange::None => {}
            GroupChange::Created { group } => self.created(&group, id, result),
            GroupChange::Assigned(assignment) => {
                if let Some(group) = self.groups.get_mut(&assignment.group) {
                    assignment.written(group, &mut self.env, id, result);
                }
            }
            GroupChange::StaticMember(change) => {
                if let Some(group) = self.groups.get_mut(change.group_id()) {
                    change.written(group, &mut self.env, result);
                }
            }
            GroupChange::Emptied { group } => {
                if let Err(failure) = result {
                    // The generation before stays in the log. Should the broker stop now, its members come back with
                    // it, and go when their sessions end: harmless, since an empty group has nobody to confuse.
                    self.env.sparingly("empty group not stored", |left_out| {
                        warn!(group = &*group, ?failure, left_out, "empty group not stored");
                    });
                }
            }
            GroupChange::Removed { groups } => {
                for group in groups {
                    self.removed(&group, id, result);
                }
            }
        }
    }

    fn created(&mut self, group_id: &Str, id: WriteId, result: Result<(), WriteFailure>) {
        let Some(group) = self.groups.get_mut(group_id).filter(|group| group.creating == Some(id)) else {
            return;
        };
        group.creating = None;
        let Err(failure) = result else { return };
        self.env.sparingly("new group not stored", |left_out| {
            warn!(group = &**group_id, ?failure, left_out, "new group not stored");
        });
        if self.offsets.has_group(group_id) || matches!(group.state(), GroupState::Stable) {
            // Later writes of the group have come through, or may.
            return;
        }
        for member_id in group.member_ids() {
            let join = group.take_join(&member_id);
            self.env.refuse_join(join, &member_id, failure.error());
            if let Some(parked) = group.take_sync(&member_id) {
                self.env.refuse_sync(parked, failure.error());
            }
        }
        self.drop_group(group_id);
    }

    fn removed(&mut self, group_id: &Str, id: WriteId, result: Result<(), WriteFailure>) {
        let Some(group) = self.groups.get_mut(group_id).filter(|group| group.deleting == Some(id)) else {
            return;
        };
        match result {
            Ok(()) => self.drop_group(group_id),
            Err(failure) => {
                group.deleting = None;
                self.env.sparingly("group not removed", |left_out| {
                    warn!(group = &**group_id, ?failure, left_out, "removal of the group not stored");
                });
            }
        }
    }

    /// Forgets the group.
    pub(super) fn drop_group(&mut self, group_id: &Str) {
        if let Some(group) = self.groups.remove(group_id) {
            self.env.cancel_all(&group);
        }
    }

    /// Refuses everything that waits: this broker does not coordinate these groups any more.
    pub fn resign(mut self) -> Vec<super::effect::Effect> {
        let error = ErrorCode::NOT_COORDINATOR;
        for write in std::mem::take(&mut self.env.writes) {
            if let Some((ticket, answer)) = write.answer {
                self.env.respond(ticket, answer.failed(error));
            }
        }
        for group in self.groups.values_mut() {
            for member_id in group.member_ids() {
                let join = group.take_join(&member_id);
                self.env.refuse_join(join, &member_id, error);
                if let Some(parked) = group.take_sync(&member_id) {
                    self.env.refuse_sync(parked, error);
                }
            }
        }
        self.refuse_waiting_fetches(error);
        self.take_effects()
    }
}
