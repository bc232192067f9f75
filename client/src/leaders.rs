//! Questions that each partition's leader has to answer, and the offsets asked for that way.

use crate::core::{Core, Lane, Node, UNKNOWN_TOPIC_PATIENCE};
use crate::driver;
use crate::error::{Error, Result};
use crate::net::Connection;
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use corelog_wire::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, list_offsets_request,
};
use corelog_wire::{ErrorCode, Str};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

pub(crate) type Answers<T> = Vec<(TopicPartition, Result<T>)>;

/// Asks the leader of each partition, all brokers at once, and again where the answer says that it may come later.
///
/// Answers are in order of partitions. `ask` gets one broker's share; partitions that it gives no answer for count as not led by that broker.
pub(crate) async fn ask_leaders<I: Clone, T>(
    core: &Rc<Core>,
    what: &str,
    items: Vec<(TopicPartition, I)>,
    deadline: Instant,
    ask: impl AsyncFn(Rc<Connection>, Vec<(TopicPartition, I)>) -> Result<Answers<T>>,
) -> Answers<T> {
    let started = driver::now();
    let mut left: BTreeMap<TopicPartition, I> = items.into_iter().collect();
    let mut answers = Vec::with_capacity(left.len());
    let mut failed: BTreeMap<TopicPartition, Error> = BTreeMap::new();
    for turn in 0.. {
        let stale = if turn == 0 {
            left.keys()
                .filter(|it| core.metadata.borrow().leader(&it.topic, it.partition).is_none())
                .collect()
        } else {
            left.keys().collect::<Vec<_>>()
        };
        let stale: Vec<Str> =
            stale.into_iter().map(|it| it.topic.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        if !stale.is_empty() {
            match driver::timeout_at(deadline, core.refresh(Some(&stale))).await {
                Some(Ok(told)) => {
                    for partition in left.keys() {
                        let code = match told.get(&partition.topic) {
                            Some(Err(code)) => *code,
                            Some(Ok(topic)) if topic.partition(partition.partition).is_none() => {
                                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                            }
                            _ => ErrorCode::LEADER_NOT_AVAILABLE,
                        };
                        failed
                            .insert(partition.clone(), Error::broker(code, format!("{what} of {partition}")));
                    }
                }
                Some(Err(error)) => failed.extend(left.keys().map(|it| (it.clone(), error.clone()))),
                None => {}
            }
        }
        let mut shares: BTreeMap<i32, Vec<(TopicPartition, I)>> = BTreeMap::new();
        for (partition, item) in &left {
            let leader = core.metadata.borrow().leader(&partition.topic, partition.partition);
            if let Some((leader, _)) = leader {
                shares.entry(leader).or_default().push((partition.clone(), item.clone()));
            }
        }
        let asked = join_all(shares.into_iter().map(async |(leader, share)| {
            let partitions: Vec<TopicPartition> =
                share.iter().map(|(partition, _)| partition.clone()).collect();
            let asked = async {
                let connection = core.connection(Node::Id(leader), Lane::SHARED).await?;
                ask(connection, share).await
            };
            let timed_out =
                || Error::Timeout { what: what.to_owned(), after: driver::elapsed(started), last: None };
            match driver::timeout_at(deadline, asked).await.unwrap_or_else(|| Err(timed_out())) {
                Ok(answers) => answers,
                Err(error) => partitions.into_iter().map(|it| (it, Err(error.clone()))).collect(),
            }
        }));
        for (partition, answer) in asked.await.into_iter().flatten() {
            match answer {
                Err(error) if error.is_retriable() => drop(failed.insert(partition, error)),
                answer => {
                    if left.remove(&partition).is_some() {
                        answers.push((partition, answer));
                    }
                }
            }
        }
        // An unknown topic is believed soon, anything else only at the deadline.
        let now = driver::now();
        left.retain(|partition, _| {
            let error = failed.get(partition).cloned();
            let unknown = error.as_ref().and_then(Error::code) == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            let over = now >= deadline || (unknown && now >= started + UNKNOWN_TOPIC_PATIENCE);
            if over {
                let what = format!("{what} of {partition}");
                let timed_out = || Error::Timeout { what, after: driver::elapsed(started), last: None };
                answers.push((partition.clone(), Err(error.unwrap_or_else(timed_out))));
            }
            !over
        });
        if left.is_empty() {
            break;
        }
        driver::sleep_until(deadline.min(driver::now() + core.backoff(turn))).await;
    }
    answers.sort_by(|(a, _), (b, _)| a.cmp(b));
    answers
}

/// Which offset of a partition to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first that is there.
    Earliest,
    /// The one that the next record gets; with read_committed, the last stable offset.
    Latest,
    /// Of the record with the greatest timestamp.
    MaxTimestamp,
    /// The first whose timestamp is at or after this, in milliseconds since 1970.
    Timestamp(i64),
}

impl OffsetSpec {
    /// As ListOffsets encodes it (KIP-79, KIP-734).
    fn on_the_wire(self) -> i64 {
        match self {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Timestamp(timestamp) => timestamp.max(0),
        }
    }
}

