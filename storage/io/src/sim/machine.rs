//! A simulated machine: a disk, an address and clocks that stay, and at most one running process.

use super::Turn;
use super::disk::DiskState;
use super::scheduler::{Context, Scheduler};
use crate::{CoreCtx, Instant};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::{Rc, Weak};

pub(crate) struct Machine {
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) disk: RefCell<DiskState>,
    pub(crate) paused: Cell<bool>,
    pub(crate) paused_cores: RefCell<BTreeSet<usize>>,
    /// Descriptors that its process may have open.
    pub(crate) descriptors_max: Cell<usize>,
    pub(crate) longest_turn: Cell<Option<Turn>>,
    /// Counts power losses: I/O of a former time never arrives.
    pub(crate) power: Cell<u64>,
    scheduler: Weak<Scheduler>,
    running: RefCell<Option<Rc<Running>>>,
    clock: RefCell<Clock>,
    /// Scheduler step at which the power fails.
    crash_at: Cell<Option<u64>>,
}

/// One run of a machine's process.
pub(crate) struct Running {
    pub(crate) alive: Cell<bool>,
    pub(crate) descriptors: Cell<usize>,
}

/// An open descriptor of a process.
pub(crate) struct Descriptor {
    pub(crate) running: Rc<Running>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.running.descriptors.set(self.running.descriptors.get() - 1);
    }
}

/// The machine's own clocks, as lines over world time.
struct Clock {
    world: u64,
    monotonic: u64,
    wall_ns: i128,
    drift_ppm: i32,
}

const MILLION: i128 = 1_000_000;

impl Clock {
    fn monotonic_at(&self, world: u64) -> u64 {
        let passed = i128::from(world - self.world) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        self.monotonic + passed as u64
    }

    fn wall_ns_at(&self, world: u64) -> i128 {
        self.wall_ns + i128::from(self.monotonic_at(world) - self.monotonic)
    }
}

impl Machine {
    pub(crate) fn new(scheduler: &Rc<Scheduler>, name: &str) -> Rc<Machine> {
        let mut machines = scheduler.machines.borrow_mut();
        let world = scheduler.now();
        let mut random = scheduler.random.borrow_mut();
        let clock = Clock {
            world,
            // Machines have been up for different times.
            monotonic: world + random.below(1 << 40),
            wall_ns: i128::from(scheduler.config.wall_clock_start_ms) * MILLION + i128::from(world),
            drift_ppm: 0,
        };
        let machine = Rc::new(Machine {
            id: machines.len(),
            name: name.to_string(),
            disk: RefCell::new(DiskState::new()),
            paused: Cell::new(false),
            paused_cores: RefCell::default(),
            descriptors_max: Cell::new(usize::MAX),
            longest_turn: Cell::new(None),
            power: Cell::new(0),
            scheduler: Rc::downgrade(scheduler),
            running: RefCell::new(None),
            clock: RefCell::new(clock),
            crash_at: Cell::new(None),
        });
        machines.push(Rc::clone(&machine));
        machine
    }

    pub(crate) fn scheduler(&self) -> Rc<Scheduler> {
        self.scheduler.upgrade().expect("the simulated world is gone")
    }

