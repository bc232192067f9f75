//! A disk, as a test holds it: for faults, and a look inside.

use super::file;
use super::machine::Machine;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Which operations a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    Read,
    Write,
    /// fdatasync, syncfs, the sync of a directory, and the second half of a write with RWF_DSYNC. Of what a failed one
    /// covered some is on the medium, and the rest never will be unless it is written again: the kernel holds it for
    /// clean, says so once to whoever has the file open, and may have forgotten the bytes when they are read next.
    Sync,
    /// Opening, naming, allocating, truncating.
    Metadata,
}

/// A simulated disk.
#[derive(Clone)]
pub struct Disk {
    machine: Rc<Machine>,
}

impl Disk {
    pub(super) fn of(machine: &Rc<Machine>) -> Disk {
        Disk { machine: Rc::clone(machine) }
    }

    /// The `nth` (0 = next) operation of kind `op` on a path that contains `path_part` fails with `error`, once. A
    /// write that fails has written a part of its bytes.
    pub fn fail_nth(&self, op: DiskOp, path_part: &str, nth: u64, error: io::ErrorKind) {
        self.machine.disk.borrow_mut().faults.add(op, path_part, nth, error);
    }

    /// Every operation of kind `op` on a path that contains `path_part` fails with `errno` (libc::EIO, ENOSPC, EMFILE, ..)
    /// until [`Disk::clear_faults`].
    pub fn fail_until_cleared(&self, op: DiskOp, path_part: &str, errno: i32) {
        self.machine.disk.borrow_mut().faults.add_lasting(op, path_part, errno);
    }

    /// Takes back what [`Disk::fail_nth`] set and has not struck yet, and what [`Disk::fail_until_cleared`] did.
    pub fn clear_faults(&self) {
        self.machine.disk.borrow_mut().faults.clear();
    }

    /// Flips one bit of a file, for readers and on the medium. `bit` counts from the file's first.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        let mut disk = self.machine.disk.borrow_mut();
        if disk.contents_of(path)?.flip_bit(bit) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The pages of 4096 bytes that the range touches cannot be read (EIO), nor written in part, until they are written
    /// whole and synced: a drive's unreadable sectors.
    pub fn make_unreadable(&self, path: &Path, pos: u64, len: usize) -> io::Result<()> {
        self.machine.disk.borrow_mut().contents_of(path)?.make_unreadable(pos, len);
        Ok(())
    }

    /// At a power loss, one in `n` of the pages whose write was under way comes back unreadable, as by
    /// [`Disk::make_unreadable`]; 0 = none. What was synced in such a page before is gone with it.
    pub fn set_torn_unreadable(&self, n: u64) {
        self.machine.disk.borrow_mut().torn_unreadable_one_in = n;
    }

    /// The pages of 4096 bytes that the range touches can neither be read nor written from now on (EIO).
    pub fn make_bad(&self, path: &Path, pos: u64, len: usize) -> io::Result<()> {
        self.machine.disk.borrow_mut().contents_of(path)?.make_bad(pos, len);
        Ok(())
    }

    /// The file is on sound pages again, with what it had.
    pub fn mend(&self, path: &Path) -> io::Result<()> {
        self.machine.disk.borrow_mut().contents_of(path)?.mend();
        Ok(())
    }

    /// The device is gone: every operation fails with EIO until it is back.
    pub fn set_dead(&self, dead: bool) {
        self.machine.disk.borrow_mut().faults.is_dead = dead;
    }

    /// As a file system that has met an error it cannot handle (errors=remount-ro): what would change anything fails with
    /// EROFS, and a sync, which forgets what was not written yet.
    pub fn set_read_only(&self, read_only: bool) {
        self.machine.disk.borrow_mut().faults.is_read_only = read_only;
    }

    /// Takes a file, or a directory with all in it, away: as a restore that missed it, or a hand that slipped.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine.disk.borrow_mut().vanish(path)
    }

    /// For the next `d` of virtual time the disk does nothing; what was asked of it meanwhile, or before, is done after.
    pub fn stall(&self, d: Duration) {
        let until = self.machine.scheduler().now().saturating_add(d.as_nanos() as u64);
        let mut disk = self.machine.disk.borrow_mut();
        disk.stalled_until = disk.stalled_until.max(until);
    }

    /// Bytes of file data the disk holds; writes and allocations beyond fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine.disk.borrow_mut().set_capacity(bytes);
    }

    /// What lies below `path` from now on is another file system of this disk.
    pub fn mount(&self, path: &Path) {
        self.machine.disk.borrow_mut().mount(path);
    }

    /// Every operation takes this much longer.
    pub fn set_extra_latency(&self, d: Duration) {
        self.machine.disk.borrow_mut().extra_latency = d.as_nanos() as u64;
    }

    /// A file's bytes as programs see them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        file::contents(&self.machine.disk, path)
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.machine.disk.borrow().files()
    }
}
