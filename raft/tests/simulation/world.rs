//! Brokers, their disks and their connections, driven from one seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::frame::{Content, Frame, Messages, PREFIX_BYTES, Prefix, decode};
use corelog_raft::*;

use crate::check::Checks;
use crate::disk::{Disk, Synced};
use crate::links::Links;

/// Rules of Raft that the world itself breaks, to show that the checks would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Votes and appends are answered before they are on stable storage.
    AnswersBeforeDurable,
    /// A leader counts an entry as its followers' when it has sent it.
    CommitsFromOne,
    /// A replica takes what a leader of an earlier term says.
    TermsIgnored,
}

pub struct Plan {
    pub brokers: u64,
    pub groups: i32,
    pub ticks: u64,
    pub sync_ticks: u64,
    pub delay: u64,
    pub hostile: u64,
    /// One fault of each kind in so many ticks.
    pub calm: u64,
}

impl Plan {
    pub fn of(random: &mut Random) -> Plan {
        Plan {
            brokers: if random.below(2) == 0 { 3 } else { 5 },
            groups: 1 + random.below(4) as i32,
            ticks: 800 + random.below(800),
            sync_ticks: random.below(8),
            delay: random.below(6),
            hostile: if random.below(3) == 0 { 4 } else { 0 },
            calm: 150 + random.below(500),
        }
    }
}

struct Broker {
    id: PeerId,
    driver: Driver,
    disks: BTreeMap<GroupId, (ReplicaId, Disk)>,
    up: bool,
    starts_at: u64,
    paused_until: u64,
    /// Its clock: so far ahead, and so many hundredths faster.
    ahead: u64,
    faster: u64,
    slow_disk: u64,
    inbox: Vec<(PeerId, Content)>,
    reads: Vec<(u64, GroupId, RaftIndex, RaftIndex)>,
    installs: Vec<(u64, GroupId, SnapshotOffer)>,
    /// When a leader gives up on a transfer.
    transfers: Vec<(u64, GroupId, ReplicaId)>,
}

impl Broker {
    fn clock(&self, now: u64) -> Tick {
        Tick(self.ahead + now + now * self.faster / 100)
    }
}

/// What of the entries is in memory: three in four reads find them there.
struct Memory<'a> {
    disks: &'a BTreeMap<GroupId, (ReplicaId, Disk)>,
    reads: &'a mut Vec<(u64, GroupId, RaftIndex, RaftIndex)>,
    now: u64,
    random: &'a mut Random,
}

impl Logs for Memory<'_> {
    fn entries(&mut self, group: GroupId, from: RaftIndex, to: RaftIndex, _: u64) -> Option<Vec<Entry>> {
        if self.random.below(4) == 0 {
            self.reads.push((self.now + 1 + self.random.below(4), group, from, to));
            return None;
        }
        Some(read(self.disks, group, from, to, self.random))
    }
}

fn read(
    disks: &BTreeMap<GroupId, (ReplicaId, Disk)>,
    group: GroupId,
    from: RaftIndex,
    to: RaftIndex,
    random: &mut Random,
) -> Vec<Entry> {
    let Some((_, disk)) = disks.get(&group) else { return Vec::new() };
    let at_most = 1 + random.below(8);
    let to = to.0.min(from.0 + at_most);
    (from.0..to).map_while(|index| disk.entry(RaftIndex(index)).cloned()).collect()
}

