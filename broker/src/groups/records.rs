//! The records of `__consumer_offsets`, in Kafka's schemas and in the versions that Kafka 4 writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use corelog_wire::Str;
use corelog_wire::coordinator_records::group_metadata_value::MemberMetadata;
use corelog_wire::coordinator_records::{
    CoordinatorKey, GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue, value_to_bytes,
};
use corelog_wire::messages::Message;

use super::effect::CoordinatorRecord;
use super::group::{Group, LoadedGroup};
use super::member::{Member, Protocol};
use super::offsets::{CommittedOffset, OffsetKey};

/// With the topic's id. Kafka writes it since 4.1, and reads it since 3.5.
const OFFSET_VERSION: i16 = 4;
/// The only version with an expiry of its own.
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
/// The newest version without tagged fields; known since Kafka 2.3.
const GROUP_VERSION: i16 = 3;

/// Why encoding can't fail: what goes into records came off the wire or out of the log, where a string has at most
/// 32767 bytes; new member ids are kept far below that.
const FITS: &str = "strings of records fit their length fields";

pub fn offset_record(key: &OffsetKey, offset: &CommittedOffset) -> CoordinatorRecord {
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
    record(offset_key(key), Some(value_bytes(&value, version)))
}

pub fn offset_tombstone(key: &OffsetKey) -> CoordinatorRecord {
    record(offset_key(key), None)
}

/// The group as it is; with `assignments` in place of the members' own, for a generation that is just being assigned.
pub fn group_record(group: &Group, assignments: Option<&BTreeMap<Str, Bytes>>) -> CoordinatorRecord {
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
    record(group_key(&group.id), Some(value_bytes(&value, GROUP_VERSION)))
}

/// A group that has been named and has no generation yet.
pub fn new_group_record(group: &Group) -> CoordinatorRecord {
    let value = GroupMetadataValue {
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        ..Default::default()
    };
    record(group_key(&group.id), Some(value_bytes(&value, GROUP_VERSION)))
}

pub fn group_tombstone(group: &Str) -> CoordinatorRecord {
    record(group_key(group), None)
}

fn record(key: CoordinatorKey, value: Option<Bytes>) -> CoordinatorRecord {
    CoordinatorRecord { key: key.to_bytes().expect(FITS), value }
}

fn value_bytes<M: Message>(value: &M, version: i16) -> Bytes {
    value_to_bytes(value, version).expect(FITS)
}

fn offset_key(key: &OffsetKey) -> CoordinatorKey {
    CoordinatorKey::OffsetCommit(OffsetCommitKey {
        group: key.group.clone(),
        topic: key.topic.clone(),
        partition: key.partition,
    })
}

fn group_key(group: &Str) -> CoordinatorKey {
    CoordinatorKey::GroupMetadata(GroupMetadataKey { group: group.clone() })
}

// ---- reading

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

impl From<GroupMetadataValue> for LoadedGroup {
    fn from(value: GroupMetadataValue) -> LoadedGroup {
        let protocol = value.protocol.map(|name| name.detach());
        let members = value.members.into_iter().map(|member| Member {
            id: member.member_id.detach(),
            instance_id: member.group_instance_id.map(|id| id.detach()),
            client_id: member.client_id.detach(),
            client_host: member.client_host.detach(),
            // Version 0 has none.
            rebalance_timeout_ms: match member.rebalance_timeout {
                -1 => member.session_timeout,
                timeout => timeout,
            },
            session_timeout_ms: member.session_timeout,
            // The others that the member knew are not in the record; it names them when it joins next.
            protocols: vec![Protocol {
                name: protocol.clone().unwrap_or_default(),
                metadata: Bytes::copy_from_slice(&member.subscription),
            }],
            assignment: Bytes::copy_from_slice(&member.assignment),
            join: None,
            sync: None,
            is_new: false,
        });
        LoadedGroup {
            generation: value.generation,
            protocol_type: Some(value.protocol_type.detach()).filter(|name| !name.is_empty()),
            members: members.collect(),
            protocol,
            leader: value.leader.map(|leader| leader.detach()),
            state_since_ms: (value.current_state_timestamp != -1).then_some(value.current_state_timestamp),
        }
    }
}
