//! The cluster's metadata as of one point of the controller's log: immutable, one copy for all shards.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corelog_wire::metadata_records::{MetadataRecord, PartitionRecord};
use corelog_wire::{Str, Uuid};

use crate::config::{ConfigMap, TopicConfig};
use crate::settings::Settings;

/// `resource_type` of a config record, as in DescribeConfigs (KIP-133).
pub const RESOURCE_TOPIC: i8 = 2;
pub const RESOURCE_BROKER: i8 = 4;

#[derive(Debug, Clone, PartialEq)]
pub struct PartitionImage {
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Arc<[i32]>,
    pub isr: Arc<[i32]>,
}

impl PartitionImage {
    fn new(record: &PartitionRecord) -> PartitionImage {
        let replicas: Arc<[i32]> = record.replicas.as_slice().into();
        let is_whole = record.isr == record.replicas;
        PartitionImage {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            isr: if is_whole { replicas.clone() } else { record.isr.as_slice().into() },
            replicas,
        }
    }
}

#[derive(Debug, Clone)]
pub struct TopicImage {
    pub name: Str,
    pub id: Uuid,
    pub partitions: Vec<PartitionImage>,
    /// What was set on the topic itself.
    pub overrides: ConfigMap,
    /// Overrides over the broker's defaults.
    pub config: Arc<TopicConfig>,
}

impl TopicImage {
    pub fn partition(&self, partition: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}

#[derive(Debug, Clone)]
pub struct Image {
    /// For topics that set nothing, by what the broker was started with.
    defaults: Arc<TopicConfig>,
    /// Kafka offset in the controller's log up to which (exclusive) this image holds.
    pub end_offset: i64,
    pub topics: HashMap<Str, Arc<TopicImage>>,
    pub names: HashMap<Uuid, Str>,
    /// Dynamic broker configs: "" is the cluster-wide default, otherwise the node's id.
    pub broker_overrides: BTreeMap<String, ConfigMap>,
    pub next_producer_id: i64,
}

impl Image {
    pub fn new(settings: &Settings) -> Image {
        let none = ConfigMap::new();
        Image {
            defaults: Arc::new(TopicConfig::resolve(&settings.layers(&none, &none), &none)),
            end_offset: 0,
            topics: HashMap::new(),
            names: HashMap::new(),
            broker_overrides: BTreeMap::new(),
            next_producer_id: 0,
        }
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.names.get(&id).and_then(|name| self.topics.get(name))
    }

    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|topic| topic.partitions.len()).sum()
    }

    /// Dynamic configs of broker `node_id` and of the whole cluster.
    pub fn broker_layers(&self, node_id: i32) -> (&ConfigMap, &ConfigMap) {
        static NONE: ConfigMap = ConfigMap::new();
        let of = |name: &str| self.broker_overrides.get(name).unwrap_or(&NONE);
        (of(&node_id.to_string()), of(""))
    }

    /// Applies one record. Records that contradict the image (a partition of a topic that is not there) mean that
    /// the log is not the one this image was built from.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), String> {
        match record {
            MetadataRecord::TopicRecord(r) => {
                let topic = TopicImage {
                    name: r.name.clone(),
                    id: r.topic_id,
                    partitions: Vec::new(),
                    overrides: ConfigMap::new(),
                    config: self.defaults.clone(),
                };
                if self.names.insert(r.topic_id, r.name.clone()).is_some() {
                    return Err(format!("topic id {} is created twice", r.topic_id));
                }
                if self.topics.insert(r.name.clone(), Arc::new(topic)).is_some() {
                    return Err(format!("topic {} is created twice", r.name));
                }
            }
            MetadataRecord::PartitionRecord(r) => {
                let topic = self.topic_mut(r.topic_id)?;
                if r.partition_id != topic.partitions.len() as i32 {
                    return Err(format!(
                        "topic {} has {} partitions and partition {} is created",
                        topic.name,
                        topic.partitions.len(),
                        r.partition_id
                    ));
                }
                topic.partitions.push(PartitionImage::new(r));
            }
            MetadataRecord::RemoveTopicRecord(r) => {
                let name = self
                    .names
                    .remove(&r.topic_id)
                    .ok_or_else(|| format!("topic {} is removed and not there", r.topic_id))?;
                self.topics.remove(&name);
            }
            MetadataRecord::ConfigRecord(r) => {
                let overrides = match r.resource_type {
                    RESOURCE_TOPIC => {
                        let id = self
                            .topics
                            .get(&r.resource_name)
                            .ok_or_else(|| {
                                format!("config of topic {}, which is not there", r.resource_name)
                            })?
                            .id;
                        &mut self.topic_mut(id)?.overrides
                    }
                    RESOURCE_BROKER => self.broker_overrides.entry(r.resource_name.to_string()).or_default(),
                    other => return Err(format!("config of unknown resource type {other}")),
                };
                match &r.value {
                    Some(value) => overrides.insert(r.name.to_string(), value.to_string()),
                    None => overrides.remove(&*r.name),
                };
            }
            MetadataRecord::ProducerIdsRecord(r) => {
                self.next_producer_id = self.next_producer_id.max(r.next_producer_id);
            }
            // Feature levels come with clusters of more than one broker.
            MetadataRecord::FeatureLevelRecord(r) => {
                return Err(format!("feature {} is unknown here", r.name));
            }
        }
        Ok(())
    }

    /// Works out the effective configs of `topics` after what they rest on has changed.
    pub fn finish_configs(&mut self, settings: &Settings, node_id: i32, topics: &[Str]) {
        for name in topics {
            let Some(topic) = self.topics.get(name) else { continue };
            let (own, cluster) = self.broker_layers(node_id);
            let config = Arc::new(TopicConfig::resolve(&settings.layers(own, cluster), &topic.overrides));
            Arc::make_mut(self.topics.get_mut(name).expect("it was there above")).config = config;
        }
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, String> {
        let name = self.names.get(&id).ok_or_else(|| format!("topic id {id} is not there"))?;
        Ok(Arc::make_mut(self.topics.get_mut(name).expect("names and topics hold the same topics")))
    }
}
