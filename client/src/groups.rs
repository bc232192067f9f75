//! Committed offsets: fetched and committed by admin tools and by consumers alike.

use crate::core::{CoordinatorType, Core, Lane};
use crate::error::{Error, Result};
use crate::net::Connection;
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::messages::{
    OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse, offset_commit_request, offset_fetch_request,
};
use corelog_wire::{ErrorCode, Str};
use std::collections::BTreeMap;

/// Version 10 names topics by id alone, which says nothing of offsets whose topic is gone.
const VERSION_MAX: i16 = 9;

/// What a group has committed for a partition: the next record to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    pub leader_epoch: Option<i32>,
    /// A note of whoever committed it.
    pub metadata: String,
}

/// An offset to be committed: the next record to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOffset {
    pub offset: i64,
    /// Of the last record read, where known; lets brokers and consumers notice that the log was cut since.
    pub leader_epoch: Option<i32>,
    pub metadata: String,
}

impl From<i64> for NewOffset {
    fn from(offset: i64) -> NewOffset {
        NewOffset { offset, leader_epoch: None, metadata: String::new() }
    }
}

/// A group, and the member of it in whose name a producer commits offsets in a transaction (KIP-447).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub group: String,
    /// -1 for nobody's, as with partitions that were assigned by hand.
    pub generation: i32,
    /// Empty for nobody's.
    pub member_id: String,
    pub instance_id: Option<String>,
}

impl GroupMetadata {
    /// In nobody's name.
    pub fn new(group: impl Into<String>) -> GroupMetadata {
        GroupMetadata { group: group.into(), generation: -1, member_id: String::new(), instance_id: None }
    }
}

/// In whose name offsets are committed: a member's, or nobody's, which works while the group has no members.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    pub(crate) member_id: Str,
    pub(crate) instance_id: Option<Str>,
    pub(crate) generation: i32,
}

impl Committer {
    pub(crate) fn nobody() -> Committer {
        Committer { member_id: Str::new(), instance_id: None, generation: -1 }
    }
}

/// Of the partitions asked for, or of all, those that have something committed. Any failed partition fails the call.
pub(crate) async fn committed(
    core: &Core,
    group: &Str,
    partitions: Option<&[TopicPartition]>,
    stable: bool,
) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
    let what = format!("read the offsets of group {group:?}");
    core.retry(&what, core.deadline(), async || {
        let mut committed = BTreeMap::new();
        for (at, found) in committed_once(core, group, partitions, stable).await? {
            if let Some(found) = found? {
                committed.insert(at, found);
            }
        }
        Ok(committed)
    })
    .await
}

/// One try, with what each partition came to: none where nothing is committed.
pub(crate) async fn committed_once(
    core: &Core,
    group: &Str,
    partitions: Option<&[TopicPartition]>,
    stable: bool,
) -> Result<BTreeMap<TopicPartition, Result<Option<CommittedOffset>>>> {
    let what = format!("read the offsets of group {group:?}");
    let asked = async {
        let connection = core.coordinator(CoordinatorType::Group, group, Lane::SHARED).await?;
        fetch(core, &connection, group, partitions, stable, &what).await
    };
    let found = asked.await.inspect_err(|error| forget_on(core, group, error))?;
    found.values().filter_map(|found| found.as_ref().err()).for_each(|error| forget_on(core, group, error));
    Ok(found)
}

pub(crate) fn forget_on(core: &Core, group: &Str, error: &Error) {
    if error.is_retriable() {
        core.forget_coordinator(CoordinatorType::Group, group);
    }
}

async fn fetch(
    core: &Core,
    connection: &Connection,
    group: &Str,
    partitions: Option<&[TopicPartition]>,
    stable: bool,
    what: &str,
) -> Result<BTreeMap<TopicPartition, Result<Option<CommittedOffset>>>> {
    let version = connection.pick_max::<OffsetFetchRequest>(VERSION_MAX)?;
    let topics = partitions.map(|all| by_topic(all.iter().map(|one| (one.clone(), ()))));
    let indexes = |partitions: Vec<(i32, ())>| partitions.into_iter().map(|(index, ())| index).collect();
    let mut request = OffsetFetchRequest { require_stable: stable && version >= 7, ..Default::default() };
    if version < 8 {
        request.group_id = group.clone();
        let topic =
            |(name, partitions)| offset_fetch_request::Topic { name, partition_indexes: indexes(partitions) };
        request.topics = topics.map(|topics| topics.into_iter().map(topic).collect());
    } else {
        let topic = |(name, partitions)| offset_fetch_request::Topics {
            name,
            partition_indexes: indexes(partitions),
            ..Default::default()
        };
        request.groups = vec![offset_fetch_request::Group {
            group_id: group.clone(),
            topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
            ..Default::default()
        }];
    }
    let response = connection.call_version(&request, version, core.config.request_timeout).await?;
    let found = flatten(response, what)?.into_iter().map(|(partition, code, offset)| {
        let checked = Error::check(code, || format!("{what} for {partition}"));
        (partition, checked.map(|()| Some(offset).filter(|it| it.offset >= 0)))
    });
    Ok(found.collect())
}

