//! What the controller is asked to change, and the decision: a pure function of the image.

use std::sync::Arc;

use corelog_wire::metadata_records::{
    ConfigRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::brokers::{self, JoinRequest};
use super::image::{BrokerImage, Image, RESOURCE_BROKER, RESOURCE_TOPIC};
use super::is_internal;
use super::leaders::{self, Led};
use super::placer::Placer;
use super::reassign;
use crate::config::alter::{self, Alteration, Owner, Refusal};
use crate::config::{ConfigMap, Layers};
use crate::ids::{BrokerId, CONTROLLER_TOPIC, ReplicaId};
use crate::peer::CALL_BYTES_MAX;
use crate::settings::Settings;

/// Partitions that one topic may have, so that a change fits one batch of the controller's log.
pub const TOPIC_PARTITIONS_MAX: i32 = 10_000;
/// What a change's records, and the change on its way from broker to broker, take at the most where there are several.
pub const CHANGE_BYTES_MAX: usize = CALL_BYTES_MAX - (4 << 10);
/// Producer ids that a shard takes at once.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// A refusal, as the client is told it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ChangeError {
    pub code: ErrorCode,
    pub message: String,
    /// Whether the change may have been made all the same, or may still be.
    pub in_doubt: bool,
}

impl From<Refusal> for ChangeError {
    fn from(refusal: Refusal) -> ChangeError {
        ChangeError::new(ErrorCode(refusal.code()), refusal.to_string())
    }
}

impl From<ErrorCode> for ChangeError {
    fn from(code: ErrorCode) -> ChangeError {
        ChangeError::new(code, code.message())
    }
}

impl ChangeError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ChangeError {
        ChangeError { code, message: message.into(), in_doubt: false }
    }

    /// Of a change of which it is not known whether it is made.
    pub fn in_doubt(code: ErrorCode, message: impl Into<String>) -> ChangeError {
        ChangeError { in_doubt: true, ..ChangeError::new(code, message) }
    }
}

/// A topic to create, already checked for what the request alone can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTopic {
    pub name: Str,
    /// Drawn by who asks: a decision has nothing of chance.
    pub id: Uuid,
    pub placement: Placement,
    pub overrides: ConfigMap,
}

/// Where the partitions of a new topic are to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    /// Wherever there is room.
    Anywhere { partitions: i32, replication_factor: i32 },
    /// The brokers of each partition, its preferred leader first.
    Assigned(Vec<Vec<BrokerId>>),
}

impl Placement {
    pub fn partitions(&self) -> i32 {
        match self {
            Placement::Anywhere { partitions, .. } => *partitions,
            Placement::Assigned(assigned) => assigned.len() as i32,
        }
    }
}

/// What configs are set on.
#[derive(Debug, Clone, PartialEq)]
pub enum ResourceKey {
    Topic(Str),
    /// "" for the cluster-wide default.
    Broker(String),
}

/// What is to change of a resource's configs.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigChange {
    /// Name, operation and value of each (KIP-339).
    Incremental(Vec<(Str, i8, Option<Str>)>),
    /// These are all.
    Replace(Vec<(Str, Option<Str>)>),
}

impl ConfigChange {
    fn decide(&self, owner: Owner, layers: &Layers<'_>, own: &ConfigMap) -> Result<Vec<Alteration>, Refusal> {
        match self {
            ConfigChange::Incremental(changes) => {
                let changes: Vec<alter::Change<'_>> = changes
                    .iter()
                    .map(|(name, op, value)| alter::Change { name, op: *op, value: value.as_deref() })
                    .collect();
                alter::incremental(owner, layers, own, &changes)
            }
            ConfigChange::Replace(configs) => {
                let configs: Vec<(&str, Option<&str>)> =
                    configs.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
                alter::replace(owner, layers, own, &configs)
            }
        }
    }
}

/// One change. It is whole or not there, and is carried out whether or not anybody waits for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    CreateTopic(NewTopic),
    DeleteTopic {
        id: Uuid,
    },
    /// Raises the partition count of a topic to `count`; `assigned`: where the new ones are to be.
    CreatePartitions {
        topic: Str,
        count: i32,
        assigned: Option<Vec<Vec<BrokerId>>>,
    },
    AlterConfigs {
        resource: ResourceKey,
        change: ConfigChange,
    },
    /// A broker is there, and is reached so.
    RegisterBroker(BrokerImage),
    /// A data directory is to be a broker's: which it is, the resulting image says.
    Join(JoinRequest),
    /// A broker that registered with this epoch is there no more.
    Fence {
        broker: BrokerId,
        epoch: i64,
    },
    /// It is there after all.
    Unfence {
        broker: BrokerId,
        epoch: i64,
    },
    Unregister(BrokerId),
    /// The replicas of a partition are to be on these brokers; `None`: as before a reassignment that is under way.
    Reassign {
        topic: Str,
        partition: i32,
        target: Option<Vec<BrokerId>>,
    },
    /// What a broker has of a partition under this id is worth nothing: it gets another in its place, and begins anew.
    Renew {
        topic: Uuid,
        partition: i32,
        broker: BrokerId,
        replica: ReplicaId,
    },
    /// Groups of partitions are led so.
    Leaders(Vec<Led>),
    /// [`PRODUCER_ID_BLOCK`] ids that nobody has had, up to the resulting image's `next_producer_id`.
    TakeProducerIds,
}

