//! Kafka's configs that are refused, and why: the feature isn't there, or Kafka itself has removed the config.

/// (name, or the beginning of the names when it ends with a dot; why, and what to do)
const BROKER: &[(&str, &str)] = &[
    ("ssl.", TLS),
    ("security.", TLS),
    ("listener.name.", TLS),
    ("principal.builder.class", TLS),
    ("sasl.", SASL),
    ("connections.max.reauth.ms", SASL),
    ("connection.failed.authentication.delay.ms", SASL),
    ("delegation.token.", SASL),
    ("authorizer.class.name", ACLS),
    ("super.users", ACLS),
    ("allow.everyone.if.no.acl.found", ACLS),
    ("transaction.", TRANSACTIONS),
    ("transactional.id.expiration.ms", TRANSACTIONS),
    ("add.partitions.to.txn.", TRANSACTIONS),
    ("group.consumer.", "the consumer group protocol of KIP-848 isn't built yet; classic groups are"),
    ("group.share.", SHARE),
    ("share.", SHARE),
    ("group.streams.", "the streams group protocol of KIP-1071 isn't built yet"),
    ("controller.quota.", QUOTAS),
    ("quota.", QUOTAS),
    ("replication.quota.", QUOTAS),
    ("alter.log.dirs.replication.quota.", QUOTAS),
    ("client.quota.callback.class", QUOTAS),
    ("max.connection.creation.rate", QUOTAS),
    ("controller.", "a broker is its own controller, and needs no address or quorum for it"),
    ("early.start.listeners", "a broker is its own controller, and needs no address or quorum for it"),
    ("metadata.log.dir", "the controller's log lies in the data directory"),
    ("metadata.log.max.snapshot.", SNAPSHOTS),
    ("metadata.log.segment.", SNAPSHOTS),
    ("metadata.max.", SNAPSHOTS),
    ("remote.", "tiered storage isn't built yet"),
    ("follower.fetch.last.tiered.offset.enable", "tiered storage isn't built yet"),
    ("metric.", METRICS),
    ("metrics.", METRICS),
    ("kafka.metrics.", METRICS),
    ("auto.include.jmx.reporter", METRICS),
    ("telemetry.", "client telemetry (KIP-714) isn't built yet"),
    ("config.providers", PLUGIN),
    ("create.topic.policy.class.name", PLUGIN),
    ("alter.config.policy.class.name", PLUGIN),
    ("replica.selector.class", "fetching from the nearest replica isn't built yet"),
    ("cordoned.log.dirs", "Corelog keeps its data in one directory"),
    ("num.replica.alter.log.dirs.threads", "Corelog keeps its data in one directory"),
    ("zookeeper.", "there is no ZooKeeper"),
    ("inter.broker.protocol.version", "Kafka 4.0 removed it"),
    ("log.message.format.version", "Kafka 4.0 removed it; every log is kept in format v2"),
    ("log.message.downconversion.enable", "Kafka 4.0 removed it; old consumers are always served"),
    (
        "log.message.timestamp.difference.max.ms",
        "Kafka 4.0 removed it; use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
    ),
];

const TOPIC: &[(&str, &str)] = &[
    ("errors.deadletterqueue.group.enable", SHARE),
    ("remote.copy.lag.ms", "tiered storage isn't built yet"),
    ("remote.copy.lag.bytes", "tiered storage isn't built yet"),
    ("message.format.version", "Kafka 4.0 removed it; every log is kept in format v2"),
    ("message.downconversion.enable", "Kafka 4.0 removed it; old consumers are always served"),
    (
        "message.timestamp.difference.max.ms",
        "Kafka 4.0 removed it; use message.timestamp.before.max.ms and message.timestamp.after.max.ms",
    ),
];

const SNAPSHOTS: &str =
    "the controller's log begins anew by its size, metadata.log.max.record.bytes.between.snapshots";
const TLS: &str = "TLS isn't built yet: listeners are PLAINTEXT, so keep them on a trusted network";
const SASL: &str = "SASL isn't built yet: listeners are PLAINTEXT, so keep them on a trusted network";
const ACLS: &str = "ACLs aren't built yet: whoever reaches a listener may do everything";
const TRANSACTIONS: &str = "transactions aren't built yet; idempotent producers are";
const SHARE: &str = "share groups (KIP-932) aren't built yet";
const QUOTAS: &str = "quotas aren't built yet";
const METRICS: &str = "metrics are served to Prometheus at /metrics of corelog.admin";
const PLUGIN: &str = "there are no Java plug-ins";

/// Why a broker config that Kafka has is refused; `None` when the name isn't one of those.
pub fn refused_broker(name: &str) -> Option<&'static str> {
    find(BROKER, name)
}

/// Why a topic config that Kafka (or this project's plan) has is refused.
pub fn refused_topic(name: &str) -> Option<&'static str> {
    find(TOPIC, name)
}

fn find(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(known, _)| if known.ends_with('.') { name.starts_with(known) } else { name == *known })
        .map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::super::{broker, topic};
    use super::*;

    #[test]
    fn nothing_is_both_accepted_and_refused() {
        for spec in broker() {
            assert_eq!(refused_broker(spec.name), None, "{}", spec.name);
        }
        for row in topic() {
            assert_eq!(refused_topic(row.spec.name), None, "{}", row.spec.name);
        }
    }

    #[test]
    fn refusals_say_why() {
        for (name, part) in [
            ("ssl.keystore.location", "TLS"),
            ("controller.quota.window.num", "quotas"),
            ("controller.quorum.voters", "its own controller"),
            ("transaction.max.timeout.ms", "transactions"),
        ] {
            assert!(refused_broker(name).unwrap().contains(part), "{name}");
        }
        assert_eq!(refused_broker("sslish"), None);
        assert!(refused_topic("remote.copy.lag.ms").unwrap().contains("isn't built"));
    }

    /// Every broker config that Kafka 4.3's DescribeConfigs lists is either in the tables or refused by name.
    #[test]
    fn kafkas_broker_configs_are_all_known() {
        for name in include_str!("kafka-4.3-broker-configs.txt").lines() {
            let alias = super::super::ALIASES.iter().any(|(alias, _)| *alias == name);
            let known = alias || super::super::broker_named(name).is_some();
            assert!(known || refused_broker(name).is_some(), "{name} is neither known nor refused");
        }
    }
}
