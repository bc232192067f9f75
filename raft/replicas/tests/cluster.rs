//! Three or five processes, each with one core, their logs on simulated disks, and the groups of these driven by the code
//! that drives them in a broker. They crash, lose power, and lose each other, at any moment.
//!
//! What must hold: what was acknowledged is there, in its place, on each replica; a leader that serves knows all that was
//! acknowledged before; in the end all replicas are alike, to the byte.
//!
//! `CORELOG_SIM_SEEDS` says how many seeds run (from `CORELOG_SIM_FIRST_SEED`). A failure names its seed.

mod network;
#[path = "../../../storage/tests/world/mod.rs"]
mod world;

use bytes::Bytes;
use corelog_io::sim::{Process, Sim};
use corelog_io::{Queue, random_u64, sleep, spawn, timeout};
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::{Membership, PeerId, ReplicaId};
use corelog_replicas::{Led, Opening, Owner, Replica, Replicas};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, CommitMode, Entry, Log, LogConfig, LogId, RaftIndex,
};
use network::{Node, Wires};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use world::{log_id, open_as, produced};

const TURN: Duration = Duration::from_millis(1);

/// A batch that was acknowledged.
struct Acknowledged {
    index: RaftIndex,
    term: i32,
    number: u64,
}

/// What all processes and the test share.
struct Shared {
    wires: Rc<Wires>,
    nodes: usize,
    groups: u8,
    acknowledged: RefCell<BTreeMap<u8, Vec<Acknowledged>>>,
    leaders: RefCell<BTreeMap<(LogId, i32), usize>>,
    batches: Cell<u64>,
    settling: Cell<bool>,
    /// What each node's replicas are: commit index, end, whether it serves.
    ends: RefCell<BTreeMap<(usize, u8), (RaftIndex, RaftIndex, bool)>>,
}

fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

fn replica_id(node: usize) -> ReplicaId {
    ReplicaId(node as u64 + 1)
}

struct Keeper {
    shared: Rc<Shared>,
    node: usize,
}

impl Owner for Keeper {
    fn led(&self, log: LogId, led: Led) {
        if led.serves {
            let mut leaders = self.shared.leaders.borrow_mut();
            let first = *leaders.entry((log, led.term.0)).or_insert(self.node);
            assert_eq!(first, self.node, "{log}: two leaders of term {}", led.term);
        }
    }

    fn removed(&self, log: LogId) {
        panic!("nobody removed {log}");
    }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, commit: CommitMode::Quorum, ..LogConfig::default() }
}

async fn broker(shared: Rc<Shared>, node: usize) {
    let storage = open_as(world::config(0, 1)).await;
    let wires = Rc::new(Node::new(shared.wires.clone(), node));
    let owner = Rc::new(Keeper { shared: shared.clone(), node });
    let replicas =
        Replicas::new(storage.clone(), wires.clone(), owner, (Timing::default(), Bounds::default()));
    let mut opened = Vec::new();
    for group in 1..=shared.groups {
        let log = storage.log(log_id(group), "topic", config());
        assert!(log.refused().is_none(), "{:?}", log.refused());
        let opening = Opening {
            id: replica_id(node),
            founders: Membership::of_voters(&(0..shared.nodes).map(replica_id).collect::<Vec<_>>()),
            places: (0..shared.nodes).map(|node| (replica_id(node), PeerId(node as u64))).collect(),
        };
        opened.push(replicas.open(log, opening).await.expect("the log can be opened"));
    }
    storage.settle_recovery();
    replicas.start();
    wires.start(&replicas);
    for (group, replica) in (1..).zip(&opened) {
        for _ in 0..2 {
            let client = produce(shared.clone(), replicas.clone(), replica.clone(), group);
            spawn(Queue::Produce, client).detach();
        }
    }
    loop {
        sleep(TURN * 5).await;
        if below(100) == 0 {
            storage.empty_journal().await.expect("the disk is sound");
        }
        for (group, replica) in (1..).zip(&opened) {
            let log = replica.log();
            let end = (log.commit_index(), log.next_index(), replica.led().serves);
            shared.ends.borrow_mut().insert((node, group), end);
        }
    }
}

