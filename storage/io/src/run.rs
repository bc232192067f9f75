//! Running a process on glommio: one pinned thread per core.

use crate::real;
use std::future::Future;
use std::io;
use std::thread::JoinHandle;

/// Which CPUs to run on, and the size of each core's rings.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// CPU numbers, one core (thread) each; core `i` is pinned to `cores[i]`.
    pub cores: Vec<usize>,
    /// Bytes of memory registered with each core's rings (64 KiB at least); it counts against RLIMIT_MEMLOCK.
    pub io_memory: usize,
    /// File operations in flight on a core's ring before callers wait.
    pub ring_depth: u32,
}

impl RunConfig {
    /// The defaults on the given CPUs.
    pub fn new(cores: Vec<usize>) -> RunConfig {
        // glommio's registered memory is not used for data here, so the smallest will do: it starts fastest.
        RunConfig { cores, io_memory: 64 << 10, ring_depth: 1024 }
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

/// A running process.
pub struct Handle<T> {
    threads: Vec<JoinHandle<io::Result<T>>>,
}

impl<T> Handle<T> {
    /// Blocks the calling thread until all cores' mains have returned; their values in the order of cores.
    pub fn join(self) -> io::Result<Vec<T>> {
        let finished: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let value = |result| match result {
            Ok(value) => value,
            // Not reached: a panic on a core has ended the process.
            Err(_panic) => Err(io::Error::other("a core panicked")),
        };
        finished.into_iter().map(value).collect()
    }
}

/// The CPUs this process may run on (its affinity mask), ascending.
pub fn available_cpus() -> io::Result<Vec<usize>> {
    real::run::available_cpus()
}

/// Starts one pinned thread per CPU of `config.cores`, each running `main`, and returns when all cores are up.
///
/// A core ends when its main returns: other tasks of it are dropped, I/O in flight is waited for. A panic on a core
/// ends the process. An error says which core could not be set up; then none runs.
pub fn run_glommio<F, Fut, T>(config: RunConfig, main: F) -> io::Result<Handle<T>>
where
    F: Fn(CoreCtx) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let seeds = vec![(); config.cores.len()];
    run_glommio_with(config, seeds, move |core, ()| main(core))
}

/// As [`run_glommio`], and moves `seeds[i]` to core `i`: its seats in meshes, its end of a mailbox.
///
/// # Panics
/// When there are not as many seeds as cores.
pub fn run_glommio_with<S, F, Fut, T>(config: RunConfig, seeds: Vec<S>, main: F) -> io::Result<Handle<T>>
where
    S: Send + 'static,
    F: Fn(CoreCtx, S) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    assert_eq!(seeds.len(), config.cores.len(), "one seed a core");
    Ok(Handle { threads: real::run::start(&config, seeds, main)? })
}
