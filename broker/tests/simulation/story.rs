//! The run of one plan: lives of the broker, what strikes it, and the last judgement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::{DiskOp, Process, Sim, SimConfig};
use corelog_io::{Queue, random_u64, sleep, spawn};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::metadata_request::Topic;
use corelog_wire::messages::{CreateTopicsRequest, MetadataRequest};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{DATA_DIR, Dice, Faults, Plan};
use crate::truth::{Place, Truth};
use crate::{committer, consumer, member, producer};

/// More than any plan needs of the disk.
const AMPLE: u64 = 1 << 40;
/// After the faults have ended, all that was begun is finished within this much virtual time.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// With space on the disk again, produce comes back within this, without a restart.
const RELIEF_MAX: Duration = Duration::from_secs(10);
/// Consumers that wait have everything this long after the last acknowledgement.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// What the clients share with the story around them.
pub struct Shared {
    pub plan: Plan,
    pub truth: RefCell<Truth>,
    address: SocketAddr,
    stop: Cell<bool>,
    finished: Cell<usize>,
    /// Where the followers are.
    pub followers: RefCell<BTreeMap<usize, BTreeMap<Place, i64>>>,
}

/// A random number below `n`, from the seed; for clients.
pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

pub fn topic_name(topic: usize) -> Str {
    format!("topic-{topic}").into()
}

impl Shared {
    /// Clients begin nothing new, and finish what they have begun.
    pub fn stopped(&self) -> bool {
        self.stop.get()
    }

    /// Damage was found: nobody needs to get anywhere any more.
    pub fn damaged(&self) -> bool {
        self.truth.borrow().damage_found
    }

    pub async fn connect(&self, client: &str) -> Option<Connection> {
        Connection::open(self.address, client, || self.stopped()).await
    }

    pub async fn connect_to_finish(&self, client: &str) -> Option<Connection> {
        Connection::open(self.address, client, || self.damaged()).await
    }

    pub fn places(&self) -> Vec<Place> {
        let topics = self.plan.topics.iter().enumerate();
        topics
            .flat_map(|(topic, partitions)| (0..*partitions).map(move |partition| (topic, partition)))
            .collect()
    }

    /// The number of a topic in an answer.
    pub fn topic_of(&self, name: &Str, id: Uuid, by_id: bool) -> usize {
        let truth = self.truth.borrow();
        let known = &truth.topic_ids;
        let found = match by_id {
            true => known.iter().find(|(_, known)| **known == id).map(|(topic, _)| *topic),
            false => known.keys().copied().find(|topic| topic_name(*topic) == *name),
        };
        found.unwrap_or_else(|| panic!("the answer names a topic {name:?} {id}"))
    }

    pub fn expect_explained(&self, code: ErrorCode, what: &str) {
        assert!(self.truth.borrow_mut().explains(code.0), "{what}: {code:?} {}", code.message());
    }

    pub async fn pause(&self) {
        sleep(Duration::from_millis(1 + below(40))).await;
    }
}

/// Runs a plan; a hash of all that happened.
pub fn run(plan: &Plan) -> u64 {
    let mut story = Story::new(plan);
    story.tell();
    story.sim.trace_hash()
}

/// Runs a plan, then takes parts of the data directory away: no start takes what is missing for empty, and with all of it
/// back everything is there.
pub fn run_with_parts_missing(plan: &Plan) {
    let mut story = Story::new(plan);
    story.tell();
    story.bereave();
    story.judge();
}

impl Story {
    fn new(plan: &Plan) -> Story {
        let sim = Sim::with_config(
            plan.seed,
            SimConfig { reset_one_in: plan.reset_one_in, ..SimConfig::default() },
        );
        let broker = Broker::new(&sim);
        let clients = sim.process("clients");
        let shared = Rc::new(Shared {
            plan: plan.clone(),
            truth: RefCell::new(Truth::new(plan.faults)),
            address: broker.address(),
            stop: Cell::new(false),
            finished: Cell::new(0),
            followers: RefCell::default(),
        });
        Story { sim, broker, clients, shared, dice: Dice(plan.seed) }
    }
}

struct Story {
    sim: Sim,
    broker: Broker,
    clients: Process,
    shared: Rc<Shared>,
    dice: Dice,
}

impl Story {
    fn tell(&mut self) {
        let shared = self.shared.clone();
        self.clients.start(1, move |_| work(shared.clone()));
        for _ in 0..self.shared.plan.incarnations {
            self.live();
        }
        self.finish();
        self.judge();
    }

