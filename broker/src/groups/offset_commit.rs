//! OffsetCommit: by members of a generation, and by anyone for a group without members.

use corelog_wire::messages::offset_commit_request::{self, OffsetCommitRequest};
use corelog_wire::messages::offset_commit_response::{self, OffsetCommitResponse};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::coordinator::GroupCoordinator;
use super::group::{Group, GroupState};
use super::offsets::{CommittedOffset, OffsetKey, OffsetStore};
use super::parked::Ticket;
use super::records;
use super::request::{GroupResponse, RequestContext, refuse_commit};
use super::written::{GroupChange, OnWritten};

/// From this version on a generation of a group that does not exist is GROUP_ID_NOT_FOUND, and ILLEGAL_GENERATION
/// before (KIP-848).
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// From this version on topics are named by their ids (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

impl GroupCoordinator {
    pub(super) fn offset_commit(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        request: OffsetCommitRequest,
    ) {
        if request.topics.is_empty() {
            return self.env.respond(ticket, GroupResponse::OffsetCommit(OffsetCommitResponse::default()));
        }
        let group = self.groups.get(&request.group_id).filter(|group| group.deleting.is_none());
        let exists = group.is_some();
        let refusal = match group {
            Some(group) => check(group, &request).err(),
            // Kafka's clients without group membership, and its admin client: they make a simple group of it.
            None if request.generation_id_or_member_epoch < 0 => None,
            None if context.api_version >= GROUP_ID_NOT_FOUND_FROM => Some(ErrorCode::GROUP_ID_NOT_FOUND),
            None => Some(ErrorCode::ILLEGAL_GENERATION),
        };
        if let Some(error) = refusal {
            return self.env.respond(ticket, GroupResponse::OffsetCommit(refuse_commit(request, error)));
        }

        // A commit is a sign of life of the member.
        if let Some(group) =
            group.filter(|group| matches!(group.state(), GroupState::Stable | GroupState::PreparingRebalance))
            && let Some(member) = group.member(&request.member_id)
        {
            self.env.touch(&group.id, member);
        }

        let group_id = request.group_id.detach();
        let expire_timestamp_ms = (request.retention_time_ms != -1)
            .then(|| self.env.now.wall_ms.saturating_add(request.retention_time_ms));
        let write = self.env.next_write_id();
        let mut writing = Vec::new();
        let mut answer = OffsetCommitResponse::default();
        let mut out_of_memory = false;
        for topic in request.topics {
            let topic_name = topic.name.detach();
            // Who took the request in may have known of the topic's deletion or creation later or sooner than this shard.
            let stranger = match self.topics.agree(&topic_name, topic.topic_id) {
                true => None,
                false if context.api_version >= TOPIC_IDS_FROM => Some(ErrorCode::UNKNOWN_TOPIC_ID),
                false => Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            };
            let topic_id = self.topics.id(&topic_name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let partition_index = partition.partition_index;
                let key = OffsetKey {
                    group: group_id.clone(),
                    topic: topic_name.clone(),
                    partition: partition_index,
                };
                let error = stranger.unwrap_or_else(|| self.commit_error(&key, &partition));
                out_of_memory |= error == ErrorCode::INVALID_COMMIT_OFFSET_SIZE;
                if error.is_ok() {
                    let offset = self.committed(partition, topic_id, expire_timestamp_ms);
                    let record = records::offset_record(&key, &offset);
                    self.offsets.begin(&key, write, Some(offset));
                    writing.push((key, record));
                }
                partitions
                    .push(offset_commit_response::Partition { partition_index, error_code: error.code() });
            }
            answer.topics.push(offset_commit_response::Topic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
            });
        }
        if out_of_memory {
            self.env.memory_is_full(&group_id, "offsets are");
        }
        let answer = GroupResponse::OffsetCommit(answer);
        if writing.is_empty() {
            return self.env.respond(ticket, answer);
        }
        let (offsets, records): (Vec<_>, Vec<_>) = writing.into_iter().unzip();
        let change =
            if exists { GroupChange::None } else { GroupChange::Created { group: group_id.clone() } };
        if !exists {
            self.put_new_group(group_id.clone());
        }
        let appended = self.env.append(records, OnWritten { offsets, change }, Some((ticket, answer)));
        debug_assert_eq!(appended, write);
        if !exists && let Some(group) = self.groups.get_mut(&group_id) {
            group.creating = Some(write);
        }
    }

    fn commit_error(&self, key: &OffsetKey, partition: &offset_commit_request::Partition) -> ErrorCode {
        let metadata = partition.committed_metadata.as_deref().unwrap_or("");
        if is_longer(metadata, self.env.config.offset_metadata_max) {
            return ErrorCode::OFFSET_METADATA_TOO_LARGE;
        }
        let known = self.offsets.latest_metadata_bytes(key);
        // Until it is durable both are there; those are bounded by what may wait for the log.
        let grows = known.is_none_or(|known| metadata.len() > known);
        if grows && !self.has_room_for_commit(key, OffsetStore::cost(metadata.len())) {
            return ErrorCode::INVALID_COMMIT_OFFSET_SIZE;
        }
        ErrorCode::NONE
    }

    fn has_room_for_commit(&self, key: &OffsetKey, bytes: usize) -> bool {
        let memory = &self.env.memory;
        match self.groups.contains_key(&key.group) {
            true => memory.has_room_for_offsets(bytes),
            false => {
                let group = Group::COST + 3 * key.group.len();
                memory.has_room_for_offsets(bytes) && memory.has_room_for_new_group(bytes + group)
            }
        }
    }

    fn committed(
        &self,
        partition: offset_commit_request::Partition,
        topic_id: Option<Uuid>,
        expire_timestamp_ms: Option<i64>,
    ) -> CommittedOffset {
        CommittedOffset {
            offset: partition.committed_offset,
            topic_id,
            leader_epoch: partition.committed_leader_epoch.max(-1),
            metadata: partition.committed_metadata.as_ref().map(Str::detach).unwrap_or_default(),
            commit_timestamp_ms: match partition.commit_timestamp {
                -1 => self.env.now.wall_ms,
                timestamp => timestamp,
            },
            expire_timestamp_ms,
        }
    }
}

fn check(group: &Group, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    if generation < 0 && group.is(GroupState::Empty) {
        return Ok(());
    }
    if generation >= 0 || !request.member_id.is_empty() || request.group_instance_id.is_some() {
        group
            .check_member(&request.member_id, request.group_instance_id.as_ref())
            .map_err(|refusal| refusal.error())?;
        if generation != group.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
    } else if !group.is(GroupState::Empty) {
        return Err(ErrorCode::UNKNOWN_MEMBER_ID);
    }
    // The member has joined this generation and does not know its part of it yet: what it commits is of the one before.
    if group.is(GroupState::CompletingRebalance) {
        return Err(ErrorCode::REBALANCE_IN_PROGRESS);
    }
    Ok(())
}

/// Whether `text` has more than `max` UTF-16 code units, which is how Kafka counts.
fn is_longer(text: &str, max: usize) -> bool {
    text.len() > max && text.encode_utf16().count() > max
}
