//! The simulated world: whole clusters of production code on one OS thread, from one seed.
//!
//! A [`Sim`] holds machines ([`Process`]): each has a disk, an address and clocks of its own, and runs at most one
//! process of any number of cores. A test starts processes, drives the world ([`Sim::block_on`], [`Sim::run_for`],
//! [`Sim::run_steps`]), and strikes: crash, kill, pause, cut the network, fail an I/O, flip a bit, fill the disk.
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

mod disk;
pub(crate) mod file;
mod machine;
pub(crate) mod net;
mod pages;
mod random;
mod scheduler;
mod trace;

pub(crate) use scheduler::{Context, Sleep, Task};

use crate::CoreCtx;
use machine::Machine;
use random::Random;
use scheduler::Scheduler;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::rc::Rc;
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

    /// Cuts the two machines off from each other. What is under way arrives after [`Sim::heal`].
    pub fn partition(&self, a: &Process, b: &Process) {
        self.scheduler().network.cut(a.machine.id, b.machine.id);
    }

    /// Ends [`Sim::partition`].
    pub fn heal(&self, a: &Process, b: &Process) {
        self.scheduler().network.heal(self.scheduler(), a.machine.id, b.machine.id);
    }

    /// Resets every connection between the two machines.
    pub fn reset_connections(&self, a: &Process, b: &Process) {
        self.scheduler().network.reset(a.machine.id, b.machine.id);
    }
}

/// A simulated machine: a disk, an address and clocks that stay, and at most one running process.
#[derive(Clone)]
pub struct Process {
    machine: Rc<Machine>,
}

impl Process {
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// The address by which machines reach it.
    pub fn ip(&self) -> IpAddr {
        self.machine.ip()
    }

    /// Starts `cores` cores, each running `main`. Panics if it runs already. Unlike a glommio core, a core does not
    /// end with its main: tasks that main detached run on.
    pub fn start<F, Fut>(&self, cores: usize, main: F)
    where
        F: Fn(CoreCtx) -> Fut + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.start_with(vec![(); cores], move |core, ()| main(core));
    }

    /// As [`Process::start`], with a core for each of `seeds`, which is moved to it: its seats in meshes, its end of a
    /// mailbox.
    pub fn start_with<S, F, Fut>(&self, seeds: Vec<S>, main: F)
    where
        S: 'static,
        F: Fn(CoreCtx, S) -> Fut + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.machine.start(seeds, main);
    }

    /// Whether it was started and neither crashed nor killed since.
    pub fn is_running(&self) -> bool {
        self.machine.is_running()
    }

    /// Power loss: all tasks are dropped; what was not synced is kept, lost or torn by the seed; connections break.
    pub fn crash(&self) {
        self.machine.crash();
    }

    /// kill -9: all tasks are dropped, connections break, the disk keeps everything written.
    pub fn kill(&self) {
        self.machine.kill();
    }

    /// Arms a power loss `steps` scheduler steps from now; the process must be started again afterwards.
    pub fn crash_after(&self, steps: u64) {
        self.machine.arm_crash(self.machine.scheduler().steps() + steps);
    }

    /// SIGSTOP: its tasks do not run; the machine's kernel goes on.
    pub fn pause(&self) {
        self.machine.paused.set(true);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.machine.paused.set(false);
    }

    /// One core of the process does not run (its thread is kept off the CPU, or is in a turn without end), while the
    /// others do.
    pub fn pause_core(&self, core: usize) {
        self.machine.paused_cores.borrow_mut().insert(core);
    }

    /// Ends [`Process::pause_core`].
    pub fn resume_core(&self, core: usize) {
        self.machine.paused_cores.borrow_mut().remove(&core);
    }

    /// From now on the process may have `limit` descriptors open (RLIMIT_NOFILE): files, sockets, listeners. Opening
    /// another, accepting and connecting fail with EMFILE.
    pub fn set_descriptor_limit(&self, limit: usize) {
        self.machine.descriptors_max.set(limit);
    }

    /// Descriptors that the process has open.
    pub fn descriptors(&self) -> usize {
        self.machine.descriptors()
    }

    /// The longest turn that a task of this machine has had since [`Process::forget_turns`].
    pub fn longest_turn(&self) -> Option<Turn> {
        self.machine.longest_turn.get()
    }

    pub fn forget_turns(&self) {
        self.machine.longest_turn.set(None);
    }

    /// Its disk, for faults and a look inside.
    pub fn disk(&self) -> Disk {
        Disk { machine: Rc::clone(&self.machine) }
    }

    /// Moves the wall clock by `wall_jump_ms`, and lets both clocks run fast by `drift_ppm` (parts per million) from
    /// now on.
    pub fn set_clock(&self, wall_jump_ms: i64, drift_ppm: i32) {
        self.machine.set_clock(self.machine.scheduler().now(), wall_jump_ms, drift_ppm);
    }
}

