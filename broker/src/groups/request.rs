//! What the coordinator is asked, and what it answers: one variant per API, in the wire's own types.

use corelog_wire::messages::delete_groups_response::DeletableGroupResult;
use corelog_wire::messages::describe_groups_response::DescribedGroup;
use corelog_wire::messages::heartbeat_request::HeartbeatRequest;
use corelog_wire::messages::heartbeat_response::HeartbeatResponse;
use corelog_wire::messages::join_group_request::JoinGroupRequest;
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::messages::leave_group_request::LeaveGroupRequest;
use corelog_wire::messages::leave_group_response::LeaveGroupResponse;
use corelog_wire::messages::list_groups_request::ListGroupsRequest;
use corelog_wire::messages::list_groups_response::ListGroupsResponse;
use corelog_wire::messages::offset_commit_request::OffsetCommitRequest;
use corelog_wire::messages::offset_commit_response::OffsetCommitResponse;
use corelog_wire::messages::offset_delete_request::OffsetDeleteRequest;
use corelog_wire::messages::offset_delete_response::OffsetDeleteResponse;
use corelog_wire::messages::sync_group_request::SyncGroupRequest;
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::messages::{offset_commit_response, offset_fetch_request, offset_fetch_response};
use corelog_wire::{ErrorCode, Str};

use super::classic::{join_refusal, leave_refusal};

/// Who asks, and in which version.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The header's client id; empty where it is null.
    pub client_id: Str,
    /// The peer as Kafka writes it: `/127.0.0.1`.
    pub client_host: Str,
    pub api_version: i16,
}

/// One request, or the part of one that concerns the groups of one coordinator.
#[derive(Clone, Debug)]
pub enum GroupRequest {
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
    /// Only the partitions that exist: unknown topics and partitions are answered before this. From version 10 on the
    /// names are filled in for the ids; both are given back.
    OffsetCommit(OffsetCommitRequest),
    /// One group of the request; a version before 8 has just one. Names filled in as for `OffsetCommit`.
    OffsetFetch {
        group: offset_fetch_request::Group,
        require_stable: bool,
    },
    /// Only the partitions that exist.
    OffsetDelete(OffsetDeleteRequest),
    Describe {
        groups: Vec<Str>,
        include_authorized_operations: bool,
    },
    List(ListGroupsRequest),
    Delete(Vec<Str>),
}

/// The answer to the variant of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    Leave(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(offset_fetch_response::Group),
    OffsetDelete(OffsetDeleteResponse),
    Describe(Vec<DescribedGroup>),
    List(ListGroupsResponse),
    Delete(Vec<DeletableGroupResult>),
}

impl GroupRequest {
    /// As much of it as its refusal needs. Of one that may wait for minutes nothing more is to be kept.
    pub fn outline(&self) -> GroupRequest {
        match self {
            GroupRequest::Join(JoinGroupRequest { member_id, .. }) => {
                GroupRequest::Join(JoinGroupRequest { member_id: member_id.clone(), ..Default::default() })
            }
            GroupRequest::Sync(_) => GroupRequest::Sync(SyncGroupRequest::default()),
            others => others.clone(),
        }
    }

    /// The answer that says `error` and nothing else, as Kafka shapes it for each API: for a coordinator that is
    /// elsewhere, is loading, or failed to write.
    pub fn refuse(self, version: i16, error: ErrorCode) -> GroupResponse {
        let error_code = error.code();
        match self {
            GroupRequest::Join(request) => {
                GroupResponse::Join(join_refusal(request.member_id, error, version))
            }
            GroupRequest::Sync(_) => {
                GroupResponse::Sync(SyncGroupResponse { error_code, ..Default::default() })
            }
            // A member whose coordinator is just loading is as alive as before: Kafka says so, and spares it a rejoin.
            GroupRequest::Heartbeat(_) if error == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => {
                GroupResponse::Heartbeat(HeartbeatResponse::default())
            }
            GroupRequest::Heartbeat(_) => {
                GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
            }
            GroupRequest::Leave(_) => GroupResponse::Leave(leave_refusal(error)),
            GroupRequest::OffsetCommit(request) => GroupResponse::OffsetCommit(refuse_commit(request, error)),
            GroupRequest::OffsetFetch { group, .. } => {
                GroupResponse::OffsetFetch(offset_fetch_response::Group {
                    group_id: group.group_id,
                    error_code,
                    ..Default::default()
                })
            }
            GroupRequest::OffsetDelete(_) => {
                GroupResponse::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            GroupRequest::Describe { groups, .. } => GroupResponse::Describe(
                groups
                    .into_iter()
                    .map(|group_id| DescribedGroup { group_id, error_code, ..Default::default() })
                    .collect(),
            ),
            GroupRequest::List(_) => {
                GroupResponse::List(ListGroupsResponse { error_code, ..Default::default() })
            }
            GroupRequest::Delete(groups) => GroupResponse::Delete(
                groups.into_iter().map(|group_id| DeletableGroupResult { group_id, error_code }).collect(),
            ),
        }
    }
}

impl GroupResponse {
    /// What is said in its place when the write that it tells of has failed.
    pub fn failed(self, error: ErrorCode) -> GroupResponse {
        let error_code = error.code();
        match self {
            GroupResponse::Join(response) => GroupResponse::Join(JoinGroupResponse {
                error_code,
                member_id: response.member_id,
                ..Default::default()
            }),
            GroupResponse::Sync(_) => {
                GroupResponse::Sync(SyncGroupResponse { error_code, ..Default::default() })
            }
            GroupResponse::Heartbeat(_) => {
                GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() })
            }
            GroupResponse::Leave(_) => GroupResponse::Leave(leave_refusal(error)),
            GroupResponse::OffsetCommit(mut response) => {
                for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.error_code = error_code;
                }
                GroupResponse::OffsetCommit(response)
            }
            GroupResponse::OffsetFetch(response) => {
                GroupResponse::OffsetFetch(offset_fetch_response::Group {
                    group_id: response.group_id,
                    error_code,
                    ..Default::default()
                })
            }
            GroupResponse::OffsetDelete(_) => {
                GroupResponse::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            GroupResponse::Describe(mut groups) => {
                groups.iter_mut().for_each(|group| group.error_code = error_code);
                GroupResponse::Describe(groups)
            }
            GroupResponse::List(_) => {
                GroupResponse::List(ListGroupsResponse { error_code, ..Default::default() })
            }
            GroupResponse::Delete(mut results) => {
                results.iter_mut().for_each(|result| result.error_code = error_code);
                GroupResponse::Delete(results)
            }
        }
    }
}

/// Every partition of the commit refused with `error`.
pub fn refuse_commit(request: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| offset_commit_response::Topic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| offset_commit_response::Partition {
                partition_index: partition.partition_index,
                error_code: error.code(),
            })
            .collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
