//! Joining and syncing: what members tell each other through the coordinator, and the leader's part.

use super::{Change, JOIN_GRACE, Membership, millis};
use crate::consumer::assignor::{Assignments, Assignor, Member};
use crate::core::UNKNOWN_TOPIC_PATIENCE;
use crate::driver;
use crate::error::{Error, Result};
use crate::topic_partition::{TopicPartition, by_topic};
use bytes::Bytes;
use corelog_wire::consumer_protocol::consumer_protocol_assignment as assignment;
use corelog_wire::consumer_protocol::consumer_protocol_subscription as subscription;
use corelog_wire::consumer_protocol::{self, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use corelog_wire::messages::{
    JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, join_group_request, sync_group_request,
};
use corelog_wire::{ErrorCode, Str};
use std::collections::{BTreeMap, BTreeSet};

/// Newest version of subscriptions: with generation and rack.
const SUBSCRIPTION_VERSION: i16 = 3;
/// Assignments are the same in all versions: every client reads the first.
const ASSIGNMENT_VERSION: i16 = 0;
const PROTOCOL_TYPE: Str = Str::from_static("consumer");

impl Membership {
    pub(super) async fn join_once(
        &mut self,
        topics: &BTreeSet<Str>,
    ) -> std::result::Result<JoinGroupResponse, Change> {
        let what = format!("join group {:?}", self.group);
        loop {
            let connection = self.connection().await?;
            let version = connection.pick::<JoinGroupRequest>().map_err(Change::Failed)?;
            let config = &self.shared.config;
            let mut protocols = Vec::new();
            for assignor in &config.assignors {
                let metadata = self.subscription(topics, *assignor).map_err(Change::Failed)?;
                protocols.push(join_group_request::Protocol { name: assignor.name().into(), metadata });
            }
            let request = JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: millis(config.session_timeout),
                rebalance_timeout_ms: millis(config.poll_interval_max),
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
                protocol_type: PROTOCOL_TYPE,
                protocols,
                reason: None,
            };
            let timeout = config.poll_interval_max.max(config.session_timeout) + JOIN_GRACE;
            let call = connection.call_version(&request, version, timeout);
            let response = self.answered(&connection, call).await?;
            match ErrorCode(response.error_code) {
                ErrorCode::NONE => return Ok(response),
                ErrorCode::MEMBER_ID_REQUIRED
                    if self.member_id.is_empty() && !response.member_id.is_empty() =>
                {
                    self.member_id = response.member_id.detach();
                }
                ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => return Err(Change::Lost),
                code => return Err(self.failed(Error::broker(code, what))),
            }
        }
    }

    fn subscription(&self, topics: &BTreeSet<Str>, assignor: Assignor) -> Result<Bytes> {
        let owned = by_topic(self.owned.iter().map(|at| (at.clone(), ())));
        let owned = owned.into_iter().map(|(topic, partitions)| subscription::TopicPartition {
            topic,
            partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
        });
        let subscription = ConsumerProtocolSubscription {
            topics: topics.iter().cloned().collect(),
            // Kafka's Java clients look for the generation here.
            user_data: assignor
                .is_cooperative()
                .then(|| Bytes::copy_from_slice(&self.generation.to_be_bytes())),
            owned_partitions: owned.collect(),
            generation_id: self.generation,
            rack_id: self.shared.config.rack.as_deref().map(Str::from),
        };
        Ok(consumer_protocol::to_bytes(&subscription, SUBSCRIPTION_VERSION)?)
    }

    /// As leader: shares out the partitions of all topics that members subscribe to.
    pub(super) async fn assign(
        &self,
        response: &JoinGroupResponse,
        protocol: &str,
    ) -> Result<(Assignments, Option<BTreeMap<Str, i32>>)> {
        let assignor = self.shared.config.assignors.iter().find(|assignor| assignor.name() == protocol);
        let Some(assignor) = assignor else {
            let what = format!("group {:?} chose the assignor {protocol:?}", self.group);
            return Err(Error::config(
                what,
                "offer it in `assignors`, or restart the other members with ours",
            ));
        };
        let members: Vec<Member> = response
            .members
            .iter()
            .map(|it| {
                // One that cannot be read gets nothing; the others are not to suffer.
                let told = consumer_protocol::from_bytes::<ConsumerProtocolSubscription>(it.metadata.clone());
                member(
                    it.member_id.detach(),
                    it.group_instance_id.as_ref().map(Str::detach),
                    told.unwrap_or_default(),
                )
            })
            .collect();
        let topics: BTreeSet<Str> = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let topics: Vec<Str> = topics.into_iter().collect();
        topics.iter().for_each(|topic| self.core.want(topic));
        self.find(&topics, &members).await?;
        let counts = self.counts(topics.iter());
        Ok((assignor.assign(&members, &counts), Some(counts)))
    }

    /// Learns of topics anew. One that was there a moment ago and is not now is waited for until that is to be believed: else all members
    /// would give up its partitions because one broker has not heard of it yet.
    async fn find(&self, topics: &[Str], members: &[Member]) -> Result<()> {
        let owned = members.iter().flat_map(|member| &member.owned).map(|at| at.topic.clone());
        let last =
            self.counts.iter().flatten().filter(|(_, count)| **count > 0).map(|(topic, _)| topic.clone());
        let known: BTreeSet<Str> = owned.chain(last).filter(|topic| topics.contains(topic)).collect();
        let what = format!("find the topics of group {:?}", self.group);
        let patience = driver::now() + UNKNOWN_TOPIC_PATIENCE;
        let found = self.core.retry(&what, self.core.deadline(), async || {
            self.core.refresh(Some(topics)).await?;
            match self.counts(known.iter()).into_iter().find(|(_, count)| *count == 0) {
                Some((topic, _)) if driver::now() < patience => {
                    Err(Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, format!("find topic {topic:?}")))
                }
                _ => Ok(()),
            }
        });
        found.await
    }

    pub(super) fn counts<'a>(&self, topics: impl Iterator<Item = &'a Str>) -> BTreeMap<Str, i32> {
        let metadata = self.core.metadata.borrow();
        let count = |topic: &Str| metadata.topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32);
        topics.map(|topic| (topic.clone(), count(topic))).collect()
    }

    pub(super) async fn sync(
        &mut self,
        protocol: Str,
        assignments: Assignments,
    ) -> std::result::Result<BTreeSet<TopicPartition>, Change> {
        let what = format!("sync with group {:?}", self.group);
        let connection = self.connection().await?;
        let mut encoded = Vec::new();
        for (member_id, partitions) in assignments {
            let topics = by_topic(partitions.into_iter().map(|at| (at, ())));
            let topics = topics.into_iter().map(|(topic, partitions)| assignment::TopicPartition {
                topic,
                partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
            });
            let value = ConsumerProtocolAssignment { assigned_partitions: topics.collect(), user_data: None };
            let bytes = consumer_protocol::to_bytes(&value, ASSIGNMENT_VERSION);
            let assignment = bytes.map_err(|error| Change::Failed(error.into()))?;
            encoded.push(sync_group_request::Assignment { member_id, assignment });
        }
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE),
            protocol_name: Some(protocol),
            assignments: encoded,
        };
        let version = connection.pick::<SyncGroupRequest>().map_err(Change::Failed)?;
        let timeout =
            self.shared.config.poll_interval_max.max(self.shared.config.session_timeout) + JOIN_GRACE;
        let response =
            self.answered(&connection, connection.call_version(&request, version, timeout)).await?;
        match ErrorCode(response.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::REBALANCE_IN_PROGRESS => return Err(Change::Rebalance),
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION => return Err(Change::Lost),
            code => return Err(self.failed(Error::broker(code, what))),
        }
        if response.assignment.is_empty() {
            return Ok(BTreeSet::new());
        }
        let assigned = consumer_protocol::from_bytes::<ConsumerProtocolAssignment>(response.assignment);
        let decoded = |source| Error::Decode { address: connection.address.clone(), source };
        let assigned = assigned.map_err(|source| Change::Failed(decoded(source)))?;
        let mut partitions = BTreeSet::new();
        for topic in assigned.assigned_partitions {
            let name = topic.topic.detach();
            partitions.extend(topic.partitions.iter().map(|it| TopicPartition::new(name.clone(), *it)));
        }
        Ok(partitions)
    }
}

fn member(id: Str, instance_id: Option<Str>, told: ConsumerProtocolSubscription) -> Member {
    let mut owned = Vec::new();
    for topic in &told.owned_partitions {
        let name = topic.topic.detach();
        owned.extend(topic.partitions.iter().map(|it| TopicPartition::new(name.clone(), *it)));
    }
    // Before version 2 Kafka's clients put it there.
    let user_data = told.user_data.as_deref().and_then(|data| data.first_chunk().copied());
    let generation =
        if told.generation_id >= 0 { told.generation_id } else { user_data.map_or(-1, i32::from_be_bytes) };
    Member { id, instance_id, topics: told.topics.iter().map(Str::detach).collect(), owned, generation }
}
