//! ListConfigResources (KIP-714, KIP-1142): which resources have configs.

use corelog_wire::messages::list_config_resources_response::ConfigResource;
use corelog_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::Context;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
/// Types in the order of Kafka's answer.
const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub async fn handle(context: Context, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let shard = &context.shard;
    // Version 0 knew client metrics alone; later ones list all types if none is named.
    let wanted: Vec<i8> = match (context.api_version, request.resource_types.is_empty()) {
        (0, _) => vec![CLIENT_METRICS],
        (_, true) => ALL.to_vec(),
        _ => request.resource_types,
    };
    if wanted.iter().any(|wanted| !ALL.contains(wanted)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION.0,
            ..Default::default()
        };
    }
    let node: Str = shard.identity.node_id.to_string().into();
    let resource = |resource_type: i8, resource_name: Str| ConfigResource { resource_name, resource_type };
    let mut config_resources = Vec::new();
    for kind in ALL.into_iter().filter(|kind| wanted.contains(kind)) {
        match kind {
            TOPIC => {
                let image = shard.image();
                config_resources.extend(image.topics().map(|topic| resource(TOPIC, topic.name.clone())));
            }
            BROKER | BROKER_LOGGER => config_resources.push(resource(kind, node.clone())),
            // Client metrics subscriptions and group configs come with the APIs that use them.
            _ => {}
        }
    }
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
