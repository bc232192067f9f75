//! The simulated world: whole clusters of production code on one OS thread, from one seed.
//!
//! A [`Sim`] holds machines ([`Process`]): each has a disk, an address and clocks of its own, and runs at most one
//! process of any number of cores. A test starts processes, drives the world ([`Sim::block_on`], [`Sim::run_for`],
//! [`Sim::run_steps`]), and strikes: crash, kill, pause or wipe a machine, cut or slow a [`Link`], fail an I/O, flip a bit,
//! fill the disk. It may do so from outside, or from the future that it blocks on.
//!
//! ```
//! use corelog_io::sim::Sim;
//! use corelog_io::{fs, now, sleep};
//! use std::path::Path;
//! use std::time::Duration;
//!
//! let sim = Sim::new(42);
//! let broker = sim.process("broker");
//! broker.start(2, |ctx| async move {
//!     let name = format!("/core-{}", ctx.core);
//!     fs::write_atomic(Path::new(&name), b"durable").await.unwrap();
//! });
//! sim.run_until_idle(10_000);
//! broker.crash();
//! assert_eq!(broker.disk().contents(Path::new("/core-1")).unwrap(), b"durable");
//!
//! let waited = sim.block_on(async {
//!     let start = now();
//!     sleep(Duration::from_secs(3600)).await; // an hour passes at once
//!     now() - start
//! });
//! assert!(waited >= Duration::from_secs(3600));
//! ```
//!
//! What is simulated is what the crate offers; code that reaches around it (threads, the machine's clock, hash maps
//! with random order) is not, and shows as a [`Sim::trace_hash`] that differs between runs of one seed.

mod device;
mod disk;
mod faults;
pub(crate) mod file;
mod link;
mod machine;
pub(crate) mod net;
mod pages;
mod process;
mod random;
mod scheduler;
mod task;
mod trace;

pub use device::{Disk, DiskOp};
pub use link::Link;
pub use process::{Process, Turn};
pub(crate) use scheduler::Context;
pub(crate) use task::{Sleep, Task};

use machine::Machine;
use random::Random;
use scheduler::Scheduler;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// How the world is. [`SimConfig::default`] is a moderate disk and network without faults.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Latency of one disk operation, before what its bytes cost (1 GB/s); some take ten times as long.
    pub disk_latency: Range<Duration>,
    /// Latency of one hop between machines.
    pub network_latency: Range<Duration>,
    /// What one poll of a task takes.
    pub poll_cost: Range<Duration>,
    /// One task in this many gives way where it may, before its turn is over; 0 = none.
    pub yield_one_in: u64,
    /// One sent segment in this many breaks its connection; 0 = none.
    pub reset_one_in: u64,
    /// One connection in this many is not told when its peer loses its power; 0 = none.
    pub half_open_one_in: u64,
    /// The wall clock at the start, milliseconds since the Unix epoch.
    pub wall_clock_start_ms: i64,
    /// Virtual time after which [`Sim::block_on`] takes its future for stuck.
    pub time_limit: Duration,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            disk_latency: Duration::from_micros(20)..Duration::from_micros(500),
            network_latency: Duration::from_micros(10)..Duration::from_micros(300),
            poll_cost: Duration::from_nanos(100)..Duration::from_micros(5),
            yield_one_in: 8,
            reset_one_in: 0,
            half_open_one_in: 0,
            wall_clock_start_ms: 1_700_000_000_000,
            time_limit: Duration::from_secs(24 * 3600),
        }
    }
}

/// The future has not completed, and nothing can run any more or the time limit has passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulation with seed {seed} is stuck at {at:?}, step {steps}, with {tasks} tasks waiting")]
pub struct Stalled {
    pub seed: u64,
    pub steps: u64,
    /// Virtual time since the world began.
    pub at: Duration,
    pub tasks: usize,
}

/// One simulated world. Same seed, same code: same run, to the byte. Clones are handles to the same world, which ends
/// with the last of them.
#[derive(Clone)]
pub struct Sim {
    world: Rc<Owner>,
}

