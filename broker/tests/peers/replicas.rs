//! Logs replicated by production code from the socket to the disk: brokers of different numbers of shards, each with its
//! storage, its replicas and its links. They are killed, lose power, and lose each other.
//!
//! What must hold: what was acknowledged is in each replica's log in the end, where it was said to be, and all are alike.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_broker::peer::{self, BrokerId, Incarnation, LinkSeat, Links, LinksConfig, PeerId, ShardId};
use corelog_broker::replication::{Carrier, raft_peer};
use corelog_io::sim::{Process, Sim};
use corelog_io::{Queue, random_u64, sleep, spawn, timeout};
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::{Membership, ReplicaId};
use corelog_replicas::{Led, Opening, Owner, Replica, Replicas, TransferLimits};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, CommitMode, EntriesError, Entry, Log, LogConfig, LogId, RaftIndex,
    Recovered, ShardStorage, StorageConfig, StorageError, read_journals,
};
use corelog_wire::Uuid;
use corelog_wire::records::{BatchBuilder, BatchHeader, BatchOptions, Producer};

use crate::for_seeds;
use crate::world::{CLUSTER, MS, PORT};

pub const BROKERS: usize = 3;

/// How a world is set up.
pub struct Plan {
    pub segment_bytes: u64,
    /// Of the largest batch.
    pub batch_bytes: u64,
    /// Logs lose their beginnings, each broker's as it comes.
    pub retains: bool,
    pub limits: TransferLimits,
}

impl Plan {
    fn storage(&self, shard: usize) -> StorageConfig {
        StorageConfig {
            journal_file_bytes: (256 << 10).max(self.batch_bytes * 4),
            journal_files: 3,
            tail_cache_bytes: 1 << 20,
            group_bytes_max: 64 << 10,
            min_free_bytes: 1 << 20,
            ..StorageConfig::new(format!("/data{shard}"), 0, 1)
        }
    }

    fn log(&self) -> LogConfig {
        LogConfig { segment_bytes: self.segment_bytes, commit: CommitMode::Quorum, ..LogConfig::default() }
    }
}

struct Acknowledged {
    index: RaftIndex,
    term: i32,
    number: u64,
}

/// Where a replica's log is committed, where it ends, and whether it serves.
type End = (RaftIndex, RaftIndex, bool);

pub struct Shared {
    plan: Plan,
    pub machines: Vec<Process>,
    shards: Vec<usize>,
    partitions: i32,
    lives: Cell<u64>,
    batches: Cell<u64>,
    settling: Cell<bool>,
    acknowledged: RefCell<BTreeMap<i32, Vec<Acknowledged>>>,
    leaders: RefCell<BTreeMap<(LogId, i32), usize>>,
    /// Of each broker's partitions.
    ends: RefCell<BTreeMap<(usize, i32), End>>,
    /// Segments that each broker has taken in, in all its lives.
    pub taken: RefCell<[u64; BROKERS]>,
}

fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

fn log_id(partition: i32) -> LogId {
    LogId { topic: Uuid([7; 16]), partition }
}

impl Shared {
    /// Where a broker has a partition: its own affair.
    fn place(&self, broker: usize, partition: i32) -> PeerId {
        let shard = (partition as usize + broker) % self.shards[broker];
        PeerId { broker: BrokerId(broker as i32 + 1), shard: ShardId(shard) }
    }

    fn partitions_of(&self, broker: usize, shard: usize) -> impl Iterator<Item = i32> + use<'_> {
        (0..self.partitions).filter(move |partition| self.place(broker, *partition).shard.0 == shard)
    }

    fn address(&self, broker: usize) -> std::net::SocketAddr {
        (self.machines[broker].ip(), PORT).into()
    }
}

fn replica_id(broker: usize) -> ReplicaId {
    ReplicaId(broker as u64 + 1)
}

struct Keeper {
    shared: Rc<Shared>,
    broker: usize,
}

