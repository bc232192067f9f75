//! The coordinator under test: a log that is durable when the test says so, a clock that the test moves.

mod admin;
mod driver;
mod durability;
mod offsets;
mod property;
mod rebalance;
mod refused;
mod static_members;
mod storage;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::Dice;
use corelog_io::sync::Semaphore;
use corelog_wire::messages::heartbeat_request::HeartbeatRequest;
use corelog_wire::messages::join_group_request::{self, JoinGroupRequest};
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use corelog_wire::messages::leave_group_response::LeaveGroupResponse;
use corelog_wire::messages::offset_commit_request::{self, OffsetCommitRequest};
use corelog_wire::messages::offset_commit_response::OffsetCommitResponse;
use corelog_wire::messages::sync_group_request::{self, SyncGroupRequest};
use corelog_wire::messages::sync_group_response::SyncGroupResponse;
use corelog_wire::messages::{offset_fetch_request, offset_fetch_response};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::classic::GroupState;
use super::machine::{Groups, TimerKey};
use super::memory::GroupMemory;
use super::serve::{GroupPartition, GroupSettings};
use super::*;
use crate::coordinator::{Coordinator, Effect, Now, RawRecord, Ticket, WriteFailure, WriteId};

pub const G: &str = "group";
pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;

pub fn s(text: &str) -> Str {
    Str::from(text)
}

/// Config of most tests: no initial delay.
pub fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() }
}

/// The topics there are: by default every name is a topic.
#[derive(Clone, Default)]
pub struct Topics(Rc<RefCell<BTreeMap<Str, Option<Uuid>>>>);

impl Topics {
    /// The topic of this name is now another one, or gone.
    pub fn set(&self, name: &str, id: Option<Uuid>) {
        self.0.borrow_mut().insert(s(name), id);
    }

    pub fn ids(&self) -> TopicIds {
        let topics = self.0.clone();
        TopicIds::new(move |name| topics.borrow().get(name).copied().unwrap_or_else(|| Some(topic_id(name))))
    }
}

/// The id of the first topic of this name.
pub fn topic_id(name: &str) -> Uuid {
    Uuid::from_random(name.bytes().fold(7, |id, byte| id * 31 + u128::from(byte)))
}

pub fn settings(config: GroupConfig) -> GroupSettings {
    GroupSettings {
        config,
        memory: GroupMemory::new(usize::MAX),
        topics: Topics::default().ids(),
        lines: Rc::default(),
        append_bytes_max: Rc::new(Cell::new(1_048_588)),
        commit_room: Semaphore::new(1 << 20),
        commit_line: Semaphore::new(1 << 20),
    }
}

pub struct Bench {
    pub topics: Topics,
    pub coordinator: Coordinator<Groups>,
    pub now: Now,
    /// Every record that is durable.
    pub log: Vec<RawRecord>,
    pub in_flight: VecDeque<(WriteId, Vec<RawRecord>)>,
    /// Whether writes are durable at once.
    pub durable: bool,
    answers: BTreeMap<Ticket, GroupResponse>,
    next_ticket: u64,
}

impl Bench {
    pub fn new(config: GroupConfig) -> Bench {
        Bench::with_memory(config, GroupMemory::new(usize::MAX))
    }

    pub fn with_memory(config: GroupConfig, memory: GroupMemory) -> Bench {
        let mut bench = Bench::loading(config, memory, Topics::default(), 1);
        bench.wake();
        bench
    }

    pub fn wake(&mut self) {
        while !self.coordinator.wake(self.now) {}
    }

    pub fn groups(&self) -> &Groups {
        &self.coordinator.machine
    }

