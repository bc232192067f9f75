//! JoinGroup: a member comes, comes back, or comes with news (KIP-62, 345, 394, 559, 800, 814).

use corelog_wire::messages::join_group_request::JoinGroupRequest;
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::info;

use super::group::{Group, MemberRefusal};
use super::member::{Member, Protocol, protocols_cost};
use super::parked::Parked;
use super::rebalance::{current_generation, rebalance_or_complete, remove_member};
use super::state::GroupState;
use super::static_member::rejoin_static_member;
use crate::coordinator::{Ticket, WriteId};
use crate::groups::config::NEW_MEMBER_JOIN_TIMEOUT_MS;
use crate::groups::env::{Env, detached_bytes};
use crate::groups::machine::Groups;
use crate::groups::records;
use crate::groups::request::{GroupResponse, RequestContext};
use crate::groups::then::GroupChange;

/// From this version on a dynamic member joins in two steps: it is given an id first (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;

/// A JoinGroup that has passed the checks which need no group.
pub struct Join<'a> {
    pub parked: Parked,
    pub context: &'a RequestContext,
    pub member_id: Str,
    pub instance_id: Option<Str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: Str,
    pub protocols: Vec<Protocol>,
    /// What the client says why (KIP-800).
    pub reason: Str,
}

impl Groups {
    pub(in crate::groups) fn join(
        &mut self,
        ticket: Ticket,
        context: &RequestContext,
        request: JoinGroupRequest,
    ) {
        let version = context.api_version;
        let parked = Parked { ticket, version };
        let env = &mut self.env;
        let refuse = |env: &mut Env, member_id: &Str, error| env.refuse_join(Some(parked), member_id, error);

        if request.group_id.is_empty() {
            return refuse(env, &request.member_id, ErrorCode::INVALID_GROUP_ID);
        }
        let session_bounds = env.config.session_timeout_min_ms..=env.config.session_timeout_max_ms;
        if !session_bounds.contains(&request.session_timeout_ms) {
            return refuse(env, &request.member_id, ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        let group_id = request.group_id.detach();
        let join = Join::new(parked, context, request);

        let exists = self.groups.get(&group_id).is_some_and(|group| !env.is_pending(group.removal));
        if !exists {
            if !join.member_id.is_empty() {
                return refuse(env, &join.member_id, ErrorCode::UNKNOWN_MEMBER_ID);
            }
            if join.protocol_type.is_empty() || join.protocols.is_empty() {
                return refuse(env, &join.member_id, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
            }
        }
        let has_room = match self.groups.get(&group_id).filter(|_| exists) {
            Some(group) => group.has_room(&env.memory, join.growth(group)),
            None => {
                let bytes = Group::COST + 3 * group_id.len() + join.cost();
                bytes <= env.memory.group_max() && env.memory.has_room_for_new_group(bytes)
            }
        };
        if !has_room {
            env.memory_is_full(&group_id, "a member is");
            return refuse(env, &join.member_id, ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        if !exists {
            self.put_new_group(group_id.clone());
        }
        let env = &mut self.env;
        let group = self.groups.get_mut(&group_id).expect("the group is there by now");

        let writes_before = env.desk.next_write_id();
        if !accepts(group, &join.member_id, env.config.group_members_max) {
            remove_member(group, env, &join.member_id);
            refuse(env, &Str::default(), ErrorCode::GROUP_MAX_SIZE_REACHED);
        } else if join.member_id.is_empty() {
            join_unknown(group, env, join);
        } else {
            join_known(group, env, join);
        }
        if !exists && env.desk.next_write_id() == writes_before {
            let change = GroupChange::Created { group: group_id };
            let record = records::new_group_record(group);
            group.creation = Some(env.write(vec![record], change, None));
        }
    }
}

impl<'a> Join<'a> {
    fn new(parked: Parked, context: &'a RequestContext, request: JoinGroupRequest) -> Join<'a> {
        // Version 0 has no rebalance timeout. KafkaJS sends 0: taken at its word (as Kafka does) the member would be
        // out before it can sync.
        let rebalance_timeout_ms = match request.rebalance_timeout_ms {
            timeout if parked.version == 0 || timeout <= 0 => request.session_timeout_ms,
            timeout => timeout,
        };
        Join {
            parked,
            context,
            member_id: request.member_id.detach(),
            instance_id: request.group_instance_id.as_ref().map(Str::detach),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms,
            protocol_type: request.protocol_type.detach(),
            protocols: request
                .protocols
                .iter()
                .map(|protocol| Protocol {
                    name: protocol.name.detach(),
                    metadata: detached_bytes(&protocol.metadata),
                })
                .collect(),
            reason: request
                .reason
                .filter(|reason| !reason.is_empty())
                .unwrap_or_else(|| Str::from("not provided")),
        }
    }

    /// Bytes that the member will hold, at most.
    fn cost(&self) -> usize {
        1024 + self.instance_id.as_ref().map_or(0, |id| 2 * id.len())
            + self.context.client_id.len()
            + self.context.client_host.len()
            + self.protocol_type.len()
            + protocols_cost(&self.protocols)
    }

    /// Bytes that `group`'s members will hold more. Whoever is not, and will not be, a member adds nothing.
    fn growth(&self, group: &Group) -> usize {
        let named = match &self.instance_id {
            Some(instance_id) if self.member_id.is_empty() => {
                group.static_member_id(instance_id).and_then(|id| group.member(id))
            }
            _ => group.member(&self.member_id),
        };
        match named {
            Some(member) => protocols_cost(&self.protocols).saturating_sub(protocols_cost(&member.protocols)),
            None if self.member_id.is_empty() || group.is_pending(&self.member_id) => self.cost(),
            None => 0,
        }
    }

    fn into_member(self, id: Str) -> Member {
        Member {
            id,
            instance_id: self.instance_id,
            client_id: self.context.client_id.detach(),
            client_host: self.context.client_host.detach(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            protocols: self.protocols,
            assignment: Default::default(),
            join: Some(self.parked),
            sync: None,
            is_new: true,
        }
    }
}

/// Whether `group.max.size` leaves room for this member.
fn accepts(group: &Group, member_id: &str, members_max: usize) -> bool {
    match group.state() {
        GroupState::Empty | GroupState::Dead => true,
        // Members that have not rejoined don't count: so a lowered limit puts out those who come last.
        GroupState::PreparingRebalance => {
            group.member(member_id).is_some_and(|member| member.join.is_some())
                || group.members_joining() < members_max
        }
        GroupState::CompletingRebalance | GroupState::Stable => {
            group.has_member(member_id) || group.member_count() < members_max
        }
    }
}

/// A member that has no id yet.
fn join_unknown(group: &mut Group, env: &mut Env, join: Join<'_>) -> Option<WriteId> {
    if !group.supports_protocols(&join.protocol_type, &join.protocols) {
        env.refuse_join(Some(join.parked), "", ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        return None;
    }
    if let Some(instance_id) = &join.instance_id {
        let new_id = env.new_member_id(instance_id);
        return match group.static_member_id(instance_id).cloned() {
            Some(current_id) => rejoin_static_member(group, env, join, current_id, new_id),
            None => add_member(group, env, join, new_id),
        };
    }
    let new_id = env.new_member_id(&join.context.client_id);
    if join.parked.version >= MEMBER_ID_REQUIRED_FROM {
        env.schedule_session(&group.id, &new_id, join.session_timeout_ms);
        env.refuse_join(Some(join.parked), &new_id, ErrorCode::MEMBER_ID_REQUIRED);
        group.add_pending_member(new_id);
        None
    } else {
        add_member(group, env, join, new_id)
    }
}

/// A member that names its id.
fn join_known(group: &mut Group, env: &mut Env, join: Join<'_>) -> Option<WriteId> {
    let id = join.member_id.clone();
    if !group.supports_protocols(&join.protocol_type, &join.protocols) {
        env.refuse_join(Some(join.parked), &id, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        return None;
    }
    if group.is_pending(&id) && join.instance_id.is_none() {
        return add_member(group, env, join, id);
    }
    if let Err(refusal) = group.check_member(&id, join.instance_id.as_ref()) {
        env.refuse_join(Some(join.parked), &id, refusal.error());
        return None;
    }
    let same = group.member(&id).is_some_and(|member| member.protocols == join.protocols);
    match group.state() {
        GroupState::PreparingRebalance => {
            rejoin_member(group, env, join, "a member joins during the rebalance")
        }
        // With the same metadata it has only missed the answer to its last join.
        GroupState::CompletingRebalance if same => answer_with_current(group, env, &join),
        GroupState::CompletingRebalance => rejoin_member(group, env, join, "a member's metadata changed"),
        // By joining again the leader asks for a new assignment, for reasons that metadata doesn't show (say, a topic
        // has more partitions).
        GroupState::Stable if group.is_leader(&id) => {
            rejoin_member(group, env, join, "the leader joined again")
        }
        GroupState::Stable if !same => rejoin_member(group, env, join, "a member's metadata changed"),
        GroupState::Stable => answer_with_current(group, env, &join),
        GroupState::Empty | GroupState::Dead => {
            env.refuse_join(Some(join.parked), &id, ErrorCode::UNKNOWN_MEMBER_ID);
            None
        }
    }
}

fn answer_with_current(group: &Group, env: &mut Env, join: &Join<'_>) -> Option<WriteId> {
    respond_join(env, join.parked, current_generation(group, &join.member_id));
    None
}

fn add_member(group: &mut Group, env: &mut Env, join: Join<'_>, id: Str) -> Option<WriteId> {
    env.tell(|left_out| {
        info!(
            left_out,
            group = &*group.id,
            member = &*id,
            instance = join.instance_id.as_deref(),
            state = group.state().name(),
            client_reason = &*join.reason,
            "member joins"
        )
    });
    if group.is_initial_rebalance() {
        group.new_member_added = true;
    }
    let protocol_type = join.protocol_type.clone();
    group.add_member(join.into_member(id.clone()), protocol_type);
    env.schedule_session(&group.id, &id, NEW_MEMBER_JOIN_TIMEOUT_MS);
    rebalance_or_complete(group, env, "a member joined")
}

fn rejoin_member(group: &mut Group, env: &mut Env, join: Join<'_>, reason: &str) -> Option<WriteId> {
    let id = join.member_id.clone();
    update_and_park(group, env, &id, join);
    rebalance_or_complete(group, env, reason)
}

/// Takes over what the join says of the member, and parks it. An earlier one that is still parked is superseded.
pub fn update_and_park(group: &mut Group, env: &mut Env, id: &str, join: Join<'_>) {
    let superseded = group.update_member(id, |member| {
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.session_timeout_ms = join.session_timeout_ms;
        member.join.replace(join.parked)
    });
    env.refuse_join(superseded.flatten(), id, ErrorCode::REBALANCE_IN_PROGRESS);
}

/// Answers a JoinGroup in the way its version has it.
pub fn respond_join(env: &mut Env, parked: Parked, mut response: JoinGroupResponse) {
    // The protocol name is nullable from version 7 on; an empty one stands for none before, and never after.
    if parked.version < 7 {
        response.protocol_name.get_or_insert_default();
    } else {
        response.protocol_name = response.protocol_name.filter(|name| !name.is_empty());
    }
    env.respond(parked.ticket, GroupResponse::Join(response));
}

/// The answer of a JoinGroup that comes to nothing.
pub fn refusal(member_id: Str, error: ErrorCode, version: i16) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        protocol_type: None,
        protocol_name: (version < 7).then(Str::default),
        member_id,
        ..Default::default()
    }
}

impl MemberRefusal {
    pub fn error(self) -> ErrorCode {
        match self {
            MemberRefusal::Unknown => ErrorCode::UNKNOWN_MEMBER_ID,
            MemberRefusal::Fenced => ErrorCode::FENCED_INSTANCE_ID,
        }
    }
}
