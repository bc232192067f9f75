//! What is known of the cluster: brokers, topics, leaders.

use crate::hashing::HashMap;
use corelog_wire::messages::MetadataResponse;
use corelog_wire::messages::metadata_response;
use corelog_wire::{ErrorCode, Str, Uuid};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A broker as the cluster's metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    /// Where it says that it can be reached.
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// A topic as the cluster's metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// Zero where the broker knows no ids.
    pub id: Uuid,
    /// Of the broker's own, such as `__consumer_offsets`.
    pub is_internal: bool,
    /// By partition number.
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub partition: i32,
    /// The broker that leads it, or none while there is none.
    pub leader: Option<i32>,
    /// -1 where the broker does not say.
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    /// Replicas that are in sync.
    pub isr: Vec<i32>,
    pub offline_replicas: Vec<i32>,
}

impl Topic {
    pub fn partition(&self, partition: i32) -> Option<&Partition> {
        let at = self.partitions.binary_search_by_key(&partition, |it| it.partition).ok()?;
        self.partitions.get(at)
    }
}

/// Of one topic, what the last answer said.
pub(crate) type TopicState = Result<Rc<Topic>, ErrorCode>;

/// The driver's view. Topics are added as they are asked for.
#[derive(Default)]
pub(crate) struct Metadata {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: BTreeMap<i32, Broker>,
    pub(crate) topics: HashMap<Str, Rc<Topic>>,
}

impl Metadata {
    /// Takes over an answer; returns what it says of topics, by name.
    pub(crate) fn update(&mut self, response: &MetadataResponse) -> HashMap<Str, TopicState> {
        self.cluster_id = response.cluster_id.as_deref().map(str::to_owned);
        self.controller = Some(response.controller_id).filter(|id| *id >= 0);
        self.brokers = response.brokers.iter().filter_map(broker).map(|broker| (broker.id, broker)).collect();
        let mut told = HashMap::default();
        for topic in &response.topics {
            let Some(name) = topic.name.as_ref().map(Str::detach) else { continue };
            let code = ErrorCode(topic.error_code);
            if !code.is_ok() {
                // A leader that is being elected is no news of the topic; one that is gone is.
                if !code.is_retriable() || code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                    self.topics.remove(&name);
                }
                told.insert(name, Err(code));
                continue;
            }
            let topic = Rc::new(self.newer(&name, topic));
            self.topics.insert(name.clone(), topic.clone());
            told.insert(name, Ok(topic));
        }
        told
    }

    /// Of two views of one partition's leader, the one of the later epoch: brokers learn of changes at different times. One that tells no
    /// epoch is not older for it.
    fn newer(&self, name: &str, topic: &metadata_response::Topic) -> Topic {
        let known = self.topics.get(name).filter(|known| known.id == topic.topic_id);
        let mut partitions: Vec<Partition> = topic.partitions.iter().map(partition).collect();
        partitions.sort_by_key(|partition| partition.partition);
        partitions.dedup_by_key(|partition| partition.partition);
        for partition in &mut partitions {
            let known = known.and_then(|known| known.partition(partition.partition));
            let is_older = |known: &&Partition| (0..known.leader_epoch).contains(&partition.leader_epoch);
            if let Some(known) = known.filter(is_older) {
                *partition = known.clone();
            }
        }
        Topic { name: name.to_owned(), id: topic.topic_id, is_internal: topic.is_internal, partitions }
    }

    /// The leader and its epoch.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        self.leader_in(self.topics.get(topic)?, partition)
    }

    /// As [`Metadata::leader`], where the topic is at hand.
    pub(crate) fn leader_in(&self, topic: &Topic, partition: i32) -> Option<(i32, i32)> {
        let partition = topic.partition(partition)?;
        let leader = partition.leader.filter(|leader| self.brokers.contains_key(leader))?;
        Some((leader, partition.leader_epoch))
    }

    pub(crate) fn topic_id(&self, topic: &str) -> Uuid {
        self.topics.get(topic).map_or(Uuid::ZERO, |topic| topic.id)
    }
}

fn broker(broker: &metadata_response::Broker) -> Option<Broker> {
    Some(Broker {
        id: broker.node_id,
        host: broker.host.as_str().to_owned(),
        port: u16::try_from(broker.port).ok()?,
        rack: broker.rack.as_deref().map(str::to_owned),
    })
}

fn partition(partition: &metadata_response::Partition) -> Partition {
    Partition {
        partition: partition.partition_index,
        leader: Some(partition.leader_id).filter(|id| *id >= 0),
        leader_epoch: partition.leader_epoch,
        replicas: partition.replica_nodes.clone(),
        isr: partition.isr_nodes.clone(),
        offline_replicas: partition.offline_replicas.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(epoch: i32, leader: i32, code: ErrorCode) -> MetadataResponse {
        let partition = |index| metadata_response::Partition {
            partition_index: index,
            leader_id: leader,
            leader_epoch: epoch,
            ..Default::default()
        };
        MetadataResponse {
            brokers: vec![metadata_response::Broker { node_id: 1, port: 9, ..Default::default() }],
            topics: vec![metadata_response::Topic {
                error_code: code.code(),
                name: Some("t".into()),
                partitions: vec![partition(1), partition(0)],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn an_older_leader_does_not_replace_a_newer_one() {
        let mut metadata = Metadata::default();
        metadata.update(&response(5, 1, ErrorCode::NONE));
        assert_eq!(metadata.leader("t", 1), Some((1, 5)));
        metadata.update(&response(4, 2, ErrorCode::NONE));
        assert_eq!(metadata.leader("t", 1), Some((1, 5)));
        metadata.update(&response(6, 2, ErrorCode::NONE));
        assert_eq!(metadata.leader("t", 1), None, "broker 2 is not known");
        assert_eq!(metadata.leader("t", 2), None);
        metadata.update(&response(-1, 1, ErrorCode::NONE));
        assert_eq!(metadata.leader("t", 1), Some((1, -1)), "it tells no epoch");
    }

    #[test]
    fn topics_that_are_gone_are_forgotten() {
        let mut metadata = Metadata::default();
        metadata.update(&response(5, 1, ErrorCode::NONE));
        metadata.update(&response(5, 1, ErrorCode::LEADER_NOT_AVAILABLE));
        assert!(metadata.topics.contains_key("t"));
        let told = metadata.update(&response(5, 1, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert!(!metadata.topics.contains_key("t"));
        assert_eq!(told["t"], Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }
}
