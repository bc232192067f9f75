//! Producers: plain ones, which never send a batch twice, and idempotent ones, which send what was not acknowledged
//! again until it is, in order. Both keep several requests under way, each with batches for several partitions.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{sleep, wall_clock_ms};
use corelog_wire::ErrorCode;
use corelog_wire::messages::InitProducerIdRequest;
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression, Encoding, Producer};

use crate::connection::Connection;
use crate::shared::{Shared, below, topic_name};
use crate::truth::{Key, Place};

/// As Kafka's producers: max.in.flight.requests.per.connection.
const IN_FLIGHT_MAX: usize = 5;
/// Produce by topic id from this version on.
const TOPIC_IDS_FROM: i16 = 13;

struct Batch {
    place: Place,
    key: Key,
    bytes: Bytes,
}

/// One request under way.
struct InFlight {
    id: i32,
    batches: Vec<Batch>,
}

/// What became of a batch.
enum Answer {
    Acked(i64),
    Refused(ErrorCode),
}

fn version() -> i16 {
    [3, 5, 7, 8, 9, 11, 12, 13][below(8) as usize]
}

/// A batch with a name of its own, known to the truth.
fn batch(shared: &Shared, place: Place, sender: (u64, u64), producer: Option<Producer>) -> (Batch, i64) {
    let plan = &shared.plan;
    let records = 1 + below(4);
    let most = if below(4) == 0 { plan.value_bytes_max } else { plan.value_bytes_max.min(300) };
    (batch_of(shared, place, sender, producer, records, below(most) / records), records as i64)
}

/// As [`batch`], of so many records with values of `size` bytes.
fn batch_of(
    shared: &Shared,
    place: Place,
    sender: (u64, u64),
    producer: Option<Producer>,
    records: u64,
    size: u64,
) -> Batch {
    let codec = match below(12) {
        0 => Compression::Lz4,
        1 => Compression::Gzip,
        2 => Compression::Snappy,
        _ => Compression::None,
    };
    let mut builder = BatchBuilder::new(BatchOptions {
        producer,
        encoding: Encoding::from(codec),
        ..BatchOptions::default()
    });
    let mut truth = shared.truth.borrow_mut();
    let key = truth.next_key();
    for i in 0..records {
        let value: Vec<u8> = (0..size)
            .map(|at| (key as u8).wrapping_mul(31) ^ (at as u8).wrapping_mul(7) ^ (i as u8))
            .collect();
        builder
            .append(wall_clock_ms(), Some(&key.to_be_bytes()), Some(&value), &[])
            .expect("the record fits");
    }
    let bytes = builder.build().expect("the batch can be built");
    truth.sent(place, key, bytes.clone(), records as i64, sender);
    Batch { place, key, bytes }
}

/// Appends a batch with values of `size` bytes to one partition. `Err`: the connection is gone.
pub async fn append(
    shared: &Shared,
    connection: &mut Connection,
    place: Place,
    sender: (u64, u64),
    size: u64,
) -> std::io::Result<ErrorCode> {
    let batches = [batch_of(shared, place, sender, None, 1, size)];
    let version = version();
    let id = send(shared, connection, version, &batches).await?;
    match receive(shared, connection, version, id, &batches).await?.remove(0) {
        Answer::Acked(offset) => shared.truth.borrow_mut().acked(place, batches[0].key, offset),
        Answer::Refused(code) => {
            shared.expect_explained(code, "produce");
            return Ok(code);
        }
    }
    Ok(ErrorCode::NONE)
}

/// Sends a request and does not wait for its answer.
pub async fn send_and_leave(shared: &Shared, connection: &mut Connection) {
    let sender = shared.truth.borrow_mut().next_sender();
    let batches: Vec<Batch> = some_places(shared)
        .into_iter()
        .zip(1..)
        .map(|(place, n)| batch(shared, place, (sender, n), None).0)
        .collect();
    let _left = send(shared, connection, version(), &batches).await;
}

