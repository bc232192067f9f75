//! The endpoint of `corebench self`: as much of a broker as the load generator asks for, which keeps records in memory and does
//! nothing with them. What the generator reaches against it is its own limit.
//!
//! A thread for each connection, with blocking reads: simple, and cheap for a few connections that are always busy.

pub mod faults;
mod log;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use corelog_wire::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiVersionsRequest, ApiVersionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, EndTxnRequest,
    EndTxnResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, Message, MetadataRequest,
    MetadataResponse, Response, add_partitions_to_txn_response, create_topics_response,
    delete_topics_response, list_offsets_response, metadata_response,
};
use corelog_wire::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use corelog_wire::records::BatchHeader;
use corelog_wire::{ApiKey, ErrorCode, Reader, RequestHeader, Str, frame};
use faults::{Delays, Faults, Wrong};
use log::{Ask, Found, Logs};
use std::collections::HashMap;
use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the endpoint answers to, and up to which version: topics go by name in all of them, and fetches have no sessions. To transactions it
/// says yes and does nothing: what is written is committed.
const APIS: [(ApiKey, i16); 11] = [
    (ApiKey::Produce, 12),
    (ApiKey::Fetch, 12),
    (ApiKey::ListOffsets, 5),
    (ApiKey::Metadata, 9),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 5),
    (ApiKey::DeleteTopics, 5),
    (ApiKey::InitProducerId, 1),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::AddPartitionsToTxn, 3),
    (ApiKey::EndTxn, 3),
];
const NODE_ID: i32 = 1;
/// A larger request is none of the load generator's.
const REQUEST_LEN_MAX: usize = 256 << 20;

/// Ends with the process: its threads wait on sockets.
pub struct Endpoint {
    pub address: SocketAddr,
    /// For tests to look into.
    #[cfg_attr(not(test), expect(dead_code))]
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    port: u16,
    logs: Logs,
    producers: AtomicI64,
    faults: Faults,
    delays: Delays,
    batches: AtomicU64,
    /// Records that were treated badly.
    wronged: AtomicU64,
    /// Batches that come after their next, by topic, partition and producer.
    delayed: Mutex<HashMap<(Str, i32, i64), Bytes>>,
}

impl Endpoint {
    /// What it keeps for consumers that are behind, if there are any.
    pub const BYTES_MAX: usize = 512 << 20;

    /// Keeps the newest `bytes_max` bytes.
    pub fn start(bytes_max: usize) -> Result<Endpoint> {
        Endpoint::start_with(bytes_max, Faults::default())
    }

    /// One that cannot be trusted.
    pub fn start_with(bytes_max: usize, faults: Faults) -> Result<Endpoint> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the endpoint cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            port: address.port(),
            logs: Logs::new(bytes_max),
            producers: AtomicI64::new(1),
            faults,
            delays: Delays::begin(),
            batches: AtomicU64::new(0),
            wronged: AtomicU64::new(0),
            delayed: Mutex::default(),
        });
        let serving = shared.clone();
        thread::Builder::new().name("endpoint".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                let serving = thread::Builder::new().name("endpoint".into()).spawn(move || {
                    // Ends when the client goes.
                    let _ = serve(stream, &shared);
                });
                if let Err(error) = serving {
                    eprintln!("corebench: the endpoint has no thread for a connection: {error}");
                }
            }
        })?;
        Ok(Endpoint { address, shared })
    }

    /// How many records it has treated badly so far.
    #[cfg(test)]
    pub fn wronged(&self) -> u64 {
        self.shared.wronged.load(Ordering::Relaxed)
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    // Answers that are late, where there are any: their requests have come, and others come meanwhile.
    let mut late = None;
    if shared.faults.delays() {
        let (answers, due) = mpsc::channel();
        let stream = stream.try_clone()?;
        thread::Builder::new().name("endpoint".into()).spawn(move || answer_late(stream, due))?;
        late = Some(answers);
    }
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > REQUEST_LEN_MAX {
            bail!("a request of {length} bytes");
        }
        let mut request = Vec::with_capacity(length);
        if Read::by_ref(&mut stream).take(length as u64).read_to_end(&mut request)? < length {
            bail!("the client went in the middle of a request");
        }
        let mut reader = Reader::new(request.into());
        let header = RequestHeader::decode(&mut reader)?;
        let Some(parts) = answer(&header, &mut reader, shared)? else { continue };
        match &late {
            None => write_all(&mut stream, &parts)?,
            Some(late) => {
                late.send((shared.delays.answer_at(&shared.faults, header.api_key, length), parts))?
            }
        }
    }
}

fn answer_late(mut stream: TcpStream, answers: Receiver<(Instant, Vec<Bytes>)>) {
    for (at, parts) in answers {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if write_all(&mut stream, &parts).is_err() {
            return;
        }
    }
}

fn write_all(stream: &mut TcpStream, parts: &[Bytes]) -> Result<()> {
    const SLICES_MAX: usize = 512;
    for parts in parts.chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            let written = stream.write_vectored(slices)?;
            IoSlice::advance_slices(&mut slices, written);
        }
    }
    Ok(())
}

