//! AlterConfigs and IncrementalAlterConfigs.

use super::super::Case;
use super::super::session::Session;
use super::create_topics::CONFIG_VALUES;
use super::describe_configs::{BROKER, TOPIC, describe_topic};
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::alter_configs_request::{AlterConfigsRequest, AlterableConfig, Resource};
use corelog_wire::messages::describe_configs_request::{DescribeConfigsRequest, Resource as Described};
use corelog_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig as Change, IncrementalAlterConfigsRequest,
};

pub const CASES: &[Case] = &[
    Case { name: "alter configs", run: replace },
    Case { name: "alter configs wrongly", run: replace_wrongly },
    Case { name: "alter configs step by step", run: incremental },
    Case { name: "alter configs step by step wrongly", run: incremental_wrongly },
    Case { name: "alter configs values", run: values },
    Case { name: "alter broker configs", run: broker },
];

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

const SEEN: &[&str] = &["retention.ms", "max.message.bytes", "segment.ms", "cleanup.policy"];

fn whole(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let config = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: Str::from(*name),
        value: value.map(Str::from),
    };
    let configs = configs.iter().map(config).collect();
    AlterConfigsRequest {
        resources: vec![Resource { resource_type: kind, resource_name: name.into(), configs }],
        validate_only: false,
    }
}

fn steps(kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> IncrementalAlterConfigsRequest {
    let change = |(name, config_operation, value): &(&str, i8, Option<&str>)| Change {
        name: Str::from(*name),
        config_operation: *config_operation,
        value: value.map(Str::from),
    };
    let configs = changes.iter().map(change).collect();
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs }],
        validate_only: false,
    }
}

/// Returns when a change of a topic's configs is seen: Kafka's brokers learn of it after the answer.
fn await_value(s: &mut Session, name: &Str, config: &str, value: &str) -> Result<()> {
    s.until(&format!("{config} = {value}"), |s| {
        let keys = Some(vec![Str::from(config)]);
        let resource =
            Described { resource_type: TOPIC, resource_name: name.clone(), configuration_keys: keys };
        let found =
            s.quiet(1, &DescribeConfigsRequest { resources: vec![resource], ..Default::default() })?;
        let found = found
            .results
            .first()
            .and_then(|result| result.configs.first())
            .and_then(|config| config.value.clone());
        Ok(found.is_some_and(|found| found == value).then_some(()))
    })
}

fn replace(s: &mut Session) -> Result<()> {
    for v in s.versions::<AlterConfigsRequest>() {
        let t =
            s.topic(format!("t-v{v}"), 1, &[("retention.ms", "1000000"), ("segment.ms", "2000000")])?.name;
        let request = whole(TOPIC, &t, &[("max.message.bytes", Some("3000"))]);
        s.ask("only validated", v, &AlterConfigsRequest { validate_only: true, ..request.clone() });
        describe_topic(s, "after validating", &t, SEEN);
        s.ask("replaced", v, &request);
        await_value(s, &t, "max.message.bytes", "3000")?;
        describe_topic(s, "what is left", &t, SEEN);
        s.ask("nothing", v, &whole(TOPIC, &t, &[]));
        await_value(s, &t, "max.message.bytes", "1048588")?;
        describe_topic(s, "after nothing", &t, SEEN);
    }
    Ok(())
}