async fn send(
    shared: &Shared,
    connection: &mut Connection,
    version: i16,
    batches: &[Batch],
) -> std::io::Result<i32> {
    let mut topics: BTreeMap<usize, Vec<PartitionProduceData>> = BTreeMap::new();
    for batch in batches {
        let data = PartitionProduceData { index: batch.place.1, records: Some(batch.bytes.clone()) };
        topics.entry(batch.place.0).or_default().push(data);
    }
    let topic_data = topics.into_iter().map(|(topic, partition_data)| match version >= TOPIC_IDS_FROM {
        true => TopicProduceData {
            topic_id: shared.truth.borrow().topic_ids[&topic],
            partition_data,
            ..Default::default()
        },
        false => TopicProduceData { name: topic_name(topic), partition_data, ..Default::default() },
    });
    let request = ProduceRequest {
        acks: if below(4) == 0 { 1 } else { -1 },
        timeout_ms: 30_000,
        topic_data: topic_data.collect(),
        ..Default::default()
    };
    connection.send(&request, version).await
}

/// The answer for each batch, in their order.
async fn receive(
    shared: &Shared,
    connection: &mut Connection,
    version: i16,
    id: i32,
    batches: &[Batch],
) -> std::io::Result<Vec<Answer>> {
    let response: ProduceResponse = connection.receive(version, id).await?;
    let mut answers = BTreeMap::new();
    for topic in &response.responses {
        let number = shared.topic_of(&topic.name, topic.topic_id, version >= TOPIC_IDS_FROM);
        for partition in &topic.partition_responses {
            let answer = match partition.error_code {
                0 => Answer::Acked(partition.base_offset),
                code => Answer::Refused(ErrorCode(code)),
            };
            answers.insert((number, partition.index), answer);
        }
    }
    Ok(batches.iter().map(|batch| answers.remove(&batch.place).expect("each batch is answered")).collect())
}

/// A few partitions, each once.
fn some_places(shared: &Shared) -> Vec<Place> {
    let mut places = shared.places();
    for i in (1..places.len()).rev() {
        places.swap(i, below(i as u64 + 1) as usize);
    }
    places.truncate(1 + below(3) as usize);
    places
}

async fn pause(shared: &Shared) {
    sleep(shared.plan.pace.mul_f64(0.1 + below(20) as f64 / 10.0)).await;
}

