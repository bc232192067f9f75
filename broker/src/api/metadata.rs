//! Metadata (KIP-4, KIP-516): brokers, topics and where their partitions are led.

use std::collections::BTreeSet;
use std::sync::Arc;

use corelog_io::yield_if_needed;
use corelog_wire::messages::metadata_request;
use corelog_wire::messages::metadata_response::{Broker, Partition, Topic};
use corelog_wire::messages::{MetadataRequest, MetadataResponse};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::brokers::Node;
use super::context::{Context, wait_for_changes};
use crate::access::Resource;
use crate::controller::{ChangeError, Image, Terms, TopicImage, is_internal};
use crate::ids::BrokerId;
use crate::{topic_creation, topic_name};

/// Authorized operations were not asked for (KIP-430).
pub const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// For topics that a request has created.
const CREATION_MAX_MS: i32 = 3_000;

/// First version that asks for topics by id alone, and can answer without a name.
const NULL_NAMES_FROM: i16 = 12;

pub async fn handle(context: Context, mut request: MetadataRequest) -> MetadataResponse {
    let shard = &context.shard;
    let version = context.api_version;
    if may_create(&context, request.allow_auto_topic_creation) && names_unknown(&shard.image(), &request) {
        request = wait_for_changes(&context, request).await;
    }
    // Version 0 had no null: an empty list asked for all topics.
    let wanted = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    if version < NULL_NAMES_FROM
        && let Some(topics) = &wanted
        && topics.iter().any(|topic| topic.name.is_none())
    {
        return refuse(topics, ErrorCode::INVALID_REQUEST);
    }
    let nodes = context.nodes();
    let terms = creation_terms(&context);
    let mut topics = Vec::new();
    match wanted {
        None => {
            let image = shard.image();
            topics.extend(image.topics().map(|topic| describe(topic, &nodes)));
        }
        Some(wanted) => {
            let mut seen = BTreeSet::new();
            for topic in wanted {
                // Of one that is named by its id the name does not count.
                let by_id = version >= NULL_NAMES_FROM && !topic.topic_id.is_zero();
                let name = topic.name.as_ref().filter(|_| !by_id).cloned();
                if seen.insert((name, topic.topic_id)) {
                    yield_if_needed().await;
                    topics.push(one(&context, &nodes, topic, request.allow_auto_topic_creation, terms).await);
                }
            }
        }
    }
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = Resource::Topic.operations();
        }
    }
    let brokers = nodes.into_iter();
    let brokers = brokers.map(|Node { id, host, port, rack }| Broker { node_id: id.0, host, port, rack });
    MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(shard.identity.cluster_id.as_str().into()),
        controller_id: shard.identity.node_id,
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            Resource::Cluster.operations()
        } else {
            OPERATIONS_UNKNOWN
        },
        ..Default::default()
    }
}

/// Every topic refused, as Kafka answers a request that it does not accept at all.
fn refuse(topics: &[metadata_request::Topic], code: ErrorCode) -> MetadataResponse {
    let topics = topics.iter().map(|topic| Topic {
        error_code: code.0,
        // There was no null for a name yet.
        name: Some(topic.name.clone().unwrap_or_default()),
        ..Default::default()
    });
    MetadataResponse { topics: topics.collect(), ..Default::default() }
}

/// Topics that are created on the way: a client that waits for them knows of no leaders meanwhile, so that all of a request's
/// take no longer together than a cluster needs to elect who decides.
fn creation_terms(context: &Context) -> Terms {
    let is_alone = context.shard.member.is_none();
    if is_alone { Terms::MAKE } else { Terms::new(false, Some(CREATION_MAX_MS)) }
}

/// Who has a topic created by asking for it asks again for what has no leader yet, and for the rest not always.
fn not_created(error: &ChangeError) -> ErrorCode {
    match error.code {
        ErrorCode::NOT_CONTROLLER | ErrorCode::REQUEST_TIMED_OUT => ErrorCode::LEADER_NOT_AVAILABLE,
        code => code,
    }
}

/// Before version 4 a request could not say: the broker's config alone decided.
fn may_create(context: &Context, asked: bool) -> bool {
    context.shard.config().auto_create_topics && (asked || context.api_version < 4)
}

fn names_unknown(image: &Image, request: &MetadataRequest) -> bool {
    let mut named = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
    named.any(|name| image.topic(name).is_none())
}

async fn one(
    context: &Context,
    nodes: &[Node],
    wanted: metadata_request::Topic,
    create: bool,
    terms: Terms,
) -> Topic {
    let shard = &context.shard;
    let image: Arc<Image> = shard.image();
    let refuse = |code: ErrorCode, name: Option<Str>, id: Uuid| Topic {
        error_code: code.0,
        is_internal: name.as_deref().is_some_and(is_internal),
        name,
        topic_id: id,
        ..Default::default()
    };
    let Some(name) = wanted.name else {
        return match image.topic_by_id(wanted.topic_id) {
            Some(topic) => describe(topic, nodes),
            None => refuse(ErrorCode::UNKNOWN_TOPIC_ID, None, wanted.topic_id),
        };
    };
    if context.api_version >= NULL_NAMES_FROM && !wanted.topic_id.is_zero() {
        return match image.topic_by_id(wanted.topic_id) {
            Some(topic) => describe(topic, nodes),
            None => refuse(ErrorCode::UNKNOWN_TOPIC_ID, None, wanted.topic_id),
        };
    }
    if let Some(topic) = image.topic(&name) {
        return describe(topic, nodes);
    }
    if topic_name::check(&name).is_err() {
        return refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, Some(name), Uuid::default());
    }
    if !may_create(context, create) {
        return refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, Some(name), Uuid::default());
    }
    match topic_creation::auto_create(shard, &context.asker(), name.clone(), terms).await {
        Ok(topic) => describe(&topic, nodes),
        Err(error) => refuse(not_created(&error), Some(name), Uuid::default()),
    }
}

fn describe(topic: &TopicImage, nodes: &[Node]) -> Topic {
    let partitions = topic.partitions.iter().enumerate().map(|(index, partition)| {
        let leader = Node::leading(nodes, partition);
        Partition {
            // A leader that is away is none to a client.
            error_code: leader.map_or(ErrorCode::LEADER_NOT_AVAILABLE, |_| ErrorCode::NONE).0,
            partition_index: index as i32,
            leader_id: BrokerId::number(leader.map(|leader| leader.id)),
            leader_epoch: partition.leader_epoch.0,
            replica_nodes: BrokerId::numbers(&partition.replicas),
            isr_nodes: BrokerId::numbers(&partition.isr),
            offline_replicas: Node::offline(nodes, partition),
        }
    });
    Topic {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        is_internal: is_internal(&topic.name),
        partitions: partitions.collect(),
        ..Default::default()
    }
}
