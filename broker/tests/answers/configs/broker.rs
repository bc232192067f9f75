//! Each config of the broker that works: seen when it was started with it; for those that may change while it runs, after
//! a change for all brokers, for this one, and after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use corelog_broker::config::{Machine, StaticConfig};
use corelog_broker::settings::Settings;
use corelog_io::{sleep, timeout};
use corelog_wire::messages::join_group_request::Protocol;
use corelog_wire::messages::{
    DeleteTopicsRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest, InitProducerIdRequest,
    JoinGroupRequest, JoinGroupResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetFetchRequest, metadata_request, offset_commit_request, offset_fetch_request,
};
use corelog_wire::records::{Encoding, Producer};
use corelog_wire::{ErrorCode, Str};

use super::ask::{BROKER, TOPIC, batch, plain};
use super::topic::{self, described, is_without_effect};
use crate::world::{PORT, World};

/// How a config shows.
enum Show {
    /// It gives the default of a topic config, which has a case of its own: its two values in this config's unit.
    DefaultOf(&'static str, [&'static str; 2]),
    /// What else is set, two values, and what the probe finds with each.
    Probe(&'static [(&'static str, &'static str)], [(&'static str, &'static str); 2], fn(&World) -> String),
    /// A test of its own.
    Alone(fn()),
    /// Another test's: it is applied outside of what a simulated machine runs.
    Elsewhere,
}

use Show::{Alone, DefaultOf, Elsewhere, Probe};

const CHECKED_OFTEN: (&str, &str) = ("log.retention.check.interval.ms", "1000");
const MINUTE: Duration = Duration::from_secs(60);

