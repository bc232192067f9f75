//! AlterConfigs, IncrementalAlterConfigs (KIP-339) and the configs of CreateTopics: what is asked is checked, and
//! comes out as the list of keys to write. Refusals are in Kafka's words where Kafka has some.

use std::collections::BTreeSet;

use super::layers::{ConfigMap, Layers};
use super::nearest::nearest;
use super::rows;
use super::spec::{Effect, Kind, Spec, Update, split_list};

/// Why an alteration is refused. The first part of a message is Kafka's, since tools match on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_CONFIG (40).
    #[error("{0}")]
    Config(String),
    /// INVALID_REQUEST (42).
    #[error("{0}")]
    Request(String),
}

impl Refusal {
    /// Kafka's error code.
    pub fn code(&self) -> i16 {
        match self {
            Refusal::Config(_) => 40,
            Refusal::Request(_) => 42,
        }
    }
}

/// What to do to one key; the number is the operation in IncrementalAlterConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Set = 0,
    Delete = 1,
    /// Add elements to a list.
    Append = 2,
    /// Take elements from a list.
    Subtract = 3,
}

impl Op {
    /// The operation of this number.
    pub fn from_wire(number: i8) -> Option<Op> {
        [Op::Set, Op::Delete, Op::Append, Op::Subtract].into_iter().find(|op| *op as i8 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Op::Set => "SET",
            Op::Delete => "DELETE",
            Op::Append => "APPEND",
            Op::Subtract => "SUBTRACT",
        }
    }
}

/// One element of IncrementalAlterConfigs, as it comes over the wire.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub name: &'a str,
    /// The number of an [`Op`], unchecked.
    pub op: i8,
    pub value: Option<&'a str>,
}

/// A key to write: to set, or with `None` to remove. What a ConfigRecord carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    pub name: String,
    pub value: Option<String>,
}

/// Whose configs are altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Topic,
    /// This broker, or the default of all brokers: the same configs are dynamic in both.
    Broker,
}

/// Checks an IncrementalAlterConfigs of one resource whose dynamic configs are `own`. Gives what changes.
pub fn incremental(
    owner: Owner,
    layers: &Layers<'_>,
    own: &ConfigMap,
    changes: &[Change<'_>],
) -> Result<Vec<Alteration>, Refusal> {
    check_changes(changes)?;
    let mut after = own.clone();
    for change in changes {
        let op = Op::from_wire(change.op)
            .ok_or_else(|| Refusal::Request(format!("Unknown operations type {}", change.op)))?;
        let value = change.value.unwrap_or_default();
        match op {
            Op::Set => {
                after.insert(change.name.to_owned(), value.to_owned());
            }
            // Also of a name that isn't known: it may have been stored by another version.
            Op::Delete => {
                after.remove(change.name);
            }
            Op::Append | Op::Subtract => {
                let value = edited_list(owner, layers, own, change.name, op, value)?;
                after.insert(change.name.to_owned(), value);
            }
        }
    }
    finish(owner, layers, own, after)
}

/// Checks an AlterConfigs of one resource: `configs` replace all that are there.
pub fn replace(
    owner: Owner,
    layers: &Layers<'_>,
    own: &ConfigMap,
    configs: &[(&str, Option<&str>)],
) -> Result<Vec<Alteration>, Refusal> {
    check_shape(configs.iter().map(|(name, value)| (*name, value.is_some())))?;
    let after = configs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default().to_owned()))
        .collect();
    finish(owner, layers, own, after)
}

/// Checks the configs of a topic to be created, and gives them in canonical form.
pub fn new_topic(layers: &Layers<'_>, configs: &[(&str, Option<&str>)]) -> Result<ConfigMap, Refusal> {
    let nulls: Vec<&str> =
        configs.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    if !nulls.is_empty() {
        return Err(Refusal::Config(format!(
            "Null value not supported for topic configs: {}",
            nulls.join(",")
        )));
    }
    let after: ConfigMap = configs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.unwrap_or_default().to_owned()))
        .collect();
    let altered = finish(Owner::Topic, layers, &ConfigMap::new(), after)?;
    Ok(altered.into_iter().filter_map(|altered| Some((altered.name, altered.value?))).collect())
}

/// What every IncrementalAlterConfigs must have: no key twice, and a value for all but deletions.
pub(crate) fn check_changes(changes: &[Change<'_>]) -> Result<(), Refusal> {
    check_shape(
        changes.iter().map(|change| (change.name, change.op == Op::Delete as i8 || change.value.is_some())),
    )
}

/// No key twice, and a value wherever one is needed. Each key comes with whether it has what it needs.
fn check_shape<'a>(keys: impl Iterator<Item = (&'a str, bool)>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    let mut nulls = Vec::new();
    for (name, has_value) in keys {
        if !seen.insert(name) {
            return Err(Refusal::Request("Error due to duplicate config keys".to_owned()));
        }
        if !has_value {
            nulls.push(name);
        }
    }
    if nulls.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Request(format!("Null value not supported for : {}", nulls.join(", "))))
    }
}

