//! The controller itself: one change at a time, durable before it is seen.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use corelog_io::sync::Semaphore;
use corelog_storage::{AppendBatch, BatchKind, Log};
use corelog_wire::metadata_records::{
    ConfigRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::image::{Image, RESOURCE_BROKER, RESOURCE_TOPIC, TopicImage};
use super::records::{decode_batches, encode_batch, joined};
use crate::config::ConfigMap;
use crate::config::alter::Alteration;
use crate::leftovers::Deleted;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::topic_name;

/// Partitions that one topic may have, so that a change fits one batch of the controller's log.
pub const TOPIC_PARTITIONS_MAX: i32 = 10_000;
/// Producer ids that a shard takes at once.
pub const PRODUCER_ID_BLOCK: i64 = 1000;
/// Bytes read of the controller's log at once while it is loaded.
const LOAD_STEP_BYTES: usize = 1 << 20;

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

pub struct Controller {
    log: Rc<Log>,
    /// One change at a time: what is decided on an image holds until it is applied.
    turn: Semaphore,
    image: RefCell<Arc<Image>>,
    settings: Arc<Settings>,
    node_id: i32,
    partitions_max: usize,
}

impl Controller {
    /// Reads the whole log and finishes its image. Beside it the topics that were deleted.
    pub async fn load(
        log: Rc<Log>,
        settings: Arc<Settings>,
        node_id: i32,
        partitions_max: usize,
    ) -> anyhow::Result<(Controller, Deleted)> {
        // A log that was found damaged may lack topics: their files would be taken for a deleted topic's.
        if let Some(damage) = log.refused() {
            return Err(damage.into());
        }
        let mut image = Image::new(&settings);
        let mut deleted = BTreeSet::new();
        let mut offset = log.log_start_offset();
        while offset < log.high_watermark() {
            let read = log.read(offset, LOAD_STEP_BYTES, true).await?;
            let damaged = |what| anyhow::anyhow!("controller log, at or after offset {offset}: {what}");
            for record in decode_batches(&joined(&read.parts)).map_err(damaged)? {
                image.apply(&record).map_err(damaged)?;
                if let MetadataRecord::RemoveTopicRecord(removed) = record {
                    deleted.insert(removed.topic_id);
                }
            }
            anyhow::ensure!(read.next_offset > offset, "controller log: nothing to read at offset {offset}");
            offset = read.next_offset;
        }
        image.end_offset = offset;
        let names: Vec<Str> = image.topics.keys().cloned().collect();
        image.finish_configs(&settings, node_id, &names);
        let image = RefCell::new(Arc::new(image));
        let controller =
            Controller { log, turn: Semaphore::new(1), image, settings, node_id, partitions_max };
        Ok((controller, Arc::new(deleted)))
    }

    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Creates a topic, or with `validate_only` says what would come of it. The topic's image is returned either way.
    pub async fn create_topic(
        &self,
        shard: &Rc<Shard>,
        new: NewTopic,
        validate_only: bool,
    ) -> Result<Arc<TopicImage>, ChangeError> {
        let _turn = self.turn.acquire(1).await;
        let image = self.image();
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
        self.check_room(&image, new.partitions)?;
        let id =
            Uuid::from_random((corelog_io::random_u64() as u128) << 64 | corelog_io::random_u64() as u128);
        // Names come out of request frames: an image must not keep those alive.
        let name = new.name.detach();
        let mut records = vec![MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: id })];
        let node = shard.identity.node_id;
        records.extend((0..new.partitions).map(|partition| partition_record(id, partition, node)));
        records.extend(new.overrides.iter().map(|(key, value)| {
            MetadataRecord::ConfigRecord(ConfigRecord {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.clone(),
                name: key.as_str().into(),
                value: Some(value.as_str().into()),
            })
        }));
        if validate_only {
            let mut trial = (*image).clone();
            apply_all(&mut trial, &records)?;
            trial.finish_configs(&self.settings, self.node_id, std::slice::from_ref(&name));
            return Ok(trial.topics[&name].clone());
        }
        let image = self.commit(shard, records, vec![]).await?;
        Ok(image.topics[&name].clone())
    }

    pub async fn delete_topic(&self, shard: &Rc<Shard>, id: Uuid) -> Result<(), ChangeError> {
        let _turn = self.turn.acquire(1).await;
        let image = self.image();
        let Some(topic) = image.topic_by_id(id).cloned() else {
            return Err(ChangeError::new(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.message(),
            ));
        };
        let record = MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: id });
        self.commit(shard, vec![record], vec![topic]).await?;
        Ok(())
    }

    /// Raises the partition count of a topic to `count`.
    pub async fn create_partitions(
        &self,
        shard: &Rc<Shard>,
        topic: &Str,
        count: i32,
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let _turn = self.turn.acquire(1).await;
        let image = self.image();
        let Some(topic) = image.topic(topic) else {
            return Err(ChangeError::new(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.message(),
            ));
        };
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
        if count > TOPIC_PARTITIONS_MAX {
            return Err(too_many_partitions(count));
        }
        self.check_room(&image, count - have)?;
        if !validate_only {
            let node = shard.identity.node_id;
            let records = (have..count).map(|partition| partition_record(topic.id, partition, node));
            self.commit(shard, records.collect(), vec![]).await?;
        }
        Ok(())
    }

    /// Changes the values set on a resource: `change` gets those there are and says what is to change.
    pub async fn alter_configs(
        &self,
        shard: &Rc<Shard>,
        resource: ResourceKey,
        change: impl FnOnce(&Image, &ConfigMap) -> Result<Vec<Alteration>, ChangeError>,
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let _turn = self.turn.acquire(1).await;
        let image = self.image();
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
        let altered = change(&image, current)?;
        let records: Vec<MetadataRecord> = altered
            .into_iter()
            .map(|altered| {
                MetadataRecord::ConfigRecord(ConfigRecord {
                    resource_type,
                    resource_name: resource_name.clone(),
                    name: altered.name.into(),
                    value: altered.value.map(Into::into),
                })
            })
            .collect();
        if !validate_only && !records.is_empty() {
            self.commit(shard, records, vec![]).await?;
        }
        Ok(())
    }

    /// A block of producer ids that nobody has had: `PRODUCER_ID_BLOCK` from the returned one on.
    pub async fn take_producer_ids(&self, shard: &Rc<Shard>) -> Result<i64, ChangeError> {
        let _turn = self.turn.acquire(1).await;
        let first = self.image().next_producer_id;
        let record = MetadataRecord::ProducerIdsRecord(ProducerIdsRecord {
            broker_id: shard.identity.node_id,
            broker_epoch: -1,
            next_producer_id: first + PRODUCER_ID_BLOCK,
        });
        self.commit(shard, vec![record], vec![]).await?;
        Ok(first)
    }

    fn check_room(&self, image: &Image, more: i32) -> Result<(), ChangeError> {
        let have = image.partition_count();
        let max = self.partitions_max;
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

    /// Makes `records` durable, applies them and has every shard take the new image.
    async fn commit(
        &self,
        shard: &Rc<Shard>,
        records: Vec<MetadataRecord>,
        removed: Vec<Arc<TopicImage>>,
    ) -> Result<Arc<Image>, ChangeError> {
        let storage = |error: &dyn std::fmt::Display| {
            ChangeError::new(ErrorCode::KAFKA_STORAGE_ERROR, format!("the controller's log: {error}"))
        };
        let current = self.image();
        let mut next = (*current).clone();
        apply_all(&mut next, &records)?;
        let now_ms = corelog_io::wall_clock_ms();
        let bytes = encode_batch(&records, now_ms).map_err(|error| storage(&error))?;
        let batch = AppendBatch { bytes, kind: BatchKind::Coordinator, leader_epoch: 0 };
        let appended = self.log.append(batch).await.map_err(|error| storage(&error))?;
        let end_offset = appended.last_offset + 1;
        appended.durable.await.map_err(|error| storage(&error))?;
        next.end_offset = end_offset;
        let broker_changed = records.iter().any(
            |record| matches!(record, MetadataRecord::ConfigRecord(r) if r.resource_type == RESOURCE_BROKER),
        );
        let touched: Vec<Str> = if broker_changed {
            next.topics.keys().cloned().collect()
        } else {
            records
                .iter()
                .filter_map(|record| match record {
                    MetadataRecord::TopicRecord(r) => Some(r.name.clone()),
                    MetadataRecord::ConfigRecord(r) => Some(r.resource_name.clone()),
                    _ => None,
                })
                .collect()
        };
        next.finish_configs(&self.settings, self.node_id, &touched);
        let next = Arc::new(next);
        *self.image.borrow_mut() = next.clone();
        let (image, removed) = (next.clone(), Arc::new(removed));
        shard
            .on_all(move |shard| async move { shard.install(image, &removed).await })
            .await
            .map_err(|gone| ChangeError::new(ErrorCode::BROKER_NOT_AVAILABLE, gone.to_string()))?;
        Ok(next)
    }
}

fn partition_record(topic_id: Uuid, partition_id: i32, node: i32) -> MetadataRecord {
    MetadataRecord::PartitionRecord(PartitionRecord {
        partition_id,
        topic_id,
        replicas: vec![node],
        isr: vec![node],
        leader: node,
        leader_epoch: 0,
        partition_epoch: 0,
        ..Default::default()
    })
}

pub fn too_many_partitions(count: i32) -> ChangeError {
    ChangeError::new(
        ErrorCode::INVALID_PARTITIONS,
        format!("{count} partitions: a topic may have at most {TOPIC_PARTITIONS_MAX}"),
    )
}

fn apply_all(image: &mut Image, records: &[MetadataRecord]) -> Result<(), ChangeError> {
    records.iter().try_for_each(|record| {
        image.apply(record).map_err(|what| ChangeError::new(ErrorCode::UNKNOWN_SERVER_ERROR, what))
    })
}
