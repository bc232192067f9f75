//! One core: its executor's task queues, its second ring, its random numbers.

use super::ring::Ring;
use super::sentinel::{self, Activity};
use crate::world::{self, World};
use crate::{Instant, Queue};
use glommio::{Latency, Shares, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) cores: usize,
    pub(crate) ring: Rc<Ring>,
    pub(super) activity: Activity,
    /// Where a socket is read into when its reader has no memory of its own yet.
    pub(super) scratch: RefCell<Box<[u8]>>,
    queues: [TaskQueueHandle; 4],
    ring_queue: TaskQueueHandle,
    /// When the running task's poll began.
    turn_began: Cell<Instant>,
    random: Cell<u64>,
}

/// Holds most requests whole.
pub(super) const SCRATCH_BYTES: usize = 16 << 10;

/// What [`crate::yield_if_needed`] lets a task run at a time while others wait.
const TURN: Duration = Duration::from_micros(500);

/// Shares of the task queues, out of their sum, when all have work. The ring's own queue submits and completes for
/// everyone, so it comes before them all.
const SHARES_RING: usize = 1000;
const SHARES_PRODUCE: usize = 800;
const SHARES_FETCH: usize = 400;
const SHARES_CONTROL: usize = 200;
const SHARES_BACKGROUND: usize = 50;
const _: () = assert!(
    SHARES_RING >= SHARES_PRODUCE
        && SHARES_PRODUCE > SHARES_FETCH
        && SHARES_FETCH > SHARES_CONTROL
        && SHARES_CONTROL > SHARES_BACKGROUND
);

impl Core {
    /// Makes the calling thread's executor a core: called once, from its main task.
    pub(crate) fn start(index: usize, cores: usize, ring_depth: u32) -> io::Result<Rc<Core>> {
        let executor = glommio::executor();
        let queue =
            |name, shares| executor.create_task_queue(Shares::Static(shares), Latency::NotImportant, name);
        let ring_queue = queue("ring", SHARES_RING);
        let ring = Ring::start(ring_depth, ring_queue)?;
        let queues = [
            queue("produce", SHARES_PRODUCE),
            queue("fetch", SHARES_FETCH),
            queue("control", SHARES_CONTROL),
            queue("background", SHARES_BACKGROUND),
        ];
        let mut seed = [0u8; 8];
        // SAFETY: the buffer is 8 bytes long.
        let got = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
        if got != seed.len() as isize {
            return Err(io::Error::last_os_error());
        }
        let core = Rc::new(Core {
            index,
            cores,
            ring,
            activity: Activity::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            queues,
            ring_queue,
            turn_began: Cell::new(crate::now()),
            random: Cell::new(u64::from_ne_bytes(seed)),
        });
        sentinel::start(&core);
        Ok(core)
    }

    pub(crate) fn spawn<T: 'static>(
        self: &Rc<Core>,
        queue: Queue,
        future: impl Future<Output = T> + 'static,
    ) -> glommio::Task<T> {
        let core = Rc::clone(self);
        let future = async move {
            let mut future = pin!(future);
            poll_fn(move |cx| {
                core.turn_began.set(crate::now());
                core.activity.note();
                future.as_mut().poll(cx)
            })
            .await
        };
        glommio::spawn_local_into(future, self.queues[queue as usize])
            .expect("a core's queues live as long as it")
    }

    /// For the sentinels alone, whose own polls are no activity.
    pub(super) fn spawn_sentinel(&self, future: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(future, self.ring_queue)
            .expect("a core's queues live as long as it")
            .detach();
    }

    /// Whether the running task has had its turn's time.
    pub(crate) fn turn_is_over(&self) -> bool {
        glommio::executor().need_preempt() || self.turn_began.get().elapsed() > TURN
    }

    /// splitmix64 over a state seeded by the operating system.
    pub(crate) fn random_u64(&self) -> u64 {
        let mut state = self.random.get();
        let value = crate::random::splitmix64(&mut state);
        self.random.set(state);
        value
    }
}

/// The calling thread's core. Only this world's objects call it, and they live on its cores alone.
pub(crate) fn current() -> Rc<Core> {
    match world::current() {
        World::Real(core) => core,
        World::Sim(_) => panic!("an object of the glommio world was used in the simulated one"),
    }
}