/// The list after elements were added or taken. Without a value of its own the one in effect is the start.
fn edited_list(
    owner: Owner,
    layers: &Layers<'_>,
    own: &ConfigMap,
    name: &str,
    op: Op,
    value: &str,
) -> Result<String, Refusal> {
    let current = match owner {
        Owner::Topic => {
            let row = rows::topic_named(name).filter(|row| row.spec.kind == Kind::List).ok_or_else(|| {
                Refusal::Config(format!("Can't {} to key {name} because its type is not LIST.", op.name()))
            })?;
            layers.topic_value(row, own)
        }
        Owner::Broker => {
            let spec = rows::broker_named(name).ok_or_else(|| {
                Refusal::Config(format!("Unknown config name: {name}{}", hint(owner, name)))
            })?;
            if spec.kind != Kind::List {
                let op = op.name().to_ascii_lowercase();
                return Err(Refusal::Config(format!(
                    "Config value {op} is not allowed for config key: {name}"
                )));
            }
            let own = own.get(name).and_then(|value| spec.canonical(value).ok());
            own.or_else(|| layers.broker_value(spec).1).unwrap_or_default()
        }
    };
    let elements = split_list(value);
    let mut list = split_list(&current);
    if op == Op::Append {
        for element in elements {
            if !list.contains(&element) {
                list.push(element);
            }
        }
    } else {
        list.retain(|element| !elements.contains(element));
    }
    Ok(list.join(","))
}