fn replace_wrongly(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?.name;
    let missing = s.name("missing");
    s.each("unknown topic", |_| whole(TOPIC, &missing, &[("retention.ms", Some("1"))]));
    s.each("bad name", |_| whole(TOPIC, "a/b", &[("retention.ms", Some("1"))]));
    s.each("no name", |_| whole(TOPIC, "", &[("retention.ms", Some("1"))]));
    s.each("unknown config", |_| whole(TOPIC, &t, &[("no.such.config", Some("1"))]));
    s.each("bad value", |_| whole(TOPIC, &t, &[("retention.ms", Some("soon"))]));
    s.each("null value", |_| whole(TOPIC, &t, &[("retention.ms", None)]));
    s.each("twice the same", |_| {
        whole(TOPIC, &t, &[("retention.ms", Some("1")), ("retention.ms", Some("2"))])
    });
    for kind in [0, 1, 3, 64, -1] {
        s.each(&format!("type {kind}"), |_| whole(kind, "x", &[("a", Some("1"))]));
    }
    s.each("no resources", |_| AlterConfigsRequest::default());
    let mut twice = whole(TOPIC, &t, &[("retention.ms", Some("1"))]);
    twice.resources.extend(twice.resources.clone());
    for v in s.versions::<AlterConfigsRequest>() {
        s.ask_in_vain("a resource twice", v, &twice);
    }
    s.each("one is missing", |_| {
        let mut request = whole(TOPIC, &missing, &[("retention.ms", Some("1"))]);
        request.resources.extend(whole(TOPIC, &t, &[("retention.ms", Some("5000"))]).resources);
        request
    });
    describe_topic(s, "after all", &t, SEEN);
    Ok(())
}

fn incremental(s: &mut Session) -> Result<()> {
    let list = "cleanup.policy";
    for v in s.versions::<IncrementalAlterConfigsRequest>() {
        let t = s.topic(format!("t-v{v}"), 1, &[("retention.ms", "1000000")])?.name;
        let request = steps(TOPIC, &t, &[("max.message.bytes", SET, Some("3000"))]);
        s.ask(
            "only validated",
            v,
            &IncrementalAlterConfigsRequest { validate_only: true, ..request.clone() },
        );
        s.ask("set", v, &request);
        await_value(s, &t, "max.message.bytes", "3000")?;
        describe_topic(s, "after set", &t, SEEN);
        s.ask(
            "delete, and set another",
            v,
            &steps(TOPIC, &t, &[("retention.ms", DELETE, None), ("segment.ms", SET, Some("77"))]),
        );
        await_value(s, &t, "segment.ms", "77")?;
        describe_topic(s, "after delete", &t, SEEN);
        s.ask("delete what is not set", v, &steps(TOPIC, &t, &[("retention.ms", DELETE, None)]));
        s.ask("delete with a value", v, &steps(TOPIC, &t, &[("retention.ms", DELETE, Some("5"))]));
        s.ask("append to a default", v, &steps(TOPIC, &t, &[(list, APPEND, Some("compact"))]));
        await_value(s, &t, list, "delete,compact")?;
        s.ask("append what is there", v, &steps(TOPIC, &t, &[(list, APPEND, Some("compact,delete"))]));
        s.ask("subtract", v, &steps(TOPIC, &t, &[(list, SUBTRACT, Some("delete"))]));
        await_value(s, &t, list, "compact")?;
        s.ask("subtract what is not there", v, &steps(TOPIC, &t, &[(list, SUBTRACT, Some("delete"))]));
        s.ask("append", v, &steps(TOPIC, &t, &[(list, APPEND, Some("delete"))]));
        await_value(s, &t, list, "compact,delete")?;
        s.ask("subtract all", v, &steps(TOPIC, &t, &[(list, SUBTRACT, Some("delete,compact"))]));
        await_value(s, &t, list, "")?;
        describe_topic(s, "after subtract", &t, SEEN);
        s.ask("nothing", v, &steps(TOPIC, &t, &[]));
    }
    Ok(())
}

