//! A static member that comes back under a new member id (KIP-345, KIP-814).

use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::{info, warn};

use super::effect::{WriteFailure, WriteId};
use super::env::Env;
use super::group::{Group, GroupState};
use super::join::{Join, respond_join, update_and_park};
use super::member::Protocol;
use super::parked::Parked;
use super::rebalance::{complete_join_if_ready, joined_members, prepare_rebalance, rebalance_or_complete};
use super::records;
use super::written::{GroupChange, OnWritten};

/// From this version on a returning leader gets the members and is told not to assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// The change of a static member's id that a write records, with what it takes to go back on it.
#[derive(Debug)]
pub struct StaticMemberChange {
    group: Str,
    generation: i32,
    old_id: Str,
    new_id: Str,
    /// The leader as members knew it before.
    old_leader: Option<Str>,
    old_protocols: Vec<Protocol>,
    old_rebalance_timeout_ms: i32,
    old_session_timeout_ms: i32,
    parked: Parked,
}

/// The instance is known: its new id takes the place of `old_id`, which is fenced from now on. In a stable group that
/// need not lead to a rebalance: the instance has its assignment already.
pub fn rejoin_static_member(
    group: &mut Group,
    env: &mut Env,
    join: Join<'_>,
    old_id: Str,
    new_id: Str,
) -> Option<WriteId> {
    env.tell(|left_out| info!(left_out, group = &*group.id, instance = join.instance_id.as_deref(), %old_id, %new_id, "static member is back"));
    let old_leader = group.leader.clone();
    let (parked_join, parked_sync) = group.replace_static_member(&old_id, new_id.clone());
    fence(env, &old_id, parked_join, parked_sync);
    env.cancel_session(&group.id, &old_id);
    let member = group.member(&new_id)?;
    env.touch(&group.id, member);
    let old_protocols = member.protocols.clone();
    let (old_rebalance_timeout_ms, old_session_timeout_ms) =
        (member.rebalance_timeout_ms, member.session_timeout_ms);

    let parked = join.parked;
    update_and_park(group, env, &new_id, join);
    match group.state() {
        GroupState::Stable if group.protocol.is_some() && group.select_protocol() == group.protocol => {
            let change = StaticMemberChange {
                group: group.id.clone(),
                generation: group.generation,
                old_id,
                new_id,
                old_leader,
                old_protocols,
                old_rebalance_timeout_ms,
                old_session_timeout_ms,
                parked,
            };
            let record = records::group_record(group, None);
            let on_written = OnWritten { offsets: Vec::new(), change: GroupChange::StaticMember(change) };
            Some(env.append(vec![record], on_written, None))
        }
        GroupState::Stable => rebalance_or_complete(
            group,
            env,
            "a static member is back with other protocols: another one is selected",
        ),
        // The leader may be assigning to the old id right now; it has to begin anew.
        GroupState::CompletingRebalance => prepare_rebalance(group, env, "a static member is back"),
        GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
            complete_join_if_ready(group, env)
        }
    }
}

fn fence(env: &mut Env, old_id: &Str, join: Option<Parked>, sync: Option<Parked>) {
    env.refuse_join(join, old_id, ErrorCode::FENCED_INSTANCE_ID);
    if let Some(parked) = sync {
        env.refuse_sync(parked, ErrorCode::FENCED_INSTANCE_ID);
    }
}

impl StaticMemberChange {
    pub fn group_id(&self) -> &Str {
        &self.group
    }

    /// The log has the new id, or has refused it. If the group has moved on meanwhile, the member's join is part of the
    /// rebalance that did it, and is answered there.
    pub fn written(self, group: &mut Group, env: &mut Env, result: Result<(), WriteFailure>) {
        let waits = group.is(GroupState::Stable)
            && group.generation == self.generation
            && group.member(&self.new_id).is_some_and(|member| member.join == Some(self.parked));
        if !waits {
            return;
        }
        group.take_join(&self.new_id);
        match result {
            Ok(()) => self.welcome(group, env),
            Err(failure) => self.revert(group, env, failure),
        }
    }

    fn welcome(self, group: &Group, env: &mut Env) {
        // Its session may have run out, unheeded, while it waited for the log.
        if let Some(member) = group.member(&self.new_id) {
            env.touch(&group.id, member);
        }
        let mut response = super::rebalance::current_generation(group, &self.new_id);
        if self.parked.version >= SKIP_ASSIGNMENT_FROM {
            response.skip_assignment = group.is_leader(&self.new_id);
            if response.skip_assignment {
                response.members = joined_members(group);
            }
        } else {
            // Told the leader's former id, a returning leader does not take itself for the leader, and assigns nothing.
            response.leader = self.old_leader.unwrap_or_default();
            response.members = Vec::new();
        }
        respond_join(env, self.parked, response);
    }

    fn revert(self, group: &mut Group, env: &mut Env, failure: WriteFailure) {
        env.sparingly("static member not stored", |left_out| {
            let member = &*self.new_id;
            warn!(
                group = &*group.id,
                member,
                ?failure,
                left_out,
                "static member not stored; its former id stays"
            );
        });
        let (parked_join, parked_sync) = group.replace_static_member(&self.new_id, self.old_id.clone());
        fence(env, &self.new_id, parked_join, parked_sync);
        env.cancel_session(&group.id, &self.new_id);
        group.update_member(&self.old_id, |member| {
            member.protocols = self.old_protocols;
            member.rebalance_timeout_ms = self.old_rebalance_timeout_ms;
            member.session_timeout_ms = self.old_session_timeout_ms;
        });
        if let Some(member) = group.member(&self.old_id) {
            env.touch(&group.id, member);
        }
        let response = JoinGroupResponse {
            error_code: failure.error().code(),
            generation_id: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol.clone(),
            leader: self.old_leader.unwrap_or_default(),
            ..Default::default()
        };
        respond_join(env, self.parked, response);
    }
}
