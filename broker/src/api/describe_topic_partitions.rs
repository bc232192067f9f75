//! DescribeTopicPartitions (KIP-966): topics in pages.

use std::collections::BTreeSet;

use corelog_io::yield_if_needed;
use corelog_wire::messages::describe_topic_partitions_request::TopicRequest;
use corelog_wire::messages::describe_topic_partitions_response::{Cursor, Partition, Topic};
use corelog_wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use corelog_wire::{ErrorCode, Str};

use super::brokers::Node;
use super::context::Context;
use crate::access::Resource;
use crate::controller::is_internal;
use crate::ids::BrokerId;
use crate::topic_name;

pub async fn handle(
    context: Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let shard = &context.shard;
    let image = shard.image();
    let (first_topic, first_partition) = match request.cursor {
        Some(cursor) => {
            let named = |topic: &TopicRequest| topic.name == cursor.topic_name;
            let among = request.topics.is_empty() || request.topics.iter().any(named);
            if cursor.partition_index < 0 || !among {
                return refuse(request.topics);
            }
            (cursor.topic_name, cursor.partition_index)
        }
        None => (Str::default(), 0),
    };
    // All topics, if none is named; in the order of their names, so that a cursor means something.
    let names: BTreeSet<Str> = if request.topics.is_empty() {
        image.topics_from(&first_topic).map(|topic| topic.name.clone()).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).filter(|name| *name >= first_topic).collect()
    };
    let mut room = request.response_partition_limit.clamp(1, shard.config().describe_partitions_max as i32);
    let nodes = context.nodes();
    let mut topics = Vec::new();
    let mut next_cursor = None;
    let mut names = names.into_iter().peekable();
    while let Some(name) = names.next() {
        yield_if_needed().await;
        let Some(topic) = image.topic(&name) else {
            let code = if topic_name::check(&name).is_ok() {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            } else {
                ErrorCode::INVALID_TOPIC_EXCEPTION
            };
            topics.push(Topic {
                error_code: code.0,
                name: Some(name),
                topic_authorized_operations: Resource::Topic.operations(),
                ..Default::default()
            });
            continue;
        };
        let start = if name == first_topic { first_partition } else { 0 };
        let count = topic.partitions.len() as i32;
        let end = count.min(start.saturating_add(room));
        let partitions = (start..end).map(|index| {
            let partition = &topic.partitions[index as usize];
            Partition {
                partition_index: index,
                leader_id: BrokerId::number(Node::leading(&nodes, partition).map(|leader| leader.id)),
                leader_epoch: partition.leader_epoch.0,
                replica_nodes: BrokerId::numbers(&partition.replicas),
                isr_nodes: BrokerId::numbers(&partition.isr),
                eligible_leader_replicas: Some(Vec::new()),
                last_known_elr: Some(Vec::new()),
                offline_replicas: Node::offline(&nodes, partition),
                ..Default::default()
            }
        });
        let partitions: Vec<_> = partitions.collect();
        room -= partitions.len() as i32;
        topics.push(Topic {
            name: Some(name.clone()),
            topic_id: topic.id,
            is_internal: is_internal(&name),
            partitions,
            topic_authorized_operations: Resource::Topic.operations(),
            ..Default::default()
        });
        if end < count {
            next_cursor = Some(Cursor { topic_name: name, partition_index: end });
            break;
        }
        if room == 0 {
            // The next topic, if there is one, begins the next page.
            next_cursor = names.next().map(|topic_name| Cursor { topic_name, partition_index: 0 });
            break;
        }
    }
    DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() }
}

/// For a cursor at a negative partition, or at none of the topics.
fn refuse(topics: Vec<TopicRequest>) -> DescribeTopicPartitionsResponse {
    let topics = topics.into_iter().map(|topic| Topic {
        error_code: ErrorCode::INVALID_REQUEST.0,
        name: Some(topic.name),
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}
