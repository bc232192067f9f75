//! Turns of a broker's shards.

use corelog_raft::frame::{Content, Frame, PREFIX_BYTES, Prefix, decode};

use super::*;
use crate::disk::Synced;
use crate::planted;

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

pub(super) fn received(frame: &Frame) -> Content {
    let prefix =
        Prefix::parse(frame.head[..PREFIX_BYTES].try_into().expect("a prefix")).expect("a frame of ours");
    let body: Bytes = frame.body.concat().into();
    decode(prefix, &frame.head[PREFIX_BYTES..], body).expect("a frame of ours")
}

impl World {
    pub(super) fn step_broker(&mut self, at: usize) -> Result<(), String> {
        if !self.brokers[at].up || self.brokers[at].paused_until > self.now {
            return Ok(());
        }
        let now = self.brokers[at].clock(self.now);
        self.tell_synced(at, now);
        for shard in 0..self.brokers[at].shards.len() {
            self.install(at, shard, now)?;
            self.hear(at, shard, now);
            self.brokers[at].shards[shard].driver.tick(now);
            self.work(at, shard, now)?;
        }
        self.use_groups(at);
        (0..self.brokers[at].shards.len()).try_for_each(|shard| self.work(at, shard, now))
    }

    fn tell_synced(&mut self, at: usize, now: Tick) {
        let broker = &mut self.brokers[at];
        for group in broker.disks.keys().copied().collect::<Vec<_>>() {
            let synced = broker.disks.get_mut(&group).expect("it is there").1.synced(self.now);
            let driver = broker.driver_mut(group);
            for synced in synced {
                match synced {
                    Synced::Entries(end, term) => driver.durable(now, group, end, term),
                    Synced::HardState(saved) => driver.hard_state_durable(now, group, saved),
                }
            }
        }
    }

    fn hear(&mut self, at: usize, shard: usize, now: Tick) {
        let broker = &mut self.brokers[at];
        let shard = &mut broker.shards[shard];
        for (from, content) in std::mem::take(&mut shard.inbox) {
            let content = planted::changed(self.planted, &shard.driver, content);
            shard.driver.receive(now, from, content);
        }
        let due: Vec<_> = shard.reads.extract_if(.., |&mut (due, ..)| due <= self.now).collect();
        for (_, group, from, to) in due {
            let entries = read(&broker.disks, group, from, to, &mut self.random);
            shard.driver.entries_read(now, group, from, entries);
        }
    }

    /// Turns of one shard until it has nothing more to do.
    fn work(&mut self, at: usize, shard: usize, now: Tick) -> Result<(), String> {
        loop {
            let turns = self.brokers[at].shards[shard].driver.collect();
            if turns.is_empty() {
                break;
            }
            for turn in turns {
                self.take(at, shard, now, turn)?;
            }
        }
        let broker = &mut self.brokers[at];
        let (disks, shard) = (&broker.disks, &mut broker.shards[shard]);
        let mut memory = Memory { disks, reads: &mut shard.reads, now: self.now, random: &mut self.random };
        shard.driver.send(&mut memory);
        for to in (0..self.plan.brokers * SHARDS_MAX).map(PeerId) {
            while let Some(frame) = shard.driver.take_frame(to) {
                if self.planted == Some(Planted::CommitsFromOne)
                    && let Some(answer) = planted::pretended_answer(received(&frame))
                {
                    shard.driver.receive(now, to, answer);
                }
                self.links.send(self.now, shard.id, to, frame, &mut self.random);
            }
        }
        Ok(())
    }

    fn take(&mut self, at: usize, shard: usize, now: Tick, turn: GroupTurn) -> Result<(), String> {
        if self.trace {
            eprintln!("{} broker {at}: {turn:?}", self.now);
        }
        let group = turn.group;
        if let Some(violation) = turn.violation {
            return Err(format!("broker {at}, {group}: {violation}"));
        }
        let broker = &mut self.brokers[at];
        let driver = &mut broker.shards[shard].driver;
        let Some((replica, disk)) = broker.disks.get_mut(&group) else { return Ok(()) };
        let done_at = self.now + self.random.below(self.plan.sync_ticks + 1) * broker.slow_disk;
        let appended = turn.append.last().map(|last| (last.index.next(), last.term));
        disk.append(turn.append, done_at)?;
        if let Some(hard_state) = turn.hard_state {
            disk.save(hard_state, done_at);
        }
        if self.planted == Some(Planted::AnswersBeforeDurable) {
            turn.hard_state.into_iter().for_each(|saved| driver.hard_state_durable(now, group, saved));
            appended.into_iter().for_each(|(end, term)| driver.durable(now, group, end, term));
        }
        let leads = driver.group(group).is_some_and(|group| group.leadership().role == Role::Leader);
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
            let _later_if_not_now = driver.leave_joint(now, group);
        }
        // A transfer may fail without a word.
        if let Some(offer) = turn.install.filter(|_| self.random.below(4) > 0) {
            let due = self.now + 1 + self.random.below(20);
            broker.shards[shard].installs.push((due, group, offer));
        }
        for to in turn.snapshots_wanted {
            self.offer(at, now, group, to);
        }
        if turn.removed {
            let broker = &mut self.brokers[at];
            broker.driver_mut(group).close(group);
            broker.disks.remove(&group);
        }
        Ok(())
    }

    fn offer(&mut self, at: usize, now: Tick, group: GroupId, to: ReplicaId) {
        let broker = &mut self.brokers[at];
        let shard = broker.at_of(group);
        let driver = &mut broker.shards[shard].driver;
        let (Some((_, disk)), Some(leads)) = (broker.disks.get(&group), driver.group(group)) else {
            return;
        };
        let (end, (index, membership)) = (leads.applied().min(disk.committed), disk.membership());
        let term = match end.0.checked_sub(1).map(RaftIndex) {
            Some(last) => disk.entry(last).map_or(disk.start.term_before, |entry| entry.term),
            None => return,
        };
        if index <= end {
            driver.offer_snapshot(now, group, to, &SnapshotOffer { end, term, membership });
        }
    }

    fn install(&mut self, at: usize, shard: usize, now: Tick) -> Result<(), String> {
        let broker = &mut self.brokers[at];
        let shard = &mut broker.shards[shard];
        let due: Vec<_> = shard.installs.extract_if(.., |(due, ..)| *due <= self.now).collect();
        for (_, group, offer) in due {
            let needs = shard.driver.group(group).is_some_and(|group| group.needs_snapshot(&offer));
            let Some((_, disk)) = broker.disks.get_mut(&group).filter(|_| needs) else { continue };
            disk.reset(&offer);
            if !shard.driver.snapshot_installed(now, group, &offer) {
                return Err(format!("a needed snapshot of {group} was not taken"));
            }
        }
        Ok(())
    }
}
