//! The APIs: one table drives what ApiVersions advertises, how requests are routed, and what each is allowed on. One file per API holds its handler.

use std::rc::Rc;

use corelog_wire::{ApiKey, ErrorCode, Reader, Request, RequestHeader};

use crate::access::{Access, Operation, Resource};
use crate::net::frame::Frame;
use crate::net::request::{Begun, CloseReason, Connection, Outcome};
use crate::shard::Shard;
use context::{Context, decode, encode};

mod alter_configs;
mod alter_partition_reassignments;
mod api_versions;
mod brokers;
mod context;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
pub mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod group;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod list_partition_reassignments;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod unbuilt;
mod unregister_broker;

/// One request may decode to this part of the shard's receive budget, beside the bytes it came in.
const DECODED_SHARE: u64 = 8;
/// Requests up to this are small: what they decode to is not counted.
const DECODED_UNCOUNTED: usize = 4 << 10;
/// Arrays decode to so many times their bytes at the most.
const DECODED_TIMES: u64 = 24;

/// An API as it is advertised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    pub key: ApiKey,
    pub min_version: i16,
    pub max_version: i16,
    /// What it may do, to what it names: rules allow or forbid each. What needs none may be asked before it is known who asks.
    pub access: &'static [Access],
}

impl Api {
    /// Whether a client may ask for it that has not said who it is.
    pub fn is_for_strangers(&self) -> bool {
        self.access.is_empty()
    }
}

macro_rules! apis {
    (@access $($operation:ident $resource:ident),*) => {
        &[$(Access { operation: Operation::$operation, resource: Resource::$resource }),*]
    };
    (
        $($own_key:ident $own_min:literal - $own_max:literal [$($own_access:tt)*];)*
        --
        $($key:ident $min:literal - $max:literal [$($access:tt)*] => $handler:path;)*
    ) => {
        /// Every API that this broker speaks, in all of its behaviour.
        pub const APIS: &[Api] = &[
            $(Api {
                key: ApiKey::$own_key,
                min_version: $own_min,
                max_version: $own_max,
                access: apis!(@access $($own_access)*),
            },)*
            $(Api {
                key: ApiKey::$key,
                min_version: $min,
                max_version: $max,
                access: apis!(@access $($access)*),
            },)*
        ];

        /// Runs a request of an API other than Produce and Fetch, whose envelopes are their own.
        async fn route(context: Context, header: RequestHeader, key: ApiKey, reader: Reader) -> Outcome {
            match key {
                $(ApiKey::$key => run(context, header, reader, $handler).await,)*
                _ => Outcome::Close(CloseReason::Unsupported {
                    key: header.api_key,
                    version: header.api_version,
                }),
            }
        }
    };
}

apis! {
    Produce 0 - 13 [Write Topic, IdempotentWrite Cluster, Write TransactionalId];
    Fetch 0 - 18 [Read Topic, ClusterAction Cluster];
    --
    ListOffsets 0 - 11 [Describe Topic] => list_offsets::handle;
    Metadata 0 - 13 [Describe Topic, Create Topic, Create Cluster] => metadata::handle;
    OffsetCommit 0 - 10 [Read Group, Read Topic] => group::offset_commit;
    OffsetFetch 0 - 10 [Describe Group, Describe Topic] => group::offset_fetch;
    FindCoordinator 0 - 6 [Describe Group, Describe TransactionalId] => find_coordinator::handle;
    JoinGroup 0 - 9 [Read Group] => group::join;
    Heartbeat 0 - 4 [Read Group] => group::heartbeat;
    LeaveGroup 0 - 5 [Read Group] => group::leave;
    SyncGroup 0 - 5 [Read Group] => group::sync;
    DescribeGroups 0 - 6 [Describe Group] => group::describe;
    ListGroups 0 - 5 [Describe Cluster, Describe Group] => group::list;
    SaslHandshake 0 - 1 [] => unbuilt::sasl_handshake;
    ApiVersions 0 - 4 [] => api_versions::handle;
    CreateTopics 0 - 7 [Create Cluster, Create Topic, DescribeConfigs Topic] => create_topics::handle;
    DeleteTopics 0 - 6 [Delete Topic, Describe Topic] => delete_topics::handle;
    DeleteRecords 0 - 2 [Delete Topic] => delete_records::handle;
    InitProducerId 0 - 5 [Write TransactionalId, IdempotentWrite Cluster] => init_producer_id::handle;
    OffsetForLeaderEpoch 0 - 4 [Describe Topic] => offset_for_leader_epoch::handle;
    DescribeConfigs 0 - 4 [DescribeConfigs Cluster, DescribeConfigs Topic] => describe_configs::handle;
    AlterConfigs 0 - 2 [AlterConfigs Cluster, AlterConfigs Topic] => alter_configs::handle;
    DescribeLogDirs 0 - 5 [Describe Cluster] => describe_log_dirs::handle;
    SaslAuthenticate 0 - 2 [] => unbuilt::sasl_authenticate;
    CreatePartitions 0 - 3 [Alter Topic] => create_partitions::handle;
    DeleteGroups 0 - 2 [Delete Group] => group::delete;
    ElectLeaders 0 - 2 [Alter Cluster] => elect_leaders::handle;
    IncrementalAlterConfigs 0 - 1 [AlterConfigs Cluster, AlterConfigs Topic] => alter_configs::handle_incremental;
    AlterPartitionReassignments 0 - 1 [Alter Cluster] => alter_partition_reassignments::handle;
    ListPartitionReassignments 0 - 0 [Describe Cluster] => list_partition_reassignments::handle;
    OffsetDelete 0 - 0 [Delete Group, Read Topic] => group::offset_delete;
    DescribeQuorum 0 - 2 [Describe Cluster] => describe_quorum::handle;
    DescribeCluster 0 - 2 [Describe Cluster] => describe_cluster::handle;
    UnregisterBroker 0 - 0 [Alter Cluster] => unregister_broker::handle;
    ListConfigResources 0 - 1 [DescribeConfigs Cluster] => list_config_resources::handle;
    ConsumerGroupHeartbeat 0 - 1 [Read Group, Describe Topic] => unbuilt::consumer_group_heartbeat;
    DescribeTopicPartitions 0 - 0 [Describe Topic] => describe_topic_partitions::handle;
}

