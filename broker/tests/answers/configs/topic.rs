//! Each config of topics that works: seen at creation, after a change while the broker runs, and after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use corelog_wire::ErrorCode;
use corelog_wire::records::{BatchHeader, Compression, Encoding};

use super::ask::{TOPIC, batch, plain};
use crate::world::World;

/// How a config shows.
pub struct Case {
    pub name: &'static str,
    /// What else is set on the topic, for it to show.
    others: &'static [(&'static str, &'static str)],
    partitions: i32,
    /// Two values, and what the probe finds with each.
    pub values: [(&'static str, String); 2],
    /// Does something to the topic and says what came of it.
    probe: fn(&World, &str) -> String,
}

fn case(
    name: &'static str,
    others: &'static [(&'static str, &'static str)],
    one: (&'static str, &str),
    other: (&'static str, &str),
    probe: fn(&World, &str) -> String,
) -> Case {
    let values = [(one.0, one.1.to_owned()), (other.0, other.1.to_owned())];
    Case { name, others, partitions: 1, values, probe }
}

const RETENTION_CHECK: (&str, &str) = ("log.retention.check.interval.ms", "1000");
/// Segments that are closed go at once, so that the log's start tells where the segment that is written to began.
const CLOSED_GO: (&str, &str) = ("retention.bytes", "1");
const HOUR_MS: i64 = 3_600_000;
/// What needs other brokers: `elsewhere.rs` has it.
const SHOWN_ELSEWHERE: [&str; 1] = ["min.insync.replicas"];

pub fn cases() -> Vec<Case> {
    let code = |code: ErrorCode| code.0.to_string();
    let (good, too_large) = (code(ErrorCode::NONE), code(ErrorCode::MESSAGE_TOO_LARGE));
    let (bad_time, bad_record) = (code(ErrorCode::INVALID_TIMESTAMP), code(ErrorCode::INVALID_RECORD));
    vec![
        case("cleanup.policy", &[], ("compact", &bad_record), ("delete", &good), |world, topic| {
            world.produce(topic, 0, plain(world.now_ms(), 10)).error_code.to_string()
        }),
        case(
            "compression.gzip.level",
            &[("compression.type", "gzip")],
            ("1", &compressed(Compression::Gzip, 1)),
            ("9", &compressed(Compression::Gzip, 9)),
            kept,
        ),
        case(
            "compression.type",
            &[],
            ("producer", &shown(&text(Encoding::default()))),
            ("snappy", &shown(&text(Compression::Snappy.into()))),
            kept,
        ),
        case(
            "compression.zstd.level",
            &[("compression.type", "zstd")],
            ("-50", &compressed(Compression::Zstd, -50)),
            ("9", &compressed(Compression::Zstd, 9)),
            kept,
        ),
        case("max.message.bytes", &[], ("1000", &too_large), ("10000", &good), |world, topic| {
            world.produce(topic, 0, plain(world.now_ms(), 5000)).error_code.to_string()
        }),
        case(
            "message.timestamp.after.max.ms",
            &[],
            ("60000", &bad_time),
            ("7200000", &good),
            |world, topic| produce_at(world, topic, HOUR_MS),
        ),
        case(
            "message.timestamp.before.max.ms",
            &[],
            ("60000", &bad_time),
            ("7200000", &good),
            |world, topic| produce_at(world, topic, -HOUR_MS),
        ),
        case(
            "message.timestamp.type",
            &[],
            ("CreateTime", "the producer's"),
            ("LogAppendTime", "the broker's"),
            |world, topic| match world.produce(topic, 0, plain(1000, 10)).log_append_time_ms {
                -1 => "the producer's".to_owned(),
                _ => "the broker's".to_owned(),
            },
        ),
        case(
            "retention.bytes",
            &[("segment.bytes", "1048576")],
            ("-1", "kept"),
            ("1", "trimmed"),
            three_megabytes,
        ),
        case("retention.ms", &[], ("-1", "kept"), ("60000", "trimmed"), |world, topic| {
            let offset = world.produce(topic, 0, plain(world.now_ms() - HOUR_MS, 10)).base_offset;
            world.wait(Duration::from_secs(5));
            trimmed(world.earliest(topic, 0) > offset)
        }),
        case("segment.bytes", &[CLOSED_GO], ("1048576", "trimmed"), ("1073741824", "kept"), three_megabytes),
        Case {
            partitions: 16,
            ..case(
                "segment.jitter.ms",
                &[CLOSED_GO, ("segment.ms", "2000000")],
                ("0", "none closed"),
                ("1999999", "some closed"),
                |world, topic| {
                    let produce =
                        |partition| world.produce(topic, partition, plain(world.now_ms(), 10)).base_offset;
                    let before: Vec<i64> = (0..16).map(produce).collect();
                    world.wait(Duration::from_secs(400));
                    let _: Vec<i64> = (0..16).map(produce).collect();
                    world.wait(Duration::from_secs(5));
                    let closed = (0..16).filter(|n| world.earliest(topic, *n) > before[*n as usize]).count();
                    if closed == 0 { "none closed".to_owned() } else { "some closed".to_owned() }
                },
            )
        },
        case("segment.ms", &[CLOSED_GO], ("1000", "trimmed"), ("604800000", "kept"), |world, topic| {
            let first = world.produce(topic, 0, plain(world.now_ms(), 10)).base_offset;
            world.wait(Duration::from_secs(5));
            world.produce(topic, 0, plain(world.now_ms(), 10));
            world.wait(Duration::from_secs(5));
            trimmed(world.earliest(topic, 0) > first)
        }),
        case("write.caching", &[], ("false", "after the disk"), ("true", "at once"), |world, topic| {
            // The log is loaded before its first record is taken.
            world.produce(topic, 0, plain(1000, 10));
            world.machine.disk().set_extra_latency(Duration::from_secs(3));
            let begun = world.sim.elapsed();
            world.produce(topic, 0, plain(1000, 10));
            let took = world.sim.elapsed() - begun;
            world.machine.disk().set_extra_latency(Duration::ZERO);
            if took < Duration::from_secs(1) { "at once".to_owned() } else { "after the disk".to_owned() }
        }),
    ]
}

fn trimmed(is: bool) -> String {
    if is { "trimmed".to_owned() } else { "kept".to_owned() }
}

fn produce_at(world: &World, topic: &str, from_now_ms: i64) -> String {
    world.produce(topic, 0, plain(world.now_ms() + from_now_ms, 10)).error_code.to_string()
}

/// Whether the first of some batches of 600 KB goes.
fn three_megabytes(world: &World, topic: &str) -> String {
    let produce = |_| world.produce(topic, 0, plain(world.now_ms(), 600_000)).base_offset;
    let offsets: Vec<i64> = (0..5).map(produce).collect();
    world.wait(Duration::from_secs(5));
    trimmed(world.earliest(topic, 0) > offsets[0])
}

/// A batch that compresses better the harder one tries.
fn text(encoding: Encoding) -> BatchHeader {
    let words: String = (0..4000u64).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) % 700)).collect();
    BatchHeader::parse(&batch(1000, words.as_bytes(), None, encoding)).unwrap()
}

fn shown(header: &BatchHeader) -> String {
    format!("{:?}, {} bytes", header.compression(), header.size())
}

fn compressed(codec: Compression, level: i32) -> String {
    shown(&text(Encoding { codec, level: Some(level) }))
}

/// How an uncompressed batch is kept.
fn kept(world: &World, topic: &str) -> String {
    let words: String = (0..4000u64).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) % 700)).collect();
    let produced = world.produce(topic, 0, batch(1000, words.as_bytes(), None, Encoding::default()));
    assert_eq!(produced.error_code, 0);
    shown(&world.kept(topic, produced.base_offset))
}

