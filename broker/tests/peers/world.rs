//! Several brokers in one simulated world, each with nothing but its links.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::peer::{self, BrokerId, Incarnation, LinkSeat, Links, LinksConfig, PeerId, ShardId};
use corelog_io::sim::{Process, Sim};
use corelog_io::sync::oneshot;
use corelog_io::{Queue, now, random_u64, sleep, spawn};
use futures_util::future::LocalBoxFuture;

use crate::shard::{Traveller, call, peers_of};

pub const PORT: u16 = 9191;
pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const CLUSTER: &str = "simulated-cluster-aaaa";

/// A machine with a broker on it, as the world knows it.
pub struct Broker {
    pub id: BrokerId,
    pub machine: Process,
    lives: Cell<u64>,
    /// None: it is down.
    pub shards: Cell<Option<usize>>,
    pub travellers: RefCell<Vec<Rc<Traveller>>>,
    /// For a shard.
    orders: RefCell<Vec<(usize, Order)>>,
}

/// What a test has a shard do.
type Order = Box<dyn FnOnce(Rc<Links>, Rc<Traveller>) -> LocalBoxFuture<'static, ()>>;

type Configure = Box<dyn Fn(usize, &mut LinksConfig)>;

/// What all brokers would learn of a controller.
pub struct World {
    pub sim: Sim,
    pub brokers: Vec<Broker>,
    /// Brokers to which nobody is to have links.
    pub unwanted: RefCell<BTreeSet<BrokerId>>,
    /// Else links carry nothing but one frame each way.
    pub has_frames: Cell<bool>,
    /// Nothing that was received is let go of.
    pub keeps_all: Cell<bool>,
    /// Shards call each other.
    pub has_calls: Cell<bool>,
    /// What a broker's config has of its own.
    pub configure: RefCell<Configure>,
}

impl World {
    /// Brokers of these numbers of shards; they are not started.
    pub fn new(sim: &Sim, brokers: usize) -> Rc<World> {
        let broker = |number: usize| Broker {
            id: BrokerId(number as i32 + 1),
            machine: sim.process(&format!("broker {}", number + 1)),
            lives: Cell::new(0),
            shards: Cell::new(None),
            travellers: RefCell::default(),
            orders: RefCell::default(),
        };
        Rc::new(World {
            sim: sim.clone(),
            brokers: (0..brokers).map(broker).collect(),
            unwanted: RefCell::default(),
            has_frames: Cell::new(true),
            keeps_all: Cell::new(false),
            has_calls: Cell::new(true),
            configure: RefCell::new(Box::new(|_, _| {})),
        })
    }

    pub fn address(&self, broker: usize) -> SocketAddr {
        SocketAddr::new(self.brokers[broker].machine.ip(), PORT)
    }

    pub fn config(&self, broker: usize) -> LinksConfig {
        let Broker { id, lives, .. } = &self.brokers[broker];
        let mut config = LinksConfig {
            broker: *id,
            incarnation: Incarnation(lives.get()),
            cluster: Some(CLUSTER.into()),
            feature_level: 1,
            feature_level_required: 1,
            listen: Some(self.address(broker)),
            receive_bytes: 4 << 20,
            frame_bytes_max: 3 << 20,
        };
        self.configure.borrow()(broker, &mut config);
        config
    }

    /// Starts a broker with so many shards, in a new life.
    pub fn start(self: &Rc<World>, number: usize, shards: usize) {
        let broker = &self.brokers[number];
        broker.lives.set(broker.lives.get() + 1);
        broker.shards.set(Some(shards));
        let config = self.config(number);
        let travellers: Vec<_> = (0..shards).map(|_| Traveller::new(config.incarnation)).collect();
        broker.travellers.replace(travellers.clone());
        let world = Rc::downgrade(self);
        let seeds: Vec<_> = peer::seats(shards).into_iter().zip(travellers).collect();
        broker.machine.start_with(seeds, move |_, (seat, traveller)| {
            let (world, config) = (world.upgrade().expect("the world is there"), config.clone());
            run(world, number, config, seat, traveller)
        });
    }

