//! Streams: a process's hold on one side of a connection.

use super::super::machine::{Descriptor, Machine};
use super::super::scheduler::{self, Context, Scheduler};
use super::connection::{Connection, Pipe, Segment};
use super::listener::Listening;
use super::{machine_at, nanos};
use crate::net::Unsent;
use crate::world::{self, World};
use crate::{Part, turn};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Bytes under way or unread in one direction; drawn per connection.
const WINDOW_MIN: u64 = 16 << 10;
const WINDOW_MAX: u64 = 512 << 10;
const SEGMENT_MAX: u64 = 64 << 10;
/// A connection attempt that nobody answers is repeated after this, then after twice as long, and given up after so many
/// (Linux's tcp_syn_retries): after 127 s.
const RETRY_NANOS: u64 = 1_000_000_000;
const RETRIES_MAX: u32 = 6;

#[derive(Clone)]
pub(crate) struct Stream {
    end: Rc<End>,
}

/// One side's hold on a connection; the last to go closes it.
struct End {
    connection: Rc<Connection>,
    side: usize,
    scheduler: Weak<Scheduler>,
    /// None: the kernel's alone, until it is accepted.
    descriptor: RefCell<Option<Descriptor>>,
}

impl Stream {
    /// The process has it from now on.
    pub(super) fn accepted(&self, descriptor: Descriptor) {
        *self.end.descriptor.borrow_mut() = Some(descriptor);
    }

    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let context = scheduler::current();
        turn::operation();
        let descriptor = context.descriptor()?;
        let target = machine_at(&context, addr.ip()).ok_or(io::ErrorKind::HostUnreachable)?;
        let mut patience = RETRY_NANOS;
        for _ in 0..=RETRIES_MAX {
            if let Some(outcome) = knock(&context, &target, addr).await {
                let stream = outcome?;
                stream.accepted(descriptor);
                return Ok(stream);
            }
            pause(&context, patience).await;
            patience *= 2;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    pub(crate) async fn read(&self, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
        let context = scheduler::current();
        let connection = &self.end.connection;
        let pipe = &connection.pipes[1 - self.end.side];
        turn::operation();
        loop {
            let readable = pipe.readable.listen();
            let available: usize = pipe.arrived.borrow().iter().map(Bytes::len).sum();
            if available > 0 && max > 0 {
                let most = available.min(max) as u64;
                // Often all there is, else a part: readers must not count on whole frames.
                let mut random = context.scheduler.random.borrow_mut();
                let n = if random.one_in(2) { most } else { 1 + random.below(most) };
                drop(random);
                turn::worked(n as usize);
                connection.take(&context.scheduler.network, 1 - self.end.side, buf, n as usize);
                return Ok(n as usize);
            }
            if let Some(error) = connection.broken[self.end.side].get() {
                return Err(error.into());
            }
            if pipe.fin_arrived.get() || pipe.abandoned.get() || max == 0 {
                return Ok(0);
            }
            readable.await;
        }
    }

    pub(crate) async fn send(&self, parts: Vec<Part>) -> io::Result<()> {
        turn::operation();
        let mut unsent = Unsent::default();
        for part in parts {
            match part {
                Part::Bytes(bytes) => unsent.run.push_back(bytes),
                Part::File { file, pos, len } => {
                    let (mut at, end) = (pos, pos + len);
                    while at < end {
                        let piece = file.read_piece(at, end).await?;
                        at += piece.len() as u64;
                        unsent.run.push_back(piece);
                        self.send_bytes(&mut unsent).await?;
                    }
                }
            }
        }
        self.send_bytes(&mut unsent).await
    }

    async fn send_bytes(&self, unsent: &mut Unsent) -> io::Result<()> {
        let context = scheduler::current();
        let connection = &self.end.connection;
        let pipe = &connection.pipes[self.end.side];
        while let Some(bytes) = unsent.run.front_mut() {
            if bytes.is_empty() {
                unsent.run.pop_front();
                continue;
            }
            let writable = pipe.writable.listen();
            if let Some(error) = connection.broken[self.end.side].get() {
                return Err(error.into());
            }
            if pipe.finished.get() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let room = pipe.window - pipe.taken.get();
            if room == 0 {
                unsent.wait(writable).await;
                continue;
            }
            let (n, reset) = {
                let mut random = context.scheduler.random.borrow_mut();
                let most = (bytes.len().min(room) as u64).min(SEGMENT_MAX);
                let n = if random.one_in(2) { most } else { 1 + random.below(most) };
                (n as usize, random.one_in(context.scheduler.config.reset_one_in))
            };
            if reset {
                connection.break_off(io::ErrorKind::ConnectionReset);
                continue;
            }
            pipe.taken.set(pipe.taken.get() + n);
            pipe.given.set(pipe.given.get() + n as u64);
            // What is under way is the kernel's, which has copied it.
            let segment = Segment::Data(Bytes::copy_from_slice(&bytes.split_to(n)));
            connection.arrive_later(&context.scheduler, self.end.side, segment);
        }
        Ok(())
    }

    /// Bytes that the peer has read.
    pub(crate) fn taken(&self) -> u64 {
        let pipe = &self.end.connection.pipes[self.end.side];
        pipe.given.get() - pipe.taken.get() as u64
    }

    pub(crate) fn set_dead_after(&self, dead_after: Duration) {
        self.end.connection.dead_after[self.end.side].set(Some(nanos(dead_after)));
    }

    pub(crate) fn detach(mut self) -> Result<Detached, Stream> {
        if Rc::get_mut(&mut self.end).is_none() {
            return Err(self);
        }
        let network = &scheduler::current().scheduler.network;
        let number = network.next_detached.get();
        network.next_detached.set(number + 1);
        network.detached.borrow_mut().insert(number, self);
        Ok(Detached { number })
    }

    pub(crate) fn shutdown(&self) {
        self.end.close();
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.end.connection.addrs[1 - self.end.side])
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.end.connection.addrs[self.end.side])
    }
}

