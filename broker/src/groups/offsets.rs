//! Committed offsets: what is durable, and what is on its way to the log.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use corelog_wire::{Str, Uuid};

use super::effect::WriteId;
use super::memory::{Account, GroupMemory};

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

/// What is known of one partition of a group.
#[derive(Debug, Default)]
struct Slot {
    durable: Option<CommittedOffset>,
    /// Writes on their way, in their order; `None` is a tombstone.
    pending: VecDeque<(WriteId, Option<CommittedOffset>)>,
}

impl Slot {
    fn is_void(&self) -> bool {
        self.durable.is_none() && self.pending.is_empty()
    }

    /// As it will be when everything on its way is durable.
    fn latest(&self) -> Option<&CommittedOffset> {
        match self.pending.back() {
            Some((_, offset)) => offset.as_ref(),
            None => self.durable.as_ref(),
        }
    }
}

type Topics = BTreeMap<Str, BTreeMap<i32, Slot>>;

/// The committed offsets of all groups of one coordinator.
///
/// Readers see what is durable. Writers (a deletion, say) go by the latest, so that nothing which is on its way slips
/// through.
#[derive(Debug)]
pub struct OffsetStore {
    groups: BTreeMap<Str, Topics>,
    account: Account,
}

/// One partition of one topic of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetKey {
    pub group: Str,
    pub topic: Str,
    pub partition: i32,
}

impl OffsetStore {
    pub fn new(memory: &GroupMemory) -> OffsetStore {
        OffsetStore { groups: BTreeMap::new(), account: memory.account() }
    }

    /// Bytes that an offset with this much metadata holds.
    pub fn cost(metadata_bytes: usize) -> usize {
        256 + metadata_bytes
    }

    fn slot(&self, group: &str, topic: &str, partition: i32) -> Option<&Slot> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    // ---- reading

    pub fn durable(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.slot(group, topic, partition)?.durable.as_ref()
    }

    /// Every durable offset of the group, by topic, then partition.
    pub fn durable_of(&self, group: &str) -> impl Iterator<Item = (&Str, i32, &CommittedOffset)> {
        self.groups.get(group).into_iter().flatten().flat_map(|(topic, partitions)| {
            partitions.iter().filter_map(move |(partition, slot)| {
                slot.durable.as_ref().map(|offset| (topic, *partition, offset))
            })
        })
    }

    /// Durable offsets of the group by topic, then partition: those behind `from`, or all.
    pub fn durable_behind<'a>(
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
            partitions.range((begin, Bound::Unbounded)).filter_map(move |(partition, slot)| {
                slot.durable.as_ref().map(|offset| (topic, *partition, offset.offset))
            })
        })
    }

    /// The last write on its way that touches the partition.
    pub fn last_pending(&self, group: &str, topic: &str, partition: i32) -> Option<WriteId> {
        self.slot(group, topic, partition)?.pending.back().map(|(id, _)| *id)
    }

    /// The last write on its way that touches any offset of the group.
    pub fn last_pending_of(&self, group: &str) -> Option<WriteId> {
        let slots = self.groups.get(group)?.values().flat_map(BTreeMap::values);
        slots.filter_map(|slot| slot.pending.back().map(|(id, _)| *id)).max()
    }

    /// The length of the metadata of what will be there once all writes are durable, if anything will.
    pub fn latest_metadata_bytes(&self, key: &OffsetKey) -> Option<usize> {
        self.slot(&key.group, &key.topic, key.partition)?.latest().map(|offset| offset.metadata.len())
    }

    pub fn has_latest(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.slot(group, topic, partition).is_some_and(|slot| slot.latest().is_some())
    }

    /// Every offset of the group that will be there once all writes are durable, and whether one is on its way to it.
    pub fn latest_of(&self, group: &str) -> impl Iterator<Item = (&Str, i32, &CommittedOffset, bool)> {
        self.groups.get(group).into_iter().flatten().flat_map(|(topic, partitions)| {
            partitions.iter().filter_map(move |(partition, slot)| {
                slot.latest().map(|offset| (topic, *partition, offset, !slot.pending.is_empty()))
            })
        })
    }

    /// Every offset that will be there once all writes are durable.
    pub fn latest(&self) -> impl Iterator<Item = (OffsetKey, &CommittedOffset)> {
        self.groups.keys().flat_map(|group| {
            self.latest_of(group).map(|(topic, partition, offset, _)| {
                (OffsetKey { group: group.clone(), topic: topic.clone(), partition }, offset)
            })
        })
    }

    /// Whether anything is known of the group, durable or on its way.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn group_ids(&self) -> impl Iterator<Item = &Str> {
        self.groups.keys()
    }

    // ---- writing

    /// Notes that `write` will set (or, with `None`, remove) the offset. What it says last of it counts.
    pub fn begin(&mut self, key: &OffsetKey, write: WriteId, offset: Option<CommittedOffset>) {
        self.account.add(offset_cost(offset.as_ref()));
        let pending = &mut self.slot_mut(key).pending;
        match pending.back_mut().filter(|(id, _)| *id == write) {
            Some((_, same)) => {
                let former = std::mem::replace(same, offset);
                self.account.sub(offset_cost(former.as_ref()));
            }
            None => pending.push_back((write, offset)),
        }
    }

    /// What `write` said of the offset is durable.
    pub fn commit(&mut self, key: &OffsetKey, write: WriteId) {
        if let Some(offset) = self.take_pending(key, write) {
            // take_pending has given the cost of the new one back with the rest.
            self.replace_durable(key, offset);
        }
    }

    /// What `write` said of the offset never came to the log.
    pub fn abort(&mut self, key: &OffsetKey, write: WriteId) {
        self.take_pending(key, write);
        self.drop_if_void(key);
    }

    /// Sets what a record of the log says, when loading.
    pub fn replay(&mut self, key: &OffsetKey, offset: Option<CommittedOffset>) {
        if offset.is_none() && self.slot(&key.group, &key.topic, key.partition).is_none() {
            return;
        }
        self.replace_durable(key, offset);
    }

    fn slot_mut(&mut self, key: &OffsetKey) -> &mut Slot {
        self.groups
            .entry(key.group.clone())
            .or_default()
            .entry(key.topic.clone())
            .or_default()
            .entry(key.partition)
            .or_default()
    }

    fn take_pending(&mut self, key: &OffsetKey, write: WriteId) -> Option<Option<CommittedOffset>> {
        let slot = self.groups.get_mut(&key.group)?.get_mut(&key.topic)?.get_mut(&key.partition)?;
        let at = slot.pending.iter().position(|(id, _)| *id == write)?;
        let (_, offset) = slot.pending.remove(at)?;
        self.account.sub(offset_cost(offset.as_ref()));
        Some(offset)
    }

    fn replace_durable(&mut self, key: &OffsetKey, offset: Option<CommittedOffset>) {
        let cost = offset_cost(offset.as_ref());
        let former = std::mem::replace(&mut self.slot_mut(key).durable, offset);
        self.account.sub(offset_cost(former.as_ref()));
        self.account.add(cost);
        self.drop_if_void(key);
    }

    fn drop_if_void(&mut self, key: &OffsetKey) {
        let Some(topics) = self.groups.get_mut(&key.group) else { return };
        let Some(partitions) = topics.get_mut(&key.topic) else { return };
        if partitions.get(&key.partition).is_some_and(Slot::is_void) {
            partitions.remove(&key.partition);
        }
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
    }
}

