//! The run of one plan: programs, what strikes them and the broker, and the last judgement.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::cluster::MemberPlan;
use corelog_broker::config::Endpoint;
use corelog_broker::identity::{Belongs, Founder, Identity};
use corelog_broker::peer::{BrokerId, Incarnation};
use corelog_client::{
    Client, ConsumerConfig, ConsumerRecord, ErrorCode, NewTopic, OffsetReset, OffsetSpec, TopicPartition,
};
use corelog_io::Dice;
use corelog_io::sim::{Process, Sim, SimConfig};
use corelog_raft::ReplicaId;
use corelog_wire::Uuid;

use super::apps::{App, Shared, watch};
use super::cluster::{Ordeal, mover, observer};
use super::plan::{Plan, client_config, topic_name};
use super::truth::{Awake, BROKER, Truth, note};
use super::{members, producers, world};
use crate::broker::{Broker, Start};
use crate::plan::Faults;

/// Where brokers listen for each other.
pub const PEER_PORT: u16 = 9192;
/// How long a member may go on believing what is over, once nothing keeps it from hearing of it: as long as its session, and until it
/// has asked again.
const BELIEVES_MAX: Duration = Duration::from_secs(5);
/// Once nothing strikes any more, each partition has an owner, all that was there is worked through, and all producers write, within this.
const RECOVERED_MAX: Duration = Duration::from_secs(30);
/// What wall clocks show when the world begins: little, so that times are easy to read.
const EPOCH_MS: u64 = 1_000_000_000;
/// Programs end within this.
const ENDED_MAX: Duration = Duration::from_secs(20);

/// What a program does on its machine.
#[derive(Clone)]
enum Role {
    Producer(usize),
    Member(usize),
    Watcher,
    /// Asks a broker where partitions end.
    Observer(usize),
    Operator,
}

struct Program {
    role: Role,
    process: Process,
    awake: Awake,
}

pub struct Story {
    pub sim: Sim,
    pub brokers: Vec<Broker>,
    /// Of those that are not who founded the cluster.
    pub identities: Vec<Option<Identity>>,
    settings: crate::plan::Plan,
    programs: Vec<Program>,
    shared: Rc<Shared>,
    pub dice: Dice,
}

/// Runs a plan; a hash of all that happened.
pub fn run(plan: &Plan) -> u64 {
    let _entered = world::enter();
    let mut story = Story::new(plan);
    story.begin();
    for _ in 0..plan.strikes {
        story.run_below(2_500);
        story.strike();
    }
    story.recover();
    story.end();
    if plan.ordeal.is_some() {
        story.settle_cluster(true);
        story.judge_cluster();
    }
    story.judge();
    story.sim.trace_hash()
}

impl Story {
    fn new(plan: &Plan) -> Story {
        let config = SimConfig {
            network_latency: plan.network_latency.clone(),
            reset_one_in: plan.reset_one_in,
            wall_clock_start_ms: EPOCH_MS as i64,
            ..SimConfig::default()
        };
        let sim = Sim::with_config(plan.seed, config);
        let broker = |at| Broker::on(sim.process(&format!("broker {}", at + 1)));
        let brokers: Vec<Broker> = (0..plan.brokers).map(broker).collect();
        let mut roles: Vec<Role> = (0..plan.producers.len()).map(Role::Producer).collect();
        for (group, it) in plan.groups.iter().enumerate() {
            roles.extend((0..it.members).map(|_| Role::Member(group)));
        }
        roles.push(Role::Watcher);
        if plan.ordeal.is_some() {
            roles.extend((0..plan.brokers).map(Role::Observer));
        }
        if plan.ordeal == Some(Ordeal::Moves) {
            roles.push(Role::Operator);
        }
        let program = |role| Program { role, process: sim.process("program"), awake: Awake::default() };
        let programs = roles.into_iter().map(program).collect();
        let shared = Rc::new(Shared {
            plan: plan.clone(),
            truth: RefCell::new(Truth::new(BELIEVES_MAX)),
            bootstrap: brokers
                .iter()
                .map(|broker| broker.address().to_string())
                .collect::<Vec<_>>()
                .join(","),
            calm: Cell::default(),
            stop: Cell::default(),
            working: Cell::default(),
            heard: RefCell::default(),
        });
        let settings = crate::plan::Plan::from_seed(plan.seed, Faults::Network);
        let identities = vec![None; plan.brokers];
        Story { sim, brokers, identities, settings, programs, shared, dice: Dice(plan.seed) }
    }

