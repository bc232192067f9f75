//! Names: directories and whole small files. Nothing here blocks the core.

use crate::world::{self, World};
use crate::{real, sim};
use bytes::Bytes;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

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
pub async fn create_dir_all(path: &Path) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::create_dir_all(path.to_path_buf()).await,
        World::Sim(_) => sim::file::create_dir_all(path.to_path_buf()).await,
    }
}

/// The entries of a directory, sorted by name.
pub async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    match world::current() {
        World::Real(_) => real::fs::read_dir(path.to_path_buf()).await,
        World::Sim(_) => sim::file::read_dir(path.to_path_buf()).await,
    }
}

/// Renames, replacing what is at `to`. Durable after [`sync_dir`] of the directories.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::rename(from.to_path_buf(), to.to_path_buf()).await,
        World::Sim(_) => sim::file::rename(from.to_path_buf(), to.to_path_buf()).await,
    }
}

/// Removes a file's name.
pub async fn remove_file(path: &Path) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::remove_file(path.to_path_buf()).await,
        World::Sim(_) => sim::file::remove_file(path.to_path_buf()).await,
    }
}

/// Removes a directory and everything in it; no error if it is missing.
pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::remove_dir_all(path.to_path_buf()).await,
        World::Sim(_) => sim::file::remove_dir_all(path.to_path_buf()).await,
    }
}

/// Removes a directory if nothing is in it; whether it is gone.
pub async fn remove_dir_if_empty(path: &Path) -> io::Result<bool> {
    let removed = match world::current() {
        World::Real(_) => real::fs::remove_dir(path.to_path_buf()).await,
        World::Sim(_) => sim::file::remove_dir(path.to_path_buf()).await,
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in a directory durable (creations, renames, removals).
pub async fn sync_dir(path: &Path) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::sync_dir(path).await,
        World::Sim(_) => sim::file::sync_dir(path).await,
    }
}

/// Whether [`crate::File::sync_file_system`] is known to make durable what it says on the file system that `path` lies
/// on.
pub async fn syncs_as_one(path: &Path) -> io::Result<bool> {
    match world::current() {
        World::Real(_) => real::fs::syncs_as_one(path).await,
        World::Sim(_) => Ok(true),
    }
}

/// Files and sockets that this process may have open at a time.
pub fn descriptors_max() -> u64 {
    match world::current() {
        World::Real(_) => real::fs::descriptors_max(),
        World::Sim(context) => context.machine.descriptors_max.get() as u64,
    }
}

/// Whether something is at `path`.
pub async fn exists(path: &Path) -> io::Result<bool> {
    match world::current() {
        World::Real(_) => real::fs::exists(path.to_path_buf()).await,
        World::Sim(_) => sim::file::exists(path.to_path_buf()).await,
    }
}

/// Length in bytes of the file at `path`.
pub async fn file_len(path: &Path) -> io::Result<u64> {
    match world::current() {
        World::Real(_) => real::fs::file_len(path.to_path_buf()).await,
        World::Sim(_) => sim::file::file_len(path.to_path_buf()).await,
    }
}

/// Space of the file system `path` lies on.
pub async fn space(path: &Path) -> io::Result<Space> {
    match world::current() {
        World::Real(_) => real::fs::space(path).await,
        World::Sim(_) => sim::file::space(path).await,
    }
}

/// A whole small file. Larger than `max` bytes: `InvalidData`.
pub async fn read(path: &Path, max: usize) -> io::Result<Bytes> {
    match world::current() {
        World::Real(_) => real::fs::read(path.to_path_buf(), max).await,
        World::Sim(_) => sim::file::read(path.to_path_buf(), max).await,
    }
}

/// Replaces the file at `path` in one durable step: temporary file, fsync, rename, fsync of the directory.
pub async fn write_atomic(path: &Path, data: &[u8]) -> io::Result<()> {
    match world::current() {
        World::Real(_) => real::fs::write_atomic(path, data).await,
        World::Sim(_) => sim::file::write_atomic(path, data).await,
    }
}

pub(crate) fn too_large(path: &Path, max: usize) -> io::Error {
    let message = format!("{} is larger than the {max} bytes such a file may have", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The directory to sync, and the temporary name beside `path`, for [`write_atomic`].
pub(crate) fn atomic_names(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display()))
    })?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok((directory.clone(), directory.join(temporary)))
}
