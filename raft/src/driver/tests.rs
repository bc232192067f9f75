use super::*;
use crate::testing::Kept;

const HERE: PeerId = PeerId(0);
const PEERS: [PeerId; 2] = [PeerId(1), PeerId(2)];

fn group(partition: i32) -> GroupId {
    GroupId { topic: 1, partition }
}

/// Three brokers on one clock, whose disks and links take no time.
struct Cluster {
    drivers: Vec<Driver>,
    logs: HashMap<(usize, GroupId), Vec<Entry>>,
    frames: usize,
    dead: Option<usize>,
    /// What this one says is lost.
    mute: Option<usize>,
    now: Tick,
}

struct Memory<'a>(&'a HashMap<(usize, GroupId), Vec<Entry>>, usize);

impl Logs for Memory<'_> {
    fn entries(&mut self, group: GroupId, from: RaftIndex, to: RaftIndex, max: u64) -> Option<Vec<Entry>> {
        let mut bytes = 0;
        let wanted = self.0[&(self.1, group)].iter().filter(|entry| entry.index >= from && entry.index < to);
        let fits = |entry: &&Entry| {
            bytes += entry.bytes.len() as u64;
            bytes <= max || bytes == entry.bytes.len() as u64
        };
        Some(wanted.take_while(fits).cloned().collect())
    }
}

impl Cluster {
    fn new(groups: i32) -> Cluster {
        let now = Tick(1);
        let voters = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let brokers: Vec<_> = voters.into_iter().zip([HERE, PEERS[0], PEERS[1]]).collect();
        let mut drivers: Vec<_> =
            (0..3).map(|_| Driver::new(Timing::default(), Bounds::default(), now)).collect();
        let mut logs = HashMap::new();
        for (at, driver) in drivers.iter_mut().enumerate() {
            for partition in 0..groups {
                let replica = Replica { group: group(partition), id: voters[at], peers: brokers.clone() };
                let seed = (at as u64) << 32 | partition as u64;
                driver.open(now, replica, seed, &Kept::new(0, &voters)).unwrap();
                logs.insert((at, group(partition)), Vec::new());
            }
            brokers.iter().filter(|(id, _)| *id != voters[at]).for_each(|&(_, peer)| {
                driver.peer_connected(now, peer);
            });
        }
        Cluster { drivers, logs, frames: 0, dead: None, mute: None, now }
    }

    fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now = self.now.after(1);
            for at in (0..3).filter(|&at| Some(at) != self.dead).collect::<Vec<_>>() {
                self.drivers[at].tick(self.now);
            }
            while self.turn() {}
        }
    }

    fn turn(&mut self) -> bool {
        let mut sent = false;
        for at in (0..3).filter(|&at| Some(at) != self.dead).collect::<Vec<_>>() {
            loop {
                let turns = self.drivers[at].collect();
                if turns.is_empty() {
                    break;
                }
                turns.into_iter().for_each(|turn| self.save(at, turn));
            }
            self.drivers[at].send(&mut Memory(&self.logs, at));
            for to in (0..3).filter(|&to| to != at) {
                while let Some(frame) = self.drivers[at].take_frame(PeerId(to as u64)) {
                    sent = true;
                    self.frames += 1;
                    if Some(to) != self.dead && Some(at) != self.mute {
                        let content = read(&frame);
                        self.drivers[to].receive(self.now, PeerId(at as u64), content);
                    }
                }
            }
        }
        sent
    }

    fn save(&mut self, at: usize, turn: GroupTurn) {
        assert_eq!(turn.violation, None);
        let log = self.logs.get_mut(&(at, turn.group)).unwrap();
        turn.append.first().into_iter().for_each(|first| log.truncate(first.index.0 as usize));
        let last = turn.append.last().map(|last| (last.index.next(), last.term));
        log.extend(turn.append);
        let driver = &mut self.drivers[at];
        turn.hard_state.into_iter().for_each(|saved| driver.hard_state_durable(self.now, turn.group, saved));
        last.into_iter().for_each(|(end, term)| driver.durable(self.now, turn.group, end, term));
    }

    fn leader(&self, partition: i32) -> Option<usize> {
        (0..3)
            .filter(|&at| Some(at) != self.dead)
            .find(|&at| self.drivers[at].may_lead(self.now, group(partition)))
    }
}

