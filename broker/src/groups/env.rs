//! What every part of the coordinator works with beside the groups: the time of this step, timers, writes on their
//! way, and the effects collected so far.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::Instant;
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::warn;

use super::config::GroupConfig;
use super::effect::{CoordinatorRecord, Effect, WriteId};
use super::group::Group;
use super::join;
use super::member::Member;
use super::memory::{Account, GroupMemory};
use super::parked::{Parked, Ticket};
use super::request::GroupResponse;
use super::timers::{TimerKey, Timers};
use super::written::OnWritten;
use crate::logging::sparing::Sparing;

/// The most bytes of a client or instance id that go into a member id.
const MEMBER_ID_PREFIX_MAX: usize = 256;
/// Lines a minute about what becomes of groups and members, on each core.
const GROUP_LINES_MAX: u32 = 300;

/// The time of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back: deadlines go by it.
    pub mono_ms: u64,
    /// The wall clock: it goes into records, and retention goes by it.
    pub wall_ms: i64,
}

/// A write that is on its way to the log.
pub struct PendingWrite {
    pub id: WriteId,
    pub on_written: OnWritten,
    /// The answer to release when it is durable; replaced by a refusal when it fails.
    pub answer: Option<(Ticket, GroupResponse)>,
    /// Its records, as long as they are on their way.
    _account: Account,
}

pub struct Env {
    pub config: GroupConfig,
    pub memory: GroupMemory,
    pub now: Now,
    pub timers: Timers,
    pub effects: Vec<Effect>,
    pub writes: VecDeque<PendingWrite>,
    next_write: u64,
    /// Lines about what clients do, of all coordinators of the shard.
    lines: Rc<Sparing>,
    /// Gives random bits for member ids.
    random: Box<dyn FnMut() -> u64>,
}

impl Env {
    pub fn new(
        config: GroupConfig,
        memory: GroupMemory,
        lines: Rc<Sparing>,
        random: Box<dyn FnMut() -> u64>,
    ) -> Env {
        Env {
            config,
            memory,
            now: Now::default(),
            timers: Timers::default(),
            effects: Vec::new(),
            writes: VecDeque::new(),
            next_write: 0,
            lines,
            random,
        }
    }

    // ---- answers

    pub fn respond(&mut self, ticket: Ticket, response: GroupResponse) {
        self.effects.push(Effect::Respond { ticket, response });
    }

    /// Refuses a parked JoinGroup.
    pub fn refuse_join(&mut self, parked: Option<Parked>, member_id: &str, error: ErrorCode) {
        if let Some(Parked { ticket, version }) = parked {
            self.respond(ticket, GroupResponse::Join(join::refusal(Str::from(member_id), error, version)));
        }
    }

    /// Refuses a parked SyncGroup.
    pub fn refuse_sync(&mut self, parked: Parked, error: ErrorCode) {
        let response = SyncGroupResponse { error_code: error.code(), ..Default::default() };
        self.respond(parked.ticket, GroupResponse::Sync(response));
    }

    // ---- writes

    /// Sends records to the log. What follows from them happens when they are durable.
    pub fn append(
        &mut self,
        records: Vec<CoordinatorRecord>,
        on_written: OnWritten,
        answer: Option<(Ticket, GroupResponse)>,
    ) -> WriteId {
        let id = WriteId(self.next_write);
        self.next_write += 1;
        let mut account = self.memory.account();
        account.add(records.iter().map(CoordinatorRecord::bytes).sum());
        self.writes.push_back(PendingWrite { id, on_written, answer, _account: account });
        self.effects.push(Effect::Append { id, records, timestamp_ms: self.now.wall_ms });
        id
    }

    /// Answers now, or when `write` is durable if there is one.
    pub fn respond_when_written(&mut self, write: Option<WriteId>, ticket: Ticket, response: GroupResponse) {
        let pending = write.and_then(|id| self.writes.iter_mut().rev().find(|pending| pending.id == id));
        match pending {
            Some(pending) => pending.answer = Some((ticket, response)),
            None => self.respond(ticket, response),
        }
    }

    /// The id that the next write will bear.
    pub fn next_write_id(&self) -> WriteId {
        WriteId(self.next_write)
    }