    /// What `work` comes to on a shard.
    pub async fn on<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        broker: usize,
        shard: usize,
        work: impl FnOnce(Rc<Links>, Rc<Traveller>) -> F + 'static,
    ) -> T {
        let (done, result) = oneshot();
        let order: Order = Box::new(move |links, traveller| {
            Box::pin(async move {
                let _ = done.send(work(links, traveller).await);
            })
        });
        self.brokers[broker].orders.borrow_mut().push((shard, order));
        result.await.expect("the broker goes on")
    }

    pub fn kill(&self, number: usize) {
        self.brokers[number].shards.set(None);
        self.brokers[number].machine.kill();
    }

    pub fn crash(&self, number: usize) {
        self.brokers[number].shards.set(None);
        self.brokers[number].machine.crash();
    }

    /// The ends that a broker is to have links with.
    pub fn wanted_by(&self, number: usize) -> BTreeSet<PeerId> {
        let unwanted = self.unwanted.borrow();
        let others = self.brokers.iter().filter(|other| other.id != self.brokers[number].id);
        others
            .filter(|other| !unwanted.contains(&other.id))
            .flat_map(|other| peers_of(other.id, other.shards.get().unwrap_or(0)))
            .collect()
    }

    pub fn peer(&self, broker: usize, shard: usize) -> PeerId {
        PeerId { broker: self.brokers[broker].id, shard: ShardId(shard) }
    }

    /// Whether each pair of ends is connected, in its present life, and has had `frames` of the other in this session.
    pub fn all_have(&self, frames: u64) -> bool {
        let up = |number: &usize| self.brokers[*number].shards.get().is_some();
        (0..self.brokers.len()).filter(up).all(|number| {
            let travellers = self.brokers[number].travellers.borrow();
            travellers.iter().all(|traveller| {
                self.wanted_by(number).into_iter().all(|peer| {
                    let life = self.brokers[peer.broker.0 as usize - 1].lives.get();
                    traveller.connected_to(peer) == Some(life)
                        && traveller.received(peer).is_some_and(|received| received >= frames)
                })
            })
        })
    }

    /// Drives the world until all have this of each other.
    pub async fn all_get(&self, frames: u64, limit: Duration) {
        let until = now() + limit;
        while !self.all_have(frames) {
            assert!(now() < until, "not all are connected after {limit:?}: {}", self.describe());
            sleep(MS * 5).await;
        }
    }

    /// A link and a line each way for each pair of shards, the port, and some that come and go.
    pub fn descriptors_max(&self) -> usize {
        let shards: Vec<usize> = self.brokers.iter().map(|broker| broker.shards.get().unwrap_or(0)).collect();
        let all: usize = shards.iter().sum();
        shards.iter().map(|own| own * (all - own)).max().unwrap_or(0) * 3 + 10
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (number, broker) in self.brokers.iter().enumerate() {
            for (shard, traveller) in broker.travellers.borrow().iter().enumerate() {
                let missing: Vec<_> = (self.wanted_by(number).into_iter())
                    .filter(|peer| traveller.received(*peer).is_none())
                    .map(|peer| peer.to_string())
                    .collect();
                let last = traveller
                    .told
                    .borrow()
                    .iter()
                    .rev()
                    .take(4)
                    .map(|told| format!("{told:?}"))
                    .collect::<Vec<_>>();
                text += &format!("\n  {} lacks {missing:?}; last {last:?}", self.peer(number, shard));
            }
        }
        text
    }
}

/// A shard of a broker.
async fn run(world: Rc<World>, number: usize, config: LinksConfig, seat: LinkSeat, traveller: Rc<Traveller>) {
    let links = Rc::new(Links::start(config, seat, traveller.clone()).await.expect("the port is free"));
    for (other, broker) in world.brokers.iter().enumerate().filter(|(other, _)| *other != number) {
        links.set_address(broker.id, Some(world.address(other)));
    }
    spawn(Queue::Control, obey(world.clone(), number, links.clone(), traveller.clone())).detach();
    spawn(Queue::Background, follow(world.clone(), number, links.clone(), traveller.clone())).detach();
    spawn(Queue::Background, ask(world.clone(), number, links.clone(), traveller.clone())).detach();
    loop {
        sleep(MS * 5).await;
        let frames = random_u64() % 10 * u64::from(world.has_frames.get());
        traveller.owe(&links, frames);
        if !world.keeps_all.get() && random_u64().is_multiple_of(20) {
            traveller.let_go();
            traveller.keeps.set(random_u64().is_multiple_of(2));
        }
    }
}

async fn obey(world: Rc<World>, number: usize, links: Rc<Links>, traveller: Rc<Traveller>) {
    let shard = corelog_io::core();
    loop {
        let order = {
            let mut orders = world.brokers[number].orders.borrow_mut();
            let at = orders.iter().position(|(of, _)| *of == shard);
            at.map(|at| orders.remove(at).1)
        };
        match order {
            Some(order) => spawn(Queue::Control, order(links.clone(), traveller.clone())).detach(),
            None => sleep(MS).await,
        }
    }
}

/// Wants who is to be wanted: learns of it a little later than others do.
async fn follow(world: Rc<World>, number: usize, links: Rc<Links>, traveller: Rc<Traveller>) {
    let mut wanted = BTreeSet::new();
    loop {
        let now_wanted = world.wanted_by(number);
        for peer in wanted.difference(&now_wanted) {
            links.forget(*peer);
            traveller.forgot(*peer);
        }
        now_wanted.difference(&wanted).for_each(|peer| links.want(*peer));
        wanted = now_wanted;
        sleep(MS * (random_u64() % 100) as u32).await;
    }
}

/// Calls whoever is wanted.
async fn ask(world: Rc<World>, number: usize, links: Rc<Links>, traveller: Rc<Traveller>) {
    loop {
        let peers: Vec<PeerId> = world.wanted_by(number).into_iter().collect();
        if !peers.is_empty() && world.has_calls.get() {
            let peer = peers[random_u64() as usize % peers.len()];
            let _ = call(&links, &traveller, peer, SECOND * 3).await;
        }
        sleep(MS * (random_u64() % 100) as u32).await;
    }
}