fn read(frame: &Frame) -> Content {
    let prefix: [u8; crate::frame::PREFIX_BYTES] =
        frame.head[..crate::frame::PREFIX_BYTES].try_into().unwrap();
    let prefix = crate::frame::Prefix::parse(prefix).unwrap();
    crate::frame::decode(prefix, &frame.head[crate::frame::PREFIX_BYTES..], frame.body.concat().into())
        .unwrap()
}

#[test]
fn groups_at_rest_cost_no_look_and_share_their_brokers_heartbeats() {
    let groups = 100;
    let mut cluster = Cluster::new(groups);
    cluster.run(400);
    let looks = |cluster: &Cluster| cluster.drivers.iter().map(|driver| driver.counters().looks).sum::<u64>();
    let (before, frames) = (looks(&cluster), cluster.frames);
    cluster.run(100);
    assert_eq!(looks(&cluster), before);
    // One frame for each direction of each pair and heartbeat.
    assert_eq!((cluster.frames - frames) as u64, 6 * 100 / Timing::default().heartbeat);
    assert!((0..groups).all(|partition| cluster.leader(partition).is_some()));
}

#[test]
fn after_a_brokers_death_elections_are_spread_and_all_finish() {
    let groups = 1000;
    let mut cluster = Cluster::new(groups);
    cluster.run(500);
    let led = (0..groups).filter(|&partition| cluster.leader(partition) == Some(0)).count();
    assert!(led > 100, "{led} of {groups}");
    cluster.dead = Some(0);
    let elections =
        |cluster: &Cluster| cluster.drivers.iter().map(|driver| driver.counters().elections).sum::<u64>();
    let mut most = 0;
    for _ in 0..150 {
        let before = elections(&cluster);
        cluster.run(1);
        most = most.max(elections(&cluster) - before);
    }
    assert!(most <= 2 * Bounds::default().elections_per_tick as u64, "{most} in one tick");
    let without = (0..groups).filter(|&partition| cluster.leader(partition).is_none()).count();
    assert_eq!(without, 0);
}

#[test]
fn what_is_in_flight_is_bounded_and_a_dead_broker_gives_its_room_back() {
    let mut cluster = Cluster::new(16);
    cluster.run(200);
    let bounds = Bounds::default();
    let batch = Bytes::from(vec![0; 1 << 20]);
    // Nobody answers: what leaves is what may be in flight.
    for partition in 0..16 {
        let Some(leader) = cluster.leader(partition) else { panic!("nobody leads {partition}") };
        let driver = &mut cluster.drivers[leader];
        for _ in 0..8 {
            driver.propose(cluster.now, group(partition), vec![batch.clone()]).unwrap();
        }
    }
    for at in 0..3 {
        let turns = cluster.drivers[at].collect();
        turns.into_iter().for_each(|turn| cluster.save(at, turn));
        let driver = &mut cluster.drivers[at];
        driver.send(&mut Memory(&cluster.logs, at));
        assert!(driver.in_flight_bytes() <= bounds.shard_bytes + (1 << 20));
        for peer in (0..3).filter(|&peer| peer != at) {
            let mut queued = 0;
            while let Some(frame) = driver.peers.get_mut(&PeerId(peer as u64)).unwrap().take_frame() {
                queued += frame.bytes();
            }
            assert!(queued <= bounds.peer_queue_bytes + bounds.append_bytes + 4096, "{queued}");
        }
        for peer in (0..3).filter(|&peer| peer != at) {
            driver.peer_disconnected(cluster.now, PeerId(peer as u64));
        }
        assert_eq!(driver.in_flight_bytes(), 0);
    }
}

#[test]
fn a_follower_that_was_away_gets_all_it_missed() {
    let mut cluster = Cluster::new(1);
    cluster.run(200);
    let leader = cluster.leader(0).unwrap();
    let away = (leader + 1) % 3;
    cluster.dead = Some(away);
    for _ in 0..300 {
        let batches = vec![Bytes::from(vec![1; 30_000]), Bytes::from(vec![2; 10_000])];
        cluster.drivers[leader].propose(cluster.now, group(0), batches).unwrap();
        cluster.run(1);
    }
    cluster.dead = None;
    for (one, other) in [(leader, away), (away, leader)] {
        cluster.drivers[one].peer_disconnected(cluster.now, PeerId(other as u64));
        cluster.drivers[one].peer_connected(cluster.now, PeerId(other as u64));
    }
    cluster.run(60);
    assert_eq!(cluster.logs[&(away, group(0))], cluster.logs[&(leader, group(0))]);
    assert_eq!(cluster.drivers[leader].in_flight_bytes(), 0);
}

