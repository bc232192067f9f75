//! TCP listeners and streams.

use crate::world::{self, World};
use crate::{File, real, sim};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;

/// Options of [`Listener::bind`] and [`Listener::join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel holds until they are accepted.
    pub backlog: i32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { backlog: 1024 }
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
    pub async fn send(&self, parts: Vec<Part>) -> io::Result<()> {
        match &self.inner {
            AnyStream::Real(stream) => stream.send(parts).await,
            AnyStream::Sim(stream) => stream.send(parts).await,
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
