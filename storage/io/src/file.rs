//! Files.

use bytes::Bytes;
use std::io;
use std::path::Path;

/// How to open a [`File`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub read: bool,
    pub write: bool,
    /// Create the file if it is missing (the name is durable after [`crate::fs::sync_dir`] of its directory).
    pub create: bool,
    /// O_DIRECT: memory, position and length of every read and write are multiples of [`crate::ALIGN`].
    pub direct: bool,
}

/// An open file. Clones share the descriptor; it is closed when the last is dropped and no operation is left.
#[derive(Clone)]
pub struct File {
    inner: std::rc::Rc<()>,
}

impl File {
    pub async fn open(_path: &Path, _options: OpenOptions) -> io::Result<File> {
        unimplemented!()
    }

    /// Reads `len` bytes at `pos`; fewer only at the end of the file. Aligned (asserted) when direct.
    pub async fn read_at(&self, _pos: u64, _len: usize) -> io::Result<Bytes> {
        unimplemented!()
    }

    /// Writes all of `data` at `pos`. `sync`: these bytes (and the file length they need) are on stable storage when it returns.
    /// Memory, length and position are aligned (asserted) when direct. A dropped future may still write.
    pub async fn write_at(&self, _pos: u64, _data: Bytes, _sync: bool) -> io::Result<()> {
        unimplemented!()
    }

    /// Writes all of `parts` one after the other from `pos`. As [`File::write_at`]; each part is aligned when direct.
    pub async fn write_vectored_at(&self, _pos: u64, _parts: Vec<Bytes>, _sync: bool) -> io::Result<()> {
        unimplemented!()
    }

    /// fdatasync: all completed writes and the length are on stable storage when it returns.
    pub async fn sync_data(&self) -> io::Result<()> {
        unimplemented!()
    }

    /// Reserves space for `len` bytes at `pos` (fallocate); the file grows if it is shorter; new bytes read as zeros.
    pub async fn allocate(&self, _pos: u64, _len: u64) -> io::Result<()> {
        unimplemented!()
    }

    /// Sets the length.
    pub async fn truncate(&self, _len: u64) -> io::Result<()> {
        unimplemented!()
    }

    /// The length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        unimplemented!()
    }

    /// Closes this handle; the descriptor closes with the last one.
    pub async fn close(self) -> io::Result<()> {
        unimplemented!()
    }
}
