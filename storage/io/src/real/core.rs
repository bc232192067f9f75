//! One core: its task queues, its ring and its timers, its random numbers.

use super::blocking::BlockingThread;
use super::ring::Ring;
use super::roster::{Canceller, Member, Roster};
use super::timers::Timers;
use crate::random::Dice;
use crate::sync::Semaphore;
use crate::task::TURN;
use crate::world::{self, World};
use crate::{Instant, Queue};
use glommio::{Latency, Shares, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) cores: usize,
    pub(crate) ring: Rc<Ring>,
    pub(super) timers: Timers,
    pub(super) blocking: BlockingThread,
    computing: BlockingThread,
    computing_turns: Semaphore,
    roster: Arc<Roster>,
    /// Where a socket is read into when its reader has no memory of its own yet.
    pub(super) scratch: RefCell<Box<[u8]>>,
    queues: [TaskQueueHandle; 4],
    reactor_queue: TaskQueueHandle,
    /// When the running task's poll began.
    turn_began: Cell<Instant>,
    /// When the reactor last had its turn.
    reactor_ran: Cell<Instant>,
    ended: Cell<bool>,
    random: RefCell<Dice>,
}

/// Holds most requests whole.
pub(super) const SCRATCH_BYTES: usize = 16 << 10;

/// Computations that are given to the thread for them at once: one is done, one is at hand. Of those that wait who gives up
/// leaves nothing behind.
const COMPUTING_MAX: u64 = 2;

/// How long tasks run until completions, timers and other threads' messages are looked at again.
const REACTOR_PERIOD: Duration = Duration::from_micros(200);

/// Shares of the task queues, out of their sum, when all have work. The reactor submits and completes for everyone, so
/// it comes before them all.
const SHARES_REACTOR: usize = 1000;
const SHARES_PRODUCE: usize = 800;
const SHARES_FETCH: usize = 400;
const SHARES_CONTROL: usize = 200;
const SHARES_BACKGROUND: usize = 50;
const _: () = assert!(
    SHARES_REACTOR >= SHARES_PRODUCE
        && SHARES_PRODUCE > SHARES_FETCH
        && SHARES_FETCH > SHARES_CONTROL
        && SHARES_CONTROL > SHARES_BACKGROUND
);

impl Core {
    /// Makes the calling thread's executor a core: called once, from its main task.
    pub(crate) fn start(
        index: usize,
        cores: usize,
        ring_depth: u32,
        roster: Arc<Roster>,
        [blocking, computing]: [BlockingThread; 2],
    ) -> io::Result<Rc<Core>> {
        let executor = glommio::executor();
        let queue =
            |name, shares| executor.create_task_queue(Shares::Static(shares), Latency::NotImportant, name);
        let reactor_queue = queue("reactor", SHARES_REACTOR);
        let ring = Ring::start(ring_depth, &roster)?;
        let queues = [
            queue("produce", SHARES_PRODUCE),
            queue("fetch", SHARES_FETCH),
            queue("control", SHARES_CONTROL),
            queue("background", SHARES_BACKGROUND),
        ];
        let mut seed = [0u8; 8];
        super::random::fill(&mut seed);
        let core = Rc::new(Core {
            index,
            cores,
            ring,
            timers: Timers::default(),
            blocking,
            computing,
            computing_turns: Semaphore::new(COMPUTING_MAX),
            roster,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            queues,
            reactor_queue,
            turn_began: Cell::new(crate::now()),
            reactor_ran: Cell::new(crate::now()),
            ended: Cell::new(false),
            random: RefCell::new(Dice(u64::from_ne_bytes(seed))),
        });
        let reactor = Rc::clone(&core);
        core.spawn_untracked(poll_fn(move |cx| reactor.react(cx)));
        Ok(core)
    }

    /// The reactor's turn: what others have done for this core is taken in, what its tasks want done is handed out. When
    /// no task can run it sleeps, and with it the thread, until one can.
    fn react(&self, cx: &Context<'_>) -> Poll<()> {
        self.roster.reactor_runs(cx.waker());
        loop {
            let now = crate::now();
            self.reactor_ran.set(now);
            self.timers.fire(now);
            self.roster.deliver();
            self.ring.drain();
            if self.ended.get() {
                self.roster.reactor_ended();
                return Poll::Ready(());
            }
            if self.roster.has_runnable() {
                self.ring.flush();
                return Poll::Pending;
            }
            if self.roster.fall_asleep() {
                self.ring.sleep(self.timers.next());
                self.roster.rise();
            }
        }
    }

    /// Lets the executor end, once its main task has returned.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.roster.wake_reactor();
    }

    pub(crate) fn spawn<T: 'static>(
        self: &Rc<Core>,
        queue: Queue,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        let (member, canceller) = Member::new(&self.roster);
        let core = Rc::clone(self);
        let future = tracked(member, future, move || core.task_runs());
        let task = glommio::spawn_local_into(future, self.queues[queue as usize])
            .expect("a core's queues live as long as it");
        Task { task: Some(task), canceller }
    }

    /// For the reactor, which is no work that the core must stay awake for.
    pub(super) fn spawn_untracked(&self, future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(future, self.reactor_queue)
            .expect("a core's queues live as long as it")
            .detach();
    }

    pub(crate) async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _turn = self.computing_turns.acquire(1).await;
        self.computing.run(work).await
    }

    /// A task's poll begins. When tasks have run long enough it is the last of its queue's turn.
    fn task_runs(&self) {
        let now = crate::now();
        self.turn_began.set(now);
        if now.since(self.reactor_ran.get()) > REACTOR_PERIOD {
            self.roster.wake_reactor();
            // The first poll ends the queue's turn; what would yield the task itself is not waited for.
            let executor = glommio::executor();
            let mut yielding = pin!(executor.yield_task_queue_now());
            let _ = yielding.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        }
    }

    /// Whether the running task has had its turn's time.
    pub(crate) fn turn_is_over(&self) -> bool {
        glommio::executor().need_preempt() || self.turn_began.get().elapsed() > TURN
    }

    /// Seeded by the operating system.
    pub(crate) fn random_u64(&self) -> u64 {
        self.random.borrow_mut().next()
    }
}

/// `future`, with its place on the roster; `runs` is called before each of its polls.
pub(super) async fn tracked<T>(member: Member, future: impl Future<Output = T>, runs: impl Fn()) -> T {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        let waker = member.begin_poll(cx.waker());
        runs();
        let polled = future.as_mut().poll(&mut Context::from_waker(waker));
        member.end_poll();
        polled
    })
    .await
}

/// A spawned task; dropped, it is cancelled.
pub(crate) struct Task<T> {
    /// `None` when it has been detached.
    task: Option<glommio::Task<T>>,
    canceller: Canceller,
}

impl<T: 'static> Task<T> {
    pub(crate) fn detach(mut self) {
        if let Some(task) = self.task.take() {
            let _runs_on = task.detach();
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let task = self.task.as_mut().expect("a detached task is given up");
        Pin::new(task).poll(cx)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if self.task.is_some() {
            self.canceller.cancel();
        }
    }
}

/// The calling thread's core. Only this world's objects call it, and they live on its cores alone.
pub(crate) fn current() -> Rc<Core> {
    match world::current() {
        World::Real(core) => core,
        World::Sim(_) => panic!("an object of the glommio world was used in the simulated one"),
    }
}