    fn loading(config: GroupConfig, memory: GroupMemory, topics: Topics, seed: u64) -> Bench {
        let mut dice = Dice(seed);
        let random = Box::new(move || dice.next());
        Bench {
            coordinator: Coordinator::new(Groups::new(config, memory, topics.ids(), Rc::default(), random)),
            topics,
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            log: Vec::new(),
            in_flight: VecDeque::new(),
            durable: true,
            answers: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// A coordinator that has replayed this one's log, at the same time.
    pub fn restarted(&self, config: GroupConfig) -> Bench {
        self.restarted_with(config, GroupMemory::new(usize::MAX))
    }

    pub fn restarted_with(&self, config: GroupConfig, memory: GroupMemory) -> Bench {
        let mut other = self.replayed_with(config, memory);
        other.wake();
        other.settle();
        other
    }

    /// The same before it has done anything of its own.
    pub fn replayed(&self, config: GroupConfig) -> Bench {
        self.replayed_with(config, GroupMemory::new(usize::MAX))
    }

    fn replayed_with(&self, config: GroupConfig, memory: GroupMemory) -> Bench {
        let seed = self.now.mono_ms.wrapping_mul(31) + self.next_ticket;
        let mut other = Bench::loading(config, memory, self.topics.clone(), seed);
        other.now = self.now;
        for record in &self.log {
            other.coordinator.replay(record.clone(), self.now).expect("our own records");
        }
        other.log = self.log.clone();
        other
    }

    // ---- driving

    pub fn send(&mut self, version: i16, request: GroupRequest) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let context =
            RequestContext { client_id: s("client"), client_host: s("/127.0.0.1"), api_version: version };
        self.coordinator.handle(ticket, &context, request, self.now);
        self.settle();
        ticket
    }

    /// Does what the coordinator wants, as far as the log is durable at once.
    pub fn settle(&mut self) {
        loop {
            for effect in self.coordinator.take_effects() {
                match effect {
                    Effect::Respond { ticket, response } => {
                        let former = self.answers.insert(ticket, response);
                        assert!(former.is_none(), "{ticket:?} is answered once");
                    }
                    Effect::Append { id, records, .. } => self.in_flight.push_back((id, records)),
                }
            }
            if !self.durable || !self.write_next(Ok(())) {
                return;
            }
        }
    }

    /// Reports on the next write: a refused one takes those behind it along. False if there is none.
    fn write_next(&mut self, result: Result<(), WriteFailure>) -> bool {
        let Some((id, records)) = self.in_flight.pop_front() else { return false };
        match result {
            Ok(()) => {
                self.log.extend(records);
                self.coordinator.committed(id, self.now);
            }
            Err(failure) => {
                self.in_flight.clear();
                self.coordinator.refused(id, failure, self.now);
            }
        }
        true
    }

    pub fn write(&mut self, result: Result<(), WriteFailure>) {
        assert!(self.write_next(result), "a write is on its way");
        self.settle();
    }

    /// Lets time pass, with every deadline met on the millisecond.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= end) {
            self.advance_to(at.max(self.now.mono_ms));
            self.coordinator.expire(self.now);
            self.settle();
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, mono_ms: u64) {
        self.now.wall_ms += i64::try_from(mono_ms - self.now.mono_ms).unwrap();
        self.now.mono_ms = mono_ms;
    }

    pub fn topics_deleted(&mut self, topics: &[(Str, Uuid)]) {
        self.coordinator.act(|groups| groups.topics_deleted(topics), self.now);
        self.settle();
    }

    pub fn is_parked(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub fn answer(&mut self, ticket: Ticket) -> GroupResponse {
        self.answers.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} is answered by now"))
    }

    pub fn call(&mut self, version: i16, request: GroupRequest) -> GroupResponse {
        let ticket = self.send(version, request);
        self.answer(ticket)
    }

    // ---- requests

    pub fn join(&mut self, join: &Joiner) -> Ticket {
        self.send(join.version, GroupRequest::Join(join.request()))
    }

