//! Raw writes: a few threads overwrite files that are already written, block after block, as a journal would.

use super::{ALIGN, Aligned};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Writes {
    pub block: usize,
    pub threads: usize,
    /// Whether each is on stable storage before the next.
    pub synced: bool,
    pub bytes_per_second: f64,
    /// Of one write.
    pub mean_us: f64,
}

/// A file that is overwritten in a circle; it goes with this.
pub(super) struct Ring {
    file: File,
    path: PathBuf,
    at: u64,
}

const RING_LEN: u64 = 64 << 20;

impl Ring {
    pub(super) fn create(directory: &Path, name: &str, synced: bool) -> Result<Ring> {
        let path = directory.join(format!("corebench-{}-{name}", std::process::id()));
        let flags = libc::O_DIRECT | if synced { libc::O_DSYNC } else { 0 };
        let filled = Aligned::new(1 << 20);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let file = file.with_context(|| {
            format!(
                "{} cannot be written with O_DIRECT: use a directory on a disk, on ext4 or XFS",
                path.display()
            )
        })?;
        for at in (0..RING_LEN).step_by(filled.bytes().len()) {
            file.write_all_at(filled.bytes(), at)?;
        }
        file.sync_all()?;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&path)?;
        Ok(Ring { file, path, at: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        debug_assert!(bytes.len().is_multiple_of(ALIGN));
        if self.at + bytes.len() as u64 > RING_LEN {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub fn write(directory: &Path, block: usize, threads: usize, synced: bool, long: Duration) -> Result<Writes> {
    let rings: Result<Vec<Ring>> =
        (0..threads).map(|at| Ring::create(directory, &format!("raw-{at}"), synced)).collect();
    let started = Instant::now();
    let until = started + long;
    let writing = rings?.into_iter().map(|mut ring| {
        thread::spawn(move || -> Result<u64> {
            let buffer = Aligned::new(block);
            let mut writes = 0;
            loop {
                ring.write(buffer.bytes())?;
                writes += 1;
                if Instant::now() >= until {
                    return Ok(writes);
                }
            }
        })
    });
    let writing: Vec<_> = writing.collect();
    let mut writes = 0;
    for thread in writing {
        writes += thread.join().expect("it does not panic")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Writes {
        block,
        threads,
        synced,
        bytes_per_second: writes as f64 * block as f64 / seconds,
        mean_us: seconds * 1e6 * threads as f64 / writes.max(1) as f64,
    })
}
