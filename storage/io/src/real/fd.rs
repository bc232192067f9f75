//! An owned descriptor.

use super::ring::Ring;
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};

/// Closed when the last reference goes: the object's, or that of the last operation under way.
pub(crate) struct Fd {
    raw: RawFd,
    /// Where it is closed in the background; none for sockets and pipes, whose closing is quick.
    closer: Option<Weak<Ring>>,
}

impl Fd {
    /// Takes a file's descriptor over.
    pub(crate) fn file(raw: RawFd, ring: &Rc<Ring>) -> Rc<Fd> {
        Rc::new(Fd { raw, closer: Some(Rc::downgrade(ring)) })
    }

    /// Takes a socket's or pipe's descriptor over.
    pub(crate) fn socket(raw: RawFd) -> Rc<Fd> {
        Rc::new(Fd { raw, closer: None })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.raw
    }

    /// Gives the descriptor up to be closed by the caller.
    pub(crate) fn into_raw(self) -> RawFd {
        let raw = self.raw;
        std::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        match self.closer.as_ref().and_then(Weak::upgrade) {
            Some(ring) => ring.close_unattended(self.raw),
            // SAFETY: owned, and no operation refers to it any more.
            None => unsafe {
                libc::close(self.raw);
            },
        }
    }
}

/// A system call's result: −1 is errno.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