    /// Takes the write that the log has reported on.
    ///
    /// # Panics
    /// When writes are reported out of their order: what is visible would then differ from the log.
    pub fn take_write(&mut self, id: WriteId) -> PendingWrite {
        let write = self.writes.pop_front().expect("a write that is reported on is on its way");
        assert_eq!(write.id, id, "writes are reported on in their order");
        write
    }

    // ---- log lines

    /// As [`Shard::sparingly`](crate::shard::Shard::sparingly), for one shard.
    pub fn sparingly(&self, kind: &'static str, line: impl FnOnce(u64)) {
        let now = Instant::from_nanos(self.now.mono_ms.saturating_mul(1_000_000));
        if let Some(left_out) = self.lines.turn(kind, 0, now) {
            line(left_out);
        }
    }

    /// What becomes of groups and members: clients make them come and go at will, but people look for these lines.
    pub fn tell(&self, line: impl FnOnce(u64)) {
        let now = Instant::from_nanos(self.now.mono_ms.saturating_mul(1_000_000));
        if let Some(left_out) = self.lines.turn_of("groups", GROUP_LINES_MAX, 0, now) {
            line(left_out);
        }
    }

    /// Something was refused because groups use the memory they may have.
    pub fn memory_is_full(&self, group: &str, what: &str) {
        self.sparingly("group memory", |left_out| warn!(
            group,
            left_out,
            used = self.memory.used(),
            limit = self.memory.limit(),
            limit_of_a_group = self.memory.group_max(),
            "{what} refused: groups use the memory that they may have on this core. Remove groups, shorten what members \
             say in joining and committing, or give the broker more memory (--memory)"
        ));
    }

    // ---- deadlines

    fn after(&self, delay_ms: i32) -> u64 {
        self.now.mono_ms.saturating_add(u64::try_from(delay_ms).unwrap_or(0))
    }

    pub fn schedule_session(&mut self, group: &Str, member: &Str, timeout_ms: i32) {
        let due = self.after(timeout_ms);
        self.timers.schedule(TimerKey::Session { group: group.clone(), member: member.clone() }, due);
    }

    /// Gives the member its whole session timeout from now.
    pub fn touch(&mut self, group: &Str, member: &Member) {
        self.schedule_session(group, &member.id, member.session_timeout_ms);
    }

    pub fn cancel_session(&mut self, group: &Str, member: &Str) {
        self.timers.cancel(&TimerKey::Session { group: group.clone(), member: member.clone() });
    }

    pub fn schedule_join(&mut self, group: &Str, delay_ms: i32) {
        let due = self.after(delay_ms);
        self.timers.schedule(TimerKey::Join(group.clone()), due);
    }

    pub fn cancel_join(&mut self, group: &Str) {
        self.timers.cancel(&TimerKey::Join(group.clone()));
    }

    pub fn schedule_sync(&mut self, group: &Str, delay_ms: i32) {
        let due = self.after(delay_ms);
        self.timers.schedule(TimerKey::Sync(group.clone()), due);
    }

    pub fn cancel_sync(&mut self, group: &Str) {
        self.timers.cancel(&TimerKey::Sync(group.clone()));
    }

    /// Drops every deadline of a group that goes.
    pub fn cancel_all(&mut self, group: &Group) {
        self.cancel_join(&group.id);
        self.cancel_sync(&group.id);
        for member in group.members() {
            self.cancel_session(&group.id, &member.id);
        }
        for member in group.pending_members() {
            self.cancel_session(&group.id, member);
        }
    }

    // ---- member ids

    /// A new member id: `prefix`, a dash and a random UUID (version 4), as Kafka makes them.
    /// A very long prefix is cut: the id has to fit where strings have 32767 bytes at most, wherever it goes.
    pub fn new_member_id(&mut self, prefix: &str) -> Str {
        let prefix = &prefix[..prefix.floor_char_boundary(MEMBER_ID_PREFIX_MAX)];
        let (high, low) = ((self.random)(), (self.random)());
        let high = (high & !0xf000) | 0x4000;
        let low = (low & !(0b11 << 62)) | (0b10 << 62);
        Str::from(format!(
            "{prefix}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        ))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("now", &self.now)
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

/// A copy that shares no memory with the request it came in, for what outlives the request: a slice of it would keep
/// the whole receive buffer. As [`Str::detach`], for bytes.
pub fn detached_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
impl PendingWrite {
    pub fn bytes(&self) -> usize {
        self._account.bytes()
    }
}
