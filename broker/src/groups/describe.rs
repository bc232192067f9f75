//! DescribeGroups: state, members, subscriptions and assignments.

use corelog_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use corelog_wire::{ErrorCode, Str};

use super::classic::{Group, GroupState};
use super::machine::Groups;
use super::request::{GroupResponse, RequestContext};
use crate::access::Resource;
use crate::coordinator::Ticket;

/// From this version on a group that does not exist is an error, with a message (KIP-1043). Before, it is one in state
/// Dead.
const GROUP_ID_NOT_FOUND_FROM: i16 = 6;

impl Groups {
    pub(super) fn describe(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        group_ids: Vec<Str>,
        include_authorized_operations: bool,
    ) {
        let described = group_ids.into_iter().map(|group_id| {
            let mut described = match self.groups.get(&group_id).filter(|group| self.is_shown(group)) {
                Some(group) => describe_group(group),
                None => missing(group_id, context.api_version),
            };
            if include_authorized_operations && described.error_code == 0 {
                described.authorized_operations = Resource::Group.operations();
            }
            described
        });
        let response = GroupResponse::Describe(described.collect());
        self.env.respond(ticket, response);
    }
}

fn describe_group(group: &Group) -> DescribedGroup {
    // Metadata goes with the protocol it was written for: only a stable group has one that all members follow.
    let protocol = group.protocol.clone().filter(|_| group.is(GroupState::Stable));
    let members = group.members().map(|member| DescribedGroupMember {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: member.metadata(protocol.as_ref()),
        member_assignment: member.assignment.clone(),
    });
    DescribedGroup {
        group_id: group.id.clone(),
        group_state: Str::from_static(group.state().name()),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        members: members.collect(),
        protocol_data: protocol.unwrap_or_default(),
        ..Default::default()
    }
}

fn missing(group_id: Str, version: i16) -> DescribedGroup {
    let group_state = Str::from_static(GroupState::Dead.name());
    if version >= GROUP_ID_NOT_FOUND_FROM {
        DescribedGroup {
            error_code: ErrorCode::GROUP_ID_NOT_FOUND.code(),
            error_message: Some(Str::from(format!("Group {group_id} not found."))),
            group_id,
            group_state,
            ..Default::default()
        }
    } else {
        DescribedGroup { group_id, group_state, ..Default::default() }
    }
}
