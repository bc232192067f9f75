//! The simulated world: whole clusters of production code on one OS thread, from one seed.

use crate::CoreCtx;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// How unkind the world is. [`SimConfig::default`] is a moderately slow disk and network without faults.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Disk latency of one operation, drawn from this range.
    pub disk_latency: std::ops::Range<Duration>,
    /// Network latency of one hop, drawn from this range.
    pub network_latency: std::ops::Range<Duration>,
    /// The wall clock at the start, milliseconds since the Unix epoch.
    pub wall_clock_start_ms: i64,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            disk_latency: Duration::from_micros(20)..Duration::from_micros(500),
            network_latency: Duration::from_micros(10)..Duration::from_micros(300),
            wall_clock_start_ms: 1_700_000_000_000,
        }
    }
}

/// One simulated world. Same seed, same code: same run, to the byte.
#[derive(Clone)]
pub struct Sim(());

/// Nothing can happen any more and the future has not completed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulation (seed {seed}) stalled after {steps} steps: no task can run and no timer is left")]
pub struct Stalled {
    pub seed: u64,
    pub steps: u64,
}

impl Sim {
    pub fn new(_seed: u64) -> Sim {
        unimplemented!()
    }
    pub fn with_config(_seed: u64, _config: SimConfig) -> Sim {
        unimplemented!()
    }
    pub fn seed(&self) -> u64 {
        unimplemented!()
    }
    /// A new machine with an empty disk and an address of its own; nothing runs on it yet.
    pub fn process(&self, _name: &str) -> Process {
        unimplemented!()
    }
    /// Drives the world until `future` completes. It runs as a task of a machine of its own (the tester), with disk and network.
    /// Panics, naming the seed, when the world stalls.
    pub fn block_on<T: 'static>(&self, _future: impl Future<Output = T> + 'static) -> T {
        unimplemented!()
    }
    /// As [`Sim::block_on`], but gives an error when the world stalls.
    pub fn try_block_on<T: 'static>(&self, _future: impl Future<Output = T> + 'static) -> Result<T, Stalled> {
        unimplemented!()
    }
    /// Drives the world until no task can run and no timer or I/O is pending, or `steps` are done; true if it went quiet.
    pub fn run_until_idle(&self, _steps: u64) -> bool {
        unimplemented!()
    }
    /// Drives the world for this much virtual time.
    pub fn run_for(&self, _d: Duration) {
        unimplemented!()
    }
    /// Does at most `n` scheduler steps; how many there were to do.
    pub fn run_steps(&self, _n: u64) -> u64 {
        unimplemented!()
    }
    /// Steps done so far.
    pub fn steps(&self) -> u64 {
        unimplemented!()
    }
    /// Hash of everything that happened so far; equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        unimplemented!()
    }
    /// A random number for the test itself, from the seed.
    pub fn random_u64(&self) -> u64 {
        unimplemented!()
    }
    /// Cuts the two machines off from each other; what is under way arrives after [`Sim::heal`].
    pub fn partition(&self, _a: &Process, _b: &Process) {
        unimplemented!()
    }
    pub fn heal(&self, _a: &Process, _b: &Process) {
        unimplemented!()
    }
    /// Resets every connection between the two machines.
    pub fn reset_connections(&self, _a: &Process, _b: &Process) {
        unimplemented!()
    }
}

/// A simulated machine: a disk and an address that stay, and at most one running process.
#[derive(Clone)]
pub struct Process(());

impl Process {
    pub fn name(&self) -> String {
        unimplemented!()
    }
    /// The address other machines reach it by.
    pub fn ip(&self) -> IpAddr {
        unimplemented!()
    }
    /// Starts `cores` cores, each running `main`; panics if it runs already. Main's return ends nothing else: tasks it spawned run on.
    pub fn start<F, Fut>(&self, _cores: usize, _main: F)
    where
        F: Fn(CoreCtx) -> Fut + Clone + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        unimplemented!()
    }
    /// Whether it was started and has not been crashed.
    pub fn is_running(&self) -> bool {
        unimplemented!()
    }
    /// Power loss: all tasks are dropped, what was not synced is kept, lost or torn by the seed, connections break.
    pub fn crash(&self) {
        unimplemented!()
    }
    /// kill -9: all tasks are dropped, connections break; the disk keeps everything written.
    pub fn kill(&self) {
        unimplemented!()
    }
    /// Arms a power loss `steps` scheduler steps from now.
    pub fn crash_after(&self, _steps: u64) {
        unimplemented!()
    }
    /// Its disk, for faults and a look inside.
    pub fn disk(&self) -> Disk {
        unimplemented!()
    }
    /// Sets the wall clock off by `offset_ms` and lets both clocks run fast by `drift_ppm`.
    pub fn set_clock(&self, _offset_ms: i64, _drift_ppm: i32) {
        unimplemented!()
    }
}

/// Which operations a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    Read,
    Write,
    Sync,
    Metadata,
}

/// A simulated disk.
#[derive(Clone)]
pub struct Disk(());

impl Disk {
    /// The `nth` (0 = next) operation of kind `op` on a path that contains `path_part` fails with `error`, once.
    pub fn fail_nth(&self, _op: DiskOp, _path_part: &str, _nth: u64, _error: io::ErrorKind) {
        unimplemented!()
    }
    /// Flips one bit of a file, in memory and on the medium. `bit` counts from the file's first bit.
    pub fn flip_bit(&self, _path: &Path, _bit: u64) -> io::Result<()> {
        unimplemented!()
    }
    /// Bytes of data the disk holds at most; writes and allocations beyond give `StorageFull`.
    pub fn set_capacity(&self, _bytes: u64) {
        unimplemented!()
    }
    /// Every operation takes at least this much longer.
    pub fn set_extra_latency(&self, _d: Duration) {
        unimplemented!()
    }
    /// A file's current bytes, without going through a process.
    pub fn contents(&self, _path: &Path) -> io::Result<Vec<u8>> {
        unimplemented!()
    }
    /// All paths of files, sorted.
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        unimplemented!()
    }
}
