//! Names: directories and whole small files. Nothing here blocks the core.

use bytes::Bytes;
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// One entry of [`read_dir`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: OsString,
    pub is_dir: bool,
    /// Bytes; 0 for a directory.
    pub len: u64,
}

/// Space of the file system a path lies on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub available: u64,
}

/// Creates the directory and its missing parents.
pub async fn create_dir_all(_path: &Path) -> io::Result<()> {
    unimplemented!()
}

/// The entries of a directory, sorted by name.
pub async fn read_dir(_path: &Path) -> io::Result<Vec<DirEntry>> {
    unimplemented!()
}

/// Renames, replacing what is at `to`. Durable after [`sync_dir`] of the directories.
pub async fn rename(_from: &Path, _to: &Path) -> io::Result<()> {
    unimplemented!()
}

/// Removes a file's name.
pub async fn remove_file(_path: &Path) -> io::Result<()> {
    unimplemented!()
}

/// Removes a directory and everything in it; no error if it is missing.
pub async fn remove_dir_all(_path: &Path) -> io::Result<()> {
    unimplemented!()
}

/// Makes the names in a directory durable (creations, renames, removals).
pub async fn sync_dir(_path: &Path) -> io::Result<()> {
    unimplemented!()
}

/// Whether something is at `path`.
pub async fn exists(_path: &Path) -> io::Result<bool> {
    unimplemented!()
}

/// Length in bytes of the file at `path`.
pub async fn file_len(_path: &Path) -> io::Result<u64> {
    unimplemented!()
}

/// Space of the file system `path` lies on.
pub async fn space(_path: &Path) -> io::Result<Space> {
    unimplemented!()
}

/// A whole small file. Larger than `max` bytes: `InvalidData`.
pub async fn read(_path: &Path, _max: usize) -> io::Result<Bytes> {
    unimplemented!()
}

/// Replaces the file at `path` in one durable step: temporary file, fsync, rename, fsync of the directory.
pub async fn write_atomic(_path: &Path, _data: &[u8]) -> io::Result<()> {
    unimplemented!()
}
