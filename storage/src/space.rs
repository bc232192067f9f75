//! Free space: appends are refused before the disk is full, and taken again when there is space.
//!
//! Others fill disks too. So that a broker on a disk without any space can still be helped (records and topics deleted, each
//! of which is an entry in a journal), a file of some megabytes keeps some for it: one for all shards, given up by whoever
//! finds no room for the journal, made again when there is space.

use crate::error::{AppendError, StorageError};
use crate::paths;
use corelog_io::sync::Notify;
use corelog_io::{File, OpenOptions, fs};
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// With less than this available beside the reserve, only the journal is written.
const USABLE: u64 = 1 << 20;
/// However little is left, so much may be written between two looks.
const LOOK_AFTER_MIN: u64 = 1 << 20;
/// Less than this is no reserve.
const RESERVE_MIN: u64 = 64 << 10;

/// What the last look at the file system said.
pub struct DiskSpace {
    min_free: u64,
    available: Cell<u64>,
    promised: Cell<u64>,
    full: Cell<bool>,
    shards: u64,
    /// Written since the last look, and after how much the next one is due, before its time.
    written: Cell<u64>,
    look_after: Cell<u64>,
    /// It is due.
    pub look: Notify,
    /// What is left is for what frees space: it was less than [`USABLE`] at the last look, or a write has met a full disk since.
    used_up: Cell<bool>,
    reserve: PathBuf,
    reserve_bytes: u64,
    makes_reserve: bool,
}

impl DiskSpace {
    /// Assumes enough until the first look. The reserve is one for all shards: `makes_reserve` is for one of them.
    pub fn new(
        data_dir: &Path,
        min_free: u64,
        (reserve_bytes, makes_reserve): (u64, bool),
        shards: usize,
    ) -> DiskSpace {
        let reserve = paths::journal_dir(data_dir).join("reserve");
        DiskSpace {
            min_free,
            available: Cell::new(u64::MAX),
            promised: Cell::new(0),
            full: Cell::new(false),
            shards: shards as u64,
            written: Cell::new(0),
            look_after: Cell::new(u64::MAX),
            look: Notify::default(),
            used_up: Cell::new(false),
            reserve,
            reserve_bytes,
            makes_reserve,
        }
    }

    /// `available` bytes are left, of which `promised` are spoken for by what was acknowledged already, on all shards, and
    /// `missing` by the reserve.
    pub fn note(&self, available: u64, promised: u64, missing: u64) {
        self.available.set(available);
        let promised = promised.saturating_add(missing);
        self.used_up.set(available < missing + USABLE);
        self.promised.set(promised);
        let wanted = self.min_free.saturating_add(promised);
        let full = available < wanted;
        // Others write as much meanwhile, and what is written comes to segments too.
        let part = available.saturating_sub(wanted) / (2 * self.shards);
        self.written.set(0);
        self.look_after.set(if full { u64::MAX } else { part.max(LOOK_AFTER_MIN) });
        if full != self.full.replace(full) {
            match self.check() {
                Err(why) => tracing::warn!("appends are refused: {why}"),
                Ok(()) => tracing::info!(available, "there is space again: appends are taken"),
            }
        }
    }

    /// So much was written. The faster a disk fills, the sooner it is looked at.
    pub fn note_written(&self, bytes: u64) {
        let written = self.written.get() + bytes;
        self.written.set(written);
        if written > self.look_after.get() {
            self.look_after.set(u64::MAX);
            self.look.notify_one();
        }
    }

    /// A write met a full disk.
    pub fn note_full(&self) {
        self.used_up.set(true);
        if !self.full.replace(true) {
            tracing::warn!("a write met a full disk: appends are refused");
        }
    }

    /// What was left at the last look.
    pub fn available(&self) -> Option<u64> {
        Some(self.available.get()).filter(|available| *available != u64::MAX)
    }

    /// The journal found no room: it gets the reserve, if that is still there.
    pub async fn give_up_reserve(&self) {
        self.note_full();
        match fs::remove_file(&self.reserve).await {
            Ok(()) => tracing::warn!("the disk is full: the journal uses what was kept for it"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the space kept for the journal cannot be used"),
        }
    }

    /// Bytes that the reserve still lacks. A crash may leave it without some, and it grows with the number of shards.
    pub async fn reserve_missing(&self) -> Result<u64, StorageError> {
        let path = &self.reserve;
        let kept = match fs::file_len(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            len => len.map_err(StorageError::io("look for", path))?,
        };
        Ok(self.reserve_bytes.saturating_sub(kept))
    }

    /// Makes the reserve where there is space and none is kept; on a disk that is used up, of most of what the journal has
    /// left of it.
    pub async fn keep_reserve(&self) -> Result<(), StorageError> {
        let missing = self.reserve_missing().await?;
        let left = self.available.get() / 4 * 3;
        let bytes = match self.is_full() {
            false if missing > 0 => self.reserve_bytes,
            true if self.is_used_up() && missing == self.reserve_bytes && left >= RESERVE_MIN => {
                left.min(self.reserve_bytes)
            }
            _ => return Ok(()),
        };
        if self.makes_reserve { self.allocate_reserve(bytes).await } else { Ok(()) }
    }

    async fn allocate_reserve(&self, bytes: u64) -> Result<(), StorageError> {
        let path = &self.reserve;
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(path, options).await.map_err(StorageError::io("create", path))?;
        let allocated = file.allocate(0, bytes).await;
        if allocated.is_err() {
            fs::remove_file(path).await.map_err(StorageError::io("remove", path))?;
        }
        allocated.map_err(StorageError::io("allocate", path))
    }

    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// Whether writes that take space fail.
    pub fn is_used_up(&self) -> bool {
        self.used_up.get()
    }

    /// The error that they fail with.
    pub fn check_usable(&self) -> Result<(), StorageError> {
        match self.used_up.get() {
            false => Ok(()),
            true => {
                Err(StorageError::io("write below", &self.reserve)(std::io::ErrorKind::StorageFull.into()))
            }
        }
    }

    /// Whether appends are taken.
    pub fn check(&self) -> Result<(), AppendError> {
        match self.full.get() {
            false => Ok(()),
            true => Err(AppendError::DiskFull {
                available: self.available.get(),
                min_free: self.min_free,
                promised: self.promised.get(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused says why: the sum that was not there, and of what.
    #[test]
    fn a_full_disk_says_what_is_missing() {
        let space = DiskSpace::new(Path::new("data"), 16, (0, true), 1);
        space.note(159, 100, 0);
        assert!(space.check().is_ok());
        space.note(115, 100, 0);
        let why = space.check().unwrap_err().to_string();
        for part in ["115 bytes are available", "and 116 are to be", "corelog.disk.reserve.bytes"] {
            assert!(why.contains(part), "{why}");
        }
    }
}
