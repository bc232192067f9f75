//! The join phase of a rebalance, from its start to the next generation.

use corelog_wire::messages::join_group_response::{self, JoinGroupResponse};
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::{debug, info};

use super::group::Group;
use super::join::respond_join;
use super::state::{GroupState, JoinPhase};
use crate::coordinator::WriteId;
use crate::groups::env::Env;
use crate::groups::records;
use crate::groups::request::GroupResponse;
use crate::groups::then::GroupChange;

/// Starts a rebalance where one can start, or sees whether the one under way is complete.
/// Gives the write that this led to.
pub fn rebalance_or_complete(group: &mut Group, env: &mut Env, reason: &str) -> Option<WriteId> {
    if group.can_rebalance() {
        prepare_rebalance(group, env, reason)
    } else {
        complete_join_if_ready(group, env)
    }
}

/// Ends the join phase if everybody is there. An initial rebalance ends by its delay alone.
pub fn complete_join_if_ready(group: &mut Group, env: &mut Env) -> Option<WriteId> {
    let ready = group.is(GroupState::PreparingRebalance)
        && !group.is_initial_rebalance()
        && group.all_members_joined();
    if ready { complete_join(group, env) } else { None }
}

/// Begins a join phase. Members that wait for an assignment are sent to join again.
pub fn prepare_rebalance(group: &mut Group, env: &mut Env, reason: &str) -> Option<WriteId> {
    if group.is(GroupState::CompletingRebalance) {
        refuse_assignment(group, env, ErrorCode::REBALANCE_IN_PROGRESS);
    }
    group.pending_sync.clear();
    env.cancel_sync(&group.id);

    let initial = group.is(GroupState::Empty);
    env.tell(|left_out| {
        info!(
            left_out,
            group = &*group.id,
            generation = group.generation,
            state = group.state().name(),
            reason,
            "group rebalances"
        )
    });
    group.transition(GroupState::PreparingRebalance, env.desk.now.wall_ms);
    if initial {
        let delay_ms = env.config.initial_rebalance_delay_ms;
        let remaining_ms = (group.rebalance_timeout_ms() - delay_ms).max(0);
        group.new_member_added = false;
        if delay_ms == 0 {
            return complete_join(group, env);
        }
        group.join_phase = Some(JoinPhase::Initial { delay_ms, remaining_ms });
        env.schedule_join(&group.id, delay_ms);
        None
    } else if group.all_members_joined() {
        complete_join(group, env)
    } else {
        await_rejoin(group, env);
        None
    }
}

fn await_rejoin(group: &mut Group, env: &mut Env) {
    group.join_phase = Some(JoinPhase::Rejoin);
    env.schedule_join(&group.id, group.rebalance_timeout_ms());
}

/// The deadline of the join phase has come.
pub fn join_deadline(group: &mut Group, env: &mut Env) -> Option<WriteId> {
    match group.join_phase {
        Some(JoinPhase::Initial { delay_ms, remaining_ms })
            if group.new_member_added && remaining_ms != 0 =>
        {
            let next_delay_ms = env.config.initial_rebalance_delay_ms.min(remaining_ms);
            group.new_member_added = false;
            group.join_phase = Some(JoinPhase::Initial {
                delay_ms: next_delay_ms,
                remaining_ms: (remaining_ms - delay_ms).max(0),
            });
            env.schedule_join(&group.id, next_delay_ms);
            None
        }
        Some(_) => complete_join(group, env),
        None => None,
    }
}

/// Ends the join phase: whoever has not come is out (static members stay until their session ends), and the rest is
/// the next generation.
pub fn complete_join(group: &mut Group, env: &mut Env) -> Option<WriteId> {
    env.cancel_join(&group.id);
    let absent: Vec<Str> = group
        .members()
        .filter(|member| member.join.is_none() && !member.is_static())
        .map(|member| member.id.clone())
        .collect();
    for id in &absent {
        env.tell(|left_out| {
            info!(left_out, group = &*group.id, member = &**id, "member put out: it did not rejoin in time")
        });
        remove_member(group, env, id);
    }

    if !group.elect_joined_leader() && group.member_count() > 0 {
        // Only static members that have not come: none of them can lead. Their sessions will end.
        await_rejoin(group, env);
        return None;
    }

    group.init_next_generation(env.desk.now.wall_ms);
    if group.is(GroupState::Empty) {
        env.tell(|left_out| {
            info!(left_out, group = &*group.id, generation = group.generation, "group is empty")
        });
        let record = records::group_record(group, None);
        let change = GroupChange::Emptied { group: group.id.clone() };
        return Some(env.write(vec![record], change, None));
    }

    env.tell(|left_out| {
        info!(
            left_out,
            group = &*group.id,
            generation = group.generation,
            members = group.member_count(),
            "join phase is complete"
        )
    });
    for id in group.member_ids() {
        let parked = group.take_join(&id);
        if let Some(parked) = parked {
            let response = current_generation(group, &id);
            respond_join(env, parked, response);
        }
        group.update_member(&id, |member| member.is_new = false);
        if let Some(member) = group.member(&id) {
            env.touch(&group.id, member);
        }
        group.pending_sync.insert(id);
    }
    env.schedule_sync(&group.id, group.rebalance_timeout_ms());
    None
}