    pub(crate) fn ip(&self) -> IpAddr {
        let [high, low] = u16::try_from(self.id).expect("fewer than 65536 machines").to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, 77, high, low))
    }

    pub(crate) fn monotonic(&self, world: u64) -> Instant {
        Instant::from_nanos(self.clock.borrow().monotonic_at(world))
    }

    pub(crate) fn wall_clock_ms(&self, world: u64) -> i64 {
        i64::try_from(self.clock.borrow().wall_ns_at(world).div_euclid(MILLION)).unwrap_or(i64::MAX)
    }

    /// World time at which this machine's monotonic clock has reached `t`.
    pub(crate) fn world_time(&self, t: Instant) -> u64 {
        let clock = self.clock.borrow();
        let ahead = i128::from(t.as_nanos().saturating_sub(clock.monotonic));
        let rate = MILLION + i128::from(clock.drift_ppm);
        let passed = (ahead * MILLION + rate - 1) / rate;
        clock.world.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    pub(crate) fn set_clock(&self, world: u64, wall_jump_ms: i64, drift_ppm: i32) {
        let mut clock = self.clock.borrow_mut();
        *clock = Clock {
            world,
            monotonic: clock.monotonic_at(world),
            wall_ns: clock.wall_ns_at(world) + i128::from(wall_jump_ms) * MILLION,
            drift_ppm,
        };
        drop(clock);
        self.scheduler().wake_timers(self.id);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.borrow().is_some()
    }

    pub(crate) fn is_paused(&self, core: usize) -> bool {
        self.paused.get() || self.paused_cores.borrow().contains(&core)
    }

    fn run_on(&self) {
        self.paused.set(false);
        self.paused_cores.borrow_mut().clear();
    }

    /// Descriptors that the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.running.borrow().as_ref().map_or(0, |running| running.descriptors.get())
    }

    pub(crate) fn turn_taken(&self, turn: Turn) {
        if self.longest_turn.get().is_none_or(|longest| longest.cost < turn.cost) {
            self.longest_turn.set(Some(turn));
        }
    }

    /// Starts a process of `cores` cores; its first context of each.
    pub(crate) fn boot(self: &Rc<Machine>, cores: usize) -> Vec<Rc<Context>> {
        assert!(cores > 0, "a process needs a core");
        assert!(!self.is_running(), "process {} runs already", self.name);
        let running = Rc::new(Running { alive: Cell::new(true), descriptors: Cell::new(0) });
        *self.running.borrow_mut() = Some(Rc::clone(&running));
        self.run_on();
        let context = |core| Context {
            scheduler: self.scheduler(),
            machine: Rc::clone(self),
            running: Rc::clone(&running),
            core,
            cores,
        };
        (0..cores).map(|core| Rc::new(context(core))).collect()
    }

    /// Starts a core for each of `seeds`.
    pub(crate) fn start<S, F, Fut>(self: &Rc<Machine>, seeds: Vec<S>, main: F)
    where
        S: 'static,
        F: Fn(CoreCtx, S) -> Fut + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let cores = seeds.len();
        self.scheduler().trace.mix(self.id as u64, cores as u64);
        for (context, seed) in self.boot(cores).into_iter().zip(seeds) {
            let main = main.clone();
            let core = CoreCtx { core: context.core, cores };
            // Made inside the task, so that main's synchronous part runs on its core.
            context.spawn(crate::Queue::Control, async move { main(core, seed).await }).detach();
        }
    }

    pub(crate) fn arm_crash(&self, step: u64) {
        self.crash_at.set(Some(step));
    }

    pub(crate) fn crash_due(&self, step: u64) -> bool {
        self.crash_at.get().is_some_and(|at| at <= step)
    }

    /// Power loss.
    pub(crate) fn crash(self: &Rc<Machine>) {
        let scheduler = self.scheduler();
        self.power.set(self.power.get() + 1);
        scheduler.network.machine_down(&scheduler, self.id, true);
        self.end_process(&scheduler);
        self.disk.borrow_mut().crash(&mut scheduler.random.borrow_mut());
        scheduler.trace.mix(self.id as u64, self.power.get());
    }

    /// kill -9: the kernel lives, and closes what the process had open.
    pub(crate) fn kill(self: &Rc<Machine>) {
        let scheduler = self.scheduler();
        scheduler.network.machine_down(&scheduler, self.id, false);
        self.end_process(&scheduler);
        scheduler.trace.mix(self.id as u64, self.power.get());
    }

    /// A new disk: what the old one had under way is gone with it.
    pub(crate) fn wipe(&self) {
        self.power.set(self.power.get() + 1);
        self.disk.replace(DiskState::new());
    }

    fn end_process(&self, scheduler: &Rc<Scheduler>) {
        self.crash_at.set(None);
        self.run_on();
        let running = self.running.borrow_mut().take();
        if let Some(running) = running {
            running.alive.set(false);
            scheduler.drop_tasks(&running);
        }
    }

    /// The world ends: destructors of its tasks start nothing new.
    pub(crate) fn stop_running(&self) {
        if let Some(running) = self.running.borrow_mut().take() {
            running.alive.set(false);
        }
    }
}
