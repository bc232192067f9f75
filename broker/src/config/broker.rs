//! The effective configuration of a broker, typed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::cpus;
use super::error::ConfigError;
use super::layers::{ConfigMap, Layers, Reader};
use super::listener::{self, Endpoint, Listener};
use super::machine::{MEMORY_PER_CORE_MIN, Machine};
use super::quantity::format_size;
use super::rows::forms;
use super::topic::TopicConfig;

/// The share of a shard's memory that may be in requests being received and processed: one part in this many.
pub const RECEIVE_SHARE: u64 = 4;
/// The largest part of that which one request may be, in percent: beside it others grow.
pub const REQUEST_PERCENT: u64 = 75;

/// The largest request that a shard with `receive_bytes` for all of them can take.
pub fn request_bytes_max(receive_bytes: u64) -> usize {
    (receive_bytes / 100 * REQUEST_PERCENT) as usize
}

/// What the broker's configs come to. Only configs that have an effect are here. Built at start, and again when a
/// dynamic config changes: then only the fields whose documentation says so differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    pub node_id: i32,
    /// Whether it was chosen: else the cluster may give another.
    pub node_id_is_given: bool,
    /// Where other brokers reach this one; none: it is alone.
    pub peer: Option<Endpoint>,
    /// In the order that all brokers have them in.
    pub seeds: Vec<Endpoint>,
    pub rack: Option<String>,
    pub data_dir: PathBuf,
    /// At least one, in the order given. Metadata answers with the advertised address of the listener that the
    /// request came in through.
    pub listeners: Vec<Listener>,
    pub admin: Endpoint,
    /// CPU ids, one shard each, ascending.
    pub cores: Vec<usize>,
    /// The budget of all shards together.
    pub memory_bytes: u64,
    pub log_levels: String,
    pub log_json: bool,
    pub connections: ConnectionLimits,
    pub auto_create_topics: bool,
    pub delete_topics: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i32,
    pub auto_leader_rebalance: bool,
    pub drain: bool,
    pub balance_moves_max: usize,
    /// None: never.
    pub balance_gone_after_ms: Option<u64>,
    pub metadata_bytes_between_snapshots: u64,
    /// Of one fetch response.
    pub fetch_bytes_max: usize,
    /// Of all shards together.
    pub fetch_sessions_max: usize,
    /// Of one DescribeTopicPartitions response.
    pub describe_partitions_max: usize,
    pub groups: GroupLimits,
    pub offsets: OffsetsTopic,
    pub storage: StorageLimits,
    pub metrics: MetricsLimits,
    /// The values for topics without configs of their own. Dynamic.
    pub topic_defaults: TopicConfig,
}

/// How many connections there may be, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all shards together. Dynamic.
    pub max: u32,
    /// Of all shards together. Dynamic.
    pub per_ip_max: u32,
    /// Dynamic.
    pub per_ip_overrides: BTreeMap<IpAddr, u32>,
    /// `None`: for ever.
    pub idle_ms_max: Option<u64>,
    /// `socket.request.max.bytes`.
    pub request_bytes_wanted: usize,
    /// As far as a core's memory can take it.
    pub request_bytes_max: usize,
    /// Per listener and shard.
    pub backlog: i32,
}

/// Classic consumer groups (KIP-62 and before).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    pub session_timeout_ms_min: i32,
    pub session_timeout_ms_max: i32,
    pub initial_rebalance_delay_ms: i32,
    pub members_max: usize,
}

/// `__consumer_offsets` and what is kept in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    /// When the topic is created.
    pub partitions: i32,
    /// When the topic is created.
    pub segment_bytes: u64,
    pub retention_ms: i64,
    pub retention_check_interval_ms: u64,
    pub metadata_bytes_max: usize,
}

