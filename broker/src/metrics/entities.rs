//! Topics, partitions and groups: what is told of them, within limits, and the text of it.
//!
//! Lag is a matter of two cores, the one that owns the group and the one that owns the partition. Both only hand over
//! what they know; it is put together here, on the service thread.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use corelog_storage::{LogId, LogStats};
use corelog_wire::Str;

use super::families::{self, Family};
use super::text;
use crate::config::MetricsLimits;
use crate::controller::image::PartitionImage;
use crate::controller::{Image, TopicImage};
use crate::groups::GroupRow;
use crate::ids::BrokerId;
use crate::partition::placement;

/// Lines of one family that are written at once.
const LINES_A_PIECE: usize = 512;

/// The families of a partition.
type Value = fn(&LogStats) -> Option<u64>;
static OF_PARTITIONS: [(&Family, Value); 8] = [
    (&families::PARTITION_PRODUCED_BYTES, |it| Some(it.traffic.bytes_in)),
    (&families::PARTITION_PRODUCED_RECORDS, |it| Some(it.traffic.records_in)),
    (&families::PARTITION_FETCHED_BYTES, |it| Some(it.traffic.bytes_out)),
    (&families::PARTITION_FETCHED_RECORDS, |it| Some(it.traffic.records_out)),
    (&families::PARTITION_LOG_START, |it| u64::try_from(it.log_start_offset).ok()),
    (&families::PARTITION_HIGH_WATERMARK, |it| u64::try_from(it.high_watermark).ok()),
    (&families::PARTITION_LOG_END, |it| u64::try_from(it.log_end_offset).ok()),
    (&families::PARTITION_SIZE, |it| it.size_bytes),
];

/// What is to be told: chosen from the metadata and the groups, then filled in by the owners of the partitions.
pub struct Entities {
    image: Arc<Image>,
    broker: BrokerId,
    limits: MetricsLimits,
    /// Topics by name, of which the first partitions are told.
    topics: Vec<Arc<TopicImage>>,
    partitions_left_out: usize,
    groups: Vec<GroupLags>,
    groups_left_out: usize,
    group_partitions_left_out: usize,
    room_for_groups: usize,
    stats: HashMap<LogId, LogStats>,
}

struct GroupLags {
    group: Str,
    state: &'static str,
    members: usize,
    partitions: Vec<GroupPartition>,
}

struct GroupPartition {
    topic: Str,
    partition: i32,
    /// `None` of a topic that is gone, or a partition that is elsewhere.
    log: Option<LogId>,
    committed: Option<i64>,
}

impl Entities {
    /// `image`: the topics there are; `broker`: this one.
    pub fn new(image: Arc<Image>, broker: BrokerId, limits: MetricsLimits) -> Entities {
        let topics: Vec<Arc<TopicImage>> = image.topics().cloned().collect();
        let mut entities = Entities {
            image,
            broker,
            limits,
            topics,
            partitions_left_out: 0,
            groups: Vec::new(),
            groups_left_out: 0,
            group_partitions_left_out: 0,
            room_for_groups: limits.group_partitions_max,
            stats: HashMap::new(),
        };
        let here: usize = entities.topics.iter().map(|topic| entities.here(topic).count()).sum();
        entities.partitions_left_out = here.saturating_sub(limits.partitions_max);
        entities
    }

    /// Whether anything is to be told of groups.
    pub fn wants_groups(&self) -> bool {
        self.limits.group_partitions_max > 0
    }

    /// Takes a shard's groups, in the order in which it told of them.
    pub fn add_groups(&mut self, rows: Vec<GroupRow>) {
        let mut rows = rows.into_iter().peekable();
        while let Some(mut row) = rows.next() {
            while let Some(more) = rows.next_if(|more| more.group == row.group) {
                row.offsets.extend(more.offsets);
            }
            self.add_group(row);
        }
    }