fn offset_cost(offset: Option<&CommittedOffset>) -> usize {
    offset.map_or(0, |offset| OffsetStore::cost(offset.metadata.len()))
}

#[cfg(test)]
impl OffsetStore {
    /// Bytes that all offsets account for, counted anew.
    pub fn count_bytes(&self) -> usize {
        let slots = self.groups.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
        slots
            .flat_map(|slot| {
                slot.durable.iter().chain(slot.pending.iter().filter_map(|(_, offset)| offset.as_ref()))
            })
            .map(|offset| offset_cost(Some(offset)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> OffsetKey {
        OffsetKey { group: Str::from("g"), topic: Str::from("t"), partition }
    }

    fn at(offset: i64) -> Option<CommittedOffset> {
        Some(CommittedOffset {
            offset,
            topic_id: None,
            leader_epoch: -1,
            metadata: Str::from("m"),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
        })
    }

    fn store() -> (OffsetStore, GroupMemory) {
        let memory = GroupMemory::new(usize::MAX);
        (OffsetStore::new(&memory), memory)
    }

    #[test]
    fn an_offset_is_seen_when_it_is_durable() {
        let (mut store, _) = store();
        store.begin(&key(0), WriteId(1), at(5));
        assert_eq!(store.durable("g", "t", 0), None);
        assert!(store.has_latest("g", "t", 0));
        assert_eq!(store.last_pending_of("g"), Some(WriteId(1)));
        store.begin(&key(0), WriteId(2), at(7));
        store.commit(&key(0), WriteId(1));
        assert_eq!(store.durable("g", "t", 0).map(|o| o.offset), Some(5));
        store.abort(&key(0), WriteId(2));
        assert_eq!(store.durable("g", "t", 0).map(|o| o.offset), Some(5));
        assert_eq!(store.last_pending("g", "t", 0), None);
    }

    #[test]
    fn a_removal_counts_for_writers_at_once_and_for_readers_when_durable() {
        let (mut store, memory) = store();
        store.replay(&key(0), at(5));
        store.begin(&key(0), WriteId(1), None);
        assert!(!store.has_latest("g", "t", 0));
        assert_eq!(store.latest_of("g").count(), 0);
        assert_eq!(store.durable_of("g").count(), 1);
        store.commit(&key(0), WriteId(1));
        assert!(!store.has_group("g"));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn nothing_stays_behind_of_an_aborted_first_commit() {
        let (mut store, memory) = store();
        store.begin(&key(3), WriteId(1), at(5));
        store.abort(&key(3), WriteId(1));
        assert!(!store.has_group("g"));
        assert_eq!(memory.used(), 0);
        store.replay(&key(3), None);
        assert!(!store.has_group("g"));
    }
}
