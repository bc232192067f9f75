//! What the controller is asked to change, and the decision: a pure function of the image.

use corelog_wire::metadata_records::{
    ConfigRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::image::{Image, RESOURCE_BROKER, RESOURCE_TOPIC};
use super::is_internal;
use crate::config::ConfigMap;
use crate::config::alter::Alteration;
use crate::topic_name;

/// Partitions that one topic may have, so that a change fits one batch of the controller's log.
pub const TOPIC_PARTITIONS_MAX: i32 = 10_000;
/// Producer ids that a shard takes at once.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A refusal, as the client is told it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ChangeError {
    pub code: ErrorCode,
    pub message: String,
}

impl ChangeError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ChangeError {
        ChangeError { code, message: message.into() }
    }
}

/// A topic to create, already checked for what the request alone can tell.
#[derive(Debug, Clone)]
pub struct NewTopic {
    pub name: Str,
    pub partitions: i32,
    pub overrides: ConfigMap,
}

/// What configs are set on.
#[derive(Debug, Clone, PartialEq)]
pub enum ResourceKey {
    Topic(Str),
    /// "" for the cluster-wide default.
    Broker(String),
}

/// What is to change of a resource's configs: gets the image and the values set on the resource itself.
pub type AlterConfigs = Box<dyn FnOnce(&Image, &ConfigMap) -> Result<Vec<Alteration>, ChangeError> + Send>;

/// One change. It is whole or not there, and is carried out whether or not anybody waits for it.
pub enum Change {
    CreateTopic(NewTopic),
    DeleteTopic {
        id: Uuid,
    },
    /// Raises the partition count of a topic to `count`.
    CreatePartitions {
        topic: Str,
        count: i32,
    },
    AlterConfigs {
        resource: ResourceKey,
        change: AlterConfigs,
    },
    /// [`PRODUCER_ID_BLOCK`] ids that nobody has had, up to the resulting image's `next_producer_id`.
    TakeProducerIds,
}

/// What decisions go by beside the image.
pub struct Limits {
    pub node_id: i32,
    pub partitions_max: usize,
}

impl Change {
    /// The records that make the change, in one batch; none where nothing is to change.
    pub fn decide(self, image: &Image, limits: &Limits) -> Result<Vec<MetadataRecord>, ChangeError> {
        match self {
            Change::CreateTopic(new) => create_topic(image, limits, new),
            Change::DeleteTopic { id } => {
                image.topic_by_id(id).ok_or_else(unknown_topic)?;
                Ok(vec![MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: id })])
            }
            Change::CreatePartitions { topic, count } => create_partitions(image, limits, &topic, count),
            Change::AlterConfigs { resource, change } => alter_configs(image, resource, change),
            Change::TakeProducerIds => Ok(vec![MetadataRecord::ProducerIdsRecord(ProducerIdsRecord {
                broker_id: limits.node_id,
                broker_epoch: -1,
                next_producer_id: image.next_producer_id + PRODUCER_ID_BLOCK,
            })]),
        }
    }
}

fn create_topic(image: &Image, limits: &Limits, new: NewTopic) -> Result<Vec<MetadataRecord>, ChangeError> {
    if image.topic(&new.name).is_some() {
        return Err(ChangeError::new(
            ErrorCode::TOPIC_ALREADY_EXISTS,
            format!("Topic '{}' already exists.", new.name),
        ));
    }
    if let Some(existing) = topic_name::collision(&new.name, image.topics.keys().map(|name| &**name)) {
        return Err(ChangeError::new(
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            format!("Topic '{}' collides with existing topic: {existing}", new.name),
        ));
    }
    check_room(image, limits, new.partitions)?;
    let id = Uuid::from_random((corelog_io::random_u64() as u128) << 64 | corelog_io::random_u64() as u128);
    // Names come out of request frames: an image must not keep those alive.
    let name = new.name.detach();
    let mut records = vec![MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: id })];
    records.extend((0..new.partitions).map(|partition| partition_record(id, partition, limits.node_id, 0)));
    records.extend(config_records(RESOURCE_TOPIC, name, &new.overrides));
    Ok(records)
}

