//! OffsetDelete (KIP-496), and the offsets of topics that are gone.

use corelog_wire::messages::offset_delete_request::OffsetDeleteRequest;
use corelog_wire::messages::offset_delete_response::{self, OffsetDeleteResponse};
use corelog_wire::{ErrorCode, Str, Uuid};
use tracing::info;

use super::store::{CommittedOffset, OffsetKey};
use crate::coordinator::Ticket;
use crate::groups::classic::GroupState;
use crate::groups::machine::Groups;
use crate::groups::records::GroupRecord;
use crate::groups::request::GroupResponse;
use crate::groups::then::GroupChange;

impl Groups {
    pub(in crate::groups) fn offset_delete(&mut self, ticket: Ticket, request: OffsetDeleteRequest) {
        let group = self.group(&request.group_id);
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
                let key = OffsetKey {
                    group: group.id.clone(),
                    topic: topic.name.detach(),
                    partition: partition_index,
                };
                if !subscribed && self.latest_offset(&key).is_some() {
                    keys.push(key);
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
        self.remove_offsets(keys, Vec::new(), Some((ticket, answer)));
    }

    /// Removes what groups have committed for topics that were deleted.
    pub fn topics_deleted(&mut self, topics: &[(Str, Uuid)]) {
        let keys = self.latest_offsets_where(|topic, offset| {
            let of = |(name, id): &(Str, Uuid)| name == topic && offset.topic_id.is_none_or(|of| of == *id);
            topics.iter().any(of)
        });
        if !keys.is_empty() {
            info!(offsets = keys.len(), "removing the offsets of deleted topics");
            self.remove_offsets(keys, Vec::new(), None);
        }
    }

    /// Whether an offset is of a topic that is not there. Right after a start the metadata may be older than what was loaded: a
    /// topic that is not there yet looks the same.
    pub(in crate::groups) fn is_orphan(&self, topic: &Str, offset: &CommittedOffset) -> bool {
        match self.topics.id(topic) {
            Some(id) => offset.topic_id.is_some_and(|of| of != id),
            None => true,
        }
    }

    /// Writes tombstones for the offsets, and for the groups that go with them.
    pub(in crate::groups) fn remove_offsets(
        &mut self,
        keys: Vec<OffsetKey>,
        groups: Vec<Str>,
        answer: Option<(Ticket, GroupResponse)>,
    ) {
        let offsets = keys.into_iter().map(|key| GroupRecord::Offset(key, None));
        let records = offsets.chain(groups.iter().map(|id| GroupRecord::Group(id.clone(), None))).collect();
        let change = GroupChange::Removed { groups: groups.clone() };
        let write = self.env.write(records, change, answer);
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.removal = Some(write);
            }
        }
    }
}
