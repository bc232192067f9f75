//! OffsetCommit: by members of a generation, and by anyone for a group without members.

use corelog_io::planted::{Fault, planted};
use corelog_wire::messages::offset_commit_request::{self, OffsetCommitRequest};
use corelog_wire::messages::offset_commit_response::{self, OffsetCommitResponse};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::store::{CommittedOffset, OffsetKey, OffsetStore};
use crate::coordinator::Ticket;
use crate::groups::classic::{Group, GroupState};
use crate::groups::machine::Groups;
use crate::groups::records::GroupRecord;
use crate::groups::request::{GroupResponse, RequestContext, refuse_commit};
use crate::groups::then::GroupChange;

/// From this version on a generation of a group that does not exist is GROUP_ID_NOT_FOUND, and ILLEGAL_GENERATION
/// before (KIP-848).
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// From this version on topics are named by their ids (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;

impl Groups {
    pub(in crate::groups) fn offset_commit(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        request: OffsetCommitRequest,
    ) {
        if request.topics.is_empty() {
            return self.env.respond(ticket, GroupResponse::OffsetCommit(OffsetCommitResponse::default()));
        }
        let group = self.groups.get(&request.group_id);
        let group = group.filter(|group| !self.env.is_pending(group.removal));
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
        if let Some(group) = group
            && matches!(group.state(), GroupState::Stable | GroupState::PreparingRebalance)
            && let Some(member) = group.member(&request.member_id)
        {
            self.env.touch(&group.id, member);
        }

        let group_id = request.group_id.detach();
        let (records, answer) = self.decide_offsets(context, &group_id, request);
        let answer = GroupResponse::OffsetCommit(answer);
        if records.is_empty() {
            return self.env.respond(ticket, answer);
        }
        let answer = Some((ticket, answer));
        if exists {
            self.env.write(records, GroupChange::None, answer);
            return;
        }
        self.put_new_group(group_id.clone());
        let write = self.env.write(records, GroupChange::Created { group: group_id.clone() }, answer);
        if let Some(group) = self.groups.get_mut(&group_id) {
            group.creation = Some(write);
        }
    }

    /// The records of the partitions that are accepted, and what is said of each.
    fn decide_offsets(
        &self,
        context: &RequestContext,
        group_id: &Str,
        request: OffsetCommitRequest,
    ) -> (Vec<GroupRecord>, OffsetCommitResponse) {
        let expire_timestamp_ms = (request.retention_time_ms != -1)
            .then(|| self.env.desk.now.wall_ms.saturating_add(request.retention_time_ms))
            // Which is how a record says that there is none.
            .filter(|at| *at != -1);
        let partitions = request.topics.iter().map(|topic| topic.partitions.len()).sum();
        let (mut records, mut taken_bytes) = (Vec::with_capacity(partitions), 0);
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
                let (group, topic) = (group_id.clone(), topic_name.clone());
                let key = OffsetKey { group, topic, partition: partition_index };
                let error = stranger.unwrap_or_else(|| self.commit_error(&key, &partition, taken_bytes));
                out_of_memory |= error == ErrorCode::INVALID_COMMIT_OFFSET_SIZE;
                if error.is_ok() {
                    let offset = self.committed(partition, topic_id, expire_timestamp_ms);
                    taken_bytes += OffsetStore::cost(offset.metadata.len());
                    records.push(GroupRecord::Offset(key, Some(offset)));
                }
                let error_code = error.code();
                partitions.push(offset_commit_response::Partition { partition_index, error_code });
            }
            let (name, topic_id) = (topic.name, topic.topic_id);
            answer.topics.push(offset_commit_response::Topic { name, topic_id, partitions });
        }
        if out_of_memory {
            self.env.memory_is_full(group_id, "offsets are");
        }
        (records, answer)
    }

    /// `taken_bytes`: what the commit takes with the partitions before this one.
    fn commit_error(
        &self,
        key: &OffsetKey,
        partition: &offset_commit_request::Partition,
        taken_bytes: usize,
    ) -> ErrorCode {
        let metadata = partition.committed_metadata.as_deref().unwrap_or("");
        if is_longer(metadata, self.env.config.offset_metadata_max) {
            return ErrorCode::OFFSET_METADATA_TOO_LARGE;
        }
        let known = self.latest_offset(key).map(|offset| offset.metadata.len());
        // Until it is durable both are there; those are bounded by what may wait for the log.
        let grows = known.is_none_or(|known| metadata.len() > known);
        let bytes = taken_bytes + OffsetStore::cost(metadata.len());
        if grows && !self.has_room_for_commit(key, bytes) {
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
            // The record of one with an expiry has no room for it.
            topic_id: topic_id.filter(|_| expire_timestamp_ms.is_none()),
            leader_epoch: partition.committed_leader_epoch.max(-1),
            metadata: partition.committed_metadata.as_ref().map(Str::detach).unwrap_or_default(),
            commit_timestamp_ms: match partition.commit_timestamp {
                -1 => self.env.desk.now.wall_ms,
                timestamp => timestamp,
            },
            expire_timestamp_ms,
        }
    }
}

fn check(group: &Group, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    if generation >= 0 && planted(Fault::FormerGenerationsGoOn) {
        return Ok(());
    }
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