type Fetched = (TopicPartition, i16, CommittedOffset);

fn flatten(mut response: OffsetFetchResponse, what: &str) -> Result<Vec<Fetched>> {
    Error::check(response.error_code, || what.to_owned())?;
    let mut fetched = Vec::new();
    let mut add = |topic: &Str, partition, code, offset, epoch: i32, metadata: Option<Str>| {
        let committed = CommittedOffset {
            offset,
            leader_epoch: (epoch >= 0).then_some(epoch),
            metadata: metadata.as_deref().unwrap_or_default().to_owned(),
        };
        fetched.push((TopicPartition { topic: topic.clone(), partition }, code, committed));
    };
    for topic in response.topics {
        let name = topic.name.detach();
        for it in topic.partitions {
            let epoch = it.committed_leader_epoch;
            add(&name, it.partition_index, it.error_code, it.committed_offset, epoch, it.metadata);
        }
    }
    if let Some(group) = response.groups.pop() {
        Error::check(group.error_code, || what.to_owned())?;
        for topic in group.topics {
            let name = topic.name.detach();
            for it in topic.partitions {
                let epoch = it.committed_leader_epoch;
                add(&name, it.partition_index, it.error_code, it.committed_offset, epoch, it.metadata);
            }
        }
    }
    Ok(fetched)
}

/// Commits offsets. The outcome of each partition is told; what can be retried is.
pub(crate) async fn commit(
    core: &Core,
    group: &Str,
    committer: &Committer,
    offsets: &BTreeMap<TopicPartition, NewOffset>,
) -> Result<Vec<(TopicPartition, Result<()>)>> {
    let what = format!("commit offsets of group {group:?}");
    core.retry(&what, core.deadline(), async || {
        let outcomes = commit_once(core, group, committer, offsets).await?;
        let retriable = outcomes.iter().find_map(|(_, outcome)| {
            let error = outcome.as_ref().err()?;
            let is_final = error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            (error.is_retriable() && !is_final).then(|| error.clone())
        });
        retriable.map_or(Ok(outcomes), Err)
    })
    .await
}

/// One try, with what each partition came to.
pub(crate) async fn commit_once(
    core: &Core,
    group: &Str,
    committer: &Committer,
    offsets: &BTreeMap<TopicPartition, NewOffset>,
) -> Result<Vec<(TopicPartition, Result<()>)>> {
    let what = format!("commit offsets of group {group:?}");
    let asked = async {
        let connection = core.coordinator(CoordinatorType::Group, group, Lane::SHARED).await?;
        commit_on(core, &connection, group, committer, offsets, &what).await
    };
    let outcomes = asked.await.inspect_err(|error| forget_on(core, group, error))?;
    let failed = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
    failed.for_each(|error| forget_on(core, group, error));
    Ok(outcomes)
}

async fn commit_on(
    core: &Core,
    connection: &Connection,
    group: &Str,
    committer: &Committer,
    offsets: &BTreeMap<TopicPartition, NewOffset>,
    what: &str,
) -> Result<Vec<(TopicPartition, Result<()>)>> {
    let version = connection.pick_max::<OffsetCommitRequest>(VERSION_MAX)?;
    let partition = |(partition_index, new): (i32, &NewOffset)| offset_commit_request::Partition {
        partition_index,
        committed_offset: new.offset,
        committed_leader_epoch: new.leader_epoch.unwrap_or(-1),
        committed_metadata: Some(new.metadata.as_str().into()),
        ..Default::default()
    };
    let topics = by_topic(offsets.iter().map(|(partition, new)| (partition.clone(), new)));
    let request = OffsetCommitRequest {
        group_id: group.clone(),
        generation_id_or_member_epoch: committer.generation,
        member_id: committer.member_id.clone(),
        group_instance_id: committer.instance_id.clone().filter(|_| version >= 7),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| offset_commit_request::Topic {
                name,
                partitions: partitions.into_iter().map(partition).collect(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let response = connection.call_version(&request, version, core.config.request_timeout).await?;
    let mut outcomes = Vec::new();
    for topic in response.topics {
        let name = topic.name.detach();
        for partition in topic.partitions {
            let at = TopicPartition { topic: name.clone(), partition: partition.partition_index };
            let outcome = Error::check(partition.error_code, || format!("{what} for {at}"));
            outcomes.push((at, outcome));
        }
    }
    Ok(outcomes)
}
