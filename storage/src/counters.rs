//! What a shard's storage has done, counted on its core; the broker merges shards at scrape.

use std::cell::Cell;

/// A snapshot of a shard's counters and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageMetrics {
    /// Batches and bytes appended (order fixed).
    pub appended_batches: u64,
    pub appended_bytes: u64,
    /// Journal groups that became durable, and their bytes on disk.
    pub journal_groups: u64,
    pub journal_bytes: u64,
    /// Bytes read from the tail cache, and from segments.
    pub tail_read_bytes: u64,
    pub cold_read_bytes: u64,
    /// Bytes written to segments.
    pub flushed_bytes: u64,
    /// Writes that took them there.
    pub segment_writes: u64,
    pub checkpoints: u64,
    /// Bytes of journal groups held in memory, and of batches that are in no segment yet.
    pub cached_bytes: u64,
    pub dirty_bytes: u64,
    /// Logs with an entry in memory, and files open.
    pub logs: u64,
    pub files_open: u64,
    /// Appends are refused for want of space.
    pub disk_full: bool,
    /// Free space of the data directory's file system at the last look; `None` before the first.
    pub disk_free_bytes: Option<u64>,
}

#[derive(Default)]
pub struct Counters(Cell<StorageMetrics>);

impl Counters {
    pub fn get(&self) -> StorageMetrics {
        self.0.get()
    }

    fn with(&self, change: impl FnOnce(&mut StorageMetrics)) {
        let mut metrics = self.0.get();
        change(&mut metrics);
        self.0.set(metrics);
    }

    pub fn note_append(&self, bytes: usize) {
        self.with(|m| {
            m.appended_batches += 1;
            m.appended_bytes += bytes as u64;
        });
    }

    pub fn note_group(&self, bytes: u64) {
        self.with(|m| {
            m.journal_groups += 1;
            m.journal_bytes += bytes;
        });
    }

    pub fn note_tail_read(&self, bytes: usize) {
        self.with(|m| m.tail_read_bytes += bytes as u64);
    }

    pub fn note_cold_read(&self, bytes: usize) {
        self.with(|m| m.cold_read_bytes += bytes as u64);
    }

    pub fn note_flush(&self, bytes: u64) {
        self.with(|m| m.flushed_bytes += bytes);
    }

    pub fn note_segment_write(&self) {
        self.with(|m| m.segment_writes += 1);
    }

    pub fn note_checkpoint(&self) {
        self.with(|m| m.checkpoints += 1);
    }
}
