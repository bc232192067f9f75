//! TCP listeners and streams.

use crate::world::{self, World};
use crate::{File, real, sim};
use crate::{Instant, now, timeout, yield_if_needed};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

/// Options of [`Listener::bind`] and [`Listener::join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel holds until they are accepted.
    pub backlog: i32,
    /// A peer whose kernel acknowledges nothing for this long is taken for dead, whether bytes wait for it
    /// (TCP_USER_TIMEOUT) or not (keepalive).
    pub dead_after: Duration,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { backlog: 1024, dead_after: Duration::from_secs(120) }
    }
}

/// A TCP listener of one core. The first core of a process takes the address with [`Listener::bind`], the others serve
/// it too with [`Listener::join`], and the kernel deals connections out among them (SO_REUSEPORT).
pub struct Listener {
    inner: AnyListener,
}

enum AnyListener {
    Real(real::net::Listener),
    Sim(sim::net::Listener),
}

impl Listener {
    /// Takes the address and listens; port 0 takes a free one. AddrInUse if anybody listens there already, on this address
    /// or one that covers it: were it shared with another process, clients would find now one, now the other.
    pub fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let inner = match world::current() {
            World::Real(_) => AnyListener::Real(real::net::Listener::bind(addr, options)?),
            World::Sim(_) => AnyListener::Sim(sim::net::Listener::bind(addr, options)?),
        };
        Ok(Listener { inner })
    }

    /// Listens on an address that another core of this process has taken.
    pub fn join(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let inner = match world::current() {
            World::Real(_) => AnyListener::Real(real::net::Listener::join(addr, options)?),
            World::Sim(_) => AnyListener::Sim(sim::net::Listener::join(addr, options)?),
        };
        Ok(Listener { inner })
    }

    /// The next connection, with TCP_NODELAY set, and its peer's address; an IPv4 peer's is an IPv4 address on [::] too.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.inner {
            AnyListener::Real(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream { inner: AnyStream::Real(stream) }, peer))
            }
            AnyListener::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream { inner: AnyStream::Sim(stream) }, peer))
            }
        }
    }

    /// The address it is bound to, with the port that was taken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            AnyListener::Real(listener) => listener.local_addr(),
            AnyListener::Sim(listener) => listener.local_addr(),
        }
    }
}

/// A TCP connection. Clones share the socket; one reader and one writer at a time.
#[derive(Clone)]
pub struct Stream {
    inner: AnyStream,
}

#[derive(Clone)]
enum AnyStream {
    Real(real::net::Stream),
    Sim(sim::net::Stream),
}

/// A piece of [`Stream::send`]: bytes, or a range of a file.
#[derive(Clone)]
pub enum Part {
    Bytes(Bytes),
    File { file: File, pos: u64, len: u64 },
}

impl From<Bytes> for Part {
    fn from(bytes: Bytes) -> Part {
        Part::Bytes(bytes)
    }
}

