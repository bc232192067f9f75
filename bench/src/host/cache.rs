//! The page cache: what was just written is still in memory, and reading it measures no disk.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Has all files under the directory written, and their pages dropped. Returns their size together.
pub fn evict(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for path in files(directory)? {
        // A broker may delete files meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        bytes += file.metadata()?.len();
        // Dirty pages are not dropped.
        file.sync_data().with_context(|| format!("writing {}", path.display()))?;
        // SAFETY: the descriptor is open; no memory is involved. A failure leaves pages where they are.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(bytes)
}

/// Bytes of the files under the directory that are in memory.
pub fn resident(directory: &Path) -> Result<u64> {
    files(directory)?.iter().map(|path| resident_of(path)).sum()
}

fn resident_of(path: &Path) -> Result<u64> {
    let Ok(file) = File::open(path) else { return Ok(0) };
    let len = file.metadata()?.len() as usize;
    if len == 0 {
        return Ok(0);
    }
    // SAFETY: a new mapping, of a file that is open, in a place that the kernel chooses; nobody reads through it.
    let mapped = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if mapped == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("mapping {}", path.display()));
    }
    // SAFETY: no memory is involved.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as usize;
    let mut pages = vec![0u8; len.div_ceil(page)];
    // SAFETY: the mapping is `len` long, and `pages` has a byte for each of its pages.
    let told = unsafe { libc::mincore(mapped, len, pages.as_mut_ptr()) };
    let failed = std::io::Error::last_os_error();
    // SAFETY: mapped above, and nothing refers to it.
    unsafe { libc::munmap(mapped, len) };
    if told != 0 {
        return Err(failed).with_context(|| format!("asking what of {} is in memory", path.display()));
    }
    Ok((pages.iter().filter(|page| **page & 1 == 1).count() * page) as u64)
}

/// Of the whole machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PageCache {
    pub cached: u64,
    /// Waits to be written, or is being written.
    pub dirty: u64,
}

impl PageCache {
    pub fn now() -> PageCache {
        PageCache::of(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    fn of(meminfo: &str) -> PageCache {
        let kib = |name: &str| {
            let line = meminfo.lines().find(|line| line.split(':').next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        PageCache { cached: kib("Cached") << 10, dirty: (kib("Dirty") + kib("Writeback")) << 10 }
    }
}

/// All files under a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_in_memory_until_it_is_dropped() {
        // Not the system's temporary directory: that may itself be memory.
        let program = std::env::current_exe().unwrap();
        let directory = program.with_file_name(format!("cache-{}", std::process::id()));
        fs::create_dir_all(directory.join("below")).unwrap();
        fs::write(directory.join("below/file"), vec![7; 1 << 20]).unwrap();
        fs::write(directory.join("empty"), []).unwrap();
        assert_eq!(resident(&directory).unwrap(), 1 << 20);
        assert_eq!(evict(&directory).unwrap(), 1 << 20);
        assert_eq!(resident(&directory).unwrap(), 0);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn dirty_is_what_waits_and_what_is_under_way() {
        let text = "MemTotal: 100 kB\nCached:  2048 kB\nSwapCached: 7 kB\nDirty: 3 kB\nWriteback: 1 kB\n";
        assert_eq!(PageCache::of(text), PageCache { cached: 2 << 20, dirty: 4096 });
        assert!(PageCache::now().cached > 0);
    }
}