impl Owner for Keeper {
    fn led(&self, log: LogId, led: Led) {
        if led.serves {
            let mut leaders = self.shared.leaders.borrow_mut();
            let first = *leaders.entry((log, led.term.0)).or_insert(self.broker);
            assert_eq!(first, self.broker, "{log}: two leaders of term {}", led.term);
        }
    }

    fn stopped(&self, log: LogId) {
        panic!("{log} has stopped on a sound disk");
    }

    fn removed(&self, log: LogId) {
        panic!("nobody removed {log}");
    }
}

/// Each shard by itself: how shards share what they find in journals is the server's matter.
async fn storage(config: StorageConfig) -> Rc<ShardStorage> {
    let found = read_journals(&config.data_dir, 0, 1).await.expect("the journals can be read");
    let parts = found.split(1, |_| 0);
    ShardStorage::open(config, Recovered::merge(parts)).await.expect("the storage opens")
}

async fn run(shared: Rc<Shared>, broker: usize, seat: LinkSeat) {
    let shard = corelog_io::core();
    let storage = storage(shared.plan.storage(shard)).await;
    let carrier = Carrier::new();
    let owner = Rc::new(Keeper { shared: shared.clone(), broker });
    let timing = (Timing::default(), Bounds::default());
    let replicas = Replicas::new(storage.clone(), carrier.clone(), owner, timing);
    replicas.limit_transfers(shared.plan.limits);
    let config = LinksConfig {
        broker: BrokerId(broker as i32 + 1),
        incarnation: Incarnation(shared.lives.get()),
        cluster: Some(CLUSTER.into()),
        feature_level: 1,
        feature_level_required: 1,
        listen: Some(shared.address(broker)),
        receive_bytes: 4 << 20,
        frame_bytes_max: 3 << 20,
    };
    let links = Links::start(config, seat, carrier.clone()).await.expect("the port is free");
    let links = Rc::new(links);
    carrier.set_replicas(&replicas);
    carrier.set_links(&links);
    for other in (0..BROKERS).filter(|other| *other != broker) {
        links.set_address(BrokerId(other as i32 + 1), Some(shared.address(other)));
    }
    let mut opened = Vec::new();
    for partition in shared.partitions_of(broker, shard) {
        let log = storage.log(log_id(partition), "topic", shared.plan.log());
        let places = (0..BROKERS).map(|at| (replica_id(at), raft_peer(shared.place(at, partition))));
        let opening = Opening {
            id: replica_id(broker),
            founders: Membership::of_voters(&(0..BROKERS).map(replica_id).collect::<Vec<_>>()),
            places: places.collect(),
        };
        opened.push((partition, replicas.open(log, opening).await.expect("the log can be opened")));
        for other in (0..BROKERS).filter(|other| *other != broker) {
            links.want(shared.place(other, partition));
        }
    }
    storage.settle_recovery();
    replicas.start();
    for (partition, replica) in &opened {
        let client = produce(shared.clone(), replicas.clone(), replica.clone(), *partition);
        spawn(Queue::Produce, client).detach();
    }
    let mut taken = 0;
    loop {
        sleep(MS * 5).await;
        for (partition, replica) in &opened {
            let log = replica.log();
            let end = (log.commit_index(), log.next_index(), replica.led().serves);
            shared.ends.borrow_mut().insert((broker, *partition), end);
            if shared.plan.retains && !shared.settling.get() && below(80) == 0 {
                retain(log).await;
            }
        }
        if shared.plan.retains && below(100) == 0 {
            settled(storage.empty_journal().await);
        }
        let segments = replicas.taken().segments;
        shared.taken.borrow_mut()[broker] += segments - std::mem::replace(&mut taken, segments);
    }
}

/// Takes away what is older than some record.
async fn retain(log: &Log) {
    let kept = log.high_watermark() - log.log_start_offset();
    let before = log.log_start_offset() + below(kept as u64 + 1) as i64;
    // Of what a transfer takes from under it nothing is there.
    if log.delete_records(before).await.is_ok() {
        settled(log.apply_retention(0).await);
    }
}