impl OffsetsTopic {
    /// The configs of its own that the topic is created with: Kafka's.
    pub fn configs(&self) -> ConfigMap {
        [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", self.segment_bytes.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// How much is told of partitions and groups; what is beyond is counted. Dynamic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsLimits {
    pub partitions_max: usize,
    pub group_partitions_max: usize,
}

/// Of the storage as a whole; per partition see [`TopicConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageLimits {
    pub journal_file_bytes: u64,
    /// Per shard.
    pub journal_files: usize,
    /// Free space below which produce is refused.
    pub disk_reserve_bytes: u64,
    pub retention_check_interval_ms: u64,
    pub producer_id_expiration_ms: i64,
}

impl BrokerConfig {
    /// The values in effect. What is checked here is what takes several values, or the machine, to know.
    pub fn resolve(layers: &Layers<'_>, machine: &Machine) -> Result<BrokerConfig, Vec<ConfigError>> {
        BrokerConfig::read(&Reader::broker(layers), layers, machine)
    }

    fn read(
        from: &Reader<'_>,
        layers: &Layers<'_>,
        machine: &Machine,
    ) -> Result<BrokerConfig, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut fail = |name: &str, what: String| {
            errors.push(ConfigError { origin: layers.fixed.origin(name).cloned(), what });
        };

