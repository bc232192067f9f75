//! The controllers of three brokers, with their links, replicas, logs and shards. They are killed, lose power, and lose each
//! other, while changes are asked for on all of them.
//!
//! What must hold: who was answered that a change is made has it in all images, in the end and in its own at once; a change is
//! made once; one that was refused is not made; all images are alike, and are what a start reads.

mod clients;
mod late;
mod wiped;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::sim::{Process, Sim};
use corelog_io::{CoreCtx, Queue, random_u64, sleep, spawn};
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::{Membership, ReplicaId};
use corelog_replicas::{Led as GroupLed, Opening, Owner, Replicas};
use corelog_storage::{CommitMode, LogConfig, LogId, Recovered, ShardStorage, StorageConfig, read_journals};
use corelog_wire::Uuid;

use self::clients::{Answers, ask, check};
use super::handle::Made;
use super::snapshot::tests::settings;
use super::*;
use crate::call::{self, CallSeats, Calls};
use crate::config::ConfigMap;
use crate::identity::{Belongs, Founder, Identity};
use crate::ids::{BrokerId, LeaderEpoch, ShardId};
use crate::leftovers::KEEP_ALL;
use crate::lifecycle::Stopping;
use crate::peer::{self, Incarnation, LinkSeat, Links, LinksConfig, PeerId};
use crate::replication::{Carrier, raft_peer};
use crate::shard::{Parts, Shard};

const BROKERS: usize = 3;
const PORT: u16 = 9191;
const MS: Duration = Duration::from_millis(1);
const LOG: LogId = LogId { topic: CONTROLLER_TOPIC, partition: 0 };

fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

struct World {
    machines: Vec<Process>,
    shards: Vec<usize>,
    lives: Cell<u64>,
    numbers: Cell<u64>,
    settling: Cell<bool>,
    answers: RefCell<Answers>,
    /// Of each broker.
    images: RefCell<BTreeMap<usize, Arc<Image>>>,
    segment_bytes: u64,
    /// The log of a broker began anew with a snapshot.
    begun: Cell<u64>,
    /// Segments that brokers were given in place of entries.
    taken: Cell<u64>,
    /// Of brokers that joined later: which directory, and which replica.
    joined: RefCell<BTreeMap<usize, (Uuid, ReplicaId)>>,
    /// What a broker is to have changed, and what came of it.
    orders: RefCell<BTreeMap<usize, Change>>,
    done: RefCell<BTreeMap<usize, Result<Made, ChangeError>>>,
    late: late::Late,
}

impl World {
    /// `shards`: of each broker.
    fn number(&self) -> u64 {
        self.numbers.replace(self.numbers.get() + 1)
    }

    fn address(&self, broker: usize) -> std::net::SocketAddr {
        (self.machines[broker].ip(), PORT).into()
    }

    fn founders(&self) -> Vec<Founder> {
        let founder = |broker: usize| Founder {
            node_id: id_of(broker).0,
            directory: Uuid([broker as u8 + 1; 16]),
            replica: ReplicaId(broker as u64 + 1),
            peer: crate::config::Endpoint { host: self.machines[broker].ip().to_string(), port: PORT },
        };
        (0..BROKERS).map(founder).collect()
    }

    fn identity(&self, broker: usize) -> Identity {
        let founders = self.founders();
        let (directory, belongs) = match self.joined.borrow().get(&broker) {
            Some((directory, replica)) => (*directory, Belongs::Joined { replica: *replica, founders: 3 }),
            None => (founders[broker].directory, Belongs::Founder(founders)),
        };
        let (cluster_id, node_id) = ("simulated-cluster-aaaa".into(), id_of(broker).0);
        Identity { cluster_id, node_id, directory, belongs }
    }

    /// `shards`: of each broker.
    fn new(sim: &Sim, segment_bytes: u64, mut shards: impl FnMut() -> usize) -> Rc<World> {
        Rc::new(World {
            machines: (0..BROKERS).map(|broker| sim.process(&format!("broker{broker}"))).collect(),
            shards: (0..BROKERS).map(|_| shards()).collect(),
            lives: Cell::new(0),
            numbers: Cell::new(1),
            settling: Cell::new(false),
            answers: RefCell::default(),
            images: RefCell::default(),
            segment_bytes,
            begun: Cell::new(0),
            taken: Cell::new(0),
            joined: RefCell::default(),
            orders: RefCell::default(),
            done: RefCell::default(),
            late: late::Late::default(),
        })
    }
}

fn id_of(broker: usize) -> BrokerId {
    BrokerId(broker as i32 + 1)
}

/// Of a shard: it is there once it is made.
#[derive(Default)]
struct Keeper {
    shard: OnceCell<Rc<Shard>>,
}

