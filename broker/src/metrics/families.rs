//! The families of metrics: names, types, labels, meaning. Units are base units, in the name, as Prometheus asks.

/// What kind of number a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    /// As the `# TYPE` line says it.
    pub fn name(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// A family of metrics.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Type,
    /// The labels that tell its members apart, besides `core`.
    pub labels: &'static [&'static str],
    /// Whether each core's number is given, or their sum.
    pub per_core: bool,
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident $name:literal $kind:ident $([$($label:literal),+])? $(/ $core:ident)? : $help:literal;)*) => {
        $(pub static $id: Family = Family {
            name: $name,
            kind: Type::$kind,
            labels: &[$($($label),+)?],
            per_core: families!(@core $($core)?),
            help: $help,
        };)*

        /// All families, in the order in which they are written.
        pub static ALL: &[&Family] = &[$(&$id),*];
    };
    (@core) => { false };
    (@core core) => { true };
}

families! {
    BUILD_INFO "corelog_build_info" Gauge ["version"]: "Always 1; the version is in the label.";
    LOG_LINES_DROPPED "corelog_log_lines_dropped_total" Counter: "Log lines dropped because standard error could not keep up.";
    CPU_SECONDS "process_cpu_seconds_total" Counter: "CPU time that the process has used.";
    RESIDENT_BYTES "process_resident_memory_bytes" Gauge: "Memory of the process that is in RAM.";
    OPEN_FDS "process_open_fds" Gauge: "File descriptors that are open.";
    MAX_FDS "process_max_fds" Gauge: "File descriptors that may be open.";
    START_TIME "process_start_time_seconds" Gauge: "When the process started, in seconds since 1970.";

    CORE_UP "corelog_core_up" Gauge / core: "1 for each core that answered this scrape.";
    CORE_CPU_SECONDS "corelog_core_cpu_seconds_total" Counter / core: "CPU time that the core's thread has used.";
    CORE_REQUESTS "corelog_core_requests_total" Counter / core: "Requests received.";
    RECEIVED_BYTES "corelog_received_bytes_total" Counter / core: "Bytes of requests received.";
    SENT_BYTES "corelog_sent_bytes_total" Counter / core: "Bytes of responses sent.";
    CONNECTIONS "corelog_connections" Gauge / core: "Connections open.";
    CONNECTIONS_OPENED "corelog_connections_opened_total" Counter: "Connections accepted and served.";
    CONNECTIONS_REFUSED "corelog_connections_refused_total" Counter: "Connections closed at once because a limit was reached (max.connections and its kin).";
    REQUEST_SECONDS "corelog_request_seconds" Histogram ["api"]: "Time from a request's last byte to its response's; a fetch that waits for records waits in it.";
    ERRORS "corelog_errors_total" Counter ["api", "error"]: "Error codes given to clients, for requests or parts of them, by Kafka's names.";
    METADATA_SNAPSHOTS "corelog_metadata_snapshots_total" Counter: "Snapshots with which the controller's log began anew (metadata.log.max.record.bytes.between.snapshots).";
    CONNECTIONS_LIMIT "corelog_connections_limit" Gauge: "Connections that there may be (max.connections).";

    PRODUCED_BATCHES "corelog_produced_batches_total" Counter: "Record batches taken from producers.";
    PRODUCED_RECORDS "corelog_produced_records_total" Counter: "Records taken from producers.";
    PRODUCED_BYTES "corelog_produced_bytes_total" Counter / core: "Bytes of record batches taken from producers.";
    FETCHED_BYTES "corelog_fetched_bytes_total" Counter / core: "Bytes of record batches given to consumers.";

    PARTITIONS "corelog_partitions" Gauge / core: "Partitions that the core owns.";
    MEMORY_USED_BYTES "corelog_memory_used_bytes" Gauge ["part"]: "Bytes in use of each part of the memory budget.";
    MEMORY_LIMIT_BYTES "corelog_memory_limit_bytes" Gauge ["part"]: "Size of each part of the memory budget.";

    APPENDED_BATCHES "corelog_appended_batches_total" Counter: "Batches appended to logs, the broker's own among them.";
    APPENDED_BYTES "corelog_appended_bytes_total" Counter: "Bytes of batches appended to logs.";
    JOURNAL_GROUPS "corelog_journal_groups_total" Counter / core: "Groups of appends made durable together.";
    JOURNAL_BYTES "corelog_journal_bytes_total" Counter / core: "Bytes written to journals.";
    TAIL_READ_BYTES "corelog_tail_read_bytes_total" Counter: "Bytes read from memory.";
    COLD_READ_BYTES "corelog_cold_read_bytes_total" Counter: "Bytes read from segments.";
    FLUSHED_BYTES "corelog_flushed_bytes_total" Counter: "Bytes written to segments.";
    SEGMENT_WRITES "corelog_segment_writes_total" Counter: "Writes to segments, of up to 1 MiB.";
    CHECKPOINTS "corelog_checkpoints_total" Counter: "Checkpoints written to journals.";
    CACHED_BYTES "corelog_cached_bytes" Gauge / core: "Bytes of recent batches held in memory.";
    DIRTY_BYTES "corelog_dirty_bytes" Gauge / core: "Bytes of batches that are in a journal and not in a segment yet.";
    LOGS "corelog_logs" Gauge / core: "Logs with an entry in memory.";
    FILES_OPEN "corelog_files_open" Gauge / core: "Segment and index files open.";
    DISK_FULL "corelog_disk_full" Gauge: "Cores that refuse produce for want of free space (corelog.disk.reserve.bytes).";
    DISK_FREE "corelog_disk_free_bytes" Gauge: "Free space of the data directory's file system.";
    DISK_RESERVE "corelog_disk_reserve_bytes" Gauge: "Free space below which produce is refused (corelog.disk.reserve.bytes).";

    QUEUE_LENGTH "corelog_queue_length" Gauge ["queue"]: "What waits: for memory to receive or to answer fetches, for its turn to append, for room to commit offsets, for another core's answer.";

    REPLICAS "corelog_replicas" Gauge / core: "Replicas of partitions with several replicas, in whatever role.";
    REPLICAS_LEADING "corelog_replicas_leading" Gauge / core: "Those of them that lead.";
    REPLICAS_LEADERLESS "corelog_replicas_leaderless" Gauge / core: "Those of them that know no leader: as long as nobody has a majority.";
    REPLICAS_UNDER_REPLICATED "corelog_partitions_under_replicated" Gauge / core: "Partitions led here of which a replica is not in sync.";
    CONTROLLER_LEADS "corelog_controller_leads" Gauge: "1 on the broker that decides on the cluster's metadata.";
    PEER_LINKS_WANTED "corelog_peer_links_wanted" Gauge / core: "Shards of other brokers that the core replicates with.";
    PEER_LINKS "corelog_peer_links" Gauge / core: "Those of them that it is connected to.";
    PEER_CONNECTS "corelog_peer_connects_total" Counter: "Connections for replication that came about.";
    PEER_LOST "corelog_peer_connections_lost_total" Counter ["reason"]: "Connections to other brokers that ended: closed, broken, silent (nothing heard for 0.8 s), stalled (nothing taken for 10 s), idle, ...";
    PEER_REFUSED "corelog_peer_refused_total" Counter ["reason"]: "Connections of brokers that this broker refused: cluster, own_id, feature_level, ...";
    PEER_STRANGERS "corelog_peer_strangers_total" Counter: "Connections to the port for brokers that were closed before it was clear which broker they are from.";
    PEER_SENT_FRAMES "corelog_peer_sent_frames_total" Counter / core: "Frames sent to other brokers.";
    PEER_SENT_BYTES "corelog_peer_sent_bytes_total" Counter / core: "Bytes of frames sent to other brokers.";
    PEER_RECEIVED_FRAMES "corelog_peer_received_frames_total" Counter / core: "Frames received from other brokers.";
    PEER_RECEIVED_BYTES "corelog_peer_received_bytes_total" Counter / core: "Bytes of frames received from other brokers.";
    PEER_CALLS "corelog_peer_calls_total" Counter: "Calls to other brokers.";
    PEER_CALLS_FAILED "corelog_peer_calls_failed_total" Counter: "Calls to other brokers that came to no answer.";

    LEFT_OUT "corelog_metrics_left_out" Gauge ["of"]: "What is beyond corelog.metrics.partitions.max and corelog.metrics.group.partitions.max, and has no series below.";

    GROUP_STATE "corelog_group_state" Gauge ["group", "state"]: "Always 1; the group's state is in the label, by Kafka's name.";
    GROUP_MEMBERS "corelog_group_members" Gauge ["group"]: "Members of the group.";
    GROUP_LAG_SUM "corelog_group_lag_sum" Gauge ["group"]: "Lag of all partitions of the group together.";
    GROUP_LAG_MAX "corelog_group_lag_max" Gauge ["group"]: "The largest lag of a partition of the group.";
    GROUP_COMMITTED "corelog_group_committed_offset" Gauge ["group", "topic", "partition"]: "The offset that the group committed last.";
    GROUP_LAG "corelog_group_lag" Gauge ["group", "topic", "partition"]: "Records between what the group has committed and the high watermark; where it subscribes and has committed nothing, all that the log keeps.";

    PARTITION_PRODUCED_BYTES "corelog_partition_produced_bytes_total" Counter ["topic", "partition"]: "Bytes of batches appended since the broker started.";
    PARTITION_PRODUCED_RECORDS "corelog_partition_produced_records_total" Counter ["topic", "partition"]: "Records appended.";
    PARTITION_FETCHED_BYTES "corelog_partition_fetched_bytes_total" Counter ["topic", "partition"]: "Bytes of batches given to consumers; what an answer held is counted when the consumer asks again, or has gone.";
    PARTITION_FETCHED_RECORDS "corelog_partition_fetched_records_total" Counter ["topic", "partition"]: "Records given to consumers, from the offset that they asked for.";
    PARTITION_LOG_START "corelog_partition_log_start_offset" Gauge ["topic", "partition"]: "The first offset that is kept.";
    PARTITION_HIGH_WATERMARK "corelog_partition_high_watermark" Gauge ["topic", "partition"]: "The offset behind the last record that consumers see.";
    PARTITION_LOG_END "corelog_partition_log_end_offset" Gauge ["topic", "partition"]: "The offset that the next record gets.";
    PARTITION_SIZE "corelog_partition_size_bytes" Gauge ["topic", "partition"]: "Bytes of the log; absent until its directory was looked at, at the latest for retention.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_metrics_is_this_table() {
        let written = include_str!("../../METRICS.md");
        assert_eq!(
            written,
            super::super::page(),
            "write it anew: corelog --help-metrics > broker/METRICS.md"
        );
    }

    #[test]
    fn names_follow_prometheus() {
        let mut names: Vec<&str> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for family in ALL {
            let name = family.name;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Type::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                matches!(name, "corelog_request_seconds" | "process_start_time_seconds")
            );
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{name}");
            // Prometheus rates a histogram by its own label alone.
            assert!(!(family.kind == Type::Histogram && family.per_core), "{name}");
        }
    }
}