/// What decisions go by beside the image.
pub struct Rules {
    pub node_id: i32,
    pub partitions_max: usize,
    pub settings: Arc<Settings>,
    /// The cluster is this broker, and cannot be more.
    pub is_alone: bool,
}

impl Change {
    /// Without the frame that the name of its topic came out of: whoever asks may give up waiting for it, and an image keeps
    /// the name.
    pub fn detached(self) -> Change {
        match self {
            Change::CreateTopic(new) => Change::CreateTopic(NewTopic { name: new.name.detach(), ..new }),
            Change::CreatePartitions { topic, count, assigned } => {
                Change::CreatePartitions { topic: topic.detach(), count, assigned }
            }
            Change::Reassign { topic, partition, target } => {
                Change::Reassign { topic: topic.detach(), partition, target }
            }
            Change::RegisterBroker(broker) => Change::RegisterBroker(broker.detached()),
            Change::Join(request) => Change::Join(request.detached()),
            // Configs are as large as their request, which is waited for.
            change => change,
        }
    }

    /// The records that make the change, in one batch; none where nothing is to change.
    pub fn decide(self, image: &Image, rules: &Rules) -> Result<Vec<MetadataRecord>, ChangeError> {
        match self {
            Change::CreateTopic(new) => create_topic(image, rules, new),
            Change::DeleteTopic { id } => {
                image.topic_by_id(id).ok_or_else(unknown_topic)?;
                Ok(vec![MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: id })])
            }
            Change::CreatePartitions { topic, count, assigned } => {
                create_partitions(image, rules, &topic, count, assigned.as_deref())
            }
            Change::RegisterBroker(broker) => brokers::register(image, rules, broker),
            Change::Join(request) => brokers::join(image, request),
            Change::Fence { broker, epoch } => brokers::fence(image, broker, epoch, true),
            Change::Unfence { broker, epoch } => brokers::fence(image, broker, epoch, false),
            Change::Unregister(broker) => brokers::unregister(image, broker),
            Change::Reassign { topic, partition, target } => {
                reassign::reassign(image, &topic, partition, target.as_deref())
            }
            Change::Renew { topic, partition, broker, replica } => {
                brokers::renew(image, topic, partition, broker, replica)
            }
            Change::Leaders(reports) => leaders::leaders(image, reports),
            Change::AlterConfigs { resource, change } => alter_configs(image, rules, resource, &change),
            Change::TakeProducerIds => Ok(vec![MetadataRecord::ProducerIdsRecord(ProducerIdsRecord {
                broker_id: rules.node_id,
                broker_epoch: -1,
                next_producer_id: image.next_producer_id + PRODUCER_ID_BLOCK,
            })]),
        }
    }
}

fn create_topic(image: &Image, rules: &Rules, new: NewTopic) -> Result<Vec<MetadataRecord>, ChangeError> {
    if image.topic(&new.name).is_some() {
        return Err(ChangeError::new(
            ErrorCode::TOPIC_ALREADY_EXISTS,
            format!("Topic '{}' already exists.", new.name),
        ));
    }
    if let Some(existing) = image.colliding(&new.name) {
        return Err(ChangeError::new(
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            format!("Topic '{}' collides with existing topic: {existing}", new.name),
        ));
    }
    if new.id.is_zero() || new.id == CONTROLLER_TOPIC || image.topic_by_id(new.id).is_some() {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REQUEST,
            format!("A new topic's id is its own, and {} is not: draw another.", new.id),
        ));
    }
    check_room(image, rules, new.placement.partitions())?;
    let (id, name) = (new.id, new.name);
    let mut placer = Placer::new(image, seed(id));
    let placed = match new.placement {
        Placement::Assigned(assigned) => {
            placer.check_assigned(&assigned)?;
            assigned
        }
        Placement::Anywhere { partitions, replication_factor } => {
            placer.check(replication_factor)?;
            (0..partitions).map(|partition| placer.place(partition, replication_factor)).collect()
        }
    };
    let mut records = vec![MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: id })];
    records.extend((0..).zip(placed).map(|(partition, replicas)| partition_record(id, partition, replicas)));
    records.extend(config_records(RESOURCE_TOPIC, name, &new.overrides));
    Ok(records)
}

