//! CreateTopics (KIP-4, KIP-464, KIP-525).

use std::collections::HashMap;

use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use corelog_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::{Context, told};
use super::unbuilt;
use crate::config::TopicConfig;
use crate::config::describe::{self, Wanted};
use crate::controller::{
    ChangeError, Placement, TOPIC_PARTITIONS_MAX, Terms, TopicImage, too_many_partitions,
};
use crate::ids::BrokerId;
use crate::topic_creation;

/// "As the broker's default says", for partitions and replication factor (KIP-464).
const DEFAULT: i32 = -1;

pub async fn handle(context: Context, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: HashMap<Str, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let terms = Terms::new(request.validate_only, Some(request.timeout_ms));
    let mut topics: Vec<CreatableTopicResult> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let result = match named.remove(&name) {
            // Answered with the first of its name.
            None => continue,
            Some(1) => create(&context, topic, terms).await,
            Some(_) => Err(ChangeError::new(ErrorCode::INVALID_REQUEST, "Duplicate topic name.")),
        };
        topics.push(match result {
            Ok(topic) => created(&context, &topic, request.validate_only),
            Err(error) => refused(name, error),
        });
    }
    CreateTopicsResponse { topics, ..Default::default() }
}

async fn create(
    context: &Context,
    topic: CreatableTopic,
    terms: Terms,
) -> Result<std::sync::Arc<TopicImage>, ChangeError> {
    let shard = &context.shard;
    let placement = placement(context, &topic)?;
    let configs: Vec<(&str, Option<&str>)> =
        topic.configs.iter().map(|config| (&*config.name, config.value.as_deref())).collect();
    topic_creation::create(shard, &context.asker(), topic.name.clone(), placement, &configs, terms).await
}

/// Where the partitions asked for are to be: anywhere, or by a manual assignment.
fn placement(context: &Context, topic: &CreatableTopic) -> Result<Placement, ChangeError> {
    if !topic.assignments.is_empty() {
        return assigned(topic);
    }
    let config = context.shard.config();
    let replication_factor = match i32::from(topic.replication_factor) {
        DEFAULT => config.default_replication_factor,
        given if given > 0 => given,
        _ => {
            return Err(ChangeError::new(
                ErrorCode::INVALID_REPLICATION_FACTOR,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
    };
    let partitions = match topic.num_partitions {
        DEFAULT => config.num_partitions,
        count if count > TOPIC_PARTITIONS_MAX => return Err(too_many_partitions(count)),
        count if count > 0 => count,
        _ => {
            return Err(ChangeError::new(
                ErrorCode::INVALID_PARTITIONS,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
    };
    Ok(Placement::Anywhere { partitions, replication_factor })
}

fn assigned(topic: &CreatableTopic) -> Result<Placement, ChangeError> {
    if topic.num_partitions != DEFAULT || i32::from(topic.replication_factor) != DEFAULT {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REQUEST,
            "A manual partition assignment was specified, but num_partitions or replication_factor was not set to -1.",
        ));
    }
    let mut assigned: Vec<_> = topic.assignments.iter().collect();
    assigned.sort_unstable_by_key(|assignment| assignment.partition_index);
    if (0..).zip(&assigned).any(|(place, assignment)| place != assignment.partition_index) {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    match i32::try_from(assigned.len()) {
        Ok(count) if count <= TOPIC_PARTITIONS_MAX => Ok(Placement::Assigned(
            assigned.iter().map(|one| BrokerId::of_numbers(&one.broker_ids).to_vec()).collect(),
        )),
        count => Err(too_many_partitions(count.unwrap_or(i32::MAX))),
    }
}

fn created(context: &Context, topic: &TopicImage, validate_only: bool) -> CreatableTopicResult {
    let shard = &context.shard;
    let image = shard.image();
    let (own, cluster) = image.broker_layers(shard.identity.node_id);
    let layers = shard.settings.layers(own, cluster);
    let described = describe::topic(&layers, &topic.overrides, Wanted(None));
    let configs = described.into_iter().map(|entry| CreatableTopicConfigs {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        config_source: entry.source as i8,
        ..Default::default()
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: if validate_only { Default::default() } else { topic.id },
        error_message: unbuilt::remark(
            context,
            &topic.name,
            TopicConfig::resolve(&layers, &topic.overrides).cleanup_policy.compact,
        )
        .map(Str::from),
        num_partitions: topic.partitions.len() as i32,
        replication_factor: topic.replication_factor() as i16,
        configs: Some(configs.collect()),
        ..Default::default()
    }
}

fn refused(name: Str, error: ChangeError) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code.0,
        error_message: told(error.message),
        configs: Some(Vec::new()),
        ..Default::default()
    }
}