/// A log that begins anew is left alone until that is durable.
fn settled<T>(outcome: Result<T, StorageError>) {
    let later = |error: &StorageError| matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::WouldBlock);
    assert!(outcome.as_ref().err().is_none_or(later), "the disk is sound: {:?}", outcome.err());
}

/// Appends where this replica leads, and notes what is acknowledged.
async fn produce(shared: Rc<Shared>, replicas: Rc<Replicas>, replica: Rc<Replica>, partition: i32) {
    let log = replica.log().clone();
    while !shared.settling.get() {
        sleep(MS * below(60) as u32).await;
        let led = replica.led();
        if !led.serves || !replicas.may_lead(log.id()) {
            continue;
        }
        let number = shared.batches.get();
        shared.batches.set(number + 1);
        let batch = AppendBatch {
            bytes: batch(number, shared.plan.batch_bytes),
            kind: BatchKind::Coordinator,
            leader_epoch: led.term.0,
        };
        let appended = match log.append(batch).await {
            Ok(appended) => appended,
            Err(AppendError::NotTaken(_) | AppendError::StaleLeaderEpoch { .. }) => continue,
            Err(error) => panic!("the disk is sound: {error}"),
        };
        let (index, term) = (appended.index.expect("it is no retry"), led.term.0);
        let (committed, shared) = (replica.committed(index, term), shared.clone());
        spawn(Queue::Produce, async move {
            if let Ok(Ok(())) = timeout(Duration::from_secs(20), committed).await {
                let mut acknowledged = shared.acknowledged.borrow_mut();
                acknowledged.entry(partition).or_default().push(Acknowledged { index, term, number });
            }
        })
        .detach();
    }
}

fn batch(number: u64, bytes_max: u64) -> Bytes {
    let producer = Some(Producer { id: number as i64, epoch: 0, base_sequence: 0 });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    builder.append(5, None, Some(&vec![7; below(bytes_max) as usize]), &[]).expect("the record fits");
    builder.build().expect("the batch can be built")
}

pub fn start(shared: &Rc<Shared>, broker: usize) {
    shared.lives.set(shared.lives.get() + 1);
    let (shards, world) = (shared.shards[broker], shared.clone());
    shared.machines[broker].start_with(peer::seats(shards), move |_, seat| run(world.clone(), broker, seat));
}

fn entries_of(sim: &Sim, shared: &Rc<Shared>, broker: usize, partition: i32) -> Vec<Entry> {
    let shard = shared.place(broker, partition).shard.0;
    let (found, done) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
    let (out, flag, world) = (found.clone(), done.clone(), shared.clone());
    shared.machines[broker].start(1, move |_| {
        let (out, flag, world) = (out.clone(), flag.clone(), world.clone());
        async move {
            let storage = storage(world.plan.storage(shard)).await;
            let log = storage.log(log_id(partition), "topic", world.plan.log());
            let mut all: Vec<Entry> = Vec::new();
            let mut at = log.first_index();
            while at < log.next_index() {
                match log.entries(at, log.next_index(), 50_000).await {
                    Ok(read) => all.extend(read),
                    // What is below the log's start goes while it is read.
                    Err(EntriesError::Compacted { first, .. }) => all.retain(|entry| entry.index >= first),
                    Err(error) => panic!("the disk is sound: {error}"),
                }
                at = all.last().map_or(log.first_index(), |last| last.index.next());
            }
            *out.borrow_mut() = all;
            flag.set(true);
        }
    });
    while !done.get() {
        assert!(sim.run_steps(1) > 0, "stuck");
    }
    shared.machines[broker].kill();
    found.take()
}

fn alike(shared: &Shared) -> bool {
    let ends = shared.ends.borrow();
    (0..shared.partitions).all(|partition| {
        let of: Vec<_> = (0..BROKERS).filter_map(|broker| ends.get(&(broker, partition))).collect();
        of.len() == BROKERS
            && of.iter().all(|end| end.0 == end.1 && end.1 == of[0].1)
            && of.iter().filter(|end| end.2).count() == 1
    })
}

