//! What some records changed of an image, so that who follows it looks at that alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corelog_io::{worked, yield_if_needed};
use corelog_wire::Uuid;

use super::image::{Image, PartitionImage, TopicImage};
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

    /// From one image to a later one, whatever has led there.
    pub async fn between(before: &Image, after: &Image) -> Delta {
        let mut delta =
            Delta { producer_ids: before.next_producer_id != after.next_producer_id, ..Delta::default() };
        for topic in before.topics() {
            pace(topic).await;
            match after.topic_by_id(topic.id) {
                None => delta.removed.push(topic.clone()),
                Some(now) => {
                    drop(TopicDelta::between(topic, now).map(|of| delta.topics.insert(topic.id, of)))
                }
            }
        }
        for topic in after.topics() {
            pace(topic).await;
            if before.topic_by_id(topic.id).is_none() {
                delta.created(topic.id);
            }
        }
        delta.brokers = differing(&before.broker_overrides, &after.broker_overrides);
        delta.registered = differing(&before.brokers, &after.brokers);
        delta
    }

    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
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

impl TopicDelta {
    /// `None`: nothing has changed.
    fn between(before: &Arc<TopicImage>, after: &Arc<TopicImage>) -> Option<TopicDelta> {
        if Arc::ptr_eq(before, after) {
            return None;
        }
        let all = 0..after.partition_count();
        let partitions = all.filter(|index| before.partition(*index) != after.partition(*index)).collect();
        let configs = before.overrides != after.overrides;
        Some(TopicDelta { is_new: false, partitions, configs })
            .filter(|delta| *delta != TopicDelta::default())
    }
}

/// Keys of which two maps say different things.
fn differing<K: Ord + Clone, V: PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> BTreeSet<K> {
    let keys = before.keys().chain(after.keys());
    keys.filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

/// A topic was compared.
async fn pace(topic: &TopicImage) {
    worked(size_of::<PartitionImage>() * (1 + topic.partitions.len()));
    yield_if_needed().await;
}