    pub fn note(&self, what: &str) {
        note(|| format!("{:?}: {what}", Duration::from_millis(EPOCH_MS) + self.sim.elapsed()));
    }

    pub fn run_below(&mut self, millis: u64) {
        let time = self.dice.millis(millis);
        self.sim.run_for(time);
    }

    fn begin(&mut self) {
        self.note(&format!("{:?}", self.shared.plan));
        (0..self.brokers.len()).for_each(|at| self.start_broker(at));
        self.await_brokers();
        let shared = self.shared.clone();
        self.sim.block_on(async move {
            let (client, plan) = (connect(&shared.bootstrap).await, &shared.plan);
            for (number, partitions) in plan.topics.iter().enumerate() {
                let topic = NewTopic::new(topic_name(number)).partitions(*partitions);
                let topic = topic.replication(plan.replication_of(number));
                // Asked again when an answer was lost.
                match client.admin().create_topic(topic).await {
                    Err(error) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {}
                    created => drop(created.expect("nothing strikes yet")),
                }
            }
        });
        (0..self.programs.len()).for_each(|machine| self.start(machine));
    }

    pub fn start_broker(&mut self, at: usize) {
        let cores = 1 + self.dice.below(self.shared.plan.cores_max) as usize;
        self.note(&format!("broker {} starts with {cores} cores", at + 1));
        if self.brokers.len() == 1 {
            return self.brokers[at].start(&self.settings, cores);
        }
        let (identity, member) = self.membership(at);
        self.brokers[at].start_as(&self.settings, cores, identity, Some(member));
    }

    /// The brokers are as if they had founded their cluster.
    fn membership(&self, at: usize) -> (Identity, MemberPlan) {
        let peer = |broker: &Broker| SocketAddr::new(broker.machine.ip(), PEER_PORT);
        let id = |at: usize| at as i32 + 1;
        let founder = |(at, broker): (usize, &Broker)| Founder {
            node_id: id(at),
            directory: Uuid([id(at) as u8; 16]),
            replica: ReplicaId(id(at) as u64),
            peer: Endpoint { host: peer(broker).ip().to_string(), port: PEER_PORT },
        };
        let founders: Vec<Founder> = self.brokers.iter().enumerate().map(founder).collect();
        let founded = Identity {
            cluster_id: "simulated-cluster-aaaa".into(),
            node_id: id(at),
            directory: founders[at].directory,
            belongs: Belongs::Founder(founders),
        };
        let identity = self.identities[at].clone().unwrap_or(founded);
        let known = self.brokers.iter().enumerate().map(|(at, broker)| (BrokerId(id(at)), peer(broker)));
        let member = MemberPlan {
            peer: peer(&self.brokers[at]),
            incarnation: Incarnation(self.sim.random_u64()),
            known: known.collect(),
            seeds: self.brokers.iter().map(peer).filter(|seed| *seed != peer(&self.brokers[at])).collect(),
        };
        (identity, member)
    }

    fn await_brokers(&self) {
        for broker in &self.brokers {
            assert_eq!(broker.await_ready(&self.sim), Start::Ready);
        }
    }

    fn start(&self, machine: usize) {
        let Program { role, process, awake } = &self.programs[machine];
        let (shared, role) = (self.shared.clone(), role.clone());
        let app = (shared.clone(), process.clone(), awake.clone());
        let brokers: Vec<SocketAddr> = self.brokers.iter().map(Broker::address).collect();
        shared.working.set(shared.working.get() + 1);
        process.start(1, move |_| {
            let (shared, process, awake) = app.clone();
            let app = Rc::new(App { shared: shared.clone(), machine, process, awake });
            let (role, brokers) = (role.clone(), brokers.clone());
            async move {
                match role {
                    Role::Producer(at) => producers::produce(app, shared.plan.producers[at]).await,
                    Role::Member(group) => {
                        let plan = shared.plan.groups[group].clone();
                        members::take_part(app, group, plan).await;
                    }
                    Role::Watcher => watch(app).await,
                    Role::Observer(at) => observer::observe(app, at + 1, brokers[at]).await,
                    Role::Operator => mover::operate(app, brokers).await,
                }
                shared.working.set(shared.working.get() - 1);
            }
        });
    }

    // What strikes.

    fn disturb(&self, machine: usize, until: Duration) {
        let until = until.checked_add(Duration::from_millis(EPOCH_MS)).unwrap_or(Duration::MAX);
        self.shared.truth.borrow_mut().disturb(machine, until);
    }

