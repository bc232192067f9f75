//! Producers that write as fast as the broker takes it, and know of every record what they may expect.

use crate::clock::now_ms;
use crate::connection::{Connection, NoAnswer};
use crate::random::Random;
use crate::record::{Identity, Pool, Target, VALUE_LEN_MAX, VALUE_LEN_MIN};
use anyhow::{Context, Result, bail};
use corelog_wire::ErrorCode;
use corelog_wire::messages::InitProducerIdRequest;
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression, Encoding, Producer as ProducerState};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// An idempotent producer may not have more under way: a broker remembers this many batches (KIP-98).
const IN_FLIGHT_MAX: usize = 5;
const BATCH_LEN_MAX: u64 = 700_000;
const PARTITIONS_PER_REQUEST_MAX: u64 = 4;
const PRODUCE_VERSION: i16 = 9;

/// Kinds of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Records of all sizes, most of them small, in batches of one to many.
    Mixed,
    /// Large batches: to fill a disk soon.
    Bulk,
}

/// A batch under way, or acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    pub partition: u32,
    pub numbers: Range<u64>,
}

/// What a producer knows of its records in one partition.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// The number of the next new record.
    pub next: u64,
    /// All acknowledged batches: first number to base offset.
    pub base_offsets: HashMap<u64, i64>,
    /// Everything before this is acknowledged, but for what is unsure.
    pub acknowledged: u64,
    /// Sent, never acknowledged, and not sent again: each may be there or not, in order and once.
    pub unsure: Vec<Range<u64>>,
}

pub struct Producer {
    pub id: u32,
    pub idempotent: bool,
    pub sequences: Vec<Sequence>,
    /// Bytes of acknowledged batches.
    pub acknowledged_bytes: u64,
    pub acknowledged_records: u64,
    pub sent_again: u64,
    in_flight: VecDeque<(Vec<Sent>, ProduceRequest)>,
    producer_id: i64,
    random: Random,
}

impl Producer {
    pub fn new(
        id: u32,
        idempotent: bool,
        partitions: u32,
        connection: &mut Connection,
        seed: u64,
    ) -> Result<Self> {
        let producer_id = if idempotent {
            let request = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
            let answer = connection.call(1, &request)?;
            if answer.error_code != 0 {
                bail!("InitProducerId: {}", ErrorCode(answer.error_code));
            }
            answer.producer_id
        } else {
            -1
        };
        Ok(Producer {
            id,
            idempotent,
            sequences: vec![Sequence::default(); partitions as usize],
            acknowledged_bytes: 0,
            acknowledged_records: 0,
            sent_again: 0,
            in_flight: VecDeque::new(),
            producer_id,
            random: Random::new(seed ^ u64::from(id) << 48),
        })
    }

    /// Writes until the connection ends (true) or `enough` (false, and then all is acknowledged). Errors of the broker are errors.
    pub fn run(
        &mut self,
        address: SocketAddr,
        target: &Target,
        load: Load,
        enough: &dyn Fn(&Producer) -> bool,
        acknowledged_any: &AtomicBool,
    ) -> Result<bool> {
        let Ok(mut connection) = Connection::connect(address) else { return Ok(true) };
        let mut to_send_again = self.in_flight.len();
        let mut under_way = 0;
        loop {
            while under_way < IN_FLIGHT_MAX {
                if to_send_again > 0 {
                    self.sent_again += 1;
                    to_send_again -= 1;
                } else if enough(self) {
                    break;
                } else {
                    let new = self.build(target, load)?;
                    self.in_flight.push_back(new);
                }
                let request = &self.in_flight[under_way].1;
                if connection.send(PRODUCE_VERSION, request).is_err() {
                    return Ok(true);
                }
                under_way += 1;
            }
            if under_way == 0 {
                return Ok(false);
            }
            match connection.receive::<ProduceResponse>(PRODUCE_VERSION) {
                Ok(response) => {
                    self.acknowledge(target, &response).with_context(|| format!("producer {}", self.id))?
                }
                Err(NoAnswer::Closed) => return Ok(true),
                Err(e) => bail!("producer {}: {e}", self.id),
            }
            under_way -= 1;
            acknowledged_any.store(true, Ordering::Relaxed);
        }
    }

