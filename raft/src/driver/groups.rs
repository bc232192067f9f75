//! A group's own inputs, by its name.

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    #[error("this shard has no replica of group {0}, or it stopped")]
    NoGroup(GroupId),
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Driver {
    pub fn open(&mut self, now: Tick, replica: Replica, seed: u64, log: &impl Log) -> Result<(), OpenError> {
        self.now = now;
        let group = Group::open(replica.id, self.timing, seed, log, now)?;
        self.close(replica.group);
        let slot = Slot {
            id: replica.group,
            group,
            peers: replica.peers,
            looked_at: false,
            sends: false,
            armed: None,
            pipes: Vec::new(),
            violation: None,
            stopped: false,
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.by_id.insert(replica.group, key);
        self.groups[key] = Some(slot);
        self.note(key, Ok(()));
        Ok(())
    }

    /// Nothing of the group is known after. Its place is used again once no list names it.
    pub fn close(&mut self, group: GroupId) {
        let Some(key) = self.by_id.remove(&group) else { return };
        self.stop(key);
        self.groups[key] = None;
        self.looks.retain(|&of| of != key);
        self.sends.retain(|&of| of != key);
        self.elections.retain(|&of| of != key);
        self.crowded.remove(&key);
        self.peers.values_mut().for_each(|peer| _ = peer.stalled.remove(&key));
        // A deadline of the old group that fires for a new one finds that nothing is due.
        self.free.push(key);
    }

    pub fn group(&self, group: GroupId) -> Option<&Group> {
        let slot = self.groups[*self.by_id.get(&group)?].as_ref()?;
        slot.violation.is_none().then_some(&slot.group)
    }

    /// Where a group's other replicas are from now on: the controller moved one, or a broker came back with another number
    /// of shards. What was on its way to a place that changed is sent again; a group at rest wakes, as another peer's
    /// heartbeats say nothing of what the replica promised.
    pub fn set_peers(&mut self, now: Tick, group: GroupId, peers: Vec<(ReplicaId, PeerId)>) {
        self.now = now;
        let Some(&key) = self.by_id.get(&group) else { return };
        let heard = self.heard_leader(key);
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let before = std::mem::replace(&mut slot.peers, peers);
        if before == slot.peers {
            return;
        }
        let had = |replica| before.iter().find(|&&(id, _)| id == replica).map(|&(_, peer)| peer);
        let moved = |slot: &Slot, replica| slot.peer_of(replica) != had(replica);
        let mut replicas = slot.group.membership().replicas();
        replicas.retain(|&replica| moved(slot, replica));
        for replica in replicas {
            // Where a leader was it may still be: it doesn't take this for a rest that goes on.
            if let Some(peer) = had(replica).and_then(|id| self.peers.get_mut(&id)) {
                peer.lapse();
            }
            slot.group.doubt(now, replica, heard);
        }
        let to_moved = |slot: &Slot| slot.pipes.iter().position(|pipe| moved(slot, pipe.to));
        while let Some(at) = self.groups[key].as_ref().and_then(to_moved) {
            self.give_up_pipe(key, at);
        }
        self.note(key, Ok(()));
    }

    /// Whether this shard's replica leads the group and no other can: see [`Group::may_lead`].
    pub fn may_lead(&self, now: Tick, group: GroupId) -> bool {
        let Some(&key) = self.by_id.get(&group) else { return false };
        let slot = self.groups[key].as_ref().expect("a group of this driver");
        let heard = |replica| self.peers.get(&slot.peer_of(replica)?)?.acked;
        slot.violation.is_none() && slot.group.may_lead(now, heard)
    }

    fn with<T>(
        &mut self,
        now: Tick,
        group: GroupId,
        act: impl FnOnce(&mut Group) -> Result<T, Refused>,
    ) -> Result<T, NotDone> {
        self.now = now;
        let key = *self.by_id.get(&group).ok_or(NotDone::NoGroup(group))?;
        let heard = self.heard_leader(key);
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        if slot.violation.is_some() {
            return Err(NotDone::NoGroup(group));
        }
        slot.group.keep_promise(heard);
        let done = act(&mut slot.group);
        self.note(key, Ok(()));
        Ok(done?)
    }

    /// All batches of a turn as one list: see [`Group::propose`].
    pub fn propose(&mut self, now: Tick, group: GroupId, batches: Vec<Bytes>) -> Result<RaftIndex, NotDone> {
        self.with(now, group, |group| group.propose(now, batches))
    }

    pub fn change_membership(
        &mut self,
        now: Tick,
        group: GroupId,
        voters: Vec<ReplicaId>,
        learners: Vec<ReplicaId>,
    ) -> Result<RaftIndex, NotDone> {
        self.with(now, group, |group| group.change_membership(now, voters, learners))
    }

    pub fn leave_joint(&mut self, now: Tick, group: GroupId) -> Result<RaftIndex, NotDone> {
        self.with(now, group, |group| group.leave_joint(now))
    }

    pub fn transfer(&mut self, now: Tick, group: GroupId, to: ReplicaId) -> Result<(), NotDone> {
        self.with(now, group, |group| group.transfer(now, to))
    }

    pub fn campaign(&mut self, now: Tick, group: GroupId) -> Result<(), NotDone> {
        self.with(now, group, |group| group.campaign(now))
    }

    /// See [`Group::durable`].
    pub fn durable(&mut self, now: Tick, group: GroupId, end: RaftIndex, term: Term) {
        self.told(now, group, |group| group.durable(now, end, term));
    }

    pub fn hard_state_durable(&mut self, now: Tick, group: GroupId, saved: HardState) {
        self.told(now, group, |group| group.hard_state_durable(now, saved));
    }

    pub fn offer_snapshot(&mut self, now: Tick, group: GroupId, to: ReplicaId, offer: &SnapshotOffer) {
        self.told(now, group, |group| {
            group.offer_snapshot(now, to, offer);
            Ok(())
        });
    }

    pub fn snapshot_failed(&mut self, now: Tick, group: GroupId, follower: ReplicaId) {
        self.told(now, group, |group| {
            group.snapshot_failed(now, follower);
            Ok(())
        });
    }

    /// See [`Group::snapshot_unneeded`].
    pub fn snapshot_unneeded(&mut self, now: Tick, group: GroupId, follower: ReplicaId) {
        self.told(now, group, |group| {
            group.snapshot_unneeded(now, follower);
            Ok(())
        });
    }

    /// See [`Group::snapshot_installed`].
    pub fn snapshot_installed(&mut self, now: Tick, group: GroupId, offer: &SnapshotOffer) -> bool {
        let mut taken = false;
        self.told(now, group, |group| {
            taken = group.snapshot_installed(now, offer);
            Ok(())
        });
        taken
    }

    pub fn drop_below(&mut self, group: GroupId, first: RaftIndex) {
        self.told(self.now, group, |group| {
            group.drop_below(first);
            Ok(())
        });
    }

    fn told(&mut self, now: Tick, group: GroupId, tell: impl FnOnce(&mut Group) -> Result<(), Violation>) {
        self.now = now;
        let Some(&key) = self.by_id.get(&group) else { return };
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        if slot.violation.is_none() {
            let outcome = tell(&mut slot.group);
            self.note(key, outcome);
        }
    }
}