    /// Shown if the run fails.
    fn note(&self, what: &str) {
        eprintln!("{:?}, step {}: {what}", self.sim.elapsed(), self.sim.steps());
    }

    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Starts the broker, on any number of cores.
    fn start(&mut self) {
        let cores = 1 + self.dice.below(self.plan().cores_max) as usize;
        let plan = self.shared.plan.clone();
        self.note(&format!("starts on {cores} cores"));
        self.broker.start(&plan, cores);
    }

    /// One life of the broker among faults, from start to its end.
    fn live(&mut self) {
        self.start();
        if self.dice.below(5) == 0 {
            // Dies while it starts.
            let steps = self.dice.below(1_500);
            self.sim.run_steps(steps);
            return self.end();
        }
        match self.broker.await_ready(&self.sim) {
            Start::Ready => {}
            Start::Failed(what) => {
                assert!(self.shared.truth.borrow().storage_may_fail, "the broker does not start: {what}");
                return self.end();
            }
            Start::Died => unreachable!("nothing strikes it yet"),
        }
        for _ in 0..1 + self.dice.below(3) {
            let calm = self.dice.millis(300);
            self.sim.run_for(calm);
            self.strike();
        }
        let calm = self.dice.millis(200);
        self.sim.run_for(calm);
        self.end();
    }

