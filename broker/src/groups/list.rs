//! ListGroups, with filters by state (KIP-518) and type (KIP-848).

use corelog_wire::Str;
use corelog_wire::messages::list_groups_request::ListGroupsRequest;
use corelog_wire::messages::list_groups_response::{ListGroupsResponse, ListedGroup};

use super::machine::Groups;
use super::request::GroupResponse;
use crate::coordinator::Ticket;

/// The type of every group here.
const CLASSIC: &str = "classic";

impl Groups {
    pub(super) fn list(&mut self, ticket: Ticket, request: &ListGroupsRequest) {
        let matches = |filter: &[Str], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let groups = if matches(&request.types_filter, CLASSIC) {
            self.groups
                .values()
                .filter(|group| self.is_shown(group) && matches(&request.states_filter, group.state().name()))
                .map(|group| ListedGroup {
                    group_id: group.id.clone(),
                    protocol_type: group.protocol_type.clone().unwrap_or_default(),
                    group_state: Str::from_static(group.state().name()),
                    group_type: Str::from_static(CLASSIC),
                })
                .collect()
        } else {
            Vec::new()
        };
        self.env.respond(ticket, GroupResponse::List(ListGroupsResponse { groups, ..Default::default() }));
    }
}