/// One poll of a task, by the work that it told at the seam: the same for every run of a seed.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub cost: Duration,
    pub core: usize,
    /// Where the task was spawned.
    pub spawned_at: &'static Location<'static>,
}

/// Which operations a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    Read,
    Write,
    /// fdatasync and the sync of a directory. A failed one leaves what it covered in doubt for good: later syncs do
    /// not write it (as Linux does).
    Sync,
    /// Opening, naming, allocating, truncating.
    Metadata,
}

/// A simulated disk.
#[derive(Clone)]
pub struct Disk {
    machine: Rc<Machine>,
}

impl Disk {
    /// The `nth` (0 = next) operation of kind `op` on a path that contains `path_part` fails with `error`, once. A
    /// write that fails has written a part of its bytes.
    pub fn fail_nth(&self, op: DiskOp, path_part: &str, nth: u64, error: io::ErrorKind) {
        self.machine.disk.borrow_mut().add_fault(op, path_part, nth, error);
    }

    /// Every operation of kind `op` on a path that contains `path_part` fails with `errno` (libc::EIO, ENOSPC, EMFILE, ..)
    /// until [`Disk::clear_faults`].
    pub fn fail_until_cleared(&self, op: DiskOp, path_part: &str, errno: i32) {
        self.machine.disk.borrow_mut().add_lasting_fault(op, path_part, errno);
    }

    /// Takes back what [`Disk::fail_nth`] set and has not struck yet, and what [`Disk::fail_until_cleared`] did.
    pub fn clear_faults(&self) {
        self.machine.disk.borrow_mut().clear_faults();
    }

    /// Flips one bit of a file, for readers and on the medium. `bit` counts from the file's first.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        let mut disk = self.machine.disk.borrow_mut();
        if disk.contents_of(path)?.flip_bit(bit) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The pages of 4096 bytes that the range touches cannot be read (EIO), nor written in part, until they are written
    /// whole and synced: a drive's unreadable sectors.
    pub fn make_unreadable(&self, path: &Path, pos: u64, len: usize) -> io::Result<()> {
        self.machine.disk.borrow_mut().contents_of(path)?.make_unreadable(pos, len);
        Ok(())
    }

    /// At a power loss, one in `n` of the pages whose write was under way comes back unreadable, as by
    /// [`Disk::make_unreadable`]; 0 = none. What was synced in such a page before is gone with it.
    pub fn set_torn_unreadable(&self, n: u64) {
        self.machine.disk.borrow_mut().torn_unreadable_one_in = n;
    }

    /// Takes a file, or a directory with all in it, away: as a restore that missed it, or a hand that slipped.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.disk.borrow_mut().vanish(path)
    }

    /// For the next `d` of virtual time the disk does nothing; what was asked of it meanwhile, or before, is done after.
    pub fn stall(&self, d: Duration) {
        let until = self.machine.scheduler().now().saturating_add(d.as_nanos() as u64);
        let mut disk = self.machine.disk.borrow_mut();
        disk.stalled_until = disk.stalled_until.max(until);
    }

    /// Bytes of file data the disk holds; writes and allocations beyond fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine.disk.borrow_mut().set_capacity(bytes);
    }

    /// What lies below `path` from now on is another file system of this disk.
    pub fn mount(&self, path: &Path) {
        self.machine.disk.borrow_mut().mount(path);
    }

    /// Every operation takes this much longer.
    pub fn set_extra_latency(&self, d: Duration) {
        self.machine.disk.borrow_mut().extra_latency = d.as_nanos() as u64;
    }

    /// A file's bytes as programs see them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        file::contents(&self.machine.disk, path)
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.machine.disk.borrow().files()
    }
}
