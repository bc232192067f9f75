//! InitProducerId (KIP-98, KIP-360) for idempotent producers.

use corelog_wire::ErrorCode;
use corelog_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};
use corelog_wire::records::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID};

use super::context::Context;
use super::unbuilt::Unbuilt;

pub async fn handle(context: Context, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let refuse = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.0,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    };
    if let Some(id) = &request.transactional_id {
        if id.is_empty() {
            return refuse(ErrorCode::INVALID_REQUEST);
        }
        // Clients look for the coordinator first, and learn it there; this is for those that do not.
        Unbuilt::Transactions.tell(&context);
        return refuse(ErrorCode::UNSUPPORTED_VERSION);
    }
    // A producer that has an id and an epoch names both (KIP-360); it gets a new id all the same.
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH) {
        return refuse(ErrorCode::INVALID_REQUEST);
    }
    match context.shard.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(error) => {
            context.shard.sparingly("no producer id", move |left_out| {
                tracing::warn!(%error, left_out, "no producer id");
            });
            refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE)
        }
    }
}
