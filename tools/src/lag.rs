//! How far groups are behind, by Kafka's protocol alone: OffsetFetch says what is committed, ListOffsets where the
//! partitions begin and end. A partition that members subscribe to and nobody has committed for counts whole.

use crate::table::Table;
use crate::topic::every_partition;
use anyhow::Result;
use corelog_client::{Admin, GroupDescription, Isolation, OffsetSpec, TopicPartition};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Of one group.
#[derive(Default)]
pub struct Lag {
    pub partitions: BTreeMap<TopicPartition, PartitionLag>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionLag {
    pub committed: Option<i64>,
    /// Where nobody has committed.
    start: Option<i64>,
    pub end: Option<i64>,
}

impl PartitionLag {
    /// `None` if the partition's leader does not tell where it ends.
    pub fn records(&self) -> Option<i64> {
        Some((self.end? - self.committed.or(self.start)?).max(0))
    }
}

impl Lag {
    /// Of all partitions whose leaders tell.
    pub fn total(&self) -> i64 {
        self.partitions.values().filter_map(PartitionLag::records).sum()
    }

    /// What is committed and what is assigned, with the distance to the end.
    pub fn table(&self, group: &GroupDescription) -> Table {
        let mut owners: BTreeMap<&TopicPartition, &str> = BTreeMap::new();
        for member in &group.members {
            owners.extend(member.assigned.iter().map(|at| (at, member.client_id.as_str())));
        }
        let mut table = Table::new(&[
            ("topic", "topic"),
            ("partition", "partition"),
            ("committed", "committed"),
            ("end", "end"),
            ("lag", "lag"),
            ("client", "client_id"),
        ]);
        for (at, lag) in &self.partitions {
            table.row([
                json!(at.topic.as_str()),
                json!(at.partition),
                json!(lag.committed),
                json!(lag.end),
                json!(lag.records()),
                json!(owners.get(at)),
            ]);
        }
        table
    }
}

/// The lag of each of `groups`. The ends are asked for once, for all of them, after what is committed: a lag is never
/// too small.
pub async fn of(admin: &Admin, groups: &[GroupDescription]) -> Result<Vec<Lag>> {
    let subscribed = subscribed(admin, groups).await?;
    let mut lags = Vec::with_capacity(groups.len());
    for group in groups {
        let mut lag = Lag::default();
        for (at, committed) in admin.group_offsets(&group.name).await? {
            lag.partitions
                .insert(at, PartitionLag { committed: Some(committed.offset), ..Default::default() });
        }
        for member in &group.members {
            let read = member.topics.iter().filter_map(|topic| subscribed.get(topic)).flatten();
            for at in read.chain(&member.assigned) {
                lag.partitions.entry(at.clone()).or_default();
            }
        }
        lags.push(lag);
    }
    let all = lags.iter().flat_map(|lag| &lag.partitions);
    let without_commit = all.clone().filter(|(_, lag)| lag.committed.is_none()).map(|(at, _)| at.clone());
    let starts = list(admin, without_commit.collect(), OffsetSpec::Earliest).await;
    let ends = list(admin, all.map(|(at, _)| at.clone()).collect(), OffsetSpec::Latest).await;
    for (at, lag) in lags.iter_mut().flat_map(|lag| &mut lag.partitions) {
        lag.start = starts.get(at).copied();
        lag.end = ends.get(at).copied();
    }
    Ok(lags)
}

/// The partitions of every topic that a member subscribes to and that exists.
async fn subscribed(
    admin: &Admin,
    groups: &[GroupDescription],
) -> Result<BTreeMap<String, Vec<TopicPartition>>> {
    let members = groups.iter().flat_map(|group| &group.members);
    let topics: BTreeSet<&str> = members.flat_map(|member| &member.topics).map(String::as_str).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let described = admin.describe_topics(&topics).await?;
    Ok(described
        .into_iter()
        .filter_map(|(name, topic)| Some((name, every_partition(&topic.ok()?))))
        .collect())
}

/// Offsets of partitions, where their leaders tell.
pub async fn list(
    admin: &Admin,
    partitions: BTreeSet<TopicPartition>,
    spec: OffsetSpec,
) -> BTreeMap<TopicPartition, i64> {
    if partitions.is_empty() {
        return BTreeMap::new();
    }
    let asked = partitions.into_iter().map(|at| (at, spec)).collect();
    let listed = admin.list_offsets(asked, Isolation::ReadUncommitted).await;
    listed.into_iter().filter_map(|(at, listed)| Some((at, listed.ok()?.offset?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_from_the_commit_or_the_start() {
        let lag = |committed, start, end| PartitionLag { committed, start, end }.records();
        assert_eq!(lag(Some(3), None, Some(10)), Some(7));
        assert_eq!(lag(None, Some(2), Some(10)), Some(8));
        assert_eq!(lag(Some(12), None, Some(10)), Some(0));
        assert_eq!(lag(Some(3), None, None), None);
        assert_eq!(lag(None, None, Some(10)), None);
    }
}