const CASES: &[(&str, Show)] = &[
    ("node.id", Probe(&[], [("1", "1"), ("5", "5")], |world| metadata(world).brokers[0].node_id.to_string())),
    (
        "broker.rack",
        Probe(&[], [("a", "a"), ("b", "b")], |world| {
            metadata(world).brokers[0].rack.as_deref().unwrap_or("none").to_owned()
        }),
    ),
    (
        "listeners",
        Probe(
            &[("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT")],
            [
                ("PLAINTEXT://10.77.0.1:9092", "9092"),
                ("PLAINTEXT://10.77.0.1:9092,INSIDE://10.77.0.1:9093", "9092, 9093"),
            ],
            |world| {
                let open = world.run(|client| async move {
                    let mut open = Vec::new();
                    for port in [PORT, PORT + 1] {
                        let mut address = client.address;
                        address.set_port(port);
                        if let Ok(stream) = corelog_io::Stream::connect(address).await {
                            open.push(port.to_string());
                            stream.shutdown();
                        }
                    }
                    open
                });
                open.join(", ")
            },
        ),
    ),
    (
        "advertised.listeners",
        Probe(&[], [("a.example:1", "a.example:1"), ("b.example:2", "b.example:2")], |world| {
            let metadata = metadata(world);
            format!("{}:{}", metadata.brokers[0].host, metadata.brokers[0].port)
        }),
    ),
    ("listener.security.protocol.map", Alone(a_listener_needs_its_protocol)),
    (
        "socket.listen.backlog.size",
        Probe(&[], [("1", "2 of 20"), ("64", "20 of 20")], |world| {
            // While the broker does not run, nothing is accepted.
            world.machine.pause();
            let connected = world.run(|client| async move {
                let mut streams = Vec::new();
                for _ in 0..20 {
                    let connecting = corelog_io::Stream::connect(client.address);
                    if let Ok(Ok(stream)) = timeout(MINUTE / 2, connecting).await {
                        streams.push(stream);
                    }
                }
                streams.len()
            });
            world.machine.resume();
            format!("{connected} of 20")
        }),
    ),
    (
        "socket.request.max.bytes",
        Probe(&[], [("1000", "closed"), ("100000", "answered")], |world| {
            world.run(|client| async move {
                let name = Some("n".repeat(3000).as_str().into());
                let topic = metadata_request::Topic { name, ..Default::default() };
                let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
                let answer = client.connect().await.call(&request, 8).await;
                if answer.is_ok() { "answered".to_owned() } else { "closed".to_owned() }
            })
        }),
    ),
    (
        "connections.max.idle.ms",
        Probe(&[], [("1000", "closed"), ("600000", "answered")], |world| {
            world.run(|client| async move {
                let mut connection = client.connect().await;
                sleep(MINUTE).await;
                let answer = connection.call(&MetadataRequest::default(), 8).await;
                if answer.is_ok() { "answered".to_owned() } else { "closed".to_owned() }
            })
        }),
    ),
    ("max.connections", Probe(&[], [("3", "3"), ("5", "5")], admitted)),
    ("max.connections.per.ip", Probe(&[], [("3", "3"), ("5", "5")], admitted)),
    ("max.connections.per.ip.overrides", Probe(&[], [("10.77.0.0:3", "3"), ("10.77.0.0:5", "5")], admitted)),
    ("message.max.bytes", DefaultOf("max.message.bytes", ["1000", "10000"])),
    (
        "fetch.max.bytes",
        Probe(&[], [("20000", "a part"), ("57671680", "all")], |world| {
            let topic = fresh(world, 1);
            (0..10).for_each(|_| drop(world.produce(&topic, 0, plain(1000, 10_000))));
            let mut response = world.fetch(&topic, 0, -1);
            let records = response.responses.remove(0).partitions.remove(0).records.unwrap();
            let bytes: usize = records.iter().map(|part| part.len()).sum();
            if bytes < 50_000 { "a part".to_owned() } else { "all".to_owned() }
        }),
    ),
    (
        "max.incremental.fetch.session.cache.slots",
        Probe(&[], [("0", "none"), ("1000", "a session")], |world| {
            let topic = fresh(world, 1);
            match world.fetch(&topic, 0, 0).session_id {
                0 => "none".to_owned(),
                _ => "a session".to_owned(),
            }
        }),
    ),
    (
        "metadata.log.max.record.bytes.between.snapshots",
        Probe(&[], [("1000", "begins anew"), ("20971520", "goes on")], |world| {
            (0..20).for_each(|_| drop(fresh(world, 1)));
            world.wait(MINUTE);
            match sum(world, "corelog_metadata_snapshots_total") {
                0 => "goes on".to_owned(),
                _ => "begins anew".to_owned(),
            }
        }),
    ),
    (
        "max.request.partition.size.limit",
        Probe(&[], [("2", "2"), ("2000", "5")], |world| {
            fresh(world, 5);
            let request =
                DescribeTopicPartitionsRequest { response_partition_limit: i32::MAX, ..Default::default() };
            world.ask(0, request).topics[0].partitions.len().to_string()
        }),
    ),
    (
        "auto.create.topics.enable",
        Probe(&[], [("false", "3"), ("true", "0")], |world| {
            topic_metadata(world, &name(world)).error_code.to_string()
        }),
    ),
    (
        "delete.topic.enable",
        Probe(&[], [("false", "73"), ("true", "0")], |world| {
            let topic_names = vec![fresh(world, 1).as_str().into()];
            let request = DeleteTopicsRequest { topic_names, ..Default::default() };
            world.ask(4, request).responses[0].error_code.to_string()
        }),
    ),
    (
        "num.partitions",
        Probe(&[], [("2", "2"), ("5", "5")], |world| {
            topic_metadata(world, &fresh(world, -1)).partitions.len().to_string()
        }),
    ),
    (
        "default.replication.factor",
        Probe(&[], [("1", "0"), ("2", "38")], |world| world.create(&name(world), 1, &[]).0.to_string()),
    ),
    (
        "group.min.session.timeout.ms",
        Probe(&[], [("5000", "0"), ("10000", "26")], |world| {
            join(world, &name(world)).error_code.to_string()
        }),
    ),
    (
        "group.max.session.timeout.ms",
        Probe(&[("group.min.session.timeout.ms", "1000")], [("5000", "26"), ("30000", "0")], |world| {
            join(world, &name(world)).error_code.to_string()
        }),
    ),
    (
        "group.initial.rebalance.delay.ms",
        Probe(&[], [("0", "at once"), ("3000", "later")], |world| {
            coordinator(world);
            let begun = world.sim.elapsed();
            join(world, &name(world));
            let took = world.sim.elapsed() - begun;
            if took < Duration::from_secs(2) { "at once".to_owned() } else { "later".to_owned() }
        }),
    ),
    (
        "group.max.size",
        Probe(&[], [("1", "81"), ("2", "0")], |world| {
            let group = name(world);
            assert_eq!(join(world, &group).error_code, 0);
            join(world, &group).error_code.to_string()
        }),
    ),
    (
        "offset.metadata.max.bytes",
        Probe(&[], [("10", "12"), ("4096", "0")], |world| {
            commit(world, &name(world), &fresh(world, 1)).to_string()
        }),
    ),
    (
        "offsets.retention.minutes",
        Probe(&[("offsets.retention.check.interval.ms", "1000")], [("1", "gone"), ("10080", "kept")], aged),
    ),
    (
        "offsets.retention.check.interval.ms",
        Probe(&[("offsets.retention.minutes", "1")], [("1000", "gone"), ("86400000", "kept")], aged),
    ),
    (
        "offsets.topic.num.partitions",
        Probe(&[], [("2", "2"), ("7", "7")], |world| {
            coordinator(world);
            topic_metadata(world, "__consumer_offsets").partitions.len().to_string()
        }),
    ),
    (
        // What segment.bytes does to a log is that config's own case.
        "offsets.topic.segment.bytes",
        Probe(&[], [("1048576", "1048576"), ("2097152", "2097152")], |world| {
            coordinator(world);
            described(world, TOPIC, "__consumer_offsets", "segment.bytes").unwrap()
        }),
    ),
    (
        "log.dirs",
        Probe(&[], [("/one", "/one"), ("/two", "/two")], |world| {
            let files = world.machine.disk().files();
            let roots: BTreeSet<String> = files
                .iter()
                .map(|path| format!("/{}", path.iter().nth(1).unwrap().to_string_lossy()))
                .collect();
            roots.into_iter().collect::<Vec<_>>().join(", ")
        }),
    ),
    ("log.retention.hours", DefaultOf("retention.ms", ["-1", "1"])),
    ("log.retention.minutes", DefaultOf("retention.ms", ["-1", "1"])),
    ("log.retention.ms", DefaultOf("retention.ms", ["-1", "60000"])),
    ("log.retention.bytes", DefaultOf("retention.bytes", ["-1", "1"])),
    (
        "log.retention.check.interval.ms",
        Probe(&[("log.retention.ms", "1000")], [("1000", "trimmed"), ("86400000", "kept")], |world| {
            let topic = fresh(world, 1);
            world.produce(&topic, 0, plain(1000, 10));
            world.wait(MINUTE);
            if world.earliest(&topic, 0) > 0 { "trimmed".to_owned() } else { "kept".to_owned() }
        }),
    ),
    ("log.cleanup.policy", DefaultOf("cleanup.policy", ["compact", "delete"])),
    ("log.segment.bytes", DefaultOf("segment.bytes", ["1048576", "1073741824"])),
    (
        "log.roll.hours",
        Probe(
            &[("log.retention.bytes", "1"), CHECKED_OFTEN],
            [("1", "4 of 4"), ("3", "0 of 4")],
            closed_after_two_hours,
        ),
    ),
    ("log.roll.ms", DefaultOf("segment.ms", ["1000", "604800000"])),
    (
        "log.roll.jitter.hours",
        Probe(
            &[("log.retention.bytes", "1"), CHECKED_OFTEN, ("log.roll.hours", "3")],
            [("0", "0 of 4"), ("3", "some of 4")],
            |world| match closed_after_two_hours(world).as_str() {
                none @ "0 of 4" => none.to_owned(),
                _ => "some of 4".to_owned(),
            },
        ),
    ),
    ("log.roll.jitter.ms", Alone(jitter_in_milliseconds)),
    ("compression.type", DefaultOf("compression.type", ["producer", "snappy"])),
    ("compression.gzip.level", DefaultOf("compression.gzip.level", ["1", "9"])),
    ("compression.zstd.level", DefaultOf("compression.zstd.level", ["-50", "9"])),
    ("log.message.timestamp.type", DefaultOf("message.timestamp.type", ["CreateTime", "LogAppendTime"])),
    (
        "log.message.timestamp.before.max.ms",
        DefaultOf("message.timestamp.before.max.ms", ["60000", "7200000"]),
    ),
    ("log.message.timestamp.after.max.ms", DefaultOf("message.timestamp.after.max.ms", ["60000", "7200000"])),
    (
        "producer.id.expiration.ms",
        Probe(&[], [("1000", "0"), ("86400000", "45")], |world| {
            let topic = fresh(world, 1);
            let init = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
            let id = world.ask(4, init).producer_id;
            let sent = |base_sequence| {
                let producer = Some(Producer { id, epoch: 0, base_sequence });
                world.produce(&topic, 0, batch(1000, b"v", producer, Encoding::default())).error_code
            };
            assert_eq!(sent(0), 0);
            world.wait(10 * MINUTE);
            // Of a producer that is forgotten any sequence begins anew.
            sent(5).to_string()
        }),
    ),
    ("corelog.admin", Elsewhere),
    ("auto.leader.rebalance.enable", Elsewhere),
    ("min.insync.replicas", Elsewhere),
    ("corelog.balance.moves.max", Elsewhere),
    ("corelog.drain", Elsewhere),
    ("corelog.balance.gone.after.ms", Elsewhere),
    ("corelog.peer", Elsewhere),
    ("corelog.seeds", Elsewhere),
    ("corelog.log.level", Elsewhere),
    ("corelog.log.format", Elsewhere),
    (
        "corelog.metrics.partitions.max",
        Probe(&[], [("0", "0"), ("3", "3")], |world| {
            fresh(world, 5);
            series(world, "corelog_partition_log_start_offset{")
        }),
    ),
    (
        "corelog.metrics.group.partitions.max",
        Probe(&[], [("0", "0"), ("3", "1")], |world| {
            let topic = fresh(world, 1);
            assert_eq!(commit(world, "g", &topic), 0);
            let lags = series(world, "corelog_group_lag{");
            if lags == "0" { lags } else { "1".to_owned() }
        }),
    ),
    (
        "corelog.cores",
        Probe(&[("corelog.memory", "256MiB")], [("0", "1"), ("1-3", "3")], |world| world.cores().to_string()),
    ),
    (
        "corelog.memory",
        Probe(&[], [("128MiB", "closed"), ("1GiB", "waited for")], |world| {
            // A request that is larger than a core may hold is not waited for.
            world.run(|client| async move {
                let mut connection = client.connect().await;
                let size = bytes::Bytes::copy_from_slice(&(20i32 << 20).to_be_bytes());
                connection.send_bytes(vec![size]).await.unwrap();
                match timeout(Duration::from_secs(1), connection.next()).await {
                    Ok(_) => "closed".to_owned(),
                    Err(_) => "waited for".to_owned(),
                }
            })
        }),
    ),
    (
        "corelog.journal.file.bytes",
        Probe(&[], [("4MiB", "4194304"), ("8MiB", "8388608")], |world| {
            journal(world).iter().max().unwrap().to_string()
        }),
    ),
    (
        "corelog.journal.files",
        Probe(&[], [("2", "2 a core"), ("3", "3 a core")], |world| {
            format!("{} a core", journal(world).len() / world.cores())
        }),
    ),
    (
        "corelog.disk.reserve.bytes",
        Probe(&[], [("0", "0"), ("1TiB", "56")], |world| {
            world.machine.disk().set_capacity(1 << 34);
            world.wait(MINUTE);
            let topic = fresh(world, 1);
            world.produce(&topic, 0, plain(1000, 10)).error_code.to_string()
        }),
    ),
];