fn create_partitions(
    image: &Image,
    limits: &Limits,
    topic: &Str,
    count: i32,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let topic = image.topic(topic).ok_or_else(unknown_topic)?;
    let have = topic.partitions.len() as i32;
    if count <= have {
        let message = if count == have {
            format!("Topic already has {have} partition(s).")
        } else {
            format!(
                "The topic {} currently has {have} partition(s); {count} would not be an increase.",
                topic.name
            )
        };
        return Err(ChangeError::new(ErrorCode::INVALID_PARTITIONS, message));
    }
    if is_internal(&topic.name) {
        // Most groups would move to another partition, where nothing is known of them.
        return Err(ChangeError::new(
            ErrorCode::INVALID_PARTITIONS,
            format!(
                "The {have} partitions of {} are fixed while the topic lives: which of them holds a group's members \
                 and offsets follows from their number. offsets.topic.num.partitions sets it when the topic is created.",
                topic.name
            ),
        ));
    }
    if count > TOPIC_PARTITIONS_MAX {
        return Err(too_many_partitions(count));
    }
    check_room(image, limits, count - have)?;
    Ok((have..count).map(|partition| partition_record(topic.id, partition, limits.node_id, 0)).collect())
}

fn alter_configs(
    image: &Image,
    resource: ResourceKey,
    change: AlterConfigs,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let none = ConfigMap::new();
    let (resource_type, resource_name, current) = match &resource {
        ResourceKey::Topic(name) => {
            let topic = image.topic(name).ok_or_else(|| {
                ChangeError::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("The topic '{name}' does not exist."),
                )
            })?;
            (RESOURCE_TOPIC, topic.name.clone(), &topic.overrides)
        }
        ResourceKey::Broker(name) => {
            (RESOURCE_BROKER, name.as_str().into(), image.broker_overrides.get(name).unwrap_or(&none))
        }
    };
    let altered = change(image, current)?;
    let records = altered.into_iter().map(|altered| {
        MetadataRecord::ConfigRecord(ConfigRecord {
            resource_type,
            resource_name: resource_name.clone(),
            name: altered.name.into(),
            value: altered.value.map(Into::into),
        })
    });
    Ok(records.collect())
}

fn check_room(image: &Image, limits: &Limits, more: i32) -> Result<(), ChangeError> {
    let have = image.partition_count();
    let max = limits.partitions_max;
    if have + more as usize > max {
        return Err(ChangeError::new(
            ErrorCode::POLICY_VIOLATION,
            format!(
                "{more} more partitions on top of {have} exceed the {max} that this broker's memory allows: \
                 give it more (--memory) or delete topics"
            ),
        ));
    }
    Ok(())
}

/// What sets `overrides` on a resource.
pub fn config_records(
    resource_type: i8,
    resource_name: Str,
    overrides: &ConfigMap,
) -> impl Iterator<Item = MetadataRecord> + use<'_> {
    overrides.iter().map(move |(name, value)| {
        MetadataRecord::ConfigRecord(ConfigRecord {
            resource_type,
            resource_name: resource_name.clone(),
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        })
    })
}

pub fn partition_record(topic_id: Uuid, partition_id: i32, node: i32, leader_epoch: i32) -> MetadataRecord {
    MetadataRecord::PartitionRecord(PartitionRecord {
        partition_id,
        topic_id,
        replicas: vec![node],
        isr: vec![node],
        leader: node,
        leader_epoch,
        partition_epoch: 0,
        ..Default::default()
    })
}

fn unknown_topic() -> ChangeError {
    let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    ChangeError::new(code, code.message())
}

pub fn too_many_partitions(count: i32) -> ChangeError {
    ChangeError::new(
        ErrorCode::INVALID_PARTITIONS,
        format!("{count} partitions: a topic may have at most {TOPIC_PARTITIONS_MAX}"),
    )
}
