//! The run of one plan: lives of the broker, what strikes it, and the last judgement.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::{Process, Sim, SimConfig};
use corelog_io::{Queue, random_u64, sleep, spawn};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::metadata_request::Topic;
use corelog_wire::messages::{CreateTopicsRequest, MetadataRequest};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{Dice, Faults, Plan};
use crate::pulse::{Pulse, Pulses};
use crate::strikes::After;
use crate::truth::{Place, Truth};
use crate::{changes, committer, consumer, guests, member, passing, probe, producer};

/// After the faults have ended, all that was begun is finished within this much virtual time.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// With space on the disk again, produce comes back within this, without a restart.
pub const RELIEF_MAX: Duration = Duration::from_secs(10);
/// Once what struck the broker is over, every client is answered within this.
const ANSWERED_MAX: Duration = Duration::from_secs(60);
/// Changes of topics that were asked for are carried out, if the disk does its work.
const SETTLED: Duration = Duration::from_secs(15);
/// What one task may hold a core for. By the work that is told at the seam: no clock runs meanwhile.
const TURN_MAX: Duration = Duration::from_millis(1);
/// Consumers that wait have everything this long after the last acknowledgement.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// What all clients share with the story around them.
pub struct Common {
    pub plan: Plan,
    pub truth: RefCell<Truth>,
    pub address: SocketAddr,
    stop: Cell<bool>,
    /// Topics are to stay as they are for a while.
    hold: Cell<bool>,
    /// Crowds are to leave for a while.
    is_quiet: Cell<bool>,
    finished: Cell<usize>,
    /// Where the followers are.
    pub followers: RefCell<BTreeMap<usize, BTreeMap<Place, i64>>>,
    pub pulses: Pulses,
    /// The largest request that the broker takes.
    pub request_bytes_max: Cell<usize>,
}

/// One client's view of it.
pub struct Shared {
    common: Rc<Common>,
    pulse: Rc<Pulse>,
}

impl Deref for Shared {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// A random number below `n`, from the seed; for clients.
pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

pub fn topic_name(topic: usize) -> Str {
    format!("topic-{topic}").into()
}

impl Shared {
    fn client(&self, name: &str) -> Rc<Shared> {
        Rc::new(Shared { common: self.common.clone(), pulse: self.pulses.watched(name) })
    }

    /// A client that need not be answered.
    fn guest(&self) -> Rc<Shared> {
        Rc::new(Shared { common: self.common.clone(), pulse: self.pulses.unwatched() })
    }

    fn note_answers(&self, connection: Connection) -> Connection {
        let pulse = self.pulse.clone();
        connection.noted(move || pulse.beat())
    }

    pub async fn connect(&self, client: &str) -> Option<Connection> {
        let connection = Connection::open(self.address, client, || self.stopped()).await?;
        Some(self.note_answers(connection))
    }

    pub async fn connect_to_finish(&self, client: &str) -> Option<Connection> {
        let connection = Connection::open(self.address, client, || self.damaged()).await?;
        Some(self.note_answers(connection))
    }
}

impl Common {
    /// Clients begin nothing new, and finish what they have begun.
    pub fn stopped(&self) -> bool {
        self.stop.get()
    }

    /// Damage was found: nobody needs to get anywhere any more.
    pub fn damaged(&self) -> bool {
        self.truth.borrow().damage_found
    }

    /// Waits until topics may be changed.
    pub async fn may_change(&self) {
        while self.hold.get() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.is_quiet.get()
    }

