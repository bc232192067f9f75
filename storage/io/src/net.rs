//! TCP listeners and streams.

use crate::File;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;

/// Options of [`Listener::bind`].
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

/// A TCP listener of one core; every core binds the same address (SO_REUSEADDR, SO_REUSEPORT).
pub struct Listener {
    inner: (),
}

impl Listener {
    pub fn bind(_addr: SocketAddr, _options: ListenOptions) -> io::Result<Listener> {
        unimplemented!()
    }

    /// The next connection, with TCP_NODELAY set, and its peer's address.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        unimplemented!()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        unimplemented!()
    }
}

/// A TCP connection. Clones share the socket; one reader and one writer at a time.
#[derive(Clone)]
pub struct Stream {
    inner: std::rc::Rc<()>,
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
    pub async fn connect(_addr: SocketAddr) -> io::Result<Stream> {
        unimplemented!()
    }

    /// Appends at most `max` bytes to `buf` as soon as there are any; 0 = the peer has finished. Cancel-safe: a dropped read loses nothing.
    pub async fn read(&self, _buf: &mut BytesMut, _max: usize) -> io::Result<usize> {
        unimplemented!()
    }

    /// Sends all of `parts` in order. Dropped midway, a prefix has been sent: shut the stream down.
    pub async fn send(&self, _parts: Vec<Part>) -> io::Result<()> {
        unimplemented!()
    }

    /// Ends both directions: pending and later reads and sends finish (with 0 bytes or an error).
    pub fn shutdown(&self) {
        unimplemented!()
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        unimplemented!()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        unimplemented!()
    }
}
