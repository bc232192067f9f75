//! May this replica believe that it leads?

use crate::core::Role;
use crate::ids::{ReplicaId, Tick};

use super::Group;

/// What the followers answered to a leader's heartbeats. Who answered one that was sent at some moment votes for nobody
/// else for an election timeout from then on at least; where a majority did, no other leader can be elected so long.
#[derive(Default)]
pub(super) struct Lease {
    answered: Vec<Answered>,
}

struct Answered {
    replica: ReplicaId,
    sent: Tick,
    rests: bool,
}

impl Lease {
    pub fn clear(&mut self) {
        self.answered.clear();
    }

    pub fn answered(&mut self, replica: ReplicaId, sent: Tick, rests: bool) {
        match self.answered.iter_mut().find(|answered| answered.replica == replica) {
            Some(answered) if sent >= answered.sent => (answered.sent, answered.rests) = (sent, rests),
            Some(_) => {}
            None => self.answered.push(Answered { replica, sent, rests }),
        }
    }

    pub fn wake(&mut self) {
        self.answered.iter_mut().for_each(|answered| answered.rests = false);
    }

    /// It may have woken without a word that came here.
    pub fn doubt(&mut self, replica: ReplicaId) {
        let of = self.answered.iter_mut().filter(|answered| answered.replica == replica);
        of.for_each(|answered| answered.rests = false);
    }

    pub fn rests(&self, replica: ReplicaId) -> bool {
        self.answered.iter().any(|answered| answered.replica == replica && answered.rests)
    }

    fn sent(&self, replica: ReplicaId) -> Option<Tick> {
        let answered = self.answered.iter().find(|answered| answered.replica == replica)?;
        Some(answered.sent)
    }
}

impl Group {
    /// Whether this replica leads and no other can: its committed index is then the group's, and may be read from.
    ///
    /// It leads, has committed an entry of its own term, hands leadership to nobody, and a majority answered heartbeats
    /// that are younger than the lease. Of a group at rest the peers' own heartbeats count: `heard` says when the
    /// latest one was sent that the replica's peer answered.
    pub fn may_lead(&self, now: Tick, heard: impl Fn(ReplicaId) -> Option<Tick>) -> bool {
        if self.leadership.role != Role::Leader || self.clock.transfer_due.is_some() || self.removed {
            return false;
        }
        if !self.core.committed_in_term() {
            return false;
        }
        let lease = self.clock.timing.election - self.clock.timing.lease_margin;
        let until = self.membership().quorum(|replica| {
            if replica == self.id {
                return Some(now.after(lease));
            }
            let at_rest = if self.resting { heard(replica) } else { None };
            self.lease.sent(replica).max(at_rest).map(|sent| sent.after(lease))
        });
        until.flatten().is_some_and(|until| now < until)
    }

    pub(super) fn leads_surely(&self) -> bool {
        self.may_lead(self.clock.now, |_| None)
    }
}