/// Whether the answer to a request of this API may wait for what other clients do.
fn waits_for_others(api_key: ApiKey) -> bool {
    matches!(api_key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
}

/// Whether a request of this API is answered when the controller has made its changes one after the other, which takes
/// minutes where they are many and the disk is slow. What these decode to has a room of its own, so that nobody else waits
/// as long.
fn waits_for_changes(api_key: ApiKey) -> bool {
    matches!(
        api_key,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ElectLeaders
            | ApiKey::UnregisterBroker
    )
}

/// Takes a frame in: decodes its header and, for a Produce, fixes the order of its batches.
pub async fn begin(shard: &Rc<Shard>, connection: &Rc<Connection>, frame: Frame) -> Begun {
    // What arrays decode to may be many times their bytes; it has a bound of its own.
    let most = shard.receive_budget.total() / DECODED_SHARE;
    let mut reader = Reader::with_memory(frame.bytes, most as usize);
    let header = match RequestHeader::decode(&mut reader) {
        Ok(header) => header,
        Err(error) => return Begun::close(-1, CloseReason::Header(error.to_string())),
    };
    let key = header.api_key;
    let Some(api) = APIS.iter().find(|api| i16::from(api.key) == key) else {
        return Begun::close(key, CloseReason::Unsupported { key, version: header.api_version });
    };
    if !(api.min_version..=api.max_version).contains(&header.api_version) {
        // KIP-511: a client that is newer than this broker learns from a version 0 answer what it may send.
        if api.key == ApiKey::ApiVersions {
            let response = api_versions::response(ErrorCode::UNSUPPORTED_VERSION, 0);
            return Begun::new(key, async move { encode(&response, 0, header.correlation_id) });
        }
        return Begun::close(key, CloseReason::Unsupported { key, version: header.api_version });
    }
    if !connection.is_authenticated() && !api.is_for_strangers() {
        return Begun::close(key, CloseReason::NotAuthenticated { key, version: header.api_version });
    }
    let context = Context {
        shard: shard.clone(),
        connection: connection.clone(),
        api_version: header.api_version,
        client_id: header.client_id.clone(),
        room: frame.room,
    };
    let begun = match api.key {
        ApiKey::Produce => produce::begin(context, header, reader).await,
        ApiKey::Fetch => Begun::new(key, fetch::handle(context, header, reader)),
        api_key => Begun::new(key, route(context, header, api_key, reader)),
    };
    Begun { waits_for_others: waits_for_others(api.key), ..begun }
}

async fn run<R, F, Fut>(context: Context, header: RequestHeader, mut reader: Reader, handler: F) -> Outcome
where
    R: Request,
    F: FnOnce(Context, R) -> Fut,
    Fut: Future<Output = R::Response>,
{
    let (version, correlation_id) = (header.api_version, header.correlation_id);
    if reader.remaining() > DECODED_UNCOUNTED {
        let shard = &context.shard;
        let most = shard.receive_budget.total() / DECODED_SHARE;
        let bytes = most.min(reader.remaining() as u64 * DECODED_TIMES);
        let room = if waits_for_changes(R::API_KEY) { &shard.decoded_changes } else { &shard.decoded };
        context.room.add(room.acquire(bytes).await);
    }
    let request = decode::<R>(&mut reader, version);
    // What is left of the frame is the request's affair: one that waits keeps none of it.
    drop((header, reader));
    match request {
        Ok(request) => {
            let shard = context.shard.clone();
            let response = handler(context, request).await;
            shard.metrics.errors(&response);
            encode(&response, version, correlation_id)
        }
        Err(reason) => Outcome::Close(reason),
    }
}
