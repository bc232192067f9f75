//! What the process was started with, and what it comes to with the cluster's dynamic configs on top.

use std::ffi::OsString;
use std::time::Duration;

use corelog_storage::{CommitMode, LogConfig, StorageConfig};
use corelog_wire::records::{
    Compression as Codec, Encoding, ProduceRules, TimestampType as WireTimestampType, TopicCompression,
};

use crate::config::{
    self, Args, BrokerConfig, Compression, ConfigMap, Layers, Machine, RECEIVE_SHARE, StaticConfig,
    TimestampType, TopicConfig,
};

/// Share of it that may be in fetch responses being sent (beyond what the tail cache holds anyway).
const FETCH_SHARE: u64 = 8;
/// Share of it that holds recent batches, in percent.
const TAIL_PERCENT: u64 = 40;
/// Share of it that consumer groups and their offsets may take.
const GROUPS_SHARE: u64 = 16;
/// Share of it that the partitions named by fetch sessions, and by fetches that wait, may take.
const SESSIONS_SHARE: u64 = 32;
/// Share of it that other answers than those to fetches may take while they are sent; as many more may wait for it.
const ANSWERS_SHARE: u64 = 128;
/// Share of it, among what partitions have, that remembers idempotent producers; and what one takes in one partition.
const PRODUCERS_SHARE: u64 = 16;
const PRODUCER_BYTES: u64 = 320;
/// What a partition may cost at most: log, producer state, index of its active segment. An eighth of the budget is
/// for these.
const PARTITION_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub struct Settings {
    pub fixed: StaticConfig,
    pub machine: Machine,
}

/// One shard's part of the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    pub receive_bytes: u64,
    pub fetch_bytes: u64,
    pub tail_bytes: u64,
    pub groups_bytes: u64,
    pub sessions_bytes: u64,
    pub answers_bytes: u64,
    /// For what other brokers send.
    pub peers_bytes: u64,
}

impl Settings {
    pub fn load(
        args: &Args,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> anyhow::Result<Settings> {
        let fixed = config::load(args, env).map_err(told)?;
        Ok(Settings { fixed, machine: Machine::detect() })
    }

    pub fn layers<'a>(&'a self, own: &'a ConfigMap, cluster: &'a ConfigMap) -> Layers<'a> {
        Layers { broker: own, cluster, fixed: &self.fixed }
    }

    /// The broker's effective config, with the dynamic configs of this broker and of the cluster.
    pub fn broker(&self, own: &ConfigMap, cluster: &ConfigMap) -> anyhow::Result<BrokerConfig> {
        BrokerConfig::resolve(&self.layers(own, cluster), &self.machine).map_err(told)
    }
}

/// All that is wrong, a line each.
fn told(errors: Vec<config::ConfigError>) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n  "))
}

impl BrokerConfig {
    pub fn budgets(&self, shards: usize) -> Budgets {
        let shard = self.memory_bytes / shards as u64;
        let received = shard / RECEIVE_SHARE;
        let peers_bytes = if self.peer.is_some() { received / 2 } else { 0 };
        Budgets {
            receive_bytes: received - peers_bytes,
            peers_bytes,
            fetch_bytes: shard / FETCH_SHARE,
            tail_bytes: shard / 100 * TAIL_PERCENT,
            groups_bytes: shard / GROUPS_SHARE,
            sessions_bytes: shard / SESSIONS_SHARE,
            answers_bytes: shard / ANSWERS_SHARE,
        }
    }

    /// Partitions that the memory budget has room for.
    pub fn partitions_max(&self) -> usize {
        (self.memory_bytes / 8 / PARTITION_BYTES) as usize
    }

    pub fn storage_config(&self, shard: usize, shards: usize) -> StorageConfig {
        let defaults = StorageConfig::new(&self.data_dir, shard, shards);
        StorageConfig {
            group_bytes_max: defaults.group_bytes_max.min(self.storage.journal_file_bytes as usize / 2),
            journal_file_bytes: self.storage.journal_file_bytes,
            journal_files: self.storage.journal_files,
            tail_cache_bytes: self.budgets(shards).tail_bytes,
            min_free_bytes: self.storage.disk_reserve_bytes,
            producer_id_expiration_ms: self.storage.producer_id_expiration_ms,
            producer_ids_room: (self.memory_bytes / shards as u64 / PRODUCERS_SHARE / PRODUCER_BYTES)
                as usize,
            ..defaults
        }
    }

    pub fn idle_max(&self) -> Option<Duration> {
        self.connections.idle_ms_max.map(Duration::from_millis)
    }

    /// The data directory as clients are shown it.
    pub fn data_dir_shown(&self) -> String {
        std::path::absolute(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone()).display().to_string()
    }
}

impl TopicConfig {
    /// What the log needs of it; `seed` tells partitions apart, for `segment.jitter.ms`.
    pub fn log_config(&self, seed: u64) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms_for(seed),
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            delete_enabled: self.cleanup_policy.delete,
            write_caching: self.write_caching,
            commit: CommitMode::Alone,
        }
    }

    /// What a batch must be to be appended.
    pub fn produce_rules(&self, request_version: i16, now_ms: i64) -> ProduceRules {
        let always = |codec: Codec, level: Option<i32>| TopicCompression::Always(Encoding { codec, level });
        ProduceRules {
            timestamp_type: match self.timestamp_type {
                TimestampType::CreateTime => WireTimestampType::CreateTime,
                TimestampType::LogAppendTime => WireTimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            compacted: self.cleanup_policy.compact,
            compression: match self.compression {
                Compression::Producer => TopicCompression::Producer,
                Compression::Uncompressed => always(Codec::None, None),
                Compression::Gzip { level } => always(Codec::Gzip, level.map(|level| level as i32)),
                Compression::Snappy => always(Codec::Snappy, None),
                Compression::Lz4 => always(Codec::Lz4, None),
                Compression::Zstd { level } => always(Codec::Zstd, Some(level)),
            },
            batch_bytes_max: self.max_message_bytes,
            segment_bytes_max: self.segment_bytes as usize,
            ..ProduceRules::new(request_version, now_ms)
        }
    }
}
