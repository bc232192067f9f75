//! A cluster that is only told of: three brokers at one address, whose replicas move when they are asked for, as far as the test lets
//! them. It answers what administration asks; nothing is written to it.
// One thread per connection, for tests: no data core.
#![allow(clippy::disallowed_types)]
// Each suite uses its part.
#![allow(dead_code)]

use super::{encoded, read_request};
use corelog_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::describe_configs_response::{DescribeConfigsResult, ResourceResult};
use corelog_wire::messages::describe_quorum_response::{PartitionData, ReplicaState, TopicData};
use corelog_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use corelog_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use corelog_wire::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use corelog_wire::messages::*;
use corelog_wire::{ApiKey, ErrorCode, Reader, RequestHeader};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// The one topic that there is.
pub const TOPIC: &str = "t";

#[derive(Clone, Debug, Default)]
pub struct FakePartition {
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Where its replicas are to be, and how often this is still said.
    pub target: Option<(Vec<i32>, u32)>,
}

#[derive(Default)]
pub struct State {
    pub partitions: Vec<FakePartition>,
    pub fenced: BTreeSet<i32>,
    pub unregistered: BTreeSet<i32>,
    pub draining: BTreeSet<i32>,
    /// Whether the controller's group has a leader.
    pub has_no_quorum: bool,
    /// What was asked for, in order.
    pub asked: Vec<ApiKey>,
    port: u16,
}

#[derive(Clone)]
pub struct FakeCluster {
    pub address: String,
    pub state: Arc<Mutex<State>>,
}