    fn strike(&mut self) {
        let machine = self.dice.below(self.programs.len() as u64) as usize;
        let process = self.programs[machine].process.clone();
        let struck = match self.dice.below(9) {
            0..4 => BROKER,
            _ => machine,
        };
        self.disturb(struck, Duration::MAX);
        let most = self.dice.pick(&[300, 2_000, 8_000]);
        let long = self.dice.millis(most);
        match struck {
            BROKER => match self.shared.plan.ordeal.filter(|_| self.dice.below(3) > 0) {
                Some(ordeal) => self.strike_cluster(ordeal, long),
                None => self.strike_broker(long),
            },
            _ => self.strike_program(machine, &process, long),
        }
        self.disturb(struck, self.sim.elapsed());
    }

    fn strike_broker(&mut self, long: Duration) {
        let at = self.dice.below(self.brokers.len() as u64) as usize;
        let kind = self.dice.below(if self.brokers.len() == 1 { 6 } else { 8 });
        self.note(&format!("strike {kind} at broker {}, for {long:?}", at + 1));
        match kind {
            0 => self.brokers[at].machine.crash(),
            1 => self.brokers[at].machine.kill(),
            2 => self.brokers[at].stop(&self.sim),
            3 => {
                self.brokers[at].machine.pause();
                self.sim.run_for(long);
                self.brokers[at].machine.resume();
            }
            4 => {
                self.brokers[at].machine.disk().stall(long);
                self.sim.run_for(long);
            }
            // What is answered meanwhile is lost, or late.
            5 => self.cut_all(at, long),
            _ => self.cut_from_brokers(at, long),
        }
        if kind < 3 {
            self.sim.run_for(long);
            self.start_broker(at);
            assert_eq!(self.brokers[at].await_ready(&self.sim), Start::Ready);
        }
    }

    fn cut_all(&mut self, at: usize, long: Duration) {
        let long = self.cut_time(long);
        let broker = self.brokers[at].machine.clone();
        for program in &self.programs {
            self.sim.partition(&broker, &program.process);
        }
        self.sim.run_for(long);
        for program in &self.programs {
            if self.dice.below(2) == 0 {
                self.sim.reset_connections(&broker, &program.process);
            }
            self.sim.heal(&broker, &program.process);
        }
    }

    /// From one of them, or from all; programs reach it all the same.
    fn cut_from_brokers(&mut self, at: usize, long: Duration) {
        let others: Vec<usize> = (0..self.brokers.len()).filter(|other| *other != at).collect();
        let cut = match self.dice.below(2) {
            0 => others,
            _ => vec![self.dice.pick(&others)],
        };
        let machine = |at: &usize| self.brokers[*at].machine.clone();
        cut.iter().for_each(|other| self.sim.partition(&machine(&at), &machine(other)));
        self.sim.run_for(long);
        cut.iter().for_each(|other| self.sim.heal(&machine(&at), &machine(other)));
    }

    /// Of a cluster, whose commits take long enough for it: so short that no request is given up meanwhile and sent again. The first
    /// would arrive when the cut heals, perhaps behind the second, and an older commit count for the newer one: by the classic
    /// protocol a member cannot fence its own former requests.
    fn cut_time(&self, long: Duration) -> Duration {
        match self.brokers.len() {
            1 => long,
            _ => long.min(self.shared.plan.request_timeout / 3),
        }
    }

    fn strike_program(&mut self, machine: usize, process: &Process, long: Duration) {
        let kind = self.dice.below(5);
        self.note(&format!("strike {kind} at program {machine}, for {long:?}"));
        match kind {
            0 => self.brokers.iter().for_each(|one| self.sim.reset_connections(&one.machine, process)),
            1 | 2 => {
                let long = self.cut_time(long);
                self.brokers.iter().for_each(|one| self.sim.partition(&one.machine, process));
                self.sim.run_for(long);
                self.brokers.iter().for_each(|one| self.sim.heal(&one.machine, process));
            }
            3 => {
                process.pause();
                self.sim.run_for(long);
                self.programs[machine].awake.resume(long);
                process.resume();
            }
            _ => {
                match self.dice.below(2) {
                    0 => process.kill(),
                    _ => process.crash(),
                }
                self.shared.working.set(self.shared.working.get() - 1);
                self.shared.truth.borrow_mut().machine_gone(machine);
                self.sim.run_for(long);
                self.start(machine);
            }
        }
    }

    // What comes after.

