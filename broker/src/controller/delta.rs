//! What some records changed of an image, so that who follows it looks at that alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corelog_wire::Uuid;

use super::image::{Image, TopicImage};
use crate::ids::BrokerId;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Topics that are there, and are new or have changed.
    pub topics: BTreeMap<Uuid, TopicDelta>,
    /// As they were before.
    pub removed: Vec<Arc<TopicImage>>,
    /// Whose dynamic configs have changed: "" for those of all brokers.
    pub brokers: BTreeSet<String>,
    pub producer_ids: bool,
    /// Brokers that came, went, or are reached otherwise.
    pub registered: BTreeSet<BrokerId>,
}

/// What changed of a topic; all of it, if it is new.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopicDelta {
    pub is_new: bool,
    /// Those that were added, and those whose leader, replicas or the like have changed.
    pub partitions: BTreeSet<i32>,
    pub configs: bool,
}

impl Delta {
    /// From nothing to all that there is.
    pub fn of_all(image: &Image) -> Delta {
        let new = || TopicDelta { is_new: true, ..TopicDelta::default() };
        Delta {
            topics: image.topics().map(|topic| (topic.id, new())).collect(),
            removed: Vec::new(),
            brokers: image.broker_overrides.keys().cloned().collect(),
            producer_ids: true,
            registered: image.brokers.keys().copied().collect(),
        }
    }

    /// Whether what the configs of a broker, and of its topics, rest on has changed.
    pub fn touches_broker(&self, node_id: i32) -> bool {
        self.brokers.contains("") || self.brokers.contains(&node_id.to_string())
    }

    pub(super) fn created(&mut self, id: Uuid) {
        self.topics.insert(id, TopicDelta { is_new: true, ..TopicDelta::default() });
    }

    pub(super) fn partition(&mut self, id: Uuid, partition: i32) {
        let topic = self.topics.entry(id).or_default();
        if !topic.is_new {
            topic.partitions.insert(partition);
        }
    }

    pub(super) fn configs(&mut self, id: Uuid) {
        let topic = self.topics.entry(id).or_default();
        topic.configs = !topic.is_new;
    }

    pub(super) fn removed(&mut self, topic: Arc<TopicImage>) {
        let known = self.topics.remove(&topic.id);
        // Of one that came and went nobody knew.
        if known.is_none_or(|known| !known.is_new) {
            self.removed.push(topic);
        }
    }
}