pub struct World {
    pub plan: Plan,
    random: Random,
    now: u64,
    brokers: Vec<Broker>,
    /// Where each replica that ever was is or was.
    places: BTreeMap<GroupId, Vec<(ReplicaId, PeerId)>>,
    founders: BTreeMap<GroupId, Membership>,
    wiped: BTreeMap<GroupId, ReplicaId>,
    connected: BTreeSet<(PeerId, PeerId)>,
    cuts_until: u64,
    links: Links,
    checks: Checks,
    planted: Option<Planted>,
    next_replica: u64,
    proposed: u64,
    faults: bool,
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random);
        let links = Links::new(plan.hostile, plan.delay);
        let mut world = World {
            random,
            now: 0,
            brokers: Vec::new(),
            places: BTreeMap::new(),
            founders: BTreeMap::new(),
            wiped: BTreeMap::new(),
            connected: BTreeSet::new(),
            cuts_until: 0,
            links,
            checks: Checks::default(),
            planted,
            next_replica: 0,
            proposed: 0,
            faults: true,
            plan,
        };
        for id in 0..world.plan.brokers {
            let broker = world.new_broker(PeerId(id));
            world.brokers.push(broker);
        }
        for partition in 0..world.plan.groups {
            world.found(GroupId { topic: 7, partition });
        }
        world
    }

    fn new_broker(&mut self, id: PeerId) -> Broker {
        let (ahead, faster) = (1 + self.random.below(1000), self.random.below(5));
        let driver = Driver::new(Timing::default(), Bounds::default(), Tick(ahead));
        Broker {
            id,
            driver,
            disks: BTreeMap::new(),
            up: true,
            starts_at: 0,
            paused_until: 0,
            ahead,
            faster,
            slow_disk: 1,
            inbox: Vec::new(),
            reads: Vec::new(),
            installs: Vec::new(),
            transfers: Vec::new(),
        }
    }

    fn found(&mut self, group: GroupId) {
        let replicas: Vec<_> =
            (0..self.plan.brokers).map(|broker| (self.new_replica(), PeerId(broker))).collect();
        let voters: Vec<_> = replicas.iter().map(|&(replica, _)| replica).collect();
        let membership = Membership::of_voters(&voters);
        self.places.insert(group, replicas.clone());
        self.founders.insert(group, membership.clone());
        for (replica, broker) in replicas {
            let disk = Disk::new(membership.clone());
            self.brokers[broker.0 as usize].disks.insert(group, (replica, disk));
            self.open(broker, group);
        }
    }

    fn new_replica(&mut self) -> ReplicaId {
        self.next_replica += 1;
        ReplicaId(self.next_replica)
    }

    fn open(&mut self, broker: PeerId, group: GroupId) {
        let seed = self.random.number();
        let broker = &mut self.brokers[broker.0 as usize];
        let (id, disk) = &broker.disks[&group];
        let replica = Replica { group, id: *id, peers: self.places[&group].clone() };
        let now = broker.clock(self.now);
        broker.driver.open(now, replica, seed, disk).expect("a log that can be opened");
    }

    /// Runs the plan with its faults, heals all, and sees that all goes on.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.ticks {
            self.step()?;
        }
        self.heal();
        for _ in 0..400 {
            self.step()?;
        }
        let due: Vec<_> = self.places.keys().copied().collect();
        for &group in &due {
            self.propose_at_end(group)?;
        }
        for _ in 0..300 {
            self.step()?;
        }
        due.into_iter().try_for_each(|group| self.check_end(group))
    }

    pub fn elections(&self) -> usize {
        self.checks.elections()
    }

    fn heal(&mut self) {
        self.faults = false;
        self.links.cut.clear();
        self.links.hostile = 0;
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
        let leads = |broker: &Broker| broker.up && broker.driver.may_lead(broker.clock(self.now), group);
        self.brokers.iter().position(leads)
    }

    fn propose_at_end(&mut self, group: GroupId) -> Result<(), String> {
        let leader = self.leader_of(group).ok_or(format!("nobody leads {group} after all has healed"))?;
        self.propose(leader, group);
        Ok(())
    }

    fn check_end(&self, group: GroupId) -> Result<(), String> {
        let leader = self.leader_of(group).ok_or(format!("nobody leads {group} at the end"))?;
        let leads = self.brokers[leader].driver.group(group).expect("it leads");
        let next = leads.next_index();
        if leads.membership().is_joint() {
            return Err(format!("{group} is still joint"));
        }
        for replica in leads.membership().replicas() {
            let wiped = self.wiped.get(&group) == Some(&replica);
            let (_, place) = self.places[&group].iter().find(|&&(id, _)| id == replica).expect("placed");
            let broker = &self.brokers[place.0 as usize];
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
            let broker = &mut self.brokers[to.0 as usize];
            if broker.up {
                broker.inbox.push((from, received(&frame)));
            }
        }
        (0..self.brokers.len()).try_for_each(|at| self.step_broker(at))
    }

    fn step_broker(&mut self, at: usize) -> Result<(), String> {
        if !self.brokers[at].up || self.brokers[at].paused_until > self.now {
            return Ok(());
        }
        let now = self.brokers[at].clock(self.now);
        self.install(at, now)?;
        let broker = &mut self.brokers[at];
        for (from, content) in std::mem::take(&mut broker.inbox) {
            let content = match self.planted {
                Some(Planted::TermsIgnored) => with_own_term(&broker.driver, content),
                _ => content,
            };
            broker.driver.receive(now, from, content);
        }
        for (&group, (_, disk)) in &mut broker.disks {
            for synced in disk.synced(self.now) {
                match synced {
                    Synced::Entries(end, term) => broker.driver.durable(now, group, end, term),
                    Synced::HardState(saved) => broker.driver.hard_state_durable(now, group, saved),
                }
            }
        }
        let due: Vec<_> = broker.reads.extract_if(.., |&mut (due, ..)| due <= self.now).collect();
        for (_, group, from, to) in due {
            let entries = read(&broker.disks, group, from, to, &mut self.random);
            broker.driver.entries_read(now, group, from, entries);
        }
        let given_up: Vec<_> = broker.transfers.extract_if(.., |&mut (due, ..)| due <= self.now).collect();
        for (_, group, follower) in given_up {
            broker.driver.snapshot_failed(now, group, follower);
        }
        broker.driver.tick(now);
        self.work(at, now)?;
        self.use_groups(at);
        self.work(at, now)?;
        self.check_leases(at, now)
    }

    /// Who may read sees all that was acknowledged. What groups at rest lean on needs connections that don't forget.
    fn check_leases(&self, at: usize, now: Tick) -> Result<(), String> {
        let driver = &self.brokers[at].driver;
        for &group in self.places.keys().filter(|&&group| driver.may_lead(now, group)) {
            let leads = driver.group(group).expect("it leads");
            let (committed, acknowledged) = (leads.committed(), self.checks.acknowledged(group));
            if committed < acknowledged && (self.plan.hostile == 0 || !leads.is_resting()) {
                return Err(format!(
                    "broker {at} may read {group} up to {committed}; {acknowledged} is known"
                ));
            }
        }
        Ok(())
    }

    /// Turns of one shard until it has nothing more to do.
    fn work(&mut self, at: usize, now: Tick) -> Result<(), String> {
        loop {
            let turns = self.brokers[at].driver.collect();
            if turns.is_empty() {
                break;
            }
            for turn in turns {
                self.take(at, now, turn)?;
            }
        }
        let broker = &mut self.brokers[at];
        let (disks, reads) = (&broker.disks, &mut broker.reads);
        let mut memory = Memory { disks, reads, now: self.now, random: &mut self.random };
        broker.driver.send(&mut memory);
        let from = broker.id;
        for to in (0..self.plan.brokers).map(PeerId) {
            while let Some(frame) = self.brokers[at].driver.take_frame(to) {
                if self.planted == Some(Planted::CommitsFromOne) {
                    self.pretend_answer(at, now, to, &frame);
                }
                self.links.send(self.now, from, to, frame, &mut self.random);
            }
        }
        Ok(())
    }

    fn pretend_answer(&mut self, at: usize, now: Tick, to: PeerId, frame: &Frame) {
        let Content::Append(group, message) = received(frame) else { return };
        let Body::Append(append) = message.body else { return };
        let Some(last) = append.entries.last() else { return };
        let outcome = Outcome::Matched { end: last.index.next() };
        let body = Body::AppendAnswer(AppendAnswer { committed: append.committed, outcome });
        let answer = Message { from: message.to, to: message.from, term: message.term, body };
        let messages = Messages { sent: Tick(0), echo: Tick(0), messages: vec![(group, answer)] };
        self.brokers[at].driver.receive(now, to, Content::Messages(messages));
    }

    fn take(&mut self, at: usize, now: Tick, turn: GroupTurn) -> Result<(), String> {
        let group = turn.group;
        if let Some(violation) = turn.violation {
            return Err(format!("broker {at}, {group}: {violation}"));
        }
        let broker = &mut self.brokers[at];
        let Some((replica, disk)) = broker.disks.get_mut(&group) else { return Ok(()) };
        let done_at = self.now + self.random.below(self.plan.sync_ticks + 1) * broker.slow_disk;
        let appended = turn.append.last().map(|last| (last.index.next(), last.term));
        disk.append(turn.append, done_at)?;
        if let Some(hard_state) = turn.hard_state {
            disk.save(hard_state, done_at);
        }
        if self.planted == Some(Planted::AnswersBeforeDurable) {
            turn.hard_state.into_iter().for_each(|saved| broker.driver.hard_state_durable(now, group, saved));
            appended.into_iter().for_each(|(end, term)| broker.driver.durable(now, group, end, term));
        }
        let leads = broker.driver.group(group).is_some_and(|group| group.leadership().role == Role::Leader);
        if let Some(leadership) = turn.leadership.filter(|leadership| leadership.role == Role::Leader) {
            self.checks.leads(group, leadership.term, *replica)?;
        }
        if let Some(end) = turn.committed {
            self.checks.commits(group, disk, end, leads)?;
            disk.committed = end;
        }
        if let Some((index, membership)) = turn.membership {
            disk.set_membership(index, membership);
        }
        if turn.leave_joint {
            let _later_if_not_now = broker.driver.leave_joint(now, turn.group);
        }
        if let Some(offer) = turn.install {
            broker.installs.push((self.now + 1 + self.random.below(20), group, offer));
        }
        for to in turn.snapshots_wanted {
            self.offer(at, now, group, to);
        }
        if turn.removed {
            let broker = &mut self.brokers[at];
            broker.driver.close(group);
            broker.disks.remove(&group);
        }
        Ok(())
    }

    fn offer(&mut self, at: usize, now: Tick, group: GroupId, to: ReplicaId) {
        let broker = &mut self.brokers[at];
        let (Some((_, disk)), Some(leads)) = (broker.disks.get(&group), broker.driver.group(group)) else {
            return;
        };
        let (end, (index, membership)) = (leads.applied(), disk.membership());
        let term = match end.0.checked_sub(1).map(RaftIndex) {
            Some(last) => disk.entry(last).map_or(disk.start.term_before, |entry| entry.term),
            None => return,
        };
        if index <= end {
            let offer = SnapshotOffer { end, term, membership };
            broker.driver.offer_snapshot(now, group, to, &offer);
            broker.transfers.push((self.now + 50, group, to));
        }
    }

    fn install(&mut self, at: usize, now: Tick) -> Result<(), String> {
        let broker = &mut self.brokers[at];
        let due: Vec<_> = broker.installs.extract_if(.., |(due, ..)| *due <= self.now).collect();
        for (_, group, offer) in due {
            let needs = broker.driver.group(group).is_some_and(|group| group.needs_snapshot(&offer));
            let Some((_, disk)) = broker.disks.get_mut(&group).filter(|_| needs) else { continue };
            disk.reset(&offer);
            if !broker.driver.snapshot_installed(now, group, &offer) {
                return Err(format!("a needed snapshot of {group} was not taken"));
            }
        }
        Ok(())
    }
}

fn received(frame: &Frame) -> Content {
    let prefix =
        Prefix::parse(frame.head[..PREFIX_BYTES].try_into().expect("a prefix")).expect("a frame of ours");
    let body: Bytes = frame.body.concat().into();
    decode(prefix, &frame.head[PREFIX_BYTES..], body).expect("a frame of ours")
}

fn with_own_term(driver: &Driver, content: Content) -> Content {
    let lift = |(group, mut message): (GroupId, Message)| {
        if let (Some(own), Body::Append(_) | Body::AppendAnswer(_) | Body::Heartbeat(_)) =
            (driver.group(group), &message.body)
        {
            message.term = message.term.max(own.leadership().term);
        }
        (group, message)
    };
    match content {
        Content::Append(group, message) => {
            let (group, message) = lift((group, message));
            Content::Append(group, message)
        }
        Content::Messages(messages) => {
            let lifted = messages.messages.into_iter().map(lift).collect();
            Content::Messages(Messages { messages: lifted, ..messages })
        }
    }
}

mod faults;
