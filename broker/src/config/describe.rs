//! What DescribeConfigs answers (KIP-133, KIP-226, KIP-569), in plain values.

use super::layers::{ConfigMap, Layers, Source};
use super::rows::{self, TopicSpec};
use super::spec::{Effect, Kind, Spec, Update};

/// One config of a resource, as described to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    /// `None` is Kafka's null: not set, and no default.
    pub value: Option<String>,
    pub source: Source,
    /// Where the value was looked for and found, highest first; the first is the one in effect.
    pub synonyms: Vec<Synonym>,
    /// `None` for loggers, which have no Kafka type.
    pub kind: Option<Kind>,
    /// `None` for loggers.
    pub documentation: Option<String>,
    /// Whether only a restart changes it.
    pub read_only: bool,
}

/// A place where a config's value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

/// The names that a request asks for. Kafka takes null and the empty list for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a>(pub Option<&'a [&'a str]>);

impl Wanted<'_> {
    /// Whether the request asks for this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.is_none_or(|names| names.is_empty() || names.contains(&name))
    }
}

/// The configs of a topic, given those of its own.
pub fn topic(layers: &Layers<'_>, own: &ConfigMap, wanted: Wanted<'_>) -> Vec<Entry> {
    rows::topic()
        .iter()
        .filter(|row| wanted.has(row.spec.name))
        .map(|row| topic_entry(layers, own, row))
        .collect()
}

/// All configs of this broker, by name: KafkaJS reads them by their position.
pub fn broker(layers: &Layers<'_>, wanted: Wanted<'_>) -> Vec<Entry> {
    sorted(rows::broker().filter(|spec| wanted.has(spec.name)).map(|spec| broker_entry(layers, spec)))
}

fn sorted(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_unstable_by_key(|entry| entry.name);
    entries
}

/// The dynamic defaults of all brokers: the resource BROKER with an empty name. Only those that are set.
pub fn cluster(layers: &Layers<'_>, wanted: Wanted<'_>) -> Vec<Entry> {
    let set = |spec: &&'static Spec| spec.update == Update::ClusterWide && wanted.has(spec.name);
    sorted(rows::broker().filter(set).filter_map(|spec| {
        let value = layers.cluster.get(spec.name).and_then(|value| spec.canonical(value).ok())?;
        let source = Source::DynamicDefault;
        Some(Entry {
            name: spec.name,
            value: Some(value.clone()),
            source,
            kind: Some(spec.kind),
            documentation: Some(spec.documentation(Some(&value))),
            synonyms: vec![Synonym { name: spec.name, value, source }],
            read_only: false,
        })
    }))
}

