//! One broker's side of a case: what was asked, what was answered, and what must be ready before a case can begin.

use super::fetch_answer;
use super::normalise::Marks;
use crate::broker::NODE_ID;
use crate::connection::{Connection, NoAnswer};
use crate::value::Value;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::list_offsets_request as list_offsets;
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic as MetadataTopic};
use corelog_wire::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, HeartbeatRequest, ListOffsetsRequest, MetadataResponse,
    Request, Response,
};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::{ApiKey, ErrorCode, Str, Uuid};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long a case waits for what a broker does in its own time.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// No broker takes this long for an answer that needs no waiting.
pub const SILENCE: Duration = Duration::from_millis(300);
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// The versions that Apache Kafka offers of each API, by key: what a case goes through.
pub type Versions = BTreeMap<i16, RangeInclusive<i16>>;

/// One answer, normalised.
#[derive(Clone, Debug)]
pub struct Entry {
    pub step: String,
    pub version: i16,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: Str,
    pub id: Uuid,
}

pub struct Session<'a> {
    case: &'static str,
    address: SocketAddr,
    /// The broker is Apache Kafka.
    kafka: bool,
    versions: &'a Versions,
    connections: BTreeMap<usize, Connection>,
    marks: Marks,
    pub transcript: Vec<Entry>,
}

impl<'a> Session<'a> {
    pub fn new(case: &'static str, address: SocketAddr, kafka: bool, versions: &'a Versions) -> Self {
        Session {
            case,
            address,
            kafka,
            versions,
            connections: BTreeMap::new(),
            marks: Marks::new(address.port()),
            transcript: Vec::new(),
        }
    }

    /// A name for a topic or group that no other case uses: the case's own with a suffix.
    pub fn name(&self, suffix: impl Display) -> Str {
        let case: String =
            self.case.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Str::from(format!("{case}-{suffix}"))
    }

    /// As `name`, for one version of a message: in its answer, `-vN` stands in place of the version.
    pub fn name_for(&self, suffix: impl Display, version: i16) -> Str {
        self.name(format!("{suffix}-v{version}"))
    }

    /// Every version of a request that Kafka offers.
    pub fn versions<R: Request>(&self) -> RangeInclusive<i16> {
        let offered = &self.versions[&i16::from(R::API_KEY)];
        *offered.start()..=(*offered.end()).min(R::MAX_VERSION)
    }

    pub fn newest<R: Request>(&self) -> i16 {
        *self.versions::<R>().end()
    }

    /// Asks, and notes the answer under the name of the step. Where there is none, that is noted, and the default is returned.
    pub fn ask<R: Request>(&mut self, step: &str, version: i16, request: &R) -> R::Response
    where
        R::Response: Debug + Default,
    {
        self.send(0, version, request);
        self.answer::<R>(0, step, version)
    }

    /// As `ask`, where Kafka is known not to answer: there, waits no longer than that takes to be sure.
    pub fn ask_in_vain<R: Request>(&mut self, step: &str, version: i16, request: &R)
    where
        R::Response: Debug + Default,
    {
        self.connections.remove(&0);
        if self.kafka
            && let Ok(connection) = self.connection(0)
        {
            let _ = connection.set_timeout(Some(SILENCE));
        }
        self.ask(step, version, request);
        self.connections.remove(&0);
    }

    /// Asks in every version.
    pub fn each<R: Request>(&mut self, step: &str, request: impl Fn(i16) -> R)
    where
        R::Response: Debug + Default,
    {
        for version in self.versions::<R>() {
            self.ask(step, version, &request(version));
        }
    }

    /// Asks on a connection of its own number, and leaves the answer for later.
    pub fn send<R: Request>(&mut self, connection: usize, version: i16, request: &R) {
        if let Err(e) = self.connection(connection).and_then(|to| Ok(to.send(version, request)?)) {
            self.connections.remove(&connection);
            self.note(&format!("sending {} version {version}", R::NAME), e);
        }
    }

