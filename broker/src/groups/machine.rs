//! The groups of one partition of `__consumer_offsets`: where requests, time and the log's reports come in.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use corelog_wire::coordinator_records::GroupMetadataValue;
use corelog_wire::{ErrorCode, Str};
use tracing::info;

use super::classic::{Group, GroupState, prepare_rebalance, refuse_waiting};
use super::config::GroupConfig;
use super::env::Env;
use super::memory::GroupMemory;
use super::offsets::WaitingFetch;
use super::records::{GroupRecord, GroupRecordKey};
use super::request::{GroupRequest, GroupResponse, RequestContext};
use super::state::GroupsState;
use super::then::Then;
use super::topics::TopicIds;
use crate::coordinator::{Desk, Lines, NotServing, StateMachine, Ticket, WriteFailure, WriteId};
use crate::logging::sparing::Sparing;

/// Groups that get their soft state after loading, in one turn of the core.
const GROUPS_A_TURN: usize = 500;

/// What a deadline is for. One deadline per key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// The join phase of a rebalance ends (initial delay, or rebalance timeout).
    Join(Str),
    /// Members that have not synced since the join phase ended are put out.
    Sync(Str),
    /// A member, or a member id handed out and not yet used, has not been heard of for its session timeout.
    Session { group: Str, member: Str },
    /// Offsets past their retention are looked for.
    Retention,
}

/// The state machine of groups. See the [module's page](super).
pub struct Groups {
    /// What records say, and nothing else.
    pub(super) state: GroupsState,
    /// Soft: every group that exists or begins to, with its members as they come and go.
    pub(super) groups: BTreeMap<Str, Group>,
    pub(super) topics: TopicIds,
    pub(super) env: Env,
    /// The group at which the making of soft state goes on, while it is not all made.
    waking_from: Option<Str>,
    /// The group at which a run of retention goes on.
    pub(super) retention_from: Option<Str>,
    /// OffsetFetches that want only stable offsets, while writes are on their way that they must see.
    pub(super) waiting_fetches: Vec<WaitingFetch>,
}

impl Groups {
    /// `memory` and `lines` are shared by the coordinators of a shard; `random` gives random bits, for member ids.
    pub fn new(
        config: GroupConfig,
        memory: GroupMemory,
        topics: TopicIds,
        lines: Rc<Sparing>,
        random: Box<dyn FnMut() -> u64>,
    ) -> Groups {
        Groups {
            state: GroupsState::new(&memory),
            groups: BTreeMap::new(),
            topics,
            env: Env::new(config, memory, lines, random),
            waking_from: None,
            retention_from: None,
            waiting_fetches: Vec::new(),
        }
    }

    /// How many groups there are in each state.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            *counts.entry(group.state()).or_default() += 1;
        }
        counts
    }

    /// The group, for whoever decides: one whose removal is on its way is there no more.
    pub(super) fn group(&self, id: &str) -> Option<&Group> {
        self.groups.get(id).filter(|group| !self.env.is_pending(group.removal))
    }

    /// Whether readers see the group. Until the write that makes it is committed they do not, but for members: these
    /// may have their answer already, and look.
    pub(super) fn is_shown(&self, group: &Group) -> bool {
        group.member_count() > 0 || !self.env.is_pending(group.creation)
    }

    /// A group without members, in the place of one that is being removed if there is one.
    pub(super) fn put_new_group(&mut self, id: Str) {
        self.drop_group(&id);
        let group = Group::new(id.clone(), &self.env.memory, self.env.desk.now.wall_ms);
        self.groups.insert(id, group);
    }

    /// Forgets the group.
    pub(super) fn drop_group(&mut self, group_id: &Str) {
        if let Some(group) = self.groups.remove(group_id) {
            self.env.cancel_all(&group);
        }
    }

    /// The group's soft state ended with a new group that was to take its place and was not stored: it is made anew. Of a
    /// group that neither is nor will be, nothing is.
    pub(super) fn put_back(&mut self, id: Str) {
        let key = GroupRecordKey::Group(id.clone());
        let removal = match self.env.desk.pending().latest(&key) {
            Some((write, GroupRecord::Group(_, None))) => Some(write),
            _ => None,
        };
        let write = self.last_write_of(&id);
        if !self.state.has(&id) && write.is_none() {
            return;
        }
        let creation = write.filter(|_| !self.state.has(&id));
        self.wake_group(id.clone());
        if let Some(group) = self.groups.get_mut(&id) {
            (group.creation, group.removal) = (creation, removal);
        }
    }

    /// Puts the soft state of a group beside its replicated one. Members of stable groups have their whole session
    /// timeout to be heard of.
    fn wake_group(&mut self, id: Str) {
        let group = match latest_stored(&self.env, &self.state, &id) {
            Some(stored) => Group::loaded(id.clone(), &self.env.memory, stored),
            // One that only holds offsets, or whose tombstone has left some behind.
            None => Group::new(id.clone(), &self.env.memory, self.env.desk.now.wall_ms),
        };
        let group = self.groups.entry(id).insert_entry(group).into_mut();
        for member in group.members() {
            self.env.touch(&group.id, member);
        }
        if group.member_count() > self.env.config.group_members_max {
            let reason = "loaded with more members than group.max.size allows";
            prepare_rebalance(group, &mut self.env, reason);
        }
    }
}

