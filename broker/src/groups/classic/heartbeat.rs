//! Heartbeat: a member is alive, and learns whether it has to join again.

use corelog_io::planted::{Fault, planted};
use corelog_wire::ErrorCode;
use corelog_wire::messages::heartbeat_request::HeartbeatRequest;
use corelog_wire::messages::heartbeat_response::HeartbeatResponse;

use super::state::GroupState;
use crate::coordinator::Ticket;
use crate::groups::machine::Groups;
use crate::groups::request::GroupResponse;

impl Groups {
    pub(in crate::groups) fn heartbeat(&mut self, ticket: Ticket, request: &HeartbeatRequest) {
        let error_code = self.heartbeat_error(request).code();
        self.env.respond(
            ticket,
            GroupResponse::Heartbeat(HeartbeatResponse { error_code, ..Default::default() }),
        );
    }

    fn heartbeat_error(&mut self, request: &HeartbeatRequest) -> ErrorCode {
        if request.group_id.is_empty() {
            return ErrorCode::INVALID_GROUP_ID;
        }
        let group = self.groups.get(&request.group_id);
        let Some(group) = group.filter(|group| !self.env.is_pending(group.removal)) else {
            return ErrorCode::UNKNOWN_MEMBER_ID;
        };
        if planted(Fault::FormerGenerationsGoOn) {
            return ErrorCode::NONE;
        }
        if let Err(refusal) = group.check_member(&request.member_id, request.group_instance_id.as_ref()) {
            return refusal.error();
        }
        if request.generation_id != group.generation {
            return ErrorCode::ILLEGAL_GENERATION;
        }
        let Some(member) = group.member(&request.member_id) else { return ErrorCode::UNKNOWN_MEMBER_ID };
        self.env.touch(&group.id, member);
        match group.state() {
            GroupState::PreparingRebalance => ErrorCode::REBALANCE_IN_PROGRESS,
            // Members heartbeat from the moment they have joined, before there is an assignment.
            GroupState::CompletingRebalance | GroupState::Stable => ErrorCode::NONE,
            GroupState::Empty | GroupState::Dead => ErrorCode::UNKNOWN_MEMBER_ID,
        }
    }
}