struct Owner {
    scheduler: Rc<Scheduler>,
    /// The tester's machine, on which [`Sim::block_on`] runs.
    tester: Rc<Context>,
    /// Apart from the world's own, so that a test's draws do not shift it.
    random: RefCell<Random>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.scheduler.clear();
    }
}

impl Sim {
    pub fn new(seed: u64) -> Sim {
        Sim::with_config(seed, SimConfig::default())
    }

    pub fn with_config(seed: u64, config: SimConfig) -> Sim {
        let scheduler = Scheduler::new(seed, config);
        let tester = Machine::new(&scheduler, "tester").boot(1).remove(0);
        let random = RefCell::new(Random::new(!seed));
        Sim { world: Rc::new(Owner { scheduler, tester, random }) }
    }

    pub fn seed(&self) -> u64 {
        self.scheduler().seed
    }

    fn scheduler(&self) -> &Rc<Scheduler> {
        &self.world.scheduler
    }

    /// A new machine with an empty disk and an address of its own; nothing runs on it yet.
    pub fn process(&self, name: &str) -> Process {
        Process { machine: Machine::new(self.scheduler(), name) }
    }

    /// The machine that [`Sim::block_on`]'s futures run on: for cutting it off, or a look at its disk.
    pub fn tester(&self) -> Process {
        Process { machine: Rc::clone(&self.world.tester.machine) }
    }

    /// Drives the world until `future` completes. It runs as a task of the tester's machine. Panics, naming the seed,
    /// when the world is stuck.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.try_block_on(future).unwrap_or_else(|stalled| panic!("{stalled}"))
    }

    /// As [`Sim::block_on`], with an error when the world is stuck.
    pub fn try_block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Result<T, Stalled> {
        self.scheduler().block_on(&self.world.tester, future)
    }

    /// Drives the world until nothing can run and nothing is pending, or `steps` are done; true if it went quiet.
    pub fn run_until_idle(&self, steps: u64) -> bool {
        self.run_steps(steps) < steps
    }

    /// Drives the world for this much virtual time.
    pub fn run_for(&self, d: Duration) {
        let until = self.scheduler().now().saturating_add(d.as_nanos() as u64);
        // A mark at the end, so that the clock gets there.
        self.scheduler().at(until, || {});
        while self.scheduler().now() < until && self.scheduler().step(until) {}
    }

    /// Does at most `n` scheduler steps; how many there were to do.
    pub fn run_steps(&self, n: u64) -> u64 {
        (0..n).take_while(|_| self.scheduler().step(u64::MAX)).count() as u64
    }

    /// Steps done since the world began.
    pub fn steps(&self) -> u64 {
        self.scheduler().steps()
    }

    /// Completes so many steps from now on. For the future that [`Sim::block_on`] runs.
    pub async fn pass_steps(&self, n: u64) {
        let until = self.steps() + n;
        poll_fn(|context| {
            let left = until.saturating_sub(self.steps());
            if left == 0 {
                return Poll::Ready(());
            }
            self.scheduler().wake_after_steps(left, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.scheduler().now())
    }

    /// Hash of everything that happened so far; equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.scheduler().trace.hash()
    }

    /// A random number for the test itself, from the seed.
    pub fn random_u64(&self) -> u64 {
        self.world.random.borrow_mut().next()
    }

    /// What `from` sends to `to`.
    pub fn link(&self, from: &Process, to: &Process) -> Link {
        Link::new(self.scheduler(), from, to)
    }

    fn links(&self, a: &Process, b: &Process) -> [Link; 2] {
        [self.link(a, b), self.link(b, a)]
    }

    /// Cuts the two machines off from each other. What is under way arrives after [`Sim::heal`].
    pub fn partition(&self, a: &Process, b: &Process) {
        self.links(a, b).iter().for_each(Link::cut);
    }

    /// The two machines' links are as the network is by itself.
    pub fn heal(&self, a: &Process, b: &Process) {
        self.links(a, b).iter().for_each(Link::heal);
    }

    /// Resets every connection between the two machines.
    pub fn reset_connections(&self, a: &Process, b: &Process) {
        self.scheduler().network.reset(a.machine.id, b.machine.id);
    }
}