/// None for a request that has no answer.
fn answer(header: &RequestHeader, reader: &mut Reader, shared: &Shared) -> Result<Option<Vec<Bytes>>> {
    let version = header.api_version;
    let encoded = Encoded { version, correlation_id: header.correlation_id };
    let parts = match ApiKey::from_i16(header.api_key) {
        Some(ApiKey::Produce) => {
            let request = ProduceRequest::decode(reader, version)?;
            let acks = request.acks;
            let response = produce(request, shared);
            if acks == 0 {
                return Ok(None);
            }
            encoded.of(&response)?
        }
        Some(ApiKey::Fetch) => encoded.of(&fetch(FetchRequest::decode(reader, version)?, shared))?,
        Some(ApiKey::ListOffsets) => {
            encoded.of(&list_offsets(ListOffsetsRequest::decode(reader, version)?, shared))?
        }
        Some(ApiKey::Metadata) => encoded.of(&metadata(MetadataRequest::decode(reader, version)?, shared))?,
        Some(ApiKey::ApiVersions) => {
            ApiVersionsRequest::decode(reader, version)?;
            encoded.of(&api_versions())?
        }
        Some(ApiKey::CreateTopics) => {
            encoded.of(&create_topics(CreateTopicsRequest::decode(reader, version)?, shared))?
        }
        Some(ApiKey::DeleteTopics) => {
            encoded.of(&delete_topics(DeleteTopicsRequest::decode(reader, version)?, shared))?
        }
        Some(ApiKey::InitProducerId) => {
            InitProducerIdRequest::decode(reader, version)?;
            let producer_id = shared.producers.fetch_add(1, Ordering::Relaxed);
            encoded.of(&InitProducerIdResponse { producer_id, ..Default::default() })?
        }
        Some(ApiKey::FindCoordinator) => {
            FindCoordinatorRequest::decode(reader, version)?;
            let (host, port) = ("127.0.0.1".into(), shared.port.into());
            encoded.of(&FindCoordinatorResponse { node_id: NODE_ID, host, port, ..Default::default() })?
        }
        Some(ApiKey::AddPartitionsToTxn) => {
            encoded.of(&add_partitions(AddPartitionsToTxnRequest::decode(reader, version)?))?
        }
        Some(ApiKey::EndTxn) => {
            EndTxnRequest::decode(reader, version)?;
            encoded.of(&EndTxnResponse::default())?
        }
        _ => bail!("API key {} is not served", header.api_key),
    };
    Ok(Some(parts))
}

struct Encoded {
    version: i16,
    correlation_id: i32,
}

impl Encoded {
    fn of<R: Response>(&self, response: &R) -> Result<Vec<Bytes>> {
        Ok(frame::response(response, self.version, self.correlation_id)?)
    }
}

fn api_versions() -> ApiVersionsResponse {
    let api = |(api_key, max_version): (ApiKey, i16)| ApiVersion {
        api_key: api_key.into(),
        min_version: 0,
        max_version,
    };
    ApiVersionsResponse { api_keys: APIS.map(api).to_vec(), ..Default::default() }
}

fn metadata(request: MetadataRequest, shared: &Shared) -> MetadataResponse {
    let names = match request.topics {
        Some(topics) => topics.into_iter().filter_map(|topic| topic.name).collect(),
        None => shared.logs.topics(),
    };
    let partition = |partition_index| metadata_response::Partition {
        partition_index,
        leader_id: NODE_ID,
        leader_epoch: 0,
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        ..Default::default()
    };
    let topic = |name: Str| {
        let partitions = shared.logs.partitions(&name);
        metadata_response::Topic {
            error_code: if partitions.is_some() { 0 } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code() },
            name: Some(name),
            partitions: (0..partitions.unwrap_or(0) as i32).map(partition).collect(),
            ..Default::default()
        }
    };
    MetadataResponse {
        brokers: vec![metadata_response::Broker {
            node_id: NODE_ID,
            host: "127.0.0.1".into(),
            port: shared.port.into(),
            rack: None,
        }],
        controller_id: NODE_ID,
        topics: names.into_iter().map(topic).collect(),
        ..Default::default()
    }
}

fn create_topics(request: CreateTopicsRequest, shared: &Shared) -> CreateTopicsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.num_partitions.max(1);
        let created = shared.logs.create(topic.name.detach(), partitions as usize);
        create_topics_response::CreatableTopicResult {
            name: topic.name,
            error_code: if created { 0 } else { ErrorCode::TOPIC_ALREADY_EXISTS.code() },
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        }
    });
    CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
}

fn delete_topics(request: DeleteTopicsRequest, shared: &Shared) -> DeleteTopicsResponse {
    let responses = request.topic_names.into_iter().map(|name| {
        let deleted = shared.logs.delete(&name);
        delete_topics_response::DeletableTopicResult {
            name: Some(name),
            error_code: if deleted { 0 } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code() },
            ..Default::default()
        }
    });
    DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
}