impl Owner for Keeper {
    fn led(&self, _: LogId, _: GroupLed) {
        if let Some(controller) = self.shard.get().and_then(|shard| shard.controller().ok()) {
            controller.led();
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
async fn storage(shard: usize) -> Rc<ShardStorage> {
    let config = StorageConfig {
        journal_file_bytes: 256 << 10,
        journal_files: 3,
        tail_cache_bytes: 1 << 20,
        group_bytes_max: 64 << 10,
        min_free_bytes: 1 << 20,
        ..StorageConfig::new(format!("/data{shard}"), 0, 1)
    };
    let found = read_journals(&config.data_dir, 0, 1).await.expect("the journals can be read");
    let parts = found.split(1, |_| 0);
    ShardStorage::open(config, Recovered::merge(parts)).await.expect("the storage opens")
}

async fn run(world: Rc<World>, broker: usize, core: CoreCtx, (links, calls): (LinkSeat, CallSeats)) {
    let storage = storage(core.core).await;
    let (calls, call_receiver, reply_senders, reply_receiver) = Calls::join(calls, core.core).await;
    let settings = Arc::new(settings());
    let mut config = settings.broker(&ConfigMap::new(), &ConfigMap::new()).expect("the defaults");
    config.metadata_bytes_between_snapshots = 10_000;
    let (config, identity) = (Arc::new(config), Arc::new(world.identity(broker)));
    let (id, stopping) = (ShardId(core.core), Rc::new(Stopping::default()));
    let shard = Shard::new(Parts {
        id,
        config,
        settings,
        identity,
        storage: storage.clone(),
        member: None,
        calls,
        stopping,
    });
    let _serving = call::start(&shard, call_receiver, reply_senders, reply_receiver);
    let carrier = Carrier::new();
    let keeper = Rc::new(Keeper::default());
    assert!(keeper.shard.set(shard.clone()).is_ok(), "once");
    let timing = (Timing::default(), Bounds::default());
    let replicas = Replicas::new(storage.clone(), carrier.clone(), keeper.clone(), timing);
    let _links = link(&world, broker, links, &carrier, &replicas).await;
    if id == CONTROLLER_SHARD {
        lead(&world, broker, &shard, &carrier, &replicas).await;
    }
    storage.settle_recovery();
    replicas.start();
    for _ in 0..2 {
        spawn(Queue::Control, ask(world.clone(), broker, shard.clone())).detach();
    }
    loop {
        sleep(MS * 5).await;
        if id == CONTROLLER_SHARD {
            world.images.borrow_mut().insert(broker, shard.image());
        }
    }
}

async fn link(
    world: &World,
    broker: usize,
    seat: LinkSeat,
    carrier: &Rc<Carrier>,
    replicas: &Rc<Replicas>,
) -> Rc<Links> {
    let config = LinksConfig {
        broker: id_of(broker),
        incarnation: Incarnation(world.lives.get()),
        cluster: Some("simulated-cluster-aaaa".into()),
        feature_level: 1,
        feature_level_required: 1,
        listen: Some(world.address(broker)),
        receive_bytes: 4 << 20,
        frame_bytes_max: 3 << 20,
    };
    let links = Rc::new(Links::start(config, seat, carrier.clone()).await.expect("the port is free"));
    carrier.set_links(&links);
    carrier.set_replicas(replicas);
    for other in (0..BROKERS).filter(|other| *other != broker) {
        links.set_address(id_of(other), Some(world.address(other)));
        if corelog_io::core() == CONTROLLER_SHARD.0 {
            links.want(PeerId { broker: id_of(other), shard: CONTROLLER_SHARD });
        }
    }
    links
}

/// The controller's shard.
async fn lead(
    world: &Rc<World>,
    broker: usize,
    shard: &Rc<Shard>,
    carrier: &Rc<Carrier>,
    replicas: &Rc<Replicas>,
) {
    let config = LogConfig { commit: CommitMode::Quorum, segment_bytes: world.segment_bytes, ..KEEP_ALL };
    let log = shard.storage.log(LOG, CONTROLLER_TOPIC_NAME, config);
    let founders = world.founders();
    let place = |founder: &Founder| {
        let peer = PeerId { broker: BrokerId(founder.node_id), shard: CONTROLLER_SHARD };
        (founder.replica, raft_peer(peer))
    };
    let voters: Vec<ReplicaId> = founders.iter().map(|founder| founder.replica).collect();
    let opening = Opening {
        id: world.joined.borrow().get(&broker).map_or(founders[broker].replica, |(_, replica)| *replica),
        founders: Membership::of_voters(&voters),
        places: founders.iter().map(place).collect(),
    };
    let replica = replicas.open(log.clone(), opening).await.expect("the log can be opened");
    let group = Group { replica, replicas: replicas.clone(), carrier: carrier.clone(), founders };
    let (settings, node_id) = (shard.settings.clone(), shard.identity.node_id);
    let loaded = Controller::load(log.clone(), Some(group), settings, node_id, &shard.config()).await;
    let (controller, _) = loaded.expect("the log is sound");
    let update = Arc::new(controller.update());
    shard.on_all(move |shard| async move { shard.install(&update).await }).await.expect("all are there");
    shard.set_controller(controller.start(shard));
    late::serve(world, shard, carrier);
    let (world, shard, replicas) = (world.clone(), shard.clone(), replicas.clone());
    spawn(Queue::Control, async move {
        register(&shard).await;
        let (mut start, mut taken) = (log.log_start_offset(), 0);
        loop {
            sleep(MS * 20).await;
            let now = (log.log_start_offset(), replicas.taken().segments);
            world.begun.set(world.begun.get() + u64::from(now.0 > start));
            world.taken.set(world.taken.get() + now.1 - taken);
            (start, taken) = now;
            let order = world.orders.borrow_mut().remove(&broker);
            if let Some(change) = order {
                let done = shard.change(change, Terms::MAKE).await;
                world.done.borrow_mut().insert(broker, done);
            }
        }
    })
    .detach();
}

async fn register(shard: &Rc<Shard>) {
    let mut broker = shard.registration();
    broker.peer = Some(Endpoint { host: "peer".into(), port: PORT });
    while shard.change(Change::RegisterBroker(broker.clone()), Terms::MAKE).await.is_err() {
        sleep(MS * 100).await;
    }
}

fn start(world: &Rc<World>, broker: usize) {
    world.lives.set(world.lives.get() + 1);
    let (shards, world) = (world.shards[broker], world.clone());
    let seats = peer::seats(shards).into_iter().zip(call::meshes(shards)).collect();
    let machine = world.machines[broker].clone();
    machine.start_with(seats, move |core, seats| run(world.clone(), broker, core, seats));
}

/// What is the same wherever it was read from.
fn alike(world: &World) -> Option<Image> {
    let images = world.images.borrow();
    let bare = |broker: usize| {
        let mut image = Image::clone(images.get(&broker)?);
        image.end_offset = 0;
        Some(image)
    };
    let first = bare(0)?;
    let all_there = first.brokers.len() == BROKERS && first.brokers.values().all(|broker| !broker.fenced);
    (all_there && (1..BROKERS).all(|broker| bare(broker).as_ref() == Some(&first))).then_some(first)
}

fn heal(sim: &Sim, world: &Rc<World>) {
    for (broker, machine) in world.machines.iter().enumerate() {
        world.machines[..broker].iter().for_each(|other| sim.heal(machine, other));
        if !machine.is_running() {
            start(world, broker);
        }
    }
}

fn settle(sim: &Sim, world: &Rc<World>) -> Image {
    heal(sim, world);
    let mut waited = 0;
    loop {
        sim.run_for(Duration::from_secs(1));
        if let Some(image) = alike(world) {
            return image;
        }
        waited += 1;
        assert!(waited < 60, "the images do not become alike");
    }
}

fn run_seed(seed: u64) -> Rc<World> {
    let sim = Sim::new(seed);
    let dice = |n: u64| sim.random_u64() % n.max(1);
    let segment_bytes = [64 << 10, KEEP_ALL.segment_bytes][dice(2) as usize];
    let world = World::new(&sim, segment_bytes, || 1 + dice(2) as usize);
    for _ in 0..4 + dice(4) {
        for (broker, machine) in world.machines.iter().enumerate() {
            if !machine.is_running() && dice(3) > 0 {
                start(&world, broker);
            }
        }
        sim.run_for(Duration::from_millis(500 + dice(3_000)));
        let (struck, other) = (dice(BROKERS as u64) as usize, dice(BROKERS as u64) as usize);
        let machine = &world.machines[struck];
        match dice(5) {
            0 if machine.is_running() => machine.kill(),
            1 if machine.is_running() => machine.crash(),
            2 if struck != other => sim.partition(machine, &world.machines[other]),
            3 if struck != other => sim.heal(machine, &world.machines[other]),
            _ => {}
        }
    }
    heal(&sim, &world);
    sim.run_for(Duration::from_secs(6));
    world.settling.set(true);
    // As long as any answer may take.
    sim.run_for(Duration::from_secs(35));
    let image = settle(&sim, &world);
    check(&world, &image);
    world.machines.iter().for_each(Process::kill);
    world.images.borrow_mut().clear();
    assert_eq!(settle(&sim, &world), image, "a start reads what there was");
    world
}

#[test]
fn all_brokers_come_to_one_image_and_what_is_answered_is_in_it() {
    let (first, count) = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => (seed, 1),
        None => (1, std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(6)),
    };
    let (mut made, mut begun, mut taken) = (0, 0, 0);
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| {
            let world = run_seed(seed);
            let made = world.answers.borrow().made;
            (made, world.begun.get(), world.taken.get())
        });
        let of_seed = result.unwrap_or_else(|panic| {
            eprintln!("FAILED: seed {seed}");
            std::panic::resume_unwind(panic)
        });
        (made, begun, taken) = (made + of_seed.0, begun + of_seed.1, taken + of_seed.2);
    }
    eprintln!("{made} changes, logs began anew {begun} times, {taken} segments were taken in");
    assert!(made > 50 * count as usize && begun > 4 * count);
    assert!(taken > 0 || count < 6);
}
