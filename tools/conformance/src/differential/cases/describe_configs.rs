use super::super::Case;
use super::super::session::Session;
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::describe_configs_request::{DescribeConfigsRequest, Resource};

pub const CASES: &[Case] = &[
    Case { name: "describe topic configs", run: topic },
    Case { name: "describe broker configs", run: broker },
    Case { name: "describe configs of nowhere", run: nowhere },
];

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;

fn resource(resource_type: i8, name: &str, keys: Option<&[&str]>) -> Resource {
    Resource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
    }
}

fn request(version: i16, resources: Vec<Resource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: version >= 3 }
}

/// The configs of one topic, with all that is said about them.
pub fn describe_topic(s: &mut Session, step: &str, name: &str, keys: &[&str]) {
    s.ask(step, 4, &request(1, vec![resource(TOPIC, name, Some(keys))]));
}

fn topic(s: &mut Session) -> Result<()> {
    let configs = [("retention.ms", "1000000"), ("max.message.bytes", "2000"), ("compression.type", "lz4")];
    let t = s.topic("t", 1, &configs)?.name;
    s.each("all", |v| request(v, vec![resource(TOPIC, &t, None)]));
    s.each("neither synonyms nor documentation", |_| DescribeConfigsRequest {
        resources: vec![resource(TOPIC, &t, None)],
        ..Default::default()
    });
    s.each("some", |v| {
        request(
            v,
            vec![resource(TOPIC, &t, Some(&["retention.ms", "segment.bytes", "retention.ms", "nothing"]))],
        )
    });
    s.each("none", |v| request(v, vec![resource(TOPIC, &t, Some(&[]))]));
    s.each("twice", |v| {
        request(
            v,
            vec![resource(TOPIC, &t, Some(&["retention.ms"])), resource(TOPIC, &t, Some(&["segment.ms"]))],
        )
    });
    s.each("no resources", |v| request(v, Vec::new()));
    Ok(())
}

/// Configs of brokers that both have.
const BROKER_CONFIGS: &[&str] = &[
    "auto.create.topics.enable",
    "broker.rack",
    "compression.type",
    "connections.max.idle.ms",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "log.cleanup.policy",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.retention.bytes",
    "log.retention.check.interval.ms",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.roll.hours",
    "log.roll.ms",
    "log.segment.bytes",
    "max.connections",
    "max.connections.per.ip",
    "max.incremental.fetch.session.cache.slots",
    "message.max.bytes",
    "min.insync.replicas",
    "node.id",
    "num.partitions",
    "offset.metadata.max.bytes",
    "offsets.retention.minutes",
    "offsets.topic.num.partitions",
    "offsets.topic.segment.bytes",
    "producer.id.expiration.ms",
    "socket.request.max.bytes",
];

fn broker(s: &mut Session) -> Result<()> {
    for config in BROKER_CONFIGS {
        s.ask("one by one", 4, &request(4, vec![resource(BROKER, "1", Some(&[config]))]));
    }
    s.each("some", |v| {
        request(v, vec![resource(BROKER, "1", Some(&["num.partitions", "message.max.bytes", "nothing"]))])
    });
    s.each("defaults of the cluster", |v| request(v, vec![resource(BROKER, "", None)]));
    for name in ["2", "-1", "one", "1 ", "01"] {
        s.each(&format!("broker {name:?}"), |v| {
            request(v, vec![resource(BROKER, name, Some(&["num.partitions"]))])
        });
    }
    Ok(())
}

fn nowhere(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?.name;
    let missing = s.name("missing");
    s.each("unknown topic", |v| request(v, vec![resource(TOPIC, &missing, None)]));
    for name in ["", "a/b", "."] {
        s.each(&format!("topic {name:?}"), |v| request(v, vec![resource(TOPIC, name, None)]));
    }
    for kind in [0, 1, 3, 5, 64, -1] {
        s.each(&format!("type {kind}"), |v| request(v, vec![resource(kind, "x", None)]));
    }
    // Loggers of a broker, client metrics, groups.
    for (kind, name) in [(8, "2"), (8, "x"), (16, "missing"), (16, ""), (32, "missing"), (32, "")] {
        s.each(&format!("type {kind} {name:?}"), |v| request(v, vec![resource(kind, name, None)]));
    }
    s.each("one is good", |v| {
        request(v, vec![resource(TOPIC, &missing, None), resource(TOPIC, &t, Some(&["retention.ms"]))])
    });
    Ok(())
}
