//! What a simulated disk is made to fail with.

use super::DiskOp;
use std::cell::Cell;
use std::io;
use std::path::Path;

struct Fault {
    op: DiskOp,
    path_part: String,
    remaining: u64,
    /// Strikes again and again.
    lasts: bool,
    error: Failure,
}

/// What an operation that is made to fail fails with.
#[derive(Clone, Copy)]
enum Failure {
    Kind(io::ErrorKind),
    Errno(i32),
}

impl Failure {
    fn error(self) -> io::Error {
        match self {
            Failure::Kind(kind) => kind.into(),
            Failure::Errno(errno) => io::Error::from_raw_os_error(errno),
        }
    }
}

/// What the kernel keeps of writes that failed behind everybody's back (errseq_t), for a file or a whole file system: each
/// who has it open is told once, and who opens it only if nobody was.
#[derive(Default)]
pub(crate) struct Losses {
    count: u64,
    is_told: bool,
}

impl Losses {
    pub(crate) fn add(&mut self) {
        *self = Losses { count: self.count + 1, is_told: false };
    }

    /// What is known to one who opens it now.
    pub(crate) fn known(&self) -> u64 {
        if self.is_told { self.count } else { 0 }
    }

    pub(crate) fn tell(&mut self, known: &Cell<u64>) -> io::Result<()> {
        if known.replace(self.count) == self.count {
            return Ok(());
        }
        self.is_told = true;
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
}

#[derive(Default)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    pub(crate) is_dead: bool,
    pub(crate) is_read_only: bool,
}

impl Faults {
    pub(crate) fn add(&mut self, op: DiskOp, path_part: &str, nth: u64, error: io::ErrorKind) {
        let error = Failure::Kind(error);
        self.faults.push(Fault { op, path_part: path_part.to_string(), remaining: nth, lasts: false, error });
    }

    pub(crate) fn add_lasting(&mut self, op: DiskOp, path_part: &str, errno: i32) {
        let error = Failure::Errno(errno);
        self.faults.push(Fault { op, path_part: path_part.to_string(), remaining: 0, lasts: true, error });
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    /// Whether nothing gets to the medium.
    pub(crate) fn is_out(&self) -> bool {
        self.is_dead || self.is_read_only
    }

    /// Counts an operation against the faults; the error of the one that strikes. `changes`: a file system that is
    /// read-only refuses it.
    pub(crate) fn strike(&mut self, op: DiskOp, path: &Path, changes: bool) -> io::Result<()> {
        if self.is_dead {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.is_read_only && changes {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let path = path.to_string_lossy();
        let mut struck = None;
        self.faults.retain_mut(|fault| {
            if fault.op != op || !path.contains(&fault.path_part) || struck.is_some() {
                return true;
            }
            if fault.remaining == 0 {
                struck = Some(fault.error);
                return fault.lasts;
            }
            fault.remaining -= 1;
            true
        });
        match struck {
            Some(failure) => Err(failure.error()),
            None => Ok(()),
        }
    }
}