    /// Something happens to the running broker.
    fn strike(&mut self) {
        let disk = self.broker.machine.disk();
        match self.plan().faults {
            Faults::Crashes | Faults::BitFlips => match self.dice.below(4) {
                0 => {
                    let extra = self.dice.millis(40);
                    disk.set_extra_latency(extra);
                    let slow = self.dice.millis(2_000);
                    self.sim.run_for(slow);
                    disk.set_extra_latency(Duration::ZERO);
                }
                1 => {
                    let (jump, drift) =
                        (self.dice.below(4_000) as i64 - 2_000, self.dice.below(400) as i32 - 200);
                    self.broker.machine.set_clock(jump, drift);
                }
                _ => {}
            },
            Faults::Network => match self.dice.below(3) {
                0 => self.sim.reset_connections(&self.broker.machine, &self.clients),
                1 => {
                    self.sim.partition(&self.broker.machine, &self.clients);
                    let cut = self.dice.millis(4_000);
                    self.sim.run_for(cut);
                    self.sim.heal(&self.broker.machine, &self.clients);
                }
                _ => {
                    self.broker.machine.pause();
                    let paused = self.dice.millis(5_000);
                    self.sim.run_for(paused);
                    self.broker.machine.resume();
                }
            },
            Faults::FullDisk => {
                self.shared.truth.borrow_mut().storage_may_fail = true;
                let used: u64 =
                    disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
                disk.set_capacity(used + self.dice.below(512 << 10));
                let full = self.dice.millis(4_000);
                self.sim.run_for(full);
                disk.set_capacity(AMPLE);
                let before = self.shared.truth.borrow().acknowledged;
                self.run_until(
                    RELIEF_MAX,
                    "nothing is acknowledged with space on the disk again",
                    |shared| shared.truth.borrow().acknowledged > before,
                );
            }
            Faults::IoErrors => {
                self.shared.truth.borrow_mut().storage_may_fail = true;
                let op = self.dice.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::Metadata]);
                let part = self.dice.pick(&["", ".journal", ".checkpoint", ".log", ".index"]);
                disk.fail_nth(op, part, self.dice.below(100), std::io::ErrorKind::Other);
                let on = self.dice.millis(1_000);
                self.sim.run_for(on);
            }
        }
    }

    /// The end of a life: power loss at any step, kill, or a stop in good order.
    fn end(&mut self) {
        match self.dice.below(5) {
            0 => {
                self.note("is killed");
                self.broker.machine.kill();
            }
            1 if self.broker.is_up() => {
                let may_fail = std::mem::replace(&mut self.shared.truth.borrow_mut().storage_may_fail, true);
                self.note("is told to stop");
                self.broker.stop(&self.sim);
                self.note("has stopped");
                self.shared.truth.borrow_mut().storage_may_fail = may_fail;
            }
            _ => {
                let steps = self.dice.below(5_000);
                self.broker.machine.crash_after(steps);
                self.sim.run_steps(steps + 1);
                if self.broker.machine.is_running() {
                    self.broker.machine.crash();
                }
                self.note("has lost its power");
            }
        }
        // The clients meanwhile meet closed doors.
        let down = self.dice.millis(200);
        self.sim.run_for(down);
    }

    /// A last life without faults: clients finish, and what they wait for comes.
    fn finish(&mut self) {
        self.broker.machine.disk().clear_faults();
        self.start();
        let started = self.broker.await_ready(&self.sim);
        assert_eq!(started, Start::Ready, "on a sound disk");
        let before = self.shared.truth.borrow().acknowledged;
        self.run_until(RELIEF_MAX, "a sound broker acknowledges nothing", |shared| {
            shared.truth.borrow().acknowledged > before
        });
        // Faults of former lives are answered for.
        let on = self.dice.millis(400);
        self.sim.run_for(on);
        self.shared.stop.set(true);
        let finishing = workers(self.plan());
        self.run_until(FINISH_MAX, "clients have not finished", |shared| shared.finished.get() == finishing);
        self.shared.truth.borrow_mut().storage_may_fail = false;
        self.run_until(CATCH_UP_MAX, "waiting consumers were not woken", |shared| {
            let truth = shared.truth.borrow();
            let followers = shared.followers.borrow();
            let behind = |at: &BTreeMap<Place, i64>| {
                truth.partitions.iter().any(|(place, partition)| at[place] < partition.acked_end)
            };
            !followers.is_empty() && !followers.values().any(behind)
        });
        // Whoever still waits is gone before anything is called lost.
        self.clients.kill();
        let settle = Duration::from_secs(2);
        self.sim.run_for(settle);
    }

    /// Everything is there, and stays there.
    fn judge(&mut self) {
        let mut committed = None;
        let flips = self.plan().faults == Faults::BitFlips;
        let rounds = if flips { 4 } else { 2 };
        for round in 0..rounds {
            if round > 0 {
                // What is proved durable must be found damaged: the journal comes to rest first.
                self.sim.run_for(Duration::from_millis(500));
                match self.dice.below(3) {
                    0 => self.broker.stop(&self.sim),
                    1 => self.broker.machine.kill(),
                    _ => self.broker.machine.crash(),
                }
                if flips {
                    self.shared.truth.borrow_mut().storage_may_fail = true;
                    self.flip_bits();
                }
                self.start();
                match self.broker.await_ready(&self.sim) {
                    Start::Ready => {}
                    Start::Failed(_) if flips => return,
                    start => panic!("the broker does not start: {start:?}"),
                }
            }
            let shared = self.shared.clone();
            if !self.sim.block_on(consumer::audit(shared, round == 0)) {
                return;
            }
            let shared = self.shared.clone();
            let offsets = self.sim.block_on(committer::audit(shared));
            if flips && offsets.is_none() {
                return;
            }
            if let Some(before) = committed.replace(offsets.clone()) {
                assert_eq!(before, offsets, "committed offsets after a restart");
            }
        }
    }

    fn bereave(&mut self) {
        self.broker.stop(&self.sim);
        let data = Path::new(DATA_DIR);
        let controller = data.join("topics/__cluster_metadata~AAAAAAAAAAAAAAAAAAAAAQ");
        let journal = data.join("journal");
        let disk = self.broker.machine.disk();
        // A checkpoint with all its copies.
        let mut checkpoints: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in disk.files() {
            // What was never finished nobody misses.
            if let Some((stem, rest)) = file.to_string_lossy().split_once(".checkpoint")
                && !rest.ends_with(".tmp")
            {
                checkpoints.entry(stem.to_owned()).or_default().push(file.clone());
            }
        }
        let mut missing: Vec<Vec<PathBuf>> = checkpoints.into_values().collect();
        assert!(!missing.is_empty(), "there are checkpoints");
        missing.extend([vec![controller.clone()], vec![journal.clone()], vec![journal, controller]]);
        for gone in missing {
            self.note(&format!("{gone:?} are missing"));
            self.rename(gone.iter().enumerate().map(|(n, path)| (path.clone(), aside(n))).collect());
            let before = disk.files();
            self.start();
            match self.broker.await_ready(&self.sim) {
                Start::Failed(what) => assert!(what.contains("corectl log repair"), "{what}"),
                start => panic!("without {gone:?}: {start:?}"),
            }
            self.sim.run_for(Duration::from_secs(1));
            self.broker.machine.kill();
            // A refused start may have begun files of its own.
            let after = disk.files();
            let lost: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
            assert!(lost.is_empty(), "without {gone:?} the start took {lost:?} away");
            self.rename(gone.iter().enumerate().map(|(n, path)| (aside(n), path.clone())).collect());
        }
        self.start();
        assert_eq!(self.broker.await_ready(&self.sim), Start::Ready, "with everything back");
    }

    /// Renames on the broker's disk while it is down.
    fn rename(&self, renames: Vec<(PathBuf, PathBuf)>) {
        let done = Rc::new(Cell::new(false));
        let (renames, told) = (Rc::new(renames), done.clone());
        self.broker.machine.start(1, move |_| {
            let (renames, told) = (renames.clone(), told.clone());
            async move {
                for (from, to) in &*renames {
                    corelog_io::fs::rename(from, to).await.expect("it is there");
                }
                told.set(true);
            }
        });
        while !done.get() {
            assert!(self.sim.run_steps(1) > 0, "stuck");
        }
        self.broker.machine.kill();
    }

    fn flip_bits(&mut self) {
        let disk = self.broker.machine.disk();
        for _ in 0..1 + self.dice.below(3) {
            let files = disk.files();
            let file: &Path = &files[self.dice.below(files.len() as u64) as usize];
            let len = disk.contents(file).expect("it is there").len() as u64;
            // Half of the flips go to the first pages, where headers are.
            let span = if self.dice.below(2) == 0 { len.min(8192) } else { len };
            if span > 0 {
                let bit = self.dice.below(span * 8);
                eprintln!("a bit of byte {} of {} in {} flips", bit / 8, len, file.display());
                disk.flip_bit(file, bit).expect("the bit is there");
            }
        }
    }

    fn run_until(&self, limit: Duration, what: &str, done: impl Fn(&Shared) -> bool) {
        let until = self.sim.elapsed() + limit;
        while !done(&self.shared) {
            assert!(self.sim.elapsed() < until, "{what} after {limit:?}");
            self.sim.run_for(Duration::from_millis(10));
        }
    }
}