fn create_partitions(
    image: &Image,
    rules: &Rules,
    topic: &Str,
    count: i32,
    assigned: Option<&[Vec<BrokerId>]>,
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
    check_room(image, rules, count - have)?;
    let mut placer = Placer::new(image, seed(topic.id));
    let placed: Vec<Vec<BrokerId>> = match assigned {
        Some(assigned) if assigned.len() as i32 != count - have => {
            return Err(ChangeError::new(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                format!(
                    "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                    count - have,
                    assigned.len()
                ),
            ));
        }
        Some(assigned) => {
            placer.check_assigned(assigned)?;
            assigned.to_vec()
        }
        None => {
            let replication_factor = topic.replication_factor();
            placer.check(replication_factor)?;
            (have..count).map(|partition| placer.place(partition, replication_factor)).collect()
        }
    };
    Ok((have..)
        .zip(placed)
        .map(|(partition, replicas)| partition_record(topic.id, partition, replicas))
        .collect())
}

fn seed(topic: Uuid) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&topic.0[8..]);
    u64::from_be_bytes(half)
}

fn alter_configs(
    image: &Image,
    rules: &Rules,
    resource: ResourceKey,
    change: &ConfigChange,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let none = ConfigMap::new();
    let (owner, resource_type, resource_name, current) = match &resource {
        ResourceKey::Topic(name) => {
            let topic = image.topic(name).ok_or_else(|| {
                ChangeError::new(
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("The topic '{name}' does not exist."),
                )
            })?;
            (Owner::Topic, RESOURCE_TOPIC, topic.name.clone(), &*topic.overrides)
        }
        ResourceKey::Broker(name) => {
            let current = image.broker_overrides.get(name).unwrap_or(&none);
            (Owner::Broker, RESOURCE_BROKER, name.as_str().into(), current)
        }
    };
    let (own, cluster) = image.broker_layers(rules.node_id);
    let altered = change.decide(owner, &rules.settings.layers(own, cluster), current)?;
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

fn check_room(image: &Image, rules: &Rules, more: i32) -> Result<(), ChangeError> {
    let have = image.partition_count();
    let max = rules.partitions_max;
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

/// A partition that begins. One replica leads; of several their group says which does.
pub fn partition_record(topic_id: Uuid, partition_id: i32, replicas: Vec<BrokerId>) -> MetadataRecord {
    let replicas = BrokerId::numbers(&replicas);
    let leader = if let [only] = replicas[..] { Some(BrokerId(only)) } else { None };
    MetadataRecord::PartitionRecord(PartitionRecord {
        partition_id,
        topic_id,
        isr: replicas.clone(),
        leader: BrokerId::number(leader),
        replicas,
        // A group's first is 0.
        leader_epoch: if leader.is_some() { 0 } else { -1 },
        partition_epoch: 0,
        ..Default::default()
    })
}

fn unknown_topic() -> ChangeError {
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.into()
}

pub fn too_many_partitions(count: i32) -> ChangeError {
    ChangeError::new(
        ErrorCode::INVALID_PARTITIONS,
        format!("{count} partitions: a topic may have at most {TOPIC_PARTITIONS_MAX}"),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::image::tests::brokers;
    use super::super::snapshot::tests::settings;
    use super::super::task::applied;
    use super::*;

    #[test]
    fn a_change_that_waits_keeps_no_frame() {
        let frame = Bytes::from(vec![b'x'; 100]);
        let name = || Str::from_utf8(frame.slice(10..13)).expect("text");
        let new = NewTopic {
            name: name(),
            id: Uuid::default(),
            placement: Placement::Assigned(vec![vec![BrokerId(1)]]),
            overrides: ConfigMap::new(),
        };
        let changes =
            [Change::CreateTopic(new), Change::CreatePartitions { topic: name(), count: 2, assigned: None }]
                .map(Change::detached);
        assert!(frame.is_unique());
        drop(changes);
    }

    #[test]
    fn a_new_topic_has_an_id_that_no_other_has() {
        let rules = Rules { node_id: 1, partitions_max: 10, settings: Arc::new(settings()), is_alone: false };
        let new = |name: &str, id| {
            let placement = Placement::Anywhere { partitions: 1, replication_factor: 1 };
            Change::CreateTopic(NewTopic { name: name.into(), id, placement, overrides: ConfigMap::new() })
        };
        let id = Uuid([7; 16]);
        let records = new("one", id).decide(&brokers(&[None]), &rules).expect("it is the first");
        let (image, _) = applied(&brokers(&[None]), &records).expect("they fit");
        for id in [id, Uuid::default(), CONTROLLER_TOPIC] {
            let refused = new("two", id).decide(&image, &rules).expect_err("it is not its own");
            assert_eq!(refused.code, ErrorCode::INVALID_REQUEST, "{id}");
        }
        assert!(new("two", Uuid([8; 16])).decide(&image, &rules).is_ok());
    }
}
