//! A partition's name.

use crate::hashing::HashMap;
use corelog_wire::Str;
use std::fmt;

/// A topic's name and a partition number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Str,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Str>, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Gathers values by topic, in order of first appearance of the topic: requests name each topic once.
pub(crate) fn by_topic<T>(items: impl IntoIterator<Item = (TopicPartition, T)>) -> Vec<(Str, Vec<(i32, T)>)> {
    let mut topics: Vec<(Str, Vec<(i32, T)>)> = Vec::new();
    let mut places = HashMap::default();
    for (TopicPartition { topic, partition }, item) in items {
        let at = *places.entry(topic.clone()).or_insert_with(|| {
            topics.push((topic, Vec::new()));
            topics.len() - 1
        });
        topics[at].1.push((partition, item));
    }
    topics
}
