//! The coordinator of one partition of `__consumer_offsets`: where requests, time and the log's reports come in.

use std::collections::BTreeMap;
use std::rc::Rc;

use corelog_wire::{ErrorCode, Str};

use super::config::GroupConfig;
use super::effect::Effect;
use super::env::{Env, Now};
use super::group::{Group, GroupState};
use super::memory::GroupMemory;
use super::offset_fetch::WaitingFetch;
use super::offsets::OffsetStore;
use super::parked::Ticket;
use super::rebalance;
use super::request::{GroupRequest, RequestContext};
use super::timers::TimerKey;
use super::topics::TopicIds;
use crate::logging::sparing::Sparing;

/// See the [module's page](super). After every call of a method that takes the time, do what
/// [`take_effects`](GroupCoordinator::take_effects) gives, in its order, and look at
/// [`next_deadline`](GroupCoordinator::next_deadline) again.
pub struct GroupCoordinator {
    pub(super) groups: BTreeMap<Str, Group>,
    pub(super) offsets: OffsetStore,
    pub(super) topics: TopicIds,
    pub(super) env: Env,
    pub(super) loading: bool,
    /// The group at which a run of retention goes on.
    pub(super) retention_from: Option<Str>,
    /// OffsetFetches that want only stable offsets, while writes are on their way that they must see.
    pub(super) waiting_fetches: Vec<WaitingFetch>,
}

impl GroupCoordinator {
    /// A coordinator that is loading. `memory` and `lines` are shared by the coordinators of a shard; `random` gives random
    /// bits, for member ids.
    pub fn new(
        config: GroupConfig,
        memory: GroupMemory,
        topics: TopicIds,
        lines: Rc<Sparing>,
        random: Box<dyn FnMut() -> u64>,
    ) -> GroupCoordinator {
        GroupCoordinator {
            groups: BTreeMap::new(),
            offsets: OffsetStore::new(&memory),
            topics,
            env: Env::new(config, memory, lines, random),
            loading: true,
            retention_from: None,
            waiting_fetches: Vec::new(),
        }
    }

    /// Takes a request. It is answered by an [`Effect::Respond`] with the same ticket: at once, or later.
    pub fn handle(&mut self, ticket: Ticket, context: &RequestContext, request: GroupRequest, now: Now) {
        self.env.now = now;
        if self.loading {
            let response = request.refuse(context.api_version, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
            return self.env.respond(ticket, response);
        }
        match request {
            GroupRequest::Join(request) => self.join(ticket, context, request),
            GroupRequest::Sync(request) => self.sync(ticket, context, request),
            GroupRequest::Heartbeat(request) => self.heartbeat(ticket, &request),
            GroupRequest::Leave(request) => self.leave(ticket, context, request),
            GroupRequest::OffsetCommit(request) => self.offset_commit(ticket, context, request),
            GroupRequest::OffsetFetch { group, require_stable } => {
                self.offset_fetch(ticket, group, require_stable)
            }
            GroupRequest::OffsetDelete(request) => self.offset_delete(ticket, request),
            GroupRequest::Describe { groups, include_authorized_operations } => {
                self.describe(ticket, context, groups, include_authorized_operations);
            }
            GroupRequest::List(request) => self.list(ticket, &request),
            GroupRequest::Delete(groups) => self.delete(ticket, groups),
        }
    }

    /// Does what is due. To be called at [`next_deadline`](GroupCoordinator::next_deadline), and harmless at any time.
    pub fn expire(&mut self, now: Now) {
        self.env.now = now;
        while let Some(key) = self.env.timers.pop_expired(now.mono_ms) {
            let group_id = match &key {
                TimerKey::Join(group) | TimerKey::Sync(group) | TimerKey::Session { group, .. } => group,
                TimerKey::Retention => {
                    self.apply_retention();
                    continue;
                }
            };
            let Some(group) = self.groups.get_mut(group_id) else { continue };
            match &key {
                TimerKey::Join(_) => rebalance::join_deadline(group, &mut self.env),
                TimerKey::Sync(_) => rebalance::sync_deadline(group, &mut self.env),
                TimerKey::Session { member, .. } => rebalance::session_deadline(group, &mut self.env, member),
                TimerKey::Retention => None,
            };
        }
    }

    /// When [`expire`](GroupCoordinator::expire) is to be called next, in milliseconds of the monotonic clock. It may
    /// be too early by then; it is never too late.
    pub fn next_deadline(&self) -> Option<u64> {
        self.env.timers.next_ms()
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.env.effects)
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many groups there are in each state.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            *counts.entry(group.state()).or_default() += 1;
        }
        counts
    }

    /// A group without members, in the place of one that is being removed if there is one.
    pub(super) fn put_new_group(&mut self, id: Str) {
        self.drop_group(&id);
        let group = Group::new(id.clone(), &self.env.memory, self.env.now.wall_ms);
        self.groups.insert(id, group);
    }
}
