//! The heart of the simulated world: its clock, its tasks, what is due when.
//!
//! One step is either the next due event (a timer, an I/O completion, a segment's arrival), or the poll of one task
//! drawn at random among those that can run. The clock moves a little with each poll, and jumps to the next event
//! when nothing can run.

use super::machine::{Descriptor, Machine, Running};
use super::net::Network;
use super::random::Random;
use super::task::{Join, Task, TaskWaker};
use super::trace::Trace;
use super::{SimConfig, Stalled, Turn};
use crate::turn;
use crate::world::{self, World};
use crate::{Instant, Queue};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

pub(super) type TaskId = u64;

/// The tester's machine is a world's first.
const TESTER: usize = 0;

/// One simulated world.
pub(crate) struct Scheduler {
    pub(crate) seed: u64,
    pub(crate) config: SimConfig,
    pub(crate) random: RefCell<Random>,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) machines: RefCell<Vec<Rc<Machine>>>,
    clock: Cell<u64>,
    steps: Cell<u64>,
    sequence: Cell<u64>,
    tasks: RefCell<BTreeMap<TaskId, Slot>>,
    /// Tasks that can run and have not been chosen yet.
    runnable: RefCell<Vec<TaskId>>,
    woken: mpsc::Receiver<TaskId>,
    wake: mpsc::Sender<TaskId>,
    /// By time, then by the order in which they were made.
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    /// Who waits for a step, by its number.
    at_steps: RefCell<BTreeMap<(u64, u64), Waker>>,
}

struct Slot {
    /// Away while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    context: Rc<Context>,
    waker: Arc<TaskWaker>,
    spawned_at: &'static Location<'static>,
    cancelled: bool,
}

pub(super) enum Event {
    /// A timer of a machine, at the time that its clock was expected to say so.
    Timer(usize, Waker),
    Act(Box<dyn FnOnce()>),
}

/// Where a task runs: on which core of which run of which machine.
pub(crate) struct Context {
    pub(crate) scheduler: Rc<Scheduler>,
    pub(crate) machine: Rc<Machine>,
    pub(crate) running: Rc<Running>,
    pub(crate) core: usize,
    pub(crate) cores: usize,
}

impl Context {
    pub(crate) fn random_u64(&self) -> u64 {
        self.scheduler.random.borrow_mut().next()
    }

    pub(crate) fn now(&self) -> Instant {
        self.machine.monotonic(self.scheduler.now())
    }

    /// Whether a task that may give way does so, by chance.
    pub(crate) fn gives_way(&self) -> bool {
        match self.scheduler.config.yield_one_in {
            0 => false,
            one_in => self.random_u64().is_multiple_of(one_in),
        }
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        self.machine.wall_clock_ms(self.scheduler.now())
    }