    fn add_group(&mut self, row: GroupRow) {
        let mut known: HashSet<(Str, i32)> = HashSet::with_capacity(row.offsets.len());
        let mut partitions = Vec::with_capacity(row.offsets.len());
        for (topic, partition, offset) in row.offsets {
            let log = self.log(&topic, partition);
            known.insert((topic.clone(), partition));
            partitions.push(GroupPartition { topic, partition, log, committed: Some(offset) });
        }
        // What is subscribed to and has no commit is read from the log's start.
        for topic in row.subscribed.iter().filter_map(|name| self.image.topic(name)) {
            for partition in 0..topic.partitions.len() as i32 {
                if !known.contains(&(topic.name.clone(), partition)) {
                    let log = self.log(&topic.name, partition);
                    let topic = topic.name.clone();
                    partitions.push(GroupPartition { topic, partition, log, committed: None });
                }
            }
        }
        // One without partitions takes room too: there is a series of it.
        let room = partitions.len().max(1);
        if room > self.room_for_groups {
            self.groups_left_out += 1;
            self.group_partitions_left_out += partitions.len();
            return;
        }
        self.room_for_groups -= room;
        self.groups.push(GroupLags { group: row.group, state: row.state, members: row.members, partitions });
    }

    fn log(&self, topic: &str, partition: i32) -> Option<LogId> {
        let topic = self.image.topic(topic)?;
        let index = usize::try_from(partition).ok()?;
        let found = topic.partitions.get(index)?;
        self.is_here(found).then_some(LogId { topic: topic.id, partition })
    }

    /// Whether this broker has a replica: of others nothing is known here.
    fn is_here(&self, partition: &PartitionImage) -> bool {
        partition.replicas.contains(&self.broker)
    }

    fn here<'a>(&'a self, topic: &'a TopicImage) -> impl Iterator<Item = LogId> {
        let all = (0..).zip(topic.partitions.iter()).filter(|(_, image)| self.is_here(image));
        all.map(|(partition, _)| LogId { topic: topic.id, partition })
    }

    /// The partitions that have to be asked about, by the shard that owns them.
    pub fn wanted(&self, shards: usize) -> Vec<Vec<LogId>> {
        let told = self.told().map(|(_, log)| log);
        let lagging = self.groups.iter().flat_map(|group| &group.partitions).filter_map(|it| it.log);
        let all: HashSet<LogId> = told.chain(lagging).collect();
        let mut by_owner = vec![Vec::new(); shards];
        for log in all {
            by_owner[placement::owner(log, shards).0].push(log);
        }
        by_owner
    }

    /// The partitions that have series of their own.
    fn told(&self) -> impl Iterator<Item = (&Str, LogId)> {
        let all = self.topics.iter().flat_map(|topic| self.here(topic).map(|log| (&topic.name, log)));
        all.take(self.limits.partitions_max)
    }

    /// How many partitions each shard owns.
    pub fn owned(&self, shards: usize) -> Vec<u64> {
        let mut owned = vec![0; shards];
        for topic in &self.topics {
            for log in self.here(topic) {
                owned[placement::owner(log, shards).0] += 1;
            }
        }
        owned
    }

    pub fn add_stats(&mut self, stats: impl IntoIterator<Item = (LogId, LogStats)>) {
        self.stats.extend(stats);
    }

    /// The text, in pieces of some 64 KiB, to be made as they are sent.
    pub fn pieces(self) -> impl Iterator<Item = String> + Send {
        let partitions: Vec<(String, LogStats)> = self
            .told()
            .filter_map(|(topic, log)| {
                let stats = *self.stats.get(&log)?;
                Some((format!("topic=\"{topic}\",partition=\"{}\"", log.partition), stats))
            })
            .collect();
        let groups = self.group_lines();
        let left_out = self.left_out();
        let chunks = partitions.len().div_ceil(LINES_A_PIECE);
        let of_partitions = (0..OF_PARTITIONS.len() * chunks).map(move |piece| {
            let (family, value) = OF_PARTITIONS[piece / chunks];
            let begin = (piece % chunks) * LINES_A_PIECE;
            let end = (begin + LINES_A_PIECE).min(partitions.len());
            let lines = &partitions[begin..end];
            let values = lines.iter().filter_map(|(labels, stats)| Some((labels.as_str(), value(stats)?)));
            piece_of(family, begin == 0, values)
        });
        std::iter::once(left_out).chain(groups).chain(of_partitions)
    }

    fn left_out(&self) -> String {
        let counts = [
            ("of=\"group_partitions\"", self.group_partitions_left_out as u64),
            ("of=\"groups\"", self.groups_left_out as u64),
            ("of=\"partitions\"", self.partitions_left_out as u64),
        ];
        piece_of(&families::LEFT_OUT, true, counts.into_iter())
    }

    /// What is told of groups: each family in pieces.
    fn group_lines(&self) -> impl Iterator<Item = String> + Send + use<> {
        let mut of_groups: Vec<(String, u64, u64, u64)> = Vec::new();
        let mut states = Vec::new();
        let mut committed: Vec<(String, u64)> = Vec::new();
        let mut lags: Vec<(String, u64)> = Vec::new();
        for group in &self.groups {
            let name = text::escaped(&group.group);
            let (mut sum, mut max) = (0, 0);
            for it in &group.partitions {
                let labels =
                    format!("group=\"{name}\",topic=\"{}\",partition=\"{}\"", it.topic, it.partition);
                if let Some(lag) = it.log.and_then(|log| self.stats.get(&log)).map(|stats| lag(it, stats)) {
                    sum += lag;
                    max = lag.max(max);
                    lags.push((labels.clone(), lag));
                }
                if let Some(offset) = it.committed.and_then(|offset| u64::try_from(offset).ok()) {
                    committed.push((labels, offset));
                }
            }
            states.push((format!("group=\"{name}\",state=\"{}\"", group.state), 1));
            of_groups.push((format!("group=\"{name}\""), group.members as u64, sum, max));
        }
        let by = |value: fn(&(String, u64, u64, u64)) -> u64| -> Vec<(String, u64)> {
            of_groups.iter().map(|it| (it.0.clone(), value(it))).collect()
        };
        let families = [
            (&families::GROUP_STATE, states),
            (&families::GROUP_MEMBERS, by(|it| it.1)),
            (&families::GROUP_LAG_SUM, by(|it| it.2)),
            (&families::GROUP_LAG_MAX, by(|it| it.3)),
            (&families::GROUP_COMMITTED, committed),
            (&families::GROUP_LAG, lags),
        ];
        families.into_iter().flat_map(|(family, lines)| {
            let chunks = lines.len().div_ceil(LINES_A_PIECE);
            (0..chunks).map(move |chunk| {
                let begin = chunk * LINES_A_PIECE;
                let lines = &lines[begin..(begin + LINES_A_PIECE).min(lines.len())];
                piece_of(family, chunk == 0, lines.iter().map(|(labels, value)| (labels.as_str(), *value)))
            })
        })
    }
}

