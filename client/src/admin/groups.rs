//! Consumer groups: list, describe, offsets, delete.

use super::cluster::known;
use super::{Admin, Outcomes, only};
use crate::core::{CoordinatorType, Core};
use crate::error::{Error, Result};
use crate::groups::{self, Committer};
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::consumer_protocol::{self, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use corelog_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use corelog_wire::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest, offset_delete_request,
};
use corelog_wire::{ErrorCode, Str};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::rc::Rc;

pub use crate::groups::{CommittedOffset, NewOffset};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    pub name: String,
    /// `consumer` for consumers; empty for a group that only committed offsets.
    pub protocol_type: String,
    /// Empty where the broker does not say (before KIP-518).
    pub state: String,
    /// `Classic`, `Consumer`; empty where the broker does not say (before KIP-848).
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub name: String,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`.
    pub state: String,
    pub protocol_type: String,
    /// The assignor that the group agreed on.
    pub protocol: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub member_id: String,
    /// Of a static member (KIP-345).
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    /// Topics that it subscribes to; empty if its metadata is not a consumer's.
    pub topics: Vec<String>,
    pub assigned: Vec<TopicPartition>,
}

impl Admin {
    /// The groups of all brokers, by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>> {
        self.handle.call(async |core| list(&core).await).await
    }

    pub async fn describe_groups(&self, names: &[&str]) -> Outcomes<String, GroupDescription> {
        let groups: Vec<Str> = names.iter().map(|name| Str::from(*name)).collect();
        let described = self.handle.call(async move |core| {
            Ok(join_all(
                groups.iter().map(async |group| (String::from(group.clone()), describe(&core, group).await)),
            )
            .await)
        });
        match described.await {
            Ok(outcomes) => outcomes,
            Err(error) => names.iter().map(|name| (name.to_string(), Err(error.clone()))).collect(),
        }
    }

    pub async fn describe_group(&self, name: &str) -> Result<GroupDescription> {
        only(self.describe_groups(&[name]).await, || format!("describe group {name:?}"))
    }

    /// All that a group has committed.
    pub async fn group_offsets(&self, group: &str) -> Result<BTreeMap<TopicPartition, CommittedOffset>> {
        let group = Str::from(group);
        self.handle.call(async move |core| groups::committed(&core, &group, None, false).await).await
    }

    /// Commits offsets in a group's place. The group must have no members; it is made if it does not exist.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: BTreeMap<TopicPartition, NewOffset>,
    ) -> Result<Outcomes<TopicPartition, ()>> {
        let group = Str::from(group);
        let committed = self
            .handle
            .call(async move |core| groups::commit(&core, &group, &Committer::nobody(), &offsets).await);
        committed.await
    }

    /// Forgets what a group has committed for some partitions; no member may subscribe to their topics (KIP-496).
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
    ) -> Result<Outcomes<TopicPartition, ()>> {
        let group = Str::from(group);
        self.handle.call(async move |core| delete_offsets(&core, &group, &partitions).await).await
    }

    /// Deletes groups with all that they have committed. They must have no members.
    pub async fn delete_groups(&self, names: &[&str]) -> Outcomes<String, ()> {
        let groups: Vec<Str> = names.iter().map(|name| Str::from(*name)).collect();
        let deleted = self.handle.call(async move |core| {
            Ok(join_all(
                groups.iter().map(async |group| (String::from(group.clone()), delete(&core, group).await)),
            )
            .await)
        });
        match deleted.await {
            Ok(outcomes) => outcomes,
            Err(error) => names.iter().map(|name| (name.to_string(), Err(error.clone()))).collect(),
        }
    }
}

async fn list(core: &Rc<Core>) -> Result<Vec<GroupListing>> {
    core.retry("list the brokers", core.deadline(), async || core.refresh(Some(&[])).await).await?;
    let brokers: Vec<i32> = core.metadata.borrow().brokers.keys().copied().collect();
    let listed = join_all(brokers.into_iter().map(async |broker| {
        let what = format!("list the groups of broker {broker}");
        core.retry(&what, core.deadline(), async || {
            let connection = known(core, broker).await?;
            let response = connection.call(&ListGroupsRequest::default()).await?;
            Error::check(response.error_code, || what.clone())?;
            Ok(response.groups)
        })
        .await
    }))
    .await;
    // While a coordinator moves, two brokers may list its groups.
    let mut groups = BTreeMap::new();
    for group in listed.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let listing = GroupListing {
            name: group.group_id.as_str().to_owned(),
            protocol_type: group.protocol_type.as_str().to_owned(),
            state: group.group_state.as_str().to_owned(),
            kind: group.group_type.as_str().to_owned(),
        };
        groups.insert(listing.name.clone(), listing);
    }
    Ok(groups.into_values().collect())
}

async fn describe(core: &Rc<Core>, group: &Str) -> Result<GroupDescription> {
    let what = format!("describe group {group:?}");
    let request = |_| DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
    let error_of = |response: &corelog_wire::messages::DescribeGroupsResponse| {
        response.groups.first().map_or(ErrorCode::UNKNOWN_SERVER_ERROR.code(), |group| group.error_code)
    };
    let response = core.call_coordinator(group, &what, request, error_of).await?;
    let described = response.groups.into_iter().next().expect("looked at above");
    // What brokers before KIP-1043 say of a group that they do not know.
    if described.group_state == "Dead" && described.members.is_empty() {
        return Err(Error::broker(ErrorCode::GROUP_ID_NOT_FOUND, what));
    }
    let coordinator = core.known_coordinator(CoordinatorType::Group, group).unwrap_or(-1);
    Ok(description(described, coordinator))
}

fn description(group: DescribedGroup, coordinator: i32) -> GroupDescription {
    let is_consumer = group.protocol_type == "consumer";
    GroupDescription {
        name: group.group_id.as_str().to_owned(),
        state: group.group_state.as_str().to_owned(),
        protocol_type: group.protocol_type.as_str().to_owned(),
        protocol: group.protocol_data.as_str().to_owned(),
        coordinator,
        members: group.members.into_iter().map(|it| member(it, is_consumer)).collect(),
    }
}

fn member(member: DescribedGroupMember, is_consumer: bool) -> GroupMember {
    // Other protocols put what they like there; a consumer's that cannot be read is shown as empty.
    let subscription = consumer_protocol::from_bytes::<ConsumerProtocolSubscription>(member.member_metadata);
    let assignment = consumer_protocol::from_bytes::<ConsumerProtocolAssignment>(member.member_assignment);
    let subscription = subscription.ok().filter(|_| is_consumer).unwrap_or_default();
    let assignment = assignment.ok().filter(|_| is_consumer).unwrap_or_default();
    let mut assigned = Vec::new();
    for topic in assignment.assigned_partitions {
        let name = topic.topic.detach();
        assigned
            .extend(topic.partitions.iter().map(|partition| TopicPartition::new(name.clone(), *partition)));
    }
    assigned.sort();
    GroupMember {
        member_id: member.member_id.as_str().to_owned(),
        instance_id: member.group_instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.as_str().to_owned(),
        host: member.client_host.as_str().to_owned(),
        topics: subscription.topics.iter().map(|topic| topic.as_str().to_owned()).collect(),
        assigned,
    }
}

async fn delete(core: &Rc<Core>, group: &Str) -> Result<()> {
    let what = format!("delete group {group:?}");
    let request = |_| DeleteGroupsRequest { groups_names: vec![group.clone()] };
    let error_of = |response: &corelog_wire::messages::DeleteGroupsResponse| {
        response.results.first().map_or(ErrorCode::UNKNOWN_SERVER_ERROR.code(), |group| group.error_code)
    };
    core.call_coordinator(group, &what, request, error_of).await.map(drop)
}

async fn delete_offsets(
    core: &Rc<Core>,
    group: &Str,
    partitions: &[TopicPartition],
) -> Result<Outcomes<TopicPartition, ()>> {
    let what = format!("delete offsets of group {group:?}");
    let topics = by_topic(partitions.iter().map(|partition| (partition.clone(), ())));
    let topic = |(name, partitions): (Str, Vec<(i32, ())>)| offset_delete_request::Topic {
        name,
        partitions: partitions
            .into_iter()
            .map(|(partition_index, ())| offset_delete_request::Partition { partition_index })
            .collect(),
    };
    let topics: Vec<offset_delete_request::Topic> = topics.into_iter().map(topic).collect();
    let request = |_| OffsetDeleteRequest { group_id: group.clone(), topics: topics.clone() };
    let response = core.call_coordinator(group, &what, request, |response| response.error_code).await?;
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