/// What all still have is the same, and what was acknowledged is there.
fn check_end(sim: &Sim, shared: &Rc<Shared>) {
    shared.machines.iter().for_each(Process::kill);
    for partition in 0..shared.partitions {
        let mut all: Vec<_> = (0..BROKERS).map(|broker| entries_of(sim, shared, broker, partition)).collect();
        let first_of = |entries: &Vec<Entry>| entries.first().map_or(RaftIndex(0), |first| first.index);
        let first = all.iter().map(first_of).max().expect("there are brokers");
        assert!(shared.plan.retains || first == RaftIndex(0), "partition {partition}: its beginning is gone");
        all.iter_mut().for_each(|entries| entries.retain(|entry| entry.index >= first));
        assert!(all.iter().all(|entries| entries == &all[0]), "partition {partition}: replicas differ");
        for one in shared.acknowledged.borrow().get(&partition).into_iter().flatten() {
            let Some(at) = one.index.0.checked_sub(first.0) else { continue };
            let entry = &all[0][at as usize];
            let header = BatchHeader::parse(&entry.bytes).expect("a batch");
            assert_eq!((entry.term, header.producer_id), (one.term, one.number as i64), "{partition}");
        }
    }
}

pub fn world(sim: &Sim, plan: Plan, partitions: i32) -> Rc<Shared> {
    Rc::new(Shared {
        plan,
        machines: (0..BROKERS).map(|broker| sim.process(&format!("broker{broker}"))).collect(),
        shards: (0..BROKERS).map(|_| 1 + (sim.random_u64() % 3) as usize).collect(),
        partitions,
        lives: Cell::new(0),
        batches: Cell::new(1),
        settling: Cell::new(false),
        acknowledged: RefCell::default(),
        leaders: RefCell::default(),
        ends: RefCell::default(),
        taken: RefCell::default(),
    })
}

/// Nothing fails any more: all become alike. How many batches were acknowledged.
pub fn settle(sim: &Sim, shared: &Rc<Shared>) -> usize {
    for (broker, machine) in shared.machines.iter().enumerate() {
        shared.machines[..broker].iter().for_each(|other| sim.heal(machine, other));
        if !machine.is_running() {
            start(shared, broker);
        }
    }
    sim.run_for(Duration::from_secs(6));
    shared.settling.set(true);
    sim.run_for(Duration::from_secs(1));
    let mut waited = 0;
    while !alike(shared) {
        assert!(waited < 60, "replicas don't become alike: {:?}", shared.ends.borrow());
        sim.run_for(Duration::from_secs(1));
        waited += 1;
    }
    check_end(sim, shared);
    shared.acknowledged.borrow().values().map(Vec::len).sum()
}

fn run_seed(seed: u64) -> usize {
    let sim = Sim::new(seed);
    let dice = |n: u64| sim.random_u64() % n.max(1);
    let limits = TransferLimits::default();
    let plan = Plan { segment_bytes: 64 << 10, batch_bytes: 3_000, retains: false, limits };
    let shared = world(&sim, plan, 1 + dice(5) as i32);
    for _ in 0..4 + dice(4) {
        for (broker, machine) in shared.machines.iter().enumerate() {
            if !machine.is_running() && dice(3) > 0 {
                start(&shared, broker);
            }
        }
        sim.run_for(Duration::from_millis(500 + dice(3_000)));
        let (struck, other) = (dice(BROKERS as u64) as usize, dice(BROKERS as u64) as usize);
        let machine = &shared.machines[struck];
        match dice(5) {
            0 if machine.is_running() => machine.kill(),
            1 if machine.is_running() => machine.crash(),
            2 if struck != other => sim.partition(machine, &shared.machines[other]),
            3 if struck != other => sim.heal(machine, &shared.machines[other]),
            _ => {}
        }
    }
    settle(&sim, &shared)
}

#[test]
fn what_is_acknowledged_is_on_all_brokers() {
    let batches = Cell::new(0);
    for_seeds(6, |seed| batches.set(batches.get() + run_seed(seed)));
    assert!(batches.get() > 50, "{} batches were acknowledged", batches.get());
}
