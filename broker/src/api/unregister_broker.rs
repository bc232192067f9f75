//! UnregisterBroker (KIP-500): a broker that is gone is no part of the cluster any more.

use corelog_wire::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::context::{Context, told};
use crate::controller::{Change, Terms};
use crate::ids::BrokerId;

pub async fn handle(context: Context, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let broker = BrokerId(request.broker_id);
    let audited = context.change("unregister broker", &broker.0.to_string(), String::new());
    let made = context.shard.change(Change::Unregister(broker), Terms::MAKE).await;
    audited.done(&made);
    match made {
        Ok(_) => UnregisterBrokerResponse::default(),
        Err(error) => UnregisterBrokerResponse {
            error_code: error.code.0,
            error_message: told(error.message),
            ..Default::default()
        },
    }
}
