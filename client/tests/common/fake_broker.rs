//! A broker that misbehaves on demand: enough of one to produce to, with Kafka's rules for idempotent and transactional producers, or to
//! consume from.
// One thread per connection, for tests: no data core.
#![allow(clippy::disallowed_types)]
// Each suite uses its part.
#![allow(dead_code)]

#[path = "fake_cluster.rs"]
pub mod cluster;
#[path = "fake_coordinator.rs"]
pub mod coordinator;
#[path = "fake_reading.rs"]
pub mod reading;

use bytes::Bytes;
use coordinator::Coordinator;
use corelog_client::ClientConfig;
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest, ApiVersionsResponse,
    EndTxnRequest, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, Message, MetadataRequest, MetadataResponse, Response, TxnOffsetCommitRequest,
    metadata_response,
};
use corelog_wire::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use corelog_wire::records::{BatchView, Scratch};
use corelog_wire::{ApiKey, ErrorCode, Reader, RequestHeader, Uuid, frame};
use reading::{Reading, Script};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one partition's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection is cut before anything is written.
    CutBefore,
    /// It is written, and the connection is cut before the answer.
    CutAfter,
    /// It is refused with this code.
    Refuse(ErrorCode),
    /// It is written; neither it nor what follows on the connection is answered.
    Silence,
    /// It is written, and refused with this code.
    RefuseAfter(ErrorCode),
    /// It is written, and the answer does not name it.
    Unnamed,
    /// Nothing more is read from the connection.
    Stall,
}

pub type Faults = Box<dyn FnMut(&Batch) -> Fault + Send>;
/// What happens to a request of a transaction.
pub type CoordinatorFaults = Box<dyn FnMut(ApiKey) -> Fault + Send>;
/// What happens to a request for metadata: the connection is cut, or if it is refused the partitions have no leader, or the topic is not
/// known.
pub type MetadataFaults = Box<dyn FnMut() -> Fault + Send>;

/// A batch as it arrived.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: i32,
    pub producer_id: i64,
    pub epoch: i16,
    pub sequence: i32,
    pub transactional: bool,
    pub values: Vec<String>,
}

/// First sequence, last sequence, offset.
type Written = (i32, i32, i64);

#[derive(Default)]
pub struct Log {
    pub values: Vec<String>,
    /// By producer: its epoch and its last five batches.
    producers: HashMap<i64, (i16, Vec<Written>)>,
    strict: bool,
    /// Of transactions that are open, by producer.
    open: HashMap<i64, Vec<String>>,
    /// What readers of committed records see of transactions.
    pub committed: Vec<String>,
    /// Epochs in order of first appearance.
    pub epochs: Vec<i16>,
}

