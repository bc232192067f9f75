//! Names: directories and whole small files. Nothing here blocks the core. What needs a descriptor and finds none waits
//! for one.

use crate::world::{self, World};
use crate::{real, sim};
use bytes::Bytes;
use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    let read_dir = async || match world::current() {
        World::Real(_) => real::fs::read_dir(path.to_path_buf()).await,
        World::Sim(_) => sim::file::read_dir(path.to_path_buf()).await,
    };
    with_descriptor(read_dir).await
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
    let remove = async || match world::current() {
        World::Real(_) => real::fs::remove_dir_all(path.to_path_buf()).await,
        World::Sim(_) => sim::file::remove_dir_all(path.to_path_buf()).await,
    };
    with_descriptor(remove).await
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
    let sync = async || match world::current() {
        World::Real(_) => real::fs::sync_dir(path).await,
        World::Sim(_) => sim::file::sync_dir(path).await,
    };
    with_descriptor(sync).await
}

/// Files and sockets that this process may have open at a time.
pub fn descriptors_max() -> u64 {
    match world::current() {
        World::Real(_) => real::fs::descriptors_max(),
        World::Sim(context) => context.machine.descriptors_max.get() as u64,
    }
}

/// EIO: the medium does not give back what was written there.
pub fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// EMFILE or ENFILE: the process, or the machine, has as many files and sockets open as it may.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// How long what found no descriptor waits before it tries again.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(20);

thread_local! {
    static WAITING: Cell<u64> = const { Cell::new(0) };
}

/// Operations of this core that wait for a descriptor now.
pub fn waiting_for_descriptors() -> u64 {
    WAITING.get()
}

/// Descriptors come back, as connections end and other files are closed: what needs one waits for it.
pub(crate) async fn with_descriptor<T>(attempt: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    struct Waiting;
    impl Drop for Waiting {
        fn drop(&mut self) {
            WAITING.set(WAITING.get() - 1);
        }
    }
    let mut waiting = None;
    loop {
        match attempt().await {
            Err(error) if is_out_of_descriptors(&error) => {
                waiting.get_or_insert_with(|| {
                    WAITING.set(WAITING.get() + 1);
                    Waiting
                });
                crate::sleep(DESCRIPTOR_RETRY).await;
            }
            outcome => return outcome,
        }
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
    let read = async || match world::current() {
        World::Real(_) => real::fs::read(path.to_path_buf(), max).await,
        World::Sim(_) => sim::file::read(path.to_path_buf(), max).await,
    };
    with_descriptor(read).await
}

/// Replaces the file at `path` in one durable step: temporary file, fsync, rename, fsync of the directory. Of a failed one
/// nothing is left.
pub async fn write_atomic(path: &Path, data: &[u8]) -> io::Result<()> {
    let write = async || match world::current() {
        World::Real(_) => real::fs::write_atomic(path, data).await,
        World::Sim(_) => sim::file::write_atomic(path, data).await,
    };
    with_descriptor(write).await
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
