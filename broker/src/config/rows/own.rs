//! Configs that Kafka has no name for.

use super::super::spec::{Check, Spec, boolean, int, long, string};
use super::super::{cpus, listener, machine};

pub(super) static ROWS: &[Spec] = &[
    string(
        "corelog.admin",
        "127.0.0.1:9644",
        Check::Form("HOST:PORT; port 0 is any free one", listener::canonical_host_port),
        "The address of the HTTP service: Prometheus metrics at /metrics, health at /health/live and /health/ready, configs at /config.",
    ),
    string(
        "corelog.peer",
        "",
        Check::Form("HOST:PORT, as the other brokers reach it", listener::canonical_peer),
        "The address of this broker for the other brokers of its cluster; without one it is alone.",
    )
    .unset(),
    string(
        "corelog.seeds",
        "",
        Check::Form("HOST:PORT of up to 9 brokers, separated by commas", listener::canonical_seeds),
        "The addresses for brokers, corelog.peer, of those that found the cluster together, the same on all of them; a broker \
         that comes later is told them too. Only a data directory that belongs to no cluster yet looks at them.",
    )
    .unset(),
    string(
        "corelog.cores",
        "auto",
        Check::Form("auto, or CPU numbers such as 0-3,6", cpus::canonical),
        "The CPUs to run on, one pinned thread each; auto is the process's CPU affinity set, cut to its cgroup's CPU quota.",
    ),
    string(
        "corelog.memory",
        "auto",
        Check::Form("auto, or a size such as 4GiB", machine::canonical_memory),
        "The memory budget of all cores together; auto is a quarter of what the machine or cgroup has, at most 1 GiB per core.",
    ),
    int(
        "corelog.journal.file.bytes",
        "134217728",
        Check::Between(4 << 20, 1 << 30),
        "The size of one file of a core's journal; a multiple of 4 KiB.",
    )
    .bytes(),
    int(
        "corelog.journal.files",
        "4",
        Check::Between(2, 64),
        "How many files each core's journal goes round in.",
    ),
    long(
        "corelog.disk.reserve.bytes",
        "536870912",
        Check::AtLeast(0),
        "Produce is refused while the disk has less free space than this; reads and deletion go on.",
    )
    .bytes(),
    int(
        "corelog.balance.moves.max",
        "8",
        Check::AtLeast(0),
        "How many partitions of a cluster may have replicas on the move, so that all brokers have as much to do; 0 stops the balancing.",
    )
    .dynamic(),
    boolean(
        "corelog.drain",
        "false",
        "Whether a broker is to lead nothing, and to give its replicas to others as far as there are any; set it on that broker alone.",
    )
    .dynamic(),
    long(
        "corelog.balance.gone.after.ms",
        "900000",
        Check::AtLeast(-1),
        "After how long a silent broker is gone for good, and others get replicas in its place; -1: never.",
    )
    .ms()
    .dynamic(),
    int(
        "corelog.metrics.partitions.max",
        "10000",
        Check::AtLeast(0),
        "The partitions that /metrics gives series of, the first by topic name; 0 turns them off. corelog_metrics_left_out tells how many are beyond.",
    )
    .dynamic(),
    int(
        "corelog.metrics.group.partitions.max",
        "10000",
        Check::AtLeast(0),
        "The partitions of consumer groups that /metrics gives offsets and lag of; a group that does not fit is left out, and 0 turns groups off.",
    )
    .dynamic(),
    string(
        "corelog.log.level",
        "info",
        Check::Form(
            "a level (error, warn, info, debug, trace), or levels by logger such as info,corelog_storage=debug",
            crate::logging::canonical_levels,
        ),
        "What is logged; loggers can also be set while running, as Kafka's BROKER_LOGGER configs.",
    ),
    string(
        "corelog.log.format",
        "text",
        Check::OneOf(&["text", "json"]),
        "Whether log lines are written for people or as JSON objects.",
    ),
];
