//! Sockets and timers of one driver: epoll through mio, and a sorted map of deadlines.

use super::local;
use bytes::{BufMut, BytesMut};
use futures_channel::oneshot;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll as TaskPoll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// The kernel counts in milliseconds, and not beyond 24 days.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Events taken from the kernel at a time.
const EVENTS_MAX: usize = 256;
/// The token of the waker; sockets count from 0.
pub(super) const WAKER: Token = Token(usize::MAX);

pub(super) struct Reactor {
    poll: RefCell<Poll>,
    events: RefCell<Events>,
    sources: RefCell<Sources>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    timers_made: Cell<u64>,
}

#[derive(Default)]
struct Sources {
    by_token: Vec<Option<Rc<Interests>>>,
    free: Vec<usize>,
}

/// Who waits for a socket.
#[derive(Default)]
struct Interests {
    read: RefCell<Option<Waker>>,
    write: RefCell<Option<Waker>>,
}

impl Reactor {
    pub(super) fn new(poll: Poll) -> Reactor {
        Reactor {
            poll: RefCell::new(poll),
            events: RefCell::new(Events::with_capacity(EVENTS_MAX)),
            sources: RefCell::default(),
            timers: RefCell::default(),
            timers_made: Cell::new(0),
        }
    }

    /// Takes what is there, after waiting for it if `wait`, and wakes whom it concerns.
    pub(super) fn turn(&self, wait: bool) {
        let first = self.timers.borrow().keys().next().map(|(at, _)| *at);
        let until_first = || first.map(|at| at.saturating_duration_since(Instant::now()).min(WAIT_MAX));
        let timeout = if wait { until_first() } else { Some(Duration::ZERO) };
        let mut events = self.events.borrow_mut();
        match self.poll.borrow_mut().poll(&mut events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("epoll_wait failed: {error}"),
        }
        for event in &*events {
            let Token(at) = event.token();
            let interests = self.sources.borrow().by_token.get(at).cloned().flatten();
            let Some(interests) = interests else { continue };
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                interests.read.take().into_iter().for_each(Waker::wake);
            }
            if event.is_writable() || event.is_write_closed() || event.is_error() {
                interests.write.take().into_iter().for_each(Waker::wake);
            }
        }
        if first.is_some() {
            let now = Instant::now();
            let mut timers = self.timers.borrow_mut();
            while let Some(timer) = timers.first_entry() {
                if timer.key().0 > now {
                    break;
                }
                timer.remove().wake();
            }
        }
    }

    fn register(&self, socket: &mut mio::net::TcpStream) -> io::Result<(usize, Rc<Interests>)> {
        let interests = Rc::new(Interests::default());
        let mut sources = self.sources.borrow_mut();
        let at = sources.free.last().copied().unwrap_or(sources.by_token.len());
        self.poll.borrow().registry().register(socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        if sources.free.pop().is_none() {
            sources.by_token.push(None);
        }
        sources.by_token[at] = Some(interests.clone());
        Ok((at, interests))
    }
}

/// A connected socket of this driver. The kernel tells of changes once, so every operation is tried before it waits.
pub(crate) struct TcpStream {
    socket: mio::net::TcpStream,
    at: usize,
    interests: Rc<Interests>,
    reactor: Rc<Reactor>,
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let mut sources = self.reactor.sources.borrow_mut();
        sources.by_token[self.at] = None;
        sources.free.push(self.at);
    }
}

impl TcpStream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let reactor = local().reactor();
        let mut socket = mio::net::TcpStream::connect(address)?;
        let (at, interests) = reactor.register(&mut socket)?;
        let stream = TcpStream { socket, at, interests, reactor };
        poll_fn(|cx| {
            if let Some(error) = stream.socket.take_error()? {
                return TaskPoll::Ready(Err(error));
            }
            match stream.socket.peer_addr() {
                Ok(_) => TaskPoll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    stream.interests.write.replace(Some(cx.waker().clone()));
                    TaskPoll::Pending
                }
                Err(error) => TaskPoll::Ready(Err(error)),
            }
        })
        .await?;
        stream.socket.set_nodelay(true)?;
        Ok(stream)
    }

    /// Appends what has come, as far as `buffer` has room; 0 at the end of the stream.
    pub(crate) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| {
            loop {
                match SockRef::from(&self.socket).recv(buffer.spare_capacity_mut()) {
                    Ok(read) => {
                        // SAFETY: `recv` has initialized the first `read` bytes of the spare capacity.
                        unsafe { buffer.advance_mut(read) };
                        return TaskPoll::Ready(Ok(read));
                    }
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => {
                            self.interests.read.replace(Some(cx.waker().clone()));
                            return TaskPoll::Pending;
                        }
                        _ => return TaskPoll::Ready(Err(error)),
                    },
                }
            }
        })
        .await
    }

    /// Writes a part of `slices`.
    pub(crate) async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|cx| {
            loop {
                match (&self.socket).write_vectored(slices) {
                    Ok(written) => return TaskPoll::Ready(Ok(written)),
                    Err(error) => match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => {
                            self.interests.write.replace(Some(cx.waker().clone()));
                            return TaskPoll::Pending;
                        }
                        _ => return TaskPoll::Ready(Err(error)),
                    },
                }
            }
        })
        .await
    }

    /// Ends both directions, so that reads and writes under way return.
    pub(crate) fn shutdown(&self) {
        // Fails if the peer has gone already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// The addresses of a host. Names are looked up on a thread of their own, since the system's resolver blocks.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (tx, rx) = oneshot::channel();
    let host = host.to_owned();
    thread::Builder::new().name("resolve".into()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(|all| all.collect::<Vec<_>>());
        let _ = tx.send(addresses);
    })?;
    let addresses = rx.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
    }
    Ok(addresses)
}

pub(crate) struct Sleep {
    at: Instant,
    armed: Option<(Rc<Reactor>, u64)>,
}

impl Sleep {
    pub(super) fn until(at: Instant) -> Sleep {
        Sleep { at, armed: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context) -> TaskPoll<()> {
        let at = self.at;
        if Instant::now() >= at {
            return TaskPoll::Ready(());
        }
        let (reactor, id) = self.armed.get_or_insert_with(|| {
            let reactor = local().reactor();
            let id = reactor.timers_made.get();
            reactor.timers_made.set(id + 1);
            (reactor, id)
        });
        reactor.timers.borrow_mut().insert((at, *id), cx.waker().clone());
        TaskPoll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((reactor, id)) = &self.armed {
            reactor.timers.borrow_mut().remove(&(self.at, *id));
        }
    }
}
