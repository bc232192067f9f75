//! Listeners, and who waits to be accepted.

use super::super::machine::Descriptor;
use super::super::scheduler::{self, Scheduler};
use super::{Stream, nanos};
use crate::sync::Event;
use crate::{ListenOptions, turn};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

pub(super) struct Listening {
    pub(super) machine: usize,
    pub(super) addr: SocketAddr,
    pub(super) backlog: usize,
    /// As [`ListenOptions`] says, in nanoseconds.
    pub(super) dead_after: u64,
    pub(super) waiting: RefCell<VecDeque<Stream>>,
    pub(super) arrived: Event,
    _descriptor: Descriptor,
}

pub(crate) struct Listener {
    listening: Rc<Listening>,
    scheduler: Weak<Scheduler>,
}

impl Listener {
    pub(crate) fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let context = scheduler::current();
        if context.scheduler.network.is_taken(context.machine.id, addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Listener::join(addr, options)
    }

    /// A simulated machine runs one process: who listens there may always be joined.
    pub(crate) fn join(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let context = scheduler::current();
        if !addr.ip().is_unspecified() && !addr.ip().is_loopback() && addr.ip() != context.machine.ip() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let descriptor = context.descriptor()?;
        let network = &context.scheduler.network;
        let port = if addr.port() == 0 { network.fresh_port() } else { addr.port() };
        let listening = Rc::new(Listening {
            machine: context.machine.id,
            addr: SocketAddr::new(addr.ip(), port),
            backlog: usize::try_from(options.backlog).unwrap_or(0).max(1),
            dead_after: nanos(options.dead_after),
            waiting: RefCell::default(),
            arrived: Event::new(),
            _descriptor: descriptor,
        });
        network.listeners.borrow_mut().push(Rc::clone(&listening));
        Ok(Listener { listening, scheduler: Rc::downgrade(&context.scheduler) })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let arrived = self.listening.arrived.listen();
            let next = self.listening.waiting.borrow_mut().pop_front();
            if let Some(stream) = next {
                turn::operation();
                match scheduler::current().descriptor() {
                    Ok(descriptor) => stream.accepted(descriptor),
                    Err(error) => {
                        // It stays where it was, as in Linux.
                        self.listening.waiting.borrow_mut().push_front(stream);
                        return Err(error);
                    }
                }
                let peer = stream.peer_addr()?;
                return Ok((stream, peer));
            }
            arrived.await;
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.listening.addr)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.network.listeners.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.listening));
        }
        // Whoever waited to be accepted is turned away.
        let waiting = self.listening.waiting.take();
        drop(waiting);
    }
}