/// Produces without a producer id. What was under way when a connection broke may be there or not.
pub async fn plain(shared: Rc<Shared>) {
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("plain").await else { return };
        // A request that a broken connection left behind may be carried out after those of the next: each connection
        // keeps an order of its own.
        let sender = shared.truth.borrow_mut().next_sender();
        let version = version();
        let mut number = 0;
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let at_once = 1 + below(IN_FLIGHT_MAX as u64) as usize;
        loop {
            let stopped = shared.stopped();
            if stopped && in_flight.is_empty() {
                return;
            }
            if !stopped && in_flight.len() < at_once {
                let batches: Vec<Batch> = some_places(&shared)
                    .into_iter()
                    .map(|place| {
                        number += 1;
                        batch(&shared, place, (sender, number), None).0
                    })
                    .collect();
                match send(&shared, &mut connection, version, &batches).await {
                    Ok(id) => in_flight.push_back(InFlight { id, batches }),
                    Err(_) => break,
                }
                pause(&shared).await;
                if below(3) > 0 {
                    continue;
                }
            }
            let Some(InFlight { id, batches }) = in_flight.pop_front() else { continue };
            let Ok(answers) = receive(&shared, &mut connection, version, id, &batches).await else { break };
            let mut failed = false;
            for (batch, answer) in batches.iter().zip(answers) {
                match answer {
                    Answer::Acked(offset) => shared.truth.borrow_mut().acked(batch.place, batch.key, offset),
                    Answer::Refused(code) => {
                        failed = true;
                        shared.expect_explained(code, "produce");
                    }
                }
            }
            if failed {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// What an idempotent producer knows of one partition.
#[derive(Default)]
struct Numbers {
    next_sequence: i32,
    sent: u64,
    /// Sent and not acknowledged, in order.
    unresolved: VecDeque<(Key, Bytes)>,
    /// Acknowledged last: at most as many as the broker remembers.
    recent: VecDeque<(Key, Bytes, i64)>,
}

struct Idempotent {
    shared: Rc<Shared>,
    id: i64,
    epoch: i16,
    sender: u64,
    numbers: BTreeMap<Place, Numbers>,
}

/// Produces as Kafka's idempotent producers do.
pub async fn idempotent(shared: Rc<Shared>) {
    let mut producer: Option<Idempotent> = None;
    loop {
        let settled = producer.as_ref().is_none_or(|p| p.numbers.values().all(|n| n.unresolved.is_empty()));
        if shared.stopped() && settled {
            return;
        }
        let Some(mut connection) = shared.connect_to_finish("idempotent").await else { return };
        if settled && (producer.is_none() || below(4) == 0) {
            producer = match init(&shared, &mut connection).await {
                Some(new) => Some(new),
                None => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
        }
        let Some(producer) = &mut producer else { continue };
        // Ends with the connection, or when all is said.
        producer.work(&mut connection).await;
        if shared.damaged() {
            return;
        }
    }
}

async fn init(shared: &Rc<Shared>, connection: &mut Connection) -> Option<Idempotent> {
    let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    let response = connection.call(&request, below(6) as i16).await.ok()?;
    if response.error_code != 0 {
        shared.expect_explained(ErrorCode(response.error_code), "InitProducerId");
        return None;
    }
    let mut truth = shared.truth.borrow_mut();
    truth.producer_id(response.producer_id);
    Some(Idempotent {
        shared: shared.clone(),
        id: response.producer_id,
        epoch: response.producer_epoch,
        sender: truth.next_sender(),
        numbers: BTreeMap::new(),
    })
}

impl Idempotent {
    async fn work(&mut self, connection: &mut Connection) {
        let version = version();
        loop {
            if !self.resolve(connection, version).await {
                return;
            }
            if self.shared.stopped() || self.shared.damaged() {
                return;
            }
            if !self.stream(connection, version).await {
                return;
            }
        }
    }

    /// Sends what is unresolved again, the first of each partition first, until nothing is. `false`: not over this
    /// connection.
    async fn resolve(&mut self, connection: &mut Connection, version: i16) -> bool {
        loop {
            let batches: Vec<Batch> = self
                .numbers
                .iter()
                .filter_map(|(place, numbers)| {
                    let (key, bytes) = numbers.unresolved.front()?;
                    Some(Batch { place: *place, key: *key, bytes: bytes.clone() })
                })
                .collect();
            if batches.is_empty() {
                return true;
            }
            self.shared.truth.borrow_mut().duplicates_sent += 1;
            let Ok(id) = send(&self.shared, connection, version, &batches).await else { return false };
            let Ok(answers) = receive(&self.shared, connection, version, id, &batches).await else {
                return false;
            };
            for (batch, answer) in batches.iter().zip(answers) {
                match answer {
                    Answer::Acked(offset) => self.resolved(batch, offset),
                    Answer::Refused(code) => {
                        // The first unresolved batch is the next in sequence, whatever happened before.
                        self.shared.expect_explained(code, "produce again");
                        if self.shared.damaged() {
                            return false;
                        }
                        sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }

    fn resolved(&mut self, batch: &Batch, offset: i64) {
        self.shared.truth.borrow_mut().acked(batch.place, batch.key, offset);
        let numbers = self.numbers.get_mut(&batch.place).expect("it was sent");
        let front = numbers.unresolved.pop_front().expect("it was under way");
        assert_eq!(front.0, batch.key, "batches are resolved in order");
        numbers.recent.push_back((batch.key, front.1, offset));
        if numbers.recent.len() > IN_FLIGHT_MAX {
            numbers.recent.pop_front();
        }
    }

    fn next_batch(&mut self, place: Place) -> Batch {
        let numbers = self.numbers.entry(place).or_default();
        numbers.sent += 1;
        let producer = Producer { id: self.id, epoch: self.epoch, base_sequence: numbers.next_sequence };
        let (batch, records) = batch(&self.shared, place, (self.sender, numbers.sent), Some(producer));
        numbers.next_sequence += records as i32;
        numbers.unresolved.push_back((batch.key, batch.bytes.clone()));
        batch
    }

    /// Sends new batches, several requests at once. Ends when something fails: `false` if that is the connection.
    async fn stream(&mut self, connection: &mut Connection, version: i16) -> bool {
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        // Partitions of which a batch failed: what was sent after it is out of order.
        let mut failed: Vec<Place> = Vec::new();
        let at_once = 1 + below(IN_FLIGHT_MAX as u64) as usize;
        loop {
            let ending = self.shared.stopped() || !failed.is_empty();
            if ending && in_flight.is_empty() {
                return true;
            }
            if !ending && in_flight.len() < at_once {
                if below(16) == 0 && in_flight.is_empty() && !self.retry_known(connection, version).await {
                    return false;
                }
                let batches: Vec<Batch> =
                    some_places(&self.shared).into_iter().map(|place| self.next_batch(place)).collect();
                match send(&self.shared, connection, version, &batches).await {
                    Ok(id) => in_flight.push_back(InFlight { id, batches }),
                    Err(_) => return false,
                }
                pause(&self.shared).await;
                if below(3) > 0 {
                    continue;
                }
            }
            let Some(InFlight { id, batches }) = in_flight.pop_front() else { continue };
            let Ok(answers) = receive(&self.shared, connection, version, id, &batches).await else {
                return false;
            };
            for (batch, answer) in batches.iter().zip(answers) {
                match answer {
                    Answer::Acked(offset) => {
                        assert!(!failed.contains(&batch.place), "{:?}: appended behind a hole", batch.place);
                        self.resolved(batch, offset);
                    }
                    Answer::Refused(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) => {
                        assert!(failed.contains(&batch.place), "{:?}: in order, and refused", batch.place);
                    }
                    Answer::Refused(code) => {
                        self.shared.expect_explained(code, "produce");
                        failed.push(batch.place);
                    }
                }
            }
        }
    }

    /// Sends a batch again that was acknowledged: the answer is the same, and nothing changes.
    async fn retry_known(&mut self, connection: &mut Connection, version: i16) -> bool {
        let known: Vec<(Batch, i64)> = self
            .numbers
            .iter()
            .filter_map(|(place, numbers)| {
                let (key, bytes, offset) = numbers.recent.get(below(numbers.recent.len() as u64) as usize)?;
                Some((Batch { place: *place, key: *key, bytes: bytes.clone() }, *offset))
            })
            .collect();
        let (batches, offsets): (Vec<Batch>, Vec<i64>) = known.into_iter().unzip();
        if batches.is_empty() {
            return true;
        }
        self.shared.truth.borrow_mut().duplicates_sent += 1;
        let Ok(id) = send(&self.shared, connection, version, &batches).await else { return false };
        let Ok(answers) = receive(&self.shared, connection, version, id, &batches).await else {
            return false;
        };
        for ((batch, answer), known) in batches.iter().zip(answers).zip(offsets) {
            match answer {
                Answer::Acked(offset) => {
                    assert_eq!(offset, known, "{:?}: a retry is somewhere else", batch.place)
                }
                Answer::Refused(code) => self.shared.expect_explained(code, "produce what was acknowledged"),
            }
        }
        true
    }
}