/// The series of a kind that `/metrics` has.
fn lines(world: &World, kind: &'static str) -> Vec<String> {
    let scraper = world.scraper();
    let page = world.run(|_| async move { scraper.scrape().await });
    let text: String = page.pieces().collect();
    text.lines().filter(|line| line.starts_with(kind)).map(str::to_owned).collect()
}

fn series(world: &World, kind: &'static str) -> String {
    lines(world, kind).len().to_string()
}

/// What they say together.
fn sum(world: &World, kind: &'static str) -> u64 {
    let value = |line: &String| line.rsplit(' ').next()?.parse::<u64>().ok();
    lines(world, kind).iter().filter_map(value).sum()
}

fn name(world: &World) -> String {
    format!("n-{}", world.sim.steps())
}

/// A new topic, named so that it comes before the others.
fn fresh(world: &World, partitions: i32) -> String {
    let name = format!("a-{:020}", u64::MAX - world.sim.steps());
    assert_eq!(world.create(&name, partitions, &[]), ErrorCode::NONE);
    name
}

fn metadata(world: &World) -> MetadataResponse {
    world.ask(8, MetadataRequest { topics: Some(Vec::new()), ..Default::default() })
}

fn topic_metadata(world: &World, topic: &str) -> corelog_wire::messages::metadata_response::Topic {
    let topic = metadata_request::Topic { name: Some(topic.into()), ..Default::default() };
    world.ask(8, MetadataRequest { topics: Some(vec![topic]), ..Default::default() }).topics.remove(0)
}

