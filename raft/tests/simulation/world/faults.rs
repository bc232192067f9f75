//! What goes wrong, and what is done to the groups meanwhile.

use super::*;

impl World {
    fn rolls(&mut self, one_in: u64) -> bool {
        self.random.below(one_in) == 0
    }

    fn any_broker(&mut self) -> usize {
        self.random.below(self.brokers.len() as u64) as usize
    }

    pub(super) fn make_faults(&mut self) {
        let calm = self.plan.calm;
        let (at, other) = (self.any_broker(), self.any_broker());
        if self.rolls(calm) {
            self.crash(at);
        }
        if self.rolls(calm * 6) {
            self.wipe(at);
        }
        if self.rolls(calm) {
            self.brokers[at].paused_until = self.now + 3 + self.random.below(80);
        }
        if self.rolls(calm) {
            self.brokers[at].slow_disk = 1 + self.random.below(6);
        }
        if self.rolls(calm / 2) && at != other {
            let (a, b) = (self.brokers[at].id, self.brokers[other].id);
            self.disconnect(a, b);
        }
        if self.rolls(calm / 2) {
            self.cut();
        }
        if self.now >= self.cuts_until {
            self.links.cut.clear();
        }
    }

    /// One broker from the others, or one direction of one pair.
    fn cut(&mut self) {
        let (at, other) = (self.any_broker(), self.any_broker());
        let (a, b) = (PeerId(at as u64), PeerId(other as u64));
        if self.rolls(2) {
            self.links.cut.insert((a, b));
        } else {
            for peer in (0..self.plan.brokers).map(PeerId) {
                self.links.cut.insert((a, peer));
                self.links.cut.insert((peer, a));
            }
        }
        self.cuts_until = self.now + 10 + self.random.below(150);
    }

    fn crash(&mut self, at: usize) {
        let random = &mut self.random;
        let broker = &mut self.brokers[at];
        if !broker.up {
            return;
        }
        broker.up = false;
        broker.starts_at = self.now + 1 + random.below(120);
        broker.inbox.clear();
        broker.reads.clear();
        broker.installs.clear();
        broker.transfers.clear();
        broker.disks.values_mut().for_each(|(_, disk)| disk.crash(random));
        let id = broker.id;
        (0..self.plan.brokers).for_each(|peer| self.disconnect(id, PeerId(peer)));
    }

    /// A broker loses its disk, where each of its groups can do without.
    fn wipe(&mut self, at: usize) {
        let mut replicas = Vec::new();
        for group in self.places.keys().copied().collect::<Vec<_>>() {
            let Some((replica, _)) = self.brokers[at].disks.get(&group) else { continue };
            let Some(leader) = self.leader_of(group).filter(|&leader| leader != at) else { return };
            let leads = self.brokers[leader].driver.group(group).expect("it leads");
            let membership = leads.membership();
            // A change under way counts as well: its entry is above what is committed.
            let quiet = leads.committed() == leads.next_index() && !membership.is_joint();
            if self.wiped.contains_key(&group) || membership.voters.len() < 3 || !quiet {
                return;
            }
            if membership.contains(*replica) {
                replicas.push((group, *replica));
            }
        }
        self.crash(at);
        self.brokers[at].disks.clear();
        self.wiped.extend(replicas);
    }

    pub(super) fn disconnect(&mut self, a: PeerId, b: PeerId) {
        self.links.reset(a, b);
        for (one, other) in [(a, b), (b, a)] {
            if self.connected.remove(&(one, other)) && self.brokers[one.0 as usize].up {
                let broker = &mut self.brokers[one.0 as usize];
                let now = broker.clock(self.now);
                broker.inbox.retain(|&(from, _)| from != other);
                broker.driver.peer_disconnected(now, other);
            }
        }
    }

    pub(super) fn connect(&mut self) {
        for a in (0..self.plan.brokers).map(PeerId) {
            for b in (a.0 + 1..self.plan.brokers).map(PeerId) {
                let up = |id: PeerId| self.brokers[id.0 as usize].up;
                let cut = self.links.cut.contains(&(a, b)) || self.links.cut.contains(&(b, a));
                if self.connected.contains(&(a, b)) || cut || !up(a) || !up(b) || !self.rolls(5) {
                    continue;
                }
                for (one, other) in [(a, b), (b, a)] {
                    self.connected.insert((one, other));
                    let broker = &mut self.brokers[one.0 as usize];
                    let now = broker.clock(self.now);
                    broker.driver.peer_connected(now, other);
                }
            }
        }
    }

