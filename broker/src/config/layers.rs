//! The layers in which a value is looked up, and where it was found (KIP-226).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin};
use super::rows::{self, TopicSpec};
use super::spec::{Effect, Spec, Update};

/// Names and values, as the controller stores them: the dynamic configs of one resource.
pub type ConfigMap = BTreeMap<String, String>;

/// Where a value comes from; the number is `config_source` in DescribeConfigs v1+.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Topic = 1,
    /// Dynamic, of this broker.
    DynamicBroker = 2,
    /// Dynamic, of all brokers.
    DynamicDefault = 3,
    /// Flags, environment, file.
    Static = 4,
    Default = 5,
    Logger = 6,
}

impl Source {
    /// Kafka's name of the source.
    pub fn name(self) -> &'static str {
        match self {
            Source::Topic => "DYNAMIC_TOPIC_CONFIG",
            Source::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Source::DynamicDefault => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Source::Static => "STATIC_BROKER_CONFIG",
            Source::Default => "DEFAULT_CONFIG",
            Source::Logger => "DYNAMIC_BROKER_LOGGER_CONFIG",
        }
    }
}

/// What the process was started with: the values given, in canonical form, and where each was written.
#[derive(Clone, Debug, Default)]
pub struct StaticConfig {
    values: BTreeMap<&'static str, (String, Origin)>,
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
}

impl StaticConfig {
    /// The value given for a broker config, if any.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// What was given and changes nothing here, with where it was written and why.
    pub fn without_effect(&self) -> impl Iterator<Item = (&'static str, &Origin, &'static str)> {
        self.values.iter().filter_map(|(name, (_, origin))| {
            match rows::broker_named(name).expect("a checked name").effect {
                Effect::Nothing { why, .. } => Some((*name, origin, why)),
                Effect::Works => None,
            }
        })
    }

    /// Where that value was written.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.values.get(name).map(|(_, origin)| origin)
    }

    /// A start configuration of these values, checked as those of `--set` are. For tests and embedding.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<StaticConfig, ConfigError> {
        let mut fixed = StaticConfig::default();
        for (name, value) in pairs {
            let origin = Origin::Flag("--set");
            let spec = super::load::known(name).map_err(|what| ConfigError::at(origin.clone(), what))?;
            let value = spec
                .canonical_from_person(value)
                .map_err(|bad| ConfigError::at(origin.clone(), bad.to_string()))?;
            fixed.values.insert(spec.name, (value, origin));
        }
        Ok(fixed)
    }

    /// The node id that the data directory has, where none is given.
    pub fn put_node_id(&mut self, node_id: i32, directory: &Path) {
        let spec = rows::broker_named("node.id").expect("a config there is");
        self.put_below(spec, node_id.to_string(), Origin::Directory(directory.display().to_string()));
    }

    /// Empty, read from this file or from none.
    pub(super) fn with_file(file: Option<PathBuf>) -> StaticConfig {
        StaticConfig { file, ..Default::default() }
    }

    /// Adds a value of a lower layer: it counts only where no higher one has been put before.
    pub(super) fn put_below(&mut self, spec: &'static Spec, value: String, origin: Origin) {
        self.values.entry(spec.name).or_insert((value, origin));
    }
}

/// The layers of broker configs, highest first: this broker's dynamic ones, the cluster's, the start's, defaults.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    pub broker: &'a ConfigMap,
    pub cluster: &'a ConfigMap,
    pub fixed: &'a StaticConfig,
}

impl<'a> Layers<'a> {
    /// A broker config's value and its source; `None` is Kafka's null. A dynamic value that this version does
    /// not take (stored by another one) counts as not there.
    pub fn broker_value(&self, spec: &'static Spec) -> (Source, Option<String>) {
        if spec.update == Update::ClusterWide {
            for (source, layer) in self.dynamic() {
                if let Some(value) = layer.get(spec.name).and_then(|value| spec.canonical(value).ok()) {
                    return (source, Some(value));
                }
            }
        }
        match self.fixed.get(spec.name) {
            Some(value) => (Source::Static, Some(value.to_owned())),
            None => (Source::Default, spec.default.map(str::to_owned)),
        }
    }

