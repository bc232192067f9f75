//! Files.

use crate::fs::with_descriptor;
use crate::world::{self, World};
use crate::{ALIGN, is_aligned, real, sim};
use bytes::Bytes;
use std::io;
use std::path::Path;

/// Whether an operation failed because its core ends, whatever else became of it.
pub fn is_cancelled(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

/// How to open a [`File`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub read: bool,
    pub write: bool,
    /// Create the file if it is missing. Its name is durable after [`crate::fs::sync_dir`] of its directory.
    pub create: bool,
    /// O_DIRECT: memory, position and length of every read and write are multiples of [`crate::ALIGN`].
    pub direct: bool,
}

/// An open file. Clones share the descriptor, which is closed when the last is dropped and no operation is under way.
///
/// Operations run side by side and in no order but the one their caller awaits. Each is cut into pieces of at most
/// 1 MiB; a piece may be on the disk when another is not.
#[derive(Clone)]
pub struct File {
    inner: Inner,
    direct: bool,
}

#[derive(Clone)]
enum Inner {
    Real(real::file::File),
    Sim(sim::file::File),
}

/// Bytes of a file range that [`crate::Stream::send`] reads at a time.
const PIECE: u64 = 256 << 10;
const _: () = assert!(is_aligned(PIECE));

impl File {
    /// Opens the file at `path`. Waits while the process has as many files and sockets open as it may.
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<File> {
        let open = async || {
            Ok(match world::current() {
                World::Real(_) => Inner::Real(real::file::File::open(path, options).await?),
                World::Sim(_) => Inner::Sim(sim::file::File::open(path, options).await?),
            })
        };
        let inner = with_descriptor(open).await?;
        Ok(File { inner, direct: options.direct })
    }

    /// Whether it was opened with `direct`.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Reads `len` bytes at `pos`; fewer only at the end of the file. The memory is aligned; position and length are
    /// when direct (asserted). `len` is allocated up front: bound it by what is known to be there.
    pub async fn read_at(&self, pos: u64, len: usize) -> io::Result<Bytes> {
        self.check_range(pos, len);
        match &self.inner {
            Inner::Real(file) => file.read_at(pos, len).await,
            Inner::Sim(file) => file.read_at(pos, len).await,
        }
    }

    /// Writes all of `data` at `pos`. With `sync` these bytes, and the file length they need, are on stable storage
    /// when it returns (RWF_DSYNC). Memory, length and position are aligned when direct (asserted). A dropped future
    /// may still write.
    pub async fn write_at(&self, pos: u64, data: Bytes, sync: bool) -> io::Result<()> {
        self.check_data(pos, &data);
        match &self.inner {
            Inner::Real(file) => file.write_at(pos, data, sync).await,
            Inner::Sim(file) => file.write_at(pos, data, sync).await,
        }
    }

    /// Writes all of `parts` one behind the other from `pos`. As [`File::write_at`]; when direct, each part is
    /// aligned.
    pub async fn write_vectored_at(&self, pos: u64, parts: Vec<Bytes>, sync: bool) -> io::Result<()> {
        for part in &parts {
            self.check_data(pos, part);
        }
        match &self.inner {
            Inner::Real(file) => file.write_vectored_at(pos, parts, sync).await,
            Inner::Sim(file) => {
                let mut at = pos;
                for part in parts {
                    let len = part.len() as u64;
                    file.write_at(at, part, sync).await?;
                    at += len;
                }
                Ok(())
            }
        }
    }

    /// fdatasync: all completed writes, and the length, are on stable storage when it returns. After an error nothing
    /// is known about what was written since the last success, and trying again proves nothing.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Real(file) => file.sync_data().await,
            Inner::Sim(file) => file.sync_data().await,
        }
    }

    /// As [`File::sync_data`] of this and every other file of its file system, with the names in all directories. For file
    /// systems that [`File::syncs_as_one`] knows. An error may be of any of them: a file's own sync tells of it.
    pub async fn sync_file_system(&self) -> io::Result<()> {
        let sync = async || match &self.inner {
            Inner::Real(file) => file.sync_file_system().await,
            Inner::Sim(file) => file.sync_file_system().await,
        };
        with_descriptor(sync).await
    }

    /// Tells the file system that it lies on from others.
    pub fn device(&self) -> io::Result<u64> {
        match &self.inner {
            Inner::Real(file) => file.device(),
            Inner::Sim(file) => Ok(file.device()),
        }
    }

    /// Whether [`File::sync_file_system`] is known to make durable what it says on the file system that it lies on.
    pub async fn syncs_as_one(&self) -> io::Result<bool> {
        let ask = async || match &self.inner {
            Inner::Real(file) => file.syncs_as_one().await,
            Inner::Sim(_) => Ok(true),
        };
        with_descriptor(ask).await
    }

    /// Reserves space for `len` bytes at `pos` (fallocate); the file grows if it is shorter; new bytes read as zeros.
    pub async fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        match &self.inner {
            Inner::Real(file) => file.allocate(pos, len).await,
            Inner::Sim(file) => file.allocate(pos, len).await,
        }
    }

    /// Sets the length in bytes; what is cut off is gone, what is added reads as zeros.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        let truncate = async || match &self.inner {
            Inner::Real(file) => file.truncate(len).await,
            Inner::Sim(file) => file.truncate(len).await,
        };
        with_descriptor(truncate).await
    }

    /// The length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        match &self.inner {
            Inner::Real(file) => file.len(),
            Inner::Sim(file) => file.len(),
        }
    }

    /// Closes this handle; the descriptor is closed with the last one, and then the kernel's answer is returned.
    pub async fn close(self) -> io::Result<()> {
        match self.inner {
            Inner::Real(file) => file.close().await,
            Inner::Sim(_) => Ok(()),
        }
    }

    /// The next piece of the range `at..end`, not empty: what a file range is sent in. A direct file is read in the
    /// aligned blocks around it.
    pub(crate) async fn read_piece(&self, at: u64, end: u64) -> io::Result<Bytes> {
        let align = if self.direct { ALIGN as u64 } else { 1 };
        let start = at - at % align;
        let stop = end.min(start + PIECE);
        let block = self.read_at(start, (stop.next_multiple_of(align) - start) as usize).await?;
        let head = (at - start) as usize;
        let stop = block.len().min((stop - start) as usize);
        if stop <= head {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends before position {end}, the end of the range to send"),
            ));
        }
        Ok(block.slice(head..stop))
    }

    fn check_range(&self, pos: u64, len: usize) {
        if self.direct {
            assert!(
                is_aligned(pos) && is_aligned(len as u64),
                "direct I/O at {pos} of {len} bytes is not aligned to {ALIGN}"
            );
        }
    }

    fn check_data(&self, pos: u64, data: &Bytes) {
        self.check_range(pos, data.len());
        if self.direct {
            let address = data.as_ptr() as usize;
            assert!(
                data.is_empty() || address.is_multiple_of(ALIGN),
                "direct I/O from memory not aligned to {ALIGN}: {address:#x}"
            );
        }
    }
}