    pub(super) fn start_brokers(&mut self) {
        for at in 0..self.brokers.len() {
            if self.brokers[at].up || self.brokers[at].starts_at > self.now {
                continue;
            }
            let now = self.brokers[at].clock(self.now);
            let broker = &mut self.brokers[at];
            broker.up = true;
            broker.driver = Driver::new(Timing::default(), Bounds::default(), now);
            let (id, groups): (_, Vec<_>) = (broker.id, broker.disks.keys().copied().collect());
            groups.into_iter().for_each(|group| self.open(id, group));
        }
    }

    /// What clients and the controller do with the groups that this broker leads.
    pub(super) fn use_groups(&mut self, at: usize) {
        let now = self.brokers[at].clock(self.now);
        for group in self.places.keys().copied().collect::<Vec<_>>() {
            let Some(replica) = self.brokers[at].driver.group(group) else { continue };
            if replica.leadership().role != Role::Leader {
                if self.faults && self.rolls(self.plan.calm * 2) {
                    let _ = self.brokers[at].driver.campaign(now, group);
                }
                continue;
            }
            let voters = replica.membership().voters.clone();
            let in_force = replica.membership();
            let settled = self.leader_of(group) == Some(at)
                && self.brokers[at]
                    .disks
                    .get(&group)
                    .is_some_and(|(_, disk)| disk.membership().1 == *in_force);
            if settled && self.wiped.get(&group).is_some_and(|wiped| !in_force.contains(*wiped)) {
                self.wiped.remove(&group);
            }
            let replace = self.wiped.contains_key(&group) && self.rolls(20);
            if self.faults && self.now % 400 < 250 && self.rolls(4) {
                self.propose(at, group);
            }
            if self.faults && self.rolls(self.plan.calm) {
                let to = voters[self.random.below(voters.len() as u64) as usize];
                let _ = self.brokers[at].driver.transfer(now, group, to);
            }
            let change = replace || (self.faults && self.rolls(self.plan.calm));
            if change && self.leader_of(group) == Some(at) {
                self.change_membership(at, now, group);
            }
            if self.rolls(60) {
                self.retain(at, group);
            }
        }
    }

    pub(super) fn propose(&mut self, at: usize, group: GroupId) {
        let batches = (0..1 + self.random.below(3))
            .map(|_| {
                self.proposed += 1;
                Bytes::from(format!("batch {} of {group}", self.proposed))
            })
            .collect();
        let now = self.brokers[at].clock(self.now);
        let _ = self.brokers[at].driver.propose(now, group, batches);
    }

    fn retain(&mut self, at: usize, group: GroupId) {
        let broker = &mut self.brokers[at];
        let (Some((_, disk)), Some(replica)) = (broker.disks.get_mut(&group), broker.driver.group(group))
        else {
            return;
        };
        let applied = replica.applied().0;
        let first = RaftIndex(applied - self.random.below(applied - disk.start.first.0 + 1));
        if disk.membership().0 <= first {
            disk.drop_below(first);
            broker.driver.drop_below(group, first);
        }
    }

    /// To any of the brokers, with new replicas where there was none or the disk was lost.
    fn change_membership(&mut self, at: usize, now: Tick, group: GroupId) {
        let leads = self.brokers[at].driver.group(group).expect("it leads").membership().clone();
        let wiped = self.wiped.get(&group).copied();
        let (mut voters, mut learners, mut places) = (Vec::new(), Vec::new(), self.places[&group].clone());
        for broker in (0..self.plan.brokers).map(PeerId) {
            let on_broker =
                |replica: &ReplicaId| places.contains(&(*replica, broker)) && Some(*replica) != wiped;
            let present = leads.replicas().into_iter().find(on_broker);
            let role = self.random.below(6);
            // Who lost a disk is replaced, and more than one broker keeps the data.
            let votes = role < 4 || (broker.0 as usize) < 2;
            if !votes && role == 5 {
                continue;
            }
            let replica = present.unwrap_or_else(|| {
                let replica = self.new_replica();
                places.push((replica, broker));
                replica
            });
            if votes { voters.push(replica) } else { learners.push(replica) }
        }
        let new: Vec<_> = places[self.places[&group].len()..].to_vec();
        if self.brokers[at].driver.change_membership(now, group, voters, learners).is_err() {
            return;
        }
        self.places.insert(group, places.clone());
        for broker in &mut self.brokers {
            broker.driver.set_peers(broker.clock(self.now), group, places.clone());
        }
        for (replica, broker) in new {
            self.begin_replica(group, replica, broker);
        }
    }

    /// In place of one that was there: the controller knows that it is in no membership any more.
    fn begin_replica(&mut self, group: GroupId, replica: ReplicaId, broker: PeerId) {
        let disk = Disk::new(self.founders[&group].clone());
        let place = &mut self.brokers[broker.0 as usize];
        place.driver.close(group);
        place.disks.insert(group, (replica, disk));
        if place.up {
            self.open(broker, group);
        }
    }
}