    /// The next answer on a connection.
    pub fn answer<R: Request>(&mut self, connection: usize, step: &str, version: i16) -> R::Response
    where
        R::Response: Debug + Default,
    {
        let answer = match self.connections.get_mut(&connection) {
            Some(connection) => connection.receive::<R::Response>(version),
            None => Err(NoAnswer::Closed),
        };
        let value = match &answer {
            Ok(response) if R::API_KEY == ApiKey::Fetch => {
                fetch_answer::arranged(self.marks.normalise(Value::of(response)))
            }
            Ok(response) => self.marks.normalise(Value::of(response)),
            Err(e) => {
                self.connections.remove(&connection);
                Value::scalar(format!("<{e}>"))
            }
        };
        self.transcript.push(Entry { step: step.to_owned(), version, value });
        answer.unwrap_or_default()
    }

    /// Sends what may have no answer, and notes how the broker took it: with silence, an answer, or by closing.
    pub fn send_silent<R: Request>(
        &mut self,
        step: &str,
        version: i16,
        request: &R,
        wait: Duration,
    ) -> Result<()> {
        let connection = self.connection(0)?;
        connection.send_unanswered(version, request)?;
        connection.set_timeout(Some(wait))?;
        let seen = match connection.receive_frame() {
            Ok(frame) => format!("<a frame of {} bytes>", frame.len()),
            Err(e) => format!("<{e}>"),
        };
        connection.set_timeout(Some(crate::connection::ANSWER_TIMEOUT))?;
        if seen != "<no answer>" {
            self.connections.remove(&0);
        }
        self.transcript.push(Entry { step: step.to_owned(), version, value: Value::scalar(seen) });
        Ok(())
    }

    /// Sends a frame as it is, on a connection of its own, and notes how the broker took it. The answer is read as `R`.
    pub fn send_frame<R: Response + Debug>(
        &mut self,
        step: &str,
        frame: &[u8],
        answer_version: i16,
    ) -> Result<()> {
        let mut connection = Connection::connect(self.address)?;
        let id = frame.get(8..12).map(|id| i32::from_be_bytes(id.try_into().expect("four bytes")));
        connection.send_bytes(frame, Some(id.unwrap_or_default()))?;
        let value = match connection.receive::<R>(answer_version) {
            Ok(response) => self.marks.normalise(Value::of(&response)),
            Err(e) => Value::scalar(format!("<{e}>")),
        };
        self.transcript.push(Entry { step: step.to_owned(), version: answer_version, value });
        Ok(())
    }

    /// Notes something that was worked out from answers.
    pub fn note(&mut self, step: &str, what: impl Display) {
        self.transcript.push(Entry { step: step.to_owned(), version: 0, value: Value::scalar(what) });
    }

