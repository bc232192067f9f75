//! DeleteGroups: groups without members, with all they have committed (KIP-229).

use std::collections::BTreeMap;

use corelog_wire::messages::delete_groups_response::DeletableGroupResult;
use corelog_wire::{ErrorCode, Str};
use tracing::info;

use super::classic::GroupState;
use super::machine::Groups;
use super::offsets::OffsetKey;
use super::request::GroupResponse;
use crate::coordinator::Ticket;

impl Groups {
    /// One result for each name, in their order.
    pub(super) fn delete(&mut self, ticket: Ticket, group_ids: Vec<Str>) {
        let mut results = Vec::with_capacity(group_ids.len());
        // A group that is named twice has the same result twice.
        let mut errors: BTreeMap<Str, ErrorCode> = BTreeMap::new();
        let mut groups = Vec::new();
        let mut keys = Vec::new();
        for group_id in group_ids {
            let error = match errors.get(&group_id) {
                Some(error) => *error,
                None => match self.group(&group_id) {
                    None => ErrorCode::GROUP_ID_NOT_FOUND,
                    Some(group) if !group.is(GroupState::Empty) => ErrorCode::NON_EMPTY_GROUP,
                    Some(group) => {
                        keys.extend(self.latest_keys_of(&group.id));
                        groups.push(group.id.clone());
                        ErrorCode::NONE
                    }
                },
            };
            errors.insert(group_id.clone(), error);
            results.push(DeletableGroupResult { group_id, error_code: error.code() });
        }
        let answer = GroupResponse::Delete(results);
        if groups.is_empty() {
            return self.env.respond(ticket, answer);
        }
        info!(groups = groups.len(), offsets = keys.len(), "removing groups");
        self.remove_offsets(keys, groups, Some((ticket, answer)));
    }

    fn latest_keys_of(&self, group: &Str) -> impl Iterator<Item = OffsetKey> {
        self.latest_offsets_of(group).map(|(topic, partition, ..)| OffsetKey {
            group: group.clone(),
            topic: topic.clone(),
            partition,
        })
    }
}
