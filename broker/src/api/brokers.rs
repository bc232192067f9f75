//! The brokers of the cluster, as answers name them, and where clients are sent that came to the wrong one.

use corelog_wire::fetch::{LeaderIdAndEpoch, NodeEndpoint};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::context::Context;
use crate::controller::image::PartitionImage;
use crate::controller::{BrokerImage, Endpoint};
use crate::ids::BrokerId;
use crate::partition::Leadership;
use crate::shard::Shard;

/// Of a broker that is nowhere; as Kafka's clients have it.
const NO_PORT: i32 = -1;

/// A broker, and how the client that asks is to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: BrokerId,
    pub host: Str,
    pub port: i32,
    pub rack: Option<Str>,
}

impl Node {
    /// The one that leads a partition, if it is there.
    pub fn leading<'a>(nodes: &'a [Node], partition: &PartitionImage) -> Option<&'a Node> {
        nodes.iter().find(|node| Some(node.id) == partition.leader)
    }

    /// The replicas of a partition whose brokers are not there.
    pub fn offline(nodes: &[Node], partition: &PartitionImage) -> Vec<i32> {
        let is_there = |id: &BrokerId| nodes.iter().any(|node| node.id == *id);
        partition.replicas.iter().filter(|id| !is_there(id)).map(|id| id.0).collect()
    }
}

/// Every broker that is there, for clients that come in through `listener`, in the order of their ids: the others as they
/// registered, this one as it is.
fn nodes(shard: &Shard, listener: usize) -> Vec<Node> {
    let (image, own) = (shard.image(), shard.registration());
    let name = &shard.config().listeners[listener].name;
    let others = image.brokers_there().filter(|broker| broker.id != own.id);
    let reached = |broker: &BrokerImage| {
        let Endpoint { host, port } = broker.endpoints.get(name.as_str())?.clone();
        Some(Node { id: broker.id, host, port: port.into(), rack: broker.rack.clone() })
    };
    let mut nodes: Vec<Node> = others.chain([&own]).filter_map(reached).collect();
    nodes.sort_unstable_by_key(|node| node.id);
    nodes
}

impl Context {
    /// Every broker that is there.
    pub fn nodes(&self) -> Vec<Node> {
        nodes(&self.shard, self.connection.listener)
    }

    /// Every broker of the cluster that is not there, and where it was; one that never came was nowhere.
    pub fn fenced_nodes(&self) -> Vec<Node> {
        let (shard, own) = (&self.shard, self.shard.broker());
        let (image, config) = (shard.image(), shard.config());
        let name = config.listeners[self.connection.listener].name.as_str();
        let fenced = image.brokers.values().filter(|broker| broker.fenced && broker.id != own);
        let was = |broker: &BrokerImage| {
            let (host, port) = match broker.endpoints.get(name) {
                Some(Endpoint { host, port }) => (host.clone(), i32::from(*port)),
                None => (Str::default(), NO_PORT),
            };
            Node { id: broker.id, host, port, rack: broker.rack.clone() }
        };
        fenced.map(was).collect()
    }
}

/// Who leads the partitions that an answer refuses (KIP-951), so that its client need not ask for metadata first.
pub struct LeaderHints<'a> {
    shard: &'a Shard,
    listener: usize,
    /// How to reach them.
    pub endpoints: Vec<NodeEndpoint>,
}

impl<'a> LeaderHints<'a> {
    /// For a client that comes in through `listener`.
    pub fn new(shard: &'a Shard, listener: usize) -> LeaderHints<'a> {
        LeaderHints { shard, listener, endpoints: Vec::new() }
    }

    /// What to say beside an error: of a topic that is named by one of the two.
    pub fn beside(&mut self, code: i16, topic: &str, id: Uuid, partition: i32) -> LeaderIdAndEpoch {
        let none = LeaderIdAndEpoch::default();
        let is_hinted = |hinted: ErrorCode| hinted.0 == code;
        if ![ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::FENCED_LEADER_EPOCH].into_iter().any(is_hinted) {
            return none;
        }
        let (image, broker) = (self.shard.image(), self.shard.broker());
        let topic = image.topic_by_id(id).or_else(|| image.topic(topic));
        let Some(found) = topic.and_then(|topic| topic.partition(partition)) else { return none };
        let Leadership { epoch, leader, .. } = Leadership::of(found, broker);
        match leader {
            // One that stops, or does not know yet that it is to lead, has nobody to send its clients to.
            Some(leader) if leader != broker || is_hinted(ErrorCode::FENCED_LEADER_EPOCH) => {
                self.tell_endpoint(leader);
                LeaderIdAndEpoch { leader_id: leader.0, leader_epoch: epoch.0 }
            }
            _ => none,
        }
    }

    fn tell_endpoint(&mut self, leader: BrokerId) {
        if self.endpoints.iter().any(|told| told.node_id == leader.0) {
            return;
        }
        let found = nodes(self.shard, self.listener).into_iter().find(|node| node.id == leader);
        if let Some(Node { id, host, port, rack }) = found {
            self.endpoints.push(NodeEndpoint { node_id: id.0, host, port, rack });
        }
    }
}