    /// An answer was that it cannot be had. Whether who asked need not ask again.
    pub fn gives_up(&self, failures: &mut u32) -> bool {
        *failures += 1;
        self.damaged() || (self.plan.faults == Faults::OneDamage && *failures > 5)
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
    if plan.faults == Faults::OneDamage {
        story.damage();
    }
    let longest = story.broker.machine.longest_turn().expect("there were some");
    story.note(&format!("longest turn: {longest:?}"));
    assert!(longest.cost < TURN_MAX, "a turn is too long: {longest:?}");
    story.sim.trace_hash()
}

impl Story {
    fn new(plan: &Plan) -> Story {
        let sim = Sim::with_config(
            plan.seed,
            SimConfig { reset_one_in: plan.reset_one_in, ..SimConfig::default() },
        );
        let broker = Broker::new(&sim);
        let (clients, guests) = (sim.process("clients"), sim.process("guests"));
        let common = Rc::new(Common {
            plan: plan.clone(),
            truth: RefCell::new(Truth::new(plan.faults)),
            address: broker.address(),
            stop: Cell::default(),
            hold: Cell::default(),
            is_quiet: Cell::default(),
            finished: Cell::default(),
            followers: RefCell::default(),
            pulses: Pulses::default(),
            request_bytes_max: Cell::default(),
        });
        let pulse = common.pulses.unwatched();
        let shared = Rc::new(Shared { common, pulse });
        Story { sim, broker, clients, guests, shared, dice: Dice(plan.seed) }
    }
}

pub struct Story {
    pub sim: Sim,
    pub broker: Broker,
    pub clients: Process,
    guests: Process,
    pub shared: Rc<Shared>,
    pub dice: Dice,
}

impl Story {
    fn tell(&mut self) {
        let shared = self.shared.clone();
        self.clients.start(1, move |_| work(shared.clone()));
        let shared = self.shared.clone();
        self.guests.start(1, move |_| {
            guests::come(&shared, || shared.guest());
            std::future::ready(())
        });
        for _ in 0..self.shared.plan.incarnations {
            self.live();
        }
        self.finish();
        self.judge();
    }

    /// Shown if the run fails.
    pub fn note(&self, what: &str) {
        eprintln!("{:?}, step {}: {what}", self.sim.elapsed(), self.sim.steps());
    }

    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Starts the broker, on any number of cores.
    pub fn start(&mut self) {
        let cores = 1 + self.dice.below(self.plan().cores_max) as usize;
        let plan = self.shared.plan.clone();
        self.note(&format!("starts on {cores} cores"));
        self.broker.start(&plan, cores);
        self.shared.request_bytes_max.set(self.broker.request_bytes_max);
    }

    /// One life of the broker among faults, from start to its end.
    fn live(&mut self) {
        self.start();
        match self.dice.below(8) {
            0 => {
                self.note("dies while it starts");
                let steps = self.dice.below(1_500);
                self.sim.run_steps(steps);
                return self.end();
            }
            1 => {
                self.note("is told to stop while it starts");
                let steps = self.dice.below(1_500);
                self.sim.run_steps(steps);
                return self.stop();
            }
            _ => {}
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
            let after = self.strike();
            if self.plan().is_unhurried() {
                self.all_are_answered();
            }
            if after == After::Restart {
                self.note("is killed");
                self.broker.machine.kill();
                return;
            }
        }
        let calm = self.dice.millis(200);
        self.sim.run_for(calm);
        if self.topics_are_compared() && self.dice.below(2) == 0 {
            return self.compare_topics();
        }
        self.end();
    }

    /// What was is over: every client has an answer from now on, whatever it is.
    fn all_are_answered(&self) {
        self.shared.is_quiet.set(true);
        self.shared.pulses.begin_era();
        let answered = |shared: &Shared| shared.pulses.missing().is_empty();
        let until = self.sim.elapsed() + ANSWERED_MAX;
        while !answered(&self.shared) {
            let missing = || self.shared.pulses.missing();
            assert!(self.sim.elapsed() < until, "not answered after {ANSWERED_MAX:?}: {:?}", missing());
            self.sim.run_for(Duration::from_millis(10));
        }
        self.shared.is_quiet.set(false);
    }

    /// Whether the controller's log is sound, and somebody changes topics.
    fn topics_are_compared(&self) -> bool {
        let sound = [Faults::Crashes, Faults::Network, Faults::Stalls].contains(&self.plan().faults);
        sound && self.plan().is_unhurried() && self.plan().guests.leavers > 0 && self.broker.is_up()
    }

