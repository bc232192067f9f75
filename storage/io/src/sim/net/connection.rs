//! A connection: two pipes, and what each side knows of its end.

use super::super::scheduler::Scheduler;
use super::Network;
use crate::sync::Event;
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// Who connected gives up what nobody acknowledges after this (Linux's tcp_retries2 of 15).
const RETRIES_NANOS: u64 = 924_000_000_000;

const RESET_AGAIN_NANOS: u64 = 1_000_000_000;

/// Both directions; side 0 connected, side 1 accepted.
pub(super) struct Connection {
    pub(super) machines: [usize; 2],
    pub(super) addrs: [SocketAddr; 2],
    /// `pipes[side]`: what `side` sends.
    pub(super) pipes: [Pipe; 2],
    /// How it has ended for each side.
    pub(super) broken: [Cell<Option<io::ErrorKind>>; 2],
    /// What the side sends arrives no more: something on the way has forgotten the connection.
    pub(super) forgotten: [Cell<bool>; 2],
    /// The side probes its peer (keepalive), and takes it for dead after so many nanoseconds. None: it notices only what
    /// is not acknowledged.
    pub(super) dead_after: [Cell<Option<u64>>; 2],
}

pub(super) struct Pipe {
    pub(super) window: usize,
    /// Sent, and as far as the sender knows not read yet.
    pub(super) taken: Cell<usize>,
    /// Sent so far.
    pub(super) given: Cell<u64>,
    /// Read, which the sender could not be told.
    untold: Cell<usize>,
    pub(super) arrived: RefCell<VecDeque<Bytes>>,
    /// In their order; each has an event for when it arrives, or is stuck.
    under_way: RefCell<VecDeque<Segment>>,
    /// How many of those reached a cut.
    stuck: Cell<usize>,
    last_arrival: Cell<u64>,
    pub(super) finished: Cell<bool>,
    pub(super) fin_arrived: Cell<bool>,
    /// The reading side has closed.
    pub(super) abandoned: Cell<bool>,
    pub(super) readable: Event,
    pub(super) writable: Event,
}

pub(super) enum Segment {
    Data(Bytes),
    Fin,
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Data(bytes) => bytes.len(),
            Segment::Fin => 0,
        }
    }
}

impl Pipe {
    pub(super) fn new(window: usize) -> Pipe {
        Pipe {
            window,
            taken: Cell::new(0),
            given: Cell::new(0),
            untold: Cell::new(0),
            arrived: RefCell::default(),
            under_way: RefCell::default(),
            stuck: Cell::new(0),
            last_arrival: Cell::new(0),
            finished: Cell::new(false),
            fin_arrived: Cell::new(false),
            abandoned: Cell::new(false),
            readable: Event::new(),
            writable: Event::new(),
        }
    }

    fn take(&self, buf: &mut BytesMut, n: usize) {
        let mut left = n;
        let mut arrived = self.arrived.borrow_mut();
        while left > 0 {
            let Some(first) = arrived.front_mut() else { break };
            let piece = first.split_to(left.min(first.len()));
            if first.is_empty() {
                arrived.pop_front();
            }
            left -= piece.len();
            buf.extend_from_slice(&piece);
        }
    }

    /// The sender learns that `n` bytes were read.
    fn acknowledge(&self, n: usize) {
        self.taken.set(self.taken.get() - n);
        self.writable.notify_all();
    }
}

impl Connection {
    /// Whether what `side` sends cannot arrive now.
    fn is_cut(&self, network: &Network, side: usize) -> bool {
        self.forgotten[side].get() || network.is_cut(self.machines[side], self.machines[1 - side])
    }

    /// Sends a segment of `side` on its way; it arrives after those before it.
    pub(super) fn arrive_later(
        self: &Rc<Connection>,
        scheduler: &Rc<Scheduler>,
        side: usize,
        segment: Segment,
    ) {
        let (from, to) = (self.machines[side], self.machines[1 - side]);
        let latency = scheduler.network.latency_with_losses(scheduler, from, to, segment.len());
        self.pipes[side].under_way.borrow_mut().push_back(segment);
        self.deliver_after(scheduler, side, latency);
    }

    fn deliver_after(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize, latency: u64) {
        let pipe = &self.pipes[side];
        let at = (scheduler.now() + latency).max(pipe.last_arrival.get());
        pipe.last_arrival.set(at);
        let (connection, world) = (Rc::clone(self), Rc::downgrade(scheduler));
        scheduler.at(at, move || {
            if let Some(scheduler) = world.upgrade() {
                connection.deliver(&scheduler, side);
            }
        });
    }

    /// The next segment of `side` arrives.
    fn deliver(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize) {
        let (pipe, receiver) = (&self.pipes[side], 1 - side);
        if self.is_cut(&scheduler.network, side) {
            if pipe.stuck.replace(pipe.stuck.get() + 1) == 0 {
                self.expect_signs_of_life(scheduler, side);
            }
            return;
        }
        let Some(segment) = pipe.under_way.borrow_mut().pop_front() else { return };
        if self.broken[receiver].get().is_some() {
            // The kernel knows of no such connection.
            return self.reset_later(scheduler, receiver, 0);
        }
        match segment {
            Segment::Data(bytes) => {
                scheduler.trace.mix_bytes(&bytes);
                if pipe.abandoned.get() {
                    // Data for a closed socket: the kernel answers with a reset.
                    self.abort(receiver, io::ErrorKind::ConnectionReset);
                    return self.reset_later(scheduler, receiver, 0);
                }
                pipe.arrived.borrow_mut().push_back(bytes);
            }
            Segment::Fin => pipe.fin_arrived.set(true),
        }
        pipe.readable.notify_all();
    }