/// How many of eight connections are answered.
fn admitted(world: &World) -> String {
    // Those of earlier requests are gone, and known to be.
    world.wait(Duration::from_secs(1));
    let admitted = world.run(|client| async move {
        let (mut connections, mut admitted) = (Vec::new(), 0);
        for _ in 0..8 {
            let mut connection = client.connect().await;
            admitted += u32::from(connection.call(&MetadataRequest::default(), 8).await.is_ok());
            connections.push(connection);
        }
        admitted
    });
    world.wait(Duration::from_secs(1));
    admitted.to_string()
}

/// Has `__consumer_offsets` made.
fn coordinator(world: &World) {
    let found = world.ask(2, FindCoordinatorRequest { key: "g".into(), ..Default::default() });
    assert_eq!(found.error_code, 0);
}

/// One more member of a group, which is not heard of again.
fn join(world: &World, group: &str) -> JoinGroupResponse {
    coordinator(world);
    let protocol = Protocol { name: "p".into(), ..Default::default() };
    world.ask(
        3,
        JoinGroupRequest {
            group_id: group.into(),
            session_timeout_ms: 6000,
            rebalance_timeout_ms: 6000,
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        },
    )
}

/// Commits an offset with a metadata of 100 bytes.
fn commit(world: &World, group: &str, topic: &str) -> i16 {
    coordinator(world);
    let partition = offset_commit_request::Partition {
        committed_offset: 7,
        committed_metadata: Some("m".repeat(100).as_str().into()),
        ..Default::default()
    };
    let topic = offset_commit_request::Topic {
        name: topic.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() };
    world.ask(7, request).topics[0].partitions[0].error_code
}