/// The group's record as it will be when everything on its way is committed; if that removes it, as it was before.
pub(super) fn latest_stored<'a>(
    env: &'a Env,
    state: &'a GroupsState,
    id: &Str,
) -> Option<&'a GroupMetadataValue> {
    match env.desk.pending().latest(&GroupRecordKey::Group(id.clone())) {
        Some((_, GroupRecord::Group(_, Some(stored)))) => Some(stored),
        _ => state.stored.get(id),
    }
}

impl StateMachine for Groups {
    type Context = RequestContext;
    type Request = GroupRequest;
    type Answer = GroupResponse;
    type Record = GroupRecord;
    type Timer = TimerKey;
    type Then = Then;

    const LINES: Lines = Lines {
        damaged: "group coordinator is not available: its log cannot be loaded. Its groups are refused, those of \
                  other partitions are served. Restore the partition of __consumer_offsets from a copy; or, to give \
                  up the groups and offsets that were stored before the damage, delete its records up to behind the \
                  offset named here (DeleteRecords, which __consumer_offsets takes as long as this is so, but for a \
                  log that was refused at the start). It is loaded again then, without a restart",
        begins_anew: "group coordinator begins anew: a write was lost",
        large_record: "a group's record is larger than a batch of __consumer_offsets may be: raise max.message.bytes of that \
                       topic, or message.max.bytes of the broker",
        large_record_kind: "large group record",
    };

    fn desk(&mut self) -> &mut Desk<Groups> {
        &mut self.env.desk
    }

    fn desk_ref(&self) -> &Desk<Groups> {
        &self.env.desk
    }

    fn replay(&mut self, record: GroupRecord) {
        self.state.replay(record);
    }

    fn wake(&mut self) -> bool {
        let from = self.waking_from.take().map_or(Bound::Unbounded, Bound::Included);
        let mut ids = self.state.ids_from(from, GROUPS_A_TURN + 1);
        if ids.len() > GROUPS_A_TURN {
            self.waking_from = ids.pop();
        }
        for id in ids {
            self.wake_group(id);
        }
        if self.waking_from.is_some() {
            return false;
        }
        let interval = self.env.config.offsets_retention_check_interval_ms;
        self.schedule_retention(interval);
        true
    }

    fn handle(&mut self, ticket: Ticket, context: &RequestContext, request: GroupRequest) {
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

    fn due(&mut self, timer: TimerKey) {
        match timer {
            TimerKey::Join(group) => self.join_is_due(&group),
            TimerKey::Sync(group) => self.sync_is_due(&group),
            TimerKey::Session { group, member } => self.session_is_due(&group, &member),
            TimerKey::Retention => self.apply_retention(),
        }
    }

    fn committed(&mut self, id: WriteId, then: Then) {
        self.write_committed(id, then);
        self.answer_waiting_fetches();
    }

    fn refused(&mut self, id: WriteId, then: Then, failure: WriteFailure) {
        self.write_refused(id, then.change, failure);
        self.answer_waiting_fetches();
    }

    fn unload(&mut self, error: ErrorCode) {
        for group in self.groups.values_mut() {
            refuse_waiting(group, &mut self.env, error);
        }
        self.refuse_waiting_fetches(error);
    }

    fn tell_loaded(&self, partition: i32, records: usize, end: i64) {
        let groups = self.groups.len();
        info!(partition, records, end, groups, "group coordinator is loaded");
    }

    fn refuse(request: GroupRequest, context: &RequestContext, why: NotServing) -> GroupResponse {
        match (request, why) {
            // Which groups it has is not known. Those of other partitions are, and this one's error is in the log.
            (GroupRequest::List(_), NotServing::Damaged) => GroupResponse::List(Default::default()),
            (request, why) => request.refuse(context.api_version, why.error()),
        }
    }

    fn failed(answer: GroupResponse, error: ErrorCode) -> GroupResponse {
        answer.failed(error)
    }
}
