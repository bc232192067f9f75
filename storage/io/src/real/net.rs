//! Sockets: system calls that never block, and readiness from the second ring when there is nothing to do yet.

use super::core::{self, SCRATCH_BYTES};
use super::fd::{Fd, check};
use super::file::IO_BYTES_MAX;
use crate::net::Unsent;
use crate::{File, ListenOptions, Part};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::join;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, TcpKeepalive, Type};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Parts of one sendmsg: enough to fill a megabyte with small batches.
const VECTORS_MAX: usize = 256;
/// Keepalive probes that a peer may leave without an answer.
const PROBES: u32 = 4;

pub(crate) struct Listener {
    fd: Rc<Fd>,
}

impl Listener {
    pub(crate) fn bind(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let socket = listening_socket(addr, options)?;
        socket.bind(&addr.into())?;
        // With SO_REUSEADDR alone it is listen that says whether somebody listens there already.
        socket.listen(options.backlog)?;
        // Only now: whoever comes with `bind` is refused before this and after it, and `join` is let in.
        socket.set_reuse_port(true)?;
        Ok(Listener { fd: Fd::socket(socket.into_raw_fd()) })
    }

    pub(crate) fn join(addr: SocketAddr, options: ListenOptions) -> io::Result<Listener> {
        let socket = listening_socket(addr, options)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        socket.listen(options.backlog)?;
        Ok(Listener { fd: Fd::socket(socket.into_raw_fd()) })
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let mut storage = SockAddrStorage::zeroed();
            let mut len = storage.size_of();
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: the storage is as long as `len` says.
            let accepted = unsafe {
                check(libc::accept4(self.fd.raw(), storage.view_as::<libc::sockaddr>(), &mut len, flags))
            };
            match accepted {
                Ok(raw) => {
                    let fd = Fd::socket(raw);
                    set_nodelay(&fd)?;
                    // SAFETY: the kernel filled the storage and set its length.
                    let peer = unsafe { SockAddr::new(storage, len) };
                    let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                    // [::] has its IPv4 peers as ::ffff:a.b.c.d: they are the same peers as those of 0.0.0.0.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return Ok((Stream::new(fd), peer));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => core::current().ring.ready(&self.fd, libc::POLLIN).await?,
                    // The peer gave up while it waited: not the listener's failure.
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        address(&self.fd, libc::getsockname)
    }
}

#[derive(Clone)]
pub(crate) struct Stream {
    fd: Rc<Fd>,
    /// Bytes that the kernel was given.
    given: Rc<Cell<u64>>,
}

impl Stream {
    fn new(fd: Rc<Fd>) -> Stream {
        Stream { fd, given: Rc::default() }
    }

    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Stream> {
        let socket = new_socket(addr)?;
        let connected = socket.connect(&addr.into());
        let fd = Fd::socket(socket.into_raw_fd());
        match connected {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
                core::current().ring.ready(&fd, libc::POLLOUT).await?;
                take_error(&fd)?;
            }
            Err(error) => return Err(error),
        }
        set_nodelay(&fd)?;
        Ok(Stream::new(fd))
    }

    pub(crate) async fn read(&self, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
        let core = core::current();
        loop {
            // A short read, such as the first after silence, goes through memory of the core's: a peer that long has
            // nothing to say takes none of its own.
            let in_place = max > SCRATCH_BYTES || buf.capacity() - buf.len() >= max;
            let got = if in_place {
                buf.reserve(max);
                let spare = buf.spare_capacity_mut();
                // SAFETY: `spare` has at least `max` writable bytes; the kernel wrote the first `got` of them.
                unsafe {
                    let got = self.receive(spare.as_mut_ptr().cast(), max);
                    if let Ok(got) = got {
                        buf.set_len(buf.len() + got);
                    }
                    got
                }
            } else {
                let mut scratch = core.scratch.borrow_mut();
                // SAFETY: the scratch memory has at least `max` bytes.
                let got = unsafe { self.receive(scratch.as_mut_ptr(), max) };
                if let Ok(got) = got {
                    buf.extend_from_slice(&scratch[..got]);
                }
                got
            };
            match got {
                Ok(got) => return Ok(got),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        if buf.is_empty() {
                            *buf = BytesMut::new();
                        }
                        core.ring.ready(&self.fd, libc::POLLIN).await?;
                    }
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// # Safety
    /// `max` bytes at `memory` may be written.
    unsafe fn receive(&self, memory: *mut u8, max: usize) -> io::Result<usize> {
        // SAFETY: the caller's promise.
        let got = unsafe { libc::recv(self.fd.raw(), memory.cast(), max, libc::MSG_DONTWAIT) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    pub(crate) async fn send(&self, parts: Vec<Part>) -> io::Result<()> {
        let mut unsent = Unsent::default();
        for part in parts {
            match part {
                Part::Bytes(bytes) if bytes.is_empty() => {}
                Part::Bytes(bytes) => unsent.run.push_back(bytes),
                Part::File { file, pos, len } => {
                    self.send_file(&mut unsent, &file, pos, len).await?;
                }
            }
        }
        self.send_bytes(&mut unsent).await
    }

    /// Sends all of `unsent`.
    async fn send_bytes(&self, unsent: &mut Unsent) -> io::Result<()> {
        while !unsent.run.is_empty() {
            match self.try_send(&unsent.run) {
                Ok(mut sent) => {
                    self.given.set(self.given.get() + sent as u64);
                    while let Some(first) = unsent.run.front_mut() {
                        if sent < first.len() {
                            first.advance(sent);
                            break;
                        }
                        sent -= first.len();
                        unsent.run.pop_front();
                    }
                    if !unsent.run.is_empty() {
                        crate::yield_if_needed().await;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        let core = core::current();
                        unsent.wait(core.ring.ready(&self.fd, libc::POLLOUT)).await?;
                    }
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// One sendmsg of what fits into an I/O.
    fn try_send(&self, run: &VecDeque<Bytes>) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; VECTORS_MAX];
        let (mut count, mut total) = (0, 0);
        for part in run.iter().take(VECTORS_MAX) {
            let len = part.len().min(IO_BYTES_MAX - total);
            vectors[count] = libc::iovec { iov_base: part.as_ptr() as *mut libc::c_void, iov_len: len };
            count += 1;
            total += len;
            if total == IO_BYTES_MAX {
                break;
            }
        }
        // SAFETY: all zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = count as _;
        // SAFETY: the message's vectors point into `run`, which outlives the call.
        let sent = unsafe { libc::sendmsg(self.fd.raw(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Sends what is in `unsent` and `len` bytes of `file` from `pos`, save the last piece, which it leaves in `unsent`.
    async fn send_file(&self, unsent: &mut Unsent, file: &File, pos: u64, len: u64) -> io::Result<()> {
        let (mut at, end) = (pos, pos + len);
        if at == end {
            return Ok(());
        }
        let mut piece = file.read_piece(at, end).await?;
        loop {
            at += piece.len() as u64;
            unsent.run.push_back(piece);
            if at == end {
                return Ok(());
            }
            let (next, sent) = join(file.read_piece(at, end), self.send_bytes(unsent)).await;
            sent?;
            piece = next?;
        }
    }

    /// Bytes that the peer's kernel has acknowledged.
    pub(crate) fn taken(&self) -> u64 {
        let mut queued: libc::c_int = 0;
        // SAFETY: the request gives an int: what was given to the kernel and not acknowledged. It fails on no TCP socket.
        unsafe { libc::ioctl(self.fd.raw(), libc::TIOCOUTQ, &raw mut queued) };
        self.given.get().saturating_sub(queued.max(0) as u64)
    }

    pub(crate) fn set_dead_after(&self, dead_after: Duration) -> io::Result<()> {
        // SAFETY: the descriptor is open as long as `self` is.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd.raw()) };
        notice_the_dead(SockRef::from(&fd), dead_after)
    }

    pub(crate) fn detach(self) -> Result<Detached, Stream> {
        let given = self.given.get();
        match Rc::try_unwrap(self.fd) {
            // SAFETY: the descriptor is ours alone, and open.
            Ok(fd) => Ok(Detached { fd: unsafe { OwnedFd::from_raw_fd(fd.into_raw()) }, given }),
            Err(fd) => Err(Stream { fd, given: self.given }),
        }
    }

    pub(crate) fn shutdown(&self) {
        // Fails only when the peer has gone already.
        // SAFETY: plain system call on an open descriptor.
        unsafe { libc::shutdown(self.fd.raw(), libc::SHUT_RDWR) };
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        address(&self.fd, libc::getpeername)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        address(&self.fd, libc::getsockname)
    }
}

/// A descriptor that no core's ring knows of.
pub(crate) struct Detached {
    fd: OwnedFd,
    given: u64,
}

impl Detached {
    pub(crate) fn attach(self) -> Stream {
        Stream { fd: Fd::socket(self.fd.into_raw_fd()), given: Rc::new(Cell::new(self.given)) }
    }
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
}

/// For a listener: [::] serves IPv4 too, and after a restart the old connections' TIME_WAIT must not keep the port.
fn listening_socket(addr: SocketAddr, options: ListenOptions) -> io::Result<Socket> {
    let socket = new_socket(addr)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit these.
    notice_the_dead(SockRef::from(&socket), options.dead_after)?;
    Ok(socket)
}

/// The first probe of a peer that says nothing goes out after half the time, the last at its end. The kernel counts in
/// whole seconds.
fn notice_the_dead(socket: SockRef<'_>, dead_after: Duration) -> io::Result<()> {
    let half = dead_after / 2;
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(half.max(second))
        .with_interval((half / PROBES).max(second))
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(dead_after))
}

/// Small responses must not wait for the peer's acknowledgement of earlier ones.
fn set_nodelay(fd: &Fd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is an int.
    check(unsafe {
        libc::setsockopt(fd.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), len)
    })
    .map(|_| ())
}

/// The outcome of a connection attempt.
fn take_error(fd: &Fd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut len = size_of_val(&error) as libc::socklen_t;
    // SAFETY: the option's value is an int.
    check(unsafe {
        libc::getsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

type NameCall = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(fd: &Fd, name: NameCall) -> io::Result<SocketAddr> {
    let mut storage = SockAddrStorage::zeroed();
    let mut len = storage.size_of();
    // SAFETY: the storage is as long as `len` says, and the kernel fills it.
    let address = unsafe {
        check(name(fd.raw(), storage.view_as::<libc::sockaddr>(), &mut len))?;
        SockAddr::new(storage, len)
    };
    address.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
