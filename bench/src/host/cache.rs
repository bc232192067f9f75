//! The page cache: what was just written is still in memory, and reading it measures no disk.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Has all files under the directory written, and their pages dropped. Returns their size together.
pub fn evict(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                // A broker may delete files meanwhile.
                let Ok(file) = File::open(entry.path()) else { continue };
                bytes += file.metadata()?.len();
                // Dirty pages are not dropped.
                file.sync_data().with_context(|| format!("writing {}", entry.path().display()))?;
                // SAFETY: the descriptor is open; no memory is involved. A failure leaves pages where they are.
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            }
        }
    }
    Ok(bytes)
}
