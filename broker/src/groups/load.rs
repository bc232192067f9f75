//! Loading: the state as the records of the log have it.

use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_wire::coordinator_records::{CoordinatorKey, value_from_bytes};
use corelog_wire::{DecodeError, DecodeFault, Str};

use super::coordinator::GroupCoordinator;
use super::env::Now;
use super::group::Group;
use super::offsets::{CommittedOffset, OffsetKey};
use super::rebalance::prepare_rebalance;

/// A record of the log that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record of __consumer_offsets: the {part} cannot be read: {source}")]
pub struct LoadError {
    part: &'static str,
    source: DecodeError,
}

impl GroupCoordinator {
    /// Takes the next record of the log. A later record of the same key replaces an earlier one; no value removes it.
    /// Kinds of records that are not of classic groups are passed over.
    ///
    /// # Panics
    /// When loading has ended.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>, now: Now) -> Result<(), LoadError> {
        assert!(self.loading, "records are replayed before the coordinator is loaded");
        self.env.now = now;
        let key = match CoordinatorKey::from_bytes(key) {
            Ok(key) => key,
            Err(DecodeError { fault: DecodeFault::UnknownKey(_), .. }) => return Ok(()),
            Err(source) => return Err(LoadError { part: "key", source }),
        };
        let value_error = |source| LoadError { part: "value", source };
        match key {
            CoordinatorKey::OffsetCommit(key) => {
                let offset = value
                    .map(value_from_bytes::<corelog_wire::coordinator_records::OffsetCommitValue>)
                    .transpose()
                    .map_err(value_error)?;
                let key = OffsetKey {
                    group: key.group.detach(),
                    topic: key.topic.detach(),
                    partition: key.partition,
                };
                if offset.is_some() && !self.groups.contains_key(&key.group) {
                    self.put_new_group(key.group.clone());
                }
                let mut offset: Option<CommittedOffset> = offset.map(Into::into);
                if planted(Fault::OffsetsOutliveTheirTopic) {
                    offset.iter_mut().for_each(|offset| offset.topic_id = None);
                }
                self.offsets.replay(&key, offset);
            }
            CoordinatorKey::GroupMetadata(key) => {
                let value = value
                    .map(value_from_bytes::<corelog_wire::coordinator_records::GroupMetadataValue>)
                    .transpose()
                    .map_err(value_error)?;
                let id: Str = key.group.detach();
                match value {
                    Some(value) => {
                        let group = Group::loaded(id.clone(), &self.env.memory, value.into());
                        self.groups.insert(id, group);
                    }
                    None => {
                        self.groups.remove(&id);
                    }
                }
            }
        }
        Ok(())
    }

    /// The log has been replayed: the coordinator takes requests. Members of stable groups have their whole session
    /// timeout to be heard of. Offsets of topics that are gone are removed.
    pub fn loaded(&mut self, now: Now) {
        self.env.now = now;
        self.loading = false;
        for id in self.offsets.group_ids() {
            // A tombstone of a group that left offsets behind: what is left makes a simple group.
            if !self.groups.contains_key(id) {
                let group = Group::new(id.clone(), &self.env.memory, now.wall_ms);
                self.groups.insert(id.clone(), group);
            }
        }
        let members_max = self.env.config.group_members_max;
        for group in self.groups.values_mut() {
            for member in group.members() {
                self.env.touch(&group.id, member);
            }
            if group.member_count() > members_max {
                prepare_rebalance(
                    group,
                    &mut self.env,
                    "loaded with more members than group.max.size allows",
                );
            }
        }
        self.remove_orphaned_offsets();
        let interval = self.env.config.offsets_retention_check_interval_ms;
        self.schedule_retention(interval);
    }
}
