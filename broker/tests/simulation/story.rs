//! The story of one broker and its data: its lives, what strikes it, and the end, when all is judged.
//!
//! It is told by a task of the tester's machine: several are told at once in a world of several brokers.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::Dice;
use corelog_io::sim::{Process, Sim, SimConfig};
use corelog_io::sleep;

use crate::broker::{Broker, Start};
use crate::plan::{Faults, Plan};
use crate::shared::Shared;
use crate::strikes::After;
use crate::truth::Place;
use crate::{clients, guests, probe};

/// After the faults have ended, all that was begun is finished within this much virtual time.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// With space on the disk again, produce comes back within this, without a restart.
pub const RELIEF_MAX: Duration = Duration::from_secs(10);
/// Once what struck the broker is over, every client is answered within this.
const ANSWERED_MAX: Duration = Duration::from_secs(60);
/// What one task may hold a core for. By the work that is told at the seam: no clock runs meanwhile.
const TURN_MAX: Duration = Duration::from_millis(1);
/// Consumers that wait have everything this long after the last acknowledgement.
const CATCH_UP_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs a plan in a world of its own; a hash of all that happened.
pub fn run(plan: &Plan) -> u64 {
    let sim = Sim::with_config(plan.seed, plan.world());
    let machine = sim.process("broker");
    let story = Story::new(&sim, machine, plan);
    sim.block_on(story.tell());
    sim.trace_hash()
}

