//! The simulated network: TCP connections between machines, over a link of its own in each direction.
//!
//! Bytes of a connection arrive in order, once, in pieces, after a while; a receiver that does not read stops its sender.
//! What a link loses is sent again later, and all behind it waits. What reaches a cut waits until it heals, and for the
//! sender's next try after that; who hears nothing for too long gives the connection up. Each side learns of an end by
//! itself: a reset that is lost on the way leaves the other side half open.

mod connection;
mod link;
mod listener;
mod stream;

pub(crate) use listener::Listener;
pub(crate) use stream::{Detached, Stream};

use super::machine::Machine;
use super::scheduler::{Context, Scheduler};
use connection::Connection;
use link::LinkState;
use listener::Listening;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long a machine that lost its power may leave its peers without an answer.
const SILENCE_NANOS_MAX: u64 = 1_000_000_000;
const FIRST_EPHEMERAL_PORT: u16 = 40_000;

#[derive(Default)]
pub(crate) struct Network {
    listeners: RefCell<Vec<Rc<Listening>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    /// By sender and receiver. Absent: as the network is.
    links: RefCell<BTreeMap<(usize, usize), LinkState>>,
    next_port: Cell<u16>,
    /// Streams on their way between two cores of a machine.
    detached: RefCell<BTreeMap<u64, Stream>>,
    next_detached: Cell<u64>,
}

impl Network {
    fn live(&self) -> Vec<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }

    /// Connections with a side on each of the machines.
    fn between(&self, a: usize, b: usize) -> Vec<Rc<Connection>> {
        let mut connections = self.live();
        connections.retain(|connection| [[a, b], [b, a]].contains(&connection.machines));
        connections
    }

    pub(crate) fn reset(&self, a: usize, b: usize) {
        for connection in self.between(a, b) {
            connection.break_off(io::ErrorKind::ConnectionReset);
        }
    }

    /// A machine's process is gone, its listeners with it. After a power loss its peers hear nothing for up to a
    /// second, then a reset, unless none is ever sent; a killed process's kernel resets some connections and finishes
    /// the others.
    pub(crate) fn machine_down(&self, scheduler: &Rc<Scheduler>, machine: usize, power_lost: bool) {
        let (down, up) = std::mem::take(&mut *self.listeners.borrow_mut())
            .into_iter()
            .partition(|listening| listening.machine == machine);
        self.listeners.replace(up);
        for connection in self.live() {
            let Some(side) = connection.machines.iter().position(|id| *id == machine) else { continue };
            let (mut delay, mut silent) = (0, false);
            if power_lost {
                let mut random = scheduler.random.borrow_mut();
                delay = random.below(SILENCE_NANOS_MAX);
                silent = random.one_in(scheduler.config.half_open_one_in);
                drop(random);
                connection.abort(side, io::ErrorKind::ConnectionReset);
            } else if scheduler.random.borrow_mut().one_in(2) {
                continue;
            }
            match silent {
                true => connection.expect_signs_of_life(scheduler, 1 - side),
                // Whoever asks again is told again.
                false => connection.reset_for_certain(scheduler, side, delay),
            }
        }
        let down: Vec<Rc<Listening>> = down;
        drop(down);
    }

    pub(crate) fn clear(&self) {
        let listeners = self.listeners.take();
        let connections = self.connections.take();
        let detached = self.detached.take();
        drop((listeners, connections, detached));
    }

    /// The listeners of `machine` that serve `addr`.
    fn listeners_at(&self, machine: usize, addr: SocketAddr) -> Vec<Rc<Listening>> {
        let serves = |listening: &&Rc<Listening>| {
            listening.machine == machine
                && listening.addr.port() == addr.port()
                && (listening.addr.ip().is_unspecified() || listening.addr.ip() == addr.ip())
        };
        self.listeners.borrow().iter().filter(serves).cloned().collect()
    }

    /// Whether somebody on `machine` listens on `addr`, or on an address that covers it or is covered by it.
    fn is_taken(&self, machine: usize, addr: SocketAddr) -> bool {
        self.listeners.borrow().iter().any(|listening| {
            let (here, there) = (addr.ip(), listening.addr.ip());
            listening.machine == machine
                && listening.addr.port() == addr.port()
                && (here == there || here.is_unspecified() || there.is_unspecified())
        })
    }

    fn fresh_port(&self) -> u16 {
        let port = self.next_port.get().max(FIRST_EPHEMERAL_PORT);
        self.next_port.set(port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT));
        port
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The machine an address belongs to.
fn machine_at(context: &Rc<Context>, ip: IpAddr) -> Option<Rc<Machine>> {
    if ip.is_loopback() || ip.is_unspecified() {
        return Some(Rc::clone(&context.machine));
    }
    context.scheduler.machines.borrow().iter().find(|machine| machine.ip() == ip).cloned()
}
