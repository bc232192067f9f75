//! The simulated network: TCP connections between machines. Bytes arrive in order, in pieces, after a while; a
//! receiver that does not read stops its sender; a cut between machines holds everything back until it heals; a
//! connection breaks when either machine goes down, or when told to.

use super::machine::{Descriptor, Machine};
use super::scheduler::{self, Context, Scheduler};
use crate::net::Unsent;
use crate::sync::Event;
use crate::{ListenOptions, Part, turn};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

/// Bytes under way or unread in one direction; drawn per connection.
const WINDOW_MIN: u64 = 16 << 10;
const WINDOW_MAX: u64 = 512 << 10;
const SEGMENT_MAX: u64 = 64 << 10;
/// A connection attempt that nobody answers is repeated after this, and given up after that many.
const RETRY_NANOS: u64 = 1_000_000_000;
const RETRIES_MAX: u32 = 60;
/// How long a machine that lost its power may leave its peers without an answer.
const SILENCE_NANOS_MAX: u64 = 1_000_000_000;
const FIRST_EPHEMERAL_PORT: u16 = 40_000;

#[derive(Default)]
pub(crate) struct Network {
    listeners: RefCell<Vec<Rc<Listening>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    /// Pairs of machines that cannot reach each other, the smaller id first.
    cuts: RefCell<BTreeSet<(usize, usize)>>,
    next_port: Cell<u16>,
}

struct Listening {
    machine: usize,
    addr: SocketAddr,
    backlog: usize,
    waiting: RefCell<VecDeque<Stream>>,
    arrived: Event,
    _descriptor: Descriptor,
}

/// Both directions; side 0 connected, side 1 accepted.
struct Connection {
    machines: [usize; 2],
    addrs: [SocketAddr; 2],
    /// `pipes[side]`: what `side` sends.
    pipes: [Pipe; 2],
    broken: Cell<Option<io::ErrorKind>>,
}

struct Pipe {
    window: usize,
    /// Sent and not read yet.
    taken: Cell<usize>,
    /// Sent so far.
    given: Cell<u64>,
    arrived: RefCell<VecDeque<Bytes>>,
    /// What reached the cut; goes on when it heals.
    held: RefCell<VecDeque<Segment>>,
    last_arrival: Cell<u64>,
    finished: Cell<bool>,
    fin_arrived: Cell<bool>,
    /// The reading side has closed.
    abandoned: Cell<bool>,
    readable: Event,
    writable: Event,
}

enum Segment {
    Data(Bytes),
    Fin,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    fn cut_between(&self, a: usize, b: usize) -> bool {
        a != b && self.cuts.borrow().contains(&pair(a, b))
    }

