//! Membership changes: who replicates and votes.

use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use raft::{Changer, ProgressTracker};

use super::*;

impl Core {
    pub fn propose_change(&mut self, change: &Change) -> Result<(), NotProposed> {
        if self.raft.state != StateRole::Leader {
            return Err(NotProposed::NotLeading);
        }
        let leaves = *change == Change::LeaveJoint;
        // Before an entry of its own term is committed there may be changes elsewhere that this log knows nothing of.
        let pending = self.raft.has_pending_conf() || !self.committed_in_term();
        if pending || self.membership().is_joint() != leaves {
            return Err(NotProposed::ChangeUnderWay);
        }
        if self.conf_change(change).is_none() {
            return Err(NotProposed::Refused);
        }
        let end = self.raft.raft_log.last_index();
        let mut entry = RaftEntry::default();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        self.append(&mut [entry])?;
        self.raft.pending_conf_index = end + 1;
        Ok(())
    }

    /// The change as raft-rs takes it; an empty one leaves a joint configuration. `None`: it can't be.
    fn conf_change(&self, change: &Change) -> Option<ConfChangeV2> {
        let mut conf_change = ConfChangeV2::default();
        let Change::To { voters, learners } = change else {
            return Changer::new(self.raft.prs()).leave_joint().is_ok().then_some(conf_change);
        };
        let now = self.membership();
        let single = |replica: ReplicaId, kind| {
            let mut single = ConfChangeSingle { node_id: replica.0, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            single
        };
        let votes = voters.iter().filter(|&voter| !now.voters.contains(voter));
        let learns = learners.iter().filter(|&learner| !now.learners.contains(learner));
        let stays = |replica: &ReplicaId| voters.contains(replica) || learners.contains(replica);
        let goes = now.replicas().into_iter().filter(|replica| !stays(replica));
        let mut changes: Vec<_> = votes.map(|&voter| single(voter, ConfChangeType::AddNode)).collect();
        changes.extend(learns.map(|&learner| single(learner, ConfChangeType::AddLearnerNode)));
        changes.extend(goes.map(|replica| single(replica, ConfChangeType::RemoveNode)));
        let mut changer = Changer::new(self.raft.prs());
        // A leader stays in its group until it hands over: who votes no longer leaves by way of a joint configuration.
        let all_stay = now.voters.iter().all(|voter| voters.contains(voter));
        let possible = match changes.len() {
            0 => false,
            1 if all_stay => changer.simple(&changes).is_ok(),
            _ => {
                conf_change.set_transition(ConfChangeTransition::Explicit);
                changer.enter_joint(false, &changes).is_ok()
            }
        };
        conf_change.set_changes(changes.into());
        possible.then_some(conf_change)
    }

    /// The change is in the log from now on, and so is its step in force: a replica goes by the last membership that its
    /// log has, committed or not. raft-rs leaves the moment to its user; taken at the commit instead, one that has yet to
    /// hear of two commits could be elected by a majority that no later one has to meet.
    pub fn begin_change(&mut self, index: RaftIndex, change: &Change) -> Result<(), Violation> {
        let conf_change = self.conf_change(change).ok_or(Violation::Membership { index })?;
        self.raft.apply_conf_change(&conf_change).map_err(|_| Violation::Membership { index })?;
        Ok(())
    }

    /// To a membership that doesn't follow from the one in force by a change: to one from before entries that were cut, or
    /// to a snapshot's. Of a follower, which has no followers to keep track of.
    pub fn return_to(&mut self, membership: &Membership) {
        let next = self.raft.raft_log.last_index();
        let mut tracker = ProgressTracker::new(INFLIGHT_MESSAGES_MAX);
        let single = |replica: &ReplicaId, kind| {
            let mut single = ConfChangeSingle { node_id: replica.0, ..ConfChangeSingle::default() };
            single.set_change_type(kind);
            single
        };
        let Membership { voters, outgoing, learners, learners_next } = membership;
        let add = |replicas: &[ReplicaId], kind| {
            replicas.iter().map(|replica| single(replica, kind)).collect::<Vec<_>>()
        };
        let mut steps = add(voters, ConfChangeType::AddNode);
        steps.extend(add(learners, ConfChangeType::AddLearnerNode));
        if membership.is_joint() {
            let before = add(outgoing, ConfChangeType::AddNode);
            take_steps(&mut tracker, &before, next);
            let mut joint = add(outgoing, ConfChangeType::RemoveNode);
            joint.append(&mut steps);
            joint.extend(add(learners_next, ConfChangeType::AddLearnerNode));
            let entered = Changer::new(&tracker).enter_joint(false, &joint);
            let (configuration, changes) = entered.expect("a membership that was in force");
            tracker.apply_conf(configuration, changes, next);
        }
        take_steps(&mut tracker, &steps, next);
        *self.raft.mut_prs() = tracker;
        self.raft.post_conf_change();
    }

    /// All changes below `end` are committed for good.
    pub fn keep_changes(&mut self, end: RaftIndex) {
        self.raft.mut_store().forget_changes_below(end);
    }
}

fn take_steps(tracker: &mut ProgressTracker, steps: &[ConfChangeSingle], next: u64) {
    for step in steps {
        let taken = Changer::new(tracker).simple(std::slice::from_ref(step));
        let (configuration, changes) = taken.expect("one replica at a time");
        tracker.apply_conf(configuration, changes, next);
    }
}
