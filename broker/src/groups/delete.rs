//! DeleteGroups: groups without members, with all they have committed (KIP-229).

use std::collections::BTreeMap;

use corelog_wire::messages::delete_groups_response::DeletableGroupResult;
use corelog_wire::{ErrorCode, Str};
use tracing::info;

use super::coordinator::GroupCoordinator;
use super::group::GroupState;
use super::offsets::OffsetKey;
use super::parked::Ticket;
use super::request::GroupResponse;
use super::written::GroupChange;

impl GroupCoordinator {
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
                None => match self.groups.get(&group_id).filter(|group| group.deleting.is_none()) {
                    None => ErrorCode::GROUP_ID_NOT_FOUND,
                    Some(group) if !group.is(GroupState::Empty) => ErrorCode::NON_EMPTY_GROUP,
                    Some(group) => {
                        self.collect_offsets(&group.id, &mut keys);
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
        self.remove_offsets(keys, GroupChange::Removed { groups }, Some((ticket, answer)));
    }

    fn collect_offsets(&self, group: &Str, keys: &mut Vec<OffsetKey>) {
        for (topic, partition, _, _) in self.offsets.latest_of(group) {
            keys.push(OffsetKey { group: group.clone(), topic: topic.clone(), partition });
        }
    }
}
