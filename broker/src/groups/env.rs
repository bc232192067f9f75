//! What every part of the groups' state machine works with beside the groups: its desk, its settings, its memory.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::Instant;
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::{ErrorCode, Str};
use tracing::warn;

use super::classic::{self, Group, Member, Parked};
use super::config::GroupConfig;
use super::machine::{Groups, TimerKey};
use super::memory::GroupMemory;
use super::offsets::OffsetStore;
use super::records::GroupRecord;
use super::request::GroupResponse;
use super::then::{GroupChange, Then};
use crate::coordinator::{Desk, RawRecord, Ticket, WriteId};
use crate::logging::sparing::Sparing;

/// The most bytes of a client or instance id that go into a member id.
const MEMBER_ID_PREFIX_MAX: usize = 256;
/// Lines a minute about what becomes of groups and members, on each core.
const GROUP_LINES_MAX: u32 = 300;

pub struct Env {
    pub desk: Desk<Groups>,
    pub config: GroupConfig,
    pub memory: GroupMemory,
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
        Env { desk: Desk::default(), config, memory, lines, random }
    }

    // ---- answers

    pub fn respond(&mut self, ticket: Ticket, response: GroupResponse) {
        self.desk.respond(ticket, response);
    }

    /// Refuses a parked JoinGroup.
    pub fn refuse_join(&mut self, parked: Option<Parked>, member_id: &str, error: ErrorCode) {
        if let Some(Parked { ticket, version }) = parked {
            let refusal = classic::join_refusal(Str::from(member_id), error, version);
            self.respond(ticket, GroupResponse::Join(refusal));
        }
    }

    /// Refuses a parked SyncGroup.
    pub fn refuse_sync(&mut self, parked: Parked, error: ErrorCode) {
        let response = SyncGroupResponse { error_code: error.code(), ..Default::default() };
        self.respond(parked.ticket, GroupResponse::Sync(response));
    }

    // ---- writes

    /// Sends records to the log. They, and what is decided on them, count into the memory until they are reported on.
    pub fn write(
        &mut self,
        records: Vec<GroupRecord>,
        change: GroupChange,
        answer: Option<(Ticket, GroupResponse)>,
    ) -> WriteId {
        let mut account = self.memory.account();
        account.add(records.iter().map(pending_cost).sum());
        self.desk.write(records, answer, |raw| {
            account.add(raw.iter().map(RawRecord::bytes).sum());
            Then { change, _account: account }
        })
    }

    /// Whether there is such a write, and it is neither committed nor refused.
    pub fn is_pending(&self, write: Option<WriteId>) -> bool {
        write.is_some_and(|write| self.desk.is_pending(write))
    }

    // ---- log lines

    /// As [`Shard::sparingly`](crate::shard::Shard::sparingly), for one shard.
    pub fn sparingly(&self, kind: &'static str, line: impl FnOnce(u64)) {
        let now = Instant::from_nanos(self.desk.now.mono_ms.saturating_mul(1_000_000));
        if let Some(left_out) = self.lines.turn(kind, 0, now) {
            line(left_out);
        }
    }

    /// What becomes of groups and members: clients make them come and go at will, but people look for these lines.
    pub fn tell(&self, line: impl FnOnce(u64)) {
        let now = Instant::from_nanos(self.desk.now.mono_ms.saturating_mul(1_000_000));
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
        self.desk.now.mono_ms.saturating_add(u64::try_from(delay_ms).unwrap_or(0))
    }

    pub fn schedule_session(&mut self, group: &Str, member: &Str, timeout_ms: i32) {
        let due = self.after(timeout_ms);
        self.desk.timers.schedule(TimerKey::Session { group: group.clone(), member: member.clone() }, due);
    }

    /// Gives the member its whole session timeout from now.
    pub fn touch(&mut self, group: &Str, member: &Member) {
        self.schedule_session(group, &member.id, member.session_timeout_ms);
    }

    pub fn cancel_session(&mut self, group: &Str, member: &Str) {
        self.desk.timers.cancel(&TimerKey::Session { group: group.clone(), member: member.clone() });
    }

    pub fn schedule_join(&mut self, group: &Str, delay_ms: i32) {
        let due = self.after(delay_ms);
        self.desk.timers.schedule(TimerKey::Join(group.clone()), due);
    }

    pub fn cancel_join(&mut self, group: &Str) {
        self.desk.timers.cancel(&TimerKey::Join(group.clone()));
    }

    pub fn schedule_sync(&mut self, group: &Str, delay_ms: i32) {
        let due = self.after(delay_ms);
        self.desk.timers.schedule(TimerKey::Sync(group.clone()), due);
    }

    pub fn cancel_sync(&mut self, group: &Str) {
        self.desk.timers.cancel(&TimerKey::Sync(group.clone()));
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
        f.debug_struct("Env").field("desk", &self.desk).finish_non_exhaustive()
    }
}

/// What a record on its way holds beside its encoded bytes: an offset, which will be there soon. A group's texts are its
/// members'.
fn pending_cost(record: &GroupRecord) -> usize {
    match record {
        GroupRecord::Offset(_, Some(offset)) => OffsetStore::cost(offset.metadata.len()),
        GroupRecord::Offset(_, None) | GroupRecord::Group(..) => 0,
    }
}

/// A copy that shares no memory with the request it came in, for what outlives the request: a slice of it would keep
/// the whole receive buffer. As [`Str::detach`], for bytes.
pub fn detached_bytes(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
