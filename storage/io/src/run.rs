//! Running a process on glommio: one pinned thread per core.

use std::future::Future;
use std::io;
use std::marker::PhantomData;

/// Which CPUs to run on, and the size of each core's rings.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// CPU numbers, one core (thread) each; core `i` is pinned to `cores[i]`.
    pub cores: Vec<usize>,
    /// Bytes of memory registered with each core's rings; at least 512 KiB.
    pub io_memory: usize,
    /// File and socket operations in flight on a core's ring before callers wait.
    pub ring_depth: u32,
}

impl RunConfig {
    /// The defaults on the given CPUs.
    pub fn new(cores: Vec<usize>) -> RunConfig {
        RunConfig { cores, io_memory: 1 << 20, ring_depth: 1024 }
    }
}

/// What a core's main function is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreCtx {
    /// Index of this core, from 0.
    pub core: usize,
    /// How many cores the process runs.
    pub cores: usize,
}

/// A running process; [`Handle::join`] waits for every core's main to return.
pub struct Handle<T> {
    inner: PhantomData<T>,
}

impl<T> Handle<T> {
    /// Blocks the calling thread until all cores' mains have returned; their values in order of cores.
    pub fn join(self) -> io::Result<Vec<T>> {
        unimplemented!()
    }
}

/// The CPUs this process may run on (its affinity mask), ascending.
pub fn available_cpus() -> Vec<usize> {
    unimplemented!()
}

/// Starts one pinned thread per CPU of `config.cores`, each running `main`. A panic on a core ends the process.
pub fn run_glommio<F, Fut, T>(_config: RunConfig, _main: F) -> io::Result<Handle<T>>
where
    F: Fn(CoreCtx) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    unimplemented!()
}
