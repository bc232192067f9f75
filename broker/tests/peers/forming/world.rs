//! Machines whose brokers form a cluster; what comes after that, a running broker, is a stand-in that knows of its cluster what
//! a controller would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::cluster::forming::{Forming, await_port, form};
use corelog_broker::cluster::founding::Candidate;
use corelog_broker::cluster::join::{JoinAnswer, JoinRequest};
use corelog_broker::cluster::{CallKind, FEATURE_LEVEL, status};
use corelog_broker::config::Endpoint;
use corelog_broker::identity::{Belongs, FILE_NAME, Identity, Life};
use corelog_broker::peer::{self, BrokerId, Incarnation, LinkSeat, Links, LinksConfig};
use corelog_broker::replication::Carrier;
use corelog_io::sim::{Process, Sim};
use corelog_io::{fs, now, random_secret, random_u64, sleep};
use corelog_raft::ReplicaId;
use corelog_wire::Uuid;
use futures_util::FutureExt;

use crate::world::{MS, PORT};

const DIR: &str = "/data";

pub struct World {
    pub sim: Sim,
    pub machines: Vec<Machine>,
    clusters: RefCell<BTreeMap<String, Cluster>>,
    /// Which directory each replica of a cluster's controller's log is of.
    replicas: RefCell<BTreeMap<(String, ReplicaId), Uuid>>,
}

pub struct Machine {
    pub process: Process,
    pub peer: Endpoint,
    pub node_id: Option<i32>,
    /// What its running broker is, in this life.
    member: RefCell<Option<Identity>>,
}

/// What a controller knows.
struct Cluster {
    founders: u32,
    /// The directory at each address that counts for a majority.
    voters: BTreeMap<String, Uuid>,
    brokers: BTreeMap<Uuid, (i32, ReplicaId)>,
}

impl World {
    pub fn new(sim: &Sim, machines: usize, node_id: impl Fn(usize) -> Option<i32>) -> Rc<World> {
        let machine = |number: usize| {
            let process = sim.process(&format!("machine {number}"));
            let peer = Endpoint { host: process.ip().to_string(), port: PORT };
            Machine { process, peer, node_id: node_id(number), member: RefCell::default() }
        };
        Rc::new(World {
            sim: sim.clone(),
            machines: (0..machines).map(machine).collect(),
            clusters: RefCell::default(),
            replicas: RefCell::default(),
        })
    }

    /// The seeds that all are to have.
    pub fn seeds(&self) -> Vec<Endpoint> {
        let mut seeds: Vec<Endpoint> = self.machines.iter().map(|machine| machine.peer.clone()).collect();
        seeds.sort_by_key(Endpoint::to_string);
        seeds
    }

    pub fn start(self: &Rc<World>, number: usize, seeds: Vec<Endpoint>) {
        self.machines[number].member.replace(None);
        let world = Rc::downgrade(self);
        let both = peer::seats(1).into_iter().zip(peer::seats(1)).collect();
        self.machines[number].process.start_with(both, move |_, (first, second)| {
            let (world, seeds) = (world.upgrade().expect("the world is there"), seeds.clone());
            async move {
                let identity = world.form(number, seeds.clone(), first).await;
                world.look();
                world.serve(number, identity, seeds, second).await;
            }
        });
    }

    /// What `corelog` does before its broker is started.
    async fn form(&self, number: usize, seeds: Vec<Endpoint>, seat: LinkSeat) -> Identity {
        let dir = Path::new(DIR);
        fs::create_dir_all(dir).await.unwrap();
        let life = match fs::read(&dir.join(FILE_NAME), 1 << 16).await {
            Ok(text) => Life::of(std::str::from_utf8(&text).unwrap()).expect("it is whole"),
            Err(_) => {
                let life = Life::Forming(Uuid::from_random(u128::from_be_bytes(random_secret())));
                life.keep(dir).await.unwrap();
                life
            }
        };
        let directory = match life {
            Life::Member(identity) => return identity,
            Life::Forming(directory) => directory,
        };
        let Machine { peer, node_id, .. } = &self.machines[number];
        let forming = Forming {
            candidate: Candidate { directory, node_id: *node_id, peer: peer.clone(), seeds },
            data_dir: DIR.into(),
            listen: self.address(number),
            shards: 1,
            rack: None,
        };
        form(seat, forming).await.unwrap_or_else(|error| panic!("machine {number}: {error}"))
    }

    fn address(&self, number: usize) -> SocketAddr {
        self.machines[number].peer.resolve().unwrap()
    }

    async fn serve(
        self: Rc<World>,
        number: usize,
        identity: Identity,
        seeds: Vec<Endpoint>,
        seat: LinkSeat,
    ) -> ! {
        // A broker that starts has other things to do first.
        sleep(MS * (random_u64() % 30) as u32).await;
        self.learn(number, &identity);
        let config = LinksConfig {
            broker: BrokerId(identity.node_id),
            incarnation: Incarnation(random_u64()),
            cluster: Some(identity.cluster_id.clone()),
            feature_level: FEATURE_LEVEL,
            feature_level_required: FEATURE_LEVEL,
            listen: Some(self.address(number)),
            receive_bytes: 4 << 20,
            frame_bytes_max: 3 << 20,
        };
        self.machines[number].member.replace(Some(identity.clone()));
        let carrier = Carrier::new();
        let (world, own) = (Rc::downgrade(&self), identity.clone());
        carrier.serve(CallKind::Join, move |call| {
            let world = world.upgrade().expect("the world is there");
            let answer = JoinRequest::decode(call.head).map(|request| world.join(number, &own, request));
            async move { Ok(answer?.encode().into()) }.boxed_local()
        });
        carrier.serve(CallKind::Status, move |_| {
            let answer = status::answer(&identity, &seeds);
            async move { Ok(answer.into()) }.boxed_local()
        });
        await_port(self.address(number)).await.expect("the port is free");
        let _links = Links::start(config, seat, carrier).await.expect("the port is free");
        std::future::pending().await
    }

