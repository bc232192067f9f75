//! FindCoordinator (KIP-98, KIP-699): whoever leads the partition of the coordinator's topic, once that is there.

use std::sync::Arc;

use corelog_wire::messages::find_coordinator_response::Coordinator;
use corelog_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use corelog_wire::{ErrorCode, Str};

use super::brokers::Node;
use super::context::Context;
use super::unbuilt::{self, Unbuilt};
use crate::controller::{Terms, TopicImage};
use crate::groups::group_partition;
use crate::topic_creation;

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

pub async fn handle(context: Context, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let shard = &context.shard;
    let batched = context.api_version >= 4;
    let keys = if batched { request.coordinator_keys } else { vec![request.key] };
    let offsets: Result<Arc<TopicImage>, (ErrorCode, String)> = if request.key_type == KEY_TRANSACTION {
        Unbuilt::Transactions.tell(&context);
        let code = unbuilt::no_transaction_coordinator(context.api_version);
        Err((code, Unbuilt::Transactions.message().to_owned()))
    } else if request.key_type != KEY_GROUP {
        Err((
            ErrorCode::INVALID_REQUEST,
            format!("coordinators of key type {} are not there: only groups (0) are", request.key_type),
        ))
    } else {
        let topic = topic_creation::ensure_offsets_topic(shard, &context.asker(), Terms::MAKE).await;
        topic.map_err(|error| (ErrorCode::COORDINATOR_NOT_AVAILABLE, error.message))
    };
    let nodes = context.nodes();
    let coordinators = keys.into_iter().map(|key| {
        let found = offsets.as_ref().map_err(Clone::clone).and_then(|topic| {
            let unavailable = ErrorCode::COORDINATOR_NOT_AVAILABLE;
            leading(topic, &key, &nodes).ok_or((unavailable, unavailable.message().to_owned()))
        });
        match found {
            Err((code, message)) => Coordinator {
                key,
                node_id: -1,
                port: -1,
                error_code: code.0,
                error_message: Some(message.into()),
                ..Default::default()
            },
            Ok(Node { id, host, port, .. }) => Coordinator {
                key,
                node_id: id.0,
                host: host.clone(),
                port: *port,
                error_message: Some(Str::default()),
                ..Default::default()
            },
        }
    });
    let mut coordinators: Vec<Coordinator> = coordinators.collect();
    if batched {
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let one = coordinators.remove(0);
    // Kafka says "NONE" to a success here, and older clients print it.
    let message = one.error_message.filter(|message| !message.is_empty());
    FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: Some(message.unwrap_or_else(|| Str::from("NONE"))),
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..Default::default()
    }
}

/// The leader of a group's partition, if it is there.
fn leading<'a>(offsets: &TopicImage, group: &str, nodes: &'a [Node]) -> Option<&'a Node> {
    let index = group_partition(group, offsets.partitions.len() as i32);
    Node::leading(nodes, offsets.partition(index)?)
}
