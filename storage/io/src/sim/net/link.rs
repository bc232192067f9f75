//! What one machine sends to another: how long it takes, how much of it is lost, whether it arrives at all.

use super::super::scheduler::Scheduler;
use super::{Network, nanos};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// What was lost is sent again after this, then after twice as long, and so on.
const RETRANSMIT_NANOS: u64 = 200_000_000;
/// Between two tries (Linux: 120 s, which would leave runs waiting for most of their time).
const RETRANSMIT_NANOS_MAX: u64 = 20_000_000_000;
/// So often a link loses the same thing at the most: to lose all, cut it.
const RETRIES_MAX: u32 = 12;
const SECOND_NANOS: u64 = 1_000_000_000;

#[derive(Clone)]
pub(crate) struct LinkState {
    /// World time since which nothing arrives.
    cut_since: Option<u64>,
    /// Beside the network's latency.
    pub(crate) delay: Range<Duration>,
    /// 0: any.
    pub(crate) bytes_per_second: u64,
    /// The time at which it has carried all that it was given.
    busy_until: u64,
    pub(crate) loss_one_in: u64,
    /// Ends the flapping that began before.
    flap: u64,
}

impl Default for LinkState {
    fn default() -> LinkState {
        LinkState {
            cut_since: None,
            delay: Duration::ZERO..Duration::ZERO,
            bytes_per_second: 0,
            busy_until: 0,
            loss_one_in: 0,
            flap: 0,
        }
    }
}

impl LinkState {
    /// As links are by themselves. Whatever flaps stops.
    pub(crate) fn restore(&mut self) {
        *self = LinkState { flap: self.flap + 1, ..LinkState::default() };
    }
}

impl Network {
    pub(crate) fn change_link(&self, from: usize, to: usize, change: impl FnOnce(&mut LinkState)) {
        change(self.links.borrow_mut().entry((from, to)).or_default());
    }

    /// World time since which nothing gets from one machine to the other.
    pub(super) fn cut_since(&self, from: usize, to: usize) -> Option<u64> {
        if from == to {
            return None;
        }
        self.links.borrow().get(&(from, to)).and_then(|link| link.cut_since)
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut_since(from, to).is_some()
    }

    /// Whether one thing that is sent gets lost.
    pub(super) fn loses(&self, scheduler: &Scheduler, from: usize, to: usize) -> bool {
        let loss = self.links.borrow().get(&(from, to)).map_or(0, |link| link.loss_one_in);
        from != to && scheduler.random.borrow_mut().one_in(loss)
    }

    /// How long one thing of `bytes` takes from one machine to the other, with what waits before it.
    pub(super) fn latency(&self, scheduler: &Scheduler, from: usize, to: usize, bytes: usize) -> u64 {
        let mut random = scheduler.random.borrow_mut();
        let latency = random.nanos(&scheduler.config.network_latency);
        let mut links = self.links.borrow_mut();
        let Some(link) = links.get_mut(&(from, to)).filter(|_| from != to) else { return latency };
        let queued = match link.bytes_per_second {
            0 => 0,
            rate => {
                let begins = link.busy_until.max(scheduler.now());
                link.busy_until = begins.saturating_add(bytes as u64 * SECOND_NANOS / rate);
                link.busy_until - scheduler.now()
            }
        };
        latency + queued + random.nanos(&link.delay)
    }

    /// As [`Network::latency`], of something that is sent again until it gets through.
    pub(super) fn latency_with_losses(
        &self,
        scheduler: &Scheduler,
        from: usize,
        to: usize,
        bytes: usize,
    ) -> u64 {
        let mut again = RETRANSMIT_NANOS;
        let mut lost = 0;
        for _ in 0..RETRIES_MAX {
            if !self.loses(scheduler, from, to) {
                break;
            }
            lost += again;
            again = (again * 2).min(RETRANSMIT_NANOS_MAX);
        }
        lost + self.latency(scheduler, from, to, bytes)
    }

    pub(crate) fn cut(&self, scheduler: &Rc<Scheduler>, from: usize, to: usize) {
        let now = scheduler.now();
        let mut is_new = false;
        self.change_link(from, to, |link| {
            is_new = link.cut_since.replace(link.cut_since.unwrap_or(now)).is_none()
        });
        if is_new {
            for connection in self.between(from, to) {
                for side in [0, 1] {
                    connection.expect_signs_of_life(scheduler, side);
                }
            }
        }
    }

    pub(crate) fn heal(&self, scheduler: &Rc<Scheduler>, from: usize, to: usize) {
        let mut cut_since = None;
        self.change_link(from, to, |link| cut_since = link.cut_since.take());
        let Some(since) = cut_since else { return };
        // Who has tried for long tries seldom.
        let pause_max = (scheduler.now() - since).min(RETRANSMIT_NANOS_MAX);
        for connection in self.between(from, to) {
            for side in [0, 1] {
                if connection.machines[side] == from {
                    connection.go_on(scheduler, side, pause_max);
                }
            }
        }
    }

    /// Up and down by turns, each for a time drawn up to the given ones, until it is told to heal or to be cut.
    pub(crate) fn flap(&self, scheduler: &Rc<Scheduler>, link: (usize, usize), up: Duration, down: Duration) {
        let mut number = 0;
        self.change_link(link.0, link.1, |state| {
            state.flap += 1;
            number = state.flap;
        });
        flap_on(scheduler, link, number, [up, down], false);
    }

    pub(crate) fn stop_flapping(&self, from: usize, to: usize) {
        self.change_link(from, to, |link| link.flap += 1);
    }

    /// What the connections that there are now send from one machine to the other arrives no more.
    pub(crate) fn forget(&self, scheduler: &Rc<Scheduler>, from: usize, to: usize) {
        for connection in self.between(from, to) {
            for side in [0, 1] {
                if connection.machines[side] == from {
                    connection.forgotten[side].set(true);
                }
                connection.expect_signs_of_life(scheduler, side);
            }
        }
    }
}

fn flap_on(
    scheduler: &Rc<Scheduler>,
    link: (usize, usize),
    number: u64,
    times: [Duration; 2],
    is_down: bool,
) {
    let time = scheduler.random.borrow_mut().below(nanos(times[usize::from(is_down)]));
    let world = Rc::downgrade(scheduler);
    scheduler.after(time, move || {
        let Some(scheduler) = world.upgrade() else { return };
        let network = &scheduler.network;
        if network.links.borrow().get(&link).is_none_or(|state| state.flap != number) {
            return;
        }
        match is_down {
            true => network.heal(&scheduler, link.0, link.1),
            false => network.cut(&scheduler, link.0, link.1),
        }
        flap_on(&scheduler, link, number, times, !is_down);
    });
}
