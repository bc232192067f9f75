//! FindCoordinator (KIP-98, KIP-699): with one broker, this one, once the coordinator's topic is there.

use corelog_wire::messages::find_coordinator_response::Coordinator;
use corelog_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use corelog_wire::{ErrorCode, Str};

use super::Context;
use super::unbuilt::{self, Unbuilt};
use crate::topic_creation;

const KEY_GROUP: i8 = 0;
const KEY_TRANSACTION: i8 = 1;

pub async fn handle(context: Context, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let shard = &context.shard;
    let batched = context.api_version >= 4;
    let keys = if batched { request.coordinator_keys } else { vec![request.key] };
    let (host, port) = shard.advertised(context.connection.listener);
    let refusal: Option<(ErrorCode, String)> = if request.key_type == KEY_TRANSACTION {
        Unbuilt::Transactions.tell(&context);
        let code = unbuilt::no_transaction_coordinator(context.api_version);
        Some((code, Unbuilt::Transactions.message().to_owned()))
    } else if request.key_type != KEY_GROUP {
        Some((
            ErrorCode::INVALID_REQUEST,
            format!("coordinators of key type {} are not there: only groups (0) are", request.key_type),
        ))
    } else {
        topic_creation::ensure_offsets_topic(shard, &context.asker())
            .await
            .err()
            .map(|error| (ErrorCode::COORDINATOR_NOT_AVAILABLE, error.message))
    };
    let coordinators = keys.into_iter().map(|key| match &refusal {
        Some((code, message)) => Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: code.0,
            error_message: Some(message.as_str().into()),
            ..Default::default()
        },
        None => Coordinator {
            key,
            node_id: shard.identity.node_id,
            host: host.clone(),
            port,
            error_message: Some(Str::default()),
            ..Default::default()
        },
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