    /// What the broker serves of topics is what it serves after a restart: nobody changes them meanwhile.
    fn compare_topics(&mut self) {
        self.shared.hold.set(true);
        self.sim.run_for(SETTLED);
        let address = self.shared.address;
        let served = self.sim.block_on(changes::look(address));
        self.note("is killed, and its topics compared");
        self.broker.machine.kill();
        self.start();
        let started = self.broker.await_ready(&self.sim);
        assert_eq!(started, Start::Ready, "with a sound controller's log");
        let replayed = self.sim.block_on(changes::look(address));
        assert_eq!(served, replayed, "what was served is not what the controller's log says");
        self.shared.hold.set(false);
        self.end();
    }

    /// The end of a life: power loss at any step, kill, or a stop in good order.
    fn end(&mut self) {
        match self.dice.below(5) {
            0 => {
                self.note("is killed");
                self.broker.machine.kill();
            }
            1 if self.broker.is_up() => self.stop(),
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

    fn stop(&mut self) {
        let may_fail = std::mem::replace(&mut self.shared.truth.borrow_mut().storage_may_fail, true);
        self.note("is told to stop");
        self.broker.stop(&self.sim);
        self.note("has stopped");
        self.shared.truth.borrow_mut().storage_may_fail = may_fail;
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
        self.guests.kill();
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
        self.probe(0);
    }

    /// A new client finds all partitions but `broken_max` sound, and all else in order.
    pub fn probe(&self, broken_max: usize) {
        let shared = self.shared.guest();
        self.sim.block_on(probe::probe(shared, broken_max));
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
        if !flips && self.plan().faults != Faults::OneDamage {
            self.expect_no_leftovers();
        }
    }

    /// What is on disk is of topics that there are: starts know what is left of deleted ones.
    fn expect_no_leftovers(&self) {
        self.sim.run_for(SETTLED);
        let served = self.sim.block_on(changes::look(self.shared.address));
        let controller = Uuid(1_u128.to_be_bytes());
        let is_known = |id: Uuid| id == controller || served.values().any(|(known, ..)| *known == id);
        for file in self.broker.machine.disk().files() {
            let names = file.iter().filter_map(|name| name.to_str());
            let topic = names.filter_map(corelog_storage::topic_of_dir).next();
            assert!(topic.is_none_or(is_known), "{} is of no topic", file.display());
        }
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

    pub fn run_until(&self, limit: Duration, what: &str, done: impl Fn(&Shared) -> bool) {
        let until = self.sim.elapsed() + limit;
        while !done(&self.shared) {
            let working = || self.shared.pulses.working();
            assert!(self.sim.elapsed() < until, "{what} after {limit:?}; at work: {:?}", working());
            self.sim.run_for(Duration::from_millis(10));
        }
    }
}

/// Clients that finish when told to.
fn workers(plan: &Plan) -> usize {
    let members = plan.members + plan.committers + plan.passing + plan.large;
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
    fn begin<F: Future<Output = ()> + 'static>(
        shared: &Shared,
        name: &str,
        client: impl FnOnce(Rc<Shared>) -> F,
    ) {
        let shared = shared.client(name);
        let client = client(shared.clone());
        spawn(Queue::Control, async move {
            client.await;
            shared.pulse.end();
            shared.finished.set(shared.finished.get() + 1);
        })
        .detach();
    }
    for _ in 0..plan.producers {
        begin(&shared, "plain producer", producer::plain);
    }
    for _ in 0..plan.idempotent_producers {
        begin(&shared, "idempotent producer", producer::idempotent);
    }
    for _ in 0..plan.consumers {
        begin(&shared, "consumer", consumer::wander);
    }
    for n in 0..plan.committers {
        begin(&shared, "committer", move |shared| committer::solo(shared, format!("solo-{n}")));
    }
    for _ in 0..plan.members {
        begin(&shared, "member", member::member);
    }
    for n in 0..plan.passing {
        begin(&shared, "passing topic", move |shared| passing::pass(shared, n));
    }
    for _ in 0..plan.large {
        begin(&shared, "large requests", guests::large);
    }
    if deletes(&plan) {
        begin(&shared, "deleter", consumer::delete_records);
    }
    for number in 0..2 {
        // They wait for as long as there is no news.
        spawn(Queue::Control, consumer::follow(shared.guest(), number)).detach();
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
