//! DescribeCluster (KIP-700).

use corelog_wire::messages::describe_cluster_response::Broker;
use corelog_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};
use corelog_wire::{ErrorCode, Str};

use super::Context;
use super::metadata::OPERATIONS_UNKNOWN;
use crate::access::Resource;

/// `endpoint_type` of KIP-919: this listener is the brokers'.
const ENDPOINT_BROKERS: i8 = 1;
const ENDPOINT_CONTROLLERS: i8 = 2;

pub async fn handle(context: Context, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let shard = &context.shard;
    if request.endpoint_type != ENDPOINT_BROKERS {
        let (code, message) = match request.endpoint_type {
            ENDPOINT_CONTROLLERS => (
                ErrorCode::MISMATCHED_ENDPOINT_TYPE,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                    .to_string(),
            ),
            other => (ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, format!("Unsupported endpoint type {other}")),
        };
        return DescribeClusterResponse {
            error_code: code.0,
            error_message: Some(message.into()),
            endpoint_type: ENDPOINT_BROKERS,
            ..Default::default()
        };
    }
    let (host, port) = shard.advertised(context.connection.listener);
    DescribeClusterResponse {
        cluster_id: shard.identity.cluster_id.as_str().into(),
        controller_id: shard.identity.node_id,
        brokers: vec![Broker {
            broker_id: shard.identity.node_id,
            host,
            port,
            rack: shard.config().rack.as_deref().map(Str::from),
            ..Default::default()
        }],
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            Resource::Cluster.operations()
        } else {
            OPERATIONS_UNKNOWN
        },
        ..Default::default()
    }
}