/// What becomes of a commit in five minutes.
fn aged(world: &World) -> String {
    let (group, topic) = (name(world), fresh(world, 1));
    assert_eq!(commit(world, &group, &topic), 0);
    world.wait(5 * MINUTE);
    let topic = offset_fetch_request::Topic { name: topic.as_str().into(), partition_indexes: vec![0] };
    let request = OffsetFetchRequest {
        group_id: group.as_str().into(),
        topics: Some(vec![topic]),
        ..Default::default()
    };
    match world.ask(5, request).topics[0].partitions[0].committed_offset {
        -1 => "gone".to_owned(),
        _ => "kept".to_owned(),
    }
}

fn closed_after_two_hours(world: &World) -> String {
    let topic = fresh(world, 4);
    let produce = |partition| drop(world.produce(&topic, partition, plain(world.now_ms(), 10)));
    (0..4).for_each(produce);
    world.wait(120 * MINUTE);
    (0..4).for_each(produce);
    world.wait(Duration::from_secs(5));
    format!("{} of 4", (0..4).filter(|partition| world.earliest(&topic, *partition) > 0).count())
}

/// The journals' files and their lengths, when the rings have gone round.
fn journal(world: &World) -> Vec<usize> {
    let topic = fresh(world, 4);
    for round in 0..4 * 24 {
        let batch = plain(world.now_ms(), 600_000);
        assert_eq!(world.produce(&topic, round % 4, batch).error_code, 0);
    }
    let disk = world.machine.disk();
    let files =
        disk.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "journal"));
    files.map(|path| disk.contents(&path).unwrap().len()).collect()
}

