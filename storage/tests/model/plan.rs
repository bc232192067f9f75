//! What one seed does: settings, and which faults strike.

use crate::world::DIR;
use corelog_io::Dice;
use corelog_storage::{CommitMode, LogConfig, StorageConfig};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Power loss and kills.
    Crashes,
    /// Kills with a restart at once, while the kernel still writes for the dead process; power loss soon after. Nothing
    /// goes to segments: the journals of many generations pile up.
    Kills,
    /// The disk fills up now and then; crashes too.
    FullDisk,
    /// Reads, writes and syncs fail now and then; crashes too.
    IoErrors,
    /// Bits flip while the process is down.
    BitFlips,
}

/// Who decides what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    Alone,
    Quorum,
    /// Now one and now the other, while a log is open and while it is not.
    Changing,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub faults: Faults,
    pub logs: u8,
    pub incarnations: u32,
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    pub group_bytes_max: usize,
    pub groups_in_flight: usize,
    pub tail_cache_bytes: u64,
    pub sync_together_from: usize,
    pub files_open_max: usize,
    pub segment_bytes: u64,
    /// Largest record value, in bytes.
    pub value_bytes_max: u64,
    pub retention: bool,
    /// Virtual time between the appends of one task.
    pub pace: Duration,
    /// Logs show what is not durable, and may lose it.
    pub write_caching: bool,
    pub commits: Commits,
    pub uncommitted_bytes_max: u64,
}

impl Plan {
    pub fn from_seed(seed: u64, faults: Faults) -> Plan {
        let mut dice = Dice(seed ^ 0xc0ff_ee00);
        let large = dice.below(20) == 0;
        let group_bytes_max = dice.pick(&[16 << 10, 32 << 10, 64 << 10]);
        let journal_file_bytes = if large {
            4 << 20
        } else {
            dice.pick(&[64 << 10, 128 << 10, 256 << 10]).max(2 * group_bytes_max as u64)
        };
        let kills = faults == Faults::Kills;
        let journal_file_bytes = if kills { 1 << 20 } else { journal_file_bytes };
        Plan {
            seed,
            faults,
            logs: dice.pick(&[1, 2, 4, 8]),
            incarnations: 2 + dice.below(5) as u32,
            journal_file_bytes,
            journal_files: if kills { 8 } else { dice.pick(&[2, 3, 4]) },
            group_bytes_max,
            groups_in_flight: dice.pick(&[1, 2, 4]),
            tail_cache_bytes: dice.pick(&[1, 2, 4])
                * (2 * journal_file_bytes).max(16 * group_bytes_max as u64),
            sync_together_from: dice.pick(&[1, 2, usize::MAX]),
            files_open_max: dice.pick(&[4, 8, 64]),
            segment_bytes: dice.pick(&[8 << 10, 64 << 10, 256 << 10, 1 << 20]),
            value_bytes_max: if large && !kills { 2 << 20 } else { dice.pick(&[100, 2_000, 20_000]) },
            retention: dice.below(3) == 0,
            pace: Duration::from_micros(dice.pick(&[50, 500, 3_000])),
            write_caching: dice.below(4) == 0,
            commits: dice.pick(&[Commits::Alone, Commits::Quorum, Commits::Quorum, Commits::Changing]),
            uncommitted_bytes_max: dice.pick(&[40 << 10, 1 << 20, 32 << 20]),
        }
    }

    pub fn storage(&self, shard: usize, shards: usize) -> StorageConfig {
        StorageConfig {
            journal_file_bytes: self.journal_file_bytes,
            journal_files: self.journal_files,
            tail_cache_bytes: self.tail_cache_bytes,
            group_bytes_max: self.group_bytes_max,
            groups_in_flight: self.groups_in_flight,
            min_free_bytes: 256 << 10,
            flush_concurrency: 4,
            sync_together_from: self.sync_together_from,
            files_open_max: self.files_open_max,
            index_cache_bytes: 4 << 10,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            marker_delay: Duration::from_millis(10),
            space_poll: Duration::from_millis(200),
            ..StorageConfig::new(DIR, shard, shards)
        }
    }

    pub fn log(&self, commit: CommitMode) -> LogConfig {
        LogConfig {
            commit,
            segment_bytes: self.segment_bytes,
            delete_enabled: self.retention,
            write_caching: self.write_caching,
            ..LogConfig::default()
        }
    }
}