    /// Asks without noting anything.
    pub fn quiet<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let answer = self.connection(0)?.call(version, request);
        if answer.is_err() {
            self.connections.remove(&0);
        }
        answer.with_context(|| format!("{} version {version}", R::NAME))
    }

    /// The connection of this number; they are made as they are used.
    pub fn connection(&mut self, number: usize) -> Result<&mut Connection> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.connections.entry(number) {
            vacant.insert(Connection::connect(self.address)?);
        }
        Ok(self.connections.get_mut(&number).expect("it has just been made"))
    }

    /// Asks again until the condition holds.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(value) = condition(self)? {
                return Ok(value);
            }
            if started.elapsed() > SETTLE_TIMEOUT {
                bail!("{what}: not after {SETTLE_TIMEOUT:?}");
            }
            std::thread::sleep(SETTLE_INTERVAL);
        }
    }

    /// Creates a topic, and returns when all of its leaders answer.
    pub fn topic(
        &mut self,
        suffix: impl Display,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<Topic> {
        let name = self.name(suffix);
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: Str::from(*name),
            value: Some(Str::from(*value)),
        });
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let response = self.quiet(7, &request)?;
        let [created] = response.topics.as_slice() else { bail!("{response:?}") };
        if created.error_code != 0 {
            bail!("creating {name}: {} {:?}", ErrorCode(created.error_code), created.error_message);
        }
        self.await_topic(&name, partitions)
    }

    /// Returns when the topic is seen with this many partitions, and the leaders of all of them answer.
    pub fn await_topic(&mut self, name: &Str, partitions: i32) -> Result<Topic> {
        self.until(&format!("leaders of {name}"), |s| {
            let wanted = MetadataTopic { name: Some(name.clone()), ..Default::default() };
            let request = MetadataRequest {
                topics: Some(vec![wanted]),
                allow_auto_topic_creation: false,
                ..Default::default()
            };
            let metadata: MetadataResponse = s.quiet(12, &request)?;
            let Some(found) = metadata.topics.first() else { return Ok(None) };
            let led = found.partitions.iter().filter(|p| p.leader_id == NODE_ID).count();
            if led != partitions as usize {
                return Ok(None);
            }
            let asked = (0..partitions).map(|partition_index| list_offsets::Partition {
                partition_index,
                timestamp: -1,
                ..Default::default()
            });
            let topic = list_offsets::Topic { name: name.clone(), partitions: asked.collect() };
            let offsets = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
            let offsets = s.quiet(5, &offsets)?;
            let answers =
                offsets.topics.iter().flat_map(|topic| &topic.partitions).all(|p| p.error_code == 0);
            Ok(answers.then(|| Topic { name: name.clone(), id: found.topic_id }))
        })
    }

    /// Writes a batch; returns its base offset.
    pub fn produce(&mut self, topic: &Topic, partition: i32, records: Bytes) -> Result<i64> {
        let response = self.quiet(9, &produce_request(&topic.name, Uuid::ZERO, partition, -1, records))?;
        let answer = &response.responses[0].partition_responses[0];
        if answer.error_code != 0 {
            bail!("producing to {}: {}", topic.name, ErrorCode(answer.error_code));
        }
        Ok(answer.base_offset)
    }

    /// A group whose coordinator is ready.
    pub fn group(&mut self, suffix: impl Display) -> Result<Str> {
        let name = self.name(suffix);
        self.await_coordinator(&name)?;
        Ok(name)
    }

    pub fn await_coordinator(&mut self, name: &Str) -> Result<()> {
        self.until(&format!("coordinator of {name}"), |s| {
            let find = FindCoordinatorRequest { key: name.clone(), ..Default::default() };
            if s.quiet(0, &find)?.error_code != 0 {
                return Ok(None);
            }
            let heartbeat =
                HeartbeatRequest { group_id: name.clone(), member_id: "nobody".into(), ..Default::default() };
            let error = ErrorCode(s.quiet(0, &heartbeat)?.error_code);
            let starting = [
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                ErrorCode::COORDINATOR_NOT_AVAILABLE,
                ErrorCode::NOT_COORDINATOR,
            ];
            Ok((!starting.contains(&error)).then_some(()))
        })
    }
}

/// Returns when the name is unknown.
pub fn await_unknown(s: &mut Session, name: &Str) -> Result<()> {
    s.until(&format!("{name} gone"), |s| {
        let topics = Some(vec![MetadataTopic { name: Some(name.clone()), ..Default::default() }]);
        let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
        let error = s.quiet(9, &request)?.topics[0].error_code;
        Ok((error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0).then_some(()))
    })
}

/// One batch for one partition: by id where one is given.
pub fn produce_request(name: &Str, id: Uuid, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(records) };
    let topic = TopicProduceData { name: name.clone(), topic_id: id, partition_data: vec![data] };
    ProduceRequest { transactional_id: None, acks, timeout_ms: 30_000, topic_data: vec![topic] }
}