fn a_listener_needs_its_protocol() {
    let resolve = |map: &str| {
        let listeners = ("listeners", "INSIDE://127.0.0.1:9092");
        let fixed = StaticConfig::of([listeners, ("listener.security.protocol.map", map)]).unwrap();
        let machine =
            Machine { cpus: vec![0], cpu_quota: None, memory_bytes: 8 << 30, host_name: "h".into() };
        let settings = Settings { fixed, machine };
        settings.broker(&Default::default(), &Default::default()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(resolve("INSIDE:PLAINTEXT"), Ok(()));
    assert!(resolve("OUTSIDE:PLAINTEXT").unwrap_err().contains("INSIDE has no security protocol"));
}

/// Its topic config's case has other configs beside it that come from the broker here.
fn jitter_in_milliseconds() {
    let fixed = [("log.roll.ms", "2000000"), ("log.retention.bytes", "1"), CHECKED_OFTEN];
    let mut world = World::start(&fixed);
    let case = case_of("segment.jitter.ms");
    let t = |world: &World, topic: &str| {
        assert_eq!(world.create(topic, 16, &[]), ErrorCode::NONE);
        topic.to_owned()
    };
    let topic = t(&world, "t");
    case.expect(&world, &topic, 0, "without jitter");
    assert_eq!(world.alter(BROKER, "", "log.roll.jitter.ms", Some("1999999")), ErrorCode::NONE);
    case.expect(&world, &topic, 1, "after a change for all brokers");
    world.restart(&fixed);
    let topic = t(&world, "u");
    case.expect(&world, &topic, 1, "after a restart");
}

fn case_of(name: &str) -> topic::Case {
    topic::cases().into_iter().find(|case| case.name == name).expect("the topic config has a case")
}

/// Whether it may change while the broker runs.
fn is_dynamic(world: &World, name: &str) -> bool {
    let configs = world.describe(BROKER, "1");
    !configs.iter().find(|config| config.name == name).expect("it is a config").read_only
}

fn show_default(name: &'static str, of: &str, values: [&'static str; 2]) {
    let case = case_of(of);
    let fixed = [CHECKED_OFTEN, (name, values[0])];
    let mut world = World::start(&fixed);
    let fresh = |world: &World| {
        let topic = self::name(world);
        case.create(world, &topic, &[]);
        topic
    };
    case.expect(&world, &fresh(&world), 0, &format!("by {name} at start"));
    if !is_dynamic(&world, name) {
        assert_ne!(world.alter(BROKER, "1", name, Some(values[1])), ErrorCode::NONE, "{name}");
        let changed = [CHECKED_OFTEN, (name, values[1])];
        world.restart(&changed);
        return case.expect(&world, &fresh(&world), 1, &format!("by {name} at the next start"));
    }
    // A topic that is there already gets it too.
    let topic = fresh(&world);
    assert_eq!(world.alter(BROKER, "", name, Some(values[1])), ErrorCode::NONE, "{name}");
    case.expect(&world, &topic, 1, &format!("by {name} for all brokers"));
    world.restart(&fixed);
    case.expect(&world, &fresh(&world), 1, &format!("by {name} after a restart"));
    assert_eq!(world.alter(BROKER, "1", name, Some(values[0])), ErrorCode::NONE, "{name}");
    case.expect(&world, &fresh(&world), 0, &format!("by {name} for this broker"));
}

fn show_probe(
    name: &'static str,
    others: &[(&'static str, &'static str)],
    values: [(&'static str, &'static str); 2],
    probe: fn(&World) -> String,
) {
    assert_ne!(values[0].1, values[1].1, "{name}: the probe tells them apart");
    let with = |value| [others, &[(name, value)]].concat();
    for (value, expected) in values {
        let mut world = World::start(&with(value));
        assert_eq!(probe(&world), expected, "{name}={value} at start");
        world.restart(&with(value));
        assert_eq!(probe(&world), expected, "{name}={value} after a restart");
    }
    let [(first, found), (second, other)] = values;
    let mut world = World::start(&with(first));
    let node = metadata(&world).brokers[0].node_id.to_string();
    if !is_dynamic(&world, name) {
        return assert_ne!(world.alter(BROKER, &node, name, Some(second)), ErrorCode::NONE, "{name}");
    }
    assert_eq!(world.alter(BROKER, "", name, Some(second)), ErrorCode::NONE, "{name}");
    assert_eq!(probe(&world), other, "{name}={second} for all brokers");
    world.restart(&with(first));
    assert_eq!(probe(&world), other, "{name}={second} after a restart");
    assert_eq!(world.alter(BROKER, &node, name, Some(first)), ErrorCode::NONE, "{name}");
    assert_eq!(probe(&world), found, "{name}={first} for this broker");
}

/// `ONLY=name` shows one.
#[test]
fn each_takes_effect() {
    let only = std::env::var("ONLY").ok();
    for (name, show) in CASES.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        eprintln!("{name}");
        match show {
            DefaultOf(of, values) => show_default(name, of, *values),
            Probe(others, values, probe) => show_probe(name, others, *values, *probe),
            Alone(test) => test(),
            Elsewhere => {}
        }
    }
}