impl FakeCluster {
    /// Partitions with these replicas, all in sync, led by the first.
    pub fn start(partitions: &[&[i32]]) -> FakeCluster {
        let partition = |replicas: &&[i32]| FakePartition {
            leader: replicas[0],
            replicas: replicas.to_vec(),
            isr: replicas.to_vec(),
            target: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            partitions: partitions.iter().map(partition).collect(),
            port: address.port(),
            ..Default::default()
        };
        let cluster = FakeCluster { address: address.to_string(), state: Arc::new(Mutex::new(state)) };
        let state = cluster.state.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || {
                    while let Some((header, mut reader)) = read_request(&mut stream) {
                        let answer = state.lock().unwrap().answer(&header, &mut reader);
                        if stream.write_all(&answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        cluster
    }
}

fn read<M: Message>(reader: &mut Reader, version: i16) -> M {
    M::decode(reader, version).unwrap()
}

impl State {
    fn brokers(&self) -> impl Iterator<Item = i32> + use<'_> {
        (1..=3).filter(|id| !self.unregistered.contains(id))
    }

    fn answer(&mut self, header: &RequestHeader, reader: &mut Reader) -> Vec<u8> {
        let (version, id) = (header.api_version, header.correlation_id);
        let api = ApiKey::from_i16(header.api_key).unwrap();
        self.asked.push(api);
        match api {
            ApiKey::ApiVersions => encoded(&api_versions(), version, id),
            ApiKey::Metadata => encoded(&self.metadata(), version, id),
            ApiKey::DescribeCluster => encoded(&self.cluster(read(reader, version)), version, id),
            ApiKey::DescribeQuorum => encoded(&self.quorum(), version, id),
            ApiKey::DescribeConfigs => encoded(&self.configs(read(reader, version)), version, id),
            ApiKey::IncrementalAlterConfigs => encoded(&self.alter(read(reader, version)), version, id),
            ApiKey::AlterPartitionReassignments => {
                encoded(&self.reassign(read(reader, version)), version, id)
            }
            ApiKey::ListPartitionReassignments => encoded(&self.reassignments(), version, id),
            ApiKey::ElectLeaders => encoded(&self.elect(read(reader, version)), version, id),
            ApiKey::UnregisterBroker => encoded(&self.unregister(read(reader, version)), version, id),
            other => panic!("not asked for: {other}"),
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let there = self.brokers().filter(|id| !self.fenced.contains(id));
        let partition = |(at, it): (i32, &FakePartition)| metadata_response::Partition {
            partition_index: at,
            leader_id: it.leader,
            replica_nodes: it.replicas.clone(),
            isr_nodes: it.isr.clone(),
            ..Default::default()
        };
        MetadataResponse {
            brokers: there
                .map(|node_id| metadata_response::Broker {
                    node_id,
                    host: "127.0.0.1".into(),
                    port: self.port.into(),
                    rack: None,
                })
                .collect(),
            topics: vec![metadata_response::Topic {
                name: Some(TOPIC.into()),
                partitions: (0..).zip(&self.partitions).map(partition).collect(),
                ..Default::default()
            }],
            cluster_id: Some("fake".into()),
            controller_id: 1,
            ..Default::default()
        }
    }

    fn cluster(&self, request: DescribeClusterRequest) -> DescribeClusterResponse {
        let shown = self.brokers().filter(|id| request.include_fenced_brokers || !self.fenced.contains(id));
        let broker = |broker_id| describe_cluster_response::Broker {
            broker_id,
            host: "127.0.0.1".into(),
            port: self.port.into(),
            rack: None,
            is_fenced: self.fenced.contains(&broker_id),
        };
        DescribeClusterResponse { brokers: shown.map(broker).collect(), ..Default::default() }
    }

    fn quorum(&self) -> DescribeQuorumResponse {
        if self.has_no_quorum {
            let error_code = ErrorCode::INVALID_REQUEST.code();
            return DescribeQuorumResponse { error_code, ..Default::default() };
        }
        let voter = |replica_id| ReplicaState { replica_id, log_end_offset: 9, ..Default::default() };
        let partition = PartitionData {
            leader_id: 1,
            leader_epoch: 4,
            high_watermark: 9,
            current_voters: self.brokers().map(voter).collect(),
            ..Default::default()
        };
        let topic = TopicData { topic_name: "__cluster_metadata".into(), partitions: vec![partition] };
        DescribeQuorumResponse { topics: vec![topic], ..Default::default() }
    }

    fn configs(&self, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let config = |name: &str, value: &str| ResourceResult {
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        let result = |asked: describe_configs_request::Resource| {
            let draining = asked.resource_name.parse().is_ok_and(|id: i32| self.draining.contains(&id));
            let configs = match asked.resource_type {
                2 => vec![config("min.insync.replicas", "2")],
                _ => vec![config("corelog.drain", if draining { "true" } else { "false" })],
            };
            DescribeConfigsResult {
                resource_type: asked.resource_type,
                resource_name: asked.resource_name,
                configs,
                ..Default::default()
            }
        };
        DescribeConfigsResponse {
            results: request.resources.into_iter().map(result).collect(),
            ..Default::default()
        }
    }

    /// A broker that drains is empty at once.
    fn alter(&mut self, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
        let resource = request.resources.into_iter().next().unwrap();
        let id: i32 = resource.resource_name.parse().unwrap();
        match resource.configs[0].value.is_some() {
            true => self.draining.insert(id),
            false => self.draining.remove(&id),
        };
        if self.draining.contains(&id) {
            for it in &mut self.partitions {
                it.replicas.retain(|replica| *replica != id);
                it.isr.retain(|replica| *replica != id);
                it.leader = it.replicas[0];
            }
        }
        let response = AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        };
        IncrementalAlterConfigsResponse { responses: vec![response], ..Default::default() }
    }

    /// A move is under way for two looks.
    fn reassign(
        &mut self,
        request: AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse {
        let mut responses = Vec::new();
        for asked in request.topics.into_iter().flat_map(|topic| topic.partitions) {
            let mut answer = ReassignablePartitionResponse {
                partition_index: asked.partition_index,
                ..Default::default()
            };
            let found = self.partitions.get_mut(asked.partition_index as usize);
            match (found, asked.replicas) {
                (None, _) => answer.error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(),
                (Some(it), None) if it.target.is_none() => {
                    answer.error_code = ErrorCode::NO_REASSIGNMENT_IN_PROGRESS.code();
                }
                (Some(it), None) => it.target = None,
                (Some(it), Some(target)) => it.target = Some((target, 2)),
            }
            responses.push(answer);
        }
        let topic = ReassignableTopicResponse { name: TOPIC.into(), partitions: responses };
        AlterPartitionReassignmentsResponse { responses: vec![topic], ..Default::default() }
    }

    fn reassignments(&mut self) -> ListPartitionReassignmentsResponse {
        let mut moving = Vec::new();
        for (partition_index, it) in (0..).zip(&mut self.partitions) {
            match &mut it.target {
                None => {}
                Some((target, 0)) => {
                    let target = std::mem::take(target);
                    (it.leader, it.isr) = (target[0], target.clone());
                    (it.replicas, it.target) = (target, None);
                }
                Some((target, looks)) => {
                    *looks -= 1;
                    let not_in = |all: &[i32], of: &[i32]| -> Vec<i32> {
                        of.iter().copied().filter(|id| !all.contains(id)).collect()
                    };
                    let (adding, removing) = (not_in(&it.replicas, target), not_in(target, &it.replicas));
                    let replicas = target.iter().chain(&removing).copied().collect();
                    moving.push(OngoingPartitionReassignment {
                        partition_index,
                        replicas,
                        adding_replicas: adding,
                        removing_replicas: removing,
                    });
                }
            }
        }
        let topic = OngoingTopicReassignment { name: TOPIC.into(), partitions: moving };
        ListPartitionReassignmentsResponse { topics: vec![topic], ..Default::default() }
    }

    fn elect(&mut self, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let is_named = |at: i32| match &request.topic_partitions {
            Some(topics) => topics.iter().any(|topic| topic.partitions.contains(&at)),
            None => true,
        };
        let mut results = Vec::new();
        for (partition_id, it) in (0..).zip(&mut self.partitions).filter(|(at, _)| is_named(*at)) {
            let is_led_so = it.leader == it.replicas[0];
            it.leader = it.replicas[0];
            if is_led_so && request.topic_partitions.is_none() {
                continue;
            }
            let code = if is_led_so { ErrorCode::ELECTION_NOT_NEEDED } else { ErrorCode::NONE };
            results.push(PartitionResult { partition_id, error_code: code.code(), ..Default::default() });
        }
        let result = ReplicaElectionResult { topic: TOPIC.into(), partition_result: results };
        ElectLeadersResponse { replica_election_results: vec![result], ..Default::default() }
    }

    fn unregister(&mut self, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
        let id = request.broker_id;
        let is_known = self.brokers().any(|known| known == id);
        let code = match () {
            () if !is_known => ErrorCode::BROKER_ID_NOT_REGISTERED,
            () if !self.fenced.contains(&id) => ErrorCode::INVALID_REQUEST,
            () => ErrorCode::NONE,
        };
        if code.is_ok() {
            self.unregistered.insert(id);
        }
        UnregisterBrokerResponse { error_code: code.code(), ..Default::default() }
    }
}

fn api_versions() -> ApiVersionsResponse {
    let apis = [
        (ApiKey::Metadata, 8),
        (ApiKey::ApiVersions, 3),
        (ApiKey::DescribeCluster, 2),
        (ApiKey::DescribeQuorum, 2),
        (ApiKey::DescribeConfigs, 4),
        (ApiKey::IncrementalAlterConfigs, 1),
        (ApiKey::AlterPartitionReassignments, 1),
        (ApiKey::ListPartitionReassignments, 0),
        (ApiKey::ElectLeaders, 2),
        (ApiKey::UnregisterBroker, 0),
    ];
    let api =
        |(key, max_version): (ApiKey, i16)| ApiVersion { api_key: key.into(), min_version: 0, max_version };
    ApiVersionsResponse { api_keys: apis.into_iter().map(api).collect(), ..Default::default() }
}
