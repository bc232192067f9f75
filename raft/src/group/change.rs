//! Changes of the group's replicas.

use super::*;

impl Group {
    /// Begins a change to these voters and learners. Where more than one changes, or a voter goes, it is by way of a joint
    /// configuration, which the leader leaves by itself.
    pub fn change_membership(
        &mut self,
        now: Tick,
        voters: Vec<ReplicaId>,
        learners: Vec<ReplicaId>,
    ) -> Result<RaftIndex, Refused> {
        self.clock.now = now;
        let change =
            Change::decode(&Change::To { voters, learners }.encode()).ok_or(Refused::BadMembership)?;
        self.propose_change(&change)
    }

    fn propose_change(&mut self, change: &Change) -> Result<RaftIndex, Refused> {
        let start = self.next_index();
        self.core.propose_change(change).map_err(|why| self.refused(why))?;
        self.wake();
        self.absorb_own(Payloads::Own(EntryKind::Membership, vec![change.encode()]));
        Ok(start)
    }

    pub(super) fn begin_change(&mut self, index: RaftIndex, bytes: &[u8]) -> Result<(), Violation> {
        if index < self.memberships[0].0 {
            // Opened in the middle of taking in a leader's state, whose membership came first: it says what this entry does.
            return Ok(());
        }
        let change = Change::decode(bytes).ok_or(Violation::Membership { index })?;
        self.core.begin_change(index, &change)?;
        self.memberships.push((index.next(), self.core.membership()));
        Ok(())
    }

    pub(super) fn cut_memberships(&mut self, first: RaftIndex) {
        let before = self.memberships.len();
        let committed = self.memberships[0].0;
        self.memberships.retain(|&(from, _)| from <= first.max(committed));
        if self.memberships.len() < before {
            let membership = self.membership().clone();
            self.core.return_to(&membership);
        }
    }

    /// Out of a joint configuration, when [`Output::leave_joint`] asks for it.
    pub fn leave_joint(&mut self, now: Tick) -> Result<RaftIndex, Refused> {
        self.clock.now = now;
        self.propose_change(&Change::LeaveJoint)
    }

    /// A leader moves a joint configuration on to the one after. If it doesn't belong to that it hands over first: a leader
    /// always belongs to its group.
    pub(super) fn end_joint(&mut self) {
        let due = self.memberships.len() == 1
            && self.membership().is_joint()
            && self.leadership.role == Role::Leader
            && self.core.committed_in_term()
            && self.clock.transfer_due.is_none();
        if !due {
            return;
        }
        if self.membership().voters.contains(&self.id) {
            self.output.leave_joint = true;
            return;
        }
        let stays = |follower: &Progress| self.membership().voters.contains(&follower.replica);
        let best = self.core.followers().filter(stays).max_by_key(|follower| follower.matched);
        if let Some(best) = best {
            let _ = self.transfer(self.clock.now, best.replica);
        }
    }
}