    /// What a controller learns of a broker that runs.
    fn learn(&self, number: usize, identity: &Identity) {
        let Belongs::Founder(founders) = &identity.belongs else {
            let mut clusters = self.clusters.borrow_mut();
            let cluster = clusters.get_mut(&identity.cluster_id).expect("it was founded");
            // In the place of who was there before.
            cluster.voters.insert(self.machines[number].peer.to_string(), identity.directory);
            return;
        };
        let cluster = || Cluster {
            founders: founders.len() as u32,
            voters: founders.iter().map(|founder| (founder.peer.to_string(), founder.directory)).collect(),
            brokers: founders
                .iter()
                .map(|founder| (founder.directory, (founder.node_id, founder.replica)))
                .collect(),
        };
        self.clusters.borrow_mut().entry(identity.cluster_id.clone()).or_insert_with(cluster);
    }

    /// Who leads a cluster: the first that runs, where a majority does.
    fn leader(&self, cluster: &Cluster) -> Option<usize> {
        let runs = |machine: &Machine| {
            let directory = machine.member.borrow().as_ref().map(|identity| identity.directory);
            let is_voter = cluster.voters.get(&machine.peer.to_string()).copied() == directory;
            directory.is_some() && is_voter && machine.process.is_running()
        };
        let running: Vec<usize> = (0..self.machines.len()).filter(|at| runs(&self.machines[*at])).collect();
        (running.len() > cluster.voters.len() / 2).then(|| running[0])
    }

    fn join(&self, number: usize, own: &Identity, request: JoinRequest) -> JoinAnswer {
        let mut clusters = self.clusters.borrow_mut();
        let cluster = clusters.get_mut(&own.cluster_id).expect("it was founded");
        match self.leader(cluster) {
            None => return JoinAnswer::NotNow("nobody leads".into()),
            Some(leader) if leader != number => return JoinAnswer::Ask(self.machines[leader].peer.clone()),
            Some(_) => {}
        }
        let next = cluster.brokers.len() as u64 + 1;
        let ids = (next as i32 + 100, ReplicaId(next));
        let (node_id, replica) = *cluster.brokers.entry(request.directory).or_insert(ids);
        let founders = cluster.founders;
        JoinAnswer::Joined { cluster_id: own.cluster_id.clone(), node_id, replica, founders }
    }

    /// What is written on a machine's disk.
    pub fn life(&self, number: usize) -> Option<Life> {
        let disk = self.machines[number].process.disk();
        let text = disk.contents(&Path::new(DIR).join(FILE_NAME)).ok()?;
        Some(Life::of(std::str::from_utf8(&text).unwrap()).expect("it is whole"))
    }

    /// The cluster that there is, if there is one; and what must never be.
    pub fn look(&self) -> Option<String> {
        let mut found: Option<String> = None;
        for number in 0..self.machines.len() {
            let Some(Life::Member(identity)) = self.life(number) else { continue };
            let cluster = found.get_or_insert_with(|| identity.cluster_id.clone());
            assert_eq!(&identity.cluster_id, cluster, "two clusters of one list of seeds");
            let has = |replica: ReplicaId, directory: Uuid| {
                let of = (identity.cluster_id.clone(), replica);
                let before = *self.replicas.borrow_mut().entry(of).or_insert(directory);
                assert_eq!(before, directory, "replica {replica} is of two directories");
            };
            match &identity.belongs {
                Belongs::Founder(founders) => {
                    let own = founders.iter().find(|founder| founder.replica.0 == self.seat(number));
                    let is_own = own.is_some_and(|own| own.directory == identity.directory);
                    assert!(is_own, "machine {number} has the place of another");
                    founders.iter().for_each(|founder| has(founder.replica, founder.directory));
                }
                Belongs::Joined { replica, .. } => has(*replica, identity.directory),
                Belongs::Alone => panic!("nobody founds alone"),
            }
        }
        found
    }

    /// Its place among the seeds, from 1 on: its replica's id as a founder.
    fn seat(&self, number: usize) -> u64 {
        let at = self.seeds().iter().position(|seed| *seed == self.machines[number].peer);
        at.expect("it is a seed") as u64 + 1
    }

    pub fn all_are_members(&self) -> bool {
        self.machines.iter().all(|machine| machine.process.is_running() && machine.member.borrow().is_some())
    }

    /// Whether those that the cluster counts on are there in a majority, if there is a cluster.
    pub fn can_go_on(&self) -> bool {
        let Some(id) = self.look() else { return true };
        let clusters = self.clusters.borrow();
        let Some(cluster) = clusters.get(&id) else { return true };
        let is_there = |number: &usize| {
            let directory = match self.life(*number) {
                Some(Life::Member(identity)) => Some(identity.directory),
                Some(Life::Forming(directory)) => Some(directory),
                None => None,
            };
            let voter = cluster.voters.get(&self.machines[*number].peer.to_string());
            directory.is_some() && voter.copied() == directory
        };
        (0..self.machines.len()).filter(is_there).count() > cluster.voters.len() / 2
    }

    /// Whether all belong to a cluster within this time.
    pub async fn all_form(&self, limit: Duration) -> bool {
        let until = now() + limit;
        while !self.all_are_members() && now() < until {
            sleep(MS * 10).await;
            self.look();
        }
        self.all_are_members()
    }

    pub fn heal(&self) {
        for from in &self.machines {
            let others = self.machines.iter().filter(|to| to.peer != from.peer);
            others.for_each(|to| self.sim.link(&from.process, &to.process).heal());
        }
    }
}
