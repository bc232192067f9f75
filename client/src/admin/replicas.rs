//! Where the replicas of partitions are, and which of them leads (KIP-455, KIP-460).

use super::{Admin, Outcomes, timeout_ms};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::ErrorCode;
use corelog_wire::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use corelog_wire::messages::elect_leaders_request::TopicPartitions;
use corelog_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use corelog_wire::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
};
use std::collections::BTreeMap;
use std::rc::Rc;

/// ElectLeaders: by the first of a partition's replicas, which is in sync.
const PREFERRED: i8 = 0;

/// A partition whose replicas move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// All that it has for now: those that come and those that go are among them.
    pub replicas: Vec<i32>,
    pub adding: Vec<i32>,
    pub removing: Vec<i32>,
}

impl Reassignment {
    /// The replicas that it is to have.
    pub fn target(&self) -> Vec<i32> {
        self.replicas.iter().copied().filter(|id| !self.removing.contains(id)).collect()
    }
}

impl Admin {
    /// Says where the replicas of partitions are to be, the one that is preferred to lead first; `None` takes back what is under way.
    /// The moves go on after this returns: [`Admin::reassignments`] shows them.
    pub async fn reassign(
        &self,
        targets: Vec<(TopicPartition, Option<Vec<i32>>)>,
    ) -> Result<Outcomes<TopicPartition, ()>> {
        self.handle.call(async move |core| reassign(&core, targets).await).await
    }

    /// Partitions whose replicas move: all, or those given.
    pub async fn reassignments(
        &self,
        of: Option<Vec<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, Reassignment>> {
        self.handle.call(async move |core| reassignments(&core, of).await).await
    }

    /// Has partitions be led by the first of their replicas: all, or those given. Of all, only those are answered for that were not
    /// led so; of those given, one that is led so already is no error.
    pub async fn elect_preferred_leaders(
        &self,
        of: Option<Vec<TopicPartition>>,
    ) -> Result<Outcomes<TopicPartition, ()>> {
        self.handle.call(async move |core| elect(&core, of).await).await
    }
}

async fn reassign(
    core: &Rc<Core>,
    targets: Vec<(TopicPartition, Option<Vec<i32>>)>,
) -> Result<Outcomes<TopicPartition, ()>> {
    let topics = by_topic(targets).into_iter().map(|(name, partitions)| {
        let partition = |(partition_index, replicas)| ReassignablePartition { partition_index, replicas };
        ReassignableTopic { name, partitions: partitions.into_iter().map(partition).collect() }
    });
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: timeout_ms(core),
        topics: topics.collect(),
        ..Default::default()
    };
    let what = "reassign partitions";
    let response = core
        .retry(what, core.deadline(), async || {
            let response = core.controller().await?.call(&request).await?;
            Error::check_with(response.error_code, response.error_message.as_deref(), || what.into())?;
            Ok(response)
        })
        .await?;
    let mut outcomes = Vec::new();
    for topic in response.responses {
        let name = topic.name.detach();
        for partition in topic.partitions {
            let at = TopicPartition { topic: name.clone(), partition: partition.partition_index };
            let what = || format!("reassign {at}");
            let outcome = Error::check_with(partition.error_code, partition.error_message.as_deref(), what);
            outcomes.push((at, outcome));
        }
    }
    Ok(outcomes)
}

async fn reassignments(
    core: &Rc<Core>,
    of: Option<Vec<TopicPartition>>,
) -> Result<BTreeMap<TopicPartition, Reassignment>> {
    let topics = of.map(|of| {
        let topics = by_topic(of.into_iter().map(|at| (at, ()))).into_iter();
        let topic = |(name, partitions): (_, Vec<(i32, ())>)| ListPartitionReassignmentsTopics {
            name,
            partition_indexes: partitions.into_iter().map(|(partition, ())| partition).collect(),
        };
        topics.map(topic).collect()
    });
    let request = ListPartitionReassignmentsRequest { timeout_ms: timeout_ms(core), topics };
    let what = "list reassignments";
    let response = core
        .retry(what, core.deadline(), async || {
            let response = core.controller().await?.call(&request).await?;
            Error::check_with(response.error_code, response.error_message.as_deref(), || what.into())?;
            Ok(response)
        })
        .await?;
    let mut moving = BTreeMap::new();
    for topic in response.topics {
        let name = topic.name.detach();
        for partition in topic.partitions {
            let at = TopicPartition { topic: name.clone(), partition: partition.partition_index };
            let (adding, removing) = (partition.adding_replicas, partition.removing_replicas);
            moving.insert(at, Reassignment { replicas: partition.replicas, adding, removing });
        }
    }
    Ok(moving)
}

async fn elect(core: &Rc<Core>, of: Option<Vec<TopicPartition>>) -> Result<Outcomes<TopicPartition, ()>> {
    let is_for_all = of.is_none();
    let topic_partitions = of.map(|of| {
        let topics = by_topic(of.into_iter().map(|at| (at, ()))).into_iter();
        let topic = |(topic, partitions): (_, Vec<(i32, ())>)| TopicPartitions {
            topic,
            partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
        };
        topics.map(topic).collect()
    });
    // Whoever asks gives up after this time; the broker is to answer before that.
    let timeout_ms = timeout_ms(core) / 2;
    let request = ElectLeadersRequest { election_type: PREFERRED, topic_partitions, timeout_ms };
    let what = "elect leaders";
    let response = core
        .retry(what, core.deadline(), async || {
            let response = core.controller().await?.call(&request).await?;
            Error::check(response.error_code, || what.into())?;
            Ok(response)
        })
        .await?;
    let mut outcomes = Vec::new();
    for topic in response.replica_election_results {
        let name = topic.topic.detach();
        for partition in topic.partition_result {
            let at = TopicPartition { topic: name.clone(), partition: partition.partition_id };
            let what = || format!("elect the leader of {at}");
            let outcome = match ErrorCode(partition.error_code) {
                ErrorCode::ELECTION_NOT_NEEDED if !is_for_all => Ok(()),
                code => Error::check_with(code.0, partition.error_message.as_deref(), what),
            };
            outcomes.push((at, outcome));
        }
    }
    Ok(outcomes)
}