fn add_partitions(request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let partition = |partition_index| add_partitions_to_txn_response::PartitionResult {
        partition_index,
        ..Default::default()
    };
    let topics = request.v3_and_below_topics.into_iter();
    let results = topics.map(|topic| add_partitions_to_txn_response::TopicResult {
        name: topic.name,
        results_by_partition: topic.partitions.into_iter().map(partition).collect(),
    });
    AddPartitionsToTxnResponse { results_by_topic_v3_and_below: results.collect(), ..Default::default() }
}

fn produce(request: ProduceRequest, shared: &Shared) -> ProduceResponse {
    let responses = request.topic_data.into_iter().map(|topic| {
        let name = topic.name.detach();
        let partitions = topic.partition_data.into_iter().map(|data| {
            let (appended, refused) = match shared.is_ready(&name) {
                true => {
                    let records = data.records.unwrap_or_default();
                    (shared.append(&name, data.index, records), ErrorCode::CORRUPT_MESSAGE)
                }
                false => (None, ErrorCode::NOT_LEADER_OR_FOLLOWER),
            };
            PartitionProduceResponse {
                index: data.index,
                error_code: appended.map_or(refused.code(), |_| 0),
                base_offset: appended.unwrap_or(-1),
                ..Default::default()
            }
        });
        TopicProduceResponse {
            partition_responses: partitions.collect(),
            name: topic.name.clone(),
            ..Default::default()
        }
    });
    ProduceResponse { responses: responses.collect(), ..Default::default() }
}

impl Shared {
    fn is_ready(&self, topic: &Str) -> bool {
        self.faults.unready.is_zero() || self.logs.age(topic).is_none_or(|age| age >= self.faults.unready)
    }

    /// Returns the offset that is acknowledged.
    fn append(&self, topic: &Str, partition: i32, records: Bytes) -> Option<i64> {
        let end = || self.logs.range(topic, partition).map(|range| range.end);
        let append = |records| self.logs.append(topic, partition, records);
        let Some((wrong, one_in)) = self.faults.wrongs else { return append(records) };
        let header = BatchHeader::parse(&records).ok()?;
        let key = (topic.clone(), partition, header.producer_id);
        let mut delayed = self.delayed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = delayed.remove(&key) {
            let first = append(records)?;
            append(before)?;
            return Some(first);
        }
        let is_next = (self.batches.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(one_in);
        if !is_next || wrong == Wrong::Misplace && partition != 0 {
            return append(records);
        }
        let count = header.records_count.max(0) as u64;
        let wronged = if wrong == Wrong::Corrupt { 1 } else { count };
        self.wronged.fetch_add(wronged, Ordering::Relaxed);
        match wrong {
            Wrong::Lose => end(),
            Wrong::Repeat => {
                let first = append(records.clone())?;
                append(records)?;
                Some(first)
            }
            Wrong::Delay => {
                delayed.insert(key, records);
                end()
            }
            Wrong::Corrupt => append(faults::corrupted(&records)),
            Wrong::Damage => append(faults::damaged(&records).into()),
            Wrong::Misplace => {
                self.logs.append(topic, 1, records)?;
                end()
            }
            Wrong::Misreport => append(records).map(|offset| offset + 1),
        }
    }
}

fn list_offsets(request: ListOffsetsRequest, shared: &Shared) -> ListOffsetsResponse {
    const EARLIEST: i64 = -2;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let range = shared.logs.range(&topic.name, asked.partition_index);
            let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code();
            list_offsets_response::PartitionResponse {
                partition_index: asked.partition_index,
                error_code: range.as_ref().map_or(unknown, |_| 0),
                offset: range.map_or(-1, |it| if asked.timestamp == EARLIEST { it.start } else { it.end }),
                ..Default::default()
            }
        });
        list_offsets_response::TopicResponse { partitions: partitions.collect(), name: topic.name.clone() }
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

fn fetch(request: FetchRequest, shared: &Shared) -> FetchResponse {
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let asks: Vec<Ask> = request
        .topics
        .iter()
        .flat_map(|topic| {
            let name = topic.topic.detach();
            topic.partitions.iter().map(move |asked| Ask {
                topic: name.clone(),
                partition: asked.partition,
                offset: asked.fetch_offset,
                bytes_max: size(asked.partition_max_bytes),
            })
        })
        .collect();
    let wait = Duration::from_millis(size(request.max_wait_ms) as u64);
    let found = shared.logs.read(&asks, (size(request.min_bytes), size(request.max_bytes)), wait);
    let mut found = found.into_iter();
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(found.by_ref()).map(|(asked, found)| {
            let (code, end, records) = match found {
                Found::Batches { end, parts } => (ErrorCode::NONE, end, parts),
                Found::OutOfRange => (ErrorCode::OFFSET_OUT_OF_RANGE, -1, Vec::new()),
                Found::UnknownPartition => (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, -1, Vec::new()),
            };
            PartitionData {
                partition_index: asked.partition,
                error_code: code.code(),
                high_watermark: end,
                last_stable_offset: end,
                records: Some(records),
                ..Default::default()
            }
        });
        FetchableTopicResponse {
            partitions: partitions.collect(),
            topic: topic.topic.clone(),
            ..Default::default()
        }
    });
    FetchResponse { responses: responses.collect(), ..Default::default() }
}
