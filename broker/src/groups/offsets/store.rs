//! Committed offsets as records have them.

use std::collections::BTreeMap;
use std::ops::Bound;

use corelog_wire::{Str, Uuid};

use crate::groups::memory::{Account, GroupMemory};

/// One committed offset, as its record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// The topic it was committed for; `None` where its record does not say.
    pub topic_id: Option<Uuid>,
    /// −1 where the client named none.
    pub leader_epoch: i32,
    pub metadata: Str,
    pub commit_timestamp_ms: i64,
    /// Set by clients that ask for a retention of their own (OffsetCommit versions 2 to 4).
    pub expire_timestamp_ms: Option<i64>,
}

/// One partition of one topic of one group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OffsetKey {
    pub group: Str,
    pub topic: Str,
    pub partition: i32,
}

type Topics = BTreeMap<Str, BTreeMap<i32, CommittedOffset>>;

/// The committed offsets of all groups of one coordinator.
#[derive(Debug)]
pub struct OffsetStore {
    groups: BTreeMap<Str, Topics>,
    account: Account,
}

impl OffsetStore {
    pub fn new(memory: &GroupMemory) -> OffsetStore {
        OffsetStore { groups: BTreeMap::new(), account: memory.account() }
    }

    /// Bytes that an offset with this much metadata holds.
    pub fn cost(metadata_bytes: usize) -> usize {
        256 + metadata_bytes
    }

    // ---- reading

    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    /// Every offset of the group, by topic, then partition.
    pub fn of(&self, group: &str) -> impl Iterator<Item = (&Str, i32, &CommittedOffset)> {
        self.groups.get(group).into_iter().flatten().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, offset)| (topic, *partition, offset))
        })
    }

    /// Offsets of the group by topic, then partition: those behind `from`, or all.
    pub fn behind<'a>(
        &'a self,
        group: &str,
        from: Option<&'a (Str, i32)>,
    ) -> impl Iterator<Item = (&'a Str, i32, i64)> {
        let begin = from.map_or(Bound::Unbounded, |(topic, _)| Bound::Included(&**topic));
        let topics = self
            .groups
            .get(group)
            .into_iter()
            .flat_map(move |it| it.range::<str, _>((begin, Bound::Unbounded)));
        topics.flat_map(move |(topic, partitions)| {
            let last = from.filter(|(last, _)| last == topic).map(|(_, partition)| *partition);
            let begin = last.map_or(Bound::Unbounded, Bound::Excluded);
            let partitions = partitions.range((begin, Bound::Unbounded));
            partitions.map(move |(partition, offset)| (topic, *partition, offset.offset))
        })
    }

    /// Every offset of every group.
    pub fn all(&self) -> impl Iterator<Item = (&Str, &Str, i32, &CommittedOffset)> {
        self.groups.keys().flat_map(|group| {
            self.of(group).map(move |(topic, partition, offset)| (group, topic, partition, offset))
        })
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn group_ids_from(&self, from: Bound<Str>) -> impl Iterator<Item = &Str> {
        self.groups.range((from, Bound::Unbounded)).map(|(group, _)| group)
    }

    // ---- what records do

    pub fn set(&mut self, key: OffsetKey, offset: CommittedOffset) {
        self.account.add(OffsetStore::cost(offset.metadata.len()));
        let partitions = self.groups.entry(key.group).or_default().entry(key.topic).or_default();
        if let Some(former) = partitions.insert(key.partition, offset) {
            self.account.sub(OffsetStore::cost(former.metadata.len()));
        }
    }

    pub fn remove(&mut self, key: &OffsetKey) {
        let Some(topics) = self.groups.get_mut(&key.group) else { return };
        let Some(partitions) = topics.get_mut(&key.topic) else { return };
        if let Some(former) = partitions.remove(&key.partition) {
            self.account.sub(OffsetStore::cost(former.metadata.len()));
        }
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
    }
}

#[cfg(test)]
impl OffsetStore {
    /// Bytes that all offsets account for, counted anew.
    pub fn count_bytes(&self) -> usize {
        self.all().map(|(.., offset)| OffsetStore::cost(offset.metadata.len())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_behind_of_what_is_removed() {
        let memory = GroupMemory::new(usize::MAX);
        let mut store = OffsetStore::new(&memory);
        let key = OffsetKey { group: Str::from("g"), topic: Str::from("t"), partition: 3 };
        let offset = |metadata: &str| CommittedOffset {
            offset: 5,
            topic_id: None,
            leader_epoch: -1,
            metadata: Str::from(metadata),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
        };
        store.remove(&key);
        store.set(key.clone(), offset("metadata"));
        store.set(key.clone(), offset("m"));
        assert_eq!(store.get("g", "t", 3), Some(&offset("m")));
        assert_eq!(memory.used(), store.count_bytes());
        store.remove(&key);
        assert!(!store.has_group("g"));
        assert_eq!(memory.used(), 0);
    }
}