impl Cluster {
    fn looks(&self) -> u64 {
        self.drivers.iter().map(|driver| driver.counters().looks).sum()
    }

    fn connect(&mut self, at: usize, connects: bool) {
        for other in (0..3).filter(|&other| other != at) {
            for (one, other) in [(at, other), (other, at)] {
                let peer = PeerId(other as u64);
                match connects {
                    true => self.drivers[one].peer_connected(self.now, peer),
                    false => self.drivers[one].peer_disconnected(self.now, peer),
                }
            }
        }
    }
}

#[test]
fn groups_with_a_dead_replica_rest_and_wake_when_its_peer_is_back() {
    let groups = 50;
    let mut cluster = Cluster::new(groups);
    cluster.run(400);
    cluster.dead = Some(2);
    cluster.connect(2, false);
    cluster.run(400);
    let (looks, frames) = (cluster.looks(), cluster.frames);
    cluster.run(100);
    assert_eq!(cluster.looks(), looks);
    assert_eq!((cluster.frames - frames) as u64, 2 * 100 / Timing::default().heartbeat);
    for partition in 0..groups {
        let leader = cluster.leader(partition).expect("two of three live");
        cluster.drivers[leader].propose(cluster.now, group(partition), vec!["batch".into()]).unwrap();
    }
    cluster.run(200);
    let looks = cluster.looks();
    cluster.run(100);
    assert_eq!(cluster.looks(), looks);
    cluster.dead = None;
    cluster.connect(2, true);
    cluster.run(200);
    for partition in 0..groups {
        assert_eq!(cluster.logs[&(2, group(partition))], cluster.logs[&(0, group(partition))]);
    }
    let looks = cluster.looks();
    cluster.run(100);
    assert_eq!(cluster.looks(), looks);
}

/// It hears all that they say: only its followers know that they waited too long.
#[test]
fn a_leader_at_rest_learns_that_it_was_not_heard() {
    let mut cluster = Cluster::new(1);
    cluster.run(400);
    let leader = cluster.leader(0).unwrap();
    let rests = |cluster: &Cluster| cluster.drivers[leader].group(group(0)).unwrap().is_resting();
    let elections =
        |cluster: &Cluster| cluster.drivers.iter().map(|driver| driver.counters().elections).sum::<u64>();
    let before = elections(&cluster);
    cluster.mute = Some(leader);
    let woken = (1..100).find(|_| {
        cluster.run(1);
        !rests(&cluster)
    });
    assert!(woken.is_some_and(|ticks| ticks <= Timing::default().election + 1), "{woken:?}");
    assert_eq!(elections(&cluster), before);
    assert_eq!(cluster.leader(0), None);
}

#[test]
fn a_replica_that_moved_to_another_peer_is_reached_there() {
    let mut cluster = Cluster::new(1);
    cluster.run(400);
    let leader = cluster.leader(0).unwrap();
    let driver = &mut cluster.drivers[leader];
    let others: Vec<_> = (0..3).filter(|&at| at != leader).collect();
    let replica = |at: usize| ReplicaId(at as u64 + 1);
    let moved = PeerId(17);
    driver.peer_connected(cluster.now, moved);
    let peers = vec![(replica(others[0]), moved), (replica(others[1]), PeerId(others[1] as u64))];
    driver.set_peers(cluster.now, group(0), peers);
    assert!(!driver.group(group(0)).unwrap().is_resting());
    driver.propose(cluster.now, group(0), vec!["batch".into()]).unwrap();
    let turns = driver.collect();
    turns.into_iter().for_each(|turn| cluster.save(leader, turn));
    let driver = &mut cluster.drivers[leader];
    driver.send(&mut Memory(&cluster.logs, leader));
    let mut appends = |id| {
        let frames = std::iter::from_fn(|| driver.take_frame(id));
        frames.filter(|frame| matches!(read(frame), Content::Append(..))).count()
    };
    assert_eq!((appends(moved), appends(PeerId(others[0] as u64))), (1, 0));
    driver.forget_peer(cluster.now, moved);
    assert_eq!(driver.take_frame(moved).map(|frame| frame.bytes()), None);
}
