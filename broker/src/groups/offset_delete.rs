//! OffsetDelete (KIP-496), and the offsets of topics that are gone.

use corelog_wire::messages::offset_delete_request::OffsetDeleteRequest;
use corelog_wire::messages::offset_delete_response::{self, OffsetDeleteResponse};
use corelog_wire::{ErrorCode, Str, Uuid};
use tracing::info;

use super::coordinator::GroupCoordinator;
use super::env::Now;
use super::group::GroupState;
use super::offsets::{CommittedOffset, OffsetKey};
use super::parked::Ticket;
use super::records;
use super::request::GroupResponse;
use super::written::{GroupChange, OnWritten};

impl GroupCoordinator {
    pub(super) fn offset_delete(&mut self, ticket: Ticket, request: OffsetDeleteRequest) {
        let group = self.groups.get(&request.group_id).filter(|group| group.deleting.is_none());
        let refusal = match group {
            _ if request.group_id.is_empty() => Some(ErrorCode::INVALID_GROUP_ID),
            None => Some(ErrorCode::GROUP_ID_NOT_FOUND),
            // What members of another protocol read can't be known.
            Some(group) if !group.is(GroupState::Empty) && !group.is_consumer_group() => {
                Some(ErrorCode::NON_EMPTY_GROUP)
            }
            Some(_) => None,
        };
        let (None, Some(group)) = (refusal, group) else {
            let error_code = refusal.unwrap_or(ErrorCode::GROUP_ID_NOT_FOUND).code();
            let response = OffsetDeleteResponse { error_code, ..Default::default() };
            return self.env.respond(ticket, GroupResponse::OffsetDelete(response));
        };

        let mut keys = Vec::new();
        let mut answer = OffsetDeleteResponse::default();
        for topic in request.topics {
            let subscribed = group.is_subscribed_to(&topic.name);
            let error = if subscribed { ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC } else { ErrorCode::NONE };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let partition_index = partition.partition_index;
                if !subscribed && self.offsets.has_latest(&group.id, &topic.name, partition_index) {
                    let topic = topic.name.detach();
                    keys.push(OffsetKey { group: group.id.clone(), topic, partition: partition_index });
                }
                partitions
                    .push(offset_delete_response::Partition { partition_index, error_code: error.code() });
            }
            answer.topics.push(offset_delete_response::Topic { name: topic.name, partitions });
        }
        let answer = GroupResponse::OffsetDelete(answer);
        if keys.is_empty() {
            return self.env.respond(ticket, answer);
        }
        self.remove_offsets(keys, GroupChange::None, Some((ticket, answer)));
    }

    /// Removes what groups have committed for topics that were deleted.
    pub fn topics_deleted(&mut self, topics: &[(Str, Uuid)], now: Now) {
        self.env.now = now;
        self.remove_offsets_where(|key, offset| {
            let of =
                |(name, id): &(Str, Uuid)| *name == key.topic && offset.topic_id.is_none_or(|of| of == *id);
            topics.iter().any(of)
        });
    }

    /// Removes the offsets of topics that are not there any more: those whose deletion found nobody to remove them,
    /// since the coordinator was loading, or died before the tombstones were in its log.
    pub(super) fn remove_orphaned_offsets(&mut self) {
        let topics = self.topics.clone();
        self.remove_offsets_where(|key, offset| match topics.id(&key.topic) {
            Some(id) => offset.topic_id.is_some_and(|of| of != id),
            None => true,
        });
    }

    fn remove_offsets_where(&mut self, goes: impl Fn(&OffsetKey, &CommittedOffset) -> bool) {
        let going = self.offsets.latest().filter(|(key, offset)| goes(key, offset));
        let keys: Vec<OffsetKey> = going.map(|(key, _)| key).collect();
        if !keys.is_empty() {
            info!(offsets = keys.len(), "removing the offsets of deleted topics");
            self.remove_offsets(keys, GroupChange::None, None);
        }
    }

    /// Writes tombstones for the offsets, and what else goes with them.
    pub(super) fn remove_offsets(
        &mut self,
        keys: Vec<OffsetKey>,
        change: GroupChange,
        answer: Option<(Ticket, GroupResponse)>,
    ) {
        let write = self.env.next_write_id();
        let mut records: Vec<_> = keys.iter().map(records::offset_tombstone).collect();
        for key in &keys {
            self.offsets.begin(key, write, None);
        }
        if let GroupChange::Removed { groups } = &change {
            for group_id in groups {
                records.push(records::group_tombstone(group_id));
                if let Some(group) = self.groups.get_mut(group_id) {
                    group.deleting = Some(write);
                }
            }
        }
        self.env.append(records, OnWritten { offsets: keys, change }, answer);
    }
}