    /// After a crash: what was under way is sent again by an idempotent producer, and left to chance by another.
    pub fn give_up_in_flight(&mut self) {
        if self.idempotent {
            return;
        }
        for (sent, _) in self.in_flight.drain(..) {
            for Sent { partition, numbers } in sent {
                let sequence = &mut self.sequences[partition as usize];
                sequence.acknowledged = numbers.end;
                sequence.unsure.push(numbers);
            }
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn build(&mut self, target: &Target, load: Load) -> Result<(Vec<Sent>, ProduceRequest)> {
        let count = self.random.between(1, PARTITIONS_PER_REQUEST_MAX.min(u64::from(target.partitions())));
        let mut partitions: Vec<u32> = Vec::new();
        while partitions.len() < count as usize {
            let partition = self.random.below(u64::from(target.partitions())) as u32;
            if !partitions.contains(&partition) {
                partitions.push(partition);
            }
        }
        let mut sent = Vec::new();
        let mut topic_data: Vec<TopicProduceData> = Vec::new();
        for partition in partitions {
            let (numbers, records) = self.build_batch(target.pool, partition, load)?;
            sent.push(Sent { partition, numbers });
            let (topic, index) = target.locate(partition);
            let data = PartitionProduceData { index, records: Some(records) };
            match topic_data.iter_mut().find(|data| data.name == *topic) {
                Some(topic) => topic.partition_data.push(data),
                None => topic_data.push(TopicProduceData {
                    name: topic.clone(),
                    partition_data: vec![data],
                    ..Default::default()
                }),
            }
        }
        Ok((sent, ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data }))
    }

    fn build_batch(&mut self, pool: &Pool, partition: u32, load: Load) -> Result<(Range<u64>, bytes::Bytes)> {
        let sequence = &mut self.sequences[partition as usize];
        let first = sequence.next;
        let producer = self.idempotent.then_some(ProducerState {
            id: self.producer_id,
            epoch: 0,
            base_sequence: i32::try_from(first)
                .context("more records than sequence numbers: use fewer rounds")?,
        });
        let codec = match self.random.below(8) {
            0 => Compression::Lz4,
            1 if load == Load::Mixed => Compression::Snappy,
            _ => Compression::None,
        };
        let encoding = Encoding::from(if load == Load::Bulk { Compression::None } else { codec });
        let batch_len = match load {
            Load::Bulk => BATCH_LEN_MAX,
            Load::Mixed => self.random.log_uniform(VALUE_LEN_MIN as u64, BATCH_LEN_MAX),
        };
        let mut builder = BatchBuilder::with_capacity(
            BatchOptions { encoding, producer, ..Default::default() },
            batch_len as usize,
        );
        let mut value = Vec::new();
        let time = now_ms();
        let mut left = batch_len as i64;
        while builder.is_empty() || left > 0 {
            let most = (left.max(VALUE_LEN_MIN as i64) as u64).min(VALUE_LEN_MAX as u64);
            let len = match load {
                Load::Bulk => most,
                Load::Mixed => self.random.log_uniform(VALUE_LEN_MIN as u64, most),
            };
            let identity = Identity { producer: self.id, partition, number: sequence.next };
            pool.write(identity, len as usize, &mut value);
            builder.append(time, None, Some(&value), &[])?;
            sequence.next += 1;
            left -= len as i64;
        }
        Ok((first..sequence.next, builder.build()?))
    }

    fn acknowledge(&mut self, target: &Target, response: &ProduceResponse) -> Result<()> {
        let (sent, request) = self.in_flight.pop_front().context("an answer to nothing")?;
        for Sent { partition, numbers } in sent {
            let (name, index) = target.locate(partition);
            let answer = response
                .responses
                .iter()
                .filter(|topic| topic.name == *name)
                .flat_map(|topic| &topic.partition_responses)
                .find(|answer| answer.index == index)
                .with_context(|| format!("no answer for {name} {index}"))?;
            if answer.error_code != 0 {
                bail!("{name} {index}: {}, {:?}", ErrorCode(answer.error_code), answer.error_message);
            }
            let sequence = &mut self.sequences[partition as usize];
            sequence.acknowledged = numbers.end;
            sequence.base_offsets.insert(numbers.start, answer.base_offset);
            self.acknowledged_records += numbers.end - numbers.start;
        }
        self.acknowledged_bytes += request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .map(|data| data.records.as_ref().map_or(0, |records| records.len() as u64))
            .sum::<u64>();
        Ok(())
    }
}
