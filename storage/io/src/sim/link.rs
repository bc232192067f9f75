//! One direction between two machines, as a test holds it.

use super::Process;
use super::scheduler::Scheduler;
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// What one machine sends to another. Its connections are TCP's: whatever is done to the link, they lose, double and
/// reorder nothing, but stand still and, if that lasts, break, each side when it notices.
#[derive(Clone)]
pub struct Link {
    scheduler: Weak<Scheduler>,
    from: usize,
    to: usize,
}

impl Link {
    pub(super) fn new(scheduler: &Rc<Scheduler>, from: &Process, to: &Process) -> Link {
        Link { scheduler: Rc::downgrade(scheduler), from: from.machine.id, to: to.machine.id }
    }

    fn world(&self) -> Rc<Scheduler> {
        self.scheduler.upgrade().expect("the simulated world is gone")
    }

    /// Nothing arrives from now on. The other direction works, but for what it needs answers to.
    pub fn cut(&self) {
        let world = self.world();
        world.network.stop_flapping(self.from, self.to);
        world.network.cut(&world, self.from, self.to);
    }

    /// As the network is by itself. What is under way arrives with its sender's next try.
    pub fn heal(&self) {
        let world = self.world();
        world.network.heal(&world, self.from, self.to);
        world.network.change_link(self.from, self.to, |link| link.restore());
    }

    /// Everything takes this much longer.
    pub fn set_delay(&self, delay: Range<Duration>) {
        self.world().network.change_link(self.from, self.to, |link| link.delay = delay);
    }

    /// It carries so many bytes a second, for all connections together; 0 = any.
    pub fn set_bytes_per_second(&self, rate: u64) {
        self.world().network.change_link(self.from, self.to, |link| link.bytes_per_second = rate);
    }

    /// It loses one packet in so many; 0 = none. Bytes are sent again, later each time, and all behind them waits.
    pub fn set_loss_one_in(&self, n: u64) {
        self.world().network.change_link(self.from, self.to, |link| link.loss_one_in = n);
    }

    /// It is cut and heals again and again, each after a time drawn up to `up` and `down`, until [`Link::cut`] or
    /// [`Link::heal`].
    pub fn flap(&self, up: Duration, down: Duration) {
        let world = self.world();
        world.network.flap(&world, (self.from, self.to), up, down);
    }

    /// Something on the way forgets the connections that there are now: what they send arrives no more, and nobody is told.
    /// New ones work.
    pub fn forget_connections(&self) {
        let world = self.world();
        world.network.forget(&world, self.from, self.to);
    }
}
