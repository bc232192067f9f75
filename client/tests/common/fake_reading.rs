//! The fake broker's part for consumers: logs to fetch from, by leader epoch, with fetch sessions; committed offsets; a group.
//! A cluster of one or two nodes that share all this. A script says what becomes of each request.

use super::encoded;
use bytes::Bytes;
use corelog_client::TopicPartition;
use corelog_wire::consumer_protocol::{self, ConsumerProtocolSubscription};
use corelog_wire::fetch::{
    EpochEndOffset, FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::{
    ApiVersionsResponse, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListOffsetsRequest, ListOffsetsResponse,
    Message, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    SyncGroupRequest, SyncGroupResponse, join_group_response, list_offsets_response, metadata_response,
    offset_commit_response, offset_fetch_response, offset_for_leader_epoch_response,
};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use corelog_wire::{ApiKey, ErrorCode, Reader, RequestHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Any topic has so many partitions.
pub const PARTITIONS: i32 = 2;
/// How long a fetch waits for records.
const FETCH_WAIT: Duration = Duration::from_millis(5);
/// Nothing here takes so long, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub node: i32,
    pub api: ApiKey,
    /// What it names; of a commit with the offset, of JoinGroup what the member claims to own, of Metadata topics as partitions -1.
    pub partitions: BTreeMap<TopicPartition, i64>,
    /// Of a fetch: id and epoch.
    pub session: (i32, i32),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// Looked at, and answered, only once the test says so.
    Held,
    /// Answered as things are now, but only once the test says so.
    Late,
    /// Answered as things are now, after this time.
    After(Duration),
    Cut,
    /// Of a fetch, and of metadata: for each of its partitions or topics.
    Refused(ErrorCode),
    /// Of a fetch: as a whole.
    SessionRefused(ErrorCode),
    /// For this partition; the others are answered.
    RefusedFor(TopicPartition, ErrorCode),
}

pub type Script = Box<dyn FnMut(&Asked) -> Fate + Send>;

#[derive(Default)]
pub struct State {
    /// Node and epoch; 1 and 0 unless told otherwise.
    pub leaders: BTreeMap<TopicPartition, (i32, i32)>,
    /// Leader epoch of each record. Offsets begin at 0, values are like offsets.
    pub logs: BTreeMap<TopicPartition, Vec<i32>>,
    /// Offset and leader epoch.
    pub committed: BTreeMap<TopicPartition, (i64, i32)>,
    /// In the order in which they were taken.
    pub commits: Vec<(TopicPartition, i64)>,
    pub asked: Vec<Asked>,
    sessions: BTreeMap<i32, BTreeMap<TopicPartition, FetchPartition>>,
    sessions_made: i32,
    /// With their generations.
    pub members: BTreeMap<String, i32>,
    /// Of whoever joined last.
    pub generation: i32,
    /// What the next heartbeat says. One that says that the member is unknown makes it so.
    pub heartbeat: Option<ErrorCode>,
    pub connections: usize,
    /// Nodes that the cluster's metadata does not name.
    pub gone: BTreeSet<i32>,
    /// What ListOffsets answers, in place of what is there.
    pub listed: Option<i64>,
    /// Refuses and cuts all connections.
    pub is_down: bool,
    /// Speaks no OffsetForLeaderEpoch.
    pub hides_epochs: bool,
    open: bool,
    pub ports: Vec<u16>,
}

impl State {
    pub fn count(&self, api: ApiKey) -> usize {
        self.asked.iter().filter(|asked| asked.api == api).count()
    }

    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    fn leader(&self, at: &TopicPartition) -> (i32, i32) {
        self.leaders.get(at).copied().unwrap_or((1, 0))
    }

    /// As a coordinator checks who asks.
    fn check_member(&self, member_id: &str, generation: i32) -> ErrorCode {
        match self.members.get(member_id) {
            None => ErrorCode::UNKNOWN_MEMBER_ID,
            Some(current) if *current != generation => ErrorCode::ILLEGAL_GENERATION,
            Some(_) => ErrorCode::NONE,
        }
    }

    /// As a leader answers OffsetForLeaderEpoch.
    fn epoch_end(&self, at: &TopicPartition, asked: i32) -> EpochEndOffset {
        let log = self.logs.get(at).map_or(&[][..], Vec::as_slice);
        let (latest, end) = (self.leader(at).1, log.len() as i64);
        if asked == latest {
            return EpochEndOffset { epoch: asked, end_offset: end };
        }
        if asked > latest {
            return EpochEndOffset::default();
        }
        let above = log.iter().position(|epoch| *epoch > asked);
        let end_offset = above.map_or(end, |above| above as i64);
        let epoch = log[..end_offset as usize].last().copied().unwrap_or(asked);
        EpochEndOffset { epoch, end_offset }
    }

    /// Whether this node may answer for the partition.
    fn check(&self, node: i32, at: &TopicPartition, epoch: i32) -> ErrorCode {
        let (leader, current) = self.leader(at);
        match () {
            () if node != leader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            () if epoch >= 0 && epoch < current => ErrorCode::FENCED_LEADER_EPOCH,
            () if epoch > current => ErrorCode::UNKNOWN_LEADER_EPOCH,
            () => ErrorCode::NONE,
        }
    }

    fn records(&self, at: &TopicPartition, from: i64) -> Bytes {
        let log = self.logs.get(at).map_or(&[][..], Vec::as_slice);
        let batch = |(offset, epoch): (usize, &i32)| {
            let options =
                BatchOptions { base_offset: offset as i64, leader_epoch: *epoch, ..Default::default() };
            let mut builder = BatchBuilder::new(options);
            builder.append(1, None, Some(offset.to_string().as_bytes()), &[]).unwrap();
            builder.build().unwrap()
        };
        log.iter().enumerate().skip(from as usize).map(batch).collect::<Vec<_>>().concat().into()
    }
}

pub struct Reading {
    state: Mutex<State>,
    script: Mutex<Script>,
    gate: Condvar,
}

impl Reading {
    pub fn new(script: Script) -> Reading {
        Reading { state: Mutex::default(), script: Mutex::new(script), gate: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed has told already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go what is held, and holds nothing more.
    pub fn release(&self) {
        self.lock().open = true;
        self.gate.notify_all();
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, mut until: impl FnMut(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let state = self.lock();
                if until(&state) {
                    return;
                }
                let latest = &state.asked[state.asked.len().saturating_sub(20)..];
                assert!(Instant::now() < deadline, "{what}; asked: {latest:#?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn append(&self, at: &TopicPartition, epoch: i32, count: usize) {
        let mut state = self.lock();
        state.logs.entry(at.clone()).or_default().extend(std::iter::repeat_n(epoch, count));
    }

    /// None if the connection is to be cut.
    pub(super) fn answer(&self, node: i32, header: &RequestHeader, reader: &mut Reader) -> Option<Vec<u8>> {
        let (version, id) = (header.api_version, header.correlation_id);
        let api = ApiKey::from_i16(header.api_key).unwrap();
        let request = Request::decode(api, reader, version);
        let asked = request.asked(node, api);
        let fate = (self.script.lock().unwrap())(&asked);
        let mut state = self.lock();
        if state.is_down {
            return None;
        }
        state.asked.push(asked);
        match fate {
            Fate::Cut => return None,
            Fate::Held => {
                let opened = self.gate.wait_while(state, |state| !state.open);
                state = opened.unwrap_or_else(PoisonError::into_inner);
                if state.is_down {
                    return None;
                }
            }
            _ => {}
        }
        let refusal = |at: &TopicPartition| match &fate {
            Fate::Refused(code) => Some(*code),
            Fate::RefusedFor(of, code) if of == at => Some(*code),
            _ => None,
        };
        if let (Request::Fetch(_), Fate::Answered) = (&request, &fate) {
            // As a broker does that has nothing new yet.
            drop(state);
            std::thread::sleep(FETCH_WAIT);
            state = self.lock();
        }
        let refused = match &fate {
            Fate::Refused(code) => *code,
            _ => ErrorCode::NONE,
        };
        let answer = match request {
            Request::ApiVersions => encoded(&api_versions(&state), version, id),
            Request::Metadata(request) => encoded(&metadata(&state, request, refused), version, id),
            Request::FindCoordinator => {
                let response = FindCoordinatorResponse {
                    node_id: 1,
                    host: "127.0.0.1".into(),
                    port: state.ports[0].into(),
                    ..Default::default()
                };
                encoded(&response, version, id)
            }
            Request::Fetch(request) => match fate {
                Fate::SessionRefused(code) => {
                    encoded(&FetchResponse { error_code: code.code(), ..Default::default() }, version, id)
                }
                _ => encoded(&fetch(&mut state, node, request, refusal), version, id),
            },
            Request::ListOffsets(request) => encoded(&list(&state, node, request, refusal), version, id),
            Request::OffsetForLeaderEpoch(request) => {
                encoded(&epoch_ends(&state, node, request, refusal), version, id)
            }
            Request::OffsetCommit(request) => encoded(&commit(&mut state, request, refusal), version, id),
            Request::OffsetFetch(request) => encoded(&committed(&state, request, refusal), version, id),
            Request::Join(request) => encoded(&join(&mut state, request), version, id),
            Request::Sync(request) => {
                let own = request.assignments.into_iter().find(|it| it.member_id == request.member_id);
                let assignment = own.map(|own| own.assignment).unwrap_or_default();
                let error_code = match refused {
                    ErrorCode::NONE => state.check_member(&request.member_id, request.generation_id),
                    refused => refused,
                };
                let error_code = error_code.code();
                encoded(&SyncGroupResponse { assignment, error_code, ..Default::default() }, version, id)
            }
            Request::Heartbeat(request) => {
                let told = state.heartbeat.take();
                if told == Some(ErrorCode::UNKNOWN_MEMBER_ID) {
                    state.members.remove(request.member_id.as_str());
                }
                let code =
                    told.unwrap_or_else(|| state.check_member(&request.member_id, request.generation_id));
                encoded(&HeartbeatResponse { error_code: code.code(), ..Default::default() }, version, id)
            }
            Request::Leave(request) => {
                for member in &request.members {
                    state.members.remove(member.member_id.as_str());
                }
                encoded(&LeaveGroupResponse::default(), version, id)
            }
        };
        match fate {
            Fate::Late => drop(self.gate.wait_while(state, |state| !state.open)),
            Fate::After(time) => {
                drop(state);
                std::thread::sleep(time);
            }
            _ => {}
        }
        Some(answer)
    }
}

enum Request {
    ApiVersions,
    Metadata(MetadataRequest),
    FindCoordinator,
    Fetch(FetchRequest),
    ListOffsets(ListOffsetsRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    OffsetCommit(OffsetCommitRequest),
    OffsetFetch(OffsetFetchRequest),
    Join(JoinGroupRequest),
    Sync(SyncGroupRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveGroupRequest),
}

fn read<M: Message>(reader: &mut Reader, version: i16) -> M {
    M::decode(reader, version).unwrap()
}

impl Request {
    fn decode(api: ApiKey, reader: &mut Reader, version: i16) -> Request {
        match api {
            ApiKey::ApiVersions => Request::ApiVersions,
            ApiKey::Metadata => Request::Metadata(read(reader, version)),
            ApiKey::FindCoordinator => Request::FindCoordinator,
            ApiKey::Fetch => Request::Fetch(read(reader, version)),
            ApiKey::ListOffsets => Request::ListOffsets(read(reader, version)),
            ApiKey::OffsetForLeaderEpoch => Request::OffsetForLeaderEpoch(read(reader, version)),
            ApiKey::OffsetCommit => Request::OffsetCommit(read(reader, version)),
            ApiKey::OffsetFetch => Request::OffsetFetch(read(reader, version)),
            ApiKey::JoinGroup => Request::Join(read(reader, version)),
            ApiKey::SyncGroup => Request::Sync(read(reader, version)),
            ApiKey::Heartbeat => Request::Heartbeat(read(reader, version)),
            ApiKey::LeaveGroup => Request::Leave(read(reader, version)),
            other => panic!("not asked for: {other}"),
        }
    }

    fn asked(&self, node: i32, api: ApiKey) -> Asked {
        let mut asked = Asked { node, api, partitions: BTreeMap::new(), session: (0, 0) };
        let mut add = |topic: &str, partition, offset| {
            asked.partitions.insert(TopicPartition::new(topic.to_owned(), partition), offset);
        };
        match self {
            Request::Fetch(request) => {
                for topic in &request.topics {
                    topic.partitions.iter().for_each(|it| add(&topic.topic, it.partition, it.fetch_offset));
                }
                asked.session = (request.session_id, request.session_epoch);
            }
            Request::Metadata(request) => {
                let names = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
                names.for_each(|name| add(name, -1, 0));
            }
            Request::ListOffsets(request) => {
                for topic in &request.topics {
                    topic.partitions.iter().for_each(|it| add(&topic.name, it.partition_index, it.timestamp));
                }
            }
            Request::OffsetForLeaderEpoch(request) => {
                for topic in &request.topics {
                    let each = topic.partitions.iter();
                    each.for_each(|it| add(&topic.topic, it.partition, it.leader_epoch.into()));
                }
            }
            Request::OffsetCommit(request) => {
                for topic in &request.topics {
                    let each = topic.partitions.iter();
                    each.for_each(|it| add(&topic.name, it.partition_index, it.committed_offset));
                }
            }
            Request::OffsetFetch(request) => {
                for topic in request.topics.iter().flatten() {
                    topic.partition_indexes.iter().for_each(|it| add(&topic.name, *it, 0));
                }
            }
            Request::Join(request) => {
                let told: ConsumerProtocolSubscription =
                    consumer_protocol::from_bytes(request.protocols[0].metadata.clone()).unwrap();
                for topic in &told.owned_partitions {
                    topic.partitions.iter().for_each(|it| add(&topic.topic, *it, told.generation_id.into()));
                }
            }
            _ => {}
        }
        asked
    }
}

fn api_versions(state: &State) -> ApiVersionsResponse {
    let api = |(api_key, max_version): (ApiKey, i16)| ApiVersion {
        api_key: api_key.into(),
        min_version: 0,
        max_version,
    };
    // Topics go by name.
    let apis = [
        (ApiKey::Fetch, 12),
        (ApiKey::ListOffsets, 6),
        (ApiKey::Metadata, 8),
        (ApiKey::OffsetCommit, 8),
        (ApiKey::OffsetFetch, 7),
        (ApiKey::FindCoordinator, 3),
        (ApiKey::JoinGroup, 6),
        (ApiKey::Heartbeat, 3),
        (ApiKey::LeaveGroup, 3),
        (ApiKey::SyncGroup, 3),
        (ApiKey::ApiVersions, 3),
        (ApiKey::OffsetForLeaderEpoch, 4),
    ];
    let hidden = |key: ApiKey| state.hides_epochs && key == ApiKey::OffsetForLeaderEpoch;
    let apis = apis.into_iter().filter(|(key, _)| !hidden(*key));
    ApiVersionsResponse { api_keys: apis.map(api).collect(), ..Default::default() }
}

fn metadata(state: &State, request: MetadataRequest, refused: ErrorCode) -> MetadataResponse {
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let name = topic.name.unwrap();
        let partition = |partition_index| {
            let (leader_id, leader_epoch) = state.leader(&TopicPartition::new(name.clone(), partition_index));
            metadata_response::Partition { partition_index, leader_id, leader_epoch, ..Default::default() }
        };
        metadata_response::Topic {
            error_code: refused.code(),
            partitions: (0..PARTITIONS).map(partition).collect(),
            name: Some(name.clone()),
            ..Default::default()
        }
    });
    let broker = |(at, port): (usize, &u16)| metadata_response::Broker {
        node_id: at as i32 + 1,
        host: "127.0.0.1".into(),
        port: (*port).into(),
        rack: None,
    };
    MetadataResponse {
        brokers: state
            .ports
            .iter()
            .enumerate()
            .map(broker)
            .filter(|broker| !state.gone.contains(&broker.node_id))
            .collect(),
        topics: topics.collect(),
        ..Default::default()
    }
}

fn fetch(
    state: &mut State,
    node: i32,
    request: FetchRequest,
    refusal: impl Fn(&TopicPartition) -> Option<ErrorCode>,
) -> FetchResponse {
    let (id, epoch) = (request.session_id, request.session_epoch);
    let mut session = match epoch {
        -1 | 0 => {
            state.sessions.remove(&id);
            BTreeMap::new()
        }
        _ => match state.sessions.remove(&id) {
            Some(session) => session,
            None => {
                let error_code = ErrorCode::FETCH_SESSION_ID_NOT_FOUND.code();
                return FetchResponse { error_code, ..Default::default() };
            }
        },
    };
    for topic in request.topics {
        for it in topic.partitions {
            session.insert(TopicPartition::new(topic.topic.detach(), it.partition), it);
        }
    }
    for topic in request.forgotten_topics_data {
        for partition in topic.partitions {
            session.remove(&TopicPartition::new(topic.topic.detach(), partition));
        }
    }
    let mut responses = Vec::new();
    for (at, asked) in &session {
        let mut data = PartitionData { partition_index: at.partition, ..Default::default() };
        let end = state.logs.get(at).map_or(0, Vec::len) as i64;
        (data.high_watermark, data.last_stable_offset) = (end, end);
        let code = refusal(at).unwrap_or_else(|| state.check(node, at, asked.current_leader_epoch));
        let diverging = state.epoch_end(at, asked.last_fetched_epoch);
        if !code.is_ok() {
            data.error_code = code.code();
        } else if asked.last_fetched_epoch >= 0
            && (diverging.epoch < asked.last_fetched_epoch || diverging.end_offset < asked.fetch_offset)
        {
            data.diverging_epoch = diverging;
        } else if asked.fetch_offset > end {
            data.error_code = ErrorCode::OFFSET_OUT_OF_RANGE.code();
        } else {
            data.records = Some(vec![state.records(at, asked.fetch_offset)]);
        }
        responses.push(FetchableTopicResponse {
            topic: at.topic.clone(),
            partitions: vec![data],
            ..Default::default()
        });
    }
    let session_id = match epoch {
        -1 => 0,
        0 => {
            state.sessions_made += 1;
            state.sessions_made
        }
        _ => id,
    };
    if session_id != 0 {
        state.sessions.insert(session_id, session);
    }
    FetchResponse { session_id, responses, ..Default::default() }
}

fn list(
    state: &State,
    node: i32,
    request: ListOffsetsRequest,
    refusal: impl Fn(&TopicPartition) -> Option<ErrorCode>,
) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|it| {
            let at = TopicPartition::new(topic.name.clone(), it.partition_index);
            let code = refusal(&at).unwrap_or_else(|| state.check(node, &at, it.current_leader_epoch));
            let end = state.logs.get(&at).map_or(0, Vec::len) as i64;
            list_offsets_response::PartitionResponse {
                partition_index: it.partition_index,
                error_code: code.code(),
                offset: state.listed.unwrap_or(if it.timestamp == -2 { 0 } else { end }),
                ..Default::default()
            }
        });
        list_offsets_response::TopicResponse { partitions: partitions.collect(), name: topic.name.clone() }
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

fn epoch_ends(
    state: &State,
    node: i32,
    request: OffsetForLeaderEpochRequest,
    refusal: impl Fn(&TopicPartition) -> Option<ErrorCode>,
) -> OffsetForLeaderEpochResponse {
    assert_eq!(request.replica_id, -1, "a consumer's");
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|it| {
            let at = TopicPartition::new(topic.topic.clone(), it.partition);
            let code = refusal(&at).unwrap_or_else(|| state.check(node, &at, it.current_leader_epoch));
            let end = if code.is_ok() { state.epoch_end(&at, it.leader_epoch) } else { Default::default() };
            offset_for_leader_epoch_response::EpochEndOffset {
                error_code: code.code(),
                partition: it.partition,
                leader_epoch: end.epoch,
                end_offset: end.end_offset,
            }
        });
        offset_for_leader_epoch_response::OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: topic.topic.clone(),
        }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn commit(
    state: &mut State,
    request: OffsetCommitRequest,
    refusal: impl Fn(&TopicPartition) -> Option<ErrorCode>,
) -> OffsetCommitResponse {
    let member = match request.member_id.is_empty() {
        true => ErrorCode::NONE,
        false => state.check_member(&request.member_id, request.generation_id_or_member_epoch),
    };
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for it in topic.partitions {
            let at = TopicPartition::new(topic.name.detach(), it.partition_index);
            let code = refusal(&at).unwrap_or(member);
            if code.is_ok() {
                state.commits.push((at.clone(), it.committed_offset));
                state.committed.insert(at, (it.committed_offset, it.committed_leader_epoch));
            }
            partitions.push(offset_commit_response::Partition {
                partition_index: it.partition_index,
                error_code: code.code(),
            });
        }
        topics.push(offset_commit_response::Topic { name: topic.name, partitions, ..Default::default() });
    }
    OffsetCommitResponse { topics, ..Default::default() }
}

fn committed(
    state: &State,
    request: OffsetFetchRequest,
    refusal: impl Fn(&TopicPartition) -> Option<ErrorCode>,
) -> OffsetFetchResponse {
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|partition| {
            let at = TopicPartition::new(topic.name.clone(), *partition);
            let code = refusal(&at).unwrap_or(ErrorCode::NONE);
            let known = state.committed.get(&at).filter(|_| code.is_ok());
            let (committed_offset, committed_leader_epoch) = known.copied().unwrap_or((-1, -1));
            offset_fetch_response::Partition {
                partition_index: *partition,
                committed_offset,
                committed_leader_epoch,
                metadata: Some("".into()),
                error_code: code.code(),
            }
        });
        offset_fetch_response::Topic { partitions: partitions.collect(), name: topic.name.clone() }
    });
    OffsetFetchResponse { topics: topics.collect(), ..Default::default() }
}

/// A group of its own for each member: it leads, and gets what it gives itself.
fn join(state: &mut State, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = match request.member_id.is_empty() {
        true => format!("member-{}", state.generation + 1),
        false => request.member_id.as_str().to_owned(),
    };
    if !request.member_id.is_empty() && !state.members.contains_key(&member_id) {
        return JoinGroupResponse {
            error_code: ErrorCode::UNKNOWN_MEMBER_ID.code(),
            protocol_name: Some("".into()),
            ..Default::default()
        };
    }
    state.generation += 1;
    state.members.insert(member_id.clone(), state.generation);
    let protocol = &request.protocols[0];
    JoinGroupResponse {
        generation_id: state.generation,
        protocol_name: Some(protocol.name.clone()),
        leader: member_id.as_str().into(),
        members: vec![join_group_response::Member {
            member_id: member_id.as_str().into(),
            metadata: protocol.metadata.clone(),
            ..Default::default()
        }],
        member_id: member_id.into(),
        ..Default::default()
    }
}
