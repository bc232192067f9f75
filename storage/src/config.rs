//! What can be set. Bounds are checked once, at [`StorageConfig::check`].

use crate::format::PAGE;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one shard's storage.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Holds `journal/` and `topics/`.
    pub data_dir: PathBuf,
    /// This shard, from 0.
    pub shard: usize,
    /// Shards of this process.
    pub shards: usize,
    /// Bytes of one journal file. A batch must fit into one.
    pub journal_file_bytes: u64,
    /// Journal files of this shard's ring, 2 at the least.
    pub journal_files: usize,
    /// Bytes of recent batches kept in memory, written to segments or not. Appends wait when nothing can be let go.
    pub tail_cache_bytes: u64,
    /// Bytes of one journal group; what comes while writes are in flight is grouped up to this much.
    pub group_bytes_max: usize,
    /// Journal writes under way at once.
    pub groups_in_flight: usize,
    /// Appends are refused while the file system has less than this available.
    pub min_free_bytes: u64,
    /// Bytes of disk kept for each shard's journal for when there are no others (one file for all shards).
    pub reserve_bytes: u64,
    /// Logs written to their segments at once by the flusher.
    pub flush_concurrency: usize,
    /// With so many logs waiting for their segments to be synced, the file system is synced as one.
    pub sync_together_from: usize,
    /// Segment and index files kept open, if the process may open so many.
    pub files_open_max: usize,
    /// Bytes of sealed segments' indexes kept in memory.
    pub index_cache_bytes: u64,
    /// Idempotent producers are forgotten after this long without an append (Kafka: producer.id.expiration.ms).
    pub producer_id_expiration_ms: i64,
    /// Idempotent producers remembered per log; the ones longest unseen go first.
    pub producer_ids_max: usize,
    /// Those remembered by all logs of the shard together, about: beyond it logs that remember more than their share forget.
    pub producer_ids_room: usize,
    /// Bytes that may wait for a quorum in one log; appends beyond are refused. A batch counts as 4 KiB at the least.
    pub uncommitted_bytes_max: u64,
    /// How long the journal is idle before a marker proves its last groups durable to a later recovery.
    pub marker_delay: Duration,
    /// How often free space is looked at.
    pub space_poll: Duration,
}

impl StorageConfig {
    /// The defaults for one shard.
    pub fn new(data_dir: impl Into<PathBuf>, shard: usize, shards: usize) -> StorageConfig {
        StorageConfig {
            data_dir: data_dir.into(),
            shard,
            shards,
            journal_file_bytes: 128 << 20,
            journal_files: 4,
            tail_cache_bytes: 400 << 20,
            group_bytes_max: 1 << 20,
            groups_in_flight: 2,
            min_free_bytes: 512 << 20,
            reserve_bytes: 4 << 20,
            flush_concurrency: 256,
            sync_together_from: 16,
            files_open_max: 8192,
            index_cache_bytes: 16 << 20,
            producer_id_expiration_ms: 86_400_000,
            producer_ids_max: 100_000,
            producer_ids_room: 1_000_000,
            uncommitted_bytes_max: 32 << 20,
            marker_delay: Duration::from_millis(100),
            space_poll: Duration::from_secs(1),
        }
    }

    /// Keeps within what the process may have open (`max`): a third of it is for the storage of all shards, most is for
    /// connections.
    pub fn fit_descriptors(&mut self, max: u64) {
        let share = usize::try_from(max / 3).unwrap_or(usize::MAX) / self.shards.max(1);
        self.flush_concurrency = self.flush_concurrency.min((share / 8).max(1));
        self.files_open_max = self.files_open_max.min((share / 2).max(self.flush_concurrency));
    }

    /// Descriptors that one shard's storage comes to use: its journal, open segments, and for each flush under way a segment
    /// that the others have pushed out, its directory, and one for the blocking thread; some for checkpoints and the like.
    pub fn descriptors_kept(&self) -> u64 {
        (self.journal_files + self.files_open_max + 3 * self.flush_concurrency + 4) as u64
    }

    /// Says what cannot work, which setting, and what to set.
    pub fn check(&self) -> Result<(), String> {
        let page = PAGE as u64;
        let rules: [(bool, &str); 8] = [
            (self.shard < self.shards, "shard must be below shards"),
            (
                self.journal_files >= 2,
                "journal_files must be at least 2: one is written while another is emptied",
            ),
            (
                self.journal_file_bytes >= 16 * page && self.journal_file_bytes.is_multiple_of(page),
                "journal_file_bytes must be a multiple of 4096 and at least 65536",
            ),
            (self.journal_file_bytes <= 1 << 31, "journal_file_bytes must be at most 2 GiB"),
            (
                self.group_bytes_max >= 4 * PAGE
                    && self.group_bytes_max as u64 <= self.journal_file_bytes / 2,
                "group_bytes_max must be at least 16384 and at most half of journal_file_bytes",
            ),
            ((1..=64).contains(&self.groups_in_flight), "groups_in_flight must be 1 to 64"),
            (
                self.tail_cache_bytes >= 2 * self.journal_file_bytes.min(8 * self.group_bytes_max as u64),
                "tail_cache_bytes must be at least twice journal_file_bytes, or 16 times group_bytes_max",
            ),
            (
                self.flush_concurrency >= 1 && self.files_open_max >= self.flush_concurrency,
                "flush_concurrency must be at least 1 and at most files_open_max",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err((*rule).to_string()),
        }
    }
}

/// Settings of one log; may be changed while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is sealed before it grows past this (a single larger batch gets one of its own).
    pub segment_bytes: u64,
    /// A segment is sealed when it is older than this.
    pub segment_ms: i64,
    /// Segments whose newest record is older than this are deleted; -1: never.
    pub retention_ms: i64,
    /// Oldest segments are deleted while the log is larger by at least their size; -1: never.
    pub retention_bytes: i64,
    /// Whether `retention_ms` and `retention_bytes` apply (cleanup.policy contains delete).
    pub delete_enabled: bool,
    /// Whether clients' batches count as committed as soon as their order is fixed, before they are on stable
    /// storage: a power cut, or a kill, takes what the journal had not written yet.
    pub write_caching: bool,
    /// Who says what is committed. Given when the log is opened; a change while it is open keeps what is committed.
    pub commit: CommitMode,
}

/// Who says what of a log is committed: may be served, and is never cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// The log has the only copy: what is on stable storage is committed (with write caching, what has its place).
    #[default]
    Alone,
    /// A majority of the copies, by [`Log::advance_commit`](crate::Log::advance_commit).
    Quorum,
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 86_400_000,
            retention_ms: 7 * 86_400_000,
            retention_bytes: -1,
            delete_enabled: true,
            write_caching: false,
            commit: CommitMode::Alone,
        }
    }
}

/// Largest segment: positions in a segment are 32-bit, and a batch of up to 2 GiB may follow the last position.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;
