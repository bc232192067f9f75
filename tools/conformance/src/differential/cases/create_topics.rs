use super::super::Case;
use super::super::session::Session;
use super::describe_configs::describe_topic;
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use corelog_wire::messages::metadata_request::Topic as MetadataTopic;
use corelog_wire::messages::{CreateTopicsRequest, MetadataRequest};

pub const CASES: &[Case] = &[
    Case { name: "create topics", run: plain },
    Case { name: "create topics counts", run: counts },
    Case { name: "create topics assignments", run: assignments },
    Case { name: "create topics configs", run: configs },
    Case { name: "create topics bad names", run: bad_names },
    Case { name: "create topics existing", run: existing },
    Case { name: "create topics many", run: many },
];

fn topic(name: Str) -> CreatableTopic {
    CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() }
}

fn request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false }
}

fn only_validate(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { validate_only: true, ..request(topics) }
}

fn plain(s: &mut Session) -> Result<()> {
    for v in s.versions::<CreateTopicsRequest>() {
        let three = CreatableTopic { num_partitions: 3, ..topic(s.name_for("three", v)) };
        let validated = CreatableTopic { num_partitions: 3, ..topic(s.name_for("validated", v)) };
        s.ask("only validated", v, &only_validate(vec![validated.clone()]));
        let named = MetadataTopic { name: Some(validated.name), ..Default::default() };
        let metadata = MetadataRequest {
            topics: Some(vec![named]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        s.ask("and not there", 12, &metadata);
        s.ask("created", v, &request(vec![three.clone()]));
        s.await_topic(&three.name, 3)?;
        s.ask("no topics", v, &request(Vec::new()));
    }
    Ok(())
}

fn counts(s: &mut Session) -> Result<()> {
    for v in s.versions::<CreateTopicsRequest>() {
        for (partitions, replicas) in [(-1, -1), (2, -1), (-1, 1)] {
            let name = s.name_for(format!("p{partitions}-r{replicas}"), v);
            let topic =
                CreatableTopic { num_partitions: partitions, replication_factor: replicas, ..topic(name) };
            s.ask(&format!("{partitions} partitions, {replicas} replicas"), v, &request(vec![topic]));
        }
        for (partitions, replicas) in
            [(0, 1), (-2, 1), (i32::MIN, 1), (1, 0), (1, -2), (1, 2), (1, i16::MAX), (0, 0)]
        {
            let name = s.name_for(format!("p{partitions}-r{replicas}"), v);
            let topic =
                CreatableTopic { num_partitions: partitions, replication_factor: replicas, ..topic(name) };
            let step = format!("{partitions} partitions, {replicas} replicas");
            s.ask(&step, v, &request(vec![topic.clone()]));
            s.ask(&format!("{step}, only validated"), v, &only_validate(vec![topic]));
        }
    }
    Ok(())
}

fn assignments(s: &mut Session) -> Result<()> {
    /// Name, partitions, replication factor, and brokers by partition.
    type Case<'a> = (&'a str, i32, i16, &'a [(i32, &'a [i32])]);
    let cases: &[Case<'_>] = &[
        ("two partitions", -1, -1, &[(0, &[1]), (1, &[1])]),
        ("in another order", -1, -1, &[(1, &[1]), (0, &[1])]),
        ("with a count", 1, -1, &[(0, &[1])]),
        ("with a factor", -1, 1, &[(0, &[1])]),
        ("a gap", -1, -1, &[(0, &[1]), (2, &[1])]),
        ("not from 0", -1, -1, &[(1, &[1])]),
        ("negative", -1, -1, &[(-1, &[1])]),
        ("twice the same", -1, -1, &[(0, &[1]), (0, &[1])]),
        ("unknown broker", -1, -1, &[(0, &[5])]),
        ("negative broker", -1, -1, &[(0, &[-1])]),
        ("broker twice", -1, -1, &[(0, &[1, 1])]),
        ("no brokers", -1, -1, &[(0, &[])]),
        ("different factors", -1, -1, &[(0, &[1]), (1, &[1, 5])]),
    ];
    for v in s.versions::<CreateTopicsRequest>() {
        for (step, partitions, replicas, assignments) in cases {
            let topic = CreatableTopic {
                name: s.name_for(step.replace(' ', "-"), v),
                num_partitions: *partitions,
                replication_factor: *replicas,
                assignments: assignments
                    .iter()
                    .map(|(partition_index, brokers)| CreatableReplicaAssignment {
                        partition_index: *partition_index,
                        broker_ids: brokers.to_vec(),
                    })
                    .collect(),
                ..Default::default()
            };
            s.ask(step, v, &request(vec![topic]));
        }
    }
    Ok(())
}

