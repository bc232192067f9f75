//! What goes wrong with brokers and connections.

use super::*;

impl World {
    /// Once in so many times; 0: never.
    pub(super) fn rolls(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.below(one_in) == 0
    }

    fn any_broker(&mut self) -> usize {
        self.random.below(self.brokers.len() as u64) as usize
    }

    pub(super) fn make_faults(&mut self) {
        let at = self.any_broker();
        if self.rolls(self.plan.rates.crash) {
            self.crash(at);
        }
        if self.rolls(self.plan.rates.wipe) {
            self.wipe(at);
        }
        if self.rolls(self.plan.rates.pause) {
            self.brokers[at].paused_until = self.now + 3 + self.random.below(80);
        }
        if self.rolls(self.plan.rates.slow_disk) {
            self.brokers[at].slow_disk = 1 + self.random.below(6);
        }
        if self.rolls(self.plan.rates.disconnect) && !self.connected.is_empty() {
            let nth = self.random.below(self.connected.len() as u64) as usize;
            let &(a, b) = self.connected.iter().nth(nth).expect("so many");
            self.disconnect(a, b);
        }
        if self.rolls(self.plan.rates.cut) {
            self.cut();
        }
    }

    /// Frames of one broker, or between two, or between two shards: in both directions or in one.
    fn cut(&mut self) {
        let (at, other) = (self.any_broker() as u64, self.any_broker() as u64);
        let until = self.now + 10 + self.random.below(150);
        let shards = |broker: u64| (broker * SHARDS_MAX..(broker + 1) * SHARDS_MAX).map(PeerId);
        let all = (0..self.plan.brokers * SHARDS_MAX).map(PeerId);
        let (from, to): (Vec<_>, Vec<_>) = match self.random.below(3) {
            0 => (shards(at).collect(), all.collect()),
            1 => (shards(at).collect(), shards(other).collect()),
            _ => {
                let shard = self.random.below(SHARDS_MAX) as usize;
                (shards(at).skip(shard).take(1).collect(), shards(other).skip(shard).take(1).collect())
            }
        };
        let directions = self.random.below(3);
        for &from in &from {
            for &to in &to {
                if directions != 0 {
                    self.links.cut(from, to, until);
                }
                if directions != 1 {
                    self.links.cut(to, from, until);
                }
            }
        }
    }

    fn crash(&mut self, at: usize) {
        let forgets_votes = self.planted == Some(Planted::VotesForgotten);
        let random = &mut self.random;
        let broker = &mut self.brokers[at];
        if !broker.up {
            return;
        }
        broker.up = false;
        broker.starts_at = self.now + 1 + random.below(120);
        for (_, disk) in broker.disks.values_mut() {
            disk.crash(random);
            if forgets_votes {
                disk.forget_vote();
            }
        }
        let id = broker.id;
        let ends: Vec<_> = self.connected.iter().copied().filter(|&(one, _)| broker_of(one) == id).collect();
        ends.into_iter().for_each(|(one, other)| self.disconnect(one, other));
    }

    /// A broker loses its disk, where each of its groups can do without.
    fn wipe(&mut self, at: usize) {
        let mut replicas = Vec::new();
        for group in self.groups() {
            let Some((replica, _)) = self.brokers[at].disks.get(&group) else { continue };
            let Some(leader) = self.leader_of(group).filter(|&leader| leader != at) else { return };
            let leads = self.brokers[leader].driver(group).group(group).expect("it leads");
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
            let broker = &mut self.brokers[broker_of(one) as usize];
            if self.connected.remove(&(one, other)) && broker.up {
                let now = broker.clock(self.now);
                let shard = &mut broker.shards[(one.0 % SHARDS_MAX) as usize];
                shard.inbox.retain(|&(from, _)| from != other);
                shard.driver.peer_disconnected(now, other);
            }
        }
    }

    pub(super) fn connect(&mut self) {
        let up = self.brokers.iter().filter(|broker| broker.up);
        let shards: Vec<_> = up.flat_map(|broker| broker.shards.iter().map(|shard| shard.id)).collect();
        for (at, &a) in shards.iter().enumerate() {
            for &b in &shards[at + 1..] {
                let cut = self.links.is_cut(self.now, a, b) || self.links.is_cut(self.now, b, a);
                let apart = broker_of(a) != broker_of(b) && !self.connected.contains(&(a, b));
                if !apart || cut || !self.rolls(5) {
                    continue;
                }
                for (one, other) in [(a, b), (b, a)] {
                    self.connected.insert((one, other));
                    let broker = &mut self.brokers[broker_of(one) as usize];
                    let now = broker.clock(self.now);
                    let shard = &mut broker.shards[(one.0 % SHARDS_MAX) as usize];
                    shard.driver.peer_connected(now, other);
                }
            }
        }
        self.learn_shards();
    }

    /// Brokers that are connected learn of each other how many shards they have, some time after.
    fn learn_shards(&mut self) {
        let brokers = self.brokers.len();
        for (at, of) in (0..brokers).flat_map(|at| (0..brokers).map(move |of| (at, of))) {
            let shards = self.brokers[of].shards.len() as u64;
            let meets = |&(one, other): &(PeerId, PeerId)| {
                broker_of(one) as usize == at && broker_of(other) as usize == of
            };
            let news = self.brokers[at].up && self.brokers[at].knows[of] != shards;
            if !news || !self.connected.iter().any(meets) || !self.rolls(3) {
                continue;
            }
            self.brokers[at].knows[of] = shards;
            self.place_all(at);
            let gone = (of as u64 * SHARDS_MAX + shards..(of as u64 + 1) * SHARDS_MAX).map(PeerId);
            let broker = &mut self.brokers[at];
            let now = broker.clock(self.now);
            for shard in &mut broker.shards {
                gone.clone().for_each(|id| shard.driver.forget_peer(now, id));
            }
        }
    }

    pub(super) fn start_brokers(&mut self) {
        for at in 0..self.brokers.len() {
            if self.brokers[at].up || self.brokers[at].starts_at > self.now {
                continue;
            }
            let reshards = self.random.below(100) < self.plan.rates.reshard;
            let shards = if reshards {
                1 + self.random.below(SHARDS_MAX)
            } else {
                self.brokers[at].shards.len() as u64
            };
            let broker = &mut self.brokers[at];
            broker.start(shards, self.now);
            broker.knows[at] = shards;
            let groups: Vec<_> = broker.disks.keys().copied().collect();
            groups.into_iter().for_each(|group| self.open(at, group));
        }
    }
}
