//! DescribeCluster (KIP-700, KIP-1073).

use corelog_wire::ErrorCode;
use corelog_wire::messages::describe_cluster_response::Broker;
use corelog_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::brokers::Node;
use super::context::Context;
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
    let broker =
        |Node { id, host, port, rack }, is_fenced| Broker { broker_id: id.0, host, port, rack, is_fenced };
    let there = context.nodes().into_iter().map(|node| broker(node, false));
    let mut brokers: Vec<Broker> = there.collect();
    if request.include_fenced_brokers {
        brokers.extend(context.fenced_nodes().into_iter().map(|node| broker(node, true)));
        brokers.sort_unstable_by_key(|broker| broker.broker_id);
    }
    DescribeClusterResponse {
        cluster_id: shard.identity.cluster_id.as_str().into(),
        controller_id: shard.identity.node_id,
        brokers,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            Resource::Cluster.operations()
        } else {
            OPERATIONS_UNKNOWN
        },
        ..Default::default()
    }
}
