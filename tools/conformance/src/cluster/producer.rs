//! Producers that write at a steady rate, whatever befalls the brokers, and keep what they were told.

use super::history::{Outcome, Producer, Sent};
use super::world::{Told, World};
use crate::random::Random;
use crate::record::{Identity, VALUE_LEN_MIN};
use anyhow::{Context, Result};
use corelog_client::{Delivery, Error, ProducerConfig, ProducerRecord, TrySendError, block_on};
use corelog_wire::records::Compression;
use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::time::{Duration, Instant};

const VALUE_LEN_MAX: u64 = 8 << 10;
/// Of the lengths as they are drawn.
pub const VALUE_LEN_MEAN: u64 = 1840;
/// Beyond it nothing new is sent: what a partition without a leader holds up does not grow without bound.
const IN_FLIGHT_MAX: usize = 4000;
/// How often a producer sends, and looks for what was delivered.
const TICK: Duration = Duration::from_millis(2);
/// What is under way for longer than its delivery may take is of unknown fate.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How a producer works.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub id: u32,
    pub idempotent: bool,
    /// A short one gives up records while brokers are away.
    pub delivery_timeout: Duration,
    pub records_per_second: f64,
}

impl Manner {
    fn config(&self, random: &mut Random) -> ProducerConfig {
        let codec = match random.below(3) {
            0 => Compression::Lz4,
            _ => Compression::None,
        };
        let config = ProducerConfig {
            idempotent: self.idempotent,
            delivery_timeout: self.delivery_timeout,
            linger: Duration::from_millis(random.below(6)),
            batch_bytes: 16 << 10,
            // Without idempotence the order is kept only with 1.
            requests_in_flight_max: if self.idempotent { 5 } else { 1 },
            ..Default::default()
        };
        config.compression(codec)
    }
}

/// Sends until the world stops, and waits for what is under way.
pub fn run(manner: Manner, seed: u64, world: &World) -> Result<(Producer, Told)> {
    let mut random = Random::new(seed ^ u64::from(manner.id) << 48);
    let producer = block_on(async {
        let client = world.connect(&format!("producer-{}", manner.id)).await?;
        client.producer(manner.config(&mut random))
    })
    .with_context(|| format!("producer {}", manner.id))?;
    let mut load = Load {
        manner,
        world,
        random,
        producer,
        next: vec![0; world.target.partitions() as usize],
        sent: Vec::new(),
        told: Told::default(),
    };
    load.prepare()?;
    load.run();
    Ok((Producer { id: manner.id, idempotent: manner.idempotent, sent: load.sent }, load.told))
}

struct Load<'a> {
    manner: Manner,
    world: &'a World<'a>,
    random: Random,
    producer: corelog_client::Producer,
    /// The number of the next record, by partition.
    next: Vec<u64>,
    sent: Vec<Sent>,
    told: Told,
}

impl Load<'_> {
    fn prepare(&mut self) -> Result<()> {
        let began = Instant::now();
        for topic in self.world.target.topics {
            while let Err(error) = block_on(self.producer.prepare(topic.as_str())) {
                if began.elapsed() > Duration::from_secs(120) {
                    return Err(error).with_context(|| format!("producer {}", self.manner.id));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) {
        let interval = Duration::from_secs_f64(1.0 / self.manner.records_per_second);
        let mut in_flight = FuturesUnordered::new();
        let mut due = Instant::now();
        let mut stopped = None;
        loop {
            if self.world.stopped() {
                let stopped = *stopped.get_or_insert_with(Instant::now);
                if in_flight.is_empty() || stopped.elapsed() > self.manner.delivery_timeout + END_TIMEOUT {
                    break;
                }
            } else {
                while due <= Instant::now() && in_flight.len() < IN_FLIGHT_MAX {
                    due += interval;
                    let at = self.sent.len();
                    let Some(delivery) = self.send() else { break };
                    in_flight.push(async move { (at, delivery.await) });
                }
                // Whoever could not send for a while does not make up for it at once.
                due = due.max(Instant::now() - 10 * TICK.max(interval));
            }
            while let Some(Some((at, delivered))) = in_flight.next().now_or_never() {
                self.told(at, delivered);
            }
            std::thread::sleep(TICK);
        }
    }

    fn send(&mut self) -> Option<Delivery> {
        let partition = self.random.below(self.next.len() as u64) as u32;
        let number = self.next[partition as usize];
        let identity = Identity { producer: self.manner.id, partition, number };
        let len = self.random.log_uniform(VALUE_LEN_MIN as u64, VALUE_LEN_MAX) as usize;
        let mut value = Vec::new();
        self.world.target.pool.write(identity, len, &mut value);
        let (topic, index) = self.world.target.locate(partition);
        let sent = self.world.now();
        match self.producer.try_send(ProducerRecord::to(topic.clone()).partition(index).value(value)) {
            Ok(delivery) => {
                self.next[partition as usize] += 1;
                self.world.count_kib(len.div_ceil(1 << 10) as u32);
                self.sent.push(Sent { identity, sent, told: sent, outcome: Outcome::Unknown });
                Some(delivery)
            }
            Err(TrySendError::NoRoom(_) | TrySendError::NotPrepared(_)) => None,
            Err(TrySendError::Failed(_, error)) => {
                self.told.add(&error);
                None
            }
        }
    }

    fn told(&mut self, at: usize, delivered: corelog_client::Result<corelog_client::RecordMetadata>) {
        let now = self.world.now();
        let sent = &mut self.sent[at];
        sent.told = now;
        sent.outcome = match &delivered {
            Ok(metadata) => Outcome::Written { offset: metadata.offset },
            // So the client promises.
            Err(Error::Timeout { .. }) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        match delivered {
            Ok(_) => self.world.acknowledge(sent.identity.partition, sent.sent),
            Err(error) => self.told.add(&error),
        }
    }
}
