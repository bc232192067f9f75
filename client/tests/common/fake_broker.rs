//! A broker that misbehaves on demand: enough of one to produce to, with Kafka's rules for idempotent producers.
// One thread per connection, for tests: no data core.
#![allow(clippy::disallowed_types)]

use bytes::Bytes;
use corelog_wire::messages::api_versions_response::ApiVersion;
use corelog_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, Message,
    MetadataRequest, MetadataResponse, Response, metadata_response,
};
use corelog_wire::produce::{
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use corelog_wire::records::{BatchView, Scratch};
use corelog_wire::{ApiKey, ErrorCode, Reader, RequestHeader, frame};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
    /// It is written, and never answered.
    Silence,
}

pub type Faults = Box<dyn FnMut(&Batch) -> Fault + Send>;

/// A batch as it arrived.
#[derive(Clone, Debug)]
pub struct Batch {
    pub partition: i32,
    pub producer_id: i64,
    pub epoch: i16,
    pub sequence: i32,
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
    /// Epochs in order of first appearance.
    pub epochs: Vec<i16>,
}

impl Log {
    /// As brokers before 2.5 do when a producer's batches are all deleted.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
        self.strict = true;
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
        if self.epochs.last() != Some(&batch.epoch) {
            self.epochs.push(batch.epoch);
        }
        Ok(offset)
    }
}

pub struct FakeBroker {
    pub address: String,
    pub logs: Arc<Mutex<HashMap<i32, Log>>>,
}

pub const PARTITIONS: i32 = 3;

impl FakeBroker {
    pub fn start(faults: Faults) -> FakeBroker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let logs: Arc<Mutex<HashMap<i32, Log>>> = Arc::default();
        let (shared, faults) = (logs.clone(), Arc::new(Mutex::new(faults)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (logs, faults) = (shared.clone(), faults.clone());
                // Ends when the client goes, or a fault cuts it.
                std::thread::spawn(move || serve(stream.unwrap(), address.port(), &logs, &faults));
            }
        });
        FakeBroker { address: address.to_string(), logs }
    }
}

fn serve(
    mut stream: TcpStream,
    port: u16,
    logs: &Mutex<HashMap<i32, Log>>,
    faults: &Mutex<Faults>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).ok()?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).ok()?;
        let mut reader = Reader::new(request.into());
        let header = RequestHeader::decode(&mut reader).unwrap();
        let (version, id) = (header.api_version, header.correlation_id);
        let answer = match ApiKey::from_i16(header.api_key).unwrap() {
            ApiKey::ApiVersions => {
                ApiVersionsRequest::decode(&mut reader, version).unwrap();
                encoded(&api_versions(), version, id)
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut reader, version).unwrap();
                encoded(&metadata(request, port), version, id)
            }
            ApiKey::InitProducerId => {
                InitProducerIdRequest::decode(&mut reader, version).unwrap();
                let response = InitProducerIdResponse { producer_id: 7, ..Default::default() };
                encoded(&response, version, id)
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(&mut reader, version).unwrap();
                match produce(request, logs, faults) {
                    Outcome::Answer(response) => encoded(&response, version, id),
                    Outcome::Cut => return None,
                    Outcome::Silence => {
                        std::thread::sleep(Duration::from_secs(3600));
                        return None;
                    }
                }
            }
            other => panic!("not asked for: {other}"),
        };
        stream.write_all(&answer).ok()?;
    }
}

fn encoded<R: Response>(response: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    frame::response(response, version, correlation_id).unwrap().concat()
}

fn api_versions() -> ApiVersionsResponse {
    let api = |(api_key, max_version): (ApiKey, i16)| ApiVersion {
        api_key: api_key.into(),
        min_version: 0,
        max_version,
    };
    let apis =
        [(ApiKey::Produce, 9), (ApiKey::Metadata, 8), (ApiKey::ApiVersions, 3), (ApiKey::InitProducerId, 1)];
    ApiVersionsResponse { api_keys: apis.map(api).to_vec(), ..Default::default() }
}

fn metadata(request: MetadataRequest, port: u16) -> MetadataResponse {
    let partition = |partition_index| metadata_response::Partition {
        partition_index,
        leader_id: 1,
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
}

fn produce(request: ProduceRequest, logs: &Mutex<HashMap<i32, Log>>, faults: &Mutex<Faults>) -> Outcome {
    let (mut cut, mut silence) = (false, false);
    let mut responses = Vec::new();
    for topic in request.topic_data {
        let mut answer = TopicProduceResponse { name: topic.name, ..Default::default() };
        for data in topic.partition_data {
            let batch = parse(data.index, data.records.unwrap());
            let fault = (faults.lock().unwrap())(&batch);
            let appended = match fault {
                Fault::CutBefore => return Outcome::Cut,
                Fault::Refuse(code) => Err(code),
                Fault::None | Fault::CutAfter | Fault::Silence => {
                    logs.lock().unwrap().entry(data.index).or_default().append(&batch)
                }
            };
            cut |= fault == Fault::CutAfter;
            silence |= fault == Fault::Silence;
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
        values: values.map(|record| value(record.unwrap().value.unwrap())).collect(),
    }
}
