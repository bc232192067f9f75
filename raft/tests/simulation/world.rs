//! Brokers, their disks and their connections, driven from one seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::frame::Content;
use corelog_raft::*;

use crate::check::Checks;
use crate::disk::Disk;
use crate::links::Links;
use crate::plan::Plan;
use crate::planted::Planted;

mod change;
mod faults;
mod turn;

/// Shards that a broker may have.
const SHARDS_MAX: u64 = 3;
/// Who led so long ago leads: a lease that lapses for a moment on slow links is no group without a leader.
const LED_LATELY: u64 = 60;

/// Transfers take few ticks here.
const TIMING: Timing = Timing { heartbeat: 5, election: 25, lease_margin: 4, rest: 50, snapshot: 60 };

struct Shard {
    id: PeerId,
    driver: Driver,
    inbox: Vec<(PeerId, Content)>,
    reads: Vec<(u64, GroupId, RaftIndex, RaftIndex)>,
    installs: Vec<(u64, GroupId, SnapshotOffer)>,
}

struct Broker {
    id: u64,
    shards: Vec<Shard>,
    disks: BTreeMap<GroupId, (ReplicaId, Disk)>,
    /// How many shards each broker has, as this one heard last.
    knows: Vec<u64>,
    up: bool,
    starts_at: u64,
    paused_until: u64,
    /// Its clock: so far ahead, and so many hundredths faster.
    ahead: u64,
    faster: u64,
    slow_disk: u64,
}

/// Where a broker of so many shards has its replica.
fn placed(group: GroupId, broker: u64, shards: u64) -> PeerId {
    PeerId(broker * SHARDS_MAX + (group.partition as u64 + broker) % shards)
}

fn broker_of(peer: PeerId) -> u64 {
    peer.0 / SHARDS_MAX
}

impl Broker {
    fn clock(&self, now: u64) -> Tick {
        Tick(self.ahead + now + now * self.faster / 100)
    }

    fn at_of(&self, group: GroupId) -> usize {
        (placed(group, self.id, self.shards.len() as u64).0 % SHARDS_MAX) as usize
    }

    fn driver(&self, group: GroupId) -> &Driver {
        &self.shards[self.at_of(group)].driver
    }

    fn driver_mut(&mut self, group: GroupId) -> &mut Driver {
        let at = self.at_of(group);
        &mut self.shards[at].driver
    }

    fn start(&mut self, shards: u64, now: u64) {
        let clock = self.clock(now);
        let shard = |at| Shard {
            id: PeerId(self.id * SHARDS_MAX + at),
            driver: Driver::new(TIMING, Bounds::default(), clock),
            inbox: Vec::new(),
            reads: Vec::new(),
            installs: Vec::new(),
        };
        self.shards = (0..shards).map(shard).collect();
        self.up = true;
    }
}