fn incremental_wrongly(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?.name;
    let missing = s.name("missing");
    s.each("unknown topic", |_| steps(TOPIC, &missing, &[("retention.ms", SET, Some("1"))]));
    s.each("bad name", |_| steps(TOPIC, "a/b", &[("retention.ms", SET, Some("1"))]));
    s.each("no name", |_| steps(TOPIC, "", &[("retention.ms", SET, Some("1"))]));
    s.each("unknown config", |_| steps(TOPIC, &t, &[("no.such.config", SET, Some("1"))]));
    s.each("unknown config deleted", |_| steps(TOPIC, &t, &[("no.such.config", DELETE, None)]));
    s.each("bad value", |_| steps(TOPIC, &t, &[("retention.ms", SET, Some("soon"))]));
    s.each("null value", |_| steps(TOPIC, &t, &[("retention.ms", SET, None)]));
    s.each("append to no list", |_| steps(TOPIC, &t, &[("retention.ms", APPEND, Some("1"))]));
    s.each("subtract from no list", |_| steps(TOPIC, &t, &[("retention.ms", SUBTRACT, Some("1"))]));
    s.each("append null", |_| steps(TOPIC, &t, &[("cleanup.policy", APPEND, None)]));
    for operation in [4, -1] {
        s.each(&format!("operation {operation}"), |_| {
            steps(TOPIC, &t, &[("retention.ms", operation, Some("1"))])
        });
    }
    s.each("twice the same", |_| {
        steps(TOPIC, &t, &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))])
    });
    for kind in [0, 1, 3, 64, -1] {
        s.each(&format!("type {kind}"), |_| steps(kind, "x", &[("a", SET, Some("1"))]));
    }
    s.each("no resources", |_| IncrementalAlterConfigsRequest::default());
    s.each("a resource twice", |_| {
        let mut request = steps(TOPIC, &t, &[("retention.ms", SET, Some("1"))]);
        request.resources.extend(request.resources.clone());
        request
    });
    describe_topic(s, "after all", &t, SEEN);
    Ok(())
}

fn values(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?.name;
    let newest = s.newest::<IncrementalAlterConfigsRequest>();
    for (name, value) in CONFIG_VALUES {
        let shown = value.map_or("null".into(), |value| format!("{value:?}"));
        let request = steps(TOPIC, &t, &[(name, SET, *value)]);
        s.ask(
            &format!("{name} = {shown}"),
            newest,
            &IncrementalAlterConfigsRequest { validate_only: true, ..request },
        );
    }
    Ok(())
}

fn broker(s: &mut Session) -> Result<()> {
    let newest = s.newest::<IncrementalAlterConfigsRequest>();
    let check = |request| IncrementalAlterConfigsRequest { validate_only: true, ..request };
    for (i, name) in ["1", "", "2", "one", "-1"].iter().enumerate() {
        s.ask(
            &format!("resource {i}"),
            newest,
            &check(steps(BROKER, name, &[("log.retention.ms", SET, Some("5000"))])),
        );
    }
    for (name, value) in [
        ("node.id", "7"),
        ("listeners", "PLAINTEXT://127.0.0.1:1"),
        ("log.dirs", "/elsewhere"),
        ("no.such.config", "1"),
        ("message.max.bytes", "-5"),
        ("message.max.bytes", "many"),
        ("max.connections", "100"),
        ("num.partitions", "3"),
        ("auto.create.topics.enable", "false"),
        ("log.segment.bytes", "1048576"),
        ("log.segment.bytes", "10"),
    ] {
        s.ask(
            &format!("broker: {name} = {value}"),
            newest,
            &check(steps(BROKER, "1", &[(name, SET, Some(value))])),
        );
        s.ask(
            &format!("cluster: {name} = {value}"),
            newest,
            &check(steps(BROKER, "", &[(name, SET, Some(value))])),
        );
    }
    // The cluster's default becomes the default of topics.
    let t = s.topic("t", 1, &[])?.name;
    let changed = steps(BROKER, "", &[("message.max.bytes", SET, Some("2000000"))]);
    s.ask("set for the cluster", newest, &changed);
    await_value(s, &t, "max.message.bytes", "2000000")?;
    describe_topic(s, "topic after set for the cluster", &t, &["max.message.bytes"]);
    s.ask("set for the broker", newest, &steps(BROKER, "1", &[("message.max.bytes", SET, Some("3000000"))]));
    await_value(s, &t, "max.message.bytes", "3000000")?;
    describe_topic(s, "topic after set for the broker", &t, &["max.message.bytes"]);
    s.ask("delete for the broker", newest, &steps(BROKER, "1", &[("message.max.bytes", DELETE, None)]));
    await_value(s, &t, "max.message.bytes", "2000000")?;
    s.ask("delete for the cluster", newest, &steps(BROKER, "", &[("message.max.bytes", DELETE, None)]));
    await_value(s, &t, "max.message.bytes", "1048588")?;
    describe_topic(s, "topic after delete", &t, &["max.message.bytes"]);
    Ok(())
}
