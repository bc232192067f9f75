//! A static member that comes back under a new member id (KIP-345, KIP-814).

use corelog_wire::coordinator_records::GroupMetadataValue;
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::{info, warn};

use super::group::Group;
use super::join::{Join, respond_join, update_and_park};
use super::member::Member;
use super::parked::Parked;
use super::rebalance::{
    complete_join_if_ready, current_generation, joined_members, prepare_rebalance, rebalance_or_complete,
};
use super::state::GroupState;
use crate::coordinator::{WriteFailure, WriteId};
use crate::groups::env::Env;
use crate::groups::records;
use crate::groups::then::GroupChange;

/// From this version on a returning leader gets the members and is told not to assign (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

/// A static member that is back: it has its new id when the record of it is committed.
#[derive(Debug)]
pub struct StaticReturn {
    group: Str,
    generation: i32,
    instance_id: Str,
    new_id: Str,
    /// The leader as members knew it before.
    old_leader: Option<Str>,
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
    let instance_id = member.instance_id.clone()?;
    let parked = join.parked;
    update_and_park(group, env, &new_id, join);
    match group.state() {
        GroupState::Stable if group.protocol.is_some() && group.select_protocol() == group.protocol => {
            let (id, generation) = (group.id.clone(), group.generation);
            let back = StaticReturn { group: id, generation, instance_id, new_id, old_leader, parked };
            let record = records::group_record(group, None);
            Some(env.write(vec![record], GroupChange::StaticMember(back), None))
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

impl StaticReturn {
    pub fn group_id(&self) -> &Str {
        &self.group
    }

    /// If the group has moved on meanwhile, the member's join is part of the rebalance that did it, and is answered there.
    fn is_awaited(&self, group: &Group) -> bool {
        group.is(GroupState::Stable)
            && group.generation == self.generation
            && group.member(&self.new_id).is_some_and(|member| member.join == Some(self.parked))
    }

    pub fn committed(self, group: &mut Group, env: &mut Env) {
        if self.is_awaited(group) {
            group.take_join(&self.new_id);
            self.welcome(group, env);
        }
    }

    fn welcome(self, group: &Group, env: &mut Env) {
        // Its session may have run out, unheeded, while it waited for the log.
        if let Some(member) = group.member(&self.new_id) {
            env.touch(&group.id, member);
        }
        let mut response = current_generation(group, &self.new_id);
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

    /// The member is again what the group's record has of it, under its former id.
    pub fn refused(
        self,
        group: &mut Group,
        env: &mut Env,
        stored: Option<&GroupMetadataValue>,
        failure: WriteFailure,
    ) {
        if !self.is_awaited(group) {
            return;
        }
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
        group.take_join(&self.new_id);
        let response = JoinGroupResponse {
            error_code: failure.error().code(),
            generation_id: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol.clone(),
            leader: self.old_leader.unwrap_or_default(),
            ..Default::default()
        };
        respond_join(env, self.parked, response);
        let stored = stored.into_iter().flat_map(|stored| &stored.members);
        let mut of_instance =
            stored.filter(|member| member.group_instance_id.as_ref() == Some(&self.instance_id));
        let Some(former) = of_instance.next() else { return };
        let former = Member::loaded(former, group.protocol.as_ref());
        env.cancel_session(&group.id, &self.new_id);
        env.touch(&group.id, &former);
        restore(group, &self.new_id, former);
    }
}

/// Lets the member `id` be again as its record has it, under the id that it has there. What it had parked is answered.
fn restore(group: &mut Group, id: &str, former: Member) {
    let (led, is_to_sync) = (group.is_leader(id), group.pending_sync.contains(id));
    let protocol_type = group.protocol_type.clone().unwrap_or_default();
    let former_id = former.id.clone();
    let replaced = group.remove_member(id);
    assert!(
        replaced.is_some_and(|member| member.join.is_none()),
        "group {}: a parked join is lost",
        &*group.id
    );
    group.add_member(former, protocol_type);
    if led {
        group.leader = Some(former_id.clone());
    }
    if is_to_sync {
        group.pending_sync.insert(former_id);
    }
}
