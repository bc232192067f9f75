//! One core: its executor's task queues, its second ring, its random numbers.

use super::ring::Ring;
use crate::Queue;
use crate::world::{self, World};
use glommio::{Latency, Shares, TaskQueueHandle};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;

pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) cores: usize,
    pub(crate) ring: Rc<Ring>,
    queues: [TaskQueueHandle; 4],
    random: Cell<u64>,
}

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
        let ring = Ring::start(ring_depth, queue("ring", SHARES_RING))?;
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
        Ok(Rc::new(Core { index, cores, ring, queues, random: Cell::new(u64::from_ne_bytes(seed)) }))
    }

    pub(crate) fn spawn<T: 'static>(
        &self,
        queue: Queue,
        future: impl Future<Output = T> + 'static,
    ) -> glommio::Task<T> {
        glommio::spawn_local_into(future, self.queues[queue as usize])
            .expect("a core's queues live as long as it")
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