    #[track_caller]
    pub(crate) fn spawn<T: 'static>(
        self: &Rc<Context>,
        _queue: Queue,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        turn::operation();
        self.scheduler.spawn(self, future)
    }

    /// A descriptor of the running process, or EMFILE.
    pub(crate) fn descriptor(&self) -> io::Result<Descriptor> {
        self.check_descriptor()?;
        self.running.descriptors.set(self.running.descriptors.get() + 1);
        Ok(Descriptor { running: Rc::clone(&self.running) })
    }

    /// EMFILE where the process could not open one more, if only for a moment.
    pub(crate) fn check_descriptor(&self) -> io::Result<()> {
        match self.running.descriptors.get() < self.machine.descriptors_max.get() {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}

/// The calling task's context. Only this world's objects call it, and only its tasks hold them.
pub(crate) fn current() -> Rc<Context> {
    match world::current() {
        World::Sim(context) => context,
        World::Real(_) => panic!("an object of the simulated world was used in the glommio one"),
    }
}

impl Scheduler {
    pub(crate) fn new(seed: u64, config: SimConfig) -> Rc<Scheduler> {
        let (wake, woken) = mpsc::channel();
        Rc::new(Scheduler {
            seed,
            config,
            random: RefCell::new(Random::new(seed)),
            trace: Trace::new(seed),
            network: Network::default(),
            machines: RefCell::default(),
            clock: Cell::new(0),
            steps: Cell::new(0),
            sequence: Cell::new(0),
            tasks: RefCell::default(),
            runnable: RefCell::default(),
            woken,
            wake,
            events: RefCell::default(),
            at_steps: RefCell::default(),
        })
    }

    /// Nanoseconds since the world began.
    pub(crate) fn now(&self) -> u64 {
        self.clock.get()
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    fn next_sequence(&self) -> u64 {
        let sequence = self.sequence.get();
        self.sequence.set(sequence + 1);
        sequence
    }

    /// Runs `act` at `at` (world time; now if that has passed).
    pub(crate) fn at(&self, at: u64, act: impl FnOnce() + 'static) {
        self.schedule(at, Event::Act(Box::new(act)));
    }

    /// Runs `act` after `delay` nanoseconds.
    pub(crate) fn after(&self, delay: u64, act: impl FnOnce() + 'static) {
        self.at(self.now().saturating_add(delay), act);
    }

    pub(super) fn schedule(&self, at: u64, event: Event) -> (u64, u64) {
        let key = (at.max(self.now()), self.next_sequence());
        self.events.borrow_mut().insert(key, event);
        key
    }

    /// A machine's clock runs otherwise than its timers thought.
    pub(super) fn wake_timers(&self, machine: usize) {
        let events = self.events.borrow();
        for event in events.values() {
            if let Event::Timer(of, waker) = event
                && *of == machine
            {
                waker.wake_by_ref();
            }
        }
    }

    pub(super) fn unschedule(&self, event: (u64, u64)) {
        self.events.borrow_mut().remove(&event);
    }

    /// Wakes `waker` after so many steps.
    pub(super) fn wake_after_steps(&self, steps: u64, waker: Waker) {
        let key = (self.steps.get() + steps, self.next_sequence());
        self.at_steps.borrow_mut().insert(key, waker);
    }

    #[track_caller]
    fn spawn<T: 'static>(
        self: &Rc<Scheduler>,
        context: &Rc<Context>,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        let id = self.next_sequence();
        let join = Rc::new(Join::new());
        let result = Rc::clone(&join);
        let task = Task::new(id, join, self);
        // A task spawned by a destructor while its process goes down never runs.
        if !context.running.alive.get() {
            return task;
        }
        let future = Box::pin(async move { result.finish(future.await) });
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), wake: self.wake.clone() });
        let slot = Slot {
            future: Some(future),
            context: Rc::clone(context),
            waker: Arc::clone(&waker),
            spawned_at: Location::caller(),
            cancelled: false,
        };
        self.tasks.borrow_mut().insert(id, slot);
        waker.wake();
        task
    }

    pub(super) fn cancel(&self, id: TaskId) {
        if let Some(slot) = self.tasks.borrow_mut().get_mut(&id) {
            slot.cancelled = true;
            slot.waker.wake_by_ref();
        }
    }

    /// Drops all tasks of one run of a machine.
    pub(crate) fn drop_tasks(&self, running: &Rc<Running>) {
        let of_run: Vec<TaskId> = {
            let mut tasks = self.tasks.borrow_mut();
            let of_run = |slot: &Slot| Rc::ptr_eq(&slot.context.running, running);
            // The one being polled (it brought the crash about) is dropped when its poll returns.
            for slot in tasks.values_mut().filter(|slot| of_run(slot) && slot.future.is_none()) {
                slot.cancelled = true;
            }
            tasks
                .iter()
                .filter(|(_, slot)| of_run(slot) && slot.future.is_some())
                .map(|(id, _)| *id)
                .collect()
        };
        for id in of_run {
            self.remove(id);
        }
    }

    fn remove(&self, id: TaskId) {
        let slot = self.tasks.borrow_mut().remove(&id);
        if let Some(slot) = slot {
            let _entered = world::enter(World::Sim(Rc::clone(&slot.context)));
            drop(slot.future);
        }
    }

    /// Drops everything: tasks, events, connections (they refer back to the world).
    pub(crate) fn clear(&self) {
        for machine in self.machines.borrow().iter() {
            machine.stop_running();
        }
        let ids: Vec<TaskId> = self.tasks.borrow().keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        let events = self.events.take();
        drop(events);
        self.network.clear();
        let machines = self.machines.take();
        drop(machines);
    }

    /// Runs `future` as a task of `context` and drives the world until it is done.
    pub(crate) fn block_on<T: 'static>(
        self: &Rc<Scheduler>,
        context: &Rc<Context>,
        future: impl Future<Output = T> + 'static,
    ) -> Result<T, Stalled> {
        assert!(
            world::try_current().is_none(),
            "the world is driven from outside, not from one of its tasks"
        );
        let task = self.spawn(context, future);
        let deadline = self.now().saturating_add(self.config.time_limit.as_nanos() as u64);
        loop {
            if task.join.done.get() {
                let value = task.join.value.borrow_mut().take();
                return Ok(value.expect("a finished task has left its value"));
            }
            if !self.step(u64::MAX) || self.now() > deadline {
                return Err(Stalled {
                    seed: self.seed,
                    steps: self.steps.get(),
                    at: Duration::from_nanos(self.now()),
                    tasks: self.tasks.borrow().len(),
                });
            }
        }
    }

    /// One step, or false if there is none to do up to world time `until`.
    pub(crate) fn step(self: &Rc<Scheduler>, until: u64) -> bool {
        loop {
            self.runnable.borrow_mut().extend(self.woken.try_iter());
            if let Some(event) = self.pop_event(self.now()) {
                self.count_step(0);
                match event {
                    Event::Timer(_, waker) => waker.wake(),
                    Event::Act(act) => act(),
                }
                break;
            }
            if let Some(id) = self.choose() {
                self.count_step(id);
                self.poll(id);
                break;
            }
            match self.next_event() {
                Some(at) if at <= until => self.clock.set(at.max(self.now())),
                _ => return false,
            }
        }
        self.crash_armed();
        self.wake_those_at_this_step();
        true
    }

    fn count_step(&self, id: TaskId) {
        self.steps.set(self.steps.get() + 1);
        self.trace.mix(id, self.now());
    }

    fn pop_event(&self, now: u64) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let first = events.first_entry()?;
        if first.key().0 > now { None } else { Some(first.remove()) }
    }

    fn next_event(&self) -> Option<u64> {
        self.events.borrow().first_key_value().map(|(key, _)| key.0)
    }

    /// Draws a task that can run. Those of paused processes stay where they are.
    fn choose(&self) -> Option<TaskId> {
        let tasks = self.tasks.borrow();
        let mut runnable = self.runnable.borrow_mut();
        runnable.retain(|id| tasks.contains_key(id));
        let paused = |id: &TaskId| tasks[id].context.machine.is_paused(tasks[id].context.core);
        let candidates = runnable.iter().filter(|id| !paused(id)).count();
        if candidates == 0 {
            return None;
        }
        let nth = self.random.borrow_mut().index(candidates);
        let index = (0..runnable.len()).filter(|&index| !paused(&runnable[index])).nth(nth)?;
        Some(runnable.swap_remove(index))
    }

    fn poll(&self, id: TaskId) {
        let (future, context, waker, spawned_at) = {
            let mut tasks = self.tasks.borrow_mut();
            let slot = tasks.get_mut(&id).expect("chosen among the living");
            slot.waker.queued.store(false, Ordering::Relaxed);
            if slot.cancelled {
                drop(tasks);
                return self.remove(id);
            }
            let future = slot.future.take().expect("not being polled");
            (future, Rc::clone(&slot.context), Waker::from(Arc::clone(&slot.waker)), slot.spawned_at)
        };
        let cost = self.random.borrow_mut().nanos(&self.config.poll_cost);
        self.clock.set(self.now() + cost);
        let mut future = future;
        let tester = context.machine.id == TESTER;
        let (machine, core) = (Rc::clone(&context.machine), context.core);
        turn::take();
        let entered = world::enter(World::Sim(context));
        let finished = {
            let _guard = NameSeed { scheduler: self };
            let context = &mut TaskContext::from_waker(&waker);
            let polled =
                if tester { future.as_mut().poll(context) } else { poll_process(&mut future, context) };
            polled.is_ready()
        };
        machine.turn_taken(Turn { cost: turn::take(), core, spawned_at });
        let cancelled = self.tasks.borrow().get(&id).is_none_or(|slot| slot.cancelled);
        if finished || cancelled {
            drop(future);
            self.tasks.borrow_mut().remove(&id);
        } else if let Some(slot) = self.tasks.borrow_mut().get_mut(&id) {
            slot.future = Some(future);
        }
        drop(entered);
    }

    fn wake_those_at_this_step(&self) {
        let mut at_steps = self.at_steps.borrow_mut();
        while let Some(first) = at_steps.first_entry()
            && first.key().0 <= self.steps.get()
        {
            first.remove().wake();
        }
    }

    /// Power losses that were set for this step.
    fn crash_armed(self: &Rc<Scheduler>) {
        let due: Vec<Rc<Machine>> = {
            let machines = self.machines.borrow();
            machines.iter().filter(|machine| machine.crash_due(self.steps.get())).cloned().collect()
        };
        for machine in due {
            machine.crash();
        }
    }
}

/// Apart, and under its own name, so that a profiler can count what processes do without the world around them.
#[inline(never)]
fn poll_process(future: &mut Pin<Box<dyn Future<Output = ()>>>, context: &mut TaskContext<'_>) -> Poll<()> {
    future.as_mut().poll(context)
}

/// Names the seed when a task panics, so that the run can be had again.
struct NameSeed<'a> {
    scheduler: &'a Scheduler,
}

impl Drop for NameSeed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "in the simulation with seed {}, step {}, at {:?}",
                self.scheduler.seed,
                self.scheduler.steps.get(),
                Duration::from_nanos(self.scheduler.now())
            );
        }
    }
}
