//! The tables: every config there is, once.
//!
//! | table | what |
//! |---|---|
//! | `cluster` | the broker: identity, listeners, connections, requests, topics, groups |
//! | `log` | the log: directory, retention, segments, and the defaults of topics |
//! | `own` | what Kafka has no name for |
//! | `topic` | topics, and the broker configs that give their defaults |
//! | `refused` | Kafka's configs whose feature isn't there, and what to use in place of removed ones |
//!
//! A row either works, or has no effect here and says why in its documentation, and what is true in its place. Nothing
//! else is taken.

mod cluster;
pub(super) mod forms;
mod log;
mod own;
mod refused;
mod topic;

use super::spec::Spec;

pub use refused::{refused_broker, refused_topic};
pub use topic::{REMOTE_STORAGE, TIERS_REFUSED, TopicSpec};

// Reasons that rows of several tables share.
const NOT_COMPACTED: &str = "compaction isn't built yet: logs are kept whole.";
/// Of `compact` as a policy. Kafka Connect, Kafka Streams and schema registries cannot do without such topics, and work
/// with whole ones: so they are made, and it is said.
pub const UNCOMPACTED: &str = "compaction isn't built yet: with compact alone the log keeps every record, and grows until \
     its oldest are deleted (corectl topic trim) or the policy has delete too.";
const NO_TIERS: &str = "tiered storage isn't built yet.";
const OWN_INDEX: &str = "Corelog chooses the step and the size of its sparse index itself.";
const PREALLOCATED: &str = "space is always reserved in steps, off the latency path.";
const SYNCED: &str = "every record is on stable storage before it is acknowledged.";
const UNLINKED: &str = "a deleted segment's file goes as soon as no read uses it.";
const ONE_LZ4: &str = "the lz4 encoder has one level.";

/// All broker configs, in the order of the tables.
pub fn broker() -> impl Iterator<Item = &'static Spec> {
    cluster::ROWS.iter().chain(log::ROWS).chain(own::ROWS)
}

/// The broker config of this name.
pub fn broker_named(name: &str) -> Option<&'static Spec> {
    broker().find(|spec| spec.name == name)
}

/// All topic configs, by name.
pub fn topic() -> &'static [TopicSpec] {
    topic::ROWS
}

/// The topic config of this name.
pub fn topic_named(name: &str) -> Option<&'static TopicSpec> {
    topic::ROWS.binary_search_by(|row| row.spec.name.cmp(name)).ok().map(|index| &topic::ROWS[index])
}

/// Broker configs that name one thing in several units, in order of precedence.
const GROUPS: &[&[&str]] = &[
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
];

/// The names under which DescribeConfigs looks for a broker config's synonyms, itself among them (KIP-226).
pub fn broker_synonyms(name: &'static str) -> Vec<&'static str> {
    if name == "log.flush.interval.ms" {
        return vec![name, "log.flush.scheduler.interval.ms"];
    }
    GROUPS.iter().find(|group| group.contains(&name)).map_or_else(|| vec![name], |group| group.to_vec())
}

/// Short names for the file, the environment and the flags, and names Kafka has left behind.
pub const ALIASES: &[(&str, &str)] = &[
    ("data-dir", "log.dirs"),
    ("listen", "listeners"),
    ("advertise", "advertised.listeners"),
    ("admin", "corelog.admin"),
    ("peer", "corelog.peer"),
    ("seeds", "corelog.seeds"),
    ("cores", "corelog.cores"),
    ("memory", "corelog.memory"),
    ("log", "corelog.log.level"),
    ("log-format", "corelog.log.format"),
    ("log.dir", "log.dirs"),
    ("broker.id", "node.id"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::spec::Effect;
    use super::*;

    #[test]
    fn every_row_is_whole() {
        let mut names = BTreeSet::new();
        for spec in broker() {
            assert!(names.insert(spec.name), "{} stands twice", spec.name);
        }
        let specs = broker().chain(topic().iter().map(|row| &row.spec));
        for spec in specs {
            let name = spec.name;
            assert!(
                spec.doc.ends_with('.') && spec.doc.len() > 20,
                "{name} lacks a sentence of documentation"
            );
            if let Effect::Nothing { why, truth } = spec.effect {
                assert!(why.ends_with('.') && why.len() > 10, "{name} lacks a reason");
                assert!(
                    truth.is_none_or(|truth| spec.canonical(truth).is_ok_and(|text| text == truth)),
                    "{name}"
                );
            }
            if let Some(default) = spec.default {
                let canonical = spec.canonical(default).unwrap_or_else(|bad| panic!("{bad}"));
                assert_eq!(canonical, default, "{name}: the default is not in canonical form");
            }
            assert!(!spec.takes().is_empty());
        }
        assert!(topic().windows(2).all(|pair| pair[0].spec.name < pair[1].spec.name), "topic rows by name");
        for (alias, name) in ALIASES {
            assert!(broker_named(name).is_some() && broker_named(alias).is_none(), "{alias} -> {name}");
        }
    }

    #[test]
    fn topic_defaults_come_from_rows_that_agree() {
        for row in topic() {
            for (index, (synonym, scale)) in row.synonyms.iter().enumerate() {
                let broker = broker_named(synonym).unwrap_or_else(|| panic!("no broker config {synonym}"));
                // The last synonym always has a value, and it is the topic's default.
                if index + 1 == row.synonyms.len() {
                    let default = broker.default.unwrap_or_else(|| panic!("{synonym} has no default"));
                    let expected = if *scale == 1 {
                        default.to_owned()
                    } else {
                        (default.parse::<i64>().unwrap() * scale).to_string()
                    };
                    assert_eq!(row.spec.default, Some(expected.as_str()), "{} <- {synonym}", row.spec.name);
                }
                match (row.spec.effect, broker.effect) {
                    (Effect::Works, Effect::Nothing { .. }) => {
                        panic!("{} works, its synonym {synonym} does not", row.spec.name)
                    }
                    (Effect::Nothing { truth, .. }, Effect::Nothing { truth: other, .. }) => {
                        assert_eq!(truth, other, "{} and its synonym {synonym}", row.spec.name)
                    }
                    _ => {}
                }
            }
        }
    }

    /// The topic configs of Kafka 4.3, as its DescribeConfigs lists them: every one must be known here, and one that is not Kafka's.
    #[test]
    fn kafkas_topic_configs_are_all_known() {
        let kafka = "cleanup.policy compression.gzip.level compression.lz4.level compression.type \
            compression.zstd.level delete.retention.ms file.delete.delay.ms flush.messages flush.ms \
            follower.replication.throttled.replicas index.interval.bytes leader.replication.throttled.replicas \
            local.retention.bytes local.retention.ms max.compaction.lag.ms max.message.bytes \
            message.timestamp.after.max.ms message.timestamp.before.max.ms message.timestamp.type \
            min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate \
            remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable retention.bytes \
            retention.ms segment.bytes segment.index.bytes segment.jitter.ms segment.ms \
            unclean.leader.election.enable write.caching";
        let kafka: Vec<&str> = kafka.split_whitespace().collect();
        let ours: Vec<&str> = topic().iter().map(|row| row.spec.name).collect();
        assert_eq!(ours, kafka);
    }
}
