//! Topic configs, with the broker configs that give their defaults.

use super::super::spec::{Check, Spec, boolean, double, int, list, long, string};
use super::{
    NO_TIERS, NOT_COMPACTED, ONE_LZ4, OWN_INDEX, PREALLOCATED, SYNCED, UNCOMPACTED, UNLINKED, forms,
};

pub(super) const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
/// In the order in which Kafka's refusal names them.
pub(super) const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

const NO_REASSIGNMENT: &str = "replicas do not move between brokers yet.";

/// A topic config and where its default comes from.
#[derive(Clone, Copy, Debug)]
pub struct TopicSpec {
    pub spec: Spec,
    /// Broker configs that give the default, first come first served, and what one of their units is in this
    /// config's own (an hour is 3,600,000 ms). Empty: the default is the table's.
    pub synonyms: &'static [(&'static str, i64)],
}

const fn topic(spec: Spec, synonyms: &'static [(&'static str, i64)]) -> TopicSpec {
    TopicSpec { spec: spec.dynamic(), synonyms }
}

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

pub(super) static ROWS: &[TopicSpec] = &[
    topic(
        list(
            "cleanup.policy",
            "delete",
            Check::EachOf(CLEANUP_POLICIES),
            "What happens to old records: delete drops segments past retention; compact keeps the last record of each key; \
             the empty list keeps everything.",
        )
        .unbuilt("compact", UNCOMPACTED),
        &[("log.cleanup.policy", 1)],
    ),
    topic(
        int(
            "compression.gzip.level",
            "-1",
            Check::BetweenOr(1, 9, -1),
            "The gzip level when the broker recompresses; -1 is gzip's default.",
        ),
        &[("compression.gzip.level", 1)],
    ),
    topic(
        int(
            "compression.lz4.level",
            "9",
            Check::Between(1, 17),
            "The lz4 level when the broker recompresses.",
        )
        .always(Some("1"), ONE_LZ4),
        &[("compression.lz4.level", 1)],
    ),
    topic(
        string(
            "compression.type",
            "producer",
            Check::OneOf(COMPRESSION_TYPES),
            "The codec in which batches are kept: producer keeps each as it came, any other recompresses those that differ.",
        ),
        &[("compression.type", 1)],
    ),
    topic(
        int(
            "compression.zstd.level",
            "3",
            Check::Between(-131_072, 22),
            "The zstd level when the broker recompresses.",
        ),
        &[("compression.zstd.level", 1)],
    ),
    topic(
        long(
            "delete.retention.ms",
            "86400000",
            Check::AtLeast(0),
            "How long a tombstone stays in a compacted topic.",
        )
        .ms()
        .always(Some("9223372036854775807"), NOT_COMPACTED),
        &[("log.cleaner.delete.retention.ms", 1)],
    ),
    topic(
        long("file.delete.delay.ms", "60000", Check::AtLeast(0), "How long a deleted segment's file stays.")
            .ms()
            .always(Some("0"), UNLINKED),
        &[("log.segment.delete.delay.ms", 1)],
    ),
    topic(
        long("flush.messages", "9223372036854775807", Check::AtLeast(1), "Records between two syncs.")
            .always(Some("1"), SYNCED),
        &[("log.flush.interval.messages", 1)],
    ),
    topic(
        long("flush.ms", "9223372036854775807", Check::AtLeast(0), "The most time between two syncs.")
            .ms()
            .always(Some("0"), SYNCED),
        &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
    ),
    topic(
        list(
            "follower.replication.throttled.replicas",
            "",
            Check::Form("* or partition:broker pairs", |text| {
                forms::throttled_replicas("follower.replication.throttled.replicas", text)
            }),
            "The replicas whose copying from the leader is throttled, on the followers' side.",
        )
        .no_effect(NO_REASSIGNMENT),
        &[],
    ),
    topic(
        int("index.interval.bytes", "4096", Check::AtLeast(0), "Bytes of log per index entry.")
            .bytes()
            .always(Some("65536"), OWN_INDEX),
        &[("log.index.interval.bytes", 1)],
    ),
    topic(
        list(
            "leader.replication.throttled.replicas",
            "",
            Check::Form("* or partition:broker pairs", |text| {
                forms::throttled_replicas("leader.replication.throttled.replicas", text)
            }),
            "The replicas whose copying from the leader is throttled, on the leader's side.",
        )
        .no_effect(NO_REASSIGNMENT),
        &[],
    ),
    topic(
        long(
            "local.retention.bytes",
            "-2",
            Check::AtLeast(-2),
            "The size to which a tiered partition is kept on local disk; -2 is its whole size.",
        )
        .bytes()
        .no_effect(NO_TIERS),
        &[("log.local.retention.bytes", 1)],
    ),
    topic(
        long(
            "local.retention.ms",
            "-2",
            Check::AtLeast(-2),
            "How long a tiered topic's records are kept on local disk; -2 is as long as they are kept at all.",
        )
        .ms()
        .no_effect(NO_TIERS),
        &[("log.local.retention.ms", 1)],
    ),
    topic(
        long(
            "max.compaction.lag.ms",
            "9223372036854775807",
            Check::AtLeast(1),
            "How long a record may stay before compaction must look at it.",
        )
        .ms()
        .no_effect(NOT_COMPACTED),
        &[("log.cleaner.max.compaction.lag.ms", 1)],
    ),
    topic(
        int(
            "max.message.bytes",
            "1048588",
            Check::AtLeast(0),
            "The largest record batch the topic takes, in bytes as it comes over the wire, compressed if it is; it must also \
             fit into a file of the journal (corelog.journal.file.bytes).",
        )
        .bytes(),
        &[("message.max.bytes", 1)],
    ),
    topic(
        long(
            "message.timestamp.after.max.ms",
            "3600000",
            Check::AtLeast(0),
            "How far a producer's timestamp may lie after the broker's clock; records beyond it are refused.",
        )
        .ms(),
        &[("log.message.timestamp.after.max.ms", 1)],
    ),
    topic(
        long(
            "message.timestamp.before.max.ms",
            "9223372036854775807",
            Check::AtLeast(0),
            "How far a producer's timestamp may lie before the broker's clock; records beyond it are refused.",
        )
        .ms(),
        &[("log.message.timestamp.before.max.ms", 1)],
    ),
    topic(
        string(
            "message.timestamp.type",
            "CreateTime",
            Check::OneOf(TIMESTAMP_TYPES),
            "Whether a record's timestamp is the producer's (CreateTime) or the time of its append (LogAppendTime).",
        ),
        &[("log.message.timestamp.type", 1)],
    ),
    topic(
        double(
            "min.cleanable.dirty.ratio",
            "0.5",
            Check::Ratio,
            "The share of the log that must be uncompacted before it is compacted.",
        )
        .always(Some("1.0"), NOT_COMPACTED),
        &[("log.cleaner.min.cleanable.ratio", 1)],
    ),
    topic(
        long(
            "min.compaction.lag.ms",
            "0",
            Check::AtLeast(0),
            "How long a record stays before it may be compacted away.",
        )
        .ms()
        .always(Some("9223372036854775807"), NOT_COMPACTED),
        &[("log.cleaner.min.compaction.lag.ms", 1)],
    ),
    topic(
        int(
            "min.insync.replicas",
            "1",
            Check::AtLeast(1),
            "How many replicas must have a record before acks=all is answered; with fewer in sync, produce is refused.",
        ),
        &[("min.insync.replicas", 1)],
    ),
    topic(
        boolean("preallocate", "false", "Whether a segment's space is reserved when it is begun.")
            .always(Some("true"), PREALLOCATED),
        &[("log.preallocate", 1)],
    ),
    topic(
        boolean("remote.log.copy.disable", "false", "Whether a tiered topic stops copying to remote storage.")
            .no_effect(NO_TIERS),
        &[],
    ),
    topic(
        boolean(
            "remote.log.delete.on.disable",
            "false",
            "Whether remote data goes when a topic ceases to be tiered.",
        )
        .no_effect(NO_TIERS),
        &[],
    ),
    topic(
        Spec { check: Check::Only("false", TIERS_REFUSED), ..boolean(REMOTE_STORAGE, "false", "Whether the topic is tiered.") }
            .no_effect("tiered storage isn't built yet, so that false is the only value."),
        &[],
    ),
    topic(
        long(
            "retention.bytes",
            "-1",
            Check::AtLeast(-1),
            "The size to which each partition is kept by deleting its oldest segments; -1 is without limit.",
        )
        .bytes(),
        &[("log.retention.bytes", 1)],
    ),
    topic(
        long(
            "retention.ms",
            "604800000",
            Check::AtLeast(-1),
            "How long records are kept, by the newest timestamp of their segment; -1 is for ever.",
        )
        .ms(),
        &[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
    ),
    topic(
        int(
            "segment.bytes",
            "1073741824",
            Check::AtLeast(1 << 20),
            "The size at which a segment is closed and the next begun; retention deletes whole segments.",
        )
        .bytes(),
        &[("log.segment.bytes", 1)],
    ),
    topic(
        int("segment.index.bytes", "10485760", Check::AtLeast(4), "The largest index of a segment.")
            .bytes()
            .no_effect(OWN_INDEX),
        &[("log.index.size.max.bytes", 1)],
    ),
    topic(
        long(
            "segment.jitter.ms",
            "0",
            Check::AtLeast(0),
            "The most that is taken off segment.ms, by partition, so that not all segments are closed at once.",
        )
        .ms(),
        &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
    ),
    topic(
        long(
            "segment.ms",
            "604800000",
            Check::AtLeast(1),
            "The age at which a segment is closed even if it is small, so that retention can delete it.",
        )
        .ms(),
        &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
    ),
    topic(
        boolean(
            "unclean.leader.election.enable",
            "false",
            "Whether a replica that lacks acknowledged records may become leader.",
        )
        .no_effect("Raft elects only leaders that have every acknowledged record."),
        &[("unclean.leader.election.enable", 1)],
    ),
    topic(
        boolean(
            "write.caching",
            "false",
            "Whether records are acknowledged and served before they are on stable storage, which is faster; a power cut or a \
             kill then takes the last milliseconds of them. Corelog's own, after Redpanda's.",
        ),
        &[],
    ),
];

/// The topic config that asks for tiered storage.
pub const REMOTE_STORAGE: &str = "remote.storage.enable";

/// Kafka's words where no tiers are set up.
pub const TIERS_REFUSED: &str = "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.";