    pub fn joined(&mut self, ticket: Ticket) -> JoinGroupResponse {
        match self.answer(ticket) {
            GroupResponse::Join(response) => response,
            other => panic!("no JoinGroup answer: {other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: Ticket) -> SyncGroupResponse {
        match self.answer(ticket) {
            GroupResponse::Sync(response) => response,
            other => panic!("no SyncGroup answer: {other:?}"),
        }
    }

    /// `assignments` is empty for a follower.
    pub fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> Ticket {
        self.send(5, GroupRequest::Sync(sync_request(member, generation, assignments)))
    }

    pub fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: s(G),
            generation_id: generation,
            member_id: s(member),
            ..Default::default()
        };
        match self.call(4, GroupRequest::Heartbeat(request)) {
            GroupResponse::Heartbeat(response) => ErrorCode(response.error_code),
            other => panic!("no Heartbeat answer: {other:?}"),
        }
    }

    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> LeaveGroupResponse {
        let members = members.iter().map(|(id, instance)| MemberIdentity {
            member_id: s(id),
            group_instance_id: instance.map(s),
            ..Default::default()
        });
        let request = LeaveGroupRequest { group_id: s(G), members: members.collect(), ..Default::default() };
        match self.call(5, GroupRequest::Leave(request)) {
            GroupResponse::Leave(response) => response,
            other => panic!("no LeaveGroup answer: {other:?}"),
        }
    }

    /// Commits offset `offset` of partition 0 of topic `t`.
    pub fn commit(&mut self, member: &str, generation: i32, offset: i64) -> Ticket {
        self.send(8, GroupRequest::OffsetCommit(commit_request(G, member, generation, "t", offset)))
    }

    pub fn committed(&mut self, ticket: Ticket) -> ErrorCode {
        match self.answer(ticket) {
            GroupResponse::OffsetCommit(response) => first_error(&response),
            other => panic!("no OffsetCommit answer: {other:?}"),
        }
    }

    /// The durable offset of partition 0 of topic `t`; −1 if there is none.
    pub fn fetch(&mut self) -> i64 {
        let ticket = self.send_fetch(false);
        self.fetched(ticket)
    }

