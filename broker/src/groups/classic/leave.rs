//! LeaveGroup: members go, by themselves or taken out by an administrator (KIP-345, KIP-800).

use corelog_wire::ErrorCode;
use corelog_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use corelog_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use tracing::info;

use super::group::Group;
use super::rebalance::{complete_join_if_ready, prepare_rebalance, remove_member};
use super::state::GroupState;
use crate::coordinator::Ticket;
use crate::groups::env::Env;
use crate::groups::machine::Groups;
use crate::groups::request::{GroupResponse, RequestContext};

/// From this version on several members leave by one request, each with its own error.
const BATCH_FROM: i16 = 3;

impl Groups {
    pub(in crate::groups) fn leave(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        request: LeaveGroupRequest,
    ) {
        let version = context.api_version;
        let env = &mut self.env;
        if request.group_id.is_empty() {
            return env.respond(ticket, GroupResponse::Leave(refusal(ErrorCode::INVALID_GROUP_ID)));
        }
        let leaving = if version >= BATCH_FROM {
            request.members
        } else {
            vec![MemberIdentity { member_id: request.member_id, ..Default::default() }]
        };
        let group = self.groups.get_mut(&request.group_id);
        let Some(group) = group.filter(|group| !env.is_pending(group.removal)) else {
            let members =
                leaving.into_iter().map(|member| answer(member, ErrorCode::UNKNOWN_MEMBER_ID)).collect();
            return env.respond(ticket, GroupResponse::Leave(response(members, version)));
        };

        let mut members = Vec::with_capacity(leaving.len());
        let mut any_left = false;
        for member in leaving {
            let error = leave_one(group, env, &member);
            any_left |= error == ErrorCode::NONE;
            members.push(answer(member, error));
        }
        let write = match group.state() {
            GroupState::Stable | GroupState::CompletingRebalance if any_left => {
                prepare_rebalance(group, env, "members left")
            }
            GroupState::PreparingRebalance if any_left => complete_join_if_ready(group, env),
            _ => None,
        };
        let response = GroupResponse::Leave(response(members, version));
        env.desk.respond_when_written(write, ticket, response);
    }
}

fn leave_one(group: &mut Group, env: &mut Env, leaving: &MemberIdentity) -> ErrorCode {
    let id = if leaving.member_id.is_empty() {
        // An administrator knows a static member by its instance.
        match leaving.group_instance_id.as_deref().and_then(|instance_id| group.static_member_id(instance_id))
        {
            Some(id) => id.clone(),
            None => return ErrorCode::UNKNOWN_MEMBER_ID,
        }
    } else if group.is_pending(&leaving.member_id) {
        remove_member(group, env, &leaving.member_id);
        return ErrorCode::NONE;
    } else {
        match group.check_member(&leaving.member_id, leaving.group_instance_id.as_ref()) {
            Ok(()) => leaving.member_id.clone(),
            Err(refusal) => return refusal.error(),
        }
    };
    let reason = leaving.reason.as_deref().unwrap_or("not provided");
    env.tell(|left_out| {
        info!(left_out, group = &*group.id, member = &*id, client_reason = reason, "member left")
    });
    remove_member(group, env, &id);
    ErrorCode::NONE
}

fn answer(member: MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: error.code(),
    }
}

/// Before batches the one member's error is the request's.
fn response(members: Vec<MemberResponse>, version: i16) -> LeaveGroupResponse {
    if version >= BATCH_FROM {
        LeaveGroupResponse { members, ..Default::default() }
    } else {
        let error_code = members.first().map_or(0, |member| member.error_code);
        LeaveGroupResponse { error_code, ..Default::default() }
    }
}

pub fn refusal(error: ErrorCode) -> LeaveGroupResponse {
    LeaveGroupResponse { error_code: error.code(), ..Default::default() }
}