    /// The receiver of `side`'s bytes takes `n` of those that arrived.
    pub(super) fn take(&self, network: &Network, side: usize, buf: &mut BytesMut, n: usize) {
        let pipe = &self.pipes[side];
        pipe.take(buf, n);
        match self.is_cut(network, 1 - side) {
            true => pipe.untold.set(pipe.untold.get() + n),
            false => pipe.acknowledge(n),
        }
    }

    /// A cut of what `side` sends has healed: what is stuck arrives with the sender's next try.
    pub(super) fn go_on(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize, pause_max: u64) {
        if self.forgotten[side].get() {
            return;
        }
        let answered = &self.pipes[1 - side];
        match answered.untold.take() {
            0 => {}
            untold => answered.acknowledge(untold),
        }
        let stuck = self.pipes[side].stuck.take();
        if stuck > 0 && self.broken[side].get().is_none() {
            let pause = scheduler.random.borrow_mut().below(pause_max);
            for _ in 0..stuck {
                let (from, to) = (self.machines[side], self.machines[1 - side]);
                let latency = scheduler.network.latency_with_losses(scheduler, from, to, 0);
                self.deliver_after(scheduler, side, pause + latency);
            }
        }
    }

    /// `side` sends a reset, which is not sent again if it gets lost.
    pub(super) fn reset_later(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize, delay: u64) {
        let (from, to) = (self.machines[side], self.machines[1 - side]);
        let latency = delay + scheduler.network.latency(scheduler, from, to, 0);
        let is_lost = scheduler.network.loses(scheduler, from, to);
        let (connection, world) = (Rc::clone(self), Rc::downgrade(scheduler));
        scheduler.after(latency, move || {
            let Some(scheduler) = world.upgrade() else { return };
            match is_lost || connection.is_cut(&scheduler.network, side) {
                true => connection.expect_signs_of_life(&scheduler, 1 - side),
                false => connection.abort(1 - side, io::ErrorKind::ConnectionReset),
            }
        });
    }

    /// As [`Connection::reset_later`], again and again until it arrives.
    pub(super) fn reset_for_certain(
        self: &Rc<Connection>,
        scheduler: &Rc<Scheduler>,
        side: usize,
        delay: u64,
    ) {
        self.reset_later(scheduler, side, delay);
        let (connection, world) = (Rc::downgrade(self), Rc::downgrade(scheduler));
        scheduler.after(delay + RESET_AGAIN_NANOS, move || {
            let (Some(connection), Some(scheduler)) = (connection.upgrade(), world.upgrade()) else { return };
            if connection.broken[1 - side].get().is_none() && !connection.forgotten[side].get() {
                connection.reset_for_certain(&scheduler, side, 0);
            }
        });
    }

    /// `side` ends the connection if it hears nothing of its peer for too long from now on.
    pub(super) fn expect_signs_of_life(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize) {
        if self.broken[side].get().is_some() {
            return;
        }
        let since = scheduler.now();
        let probes = self.dead_after[side].get();
        let (connection, world) = (Rc::downgrade(self), Rc::downgrade(scheduler));
        scheduler.after(probes.unwrap_or(RETRIES_NANOS), move || {
            let (Some(connection), Some(scheduler)) = (connection.upgrade(), world.upgrade()) else { return };
            let is_asking = probes.is_some() || connection.pipes[side].taken.get() > 0;
            if is_asking && connection.is_silent(&scheduler.network, side, since) {
                connection.abort(side, io::ErrorKind::TimedOut);
                connection.reset_later(&scheduler, side, 0);
            }
        });
    }

    /// Whether `side` has had no acknowledgement since then.
    fn is_silent(&self, network: &Network, side: usize, since: u64) -> bool {
        let is_out = |side: usize| {
            let cut = network.cut_since(self.machines[side], self.machines[1 - side]);
            self.forgotten[side].get() || cut.is_some_and(|cut| cut <= since)
        };
        self.broken[1 - side].get().is_some() || is_out(0) || is_out(1)
    }

    /// The connection has ended for one side.
    pub(super) fn abort(&self, side: usize, error: io::ErrorKind) {
        if self.broken[side].get().is_some() {
            return;
        }
        self.broken[side].set(Some(error));
        let [own, peer] = [side, 1 - side].map(|side| &self.pipes[side]);
        // A reset discards what was not read.
        peer.arrived.borrow_mut().clear();
        for pipe in [own, peer] {
            pipe.readable.notify_all();
            pipe.writable.notify_all();
        }
    }

    pub(super) fn break_off(&self, error: io::ErrorKind) {
        self.abort(0, error);
        self.abort(1, error);
    }
}