/// Records between what was committed and the end that clients see; without a commit, all that are kept.
fn lag(it: &GroupPartition, stats: &LogStats) -> u64 {
    let from = it.committed.unwrap_or(stats.log_start_offset);
    u64::try_from(stats.high_watermark.saturating_sub(from)).unwrap_or(0)
}

fn piece_of<'a>(family: &Family, first: bool, values: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut piece = String::new();
    if first {
        text::write_head(&mut piece, family);
    }
    for (labels, value) in values {
        let _ = writeln!(piece, "{}{{{labels}}} {value}", family.name);
    }
    piece
}

#[cfg(test)]
mod tests {
    use corelog_storage::Traffic;
    use corelog_wire::Uuid;
    use corelog_wire::metadata_records::{MetadataRecord, PartitionRecord, TopicRecord};

    use super::*;
    use crate::controller::Delta;

    /// Topics a with 3 partitions and b with 2.
    fn image() -> Arc<Image> {
        let mut image = Image::default();
        let mut apply = |record| image.apply(&record, &mut Delta::default()).unwrap();
        for (name, number, partitions) in [("b", 2, 2), ("a", 1, 3)] {
            let topic_id = Uuid::from_random(number << 64 | number);
            let topic = TopicRecord { name: name.into(), topic_id };
            apply(MetadataRecord::TopicRecord(topic));
            for partition_id in 0..partitions {
                let replicas = vec![1];
                let record = PartitionRecord { partition_id, topic_id, replicas, ..Default::default() };
                apply(MetadataRecord::PartitionRecord(record));
            }
        }
        Arc::new(image)
    }

    fn stats(log_start_offset: i64, high_watermark: i64) -> LogStats {
        let traffic = Traffic { bytes_in: 100, records_in: 10, bytes_out: 50, records_out: 5 };
        LogStats {
            log_start_offset,
            high_watermark,
            log_end_offset: high_watermark + 1,
            size_bytes: None,
            traffic,
        }
    }

    fn row(group: &str, subscribed: &[&str], offsets: &[(&str, i32, i64)]) -> GroupRow {
        GroupRow {
            group: group.into(),
            state: "Stable",
            members: 2,
            subscribed: subscribed.iter().map(|topic| Str::from(*topic)).collect(),
            offsets: offsets
                .iter()
                .map(|(topic, partition, at)| (Str::from(*topic), *partition, *at))
                .collect(),
        }
    }