fn with_configs(name: Str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: Str::from(*name),
        value: value.map(Str::from),
    };
    CreatableTopic { configs: configs.iter().map(config).collect(), ..topic(name) }
}

fn configs(s: &mut Session) -> Result<()> {
    let good: &[(&str, Option<&str>)] = &[
        ("retention.ms", Some("1000000")),
        ("max.message.bytes", Some("2000")),
        ("message.timestamp.type", Some("LogAppendTime")),
    ];
    for v in s.versions::<CreateTopicsRequest>() {
        let validated = with_configs(s.name_for("validated", v), good);
        s.ask("good, only validated", v, &only_validate(vec![validated]));
        s.ask("good", v, &request(vec![with_configs(s.name_for("good", v), good)]));
    }
    let newest = s.newest::<CreateTopicsRequest>();
    for (i, (name, value)) in CONFIG_VALUES.iter().enumerate() {
        let topic = with_configs(s.name(format!("value-{i}")), &[(*name, *value)]);
        let shown = value.map_or("null".into(), |value| format!("{value:?}"));
        s.ask(&format!("{name} = {shown}"), newest, &only_validate(vec![topic]));
    }
    let spelled =
        [("preallocate", "TRUE"), ("max.message.bytes", " 100 "), ("cleanup.policy", "delete,delete")];
    let topic = s.topic("spelled", 1, &spelled)?.name;
    describe_topic(s, "as described", &topic, &spelled.map(|(name, _)| name));
    let twice = with_configs(s.name("twice"), &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]);
    s.ask("a config twice", newest, &only_validate(vec![twice]));
    let two_bad =
        with_configs(s.name("two-bad"), &[("no.such.config", Some("1")), ("retention.ms", Some("x"))]);
    s.ask("two bad configs", newest, &only_validate(vec![two_bad]));
    Ok(())
}

