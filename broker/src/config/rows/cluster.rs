//! Broker configs of the broker itself: identity, listeners, connections, requests, topics, replication.

use super::super::listener;
use super::super::spec::{Check, Spec, boolean, int, list, long, short, string};
use super::forms;

const THREAD_PER_CORE: &str = "one pinned thread per core does all the work; corelog.cores says which cores.";
const OWN_LINKS: &str = "brokers replicate over connections of their own (corelog.peer), which see to times, sizes and buffers themselves.";
const NO_PURGATORY: &str =
    "a waiting request is woken by what it waits for; nothing is left behind to purge.";

pub(super) static ROWS: &[Spec] = &[
    // Identity and listeners.
    int(
        "node.id",
        "1",
        Check::AtLeast(0),
        "The id of this broker in the cluster, as clients see it in Metadata.",
    ),
    string("broker.rack", "", Check::Any, "The rack or zone of this broker, as clients see it in Metadata.")
        .unset(),
    list(
        "process.roles",
        "broker,controller",
        Check::Form("broker,controller", forms::process_roles),
        "The roles of this process.",
    )
    .no_effect("a Corelog process is always broker and controller."),
    list(
        "listeners",
        "PLAINTEXT://127.0.0.1:9092",
        Check::Form(
            "NAME://HOST:PORT or HOST:PORT, separated by commas; an empty HOST is every IPv4 address, port 0 is any free one",
            listener::canonical_listeners,
        ),
        "The addresses on which this broker serves Kafka clients.",
    ),
    list(
        "advertised.listeners",
        "",
        Check::Form(
            "NAME://HOST:PORT or HOST:PORT, separated by commas; port 0 is the port listened on",
            listener::canonical_advertised,
        ),
        "The addresses that clients are told to connect to, one per listener; by default the listeners' own.",
    )
    .unset(),
    string(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT",
        Check::Form("NAME:PLAINTEXT, separated by commas", listener::canonical_protocol_map),
        "The security protocol of each listener name; PLAINTEXT is the only one built so far.",
    ),
    string(
        "inter.broker.listener.name",
        "PLAINTEXT",
        Check::Any,
        "The listener through which brokers talk to each other.",
    )
    .no_effect(OWN_LINKS),
    // Connections and requests.
    int(
        "socket.listen.backlog.size",
        "1024",
        Check::AtLeast(1),
        "How many connections may wait to be accepted, per listener and core; the kernel's limit is net.core.somaxconn.",
    ),
    int(
        "socket.request.max.bytes",
        "104857600",
        Check::AtLeast(1),
        "The largest request; a connection that announces a larger one is closed. Never more than three sixteenths of a \
         core's part of corelog.memory.",
    )
    .bytes(),
    long(
        "connections.max.idle.ms",
        "600000",
        Check::AtLeast(-1),
        "A connection idle for this long is closed; -1 keeps it for ever.",
    )
    .ms(),
    // With 0 nobody could come to set it higher.
    int("max.connections", "2147483647", Check::AtLeast(1), "The most connections open at once.").dynamic(),
    int(
        "max.connections.per.ip",
        "2147483647",
        Check::AtLeast(0),
        "The most connections open at once from one IP address.",
    )
    .dynamic(),
    string(
        "max.connections.per.ip.overrides",
        "",
        Check::Form("IP:COUNT, separated by commas, an IPv6 address in brackets", forms::per_ip_overrides),
        "Addresses with a limit of their own in place of max.connections.per.ip.",
    )
    .dynamic(),
    int(
        "message.max.bytes",
        "1048588",
        Check::AtLeast(0),
        "The largest record batch a topic takes, as it comes over the wire; topics override it with max.message.bytes.",
    )
    .bytes()
    .dynamic(),
    int(
        "fetch.max.bytes",
        "57671680",
        Check::AtLeast(1024),
        "The most bytes in one fetch response; a larger first batch is still sent, so that consumers move on.",
    )
    .bytes(),
    long(
        "metadata.log.max.record.bytes.between.snapshots",
        "20971520",
        Check::AtLeast(1),
        "The controller's log begins anew with a snapshot when so many bytes were written to it since the last one.",
    )
    .bytes(),
    int(
        "max.incremental.fetch.session.cache.slots",
        "1000",
        Check::AtLeast(0),
        "How many incremental fetch sessions (KIP-227) the broker keeps; beyond it clients fetch without one.",
    ),
    int(
        "max.request.partition.size.limit",
        "2000",
        Check::AtLeast(1),
        "The most partitions in one DescribeTopicPartitions response.",
    ),
    int("num.network.threads", "3", Check::AtLeast(1), "Threads that serve sockets.")
        .dynamic()
        .always(None, THREAD_PER_CORE),
    int("num.io.threads", "8", Check::AtLeast(1), "Threads that serve requests.")
        .dynamic()
        .always(None, THREAD_PER_CORE),
    int("background.threads", "10", Check::AtLeast(1), "Threads for background work.")
        .dynamic()
        .always(None, THREAD_PER_CORE),
    int(
        "queued.max.requests",
        "500",
        Check::AtLeast(1),
        "Requests that may wait before sockets are no longer read.",
    )
    .always(None, "reading stops when a core's memory budget is used up; corelog.memory sets it."),
    long("queued.max.request.bytes", "-1", Check::Any, "Bytes of requests that may wait.")
        .bytes()
        .no_effect("reading stops when a core's memory budget is used up; corelog.memory sets it."),
    int("socket.send.buffer.bytes", "102400", Check::AtLeast(-1), "The kernel's send buffer per connection.")
        .bytes()
        .always(Some("-1"), "the kernel sizes the buffers by itself (net.ipv4.tcp_wmem)."),
    int(
        "socket.receive.buffer.bytes",
        "102400",
        Check::AtLeast(-1),
        "The kernel's receive buffer per connection.",
    )
    .bytes()
    .always(Some("-1"), "the kernel sizes the buffers by itself (net.ipv4.tcp_rmem)."),
    int("request.timeout.ms", "30000", Check::AtLeast(0), "How long this broker waits for another broker.")
        .ms()
        .no_effect(OWN_LINKS),
    long(
        "socket.connection.setup.timeout.ms",
        "10000",
        Check::AtLeast(0),
        "How long connecting to another broker may take.",
    )
    .ms()
    .no_effect(OWN_LINKS),
    long(
        "socket.connection.setup.timeout.max.ms",
        "30000",
        Check::AtLeast(0),
        "How long connecting to another broker may take after repeated failures.",
    )
    .ms()
    .no_effect(OWN_LINKS),
    // Topics.
    boolean(
        "auto.create.topics.enable",
        "true",
        "Whether a topic that a client asks for and that isn't there is created.",
    ),
    boolean("delete.topic.enable", "true", "Whether topics may be deleted."),
    int(
        "num.partitions",
        "1",
        Check::AtLeast(1),
        "Partitions of a topic created without a count, by a client or by auto-creation.",
    ),
    int(
        "default.replication.factor",
        "1",
        Check::AtLeast(1),
        "Replicas of a topic created without a count; creation fails when there are fewer brokers than that.",
    ),
    int(
        "min.insync.replicas",
        "1",
        Check::AtLeast(1),
        "How many replicas must have a record before acks=all is answered; with fewer in sync, produce is refused.",
    )
    .dynamic(),
    boolean(
        "unclean.leader.election.enable",
        "false",
        "Whether a replica that lacks acknowledged records may become leader.",
    )
    .dynamic()
    .no_effect("Raft elects only leaders that have every acknowledged record."),
    boolean(
        "auto.leader.rebalance.enable",
        "true",
        "Whether partitions are led by their preferred replicas again, ten seconds after these are in sync.",
    ),
    long(
        "leader.imbalance.check.interval.seconds",
        "300",
        Check::AtLeast(1),
        "How often the spread of leaders is looked at.",
    )
    .unit(super::super::spec::Unit::Seconds)
    .no_effect("leaders are looked at all the time."),
    boolean("controlled.shutdown.enable", "true", "Whether leaders move away before the broker stops.")
        .no_effect("a broker that is told to stop always hands over what it leads."),
    int("broker.heartbeat.interval.ms", "2000", Check::AtLeast(1), "How often a broker reports to the controller.")
        .ms()
        .no_effect("connections between brokers tell of silence by themselves, within a second."),
    int(
        "broker.session.timeout.ms",
        "9000",
        Check::AtLeast(1),
        "After how long without a report a broker counts as gone.",
    )
    .ms()
    .no_effect("who is silent for three seconds counts as gone."),
    int(
        "initial.broker.registration.timeout.ms",
        "60000",
        Check::AtLeast(1),
        "How long a starting broker tries to register with the controller.",
    )
    .ms()
    .no_effect("a broker goes on trying until its cluster knows it."),
    int("num.replica.fetchers", "1", Check::AtLeast(1), "Threads that copy records from other brokers.")
        .dynamic()
        .no_effect(OWN_LINKS),
    long(
        "replica.lag.time.max.ms",
        "30000",
        Check::AtLeast(1),
        "How far behind in time a replica may be and count as in sync.",
    )
    .ms()
    .no_effect("who lacks for ten seconds what was committed before is not in sync."),
    int("replica.fetch.max.bytes", "1048576", Check::AtLeast(0), "Bytes a replica asks for per partition.")
        .bytes()
        .no_effect(OWN_LINKS),
    int("replica.fetch.min.bytes", "1", Check::AtLeast(0), "Bytes a replica waits for.")
        .bytes()
        .no_effect(OWN_LINKS),
    int("replica.fetch.response.max.bytes", "10485760", Check::AtLeast(0), "Bytes a replica asks for in all.")
        .bytes()
        .no_effect(OWN_LINKS),
    int("replica.fetch.wait.max.ms", "500", Check::AtLeast(0), "How long a replica waits for bytes.")
        .ms()
        .no_effect(OWN_LINKS),
    int("replica.fetch.backoff.ms", "1000", Check::AtLeast(0), "How long a replica rests after an error.")
        .ms()
        .no_effect(OWN_LINKS),
    int("replica.socket.timeout.ms", "30000", Check::AtLeast(0), "How long a replica waits for its leader.")
        .ms()
        .no_effect(OWN_LINKS),
    int(
        "replica.socket.receive.buffer.bytes",
        "65536",
        Check::AtLeast(-1),
        "The kernel's receive buffer of a replica's connection.",
    )
    .bytes()
    .no_effect(OWN_LINKS),
    long(
        "replica.high.watermark.checkpoint.interval.ms",
        "5000",
        Check::AtLeast(1),
        "How often high watermarks are written down.",
    )
    .ms()
    .no_effect("the journal carries what is needed to find the high watermark again."),
    int(
        "producer.purgatory.purge.interval.requests",
        "1000",
        Check::Any,
        "After how many produce requests finished waits are removed.",
    )
    .no_effect(NO_PURGATORY),
    int(
        "fetch.purgatory.purge.interval.requests",
        "1000",
        Check::Any,
        "After how many fetch requests finished waits are removed.",
    )
    .no_effect(NO_PURGATORY),
    int(
        "delete.records.purgatory.purge.interval.requests",
        "1",
        Check::Any,
        "After how many DeleteRecords requests finished waits are removed.",
    )
    .no_effect(NO_PURGATORY),
    // The classic consumer groups and their offsets.
    int(
        "group.min.session.timeout.ms",
        "6000",
        Check::AtLeast(1),
        "The shortest session timeout a member of a consumer group may ask for.",
    )
    .ms(),
    int(
        "group.max.session.timeout.ms",
        "1800000",
        Check::AtLeast(1),
        "The longest session timeout a member of a consumer group may ask for.",
    )
    .ms(),
    int(
        "group.initial.rebalance.delay.ms",
        "0",
        Check::AtLeast(0),
        "How long an empty group waits for more members after the first; 0, where Kafka has 3000, starts at once.",
    )
    .ms(),
    int("group.max.size", "2147483647", Check::AtLeast(1), "The most members in one consumer group."),
    list(
        "group.coordinator.rebalance.protocols",
        "classic",
        Check::Only("classic", "only the classic group protocol is built yet"),
        "The group protocols that the coordinator speaks.",
    )
    .no_effect("it names what is built."),
    int("group.coordinator.threads", "4", Check::AtLeast(1), "Threads of the group coordinator.")
        .always(None, THREAD_PER_CORE),
    int("group.coordinator.background.threads", "2", Check::AtLeast(1), "Threads that compute assignments.")
        .always(None, THREAD_PER_CORE),
    int(
        "group.coordinator.append.linger.ms",
        "-1",
        Check::AtLeast(-1),
        "How long the coordinator gathers its writes.",
    )
    .ms()
    .no_effect("the journal gathers the writes of a whole core."),
    int(
        "group.coordinator.cached.buffer.max.bytes",
        "1048588",
        Check::AtLeast(1),
        "The write buffer that the coordinator keeps per partition.",
    )
    .bytes()
    .dynamic()
    .always(None, "the coordinator keeps no write buffer."),
    int(
        "offset.metadata.max.bytes",
        "4096",
        Check::AtLeast(0),
        "The longest metadata text that may come with a committed offset.",
    )
    .bytes(),
    int(
        "offsets.retention.minutes",
        "10080",
        Check::AtLeast(1),
        "How long committed offsets are kept after their group has become empty, or its topic unsubscribed.",
    )
    .unit(super::super::spec::Unit::Minutes),
    long(
        "offsets.retention.check.interval.ms",
        "600000",
        Check::AtLeast(1),
        "How often expired offsets are looked for.",
    )
    .ms(),
    int(
        "offsets.topic.num.partitions",
        "50",
        Check::AtLeast(1),
        "Partitions of __consumer_offsets when it is created; it must not change afterwards.",
    ),
    int(
        "offsets.topic.segment.bytes",
        "104857600",
        Check::AtLeast(1 << 20),
        "Segment size of __consumer_offsets when it is created.",
    )
    .bytes(),
    short(
        "offsets.topic.replication.factor",
        "1",
        Check::AtLeast(1),
        "Replicas of __consumer_offsets when it is created.",
    )
    .no_effect("it gets three replicas, or as many as there are brokers."),
    int(
        "offsets.topic.compression.codec",
        "0",
        Check::Between(0, 4),
        "The compression codec of the batches in __consumer_offsets.",
    )
    .no_effect("the coordinator writes small batches, uncompressed."),
    int("offsets.load.buffer.size", "5242880", Check::AtLeast(1), "Bytes read at once when offsets are loaded.")
        .bytes()
        .always(None, "loading reads in steps of the log's own size."),
    int(
        "offsets.commit.timeout.ms",
        "5000",
        Check::AtLeast(1),
        "How long a commit waits for the replicas of __consumer_offsets.",
    )
    .ms()
    .no_effect("a commit is answered when a majority has it, and refused when its coordinator has none."),
];