    fn text(limits: MetricsLimits, rows: Vec<GroupRow>) -> String {
        let mut entities = Entities::new(image(), BrokerId(1), limits);
        entities.add_groups(rows);
        let wanted: Vec<LogId> = entities.wanted(3).into_iter().flatten().collect();
        entities.add_stats(wanted.into_iter().map(|log| (log, stats(10, 110))));
        entities.pieces().collect()
    }

    const AMPLE: MetricsLimits = MetricsLimits { partitions_max: 100, group_partitions_max: 100 };

    #[test]
    fn lag_is_counted_from_the_commit_or_else_from_the_logs_start() {
        let text = text(
            AMPLE,
            vec![
                row("g\"1", &["a", "gone"], &[("a", 0, 100), ("gone", 0, 7)]),
                // The same group goes on.
                row("g\"1", &[], &[("a", 1, 200), ("a", 9, 1)]),
                row("idle", &[], &[]),
            ],
        );
        for line in [
            "corelog_group_lag{group=\"g\\\"1\",topic=\"a\",partition=\"0\"} 10",
            // A commit beyond the end is none of a lag.
            "corelog_group_lag{group=\"g\\\"1\",topic=\"a\",partition=\"1\"} 0",
            "corelog_group_lag{group=\"g\\\"1\",topic=\"a\",partition=\"2\"} 100",
            "corelog_group_committed_offset{group=\"g\\\"1\",topic=\"gone\",partition=\"0\"} 7",
            "corelog_group_committed_offset{group=\"g\\\"1\",topic=\"a\",partition=\"1\"} 200",
            "corelog_group_lag_sum{group=\"g\\\"1\"} 110",
            "corelog_group_lag_max{group=\"g\\\"1\"} 100",
            "corelog_group_members{group=\"g\\\"1\"} 2",
            "corelog_group_state{group=\"idle\",state=\"Stable\"} 1",
            "corelog_partition_log_start_offset{topic=\"b\",partition=\"1\"} 10",
            "corelog_partition_high_watermark{topic=\"b\",partition=\"1\"} 110",
            "corelog_partition_log_end_offset{topic=\"b\",partition=\"1\"} 111",
            "corelog_partition_produced_records_total{topic=\"a\",partition=\"2\"} 10",
            "corelog_partition_fetched_bytes_total{topic=\"a\",partition=\"2\"} 50",
            "corelog_metrics_left_out{of=\"partitions\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        for absent in [
            "topic=\"gone\",partition=\"0\"} 0",
            "corelog_partition_size_bytes{",
            "committed_offset{group=\"g\\\"1\",topic=\"a\",partition=\"2\"",
        ] {
            assert!(!text.contains(absent), "{absent}\n{text}");
        }
        assert_eq!(text.matches("# TYPE corelog_group_lag gauge").count(), 1);
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_and_counted() {
        let limits = MetricsLimits { partitions_max: 4, group_partitions_max: 3 };
        let rows = || vec![row("x", &["a"], &[("a", 0, 1)]), row("y", &["b"], &[]), row("z", &[], &[])];
        let text = text(limits, rows());
        // By name: all of a, and the first of b.
        assert_eq!(text.matches("corelog_partition_high_watermark{").count(), 4);
        assert!(text.contains("corelog_partition_high_watermark{topic=\"b\",partition=\"0\"}"), "{text}");
        assert_eq!(text.matches("corelog_group_lag{group=\"x\"").count(), 3);
        for line in [
            "corelog_metrics_left_out{of=\"partitions\"} 1",
            "corelog_metrics_left_out{of=\"groups\"} 2",
            "corelog_metrics_left_out{of=\"group_partitions\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let off = MetricsLimits { partitions_max: 0, group_partitions_max: 0 };
        assert!(!Entities::new(image(), BrokerId(1), off).wants_groups());
        assert!(!self::text(off, vec![]).contains("corelog_partition_"));
    }

    #[test]
    fn large_families_come_in_pieces_with_one_head() {
        let many: Vec<(String, u64)> =
            (0..3 * LINES_A_PIECE as u64).map(|n| (format!("n=\"{n}\""), n)).collect();
        let piece =
            piece_of(&families::GROUP_LAG, true, many.iter().map(|(labels, n)| (labels.as_str(), *n)));
        assert_eq!(piece.matches("# HELP").count(), 1);
        assert_eq!(piece.lines().count(), 2 + many.len());
    }
}