impl Log {
    /// As brokers before 2.5 do when a producer's batches are all deleted.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
        self.strict = true;
    }

    /// Ends what a producer has open, as a marker does.
    fn end(&mut self, producer_id: i64, commit: bool) {
        let values = self.open.remove(&producer_id).unwrap_or_default();
        if commit {
            self.committed.extend(values);
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<i64, ErrorCode> {
        let count = batch.values.len() as i32;
        if batch.producer_id < 0 {
            self.values.extend(batch.values.iter().cloned());
            return Ok((self.values.len() - batch.values.len()) as i64);
        }
        let known = self.producers.get(&batch.producer_id).map(|(epoch, _)| *epoch);
        match known {
            Some(epoch) if batch.epoch < epoch => return Err(ErrorCode::INVALID_PRODUCER_EPOCH),
            Some(epoch) if batch.epoch == epoch => {}
            Some(_) if batch.sequence != 0 => return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
            None if batch.sequence != 0 && self.strict => return Err(ErrorCode::UNKNOWN_PRODUCER_ID),
            // Of a producer that it does not know Kafka takes any sequence number.
            _ => drop(self.producers.insert(batch.producer_id, (batch.epoch, Vec::new()))),
        }
        let (_, latest) = self.producers.get_mut(&batch.producer_id).unwrap();
        let last = batch.sequence + count - 1;
        if let Some((_, _, offset)) =
            latest.iter().find(|(first, end, _)| (*first, *end) == (batch.sequence, last))
        {
            return Ok(*offset);
        }
        if latest.last().is_some_and(|(_, end, _)| batch.sequence != end + 1) {
            return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        let offset = self.values.len() as i64;
        latest.push((batch.sequence, last, offset));
        if latest.len() > 5 {
            latest.remove(0);
        }
        self.values.extend(batch.values.iter().cloned());
        if batch.transactional {
            self.open.entry(batch.producer_id).or_default().extend(batch.values.iter().cloned());
        }
        if self.epochs.last() != Some(&batch.epoch) {
            self.epochs.push(batch.epoch);
        }
        Ok(offset)
    }
}

#[derive(Clone)]
pub struct FakeBroker {
    pub address: String,
    pub logs: Arc<Mutex<HashMap<i32, Log>>>,
    /// Locked before the logs, where both are.
    pub coordinator: Arc<Mutex<Coordinator>>,
    /// What the next idempotent producer gets, and each one after a new id.
    pub identity: Arc<Mutex<(i64, i16)>>,
    /// What those who ask for one are refused with.
    pub identity_refusal: Arc<Mutex<Option<ErrorCode>>>,
    pub identities_asked: Arc<AtomicUsize>,
    pub metadata_faults: Arc<Mutex<MetadataFaults>>,
    /// Whether topics go by id.
    pub has_ids: Arc<AtomicBool>,
    /// Whether new connections wait for the answer to their first request.
    pub holds: Arc<AtomicBool>,
    /// By port and order of coming.
    connections: Arc<Mutex<HashMap<(u16, usize), TcpStream>>>,
    has_transactions: bool,
    faults: Arc<Mutex<Faults>>,
    coordinator_faults: Arc<Mutex<CoordinatorFaults>>,
    /// It answers all requests if it is for consumers.
    reading: Option<Arc<Reading>>,
}

pub const PARTITIONS: i32 = 3;

impl FakeBroker {
    /// Without transactions.
    pub fn start(faults: Faults) -> FakeBroker {
        FakeBroker::listen(faults, Box::new(|_| Fault::None), false)
    }

    pub fn start_transactional(faults: Faults, coordinator_faults: CoordinatorFaults) -> FakeBroker {
        FakeBroker::listen(faults, coordinator_faults, true)
    }

    /// For consumers: a cluster of nodes 1 to `nodes`.
    pub fn start_reading(nodes: i32, script: Script) -> (String, Arc<Reading>) {
        let reading = Arc::new(Reading::new(script));
        let mut broker = FakeBroker::new(Box::new(|_| Fault::None), Box::new(|_| Fault::None), false);
        broker.reading = Some(reading.clone());
        let addresses: Vec<String> = (1..=nodes).map(|node| broker.clone().listen_as(node).address).collect();
        (addresses[0].clone(), reading)
    }

    fn listen(faults: Faults, coordinator_faults: CoordinatorFaults, has_transactions: bool) -> FakeBroker {
        FakeBroker::new(faults, coordinator_faults, has_transactions).listen_as(1)
    }

    fn new(faults: Faults, coordinator_faults: CoordinatorFaults, has_transactions: bool) -> FakeBroker {
        FakeBroker {
            address: String::new(),
            logs: Arc::default(),
            coordinator: Arc::default(),
            identity: Arc::new(Mutex::new((7, 0))),
            identity_refusal: Arc::default(),
            identities_asked: Arc::default(),
            metadata_faults: Arc::new(Mutex::new(Box::new(|| Fault::None))),
            has_ids: Arc::default(),
            holds: Arc::default(),
            connections: Arc::default(),
            has_transactions,
            faults: Arc::new(Mutex::new(faults)),
            coordinator_faults: Arc::new(Mutex::new(coordinator_faults)),
            reading: None,
        }
    }

    fn listen_as(mut self, node: i32) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.address = address.to_string();
        if let Some(reading) = &self.reading {
            reading.lock().ports.push(address.port());
        }
        let shared = self.clone();
        std::thread::spawn(move || {
            for (at, stream) in listener.incoming().enumerate() {
                let (broker, stream, at) = (shared.clone(), stream.unwrap(), (address.port(), at));
                broker.connections.lock().unwrap().insert(at, stream.try_clone().unwrap());
                // Ends when the client goes, or a fault cuts it.
                std::thread::spawn(move || {
                    match &broker.reading {
                        Some(reading) => serve_reader(stream, node, reading),
                        None => drop(serve(stream, address.port(), &broker)),
                    }
                    broker.connections.lock().unwrap().remove(&at);
                });
            }
        });
        self
    }

    /// Of a client that tries again soon, and waits for no answer for long.
    pub fn client_config(&self) -> ClientConfig {
        let soon = Duration::from_millis(1);
        ClientConfig {
            retry_backoff: soon,
            reconnect_backoff: soon,
            request_timeout: Duration::from_millis(500),
            ..ClientConfig::new(&self.address)
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Cuts all connections that there are, and does not get on with new ones.
    pub fn vanish(&self) {
        self.holds.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        for stream in self.connections.lock().unwrap().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve_reader(mut stream: TcpStream, node: i32, reading: &Reading) {
    reading.lock().connections += 1;
    let mut answer_one = || {
        let (header, mut reader) = read_request(&mut stream)?;
        let answer = reading.answer(node, &header, &mut reader)?;
        stream.write_all(&answer).ok()
    };
    while !reading.lock().is_down && answer_one().is_some() {}
    reading.lock().connections -= 1;
}

fn read_request(stream: &mut TcpStream) -> Option<(RequestHeader, Reader)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut request = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut request).ok()?;
    let mut reader = Reader::new(request.into());
    Some((RequestHeader::decode(&mut reader).unwrap(), reader))
}

fn serve(mut stream: TcpStream, port: u16, broker: &FakeBroker) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut is_mute = false;
    loop {
        let (header, mut reader) = read_request(&mut stream)?;
        let (version, id) = (header.api_version, header.correlation_id);
        let api = ApiKey::from_i16(header.api_key).unwrap();
        let answer = match api {
            ApiKey::ApiVersions => {
                ApiVersionsRequest::decode(&mut reader, version).unwrap();
                while broker.holds.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let has_ids = broker.has_ids.load(Ordering::SeqCst);
                encoded(&api_versions(broker.has_transactions, has_ids), version, id)
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut reader, version).unwrap();
                let fault = (broker.metadata_faults.lock().unwrap())();
                let (leader, code) = match fault {
                    Fault::None => (1, ErrorCode::NONE),
                    Fault::Refuse(code @ ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => (-1, code),
                    Fault::Refuse(_) => (-1, ErrorCode::NONE),
                    _ => return None,
                };
                let mut response = metadata(request, port, leader);
                for topic in &mut response.topics {
                    topic.error_code = code.code();
                    if broker.has_ids.load(Ordering::SeqCst) && code.is_ok() {
                        topic.topic_id = Uuid([1; 16]);
                    }
                }
                encoded(&response, version, id)
            }
            ApiKey::InitProducerId => {
                let request = InitProducerIdRequest::decode(&mut reader, version).unwrap();
                match request.transactional_id.is_some() {
                    true => broker.transactional(api, |it, logs| it.init(request, logs), (version, id))?,
                    false if broker.identity_refusal.lock().unwrap().is_some() => {
                        broker.identities_asked.fetch_add(1, Ordering::SeqCst);
                        let code = broker.identity_refusal.lock().unwrap().unwrap();
                        let response =
                            InitProducerIdResponse { error_code: code.code(), ..Default::default() };
                        encoded(&response, version, id)
                    }
                    false => {
                        let (producer_id, producer_epoch) = *broker.identity.lock().unwrap();
                        *broker.identity.lock().unwrap() = (producer_id + 1, 0);
                        let response =
                            InitProducerIdResponse { producer_id, producer_epoch, ..Default::default() };
                        encoded(&response, version, id)
                    }
                }
            }
            ApiKey::FindCoordinator => {
                FindCoordinatorRequest::decode(&mut reader, version).unwrap();
                let response = FindCoordinatorResponse {
                    node_id: 1,
                    host: "127.0.0.1".into(),
                    port: port.into(),
                    ..Default::default()
                };
                encoded(&response, version, id)
            }
            ApiKey::AddPartitionsToTxn => {
                let request = AddPartitionsToTxnRequest::decode(&mut reader, version).unwrap();
                broker.transactional(api, |it, _| it.add_partitions(request), (version, id))?
            }
            ApiKey::EndTxn => {
                let request = EndTxnRequest::decode(&mut reader, version).unwrap();
                broker.transactional(api, |it, logs| it.end(request, logs), (version, id))?
            }
            ApiKey::AddOffsetsToTxn => {
                let request = AddOffsetsToTxnRequest::decode(&mut reader, version).unwrap();
                broker.transactional(api, |it, _| it.add_offsets(request), (version, id))?
            }
            ApiKey::TxnOffsetCommit => {
                let request = TxnOffsetCommitRequest::decode(&mut reader, version).unwrap();
                broker.transactional(api, |it, _| it.commit_offsets(request), (version, id))?
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut reader, version).unwrap();
                let is_answered = request.acks != 0;
                match produce(request, broker) {
                    Outcome::Answer(response) if is_answered => encoded(&response, version, id),
                    Outcome::Answer(_) => continue,
                    Outcome::Cut => return None,
                    Outcome::Silence => {
                        is_mute = true;
                        continue;
                    }
                    Outcome::Stall => loop {
                        std::thread::park();
                    },
                }
            }
            other => panic!("not asked for: {other}"),
        };
        if !is_mute {
            stream.write_all(&answer).ok()?;
        }
    }
}

impl FakeBroker {
    /// None if a fault cuts the connection.
    fn transactional<R: Response>(
        &self,
        api: ApiKey,
        work: impl FnOnce(&mut Coordinator, &mut HashMap<i32, Log>) -> R,
        (version, id): (i16, i32),
    ) -> Option<Vec<u8>> {
        let fault = (self.coordinator_faults.lock().unwrap())(api);
        let mut coordinator = self.coordinator.lock().unwrap();
        coordinator.refusal = match fault {
            Fault::CutBefore => return None,
            Fault::Refuse(code) => Some(code),
            Fault::None
            | Fault::CutAfter
            | Fault::Silence
            | Fault::Stall
            | Fault::Unnamed
            | Fault::RefuseAfter(_) => None,
        };
        let response = work(&mut coordinator, &mut self.logs.lock().unwrap());
        (fault == Fault::None || coordinator.refusal.is_some()).then(|| encoded(&response, version, id))
    }
}

fn encoded<R: Response>(response: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    frame::response(response, version, correlation_id).unwrap().concat()
}

fn api_versions(has_transactions: bool, has_ids: bool) -> ApiVersionsResponse {
    let api = |(api_key, max_version): (ApiKey, i16)| ApiVersion {
        api_key: api_key.into(),
        min_version: 0,
        max_version,
    };
    let mut apis = vec![
        (ApiKey::Produce, if has_ids { 13 } else { 9 }),
        (ApiKey::Metadata, if has_ids { 12 } else { 8 }),
        (ApiKey::ApiVersions, 3),
        (ApiKey::InitProducerId, 4),
        (ApiKey::FindCoordinator, 3),
    ];
    if has_transactions {
        // The last versions are those that the client must not use yet.
        apis.extend([
            (ApiKey::AddPartitionsToTxn, 5),
            (ApiKey::AddOffsetsToTxn, 4),
            (ApiKey::EndTxn, 5),
            (ApiKey::TxnOffsetCommit, 5),
        ]);
    }
    ApiVersionsResponse { api_keys: apis.into_iter().map(api).collect(), ..Default::default() }
}

fn metadata(request: MetadataRequest, port: u16, leader_id: i32) -> MetadataResponse {
    let partition = |partition_index| metadata_response::Partition {
        partition_index,
        leader_id,
        leader_epoch: 0,
        ..Default::default()
    };
    let topics = request.topics.unwrap_or_default().into_iter().map(|topic| metadata_response::Topic {
        name: topic.name,
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    });
    MetadataResponse {
        brokers: vec![metadata_response::Broker {
            node_id: 1,
            host: "127.0.0.1".into(),
            port: port.into(),
            rack: None,
        }],
        topics: topics.collect(),
        ..Default::default()
    }
}

enum Outcome {
    Answer(ProduceResponse),
    Cut,
    Silence,
    Stall,
}

fn produce(request: ProduceRequest, broker: &FakeBroker) -> Outcome {
    let (mut cut, mut silence) = (false, false);
    let mut responses = Vec::new();
    for topic in request.topic_data {
        let mut answer =
            TopicProduceResponse { name: topic.name, topic_id: topic.topic_id, ..Default::default() };
        for data in topic.partition_data {
            let batch = parse(data.index, data.records.unwrap());
            assert_eq!(batch.transactional, request.transactional_id.is_some());
            let fault = (broker.faults.lock().unwrap())(&batch);
            let appended = match fault {
                Fault::CutBefore => return Outcome::Cut,
                Fault::Stall => return Outcome::Stall,
                Fault::Refuse(code) => Err(code),
                Fault::None | Fault::CutAfter | Fault::Silence | Fault::Unnamed | Fault::RefuseAfter(_) => {
                    let coordinator = broker.coordinator.lock().unwrap();
                    coordinator.verify(request.transactional_id.as_deref(), &batch).and_then(|()| {
                        broker.logs.lock().unwrap().entry(data.index).or_default().append(&batch)
                    })
                }
            };
            let appended = match fault {
                Fault::RefuseAfter(code) => Err(code),
                _ => appended,
            };
            cut |= fault == Fault::CutAfter;
            silence |= fault == Fault::Silence;
            if fault == Fault::Unnamed {
                continue;
            }
            answer.partition_responses.push(PartitionProduceResponse {
                index: data.index,
                error_code: appended.err().map_or(0, ErrorCode::code),
                base_offset: appended.unwrap_or(-1),
                ..Default::default()
            });
        }
        responses.push(answer);
    }
    match (cut, silence) {
        (true, _) => Outcome::Cut,
        (_, true) => Outcome::Silence,
        _ => Outcome::Answer(ProduceResponse { responses, ..Default::default() }),
    }
}

fn parse(partition: i32, records: Bytes) -> Batch {
    let view = BatchView::parse(&records).unwrap();
    view.verify_checksum().unwrap();
    assert_eq!(view.bytes().len(), records.len(), "one batch per partition");
    let header = *view.header();
    let mut scratch = Scratch::new();
    let values = view.records(&mut scratch, 1 << 20).unwrap();
    let value = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
    Batch {
        partition,
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        sequence: header.base_sequence,
        transactional: header.is_transactional(),
        values: values.map(|record| value(record.unwrap().value.unwrap())).collect(),
    }
}