/// Appends wherever this replica leads, and notes what is acknowledged.
async fn produce(shared: Rc<Shared>, replicas: Rc<Replicas>, replica: Rc<Replica>, group: u8) {
    let log = replica.log().clone();
    while !shared.settling.get() {
        sleep(TURN * below(40) as u32).await;
        let led = replica.led();
        if !led.serves || !replicas.may_lead(log.id()) {
            continue;
        }
        {
            let acknowledged = shared.acknowledged.borrow();
            let last = acknowledged.get(&group).and_then(|all| all.iter().map(|one| one.index).max());
            let reads = log.commit_index();
            assert!(last.is_none_or(|last| last < reads), "group {group} serves up to {reads} of {last:?}");
        }
        for _ in 0..1 + below(4) {
            append(&shared, &replica, &log, group, led).await;
        }
    }
}

async fn append(shared: &Rc<Shared>, replica: &Rc<Replica>, log: &Log, group: u8, led: Led) {
    let number = shared.batches.get();
    shared.batches.set(number + 1);
    let mut value = number.to_be_bytes().to_vec();
    value.resize(8 + below(2_000) as usize, 7);
    let batch = AppendBatch {
        bytes: produced(&[&value], 5, number as i64, 0, 0),
        kind: BatchKind::Coordinator,
        leader_epoch: led.term.0,
    };
    let appended = match log.append(batch).await {
        Ok(appended) => appended,
        Err(
            AppendError::NotTaken(_) | AppendError::StaleLeaderEpoch { .. } | AppendError::NoQuorum { .. },
        ) => {
            return;
        }
        Err(error) => panic!("the disk is sound: {error}"),
    };
    let (index, term) = (appended.index.expect("it is no retry"), led.term.0);
    let committed = replica.committed(index, term);
    let shared = shared.clone();
    spawn(Queue::Produce, async move {
        if let Ok(Ok(())) = timeout(Duration::from_secs(20), committed).await {
            let mut acknowledged = shared.acknowledged.borrow_mut();
            acknowledged.entry(group).or_default().push(Acknowledged { index, term, number });
        }
    })
    .detach();
}

/// All entries that a node's log has, read in a life of its own.
fn entries_of(sim: &Sim, machine: &Process, group: u8) -> Vec<Entry> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let out = found.clone();
    world::run(sim, machine, async move {
        let storage = open_as(world::config(0, 1)).await;
        let log = storage.log(log_id(group), "topic", config());
        let (mut at, mut all) = (log.first_index(), Vec::new());
        while at < log.next_index() {
            all.extend(log.entries(at, log.next_index(), 50_000).await.expect("the disk is sound"));
            at = all.last().map_or(at, |last: &Entry| last.index.next());
        }
        *out.borrow_mut() = all;
    });
    machine.kill();
    found.take()
}

fn number_of(batch: &Bytes) -> Option<u64> {
    let header = corelog_wire::records::BatchHeader::parse(batch).expect("a batch");
    (!header.is_internal()).then_some(header.producer_id as u64)
}

struct Name(u64);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: seed {}", self.0);
        }
    }
}

fn start(machine: &Process, shared: &Rc<Shared>, node: usize) {
    let shared = shared.clone();
    shared.wires.restarted(node);
    machine.start(1, move |_| broker(shared.clone(), node));
}