#[test]
fn each_that_works_has_a_case() {
    let world = World::start(&[]);
    let works: BTreeSet<Str> = world
        .describe(BROKER, "1")
        .into_iter()
        .filter(|config| !is_without_effect(config.documentation.as_deref()))
        .map(|config| config.name)
        .collect();
    let shown: BTreeSet<Str> = CASES.iter().map(|(name, _)| Str::from(*name)).collect();
    assert_eq!(works, shown);
}

/// What has no effect cannot be changed, and is said to be what it truly is, whatever the broker was started with.
#[test]
fn what_has_no_effect_is_told_as_it_is() {
    let plain = World::start(&[]).describe(BROKER, "1");
    let without = plain.iter().filter(|config| is_without_effect(config.documentation.as_deref()));
    let given: Vec<(&str, &str)> = without
        .clone()
        .filter_map(|config| {
            let other = ["7", "true", "false", "0.75"].into_iter().find(|other| {
                config.value.as_deref() != Some(*other) && StaticConfig::of([(&*config.name, *other)]).is_ok()
            })?;
            Some((&*config.name, other))
        })
        .collect();
    assert!(given.len() > 40, "{}", given.len());
    let world = World::start(&given);
    let described = world.describe(BROKER, "1");
    for config in without {
        let now = described.iter().find(|now| now.name == config.name).unwrap();
        assert!(now.read_only, "{}", config.name);
        assert_eq!(now.value, config.value, "{}", config.name);
        let code = world.alter(BROKER, "1", &config.name, Some("7"));
        assert_ne!(code, ErrorCode::NONE, "{}", config.name);
    }
}
