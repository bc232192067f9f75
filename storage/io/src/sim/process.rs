//! A machine, as a test holds it.

use super::Disk;
use super::machine::Machine;
use crate::CoreCtx;
use std::future::Future;
use std::net::IpAddr;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

/// A simulated machine: a disk, an address and clocks that stay, and at most one running process.
#[derive(Clone)]
pub struct Process {
    pub(super) machine: Rc<Machine>,
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
        Disk::of(&self.machine)
    }

    /// The machine gets a new disk with nothing on it. Panics while its process runs.
    pub fn wipe(&self) {
        assert!(!self.is_running(), "the disk of {} is in use", self.name());
        self.machine.wipe();
    }

    /// What its wall clock says, in milliseconds since the Unix epoch.
    pub fn wall_clock_ms(&self) -> i64 {
        self.machine.wall_clock_ms(self.machine.scheduler().now())
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
