//! Which topics and partitions have changed lately: who has found something by an image, as a fetch list where its
//! partitions are, finds anew what has changed since, and nothing else.

use std::collections::BTreeMap;

use corelog_wire::{Str, Uuid};

use super::delta::Delta;
use super::image::Image;

/// Changes that are remembered. Who is further behind looks at all it has.
const CHANGES_MAX: usize = 2048;
/// A topic of which more partitions changed at once has changed as a whole.
const PARTITIONS_MAX: usize = 64;

/// What has changed: a partition, or a topic with all its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    pub topic: Uuid,
    pub partition: Option<i32>,
}

/// Each change of the last ones once, at the version of the image with which it came last.
#[derive(Debug, Default)]
pub struct RecentChanges {
    /// Beside it the topic's name.
    in_order: BTreeMap<(i64, Changed), Str>,
    last: BTreeMap<Changed, i64>,
    /// Of what came up to this version not all is known.
    forgotten: i64,
}

impl RecentChanges {
    /// `image` is what `delta` has led to.
    pub fn note(&mut self, image: &Image, delta: &Delta) {
        if delta.topics.len() + delta.removed.len() > CHANGES_MAX {
            *self = RecentChanges { forgotten: image.end_offset, ..RecentChanges::default() };
            return;
        }
        for topic in &delta.removed {
            self.put(image.end_offset, Changed { topic: topic.id, partition: None }, &topic.name);
        }
        for (id, of_topic) in &delta.topics {
            let Some(topic) = image.topic_by_id(*id) else { continue };
            let mut put = |partition| {
                self.put(image.end_offset, Changed { topic: *id, partition }, &topic.name);
            };
            if of_topic.is_new || of_topic.partitions.len() > PARTITIONS_MAX {
                put(None);
            } else {
                of_topic.partitions.iter().for_each(|partition| put(Some(*partition)));
            }
        }
    }

    fn put(&mut self, version: i64, changed: Changed, name: &Str) {
        if let Some(before) = self.last.insert(changed, version) {
            self.in_order.remove(&(before, changed));
        }
        self.in_order.insert((version, changed), name.clone());
        if self.in_order.len() > CHANGES_MAX
            && let Some(((version, changed), _)) = self.in_order.pop_first()
        {
            self.last.remove(&changed);
            self.forgotten = version;
        }
    }

    /// What has changed since the image of this version; `None` if that is not known any more.
    pub fn since(&self, version: i64) -> Option<impl Iterator<Item = (Changed, &Str)>> {
        let first = Changed { topic: Uuid::default(), partition: None };
        let from = (version + 1, first);
        (version >= self.forgotten)
            .then(|| self.in_order.range(from..).map(|((_, changed), name)| (*changed, name)))
    }
}