pub struct World {
    pub plan: Plan,
    random: Random,
    now: u64,
    brokers: Vec<Broker>,
    /// On which broker each replica that ever was is or was.
    places: BTreeMap<GroupId, Vec<(ReplicaId, u64)>>,
    founders: BTreeMap<GroupId, Membership>,
    wiped: BTreeMap<GroupId, ReplicaId>,
    connected: BTreeSet<(PeerId, PeerId)>,
    links: Links,
    checks: Checks,
    planted: Option<Planted>,
    next_replica: u64,
    proposed: u64,
    faults: bool,
    /// Which broker last might lead, and when.
    led: BTreeMap<GroupId, (u64, usize)>,
    trace: bool,
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>) -> World {
        let mut random = Random::new(seed);
        let mut plan = Plan::of(seed, &mut random);
        planted.into_iter().for_each(|planted| plan.favour(planted));
        let links = Links::new(plan.hostile, plan.delay);
        let mut world = World {
            random,
            now: 0,
            brokers: Vec::new(),
            places: BTreeMap::new(),
            founders: BTreeMap::new(),
            wiped: BTreeMap::new(),
            connected: BTreeSet::new(),
            links,
            checks: Checks::default(),
            planted,
            next_replica: 0,
            proposed: 0,
            faults: true,
            led: BTreeMap::new(),
            trace: std::env::var("TRACE").is_ok(),
            plan,
        };
        let shards: Vec<_> = (0..world.plan.brokers).map(|_| 1 + world.random.below(SHARDS_MAX)).collect();
        for id in 0..world.plan.brokers {
            let broker = world.new_broker(id, &shards);
            world.brokers.push(broker);
        }
        for partition in 0..world.plan.groups {
            world.found(GroupId { topic: 7, partition });
        }
        world
    }

    fn new_broker(&mut self, id: u64, shards: &[u64]) -> Broker {
        let mut broker = Broker {
            id,
            shards: Vec::new(),
            disks: BTreeMap::new(),
            knows: shards.to_vec(),
            up: true,
            starts_at: 0,
            paused_until: 0,
            ahead: 1 + self.random.below(1000),
            faster: self.random.below(11),
            slow_disk: 1,
        };
        broker.start(shards[id as usize], 0);
        broker
    }

    fn found(&mut self, group: GroupId) {
        let replicas: Vec<_> = (0..self.plan.brokers).map(|broker| (self.new_replica(), broker)).collect();
        let voters: Vec<_> = replicas.iter().map(|&(replica, _)| replica).collect();
        let membership = Membership::of_voters(&voters);
        self.places.insert(group, replicas.clone());
        self.founders.insert(group, membership.clone());
        for (replica, broker) in replicas {
            let disk = Disk::new(membership.clone());
            self.brokers[broker as usize].disks.insert(group, (replica, disk));
            self.open(broker as usize, group);
        }
    }

    fn new_replica(&mut self) -> ReplicaId {
        self.next_replica += 1;
        ReplicaId(self.next_replica)
    }

    fn open(&mut self, at: usize, group: GroupId) {
        let seed = self.random.number();
        let peers = self.peers(at, group);
        let now = self.brokers[at].clock(self.now);
        let broker = &mut self.brokers[at];
        let shard = broker.at_of(group);
        let (id, disk) = &broker.disks[&group];
        let replica = Replica { group, id: *id, peers };
        broker.shards[shard].driver.open(now, replica, seed, disk).expect("a log that can be opened");
    }

    /// Where this broker takes a group's replicas to be.
    fn peers(&self, at: usize, group: GroupId) -> Vec<(ReplicaId, PeerId)> {
        let knows = &self.brokers[at].knows;
        let others = self.places[&group].iter().filter(|&&(_, broker)| broker as usize != at);
        others.map(|&(id, broker)| (id, placed(group, broker, knows[broker as usize]))).collect()
    }

    fn groups(&self) -> Vec<GroupId> {
        self.places.keys().copied().collect()
    }

    /// Runs the plan with its faults, heals all, and sees that all goes on.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.ticks {
            self.step()?;
        }
        self.heal();
        for _ in 0..500 {
            self.step()?;
        }
        for group in self.groups() {
            let leader = self.led_lately(group, "after all has healed")?;
            self.propose(leader, group);
        }
        for _ in 0..400 {
            self.step()?;
        }
        self.groups().into_iter().try_for_each(|group| self.check_end(group))
    }

    pub fn elections(&self) -> usize {
        self.checks.elections()
    }

    fn heal(&mut self) {
        self.faults = false;
        self.links.heal();
        for broker in &mut self.brokers {
            broker.paused_until = 0;
            broker.slow_disk = 1;
            broker.starts_at = broker.starts_at.min(self.now + 1);
        }
        // Hostile links forget without a word: connections begin anew.
        let connected: Vec<_> = self.connected.iter().copied().collect();
        connected.into_iter().for_each(|(a, b)| self.disconnect(a, b));
    }

    fn leader_of(&self, group: GroupId) -> Option<usize> {
        self.brokers
            .iter()
            .position(|broker| broker.up && broker.driver(group).may_lead(broker.clock(self.now), group))
    }

    fn led_lately(&self, group: GroupId, when: &str) -> Result<usize, String> {
        let lately = self.led.get(&group).filter(|&&(at, _)| self.now - at < LED_LATELY);
        lately.map(|&(_, leader)| leader).ok_or(format!("nobody leads {group} {when}"))
    }

    fn check_end(&self, group: GroupId) -> Result<(), String> {
        let leader = self.led_lately(group, "at the end")?;
        let leads = self.brokers[leader].driver(group).group(group).expect("it leads");
        let next = leads.next_index();
        if leads.membership().is_joint() {
            return Err(format!("{group} is still joint"));
        }
        for replica in leads.membership().replicas() {
            let wiped = self.wiped.get(&group) == Some(&replica);
            let (_, place) = self.places[&group].iter().find(|&&(id, _)| id == replica).expect("placed");
            let broker = &self.brokers[*place as usize];
            let Some((id, disk)) = broker.disks.get(&group).filter(|(id, _)| *id == replica || wiped) else {
                return Err(format!("replica {replica} of {group} has gone"));
            };
            if *id == replica && (disk.committed != next || disk.end() != next) {
                let (committed, end) = (disk.committed, disk.end());
                return Err(format!(
                    "replica {replica} of {group}: {committed} of {end}, the leader has {next}"
                ));
            }
            if *id == replica {
                self.checks.has_all(group, disk)?;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        if self.faults {
            self.make_faults();
        }
        self.start_brokers();
        self.connect();
        for (from, to, frame) in self.links.arrivals(self.now) {
            let broker = &mut self.brokers[broker_of(to) as usize];
            if let Some(shard) = broker.shards.iter_mut().find(|shard| shard.id == to && broker.up) {
                shard.inbox.push((from, turn::received(&frame)));
            }
        }
        (0..self.brokers.len()).try_for_each(|at| self.step_broker(at))?;
        self.check_leases()
    }

    /// Who may read sees all that was acknowledged, and nobody else may. What groups at rest lean on needs connections that
    /// don't forget.
    fn check_leases(&mut self) -> Result<(), String> {
        for group in self.groups() {
            let mut may_read = Vec::new();
            for (at, broker) in self.brokers.iter().enumerate() {
                let now = broker.clock(self.now);
                let (driver, runs) = (broker.driver(group), broker.up && broker.paused_until <= self.now);
                let Some(replica) = driver.group(group).filter(|_| runs) else { continue };
                let leads = replica.leadership().role == Role::Leader;
                let may = driver.may_lead(now, group);
                if may {
                    self.led.insert(group, (self.now, at));
                }
                let reads = may || (leads && self.planted == Some(Planted::LeasesIgnored));
                if !reads || (self.plan.hostile > 0 && replica.is_resting()) {
                    continue;
                }
                let (committed, acknowledged) = (replica.committed(), self.checks.acknowledged(group));
                if committed < acknowledged {
                    return Err(format!(
                        "broker {at} may read {group} up to {committed}; {acknowledged} is known"
                    ));
                }
                may_read.push(at);
            }
            if may_read.len() > 1 {
                return Err(format!("brokers {may_read:?} may all read {group}"));
            }
        }
        Ok(())
    }
}