/// Values at and past the edges of what each config takes.
pub const CONFIG_VALUES: &[(&str, Option<&str>)] = &[
    ("", Some("1")),
    ("no.such.config", Some("1")),
    ("no.such.config", None),
    ("message.format.version", Some("3.0")),
    ("cleanup.policy", Some("delete")),
    ("cleanup.policy", Some("")),
    ("cleanup.policy", Some("shred")),
    ("cleanup.policy", Some("delete,delete")),
    ("cleanup.policy", None),
    ("compression.type", Some("zstd")),
    ("compression.type", Some("none")),
    ("compression.type", Some("uncompressed")),
    ("compression.type", Some("LZ4")),
    ("compression.type", Some("brotli")),
    ("compression.gzip.level", Some("9")),
    ("compression.gzip.level", Some("0")),
    ("compression.gzip.level", Some("-1")),
    ("compression.lz4.level", Some("18")),
    ("compression.zstd.level", Some("23")),
    ("delete.retention.ms", Some("-1")),
    ("file.delete.delay.ms", Some("0")),
    ("flush.messages", Some("1")),
    ("flush.messages", Some("0")),
    ("flush.ms", Some("0")),
    ("index.interval.bytes", Some("0")),
    ("index.interval.bytes", Some("-1")),
    ("max.compaction.lag.ms", Some("0")),
    ("max.compaction.lag.ms", Some("1")),
    ("max.message.bytes", Some("0")),
    ("max.message.bytes", Some("-1")),
    ("max.message.bytes", Some("2147483648")),
    ("max.message.bytes", Some("1.5")),
    ("max.message.bytes", Some(" 100 ")),
    ("max.message.bytes", Some("")),
    ("message.timestamp.after.max.ms", Some("0")),
    ("message.timestamp.before.max.ms", Some("-1")),
    ("message.timestamp.type", Some("CreateTime")),
    ("message.timestamp.type", Some("createtime")),
    ("min.cleanable.dirty.ratio", Some("0.5")),
    ("min.cleanable.dirty.ratio", Some("1.1")),
    ("min.cleanable.dirty.ratio", Some("x")),
    ("min.compaction.lag.ms", Some("-1")),
    ("min.insync.replicas", Some("1")),
    ("min.insync.replicas", Some("0")),
    ("preallocate", Some("true")),
    ("preallocate", Some("TRUE")),
    ("preallocate", Some("yes")),
    ("retention.bytes", Some("-1")),
    ("retention.bytes", Some("-2")),
    ("retention.ms", Some("-1")),
    ("retention.ms", Some("-2")),
    ("retention.ms", Some("9223372036854775807")),
    ("retention.ms", Some("9223372036854775808")),
    ("retention.ms", Some("soon")),
    ("retention.ms", None),
    ("segment.bytes", Some("1048576")),
    ("segment.bytes", Some("1048575")),
    ("segment.bytes", Some("2147483647")),
    ("segment.index.bytes", Some("3")),
    ("segment.jitter.ms", Some("-1")),
    ("segment.ms", Some("0")),
    ("segment.ms", Some("1")),
    ("unclean.leader.election.enable", Some("true")),
    ("leader.replication.throttled.replicas", Some("*")),
    ("leader.replication.throttled.replicas", Some("0:1")),
    ("leader.replication.throttled.replicas", Some("x")),
    ("remote.storage.enable", Some("false")),
    ("local.retention.ms", Some("-2")),
    ("local.retention.bytes", Some("-3")),
    ("remote.log.copy.disable", Some("false")),
    ("remote.log.delete.on.disable", Some("false")),
];

fn bad_names(s: &mut Session) -> Result<()> {
    let long = "x".repeat(250);
    let longest = "y".repeat(249);
    for (i, name) in ["", ".", "..", "a b", "a/b", "é", "a\0b", "a:b", &long, "__x", "a.b_c-D9", &longest]
        .iter()
        .enumerate()
    {
        for v in s.versions::<CreateTopicsRequest>() {
            s.ask(&format!("name {i}, only validated"), v, &only_validate(vec![topic(Str::from(*name))]));
        }
        if i < 9 {
            s.ask(
                &format!("name {i}"),
                s.newest::<CreateTopicsRequest>(),
                &request(vec![topic(Str::from(*name))]),
            );
        }
    }
    s.each("the controller's log", |_| request(vec![topic(Str::from_static("__cluster_metadata"))]));
    Ok(())
}

fn existing(s: &mut Session) -> Result<()> {
    let there = s.topic("there.it-is", 1, &[])?.name;
    let collides = Str::from(there.replace('.', "_"));
    let fresh = s.name("fresh");
    s.each("existing", |_| request(vec![topic(there.clone())]));
    s.each("existing, only validated", |_| only_validate(vec![topic(there.clone())]));
    s.each("colliding", |_| request(vec![topic(collides.clone())]));
    s.each("colliding with each other", |_| {
        only_validate(vec![topic(Str::from(format!("{fresh}.a"))), topic(Str::from(format!("{fresh}_a")))])
    });
    s.each("twice in one request", |_| request(vec![topic(fresh.clone()), topic(fresh.clone())]));
    s.each("one of them twice", |_| {
        only_validate(vec![topic(fresh.clone()), topic(collides.clone()), topic(fresh.clone())])
    });
    Ok(())
}

/// Each topic succeeds or fails by itself.
fn many(s: &mut Session) -> Result<()> {
    let there = s.topic("there", 1, &[])?.name;
    for v in s.versions::<CreateTopicsRequest>() {
        let topics = vec![
            topic(s.name_for("a", v)),
            topic(there.clone()),
            topic("no/name".into()),
            CreatableTopic { num_partitions: 0, ..topic(s.name_for("b", v)) },
            CreatableTopic { num_partitions: 4, ..topic(s.name_for("c", v)) },
        ];
        s.ask("many", v, &request(topics));
    }
    Ok(())
}