/// The loggers of this process with the levels in effect, by name: the resource BROKER_LOGGER (KIP-412).
pub fn loggers(levels: impl IntoIterator<Item = (&'static str, String)>, wanted: Wanted<'_>) -> Vec<Entry> {
    levels
        .into_iter()
        .filter(|(name, _)| wanted.has(name))
        .map(|(name, level)| Entry {
            name,
            value: Some(level),
            source: Source::Logger,
            synonyms: Vec::new(),
            kind: None,
            documentation: None,
            read_only: false,
        })
        .collect()
}

/// What has no effect here, whatever was set: read-only, with the value that is true.
fn without_effect(spec: &'static Spec) -> Option<Entry> {
    let Effect::Nothing { truth, .. } = spec.effect else { return None };
    let source = Source::Default;
    Some(Entry {
        name: spec.name,
        value: truth.map(str::to_owned),
        source,
        synonyms: truth
            .map(|value| Synonym { name: spec.name, value: value.to_owned(), source })
            .into_iter()
            .collect(),
        kind: Some(spec.kind),
        documentation: Some(spec.documentation(truth)),
        read_only: true,
    })
}

fn topic_entry(layers: &Layers<'_>, own: &ConfigMap, row: &'static TopicSpec) -> Entry {
    // What was set on a topic is shown as it was set, or tools that compare would set it again and again; its documentation
    // says that it does nothing.
    if !own.contains_key(row.spec.name)
        && let Some(entry) = without_effect(&row.spec)
    {
        return entry;
    }
    let value = layers.topic_value(row, own);
    let mut synonyms = match row.synonyms.first() {
        Some((primary, _)) => broker_synonyms(layers, primary, Below::AnyExplicit),
        None => Vec::new(),
    };
    if own.contains_key(row.spec.name) {
        synonyms.insert(0, Synonym { name: row.spec.name, value: value.clone(), source: Source::Topic });
    }
    Entry {
        name: row.spec.name,
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        synonyms,
        kind: Some(row.spec.kind),
        documentation: Some(row.spec.documentation(Some(&value))),
        value: Some(value),
        read_only: false,
    }
}

fn broker_entry(layers: &Layers<'_>, spec: &'static Spec) -> Entry {
    if let Some(entry) = without_effect(spec) {
        return entry;
    }
    let synonyms = broker_synonyms(layers, spec.name, Below::OwnName);
    let value = layers.broker_value(spec).1;
    Entry {
        name: spec.name,
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        synonyms,
        kind: Some(spec.kind),
        documentation: Some(spec.documentation(value.as_deref())),
        value,
        read_only: spec.update == Update::ReadOnly,
    }
}

/// Where a broker config's list of synonyms begins.
enum Below {
    /// At the config's own name: what other names say is not this config's value.
    OwnName,
    /// At its own name, or at another name that somebody has set. Kafka leaves the latter out, and calls a
    /// retention.ms that comes from log.retention.hours in server.properties a default; here it is seen.
    AnyExplicit,
}

fn broker_synonyms(layers: &Layers<'_>, name: &'static str, below: Below) -> Vec<Synonym> {
    let specs: Vec<&'static Spec> =
        rows::broker_synonyms(name).iter().filter_map(|name| rows::broker_named(name)).collect();
    let mut found: Vec<Synonym> = Vec::new();
    for (source, layer) in layers.dynamic() {
        for spec in specs.iter().filter(|spec| spec.update == Update::ClusterWide) {
            if let Some(value) = layer.get(spec.name).and_then(|value| spec.canonical(value).ok()) {
                found.push(Synonym { name: spec.name, value, source });
            }
        }
    }
    for spec in &specs {
        if let Some(value) = layers.fixed.get(spec.name) {
            found.push(Synonym { name: spec.name, value: value.to_owned(), source: Source::Static });
        }
    }
    for spec in &specs {
        if let Some(value) = spec.default {
            found.push(Synonym { name: spec.name, value: value.to_owned(), source: Source::Default });
        }
    }
    let first = found.iter().position(|synonym| match below {
        Below::OwnName => synonym.name == name,
        Below::AnyExplicit => synonym.name == name || synonym.source != Source::Default,
    });
    found.split_off(first.unwrap_or(found.len()))
}

#[cfg(test)]
mod tests {
    use super::super::layers::StaticConfig;
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// `name=value source | synonyms`, as the tests of the tables read them.
    fn line(entry: &Entry) -> String {
        let synonyms: Vec<String> = entry
            .synonyms
            .iter()
            .map(|synonym| format!("{}:{}={}", synonym.source.name(), synonym.name, synonym.value))
            .collect();
        let value = entry.value.as_deref().unwrap_or("null");
        format!("{}={value} {} | {}", entry.name, entry.source.name(), synonyms.join(";"))
    }

    /// The lines are what Apache Kafka 4.3.1 answered for the same settings.
    #[test]
    fn as_kafka_describes() {
        let fixed = StaticConfig::of([("log.retention.hours", "100")]).unwrap();
        let broker = map(&[("log.retention.ms", "1000000")]);
        let cluster = map(&[("log.retention.ms", "2000000"), ("log.segment.bytes", "2097152")]);
        let layers = Layers { broker: &broker, cluster: &cluster, fixed: &fixed };
        let own = map(&[("retention.ms", "77"), ("cleanup.policy", " delete , compact")]);
        let said: Vec<String> = topic(&layers, &own, Wanted(None)).iter().map(line).collect();
        for expected in [
            "retention.ms=77 DYNAMIC_TOPIC_CONFIG | DYNAMIC_TOPIC_CONFIG:retention.ms=77;DYNAMIC_BROKER_CONFIG:log.retention.ms=1000000;DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=2000000;STATIC_BROKER_CONFIG:log.retention.hours=100;DEFAULT_CONFIG:log.retention.hours=168",
            "segment.bytes=2097152 DYNAMIC_DEFAULT_BROKER_CONFIG | DYNAMIC_DEFAULT_BROKER_CONFIG:log.segment.bytes=2097152;DEFAULT_CONFIG:log.segment.bytes=1073741824",
            "cleanup.policy=delete,compact DYNAMIC_TOPIC_CONFIG | DYNAMIC_TOPIC_CONFIG:cleanup.policy=delete,compact;DEFAULT_CONFIG:log.cleanup.policy=delete",
            "segment.ms=604800000 DEFAULT_CONFIG | ",
            "flush.ms=0 DEFAULT_CONFIG | DEFAULT_CONFIG:flush.ms=0",
            "compression.type=producer DEFAULT_CONFIG | DEFAULT_CONFIG:compression.type=producer",
        ] {
            assert!(said.contains(&expected.to_owned()), "{expected}\n{said:#?}");
        }
        assert_eq!(said.len(), 34);

        let said: Vec<String> = super::broker(&layers, Wanted(None)).iter().map(line).collect();
        for expected in [
            "log.retention.ms=1000000 DYNAMIC_BROKER_CONFIG | DYNAMIC_BROKER_CONFIG:log.retention.ms=1000000;DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=2000000;STATIC_BROKER_CONFIG:log.retention.hours=100;DEFAULT_CONFIG:log.retention.hours=168",
            "log.retention.minutes=null DEFAULT_CONFIG | ",
            "log.roll.ms=null DEFAULT_CONFIG | ",
            "log.roll.hours=168 DEFAULT_CONFIG | DEFAULT_CONFIG:log.roll.hours=168",
        ] {
            assert!(said.contains(&expected.to_owned()), "{expected}\n{said:#?}");
        }
        let said: Vec<String> = super::cluster(&layers, Wanted(None)).iter().map(line).collect();
        assert_eq!(
            said,
            [
                "log.retention.ms=2000000 DYNAMIC_DEFAULT_BROKER_CONFIG | DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=2000000",
                "log.segment.bytes=2097152 DYNAMIC_DEFAULT_BROKER_CONFIG | DYNAMIC_DEFAULT_BROKER_CONFIG:log.segment.bytes=2097152",
            ]
        );
    }

    #[test]
    fn a_start_value_in_another_unit_is_seen() {
        let fixed = StaticConfig::of([("log.retention.hours", "100")]).unwrap();
        let none = ConfigMap::new();
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        let entries = topic(&layers, &none, Wanted(Some(&["retention.ms"])));
        assert_eq!(
            entries.iter().map(line).collect::<Vec<_>>(),
            [
                "retention.ms=360000000 STATIC_BROKER_CONFIG | STATIC_BROKER_CONFIG:log.retention.hours=100;DEFAULT_CONFIG:log.retention.hours=168"
            ]
        );
    }

    #[test]
    fn by_name() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let cluster = map(&[("num.io.threads", "9"), ("max.connections", "9"), ("log.retention.ms", "9")]);
        let layers = Layers { broker: &none, cluster: &cluster, fixed: &fixed };
        for entries in [
            topic(&layers, &none, Wanted(None)),
            broker(&layers, Wanted(None)),
            super::cluster(&layers, Wanted(None)),
            broker(&layers, Wanted(Some(&["num.partitions", "default.replication.factor"]))),
        ] {
            assert!(entries.len() >= 2 && entries.is_sorted_by_key(|entry| entry.name));
        }
    }

    #[test]
    fn only_what_is_wanted() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        let names = |entries: Vec<Entry>| entries.iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(
            names(topic(&layers, &none, Wanted(Some(&["segment.bytes", "nosuch"])))),
            ["segment.bytes"]
        );
        assert_eq!(names(broker(&layers, Wanted(Some(&["node.id"])))), ["node.id"]);
        assert_eq!(topic(&layers, &none, Wanted(Some(&[]))).len(), 34);
        let entry = &broker(&layers, Wanted(Some(&["num.io.threads"])))[0];
        assert!(entry.read_only && entry.documentation.as_ref().unwrap().contains("Without effect here"));
        assert!(broker(&layers, Wanted(Some(&["node.id"])))[0].read_only);
        let loggers =
            loggers([("root", "INFO".to_owned()), ("a", "WARN".to_owned())], Wanted(Some(&["root"])));
        assert_eq!((loggers.len(), loggers[0].name, loggers[0].source), (1, "root", Source::Logger));
    }
}