impl Stream {
    /// Connects, with TCP_NODELAY set. The kernel's patience is long: bound it by [`crate::timeout`].
    pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let inner = match world::current() {
            World::Real(_) => AnyStream::Real(real::net::Stream::connect(addr).await?),
            World::Sim(_) => AnyStream::Sim(sim::net::Stream::connect(addr).await?),
        };
        Ok(Stream { inner })
    }

    /// Appends at most `max` (above 0) bytes to `buf` as soon as there are any; 0 = the peer has finished. Cancel-safe:
    /// a dropped read loses nothing.
    ///
    /// While it waits with nothing in `buf`, it holds no memory. It receives in place where `max` is large or `buf` has
    /// the room; short reads are copied once.
    pub async fn read(&self, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
        match &self.inner {
            AnyStream::Real(stream) => stream.read(buf, max).await,
            AnyStream::Sim(stream) => stream.read(buf, max).await,
        }
    }

    /// Sends all of `parts` in order. Dropped midway, a prefix has been sent: shut the stream down.
    ///
    /// Parts may be slices of larger memory. What the peer makes wait for longer than a moment is copied, so that it
    /// keeps no more than its own bytes.
    pub async fn send(&self, parts: Vec<Part>) -> io::Result<()> {
        match &self.inner {
            AnyStream::Real(stream) => stream.send(parts).await,
            AnyStream::Sim(stream) => stream.send(parts).await,
        }
    }

    /// Bytes that the peer has taken so far: how a send that takes long goes on.
    pub fn taken(&self) -> u64 {
        match &self.inner {
            AnyStream::Real(stream) => stream.taken(),
            AnyStream::Sim(stream) => stream.taken(),
        }
    }

    /// From now on a peer whose kernel acknowledges nothing for this long is taken for dead, as
    /// [`ListenOptions::dead_after`] says of those that were accepted.
    pub fn set_dead_after(&self, dead_after: Duration) -> io::Result<()> {
        match &self.inner {
            AnyStream::Real(stream) => stream.set_dead_after(dead_after),
            AnyStream::Sim(stream) => {
                stream.set_dead_after(dead_after);
                Ok(())
            }
        }
    }

    /// Takes the connection off this core, to be attached to another. The stream comes back as long as there is a clone of it, or
    /// an operation of it that the kernel has not let go of: a read that was begun must have ended, not been dropped.
    pub fn detach(self) -> Result<Detached, Stream> {
        match self.inner {
            AnyStream::Real(stream) => match stream.detach() {
                Ok(inner) => Ok(Detached { inner: AnyDetached::Real(inner) }),
                Err(stream) => Err(Stream { inner: AnyStream::Real(stream) }),
            },
            AnyStream::Sim(stream) => match stream.detach() {
                Ok(inner) => Ok(Detached { inner: AnyDetached::Sim(inner) }),
                Err(stream) => Err(Stream { inner: AnyStream::Sim(stream) }),
            },
        }
    }

    /// Ends both directions: pending and later reads and sends finish (with 0 bytes or an error).
    pub fn shutdown(&self) {
        match &self.inner {
            AnyStream::Real(stream) => stream.shutdown(),
            AnyStream::Sim(stream) => stream.shutdown(),
        }
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            AnyStream::Real(stream) => stream.peer_addr(),
            AnyStream::Sim(stream) => stream.peer_addr(),
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.inner {
            AnyStream::Real(stream) => stream.local_addr(),
            AnyStream::Sim(stream) => stream.local_addr(),
        }
    }
}

/// A connection on its way between two cores of a process. Dropped there, it is closed.
pub struct Detached {
    inner: AnyDetached,
}

enum AnyDetached {
    Real(real::net::Detached),
    Sim(sim::net::Detached),
}

impl Detached {
    /// The calling core has it from now on.
    pub fn attach(self) -> Stream {
        let inner = match self.inner {
            AnyDetached::Real(detached) => AnyStream::Real(detached.attach()),
            AnyDetached::Sim(detached) => AnyStream::Sim(detached.attach()),
        };
        Stream { inner }
    }
}

/// Time in which a peer may take what is sent by reference.
const HOLD_MAX: Duration = Duration::from_millis(100);
/// Bytes that are copied into one piece of memory.
const COPY_PIECE: usize = 256 << 10;

/// What a send has still to do.
#[derive(Default)]
pub(crate) struct Unsent {
    pub(crate) run: VecDeque<Bytes>,
    waits_since: Option<Instant>,
    is_copy: bool,
}

impl Unsent {
    /// Awaits that the peer lets more be sent.
    pub(crate) async fn wait<T>(&mut self, ready: impl Future<Output = T>) -> T {
        if self.is_copy {
            return ready.await;
        }
        let since = *self.waits_since.get_or_insert_with(now);
        let mut ready = pin!(ready);
        match timeout(HOLD_MAX.saturating_sub(since.elapsed()), ready.as_mut()).await {
            Ok(value) => value,
            Err(_) => {
                self.copy().await;
                ready.await
            }
        }
    }

    /// Copies what is left, and lets go of the memory that it was part of.
    async fn copy(&mut self) {
        self.is_copy = true;
        let mut left: usize = self.run.iter().map(Bytes::len).sum();
        let mut copied = VecDeque::new();
        while left > 0 {
            let mut piece = BytesMut::with_capacity(left.min(COPY_PIECE));
            while let Some(part) = self.run.front_mut()
                && piece.len() < piece.capacity()
            {
                let some = part.split_to(part.len().min(piece.capacity() - piece.len()));
                piece.extend_from_slice(&some);
                if part.is_empty() {
                    self.run.pop_front();
                }
            }
            left -= piece.len();
            copied.push_back(piece.freeze());
            yield_if_needed().await;
        }
        self.run = copied;
    }
}