/// What a leader said of an [`OffsetSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// None if no record is at or after the timestamp, or there is none at all for the greatest one.
    pub offset: Option<i64>,
    /// The record's, for questions by time.
    pub timestamp: Option<i64>,
    pub leader_epoch: Option<i32>,
}

/// Whether uncommitted transactions are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn on_the_wire(self) -> i8 {
        match self {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        }
    }
}

pub(crate) async fn list_offsets(
    core: &Rc<Core>,
    items: Vec<(TopicPartition, OffsetSpec)>,
    isolation: Isolation,
    deadline: Instant,
) -> Answers<ListedOffset> {
    ask_leaders(core, "list offsets", items, deadline, async |connection, share| {
        list_offsets_on(core, &connection, share, isolation).await
    })
    .await
}

/// One try, with one leader.
pub(crate) async fn list_offsets_on(
    core: &Core,
    connection: &Connection,
    share: Vec<(TopicPartition, OffsetSpec)>,
    isolation: Isolation,
) -> Result<Answers<ListedOffset>> {
    // Version 0 knows no offset by timestamp, only by segment; version 7 the greatest timestamp.
    let version = connection.pick::<ListOffsetsRequest>()?;
    let partition = |topic: &Str, partition, spec: OffsetSpec| list_offsets_request::Partition {
        partition_index: partition,
        current_leader_epoch: core.metadata.borrow().leader(topic, partition).map_or(-1, |(_, epoch)| epoch),
        timestamp: spec.on_the_wire(),
        max_num_offsets: 1,
    };
    let topics = by_topic(share).into_iter().map(|(name, partitions)| list_offsets_request::Topic {
        partitions: partitions.into_iter().map(|(index, spec)| partition(&name, index, spec)).collect(),
        name,
    });
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: if version >= 2 { isolation.on_the_wire() } else { 0 },
        topics: topics.collect(),
        timeout_ms: core.config.request_timeout.as_millis().try_into().unwrap_or(i32::MAX),
    };
    let response = connection.call_version(&request, version, core.config.request_timeout).await?;
    Ok(listed(response))
}

/// Where an epoch ends in a leader's log (KIP-320).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochEnd {
    At {
        offset: i64,
        /// The latest up to the one asked for that the log has.
        epoch: i32,
    },
    /// The leader knows nothing of the epoch.
    Unknown,
    /// The broker cannot be asked.
    Unsupported,
}

/// From this version on consumers may ask.
const EPOCH_ENDS_FROM: i16 = 3;

/// One try, with one leader. Items are the leader's epoch, and the one whose end is asked for.
pub(crate) async fn epoch_ends_on(
    core: &Core,
    connection: &Connection,
    share: Vec<(TopicPartition, (i32, i32))>,
) -> Result<Answers<EpochEnd>> {
    let version = match connection.pick::<OffsetForLeaderEpochRequest>() {
        Ok(version) if version >= EPOCH_ENDS_FROM => version,
        Ok(_) | Err(Error::Unsupported { .. }) => {
            return Ok(share.into_iter().map(|(at, _)| (at, Ok(EpochEnd::Unsupported))).collect());
        }
        Err(error) => return Err(error),
    };
    let partition = |(partition, (current_leader_epoch, leader_epoch))| OffsetForLeaderPartition {
        partition,
        current_leader_epoch,
        leader_epoch,
    };
    let topics = by_topic(share).into_iter().map(|(topic, partitions)| OffsetForLeaderTopic {
        topic,
        partitions: partitions.into_iter().map(partition).collect(),
    });
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: topics.collect() };
    let response = connection.call_version(&request, version, core.config.request_timeout).await?;
    let mut answers = Vec::new();
    for topic in response.topics {
        let name = topic.topic.detach();
        for it in topic.partitions {
            let at = TopicPartition { topic: name.clone(), partition: it.partition };
            let checked = Error::check(it.error_code, || format!("validate the position in {at}"));
            let end = match it.leader_epoch >= 0 && it.end_offset >= 0 {
                true => EpochEnd::At { offset: it.end_offset, epoch: it.leader_epoch },
                false => EpochEnd::Unknown,
            };
            answers.push((at, checked.map(|()| end)));
        }
    }
    Ok(answers)
}

fn listed(response: ListOffsetsResponse) -> Answers<ListedOffset> {
    let mut answers = Vec::new();
    for topic in response.topics {
        let name = topic.name.detach();
        for partition in topic.partitions {
            let at = TopicPartition { topic: name.clone(), partition: partition.partition_index };
            let checked = Error::check(partition.error_code, || format!("list offsets of {at}"));
            let offset = partition.old_style_offsets.first().copied().unwrap_or(partition.offset);
            let listed = checked.map(|()| ListedOffset {
                offset: (offset >= 0).then_some(offset),
                timestamp: (partition.timestamp >= 0).then_some(partition.timestamp),
                leader_epoch: (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
            });
            answers.push((at, listed));
        }
    }
    answers
}
