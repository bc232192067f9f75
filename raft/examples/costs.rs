//! What a batch costs through Raft, in instructions, counted by valgrind's callgrind.
//!
//! One broker whose group has one replica, then three brokers in one process whose disks and links take no time. What `N`
//! more rounds cost, divided by `N`, is printed; set-up falls out. A round is one proposal for each group that is committed
//! everywhere.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use bytes::Bytes;
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::frame::{Content, Frame, PREFIX_BYTES, Prefix, decode};
use corelog_raft::*;

const ROUNDS: u64 = 500;

struct Case {
    name: &'static str,
    replicas: usize,
    groups: i32,
    batches: usize,
    what: &'static str,
}

const fn case(name: &'static str, replicas: usize, groups: i32, batches: usize, what: &'static str) -> Case {
    Case { name, replicas, groups, batches, what }
}

const CASES: &[Case] = &[
    case("one-1", 1, 1, 1, "a group of one replica, one batch of 16 KiB"),
    case("one-16", 1, 1, 16, "a group of one replica, 16 batches in one list"),
    case("three-1", 3, 1, 1, "a group of three replicas, all three brokers, one batch"),
    case("three-16", 3, 1, 16, "a group of three replicas, all three brokers, 16 batches in one list"),
    case("leader-1", 3, 1, 1, "of these, the leader's broker, one batch"),
    case("leader-16", 3, 1, 16, "of these, the leader's broker, 16 batches in one list"),
    case("leader-groups", 3, 16, 1, "the leader's broker, 16 groups of one batch each"),
];

fn group(partition: i32) -> GroupId {
    GroupId { topic: 1, partition }
}

#[derive(Default)]
struct Empty {
    voters: Vec<ReplicaId>,
}

impl Log for Empty {
    fn start(&self) -> LogStart {
        LogStart::default()
    }

    fn next_index(&self) -> RaftIndex {
        RaftIndex(0)
    }

    fn durable_index(&self) -> RaftIndex {
        RaftIndex(0)
    }

    fn commit_index(&self) -> RaftIndex {
        RaftIndex(0)
    }

    fn terms(&self) -> Vec<(RaftIndex, Term)> {
        Vec::new()
    }

    fn hard_state(&self) -> HardState {
        HardState::default()
    }

    fn membership(&self) -> (RaftIndex, Membership) {
        (RaftIndex(0), Membership::of_voters(&self.voters))
    }

    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)> {
        Vec::new()
    }
}

/// The last entries of a log, as a tail cache has them.
#[derive(Default)]
struct Tail(BTreeMap<GroupId, BTreeMap<RaftIndex, Entry>>);

impl Logs for Tail {
    fn entries(&mut self, group: GroupId, from: RaftIndex, to: RaftIndex, max: u64) -> Option<Vec<Entry>> {
        let mut bytes = 0;
        let entries = self.0[&group].range(from..to).map(|(_, entry)| entry).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.bytes.len() as u64;
            first || bytes <= max
        });
        Some(entries.cloned().collect())
    }
}

struct Broker {
    id: PeerId,
    driver: Driver,
    tail: Tail,
}

impl Broker {
    fn save(&mut self, now: Tick) {
        loop {
            let turns = self.driver.collect();
            if turns.is_empty() {
                return;
            }
            for turn in turns {
                turn.hard_state
                    .into_iter()
                    .for_each(|saved| self.driver.hard_state_durable(now, turn.group, saved));
                let Some((end, term)) = turn.append.last().map(|last| (last.index.next(), last.term)) else {
                    continue;
                };
                let tail = self.tail.0.entry(turn.group).or_default();
                tail.extend(turn.append.into_iter().map(|entry| (entry.index, entry)));
                while tail.len() > 64 {
                    tail.pop_first();
                }
                self.driver.durable(now, turn.group, end, term);
            }
        }
    }

    fn turn(&mut self, now: Tick, frames: &mut Vec<(PeerId, PeerId, Frame)>) {
        self.save(now);
        self.driver.send(&mut self.tail);
        for to in (0..3).map(PeerId).filter(|&to| to != self.id) {
            while let Some(frame) = self.driver.take_frame(to) {
                frames.push((self.id, to, frame));
            }
        }
    }

