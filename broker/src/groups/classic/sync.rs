//! SyncGroup: the leader brings the assignment, everybody gets their part (KIP-345, 559).

use std::collections::BTreeMap;

use bytes::Bytes;
use corelog_wire::coordinator_records::GroupMetadataValue;
use corelog_wire::messages::sync_group_request::SyncGroupRequest;
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::{info, warn};

use super::group::Group;
use super::parked::Parked;
use super::rebalance::{answer_syncs, rebalance_or_complete, refuse_assignment};
use super::state::GroupState;
use crate::coordinator::{Record, Ticket, WriteFailure, WriteId};
use crate::groups::env::{Env, detached_bytes};
use crate::groups::machine::Groups;
use crate::groups::records;
use crate::groups::request::{GroupResponse, RequestContext};
use crate::groups::then::GroupChange;

impl Groups {
    pub(in crate::groups) fn sync(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        request: SyncGroupRequest,
    ) {
        let env = &mut self.env;
        let refuse = |env: &mut Env, error: ErrorCode| {
            let response = SyncGroupResponse { error_code: error.code(), ..Default::default() };
            env.respond(ticket, GroupResponse::Sync(response));
        };
        if context.api_version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
            return refuse(env, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if request.group_id.is_empty() {
            return refuse(env, ErrorCode::INVALID_GROUP_ID);
        }
        let group = self.groups.get_mut(&request.group_id).filter(|group| !env.is_pending(group.removal));
        let Some(group) = group.filter(|group| !group.is(GroupState::Empty)) else {
            return refuse(env, ErrorCode::UNKNOWN_MEMBER_ID);
        };
        if let Err(error) = check(group, &request) {
            return refuse(env, error);
        }
        match group.state() {
            GroupState::PreparingRebalance => refuse(env, ErrorCode::REBALANCE_IN_PROGRESS),
            GroupState::CompletingRebalance => {
                let parked = Parked { ticket, version: context.api_version };
                let superseded =
                    group.update_member(&request.member_id, |member| member.sync.replace(parked));
                if let Some(superseded) = superseded.flatten() {
                    env.refuse_sync(superseded, ErrorCode::REBALANCE_IN_PROGRESS);
                }
                synced(group, env, &request.member_id);
                // A leader that asks again has the assignment of its first request stored: that one is on its way.
                if group.is_leader(&request.member_id) && !env.is_pending(group.assignment) {
                    store_assignment(group, env, &request);
                }
            }
            GroupState::Stable => {
                synced(group, env, &request.member_id);
                let response = SyncGroupResponse {
                    protocol_type: group.protocol_type.clone(),
                    protocol_name: group.protocol.clone(),
                    assignment: group
                        .member(&request.member_id)
                        .map(|member| member.assignment.clone())
                        .unwrap_or_default(),
                    ..Default::default()
                };
                env.respond(ticket, GroupResponse::Sync(response));
            }
            GroupState::Empty | GroupState::Dead => refuse(env, ErrorCode::UNKNOWN_MEMBER_ID),
        }
    }
}

fn check(group: &Group, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
    group
        .check_member(&request.member_id, request.group_instance_id.as_ref())
        .map_err(|refusal| refusal.error())?;
    if request.generation_id != group.generation {
        return Err(ErrorCode::ILLEGAL_GENERATION);
    }
    let differs =
        |named: &Option<Str>, is: &Option<Str>| matches!((named, is), (Some(named), Some(is)) if named != is);
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol)
    {
        return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    Ok(())
}

fn synced(group: &mut Group, env: &mut Env, member_id: &Str) {
    group.pending_sync.remove(member_id);
    if group.pending_sync.is_empty() {
        env.cancel_sync(&group.id);
    }
}

fn store_assignment(group: &mut Group, env: &mut Env, request: &SyncGroupRequest) {
    let mut assignments: BTreeMap<Str, Bytes> = BTreeMap::new();
    for assignment in &request.assignments {
        if let Some(member) = group.member(&assignment.member_id) {
            assignments.insert(member.id.clone(), detached_bytes(&assignment.assignment));
        }
    }
    let without = group.member_count() - assignments.len();
    if without > 0 {
        env.sparingly("assignment of nothing", |left_out| {
            let generation = group.generation;
            warn!(
                group = &*group.id,
                generation, without, left_out, "leader assigned nothing to some members"
            );
        });
    }
    env.tell(|left_out| {
        info!(
            left_out,
            group = &*group.id,
            generation = group.generation,
            members = group.member_count(),
            static_members = group.static_member_count(),
            "leader brought the assignment"
        )
    });
    let record = records::group_record(group, Some(&assignments));
    let (before, after): (usize, usize) = (
        group.members().map(|member| member.assignment.len()).sum(),
        assignments.values().map(Bytes::len).sum(),
    );
    let growth = after.saturating_sub(before);
    // The record is let go when it is written; what the members get stays.
    if !group.has_room(&env.memory, growth)
        || (growth > 0 && !env.memory.has_room_for_members(growth + record.encode().bytes()))
    {
        env.memory_is_full(&group.id, "an assignment is");
        refuse_assignment(group, env, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        rebalance_or_complete(group, env, "there is no room for the assignment");
        return;
    }
    let awaited = AwaitedAssignment { group: group.id.clone(), generation: group.generation };
    group.assignment = Some(env.write(vec![record], GroupChange::Assigned(awaited), None));
}

/// A generation's assignment that is on its way to the log.
#[derive(Debug)]
pub struct AwaitedAssignment {
    group: Str,
    generation: i32,
}

impl AwaitedAssignment {
    pub fn group_id(&self) -> &Str {
        &self.group
    }

    /// If another rebalance has begun meanwhile, the assignment is of no use any more.
    fn is_awaited(&self, group: &Group, write: WriteId) -> bool {
        group.is(GroupState::CompletingRebalance)
            && group.generation == self.generation
            && group.assignment == Some(write)
    }

    /// Everybody gets what the record has for them.
    pub fn committed(self, group: &mut Group, env: &mut Env, write: WriteId, stored: &GroupMetadataValue) {
        if self.is_awaited(group, write) {
            let assignments =
                stored.members.iter().map(|member| (member.member_id.clone(), member.assignment.clone()));
            group.set_assignments(assignments.collect());
            answer_syncs(group, env, ErrorCode::NONE);
            group.transition(GroupState::Stable, env.desk.now.wall_ms);
        }
    }

    pub fn refused(self, group: &mut Group, env: &mut Env, write: WriteId, failure: WriteFailure) {
        if self.is_awaited(group, write) {
            group.assignment = None;
            env.sparingly("assignment not stored", |left_out| {
                let generation = group.generation;
                warn!(group = &*group.id, generation, ?failure, left_out, "assignment not stored");
            });
            refuse_assignment(group, env, failure.error());
            rebalance_or_complete(group, env, "the assignment could not be stored");
        }
    }
}