        let listeners = Listener::all(
            &from.text("listeners"),
            from.optional("advertised.listeners").as_deref(),
            &from.text("listener.security.protocol.map"),
            &machine.host_name,
        )
        .unwrap_or_else(|what| {
            fail("listeners", what);
            Vec::new()
        });
        let cores = cores(&from.text("corelog.cores"), machine).unwrap_or_else(|what| {
            fail("corelog.cores", what);
            Vec::new()
        });
        let memory_bytes = match memory(&from.text("corelog.memory"), cores.len().max(1), machine) {
            Ok(bytes) => bytes,
            Err(what) => {
                fail("corelog.memory", what);
                0
            }
        };
        let groups = GroupLimits {
            session_timeout_ms_min: from.number("group.min.session.timeout.ms"),
            session_timeout_ms_max: from.number("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: from.number("group.initial.rebalance.delay.ms"),
            members_max: from.number("group.max.size"),
        };
        if groups.session_timeout_ms_min > groups.session_timeout_ms_max {
            fail(
                "group.min.session.timeout.ms",
                format!(
                    "group.min.session.timeout.ms ({}) is more than group.max.session.timeout.ms ({}): no member could join",
                    groups.session_timeout_ms_min, groups.session_timeout_ms_max
                ),
            );
        }
        let storage = StorageLimits {
            journal_file_bytes: from.number("corelog.journal.file.bytes"),
            journal_files: from.number("corelog.journal.files"),
            disk_reserve_bytes: from.number("corelog.disk.reserve.bytes"),
            retention_check_interval_ms: from.number("log.retention.check.interval.ms"),
            producer_id_expiration_ms: from.number("producer.id.expiration.ms"),
        };
        if !storage.journal_file_bytes.is_multiple_of(4096) {
            fail(
                "corelog.journal.file.bytes",
                format!(
                    "corelog.journal.file.bytes ({}) must be a multiple of 4096: it is written in aligned blocks",
                    storage.journal_file_bytes
                ),
            );
        }
        let admin = Endpoint::parse(&from.text("corelog.admin")).expect("a checked address");
        if let Some(listener) = listeners.iter().find(|listener| listener.bind.collides(&admin)) {
            fail(
                "corelog.admin",
                format!("corelog.admin ({admin}) and the listener {} are on one port", listener.bind),
            );
        }
        let peer = from.optional("corelog.peer").filter(|peer| !peer.is_empty());
        let peer = peer.map(|peer| Endpoint::parse(&peer).expect("a checked address"));
        let seeds = listener::parse_seeds(&from.optional("corelog.seeds").unwrap_or_default());
        if let Some(peer) = &peer {
            let others = listeners.iter().map(|listener| ("the listener", &listener.bind));
            let taken = others.chain([("corelog.admin", &admin)]).find(|(_, other)| other.collides(peer));
            if let Some((what, other)) = taken {
                fail("corelog.peer", format!("corelog.peer ({peer}) and {what} {other} are on one port"));
            }
        } else if !seeds.is_empty() {
            let what = "corelog.seeds names brokers of a cluster, and this one has no address among them: give --peer \
                        HOST:PORT as well, or leave --seeds away";
            fail("corelog.seeds", what.to_owned());
        }
        let overrides = from.text("max.connections.per.ip.overrides");
        let config = BrokerConfig {
            node_id: from.number("node.id"),
            node_id_is_given: layers.fixed.get("node.id").is_some(),
            peer,
            seeds,
            rack: from.optional("broker.rack").filter(|rack| !rack.is_empty()),
            data_dir: PathBuf::from(from.text("log.dirs")),
            listeners,
            admin,
            memory_bytes,
            log_levels: from.text("corelog.log.level"),
            log_json: from.text("corelog.log.format") == "json",
            connections: ConnectionLimits {
                max: from.number("max.connections"),
                per_ip_max: from.number("max.connections.per.ip"),
                per_ip_overrides: forms::parse_per_ip_overrides(&overrides).expect("checked overrides"),
                idle_ms_max: u64::try_from(from.number::<i64>("connections.max.idle.ms")).ok(),
                request_bytes_wanted: from.number("socket.request.max.bytes"),
                request_bytes_max: from
                    .number::<usize>("socket.request.max.bytes")
                    .min(request_bytes_max(memory_bytes / cores.len().max(1) as u64 / RECEIVE_SHARE)),
                backlog: from.number("socket.listen.backlog.size"),
            },
            auto_create_topics: from.flag("auto.create.topics.enable"),
            delete_topics: from.flag("delete.topic.enable"),
            num_partitions: from.number("num.partitions"),
            default_replication_factor: from.number("default.replication.factor"),
            auto_leader_rebalance: from.flag("auto.leader.rebalance.enable"),
            drain: from.flag("corelog.drain"),
            balance_moves_max: from.number("corelog.balance.moves.max"),
            balance_gone_after_ms: u64::try_from(from.number::<i64>("corelog.balance.gone.after.ms")).ok(),
            fetch_bytes_max: from.number("fetch.max.bytes"),
            metadata_bytes_between_snapshots: from.number("metadata.log.max.record.bytes.between.snapshots"),
            fetch_sessions_max: from.number("max.incremental.fetch.session.cache.slots"),
            describe_partitions_max: from.number("max.request.partition.size.limit"),
            cores,
            groups,
            offsets: OffsetsTopic {
                partitions: from.number("offsets.topic.num.partitions"),
                segment_bytes: from.number("offsets.topic.segment.bytes"),
                retention_ms: from.number::<i64>("offsets.retention.minutes") * 60_000,
                retention_check_interval_ms: from.number("offsets.retention.check.interval.ms"),
                metadata_bytes_max: from.number("offset.metadata.max.bytes"),
            },
            storage,
            metrics: MetricsLimits {
                partitions_max: from.number("corelog.metrics.partitions.max"),
                group_partitions_max: from.number("corelog.metrics.group.partitions.max"),
            },
            topic_defaults: TopicConfig::resolve(layers, &ConfigMap::new()),
        };
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

fn cores(text: &str, machine: &Machine) -> Result<Vec<usize>, String> {
    if text == "auto" {
        let cores = machine.default_cpus();
        return if cores.is_empty() {
            Err("can't find out which CPUs this process may use: name them with --cores".to_owned())
        } else {
            Ok(cores)
        };
    }
    let cores = cpus::parse(text).expect("a checked list");
    match cores.iter().find(|core| !machine.cpus.contains(core)) {
        Some(core) => Err(format!(
            "CPU {core} is not in the process's CPU set, {}: name others, or start the process with a wider set (taskset, cpuset)",
            cpus::written(&machine.cpus)
        )),
        None => Ok(cores),
    }
}

fn memory(text: &str, cores: usize, machine: &Machine) -> Result<u64, String> {
    let least = cores as u64 * MEMORY_PER_CORE_MIN;
    let has = format_size(machine.memory_bytes >> 20 << 20);
    let each = format_size(MEMORY_PER_CORE_MIN);
    if text == "auto" {
        let bytes = machine.default_memory_bytes(cores);
        return if bytes > machine.memory_bytes / 2 {
            Err(format!(
                "{cores} cores need {} of memory ({each} each), and there are {has}: use fewer with --cores, or set --memory",
                format_size(least)
            ))
        } else {
            Ok(bytes)
        };
    }
    let bytes: u64 = text.parse().expect("a checked size");
    if bytes < least {
        Err(format!(
            "a memory budget of {} is too little for {cores} cores: each needs {each}, so give at least {} or use fewer with --cores",
            format_size(bytes),
            format_size(least)
        ))
    } else if bytes > machine.memory_bytes {
        Err(format!(
            "a memory budget of {} is more than the {has} that this process can have",
            format_size(bytes)
        ))
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::layers::StaticConfig;
    use super::super::rows;
    use super::super::spec::Effect;
    use super::*;

    fn machine() -> Machine {
        Machine { cpus: vec![0, 1, 2, 3], cpu_quota: None, memory_bytes: 16 << 30, host_name: "box".into() }
    }

    fn resolve(fixed: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let none = ConfigMap::new();
        let fixed = StaticConfig::of(fixed.iter().copied()).unwrap();
        BrokerConfig::resolve(&Layers { broker: &none, cluster: &none, fixed: &fixed }, &machine())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn defaults() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:9092");
        assert_eq!(config.listeners[0].advertised(9092).to_string(), "127.0.0.1:9092");
        assert_eq!(config.admin.to_string(), "127.0.0.1:9644");
        assert_eq!(config.data_dir, PathBuf::from("./corelog-data"));
        assert_eq!(config.cores, [0, 1, 2, 3]);
        assert_eq!(config.memory_bytes, 4 << 30);
        assert_eq!((config.node_id, config.node_id_is_given), (1, false));
        assert_eq!((config.peer, config.seeds), (None, Vec::new()));
        assert_eq!(config.rack, None);
        assert_eq!(config.connections.idle_ms_max, Some(600_000));
        assert_eq!(config.connections.request_bytes_max, 100 << 20);
        assert_eq!(config.offsets.retention_ms, 7 * 86_400_000);
        assert_eq!(config.offsets.configs()["segment.bytes"], "104857600");
        assert!(config.auto_create_topics);
    }

    #[test]
    fn given_values() {
        let config = resolve(&[
            ("cores", "1,3"),
            ("memory", "1GiB"),
            ("listen", "0.0.0.0:0"),
            ("advertise", "h:1"),
            ("connections.max.idle.ms", "-1"),
            ("max.connections.per.ip.overrides", "10.0.0.1:5"),
            ("broker.id", "7"),
            ("peer", "b2:9093"),
            ("seeds", "B2:9093,b1:9093"),
        ])
        .unwrap();
        let told = |endpoints: &[Endpoint]| endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>();
        assert_eq!(told(config.peer.as_slice()), ["b2:9093"]);
        assert_eq!(told(&config.seeds), ["b1:9093", "b2:9093"]);
        assert!(config.node_id_is_given);
        assert_eq!(config.cores, [1, 3]);
        assert_eq!(config.memory_bytes, 1 << 30);
        assert_eq!(config.listeners[0].advertised(9).to_string(), "h:1");
        assert_eq!(config.connections.idle_ms_max, None);
        assert_eq!(config.connections.request_bytes_max, request_bytes_max(128 << 20));
        assert_eq!(config.connections.per_ip_overrides[&"10.0.0.1".parse::<IpAddr>().unwrap()], 5);
        assert_eq!(config.node_id, 7);
    }

    #[test]
    fn a_request_fits_into_what_a_core_may_receive() {
        let config = resolve(&[("cores", "0-3"), ("memory", "256MiB")]).unwrap();
        assert_eq!(config.connections.request_bytes_max, request_bytes_max(16 << 20));
        assert_eq!(config.connections.request_bytes_wanted, 100 << 20);
    }

    #[test]
    fn values_that_do_not_go_together() {
        for (fixed, part) in [
            (vec![("cores", "2-5")], "--set: CPU 4 is not in the process's CPU set, 0-3"),
            (
                vec![("memory", "100MiB")],
                "a memory budget of 100MiB is too little for 4 cores: each needs 64MiB, so give at least 256MiB",
            ),
            (vec![("memory", "1TiB")], "a memory budget of 1TiB is more than the 16GiB"),
            (vec![("listen", "0.0.0.0:9092")], "set --advertise HOST:9092"),
            (
                vec![("group.min.session.timeout.ms", "10s"), ("group.max.session.timeout.ms", "5s")],
                "no member could join",
            ),
            (vec![("corelog.journal.file.bytes", "4194305")], "must be a multiple of 4096"),
            (vec![("listen", "127.0.0.1:9644")], "corelog.admin (127.0.0.1:9644) and the listener"),
            (vec![("seeds", "a:1,b:1")], "give --peer HOST:PORT as well"),
            (
                vec![("peer", "127.0.0.1:9092")],
                "corelog.peer (127.0.0.1:9092) and the listener 127.0.0.1:9092 are on one port",
            ),
            (vec![("peer", "127.0.0.1:9644")], "and corelog.admin 127.0.0.1:9644 are on one port"),
        ] {
            let errors = resolve(&fixed).unwrap_err();
            assert!(errors.contains(part), "{errors}");
        }
    }

    #[test]
    fn what_works_is_read_and_what_does_not_is_not() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        let reader = Reader::broker(&layers);
        BrokerConfig::read(&reader, &layers, &machine()).unwrap();
        let working = rows::topic().iter().filter(|row| row.spec.effect == Effect::Works);
        let by_topics: BTreeSet<&str> =
            working.flat_map(|row| row.synonyms.iter().map(|(name, _)| *name)).collect();
        for spec in rows::broker() {
            let read = reader.seen().contains(spec.name) || by_topics.contains(spec.name);
            assert_eq!(read, spec.effect == Effect::Works, "{}", spec.name);
        }
    }

    /// Whatever a row takes, the typed fields hold it and nothing overflows on the way.
    #[test]
    fn extreme_values_that_pass_are_held() {
        let none = ConfigMap::new();
        let texts = [
            "",
            "0",
            "1",
            "-1",
            "2",
            "1048576",
            "1048577",
            "2147483647",
            "9223372036854775807",
            "false",
            "a,b",
        ];
        for spec in rows::broker() {
            for text in texts.iter().filter(|text| spec.canonical(text).is_ok()) {
                let fixed = StaticConfig::of([(spec.name, *text)]).unwrap();
                let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
                let _ = BrokerConfig::resolve(&layers, &machine());
            }
        }
        let (fixed, empty) = (StaticConfig::default(), ConfigMap::new());
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        for row in rows::topic() {
            for text in texts.iter().filter(|text| row.spec.canonical(text).is_ok()) {
                let own: ConfigMap = [(row.spec.name.to_owned(), (*text).to_owned())].into();
                let config = TopicConfig::resolve(&layers, &own);
                assert!(config.segment_ms_for(u64::MAX) >= 1);
                let differs = config != TopicConfig::resolve(&layers, &empty);
                let is_default = row.spec.default == Some(*text);
                let works = row.spec.effect == Effect::Works;
                assert!(!differs || (works && !is_default), "{} = {text}", row.spec.name);
            }
        }
    }

    #[test]
    fn dynamic_values_take_effect() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let cluster: ConfigMap =
            [("max.connections", "5"), ("log.retention.ms", "7"), ("num.partitions", "9")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let layers = Layers { broker: &none, cluster: &cluster, fixed: &fixed };
        let config = BrokerConfig::resolve(&layers, &machine()).unwrap();
        assert_eq!(config.connections.max, 5);
        assert_eq!(config.topic_defaults.retention_ms, 7);
        assert_eq!(config.num_partitions, 1, "not a dynamic config");
    }
}