/// Checks what differs from `own`, then all together. Stored keys that do not change are left as they are, also
/// those that this version doesn't know.
fn finish(
    owner: Owner,
    layers: &Layers<'_>,
    own: &ConfigMap,
    mut after: ConfigMap,
) -> Result<Vec<Alteration>, Refusal> {
    let changed: Vec<String> = after
        .iter()
        .filter(|(name, value)| own.get(*name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    // All names before any value, as Kafka does.
    let mut specs: Vec<&'static Spec> = Vec::new();
    for name in &changed {
        specs.push(named(owner, name)?);
    }
    if owner == Owner::Broker {
        let fixed: Vec<&str> =
            specs.iter().filter(|spec| spec.update == Update::ReadOnly).map(|spec| spec.name).collect();
        if !fixed.is_empty() {
            let why = specs.iter().find_map(|spec| match spec.effect {
                Effect::Nothing { why, .. } => Some(format!(" ({} has no effect here: {why})", spec.name)),
                Effect::Works => None,
            });
            return Err(Refusal::Request(format!(
                "Cannot update these configs dynamically: [{}]{}",
                fixed.join(", "),
                why.unwrap_or_default()
            )));
        }
    }
    for spec in specs {
        let value = after.get_mut(spec.name).expect("a changed key");
        *value = spec.canonical(value).map_err(|bad| match owner {
            // Kafka's words for this one have no name and value before them.
            Owner::Topic
                if spec.name == rows::REMOTE_STORAGE && value.trim().eq_ignore_ascii_case("true") =>
            {
                Refusal::Config(rows::TIERS_REFUSED.to_owned())
            }
            Owner::Topic => Refusal::Config(bad.to_string()),
            // Kafka answers INVALID_REQUEST for brokers, which KAFKA-13609 calls wrong but compatible.
            Owner::Broker => Refusal::Request(bad.to_string()),
        })?;
    }
    if owner == Owner::Topic {
        check_together(layers, &after)?;
    }
    let removed = own.keys().filter(|name| !after.contains_key(*name));
    let removed = removed.map(|name| Alteration { name: name.clone(), value: None });
    let set = changed
        .iter()
        .filter(|name| own.get(*name) != after.get(*name))
        .map(|name| Alteration { name: name.clone(), value: after.get(name).cloned() });
    Ok(set.chain(removed).collect())
}

/// The config that an owner has by this name and that may be set at all.
fn named(owner: Owner, name: &str) -> Result<&'static Spec, Refusal> {
    let (spec, kind) = match owner {
        Owner::Topic => (rows::topic_named(name).map(|row| &row.spec), "topic config name"),
        Owner::Broker => (rows::broker_named(name), "config name"),
    };
    spec.ok_or_else(|| Refusal::Config(format!("Unknown {kind}: {name}{}", hint(owner, name))))
}

/// What follows Kafka's words about an unknown name.
fn hint(owner: Owner, name: &str) -> String {
    let refused = match owner {
        Owner::Topic => rows::refused_topic(name),
        Owner::Broker => rows::refused_broker(name),
    };
    if let Some(why) = refused {
        return format!(" ({why})");
    }
    let near = match owner {
        Owner::Topic => nearest(name, rows::topic().iter().map(|row| row.spec.name)),
        Owner::Broker => nearest(name, rows::broker().map(|spec| spec.name)),
    };
    near.map_or_else(String::new, |near| format!(" (the nearest known one is {near})"))
}

/// Values of a topic that must fit each other.
fn check_together(layers: &Layers<'_>, after: &ConfigMap) -> Result<(), Refusal> {
    let number = |name: &str| -> i64 {
        let row = rows::topic_named(name).expect("a topic config");
        layers.topic_value(row, after).parse().expect("a checked number")
    };
    let (min, max) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if min > max {
        return Err(Refusal::Config(format!(
            "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::layers::StaticConfig;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn with_layers<T>(test: impl FnOnce(&Layers<'_>) -> T) -> T {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        test(&Layers { broker: &none, cluster: &none, fixed: &fixed })
    }

    /// `SET name=value` and so on, parted by `; `.
    fn changes(text: &str) -> Vec<Change<'_>> {
        text.split("; ")
            .map(|change| {
                let (op, rest) = change.split_once(' ').unwrap();
                let (name, value) =
                    rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
                let op = match op {
                    "SET" => 0,
                    "DELETE" => 1,
                    "APPEND" => 2,
                    "SUBTRACT" => 3,
                    _ => 9,
                };
                Change { name, op, value }
            })
            .collect()
    }

    /// The outcome in a line: `name=value`, `-name` for a removal, or code and message.
    fn said(outcome: Result<Vec<Alteration>, Refusal>) -> String {
        match outcome {
            Ok(alterations) => {
                let texts: Vec<String> = alterations
                    .into_iter()
                    .map(|a| a.value.map_or(format!("-{}", a.name), |value| format!("{}={value}", a.name)))
                    .collect();
                texts.join(" ")
            }
            Err(refusal) => format!("{} {refusal}", refusal.code()),
        }
    }

    /// Messages without a parenthesis are word for word those of Apache Kafka 4.3.1.
    #[test]
    fn incremental_on_topics() {
        for (own, text, expected) in [
            (vec![], "SET retention.ms=5", "retention.ms=5"),
            (vec![], "SET retention.ms= 77 ; SET preallocate=TRUE", "preallocate=true retention.ms=77"),
            (vec![("retention.ms", "5")], "SET retention.ms=5", ""),
            (vec![("retention.ms", "5")], "DELETE retention.ms", "-retention.ms"),
            (vec![], "DELETE nosuch", ""),
            (vec![("gone.in.this.version", "x")], "SET retention.ms=5", "retention.ms=5"),
            (vec![("gone.in.this.version", "x")], "DELETE gone.in.this.version", "-gone.in.this.version"),
            (vec![], "APPEND cleanup.policy=compact", "cleanup.policy=delete,compact"),
            (
                vec![("cleanup.policy", "compact")],
                "APPEND cleanup.policy=compact,delete",
                "cleanup.policy=compact,delete",
            ),
            (
                vec![("cleanup.policy", "compact, delete")],
                "SUBTRACT cleanup.policy=delete",
                "cleanup.policy=compact",
            ),
            (vec![("cleanup.policy", "compact")], "SUBTRACT cleanup.policy=compact", "cleanup.policy="),
            (vec![], "SET cleanup.policy=", "cleanup.policy="),
            (vec![], "SET remote.storage.enable=false", "remote.storage.enable=false"),
            (
                vec![],
                "SET retention.ms=abc",
                "40 Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                vec![],
                "SET retention.ms=-2",
                "40 Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                vec![],
                "SET segment.bytes=1000",
                "40 Invalid value 1000 for configuration segment.bytes: Value must be at least 1048576",
            ),
            (
                vec![],
                "SET compression.type=ZSTD",
                "40 Invalid value ZSTD for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                vec![],
                "SET retention.msx=1",
                "40 Unknown topic config name: retention.msx (the nearest known one is retention.ms)",
            ),
            (vec![], "SET zzzzzz=1", "40 Unknown topic config name: zzzzzz"),
            (
                vec![],
                "SET remote.copy.lag.ms=1",
                "40 Unknown topic config name: remote.copy.lag.ms (tiered storage isn't built yet)",
            ),
            (vec![], "SET segment.bytes=1; SET zzzzzz=1", "40 Unknown topic config name: zzzzzz"),
            (
                vec![],
                "APPEND retention.ms=1",
                "40 Can't APPEND to key retention.ms because its type is not LIST.",
            ),
            (vec![], "SUBTRACT zzzzzz=1", "40 Can't SUBTRACT to key zzzzzz because its type is not LIST."),
            (vec![], "SET retention.ms=1; SET retention.ms=2", "42 Error due to duplicate config keys"),
            (
                vec![],
                "SET retention.ms; APPEND cleanup.policy",
                "42 Null value not supported for : retention.ms, cleanup.policy",
            ),
            (vec![], "WHAT retention.ms=1", "42 Unknown operations type 9"),
            (
                vec![],
                "SET min.compaction.lag.ms=100; SET max.compaction.lag.ms=50",
                "40 conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
            ),
            (
                vec![("min.compaction.lag.ms", "100")],
                "SET max.compaction.lag.ms=50",
                "40 conflict topic config setting min.compaction.lag.ms (100) > max.compaction.lag.ms (50)",
            ),
            (
                vec![],
                "SET remote.storage.enable=true",
                "40 Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.",
            ),
            (
                vec![],
                "SET leader.replication.throttled.replicas=foo",
                "40 Invalid value [foo] for configuration leader.replication.throttled.replicas: leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
        ] {
            let found =
                with_layers(|layers| said(incremental(Owner::Topic, layers, &map(&own), &changes(text))));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn incremental_on_brokers() {
        for (own, text, expected) in [
            (vec![], "SET log.retention.ms=1000000", "log.retention.ms=1000000"),
            (vec![], "SET max.connections=10", "max.connections=10"),
            (
                vec![],
                "SET num.io.threads=10",
                "42 Cannot update these configs dynamically: [num.io.threads] (num.io.threads has no effect here: one pinned \
                 thread per core does all the work; corelog.cores says which cores.)",
            ),
            (vec![], "APPEND log.cleanup.policy=compact", "log.cleanup.policy=delete,compact"),
            (vec![("max.connections", "5")], "DELETE max.connections", "-max.connections"),
            (vec![], "SET broker.rack=1", "42 Cannot update these configs dynamically: [broker.rack]"),
            (
                vec![],
                "SET log.dirs=x; SET num.partitions=9",
                "42 Cannot update these configs dynamically: [log.dirs, num.partitions]",
            ),
            (
                vec![],
                "SET log.retention.ms=abc",
                "42 Invalid value abc for configuration log.retention.ms: Not a number of type LONG",
            ),
            (
                vec![],
                "SET message.max.bytes=-1",
                "42 Invalid value -1 for configuration message.max.bytes: Value must be at least 0",
            ),
            (
                vec![],
                "SET max.connections=0",
                "42 Invalid value 0 for configuration max.connections: Value must be at least 1",
            ),
            (
                vec![],
                "SET log.segment.bytes=64MiB",
                "42 Invalid value 64MiB for configuration log.segment.bytes: Not a number of type INT",
            ),
            (
                vec![],
                "APPEND log.retention.ms=1",
                "40 Config value append is not allowed for config key: log.retention.ms",
            ),
            (vec![], "APPEND zzzzzz=1", "40 Unknown config name: zzzzzz"),
            (vec![], "SET zzzzzz=1", "40 Unknown config name: zzzzzz"),
            (
                vec![],
                "SET ssl.protocol=x",
                "40 Unknown config name: ssl.protocol (TLS isn't built yet: listeners are PLAINTEXT, so keep them on a trusted network)",
            ),
        ] {
            let found =
                with_layers(|layers| said(incremental(Owner::Broker, layers, &map(&own), &changes(text))));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn replacing_removes_the_rest() {
        let own = map(&[("retention.ms", "5"), ("segment.ms", "7")]);
        let replaced = |configs: &[(&str, Option<&str>)]| {
            with_layers(|layers| said(replace(Owner::Topic, layers, &own, configs)))
        };
        assert_eq!(replaced(&[("retention.ms", Some("6"))]), "retention.ms=6 -segment.ms");
        assert_eq!(replaced(&[("retention.ms", Some("5")), ("segment.ms", Some("7"))]), "");
        assert_eq!(replaced(&[]), "-retention.ms -segment.ms");
        assert_eq!(replaced(&[("retention.ms", None)]), "42 Null value not supported for : retention.ms");
        assert_eq!(
            replaced(&[("segment.ms", Some("0"))]),
            "40 Invalid value 0 for configuration segment.ms: Value must be at least 1"
        );
    }

    #[test]
    fn a_new_topics_configs() {
        let created = |configs: &[(&str, Option<&str>)]| with_layers(|layers| new_topic(layers, configs));
        assert_eq!(
            created(&[("cleanup.policy", Some("compact, delete")), ("segment.bytes", Some("2097152"))])
                .unwrap(),
            map(&[("cleanup.policy", "compact,delete"), ("segment.bytes", "2097152")])
        );
        assert_eq!(
            created(&[("retention.ms", None)]).unwrap_err(),
            Refusal::Config("Null value not supported for topic configs: retention.ms".to_owned())
        );
        assert!(
            created(&[("segment.bytes", Some("1")), ("nosuch", Some("1"))])
                .unwrap_err()
                .to_string()
                .contains("nosuch")
        );
    }
}