/// Where what is missing lies meanwhile.
fn aside(n: usize) -> PathBuf {
    format!("/aside-{n}").into()
}

/// Clients that finish when told to.
fn workers(plan: &Plan) -> usize {
    let members = plan.members + plan.committers;
    (plan.producers + plan.idempotent_producers + plan.consumers + members) as usize
        + usize::from(deletes(plan))
}

fn deletes(plan: &Plan) -> bool {
    plan.seed.is_multiple_of(3)
}

/// The clients' machine: makes the topics, then everybody works.
async fn work(shared: Rc<Shared>) {
    create_topics(&shared).await;
    let plan = shared.plan.clone();
    let begin = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let shared = shared.clone();
        spawn(Queue::Control, async move {
            future.await;
            shared.finished.set(shared.finished.get() + 1);
        })
        .detach();
    };
    for _ in 0..plan.producers {
        begin(Box::pin(producer::plain(shared.clone())));
    }
    for _ in 0..plan.idempotent_producers {
        begin(Box::pin(producer::idempotent(shared.clone())));
    }
    for _ in 0..plan.consumers {
        begin(Box::pin(consumer::wander(shared.clone())));
    }
    for n in 0..plan.committers {
        begin(Box::pin(committer::solo(shared.clone(), format!("solo-{n}"))));
    }
    for _ in 0..plan.members {
        begin(Box::pin(member::member(shared.clone())));
    }
    if deletes(&plan) {
        begin(Box::pin(consumer::delete_records(shared.clone())));
    }
    for number in 0..2 {
        spawn(Queue::Control, consumer::follow(shared.clone(), number)).detach();
    }
}

/// Makes the topics, and learns their ids.
async fn create_topics(shared: &Shared) {
    let topics = shared.plan.topics.clone();
    while shared.truth.borrow().topic_ids.len() < topics.len() {
        let Some(mut connection) = shared.connect_to_finish("admin").await else { return };
        let request = CreateTopicsRequest {
            topics: topics
                .iter()
                .enumerate()
                .map(|(topic, partitions)| CreatableTopic {
                    name: topic_name(topic),
                    num_partitions: *partitions,
                    replication_factor: 1,
                    configs: vec![CreatableTopicConfig {
                        name: "segment.ms".into(),
                        value: Some(shared.plan.segment_ms.to_string().as_str().into()),
                    }],
                    ..Default::default()
                })
                .collect(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let Ok(response) = connection.call(&request, 7).await else { continue };
        for (topic, created) in response.topics.iter().enumerate() {
            match ErrorCode(created.error_code) {
                ErrorCode::NONE => shared.truth.borrow_mut().topic_id(topic, created.topic_id),
                // By a request whose answer was lost.
                ErrorCode::TOPIC_ALREADY_EXISTS => {}
                code => shared.expect_explained(code, "CreateTopics"),
            }
        }
        let request = MetadataRequest {
            topics: Some(
                (0..topics.len())
                    .map(|topic| Topic { name: Some(topic_name(topic)), ..Default::default() })
                    .collect(),
            ),
            ..Default::default()
        };
        let Ok(response) = connection.call(&request, 12).await else { continue };
        for described in response.topics {
            let topic = (0..topics.len()).find(|topic| Some(topic_name(*topic)) == described.name);
            let topic = topic.expect("a topic that was asked for");
            if described.error_code == 0 {
                assert_eq!(described.partitions.len() as i32, topics[topic], "partitions of topic {topic}");
                shared.truth.borrow_mut().topic_id(topic, described.topic_id);
            }
        }
        shared.pause().await;
    }
}