    fn live(&self) -> Vec<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.strong_count() > 0);
        connections.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.cuts.borrow_mut().insert(pair(a, b));
    }

    pub(crate) fn heal(&self, scheduler: &Rc<Scheduler>, a: usize, b: usize) {
        self.cuts.borrow_mut().remove(&pair(a, b));
        for connection in self.live() {
            if pair(connection.machines[0], connection.machines[1]) == pair(a, b) {
                for side in [0, 1] {
                    let held = connection.pipes[side].held.take();
                    for segment in held {
                        connection.arrive_later(scheduler, side, segment);
                    }
                }
            }
        }
    }

    pub(crate) fn reset(&self, a: usize, b: usize) {
        for connection in self.live() {
            if pair(connection.machines[0], connection.machines[1]) == pair(a, b) {
                connection.break_off(io::ErrorKind::ConnectionReset);
            }
        }
    }

    /// A machine's process is gone, its listeners with it. After a power loss its peers hear nothing for up to a
    /// second, then a reset; a killed process's kernel resets some connections and finishes the others.
    pub(crate) fn machine_down(&self, scheduler: &Rc<Scheduler>, machine: usize, power_lost: bool) {
        let (down, up) = std::mem::take(&mut *self.listeners.borrow_mut())
            .into_iter()
            .partition(|listening| listening.machine == machine);
        self.listeners.replace(up);
        for connection in self.live() {
            let Some(side) = connection.machines.iter().position(|id| *id == machine) else { continue };
            let mut random = scheduler.random.borrow_mut();
            let mut delay = random.nanos(&scheduler.config.network_latency);
            if power_lost {
                delay += random.below(SILENCE_NANOS_MAX);
                // Nothing more is sent, not even the end of the stream.
                connection.pipes[side].finished.set(true);
            } else if random.one_in(2) {
                continue;
            }
            drop(random);
            scheduler.after(delay, move || connection.break_off(io::ErrorKind::ConnectionReset));
        }
        let down: Vec<Rc<Listening>> = down;
        drop(down);
    }

    pub(crate) fn clear(&self) {
        let listeners = self.listeners.take();
        let connections = self.connections.take();
        drop((listeners, connections));
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
                    Ok(descriptor) => *stream.end.descriptor.borrow_mut() = Some(descriptor),
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
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let context = scheduler::current();
        turn::operation();
        let descriptor = context.descriptor()?;
        let network = &context.scheduler.network;
        let target = machine_at(&context, addr.ip()).ok_or(io::ErrorKind::HostUnreachable)?;
        for _ in 0..RETRIES_MAX {
            pause(&context, hop(&context)).await;
            if network.cut_between(context.machine.id, target.id) {
                pause(&context, RETRY_NANOS).await;
                continue;
            }
            let serving = network.listeners_at(target.id, addr);
            if serving.is_empty() {
                pause(&context, hop(&context)).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let chosen = context.scheduler.random.borrow_mut().index(serving.len());
            let listening = &serving[chosen];
            if listening.waiting.borrow().len() >= listening.backlog {
                pause(&context, RETRY_NANOS).await;
                continue;
            }
            let stream = establish(&context, &target, addr, listening);
            *stream.end.descriptor.borrow_mut() = Some(descriptor);
            pause(&context, hop(&context)).await;
            return Ok(stream);
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
                return Ok(pipe.take(buf, n as usize));
            }
            if let Some(error) = connection.broken.get() {
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
            if let Some(error) = connection.broken.get() {
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

impl Pipe {
    fn new(window: usize) -> Pipe {
        Pipe {
            window,
            taken: Cell::new(0),
            given: Cell::new(0),
            arrived: RefCell::default(),
            held: RefCell::default(),
            last_arrival: Cell::new(0),
            finished: Cell::new(false),
            fin_arrived: Cell::new(false),
            abandoned: Cell::new(false),
            readable: Event::new(),
            writable: Event::new(),
        }
    }

    fn take(&self, buf: &mut BytesMut, n: usize) -> usize {
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
        drop(arrived);
        self.taken.set(self.taken.get() - n);
        self.writable.notify_all();
        n
    }
}

impl Connection {
    /// Sends a segment of `side` on its way; it arrives after those before it.
    fn arrive_later(self: &Rc<Connection>, scheduler: &Rc<Scheduler>, side: usize, segment: Segment) {
        let pipe = &self.pipes[side];
        let latency = scheduler.random.borrow_mut().nanos(&scheduler.config.network_latency);
        let at = (scheduler.now() + latency).max(pipe.last_arrival.get());
        pipe.last_arrival.set(at);
        let (connection, world) = (Rc::clone(self), Rc::downgrade(scheduler));
        scheduler.at(at, move || {
            if let Some(scheduler) = world.upgrade() {
                connection.arrive(&scheduler, side, segment);
            }
        });
    }

    fn arrive(&self, scheduler: &Scheduler, side: usize, segment: Segment) {
        let pipe = &self.pipes[side];
        if self.broken.get().is_some() {
            return;
        }
        if scheduler.network.cut_between(self.machines[0], self.machines[1]) {
            pipe.held.borrow_mut().push_back(segment);
            return;
        }
        match segment {
            Segment::Data(bytes) => {
                scheduler.trace.mix_bytes(&bytes);
                if pipe.abandoned.get() {
                    // Data for a closed socket: the kernel answers with a reset.
                    self.break_off(io::ErrorKind::ConnectionReset);
                    return;
                }
                pipe.arrived.borrow_mut().push_back(bytes);
            }
            Segment::Fin => pipe.fin_arrived.set(true),
        }
        pipe.readable.notify_all();
    }

    fn break_off(&self, error: io::ErrorKind) {
        if self.broken.get().is_none() {
            self.broken.set(Some(error));
            for pipe in &self.pipes {
                // A reset discards what was not read.
                pipe.arrived.borrow_mut().clear();
                pipe.held.borrow_mut().clear();
                pipe.readable.notify_all();
                pipe.writable.notify_all();
            }
        }
    }
}

impl End {
    fn close(&self) {
        let [own, peer] = [self.side, 1 - self.side].map(|side| &self.connection.pipes[side]);
        if !own.finished.replace(true)
            && self.connection.broken.get().is_none()
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
            Some(scheduler) if unread => {
                let latency = scheduler.random.borrow_mut().nanos(&scheduler.config.network_latency);
                let connection = Rc::clone(&self.connection);
                scheduler.after(latency, move || connection.break_off(io::ErrorKind::ConnectionReset));
            }
            _ => self.close(),
        }
    }
}

/// The machine an address belongs to.
fn machine_at(context: &Rc<Context>, ip: IpAddr) -> Option<Rc<Machine>> {
    if ip.is_loopback() || ip.is_unspecified() {
        return Some(Rc::clone(&context.machine));
    }
    context.scheduler.machines.borrow().iter().find(|machine| machine.ip() == ip).cloned()
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
        broken: Cell::new(None),
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

fn hop(context: &Rc<Context>) -> u64 {
    let scheduler = &context.scheduler;
    scheduler.random.borrow_mut().nanos(&scheduler.config.network_latency)
}

/// Waits by world time: what happens on the way does not follow a machine's clock.
async fn pause(context: &Rc<Context>, nanos: u64) {
    let (done, arrived) = crate::sync::oneshot();
    context.scheduler.after(nanos, move || {
        let _ = done.send(());
    });
    let _ = arrived.await;
}