impl Plan {
    /// The world around it.
    pub fn world(&self) -> SimConfig {
        SimConfig {
            reset_one_in: self.reset_one_in,
            half_open_one_in: self.half_open_one_in,
            ..SimConfig::default()
        }
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
    /// Of a broker on `machine`, whose disk is empty.
    pub fn new(sim: &Sim, machine: Process, plan: &Plan) -> Story {
        let name = machine.name();
        let clients = sim.process(&format!("clients of {name}"));
        let guests = sim.process(&format!("guests of {name}"));
        let broker = Broker::on(machine);
        let shared = Shared::new(plan, broker.address());
        Story { sim: sim.clone(), broker, clients, guests, shared, dice: Dice(plan.seed) }
    }

    /// From the first start to the last judgement.
    pub async fn tell(mut self) {
        self.begin();
        for _ in 0..self.plan().incarnations {
            self.live().await;
        }
        self.finish().await;
        self.judge().await;
        if self.plan().faults == Faults::OneDamage {
            self.damage().await;
        }
        self.expect_short_turns();
        self.broker.machine.kill();
    }

    /// As [`Story::tell`], and in the middle of it the broker, its data and its clients are gone for good.
    pub async fn break_off(mut self) {
        self.begin();
        for _ in 0..self.plan().incarnations {
            self.live().await;
        }
        self.start();
        let until_then = self.dice.millis(2_000);
        sleep(until_then).await;
        self.note("is gone, with its data and its clients");
        self.expect_short_turns();
        self.guests.kill();
        self.clients.kill();
        self.broker.machine.kill();
    }

    fn begin(&mut self) {
        let shared = self.shared.clone();
        self.clients.start(1, move |_| clients::work(shared.clone()));
        let shared = self.shared.clone();
        self.guests.start(1, move |_| {
            guests::come(&shared, || shared.guest());
            std::future::ready(())
        });
    }

    fn expect_short_turns(&self) {
        let Some(longest) = self.broker.machine.longest_turn() else { return };
        self.note(&format!("longest turn: {longest:?}"));
        assert!(longest.cost < TURN_MAX, "a turn is too long: {longest:?}");
    }

    /// Shown if the run fails.
    pub fn note(&self, what: &str) {
        let name = self.broker.machine.name();
        eprintln!("{:?}, step {}: {name}: {what}", self.sim.elapsed(), self.sim.steps());
    }

    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub async fn sleep_below(&mut self, millis: u64) {
        sleep(self.dice.millis(millis)).await;
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
    async fn live(&mut self) {
        self.start();
        match self.dice.below(8) {
            0 => {
                self.note("dies while it starts");
                self.sim.pass_steps(self.dice.below(1_500)).await;
                return self.end().await;
            }
            1 => {
                self.note("is told to stop while it starts");
                self.sim.pass_steps(self.dice.below(1_500)).await;
                return self.stop().await;
            }
            _ => {}
        }
        match self.broker.ready().await {
            Start::Ready => {}
            Start::Failed(what) => {
                assert!(self.shared.truth.borrow().storage_may_fail, "the broker does not start: {what}");
                return self.end().await;
            }
            Start::Died => unreachable!("nothing strikes it yet"),
        }
        for _ in 0..1 + self.dice.below(3) {
            self.sleep_below(300).await;
            let after = self.strike().await;
            if self.plan().is_unhurried() {
                self.all_are_answered().await;
            }
            if after == After::Restart {
                self.note("is killed");
                self.broker.machine.kill();
                return;
            }
        }
        self.sleep_below(200).await;
        if self.topics_are_compared() && self.dice.below(2) == 0 {
            return self.compare_topics().await;
        }
        self.end().await;
    }

    /// What was is over: every client has an answer from now on, whatever it is.
    async fn all_are_answered(&self) {
        self.shared.is_quiet.set(true);
        self.shared.pulses.begin_era();
        let answered = |shared: &Shared| shared.pulses.missing().is_empty();
        let limit = ANSWERED_MAX + self.plan().patience();
        let until = self.sim.elapsed() + limit;
        while !answered(&self.shared) {
            let missing = || self.shared.pulses.missing();
            assert!(self.sim.elapsed() < until, "not answered after {limit:?}: {:?}", missing());
            sleep(LOOK_EVERY).await;
        }
        self.shared.is_quiet.set(false);
    }

    /// The end of a life: power loss at any step, kill, or a stop in good order.
    pub async fn end(&mut self) {
        match self.dice.below(5) {
            0 => {
                self.note("is killed");
                self.broker.machine.kill();
            }
            1 if self.broker.is_up() => self.stop().await,
            _ => {
                let steps = self.dice.below(5_000);
                self.broker.machine.crash_after(steps);
                self.sim.pass_steps(steps + 1).await;
                if self.broker.machine.is_running() {
                    self.broker.machine.crash();
                }
                self.note("has lost its power");
            }
        }
        // The clients meanwhile meet closed doors.
        self.sleep_below(200).await;
    }

    async fn stop(&mut self) {
        let may_fail = std::mem::replace(&mut self.shared.truth.borrow_mut().storage_may_fail, true);
        self.note("is told to stop");
        self.broker.stopped().await;
        self.note("has stopped");
        self.shared.truth.borrow_mut().storage_may_fail = may_fail;
    }

    /// A last life without faults: clients finish, and what they wait for comes.
    async fn finish(&mut self) {
        self.broker.machine.disk().clear_faults();
        self.start();
        let started = self.broker.ready().await;
        assert_eq!(started, Start::Ready, "on a sound disk");
        let before = self.shared.truth.borrow().acknowledged;
        self.until(RELIEF_MAX + self.plan().patience(), "a sound broker acknowledges nothing", |shared| {
            shared.truth.borrow().acknowledged > before
        })
        .await;
        // Faults of former lives are answered for.
        self.sleep_below(400).await;
        self.guests.kill();
        self.shared.stop.set(true);
        let finishing = clients::workers(self.plan());
        let finished = |shared: &Shared| shared.finished.get() == finishing;
        self.until(FINISH_MAX, "clients have not finished", finished).await;
        self.shared.truth.borrow_mut().storage_may_fail = false;
        self.until(CATCH_UP_MAX + self.plan().patience(), "waiting consumers were not woken", |shared| {
            let truth = shared.truth.borrow();
            let followers = shared.followers.borrow();
            let behind = |at: &std::collections::BTreeMap<Place, i64>| {
                truth.partitions.iter().any(|(place, partition)| at[place] < partition.acked_end)
            };
            !followers.is_empty() && !followers.values().any(behind)
        })
        .await;
        // Whoever still waits is gone before anything is called lost.
        self.clients.kill();
        sleep(Duration::from_secs(2)).await;
        self.probe(0).await;
    }

    /// A new client finds all partitions but `broken_max` sound, and all else in order.
    pub async fn probe(&self, broken_max: usize) {
        probe::probe(self.shared.guest(), broken_max).await;
    }

    pub async fn until(&self, limit: Duration, what: &str, done: impl Fn(&Shared) -> bool) {
        let until = self.sim.elapsed() + limit;
        while !done(&self.shared) {
            let working = || self.shared.pulses.working();
            assert!(self.sim.elapsed() < until, "{what} after {limit:?}; at work: {:?}", working());
            sleep(LOOK_EVERY).await;
        }
    }
}