impl Case {
    /// A topic that sets what the probe needs, and `more`.
    pub fn create(&self, world: &World, topic: &str, more: &[(&str, &str)]) {
        let configs: Vec<(&str, &str)> = self.others.iter().chain(more).copied().collect();
        assert_eq!(world.create(topic, self.partitions, &configs), ErrorCode::NONE, "{}", self.name);
    }

    /// `values[which]` is in effect.
    pub fn expect(&self, world: &World, topic: &str, which: usize, when: &str) {
        let (value, expected) = &self.values[which];
        assert_eq!(&(self.probe)(world, topic), expected, "{}={value} {when}", self.name);
    }
}

/// The value that a resource is said to have.
pub fn described(world: &World, kind: i8, resource: &str, name: &str) -> Option<String> {
    let configs = world.describe(kind, resource);
    let config = configs.into_iter().find(|config| config.name == name);
    config.unwrap_or_else(|| panic!("no config {name}")).value.map(String::from)
}

pub fn is_without_effect(documentation: Option<&str>) -> bool {
    documentation.expect("it was asked for").contains("Without effect")
}

#[test]
fn each_takes_effect() {
    for case in cases() {
        let mut world = World::start(&[RETENTION_CHECK]);
        let [(first, found), (second, other)] = &case.values;
        assert_ne!(found, other, "{}: the probe tells them apart", case.name);
        case.create(&world, "t", &[(case.name, first)]);
        case.expect(&world, "t", 0, "at creation");
        assert_eq!(world.alter(TOPIC, "t", case.name, Some(second)), ErrorCode::NONE);
        case.expect(&world, "t", 1, "after a change");
        world.restart(&[RETENTION_CHECK]);
        assert_eq!(described(&world, TOPIC, "t", case.name).as_deref(), Some(*second));
        case.expect(&world, "t", 1, "after a restart");
    }
}

#[test]
fn each_that_works_has_a_case() {
    let world = World::start(&[]);
    world.create("t", 1, &[]);
    let works: BTreeSet<String> = world
        .describe(TOPIC, "t")
        .into_iter()
        .filter(|config| !is_without_effect(config.documentation.as_deref()))
        .map(|config| config.name.into())
        .collect();
    let shown = cases().into_iter().map(|case| case.name).chain(SHOWN_ELSEWHERE).map(str::to_owned);
    assert_eq!(works, shown.collect::<BTreeSet<String>>());
}

/// What has no effect is taken, so that clients that set it go on. Unset it is said to be what it truly is; set it is shown as
/// it was set, as at Kafka, and its documentation says that this does nothing.
#[test]
fn what_has_no_effect_is_told_as_it_is() {
    let world = World::start(&[]);
    world.create("t", 1, &[]);
    let before = world.describe(TOPIC, "t");
    let mut seen = 0;
    for config in before.iter().filter(|config| is_without_effect(config.documentation.as_deref())) {
        let name = &*config.name;
        assert!(config.read_only, "{name}");
        let value = config.value.as_deref().unwrap();
        for other in ["7", "true", "false", "0.75", "0:1"] {
            if other == value || world.alter(TOPIC, "t", name, Some(other)) != ErrorCode::NONE {
                continue;
            }
            seen += 1;
            let set = world.describe(TOPIC, "t").into_iter().find(|config| config.name == *name).unwrap();
            assert_eq!(set.value.as_deref(), Some(other), "{name}");
            assert!(is_without_effect(set.documentation.as_deref()), "{name}={other}");
            assert_eq!(world.alter(TOPIC, "t", name, None), ErrorCode::NONE, "{name}");
            assert_eq!(described(&world, TOPIC, "t", name).as_deref(), Some(value), "{name}");
        }
    }
    assert!(seen > 15, "{seen}");
}
