//! Free space: appends are refused before the disk is full, and taken again when there is space.

use crate::error::AppendError;
use std::cell::Cell;

/// What the last look at the file system said.
pub struct DiskSpace {
    min_free: u64,
    available: Cell<u64>,
    full: Cell<bool>,
}

impl DiskSpace {
    /// Assumes enough until the first look.
    pub fn new(min_free: u64) -> DiskSpace {
        DiskSpace { min_free, available: Cell::new(u64::MAX), full: Cell::new(false) }
    }

    /// `available` bytes are left, of which `promised` are spoken for by what was acknowledged already.
    pub fn note(&self, available: u64, promised: u64) {
        self.available.set(available);
        let full = available < self.min_free.saturating_add(promised);
        if full != self.full.replace(full) {
            let min_free = self.min_free;
            if full {
                tracing::warn!(available, promised, min_free, "the disk is nearly full: appends are refused");
            } else {
                tracing::info!(available, min_free, "there is space again: appends are taken");
            }
        }
    }

    /// A write met a full disk.
    pub fn note_full(&self) {
        if !self.full.replace(true) {
            tracing::warn!("a write met a full disk: appends are refused");
        }
    }

    /// What was left at the last look.
    pub fn available(&self) -> Option<u64> {
        Some(self.available.get()).filter(|available| *available != u64::MAX)
    }

    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// Whether appends are taken.
    pub fn check(&self) -> Result<(), AppendError> {
        match self.full.get() {
            false => Ok(()),
            true => Err(AppendError::DiskFull { available: self.available.get(), min_free: self.min_free }),
        }
    }
}