/// A stream of no core, by its number in the network's list: mailboxes carry what could go to another thread.
pub(crate) struct Detached {
    number: u64,
}

impl Detached {
    pub(crate) fn attach(self) -> Stream {
        let context = scheduler::current();
        let stream = context.scheduler.network.detached.borrow_mut().remove(&self.number);
        let stream = stream.expect("it is there until it is attached");
        assert_eq!(stream.end.connection.machines[stream.end.side], context.machine.id, "on its own machine");
        stream
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // A world that is gone has closed it.
        let Some(World::Sim(context)) = world::try_current() else { return };
        let stream = context.scheduler.network.detached.borrow_mut().remove(&self.number);
        drop(stream);
    }
}

impl End {
    fn close(&self) {
        let [own, peer] = [self.side, 1 - self.side].map(|side| &self.connection.pipes[side]);
        if !own.finished.replace(true)
            && self.connection.broken[self.side].get().is_none()
            && let Some(scheduler) = self.scheduler.upgrade()
        {
            self.connection.arrive_later(&scheduler, self.side, Segment::Fin);
        }
        peer.abandoned.set(true);
        own.writable.notify_all();
        peer.readable.notify_all();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let unread = !self.connection.pipes[1 - self.side].arrived.borrow().is_empty();
        match self.scheduler.upgrade() {
            // Closed with bytes unread, TCP resets the connection, after a shutdown too: a peer that waits to send more
            // learns of it.
            Some(scheduler) if unread && self.connection.broken[self.side].get().is_none() => {
                self.connection.abort(self.side, io::ErrorKind::ConnectionReset);
                self.connection.reset_later(&scheduler, self.side, 0);
            }
            _ => self.close(),
        }
    }
}

/// One attempt to connect; none: nobody answers.
async fn knock(context: &Rc<Context>, target: &Rc<Machine>, addr: SocketAddr) -> Option<io::Result<Stream>> {
    let (scheduler, here, there) = (&context.scheduler, context.machine.id, target.id);
    let network = &scheduler.network;
    let arrives = |from, to| !network.is_cut(from, to) && !network.loses(scheduler, from, to);
    pause(context, network.latency(scheduler, here, there, 0)).await;
    if !arrives(here, there) {
        return None;
    }
    let serving = network.listeners_at(there, addr);
    if serving.is_empty() {
        pause(context, network.latency(scheduler, there, here, 0)).await;
        return arrives(there, here).then(|| Err(io::ErrorKind::ConnectionRefused.into()));
    }
    let chosen = scheduler.random.borrow_mut().index(serving.len());
    let listening = &serving[chosen];
    if listening.waiting.borrow().len() >= listening.backlog || !arrives(there, here) {
        return None;
    }
    let stream = establish(context, target, addr, listening);
    pause(context, network.latency(scheduler, there, here, 0)).await;
    Some(Ok(stream))
}

fn establish(
    context: &Rc<Context>,
    target: &Rc<Machine>,
    addr: SocketAddr,
    listening: &Rc<Listening>,
) -> Stream {
    let scheduler = &context.scheduler;
    let local_ip = if target.id == context.machine.id { addr.ip() } else { context.machine.ip() };
    let local = SocketAddr::new(local_ip, scheduler.network.fresh_port());
    let window = || {
        let spread = scheduler.random.borrow_mut().below(WINDOW_MAX - WINDOW_MIN);
        (WINDOW_MIN + spread) as usize
    };
    let connection = Rc::new(Connection {
        machines: [context.machine.id, target.id],
        addrs: [local, addr],
        pipes: [Pipe::new(window()), Pipe::new(window())],
        broken: Default::default(),
        forgotten: Default::default(),
        dead_after: [Cell::new(None), Cell::new(Some(listening.dead_after))],
    });
    scheduler.network.connections.borrow_mut().push(Rc::downgrade(&connection));
    scheduler.trace.mix(context.machine.id as u64, target.id as u64);
    let stream = |side| {
        let (connection, scheduler) = (Rc::clone(&connection), Rc::downgrade(scheduler));
        Stream { end: Rc::new(End { connection, side, scheduler, descriptor: RefCell::default() }) }
    };
    listening.waiting.borrow_mut().push_back(stream(1));
    listening.arrived.notify_all();
    stream(0)
}

/// Waits by world time: what happens on the way does not follow a machine's clock.
async fn pause(context: &Rc<Context>, nanos: u64) {
    let (done, arrived) = crate::sync::oneshot();
    context.scheduler.after(nanos, move || {
        let _ = done.send(());
    });
    let _ = arrived.await;
}
