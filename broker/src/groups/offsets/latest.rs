//! Offsets as they will be when everything on its way is committed, for whoever decides: so that nothing which is on its
//! way slips through a deletion.

use std::collections::BTreeMap;

use corelog_wire::Str;

use super::store::{CommittedOffset, OffsetKey};
use crate::coordinator::WriteId;
use crate::groups::machine::Groups;
use crate::groups::records::{GroupRecord, GroupRecordKey};

impl Groups {
    pub(in crate::groups) fn latest_offset(&self, key: &OffsetKey) -> Option<&CommittedOffset> {
        let pending = self.env.desk.pending();
        if pending.is_empty() {
            return self.state.offsets.get(&key.group, &key.topic, key.partition);
        }
        match pending.latest(&GroupRecordKey::Offset(key.clone())) {
            Some((_, GroupRecord::Offset(_, offset))) => offset.as_ref(),
            _ => self.state.offsets.get(&key.group, &key.topic, key.partition),
        }
    }

    /// Every offset of the group, by topic, then partition, and whether one is on its way to it.
    pub(in crate::groups) fn latest_offsets_of(
        &self,
        group: &Str,
    ) -> impl Iterator<Item = (&Str, i32, &CommittedOffset, bool)> {
        let pending: BTreeMap<(&Str, i32), Option<&CommittedOffset>> = self
            .pending_offsets_of(group)
            .map(|(key, _, offset)| ((&key.topic, key.partition), offset))
            .collect();
        let mut merged: Vec<_> = self
            .state
            .offsets
            .of(group)
            .filter(|(topic, partition, _)| !pending.contains_key(&(*topic, *partition)))
            .map(|(topic, partition, offset)| (topic, partition, offset, false))
            .collect();
        if !pending.is_empty() {
            let set = pending.into_iter().filter_map(|(key, offset)| Some((key, offset?)));
            merged.extend(set.map(|((topic, partition), offset)| (topic, partition, offset, true)));
            merged.sort_unstable_by_key(|(topic, partition, ..)| (*topic, *partition));
        }
        merged.into_iter()
    }

    /// Offsets of all groups that `goes` is true of, in the order of their keys.
    pub(in crate::groups) fn latest_offsets_where(
        &self,
        goes: impl Fn(&Str, &CommittedOffset) -> bool,
    ) -> Vec<OffsetKey> {
        let pending = self.env.desk.pending();
        let first = GroupRecordKey::Offset(OffsetKey::first_of(Str::default()));
        let on_their_way = pending.latest_from(first..).filter_map(|(_, _, record)| match record {
            GroupRecord::Offset(key, Some(offset)) if goes(&key.topic, offset) => Some(key.clone()),
            _ => None,
        });
        let mut keys: Vec<OffsetKey> = on_their_way.collect();
        let committed = self.state.offsets.all().filter(|(_, topic, _, offset)| goes(topic, offset));
        let committed = committed.map(|(group, topic, partition, _)| OffsetKey {
            group: group.clone(),
            topic: topic.clone(),
            partition,
        });
        keys.extend(committed.filter(|key| pending.latest(&GroupRecordKey::Offset(key.clone())).is_none()));
        keys.sort_unstable();
        keys
    }

    /// The last write on its way that touches the offset.
    pub(in crate::groups) fn last_write_to(&self, key: OffsetKey) -> Option<WriteId> {
        self.env.desk.pending().latest(&GroupRecordKey::Offset(key)).map(|(write, _)| write)
    }

    /// The last record on its way of each offset of the group.
    pub(in crate::groups) fn pending_offsets_of(
        &self,
        group: &Str,
    ) -> impl Iterator<Item = (&OffsetKey, WriteId, Option<&CommittedOffset>)> {
        let first = GroupRecordKey::Offset(OffsetKey::first_of(group.clone()));
        self.env.desk.pending().latest_from(first..).map_while(move |(_, write, record)| match record {
            GroupRecord::Offset(key, offset) if key.group == *group => Some((key, write, offset.as_ref())),
            _ => None,
        })
    }

    /// Whether any record of the group is on its way.
    pub(in crate::groups) fn has_pending(&self, group: &Str) -> bool {
        let own = GroupRecordKey::Group(group.clone());
        self.env.desk.pending().latest(&own).is_some() || self.pending_offsets_of(group).next().is_some()
    }
}

impl OffsetKey {
    /// Stands before every offset of the group.
    fn first_of(group: Str) -> OffsetKey {
        OffsetKey { group, topic: Str::default(), partition: i32::MIN }
    }
}
