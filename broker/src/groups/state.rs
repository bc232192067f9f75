//! What the records of `__consumer_offsets` say: the replicated state of groups. Records alone change it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use corelog_wire::Str;
use corelog_wire::coordinator_records::GroupMetadataValue;

use super::memory::GroupMemory;
use super::offsets::OffsetStore;
use super::records::GroupRecord;

#[derive(Debug)]
pub struct GroupsState {
    /// Groups that have a record of their own: the last generation that was stored. Texts and bytes are shared with the
    /// members of [`super::classic::Group`], which account for them.
    pub stored: BTreeMap<Str, GroupMetadataValue>,
    /// Groups that have only offsets are in here alone.
    pub offsets: OffsetStore,
}

impl GroupsState {
    pub fn new(memory: &GroupMemory) -> GroupsState {
        GroupsState { stored: BTreeMap::new(), offsets: OffsetStore::new(memory) }
    }

    pub fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Offset(key, Some(offset)) => self.offsets.set(key, offset),
            GroupRecord::Offset(key, None) => self.offsets.remove(&key),
            GroupRecord::Group(id, Some(value)) => {
                self.stored.insert(id, value);
            }
            GroupRecord::Group(id, None) => {
                self.stored.remove(&id);
            }
        }
    }

    /// The first groups that exist from `from` on, `limit` at most.
    pub fn ids_from(&self, from: Bound<Str>, limit: usize) -> Vec<Str> {
        let stored = self.stored.range((from.clone(), Bound::Unbounded)).map(|(id, _)| id).take(limit);
        let with_offsets = self.offsets.group_ids_from(from).take(limit);
        let ids: BTreeSet<Str> = stored.chain(with_offsets).cloned().collect();
        ids.into_iter().take(limit).collect()
    }

    /// Whether the group exists.
    pub fn has(&self, group: &str) -> bool {
        self.stored.contains_key(group) || self.offsets.has_group(group)
    }
}
