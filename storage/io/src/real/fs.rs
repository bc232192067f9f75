//! Names: run on the core's blocking thread, since a directory look-up may wait for the disk.

use super::core;
use super::file::File;
use crate::fs::{DirEntry, Space};
use bytes::Bytes;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Runs `f` off the core. If the caller is dropped, `f` still runs.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    core::current().blocking.run(f).await
}

pub(crate) async fn create_dir_all(path: PathBuf) -> io::Result<()> {
    blocking(move || fs::create_dir_all(path)).await
}

pub(crate) async fn read_dir(path: PathBuf) -> io::Result<Vec<DirEntry>> {
    blocking(move || {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry {
                name: entry.file_name(),
                is_dir,
                len: if is_dir { 0 } else { metadata.len() },
            });
        }
        entries.sort();
        Ok(entries)
    })
    .await
}

pub(crate) async fn rename(from: PathBuf, to: PathBuf) -> io::Result<()> {
    blocking(move || fs::rename(from, to)).await
}

pub(crate) async fn remove_file(path: PathBuf) -> io::Result<()> {
    blocking(move || fs::remove_file(path)).await
}

pub(crate) async fn remove_dir(path: PathBuf) -> io::Result<()> {
    blocking(move || fs::remove_dir(path)).await
}

pub(crate) async fn remove_dir_all(path: PathBuf) -> io::Result<()> {
    blocking(move || match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    })
    .await
}

pub(crate) async fn sync_dir(path: &Path) -> io::Result<()> {
    File::open_directory(path).await?.sync_all().await
}

pub(crate) async fn file_len(path: PathBuf) -> io::Result<u64> {
    blocking(move || fs::metadata(path).map(|metadata| metadata.len())).await
}

pub(crate) async fn exists(path: PathBuf) -> io::Result<bool> {
    blocking(move || fs::exists(path)).await
}

async fn file_system(path: &Path) -> io::Result<libc::statfs> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    blocking(move || {
        let mut stat = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the path ends in NUL, the buffer is a statfs's size and read only when filled.
        unsafe {
            super::fd::check(libc::statfs(path.as_ptr(), stat.as_mut_ptr()))?;
            Ok(stat.assume_init())
        }
    })
    .await
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    let stat = file_system(path).await?;
    let block = stat.f_frsize as u64;
    Ok(Space { total: stat.f_blocks * block, available: stat.f_bavail * block })
}

pub(crate) fn descriptors_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffer is an rlimit.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

pub(crate) async fn read(path: PathBuf, max: usize) -> io::Result<Bytes> {
    blocking(move || {
        let file = fs::File::open(&path)?;
        let mut data = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut data)?;
        if data.len() > max {
            return Err(crate::fs::too_large(&path, max));
        }
        Ok(Bytes::from(data))
    })
    .await
}

pub(crate) async fn write_atomic(path: &Path, data: &[u8]) -> io::Result<()> {
    let (path, data) = (path.to_path_buf(), data.to_vec());
    blocking(move || {
        let (directory, temporary) = crate::fs::atomic_names(&path)?;
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&data)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(directory)?.sync_all()
        };
        // On a full disk what is left of it would take the space that others need.
        write().inspect_err(|_| drop(fs::remove_file(&temporary)))
    })
    .await
}
