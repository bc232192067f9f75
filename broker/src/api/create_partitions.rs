//! CreatePartitions (KIP-195).

use std::collections::HashMap;

use corelog_wire::messages::create_partitions_request::Topic;
use corelog_wire::messages::create_partitions_response::TopicResult;
use corelog_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::{Context, told};
use crate::controller::{Change, ChangeError, Terms};
use crate::ids::BrokerId;

pub async fn handle(context: Context, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut named: HashMap<Str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let terms = Terms::new(request.validate_only, Some(request.timeout_ms));
    let mut results: Vec<TopicResult> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let result = match named.remove(&name) {
            // Answered with the first of its name.
            None => continue,
            Some(1) => create(&context, topic, terms).await,
            Some(_) => Err(ChangeError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.")),
        };
        results.push(match result {
            Ok(()) => TopicResult { name, ..Default::default() },
            Err(error) => TopicResult { name, error_code: error.code.0, error_message: told(error.message) },
        });
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

async fn create(context: &Context, topic: Topic, terms: Terms) -> Result<(), ChangeError> {
    let shard = &context.shard;
    let image = shard.image();
    let Some(current) = image.topic(&topic.name) else {
        let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        return Err(ChangeError::new(code, code.message()));
    };
    let details = format!("partitions={}, before={}", topic.count, current.partitions.len());
    let audited = (!terms.validate_only).then(|| context.change("create partitions", &topic.name, details));
    let assigned = topic
        .assignments
        .map(|all| all.iter().map(|one| BrokerId::of_numbers(&one.broker_ids).to_vec()).collect());
    let change = Change::CreatePartitions { topic: topic.name, count: topic.count, assigned };
    let created = shard.change(change, terms).await;
    if let Some(audited) = audited {
        audited.done(&created);
    }
    created.map(drop)
}