/// How many batches were acknowledged, in how many terms.
fn run_seed(seed: u64) -> (usize, usize) {
    let _name = Name(seed);
    let sim = Sim::new(seed);
    let dice = |n: u64| sim.random_u64() % n.max(1);
    let nodes = if dice(3) == 0 { 5 } else { 3 };
    let machines: Vec<Process> = (0..nodes).map(|node| sim.process(&format!("node{node}"))).collect();
    let shared = Rc::new(Shared {
        wires: Rc::new(Wires::new(nodes)),
        nodes,
        groups: 1 + dice(3) as u8,
        acknowledged: RefCell::default(),
        leaders: RefCell::default(),
        batches: Cell::new(1),
        settling: Cell::new(false),
        ends: RefCell::default(),
    });
    for _ in 0..4 + dice(6) {
        for (node, machine) in machines.iter().enumerate() {
            if !machine.is_running() && dice(3) > 0 {
                start(machine, &shared, node);
            }
        }
        sim.run_for(Duration::from_millis(200 + dice(3_000)));
        let struck = dice(nodes as u64) as usize;
        match dice(5) {
            0 if machines[struck].is_running() => machines[struck].kill(),
            1 if machines[struck].is_running() => machines[struck].crash(),
            2 => shared.wires.cut(struck, dice(nodes as u64) as usize),
            3 => shared.wires.isolate(struck),
            _ => shared.wires.heal(),
        }
    }
    shared.wires.heal();
    for (node, machine) in machines.iter().enumerate() {
        if !machine.is_running() {
            start(machine, &shared, node);
        }
    }
    sim.run_for(Duration::from_secs(8));
    shared.settling.set(true);
    // Who appends sees it.
    sim.run_for(Duration::from_secs(1));
    let mut waited = 0;
    while !alike(&shared) {
        assert!(waited < 60, "replicas don't become alike: {:?}", shared.ends.borrow());
        sim.run_for(Duration::from_secs(1));
        waited += 1;
    }
    check_end(&sim, &machines, &shared);
    let acknowledged: usize = shared.acknowledged.borrow().values().map(Vec::len).sum();
    (acknowledged, shared.leaders.borrow().len())
}

fn alike(shared: &Shared) -> bool {
    let ends = shared.ends.borrow();
    (1..=shared.groups).all(|group| {
        let of: Vec<_> = (0..shared.nodes).filter_map(|node| ends.get(&(node, group))).collect();
        let (committed, next, _) = of[0];
        of.len() == shared.nodes
            && committed == next
            && of.iter().all(|end| (end.0, end.1) == (*committed, *next))
            && of.iter().filter(|end| end.2).count() == 1
    })
}

fn check_end(sim: &Sim, machines: &[Process], shared: &Shared) {
    machines.iter().for_each(Process::kill);
    for group in 1..=shared.groups {
        let all: Vec<Vec<Entry>> = machines.iter().map(|machine| entries_of(sim, machine, group)).collect();
        for (node, entries) in all.iter().enumerate() {
            if let Some(at) =
                (0..entries.len().max(all[0].len())).find(|&at| entries.get(at) != all[0].get(at))
            {
                let describe = |all: &[Entry]| all.get(at).map(|e| (e.index, e.term, e.bytes.slice(..61)));
                panic!(
                    "group {group}: {} entries on node {node}, {} on node 0; differ at {at}: {:?}, {:?}",
                    entries.len(),
                    all[0].len(),
                    describe(entries),
                    describe(&all[0])
                );
            }
        }
        let first = all[0].first().map_or(RaftIndex(0), |entry| entry.index);
        for one in shared.acknowledged.borrow().get(&group).into_iter().flatten() {
            let Some(at) = one.index.0.checked_sub(first.0) else { continue };
            let entry = all[0]
                .get(at as usize)
                .unwrap_or_else(|| panic!("group {group}: batch {} at {} is lost", one.number, one.index));
            assert_eq!((entry.term, number_of(&entry.bytes)), (one.term, Some(one.number)), "group {group}");
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("it is a number"))
}

#[test]
fn what_is_acknowledged_is_there() {
    let first = setting("CORELOG_SIM_FIRST_SEED", 1);
    let (mut batches, mut terms) = (0, 0);
    let seeds = setting("CORELOG_SIM_SEEDS", 20);
    for seed in first..first + seeds {
        let (acknowledged, led) = run_seed(seed);
        batches += acknowledged;
        terms += led;
    }
    println!("{batches} batches acknowledged, {terms} terms");
    assert!(seeds < 10 || (batches > 500 && terms > 20), "{batches} batches acknowledged, {terms} terms");
}