    fn partitions(&self) -> Vec<TopicPartition> {
        let topics = self.shared.plan.topics.iter().enumerate();
        let of_topic = |(topic, count): (usize, &i32)| {
            (0..*count)
                .map(move |partition| TopicPartition::new(topic_name(topic), partition))
                .collect::<Vec<_>>()
        };
        topics.flat_map(of_topic).collect()
    }

    /// Drives the world until nothing is missing. Who is slow gets on, if it takes long: nobody stands still for `limit`.
    pub fn run_until_none(&mut self, limit: Duration, missing: impl Fn(&Story) -> Vec<String>) {
        let last = self.sim.elapsed() + limit * 10;
        let (mut until, mut before) = (self.sim.elapsed() + limit, Vec::new());
        loop {
            let missing = missing(self);
            if missing.is_empty() {
                return;
            }
            if missing != before {
                until = (self.sim.elapsed() + limit).min(last);
                before.clone_from(&missing);
            }
            assert!(self.sim.elapsed() < until, "after {limit:?} without faults: {}", missing.join("; "));
            self.sim.run_for(Duration::from_millis(50));
        }
    }

    fn recover(&mut self) {
        self.note("nothing strikes any more");
        self.shared.calm.set(true);
        let partitions = self.partitions();
        let ends: Vec<i64> = {
            let truth = self.shared.truth.borrow();
            partitions.iter().map(|at| truth.known_end(at)).collect()
        };
        self.run_until_none(RECOVERED_MAX, |story| {
            let mut missing = Vec::new();
            let mut truth = story.shared.truth.borrow_mut();
            for group in 0..story.shared.plan.groups.len() {
                for (at, end) in partitions.iter().zip(&ends) {
                    let owners = truth.owners(group, at);
                    let through = truth.worked_through(group, at);
                    if owners != 1 || through < *end {
                        missing.push(format!(
                            "group {group} has {owners} owners of {at}, and is through with {through} of {end} records"
                        ));
                    }
                }
            }
            let heard = story.shared.heard.borrow();
            for (machine, program) in story.programs.iter().enumerate() {
                if matches!(program.role, Role::Producer(_)) && !heard.contains(&machine) {
                    missing.push(format!("producer {machine} has nothing acknowledged"));
                }
            }
            missing
        });
    }

    fn end(&mut self) {
        self.note("programs end");
        self.shared.stop.set(true);
        self.run_until_none(ENDED_MAX, |story| match story.shared.working.get() {
            0 => Vec::new(),
            working => vec![format!("{working} programs have not ended")],
        });
        self.sim.run_for(Duration::from_secs(1));
        for (machine, program) in self.programs.iter().enumerate() {
            assert_eq!(program.process.descriptors(), 0, "program {machine} left connections open");
        }
    }

    fn judge(&mut self) {
        for at in self.partitions() {
            let (bootstrap, of) = (self.shared.bootstrap.clone(), at.clone());
            let records = self.sim.block_on(async move { read_all(&bootstrap, of).await });
            self.shared.truth.borrow_mut().judge(&at, &records);
        }
        let truth = self.shared.truth.borrow();
        self.note(&format!(
            "{} acknowledged, {} polled, {} overlaps, {:?}, {} steps",
            truth.acknowledged,
            truth.polled,
            truth.overlaps_seen,
            self.sim.elapsed(),
            self.sim.steps()
        ));
    }
}

/// Connections may break at any time.
async fn connect(bootstrap: &str) -> Client {
    loop {
        match Client::connect(client_config(bootstrap, Duration::from_secs(2))).await {
            Ok(client) => return client,
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    }
}

async fn read_all(bootstrap: &str, at: TopicPartition) -> Vec<ConsumerRecord> {
    let client = connect(bootstrap).await;
    let config = ConsumerConfig { offset_reset: OffsetReset::Earliest, ..ConsumerConfig::default() };
    let consumer = client.consumer(config).expect("the config is sound");
    let listed = consumer.offsets(vec![(at.clone(), OffsetSpec::Latest)]).await.expect("an answer");
    let end = listed
        .into_iter()
        .next()
        .and_then(|(_, listed)| listed.expect("an answer").offset)
        .expect("it has an end");
    consumer.assign([at]).expect("it is not subscribed");
    let mut records = Vec::new();
    while (records.len() as i64) < end {
        let polled = consumer.poll(Duration::from_secs(10)).await.expect("what can be retried is");
        assert!(!polled.is_empty(), "nothing comes, with {} of {end} records read", records.len());
        records.extend(polled);
    }
    records
}