/// What a member of the current generation is told when it joins: the leader gets everybody's metadata.
pub fn current_generation(group: &Group, member_id: &Str) -> JoinGroupResponse {
    JoinGroupResponse {
        members: if group.is_leader(member_id) { joined_members(group) } else { Vec::new() },
        member_id: member_id.clone(),
        generation_id: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        ..Default::default()
    }
}

pub fn joined_members(group: &Group) -> Vec<join_group_response::Member> {
    group
        .members()
        .map(|member| join_group_response::Member {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(group.protocol.as_ref()),
        })
        .collect()
}

/// Members that have not synced within the rebalance timeout are out, and the rest joins again.
pub fn sync_deadline(group: &mut Group, env: &mut Env) -> Option<WriteId> {
    let waits = matches!(group.state(), GroupState::CompletingRebalance | GroupState::Stable);
    if !waits || group.pending_sync.is_empty() {
        return None;
    }
    for id in group.pending_sync.clone() {
        env.tell(|left_out| {
            info!(left_out, group = &*group.id, member = &*id, "member put out: it did not sync in time")
        });
        remove_member(group, env, &id);
    }
    prepare_rebalance(group, env, "members did not sync in time")
}

/// Answers everyone who waits for the assignment of this generation with an error; nobody has one.
pub fn refuse_assignment(group: &mut Group, env: &mut Env, error: ErrorCode) {
    group.set_assignments(Default::default());
    answer_syncs(group, env, error);
}

/// Answers everyone who waits for the assignment, with it or with an error, and gives them a fresh session: their
/// sessions were overlooked while they waited.
pub fn answer_syncs(group: &mut Group, env: &mut Env, error: ErrorCode) {
    let assigned = error == ErrorCode::NONE;
    for id in group.member_ids() {
        let Some(parked) = group.take_sync(&id) else { continue };
        let Some(member) = group.member(&id) else { continue };
        let response = SyncGroupResponse {
            error_code: error.code(),
            protocol_type: group.protocol_type.clone().filter(|_| assigned),
            protocol_name: group.protocol.clone().filter(|_| assigned),
            assignment: member.assignment.clone(),
            ..Default::default()
        };
        env.touch(&group.id, member);
        env.respond(parked.ticket, GroupResponse::Sync(response));
    }
}

/// The session of a member, or of a member id that was handed out, has run out.
pub fn session_deadline(group: &mut Group, env: &mut Env, member_id: &Str) -> Option<WriteId> {
    if group.is_pending(member_id) {
        debug!(group = &*group.id, member = &**member_id, "member id was never joined with");
        remove_member(group, env, member_id);
        return complete_join_after_removal(group, env);
    }
    let member = group.member(member_id)?;
    if member.is_waiting() {
        // Whoever ends the wait starts a new session.
        return None;
    }
    env.tell(|left_out| {
        info!(left_out, group = &*group.id, member = &**member_id, "member put out: its session ended")
    });
    remove_member(group, env, member_id);
    match group.state() {
        GroupState::Stable | GroupState::CompletingRebalance => {
            prepare_rebalance(group, env, "a session ended")
        }
        _ => complete_join_after_removal(group, env),
    }
}

/// Takes a member out and refuses what it has parked. A client that is still there joins anew.
pub fn remove_member(group: &mut Group, env: &mut Env, member_id: &Str) {
    if let Some(mut member) = group.remove_member(member_id) {
        env.refuse_join(member.join.take(), "", ErrorCode::UNKNOWN_MEMBER_ID);
        if let Some(parked) = member.sync.take() {
            env.refuse_sync(parked, ErrorCode::UNKNOWN_MEMBER_ID);
        }
    }
    env.cancel_session(&group.id, member_id);
}

/// Whoever was waited for may have been the last. Unlike [`complete_join_if_ready`], this ends an initial rebalance too
/// (Kafka's rule: with its last expected member gone there is nothing to wait for).
fn complete_join_after_removal(group: &mut Group, env: &mut Env) -> Option<WriteId> {
    if group.is(GroupState::PreparingRebalance) && group.all_members_joined() {
        complete_join(group, env)
    } else {
        None
    }
}

/// Refuses whoever waits in the group.
pub fn refuse_waiting(group: &mut Group, env: &mut Env, error: ErrorCode) {
    for member_id in group.member_ids() {
        let join = group.take_join(&member_id);
        env.refuse_join(join, &member_id, error);
        if let Some(parked) = group.take_sync(&member_id) {
            env.refuse_sync(parked, error);
        }
    }
}