    pub fn send_fetch(&mut self, require_stable: bool) -> Ticket {
        let topics = vec![offset_fetch_request::Topics {
            name: s("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }];
        let group =
            offset_fetch_request::Group { group_id: s(G), topics: Some(topics), ..Default::default() };
        self.send(8, GroupRequest::OffsetFetch { group, require_stable })
    }

    pub fn fetched(&mut self, ticket: Ticket) -> i64 {
        match self.answer(ticket) {
            GroupResponse::OffsetFetch(group) => group.topics[0].partitions[0].committed_offset,
            other => panic!("no OffsetFetch answer: {other:?}"),
        }
    }

    pub fn fetch_all(&mut self, group_id: &str) -> offset_fetch_response::Group {
        let group = offset_fetch_request::Group { group_id: s(group_id), topics: None, ..Default::default() };
        match self.call(8, GroupRequest::OffsetFetch { group, require_stable: false }) {
            GroupResponse::OffsetFetch(group) => group,
            other => panic!("no OffsetFetch answer: {other:?}"),
        }
    }

    // ---- what is there

    /// The group's state by DescribeGroups.
    pub fn state(&mut self) -> String {
        let request = GroupRequest::Describe { groups: vec![s(G)], include_authorized_operations: false };
        match self.call(5, request) {
            GroupResponse::Describe(groups) => groups[0].group_state.to_string(),
            other => panic!("no DescribeGroups answer: {other:?}"),
        }
    }

    // ---- whole rebalances

    /// A stable group of dynamic members that came by version 2 (without the step of KIP-394), in the order of their
    /// names; the assignment of each is its index. Gives their ids and the generation; the first of them leads.
    pub fn stable(&mut self, members: usize) -> (Vec<String>, i32) {
        let joiners: Vec<Joiner> = (0..members).map(|_| Joiner { version: 2, ..Joiner::default() }).collect();
        let first = self.join(&joiners[0]);
        let mut ids = Vec::new();
        let first = self.joined(first);
        let mut generation = first.generation_id;
        ids.push(first.member_id.to_string());
        for joiner in &joiners[1..] {
            let new = self.join(joiner);
            let old: Vec<Ticket> = ids.iter().map(|id| self.join(&joiner.with_id(id))).collect();
            for ticket in old {
                self.joined(ticket);
            }
            let joined = self.joined(new);
            assert_eq!(joined.error_code, 0);
            generation = joined.generation_id;
            ids.push(joined.member_id.to_string());
        }
        self.assign(&ids, generation);
        (ids, generation)
    }

    /// Everybody syncs, the leader last.
    pub fn assign(&mut self, ids: &[String], generation: i32) {
        let parts: Vec<String> = (0..ids.len()).map(|index| index.to_string()).collect();
        let plan: Vec<(&str, &str)> =
            ids.iter().map(String::as_str).zip(parts.iter().map(String::as_str)).collect();
        let followers: Vec<Ticket> = ids[1..].iter().map(|id| self.sync(id, generation, &[])).collect();
        let leader = self.sync(&ids[0], generation, &plan);
        assert_eq!(self.synced(leader).assignment, "0");
        for (index, ticket) in followers.into_iter().enumerate() {
            assert_eq!(self.synced(ticket).assignment, (index + 1).to_string());
        }
    }
}

/// What a member joins with.
#[derive(Clone)]
pub struct Joiner {
    pub version: i16,
    pub group: &'static str,
    pub member_id: String,
    pub instance_id: Option<&'static str>,
    pub protocol_type: &'static str,
    pub protocols: Vec<(&'static str, Bytes)>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
}

impl Default for Joiner {
    fn default() -> Joiner {
        Joiner {
            version: 9,
            group: G,
            member_id: String::new(),
            instance_id: None,
            protocol_type: "consumer",
            protocols: vec![("range", subscription(&["t"]))],
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
        }
    }
}

impl Joiner {
    pub fn with_id(&self, id: &str) -> Joiner {
        Joiner { member_id: id.to_owned(), ..self.clone() }
    }

    pub fn request(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: s(self.group),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            member_id: s(&self.member_id),
            group_instance_id: self.instance_id.map(s),
            protocol_type: s(self.protocol_type),
            protocols: self
                .protocols
                .iter()
                .map(|(name, metadata)| join_group_request::Protocol {
                    name: s(name),
                    metadata: metadata.clone(),
                })
                .collect(),
            ..Default::default()
        }
    }
}

/// A ConsumerProtocolSubscription, version 0.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend_from_slice(&i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend_from_slice(&i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
    }
    bytes.extend_from_slice(&(-1i32).to_be_bytes());
    bytes.into()
}

pub fn sync_request(member: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncGroupRequest {
    let assignments = assignments.iter().map(|(id, assignment)| sync_group_request::Assignment {
        member_id: s(id),
        assignment: Bytes::copy_from_slice(assignment.as_bytes()),
    });
    SyncGroupRequest {
        group_id: s(G),
        generation_id: generation,
        member_id: s(member),
        protocol_type: Some(s("consumer")),
        protocol_name: Some(s("range")),
        assignments: assignments.collect(),
        ..Default::default()
    }
}

pub fn commit_request(
    group: &str,
    member: &str,
    generation: i32,
    topic: &str,
    offset: i64,
) -> OffsetCommitRequest {
    let partition = offset_commit_request::Partition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some(s("note")),
        ..Default::default()
    };
    let topic =
        offset_commit_request::Topic { name: s(topic), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest {
        group_id: s(group),
        generation_id_or_member_epoch: generation,
        member_id: s(member),
        topics: vec![topic],
        ..Default::default()
    }
}

pub fn first_error(response: &OffsetCommitResponse) -> ErrorCode {
    ErrorCode(response.topics[0].partitions[0].error_code)
}

pub fn join_error(response: &JoinGroupResponse) -> ErrorCode {
    ErrorCode(response.error_code)
}

pub fn sync_error(response: &SyncGroupResponse) -> ErrorCode {
    ErrorCode(response.error_code)
}
