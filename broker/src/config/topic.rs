//! The effective configuration of a topic, typed.

use corelog_io::Dice;

use super::layers::{ConfigMap, Layers, Reader};
use super::spec::split_list;

/// `cleanup.policy`. Neither keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Drop segments past retention.
    pub delete: bool,
    /// Keep the last record of each key: compaction isn't built yet, the log is kept whole. Batches without keys
    /// are refused already, as Kafka does.
    pub compact: bool,
}

/// `compression.type`, with the level where the codec has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Keep each batch as the producer compressed it.
    Producer,
    Uncompressed,
    /// 1 to 9; `None` is gzip's default.
    Gzip {
        level: Option<u32>,
    },
    Snappy,
    Lz4,
    /// -131072 to 22.
    Zstd {
        level: i32,
    },
}

/// `message.timestamp.type`; the number is the attribute bit of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime = 0,
    LogAppendTime = 1,
}

/// What a topic's configs come to: its own values over the broker's. Only configs that have an effect are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression: Compression,
    /// The largest record batch, in bytes on the wire.
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    /// How far a record's timestamp may lie before and after the clock, in milliseconds; `i64::MAX` is any.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// -1: without limit.
    pub retention_bytes: i64,
    /// -1: for ever.
    pub retention_ms: i64,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub segment_jitter_ms: i64,
    /// So many replicas must be in sync for `acks=all`, if there are so many.
    pub min_insync_replicas: usize,
    /// Whether records are acknowledged before they are on stable storage.
    pub write_caching: bool,
}

impl TopicConfig {
    /// The values in effect for a topic with these configs of its own.
    pub fn resolve(layers: &Layers<'_>, own: &ConfigMap) -> TopicConfig {
        TopicConfig::read(&Reader::topic(layers, own))
    }

    fn read(from: &Reader<'_>) -> TopicConfig {
        let policies = from.text("cleanup.policy");
        let policies = split_list(&policies);
        let gzip: i32 = from.number("compression.gzip.level");
        let zstd = from.number("compression.zstd.level");
        TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: policies.contains(&"delete"),
                compact: policies.contains(&"compact"),
            },
            compression: match from.text("compression.type").as_str() {
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip { level: u32::try_from(gzip).ok() },
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4,
                "zstd" => Compression::Zstd { level: zstd },
                _ => Compression::Producer,
            },
            max_message_bytes: from.number("max.message.bytes"),
            timestamp_type: match from.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: from.number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: from.number("message.timestamp.after.max.ms"),
            retention_bytes: from.number("retention.bytes"),
            retention_ms: from.number("retention.ms"),
            segment_bytes: from.number("segment.bytes"),
            segment_ms: from.number("segment.ms"),
            segment_jitter_ms: from.number("segment.jitter.ms"),
            min_insync_replicas: from.number("min.insync.replicas"),
            write_caching: from.flag("write.caching"),
        }
    }

    /// `segment.ms` less this partition's share of `segment.jitter.ms`; `seed` tells partitions apart (a hash of
    /// topic id and partition). At least 1.
    pub fn segment_ms_for(&self, seed: u64) -> i64 {
        let most = self.segment_jitter_ms.min(self.segment_ms - 1).max(0);
        // Neighbouring seeds come out far apart.
        self.segment_ms - Dice(seed).below(most as u64 + 1) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::StaticConfig;
    use super::super::rows;
    use super::super::spec::Effect;
    use super::*;

    fn resolve(fixed: &[(&str, &str)], own: &[(&str, &str)]) -> TopicConfig {
        let none = ConfigMap::new();
        let fixed = StaticConfig::of(fixed.iter().copied()).unwrap();
        let own = own.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicConfig::resolve(&Layers { broker: &none, cluster: &none, fixed: &fixed }, &own)
    }

    #[test]
    fn defaults_are_kafkas() {
        let expected = TopicConfig {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression: Compression::Producer,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            retention_bytes: -1,
            retention_ms: 604_800_000,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            min_insync_replicas: 1,
            write_caching: false,
        };
        assert_eq!(resolve(&[], &[]), expected);
    }

    #[test]
    fn own_values_over_the_brokers() {
        let fixed =
            [("log.retention.hours", "1"), ("compression.type", "zstd"), ("compression.zstd.level", "-5")];
        let config = resolve(&fixed, &[("cleanup.policy", "compact"), ("segment.bytes", "1048576")]);
        assert_eq!(config.retention_ms, 3_600_000);
        assert_eq!(config.compression, Compression::Zstd { level: -5 });
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: false, compact: true });
        assert_eq!(config.segment_bytes, 1 << 20);
        let config = resolve(&fixed, &[("compression.type", "gzip"), ("cleanup.policy", "")]);
        assert_eq!(config.compression, Compression::Gzip { level: None });
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: false, compact: false });
    }

    #[test]
    fn what_works_is_read_and_what_does_not_is_not() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        let reader = Reader::topic(&layers, &none);
        TopicConfig::read(&reader);
        for row in rows::topic() {
            let works = row.spec.effect == Effect::Works;
            assert_eq!(reader.seen().contains(row.spec.name), works, "{}", row.spec.name);
        }
    }

    #[test]
    fn jitter_spreads_and_stays_in_bounds() {
        let config = resolve(&[], &[("segment.ms", "1000"), ("segment.jitter.ms", "400")]);
        let ages: std::collections::BTreeSet<i64> =
            (0..100).map(|seed| config.segment_ms_for(seed)).collect();
        assert!(ages.iter().all(|age| (600..=1000).contains(age)) && ages.len() > 50, "{ages:?}");
        let config = resolve(&[], &[("segment.ms", "1"), ("segment.jitter.ms", "9223372036854775807")]);
        assert_eq!(config.segment_ms_for(7), 1);
    }
}
