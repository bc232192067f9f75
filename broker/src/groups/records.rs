//! The records of `__consumer_offsets`, in Kafka's schemas and in the versions that Kafka 4 writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_wire::coordinator_records::group_metadata_value::MemberMetadata;
use corelog_wire::coordinator_records::{
    CoordinatorKey, GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
    value_from_bytes, value_to_bytes,
};
use corelog_wire::messages::Message;
use corelog_wire::{DecodeError, DecodeFault, Str};

use super::classic::Group;
use super::offsets::{CommittedOffset, OffsetKey};
use crate::coordinator::{RawRecord, Record};

/// With the topic's id. Kafka writes it since 4.1, and reads it since 3.5.
const OFFSET_VERSION: i16 = 4;
/// The only version with an expiry of its own.
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
/// The newest version without tagged fields; known since Kafka 2.3.
const GROUP_VERSION: i16 = 3;

/// Why encoding can't fail: what goes into records came off the wire or out of the log, where a string has at most
/// 32767 bytes; new member ids are kept far below that.
const FITS: &str = "strings of records fit their length fields";

/// One change of the replicated state. `None` removes.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecord {
    Offset(OffsetKey, Option<CommittedOffset>),
    Group(Str, Option<GroupMetadataValue>),
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupRecordKey {
    Group(Str),
    Offset(OffsetKey),
}

/// A record of the log that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record of __consumer_offsets: the {part} cannot be read: {source}")]
pub struct UnreadableRecord {
    part: &'static str,
    source: DecodeError,
}

impl Record for GroupRecord {
    type Key = GroupRecordKey;
    type DecodeError = UnreadableRecord;

    fn key(&self) -> GroupRecordKey {
        match self {
            GroupRecord::Offset(key, _) => GroupRecordKey::Offset(key.clone()),
            GroupRecord::Group(id, _) => GroupRecordKey::Group(id.clone()),
        }
    }

    fn encode(&self) -> RawRecord {
        let (key, value) = match self {
            GroupRecord::Offset(key, offset) => (offset_key(key), offset.as_ref().map(offset_value)),
            GroupRecord::Group(id, group) => (
                CoordinatorKey::GroupMetadata(GroupMetadataKey { group: id.clone() }),
                group.as_ref().map(|group| value_bytes(group, GROUP_VERSION)),
            ),
        };
        RawRecord { key: key.to_bytes().expect(FITS), value }
    }

    /// Kinds of records that are not of classic groups are passed over. Nothing of the record's own bytes is kept.
    fn decode(raw: RawRecord) -> Result<Option<GroupRecord>, UnreadableRecord> {
        let key = match CoordinatorKey::from_bytes(raw.key) {
            Ok(key) => key,
            Err(DecodeError { fault: DecodeFault::UnknownKey(_), .. }) => return Ok(None),
            Err(source) => return Err(UnreadableRecord { part: "key", source }),
        };
        Ok(Some(match key {
            CoordinatorKey::OffsetCommit(key) => {
                let mut offset = read::<OffsetCommitValue>(raw.value)?.map(CommittedOffset::from);
                if planted(Fault::OffsetsOutliveTheirTopic) {
                    offset.iter_mut().for_each(|offset| offset.topic_id = None);
                }
                let (group, topic) = (key.group.detach(), key.topic.detach());
                GroupRecord::Offset(OffsetKey { group, topic, partition: key.partition }, offset)
            }
            CoordinatorKey::GroupMetadata(key) => {
                GroupRecord::Group(key.group.detach(), read::<GroupMetadataValue>(raw.value)?.map(detached))
            }
        }))
    }
}

fn read<M: Message>(value: Option<Bytes>) -> Result<Option<M>, UnreadableRecord> {
    value.map(value_from_bytes::<M>).transpose().map_err(|source| UnreadableRecord { part: "value", source })
}

/// The group as it is; with `assignments` in place of the members' own, for a generation that is just being assigned.
pub fn group_record(group: &Group, assignments: Option<&BTreeMap<Str, Bytes>>) -> GroupRecord {
    let members = group.members().map(|member| MemberMetadata {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.metadata(group.protocol.as_ref()),
        assignment: match assignments {
            Some(assignments) => assignments.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        },
    });
    let value = GroupMetadataValue {
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        generation: group.generation,
        protocol: group.protocol.clone(),
        leader: group.leader.clone(),
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        members: members.collect(),
    };
    GroupRecord::Group(group.id.clone(), Some(value))
}

/// A group that has been named and has no generation yet.
pub fn new_group_record(group: &Group) -> GroupRecord {
    let value = GroupMetadataValue {
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        ..Default::default()
    };
    GroupRecord::Group(group.id.clone(), Some(value))
}

fn offset_key(key: &OffsetKey) -> CoordinatorKey {
    CoordinatorKey::OffsetCommit(OffsetCommitKey {
        group: key.group.clone(),
        topic: key.topic.clone(),
        partition: key.partition,
    })
}

fn offset_value(offset: &CommittedOffset) -> Bytes {
    let version =
        if offset.expire_timestamp_ms.is_some() { OFFSET_VERSION_WITH_EXPIRY } else { OFFSET_VERSION };
    let value = OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.clone(),
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms.unwrap_or(-1),
        topic_id: offset.topic_id.unwrap_or_default(),
    };
    value_bytes(&value, version)
}

fn value_bytes<M: Message>(value: &M, version: i16) -> Bytes {
    value_to_bytes(value, version).expect(FITS)
}

impl From<OffsetCommitValue> for CommittedOffset {
    fn from(value: OffsetCommitValue) -> CommittedOffset {
        CommittedOffset {
            offset: value.offset,
            topic_id: (!value.topic_id.is_zero()).then_some(value.topic_id),
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.detach(),
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
        }
    }
}

fn detached(mut value: GroupMetadataValue) -> GroupMetadataValue {
    value.protocol_type = value.protocol_type.detach();
    value.protocol = value.protocol.map(|name| name.detach());
    value.leader = value.leader.map(|leader| leader.detach());
    for member in &mut value.members {
        member.member_id = member.member_id.detach();
        member.group_instance_id = member.group_instance_id.take().map(|id| id.detach());
        member.client_id = member.client_id.detach();
        member.client_host = member.client_host.detach();
        member.subscription = Bytes::copy_from_slice(&member.subscription);
        member.assignment = Bytes::copy_from_slice(&member.assignment);
    }
    value
}