    fn receive(&mut self, now: Tick, from: PeerId, frame: &Frame) {
        let prefix: [u8; PREFIX_BYTES] = frame.head[..PREFIX_BYTES].try_into().expect("a prefix");
        let prefix = Prefix::parse(prefix).expect("a frame");
        // A socket fills this without being counted here.
        let body = match &frame.body[..] {
            [] => Bytes::new(),
            [one] => one.clone(),
            several => several.concat().into(),
        };
        let content: Content = decode(prefix, &frame.head[PREFIX_BYTES..], body).expect("a frame");
        self.driver.receive(now, from, content);
    }
}

/// What the leader's broker does is counted apart by this function's name.
#[inline(never)]
fn leader_side(broker: &mut Broker, now: Tick, inbox: &[(PeerId, Frame)], proposals: Proposals) -> Frames {
    let mut frames = Frames::new();
    for (group, batches) in proposals {
        broker.driver.propose(now, group, batches).expect("it leads");
    }
    inbox.iter().for_each(|(from, frame)| broker.receive(now, *from, frame));
    broker.turn(now, &mut frames);
    frames
}

type Proposals = Vec<(GroupId, Vec<Bytes>)>;
type Frames = Vec<(PeerId, PeerId, Frame)>;

fn cluster(replicas: usize, groups: i32) -> Vec<Broker> {
    let now = Tick(1);
    let brokers: Vec<_> = (0..replicas).map(|at| (ReplicaId(at as u64 + 1), PeerId(at as u64))).collect();
    let voters: Vec<_> = brokers.iter().map(|&(replica, _)| replica).collect();
    brokers
        .iter()
        .map(|&(id, broker)| {
            let mut driver = Driver::new(Timing::default(), Bounds::default(), now);
            for group in (0..groups).map(group) {
                let replica = Replica { group, id, peers: brokers.clone() };
                driver.open(now, replica, id.0, &Empty { voters: voters.clone() }).expect("an empty log");
            }
            for &(_, peer) in brokers.iter().filter(|&&(_, peer)| peer != broker) {
                driver.peer_connected(now, peer);
            }
            Broker { id: broker, driver, tail: Tail::default() }
        })
        .collect()
}

fn settle(brokers: &mut [Broker], now: Tick, leader: usize, mut proposals: Proposals) {
    let mut inbox: Vec<(PeerId, Frame)> = Vec::new();
    loop {
        let mut frames = leader_side(&mut brokers[leader], now, &inbox, std::mem::take(&mut proposals));
        for (from, to, frame) in std::mem::take(&mut frames) {
            let follower = &mut brokers[to.0 as usize];
            follower.receive(now, from, &frame);
        }
        for follower in brokers.iter_mut().filter(|broker| broker.id.0 as usize != leader) {
            follower.turn(now, &mut frames);
        }
        inbox = frames.into_iter().map(|(from, _, frame)| (from, frame)).collect();
        if inbox.is_empty() {
            return;
        }
    }
}

fn run(case: &Case, rounds: u64) {
    let &Case { replicas, groups, batches, .. } = case;
    let mut brokers = cluster(replicas, groups);
    let mut now = Tick(1);
    brokers.iter_mut().for_each(|broker| broker.save(now));
    if replicas > 1 {
        now = Tick(100);
        for group in (0..groups).map(group) {
            brokers[0].driver.campaign(now, group).expect("nobody leads");
        }
        settle(&mut brokers, now, 0, Vec::new());
    }
    let batch = Bytes::from(vec![7; 16 << 10]);
    for _ in 0..rounds {
        let proposals = (0..groups).map(|partition| (group(partition), vec![batch.clone(); batches]));
        settle(&mut brokers, now, 0, proposals.collect());
    }
    for group in (0..groups).map(group) {
        let group = brokers[0].driver.group(group).expect("it is open");
        assert_eq!(group.committed().0, 1 + rounds * batches as u64);
    }
}

fn counted(name: &str, rounds: u64) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    if name.starts_with("leader") {
        valgrind.arg("--toggle-collect=*leader_side*");
    }
    let program = std::env::current_exe().expect("this program");
    let output = valgrind.arg(program).arg(name).arg(rounds.to_string()).stdin(Stdio::null()).output();
    let output = output.expect("valgrind is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind's count");
    collected.1.trim().parse().expect("a number")
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [name, rounds] = &args[..] {
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        return run(case, rounds.parse().expect("a number"));
    }
    for &Case { name, groups, batches, what, .. } in CASES {
        let round = (counted(name, 2 * ROUNDS) - counted(name, ROUNDS)) / ROUNDS;
        let batches = groups as u64 * batches as u64;
        println!("{what}: {round} instructions a round, {} a batch", round / batches);
    }
}