    /// A topic config's value: the topic's own, else the first of its broker synonyms that has one.
    pub fn topic_value(&self, row: &TopicSpec, own: &ConfigMap) -> String {
        if let Some(value) = own.get(row.spec.name).and_then(|value| row.spec.canonical(value).ok()) {
            return value;
        }
        for (name, scale) in row.synonyms {
            let spec = rows::broker_named(name).expect("a synonym names a broker config");
            let Some(value) = self.broker_value(spec).1 else { continue };
            // Hours beyond what milliseconds can hold are as good as for ever. Negative ones mean -1 in any unit.
            return match value.parse::<i64>() {
                Ok(number) if *scale > 1 && number > 0 => number.saturating_mul(*scale).to_string(),
                _ => value,
            };
        }
        row.spec.default.expect("a topic config has a default").to_owned()
    }

    /// The dynamic layers, highest first.
    pub(super) fn dynamic(&self) -> [(Source, &'a ConfigMap); 2] {
        [(Source::DynamicBroker, self.broker), (Source::DynamicDefault, self.cluster)]
    }
}

/// Reads typed values by name, and remembers which were read: what works must be read, what does nothing must not
/// be (a test holds the tables to that).
pub(super) struct Reader<'a> {
    value: Box<dyn Fn(&'static str) -> Option<String> + 'a>,
    seen: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub fn broker(layers: &'a Layers<'a>) -> Reader<'a> {
        Reader::new(move |name| layers.broker_value(rows::broker_named(name).expect("a broker config")).1)
    }

    pub fn topic(layers: &'a Layers<'a>, own: &'a ConfigMap) -> Reader<'a> {
        Reader::new(move |name| {
            Some(layers.topic_value(rows::topic_named(name).expect("a topic config"), own))
        })
    }

    fn new(value: impl Fn(&'static str) -> Option<String> + 'a) -> Reader<'a> {
        Reader { value: Box::new(value), seen: RefCell::default() }
    }

    pub fn optional(&self, name: &'static str) -> Option<String> {
        self.seen.borrow_mut().insert(name);
        (self.value)(name)
    }

    pub fn text(&self, name: &'static str) -> String {
        self.optional(name).expect("a config without a null default")
    }

    pub fn flag(&self, name: &'static str) -> bool {
        self.text(name) == "true"
    }

    /// A number, checked against its row already; `T` must hold the row's range.
    pub fn number<T: TryFrom<i64>>(&self, name: &'static str) -> T {
        let number: i64 = self.text(name).parse().expect("a checked number");
        T::try_from(number).ok().unwrap_or_else(|| panic!("{name} = {number} does not fit its field"))
    }

    #[cfg(test)]
    pub fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_highest_layer_that_has_a_value_wins() {
        let spec = rows::broker_named("log.segment.bytes").unwrap();
        let (none, empty) = (ConfigMap::new(), StaticConfig::default());
        let fixed = StaticConfig::of([("log.segment.bytes", "2MiB")]).unwrap();
        let cluster = map(&[("log.segment.bytes", "3145728")]);
        let broker = map(&[("log.segment.bytes", "4194304")]);
        // A value below the limit, as a version with another limit may have stored it.
        let bad = map(&[("log.segment.bytes", "1")]);
        for (broker, cluster, fixed, source, value) in [
            (&broker, &cluster, &fixed, Source::DynamicBroker, "4194304"),
            (&none, &cluster, &fixed, Source::DynamicDefault, "3145728"),
            (&bad, &cluster, &fixed, Source::DynamicDefault, "3145728"),
            (&none, &none, &fixed, Source::Static, "2097152"),
            (&none, &none, &empty, Source::Default, "1073741824"),
        ] {
            let layers = Layers { broker, cluster, fixed };
            assert_eq!(layers.broker_value(spec), (source, Some(value.to_owned())));
        }
    }

    #[test]
    fn topic_defaults_come_in_order_of_precedence() {
        let row = rows::topic_named("retention.ms").unwrap();
        let none = ConfigMap::new();
        for (fixed, own, expected) in [
            (vec![], vec![], "604800000"),
            (vec![("log.retention.hours", "1")], vec![], "3600000"),
            (vec![("log.retention.hours", "-1")], vec![], "-1"),
            (vec![("log.retention.hours", "1"), ("log.retention.minutes", "1")], vec![], "60000"),
            (vec![("log.retention.ms", "7"), ("log.retention.minutes", "1")], vec![], "7"),
            (vec![("log.retention.ms", "7")], vec![("retention.ms", "5")], "5"),
            (vec![("log.retention.ms", "7")], vec![("retention.ms", "not a number")], "7"),
            (vec![("log.retention.hours", "2147483647")], vec![], "7730941129200000"),
        ] {
            let fixed = StaticConfig::of(fixed).unwrap();
            let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
            assert_eq!(layers.topic_value(row, &map(&own)), expected);
        }
    }
}
