//! What clients and the controller do with the groups.

use super::*;

impl World {
    /// With those that this broker leads, and now and then with one that it would like to.
    pub(super) fn use_groups(&mut self, at: usize) {
        let now = self.brokers[at].clock(self.now);
        for group in self.groups() {
            let Some(replica) = self.brokers[at].driver(group).group(group) else { continue };
            if replica.leadership().role != Role::Leader {
                if self.faults && self.rolls(self.plan.rates.campaign) {
                    let _ = self.brokers[at].driver_mut(group).campaign(now, group);
                }
                if self.rolls(self.plan.rates.retain) {
                    self.retain(at, group);
                }
                continue;
            }
            let voters = replica.membership().voters.clone();
            let in_force = replica.membership();
            let on_disk = self.brokers[at].disks.get(&group).map(|(_, disk)| disk.membership().1);
            let settled = self.leader_of(group) == Some(at) && on_disk.as_ref() == Some(in_force);
            if settled && self.wiped.get(&group).is_some_and(|wiped| !in_force.contains(*wiped)) {
                self.wiped.remove(&group);
            }
            let replace = self.wiped.contains_key(&group) && self.rolls(20);
            if self.faults && self.now % 400 < 250 && self.rolls(4) {
                self.propose(at, group);
            }
            if self.faults && self.rolls(self.plan.rates.transfer) {
                let to = voters[self.random.below(voters.len() as u64) as usize];
                let _ = self.brokers[at].driver_mut(group).transfer(now, group, to);
            }
            let change = replace || (self.faults && self.rolls(self.plan.rates.change));
            if change && self.leader_of(group) == Some(at) {
                self.change_membership(at, now, group);
            }
            if self.rolls(self.plan.rates.retain) {
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
        let _ = self.brokers[at].driver_mut(group).propose(now, group, batches);
    }

    fn retain(&mut self, at: usize, group: GroupId) {
        let broker = &mut self.brokers[at];
        let shard = broker.at_of(group);
        let driver = &mut broker.shards[shard].driver;
        let (Some((_, disk)), Some(replica)) = (broker.disks.get_mut(&group), driver.group(group)) else {
            return;
        };
        // Of what is applied, a turn may have yet to say that it is committed.
        let applied = replica.applied().min(disk.committed).0;
        let first = RaftIndex(applied - self.random.below(applied - disk.start.first.0 + 1));
        if disk.membership().0 <= first {
            disk.drop_below(first);
            driver.drop_below(group, first);
        }
    }

    /// To any of the brokers, with new replicas where there was none or the disk was lost.
    fn change_membership(&mut self, at: usize, now: Tick, group: GroupId) {
        let leads = self.brokers[at].driver(group).group(group).expect("it leads").membership().clone();
        let wiped = self.wiped.get(&group).copied();
        let (mut voters, mut learners, mut places) = (Vec::new(), Vec::new(), self.places[&group].clone());
        for broker in 0..self.plan.brokers {
            let on_broker =
                |replica: &ReplicaId| places.contains(&(*replica, broker)) && Some(*replica) != wiped;
            let present = leads.replicas().into_iter().find(on_broker);
            let role = self.random.below(6);
            // Who lost a disk is replaced, and more than one broker keeps the data.
            let votes = role < 4 || broker < 2;
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
        if self.brokers[at].driver_mut(group).change_membership(now, group, voters, learners).is_err() {
            return;
        }
        self.places.insert(group, places);
        (0..self.brokers.len()).for_each(|at| self.place(at, group));
        for (replica, broker) in new {
            self.begin_replica(group, replica, broker as usize);
        }
    }

    fn place(&mut self, at: usize, group: GroupId) {
        let peers = self.peers(at, group);
        let broker = &mut self.brokers[at];
        let now = broker.clock(self.now);
        if broker.up {
            broker.driver_mut(group).set_peers(now, group, peers);
        }
    }

    pub(super) fn place_all(&mut self, at: usize) {
        self.groups().into_iter().for_each(|group| self.place(at, group));
    }

    /// In place of one that was there: the controller knows that it is in no membership any more.
    fn begin_replica(&mut self, group: GroupId, replica: ReplicaId, at: usize) {
        let disk = Disk::new(self.founders[&group].clone());
        let broker = &mut self.brokers[at];
        broker.driver_mut(group).close(group);
        broker.disks.insert(group, (replica, disk));
        if broker.up {
            self.open(at, group);
        }
    }
}
