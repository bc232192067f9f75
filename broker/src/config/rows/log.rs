//! Broker configs of the log: where it is kept, for how long, and the defaults of topics.

use super::super::spec::{Check, Spec, Unit, boolean, double, int, list, long, string};
use super::forms;
use super::topic::{CLEANUP_POLICIES, COMPRESSION_TYPES, TIMESTAMP_TYPES};
use super::{NO_TIERS, NOT_COMPACTED, OWN_INDEX, PREALLOCATED, SYNCED, UNCOMPACTED, UNLINKED};

/// -1, or from 1: a broker-wide retention of 0 would delete every topic's records at once (Kafka refuses it too).
const FOR_EVER_OR_POSITIVE: Check = Check::BetweenOr(1, i64::MAX, -1);
const FOR_EVER_OR_POSITIVE_INT: Check = Check::BetweenOr(1, i32::MAX as i64, -1);

pub(super) static ROWS: &[Spec] = &[
    list(
        "log.dirs",
        "./corelog-data",
        Check::Form("the path of one directory", forms::one_directory),
        "The data directory; it holds everything that this broker keeps.",
    ),
    // Retention.
    int("log.retention.hours", "168", FOR_EVER_OR_POSITIVE_INT, "How long records are kept; -1 is for ever.")
        .unit(Unit::Hours),
    int(
        "log.retention.minutes",
        "",
        FOR_EVER_OR_POSITIVE_INT,
        "How long records are kept; takes precedence over log.retention.hours.",
    )
    .unit(Unit::Minutes)
    .unset(),
    long(
        "log.retention.ms",
        "",
        FOR_EVER_OR_POSITIVE,
        "How long records are kept; takes precedence over log.retention.minutes and .hours, and topics override it with retention.ms.",
    )
    .ms()
    .unset()
    .dynamic(),
    long(
        "log.retention.bytes",
        "-1",
        Check::AtLeast(-1),
        "The size to which each partition is kept by deleting its oldest segments; -1 is without limit.",
    )
    .bytes()
    .dynamic(),
    long(
        "log.retention.check.interval.ms",
        "300000",
        Check::AtLeast(1),
        "How often segments past retention are looked for.",
    )
    .ms(),
    list(
        "log.cleanup.policy",
        "delete",
        Check::EachOf(CLEANUP_POLICIES),
        "What happens to old records, as topics override it with cleanup.policy.",
    )
    .unbuilt("compact", UNCOMPACTED)
    .dynamic(),
    // Segments.
    int(
        "log.segment.bytes",
        "1073741824",
        Check::AtLeast(1 << 20),
        "The size at which a segment is closed and the next begun.",
    )
    .bytes()
    .dynamic(),
    int("log.roll.hours", "168", Check::AtLeast(1), "The age at which a segment is closed even if it is small.")
        .unit(Unit::Hours),
    long(
        "log.roll.ms",
        "",
        Check::AtLeast(1),
        "The age at which a segment is closed even if it is small; takes precedence over log.roll.hours.",
    )
    .ms()
    .unset()
    .dynamic(),
    int(
        "log.roll.jitter.hours",
        "0",
        Check::AtLeast(0),
        "The most that is taken off a segment's age at random, so that not all are closed at once.",
    )
    .unit(Unit::Hours),
    long(
        "log.roll.jitter.ms",
        "",
        Check::AtLeast(0),
        "The most that is taken off a segment's age at random; takes precedence over log.roll.jitter.hours.",
    )
    .ms()
    .unset()
    .dynamic(),
    long("log.segment.delete.delay.ms", "60000", Check::AtLeast(0), "How long a deleted segment's file stays.")
        .ms()
        .dynamic()
        .always(Some("0"), UNLINKED),
    int("log.index.size.max.bytes", "10485760", Check::AtLeast(4), "The largest index of a segment.")
        .bytes()
        .dynamic()
        .no_effect(OWN_INDEX),
    int("log.index.interval.bytes", "4096", Check::AtLeast(0), "Bytes of log per index entry.")
        .bytes()
        .dynamic()
        .always(Some("65536"), OWN_INDEX),
    boolean("log.preallocate", "false", "Whether a segment's space is reserved when it is begun.")
        .dynamic()
        .always(Some("true"), PREALLOCATED),
    // Records.
    string(
        "compression.type",
        "producer",
        Check::OneOf(COMPRESSION_TYPES),
        "The codec in which batches are kept: the producer's own, or one to which others are recompressed.",
    )
    .dynamic(),
    int(
        "compression.gzip.level",
        "-1",
        Check::BetweenOr(1, 9, -1),
        "The gzip level of batches that the broker recompresses; -1 is gzip's default.",
    )
    .dynamic(),
    int(
        "compression.lz4.level",
        "9",
        Check::Between(1, 17),
        "The lz4 level of batches that the broker recompresses.",
    )
    .dynamic()
    .always(Some("1"), super::ONE_LZ4),
    int(
        "compression.zstd.level",
        "3",
        Check::Between(-131_072, 22),
        "The zstd level of batches that the broker recompresses.",
    )
    .dynamic(),
    string(
        "log.message.timestamp.type",
        "CreateTime",
        Check::OneOf(TIMESTAMP_TYPES),
        "Whether a record's timestamp is the producer's or the time of its append.",
    )
    .dynamic(),
    long(
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        Check::AtLeast(0),
        "How far a producer's timestamp may lie before the broker's clock.",
    )
    .ms()
    .dynamic(),
    long(
        "log.message.timestamp.after.max.ms",
        "3600000",
        Check::AtLeast(0),
        "How far a producer's timestamp may lie after the broker's clock.",
    )
    .ms()
    .dynamic(),
    int(
        "producer.id.expiration.ms",
        "86400000",
        Check::AtLeast(1),
        "How long a partition remembers an idempotent producer that has stopped writing to it.",
    )
    .ms(),
    // Flushing: an answer means durable, so there is nothing to choose.
    long("log.flush.interval.messages", "9223372036854775807", Check::AtLeast(1), "Records between two syncs.")
        .dynamic()
        .always(Some("1"), SYNCED),
    long("log.flush.interval.ms", "", Check::AtLeast(0), "The most time between two syncs.")
        .ms()
        .unset()
        .dynamic()
        .always(Some("0"), SYNCED),
    long(
        "log.flush.scheduler.interval.ms",
        "9223372036854775807",
        Check::AtLeast(0),
        "How often it is checked whether a log must be synced.",
    )
    .ms()
    .always(Some("0"), SYNCED),
    int(
        "log.flush.offset.checkpoint.interval.ms",
        "60000",
        Check::AtLeast(0),
        "How often the recovery point is written down.",
    )
    .ms()
    .no_effect(SYNCED),
    int(
        "log.flush.start.offset.checkpoint.interval.ms",
        "60000",
        Check::AtLeast(0),
        "How often log start offsets are written down.",
    )
    .ms()
    .no_effect("a new log start offset is durable before DeleteRecords is answered."),
    int("num.recovery.threads.per.data.dir", "2", Check::AtLeast(1), "Threads that recover logs at start.")
        .dynamic()
        .always(None, "recovery reads the journal, not the logs, on every core."),
    long(
        "log.dir.failure.timeout.ms",
        "30000",
        Check::AtLeast(1),
        "How long the broker may run with a failed directory.",
    )
    .ms()
    .no_effect("there is one data directory, and without it no broker."),
    // Compaction.
    boolean("log.cleaner.enable", "true", "Whether topics with cleanup.policy=compact are compacted.")
        .always(Some("false"), NOT_COMPACTED),
    int("log.cleaner.threads", "1", Check::AtLeast(0), "Threads that compact.")
        .dynamic()
        .always(Some("0"), NOT_COMPACTED),
    long("log.cleaner.backoff.ms", "15000", Check::AtLeast(0), "How long compaction rests with nothing to do.")
        .ms()
        .dynamic()
        .no_effect(NOT_COMPACTED),
    long("log.cleaner.dedupe.buffer.size", "134217728", Check::AtLeast(1), "Memory for the keys of a compaction.")
        .bytes()
        .dynamic()
        .no_effect(NOT_COMPACTED),
    int("log.cleaner.io.buffer.size", "524288", Check::AtLeast(0), "Memory for the records of a compaction.")
        .bytes()
        .dynamic()
        .no_effect(NOT_COMPACTED),
    double(
        "log.cleaner.io.buffer.load.factor",
        "0.9",
        Check::Any,
        "How full the table of keys may be before a compaction writes.",
    )
    .dynamic()
    .no_effect(NOT_COMPACTED),
    double(
        "log.cleaner.io.max.bytes.per.second",
        "1.7976931348623157E308",
        Check::Any,
        "The most that compaction reads and writes per second.",
    )
    .dynamic()
    .no_effect(NOT_COMPACTED),
    double(
        "log.cleaner.min.cleanable.ratio",
        "0.5",
        Check::Ratio,
        "The share of a log that must be uncompacted before it is compacted.",
    )
    .dynamic()
    .always(Some("1.0"), NOT_COMPACTED),
    long(
        "log.cleaner.min.compaction.lag.ms",
        "0",
        Check::AtLeast(0),
        "How long a record stays before it may be compacted away.",
    )
    .ms()
    .dynamic()
    .always(Some("9223372036854775807"), NOT_COMPACTED),
    long(
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        Check::AtLeast(1),
        "How long a record may stay before it must be looked at by compaction.",
    )
    .ms()
    .dynamic()
    .no_effect(NOT_COMPACTED),
    long(
        "log.cleaner.delete.retention.ms",
        "86400000",
        Check::AtLeast(0),
        "How long a tombstone stays after compaction.",
    )
    .ms()
    .dynamic()
    .always(Some("9223372036854775807"), NOT_COMPACTED),
    // Tiered storage.
    long(
        "log.local.retention.ms",
        "-2",
        Check::AtLeast(-2),
        "How long records are kept on local disk when a topic is tiered; -2 is as long as they are kept at all.",
    )
    .ms()
    .dynamic()
    .no_effect(NO_TIERS),
    long(
        "log.local.retention.bytes",
        "-2",
        Check::AtLeast(-2),
        "The size to which a tiered partition is kept on local disk; -2 is its whole size.",
    )
    .bytes()
    .dynamic()
    .no_effect(NO_TIERS),
];
