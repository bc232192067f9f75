//! What all clients of a run share.

use super::history::{Micros, Seen};
use crate::record::Target;
use corelog_client::{Client, ClientConfig, ConsumerRecord, TopicPartition};
use corelog_wire::Str;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A broker that is paused keeps its connections, and clients wait for it so long before they ask who leads now. Short, so that
/// requests are sent again while the first ones may still be carried out.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

pub struct World<'a> {
    pub bootstrap: String,
    pub target: Target<'a>,
    pub began: Instant,
    /// Producers send no more.
    pub stop: AtomicBool,
    /// By partition: when the latest acknowledged record was sent, in milliseconds.
    acknowledged: Vec<AtomicU32>,
    /// KiB of values that were sent.
    sent_kib: AtomicU32,
}

impl<'a> World<'a> {
    pub fn new(bootstrap: String, target: Target<'a>) -> Self {
        let acknowledged = (0..target.partitions()).map(|_| AtomicU32::new(0)).collect();
        World {
            bootstrap,
            target,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged,
            sent_kib: AtomicU32::new(0),
        }
    }

    pub fn now(&self) -> Micros {
        self.began.elapsed().as_micros() as Micros
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn acknowledge(&self, partition: u32, sent: Micros) {
        self.acknowledged[partition as usize].fetch_max((sent / 1000) as u32, Ordering::Relaxed);
    }

    /// Those with no acknowledged record that was sent after this.
    pub fn without_writes_since(&self, time: Micros) -> Vec<u32> {
        let is_late = |partition: &u32| {
            u64::from(self.acknowledged[*partition as usize].load(Ordering::Relaxed)) <= time / 1000
        };
        (0..self.target.partitions()).filter(is_late).collect()
    }

    pub fn count_kib(&self, kib: u32) {
        self.sent_kib.fetch_add(kib, Ordering::Relaxed);
    }

    pub fn sent_bytes(&self) -> u64 {
        u64::from(self.sent_kib.load(Ordering::Relaxed)) << 10
    }

    fn config(&self, name: &str) -> ClientConfig {
        ClientConfig {
            client_id: name.to_owned(),
            request_timeout: REQUEST_TIMEOUT,
            ..ClientConfig::new(&self.bootstrap)
        }
    }

    /// Tries until it can be done, for a minute.
    pub async fn connect(&self, name: &str) -> corelog_client::Result<Client> {
        let began = Instant::now();
        loop {
            match Client::connect(self.config(name)).await {
                Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
                done => return done,
            }
        }
    }

    /// All, in the order of their numbers.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        (0..self.target.partitions()).map(|partition| self.named(partition)).collect()
    }

    pub fn named(&self, partition: u32) -> TopicPartition {
        let (topic, index) = self.target.locate(partition);
        TopicPartition::new(topic.clone(), index)
    }

    pub fn number(&self, topic: &Str, partition: i32) -> Option<u32> {
        let topic = self.target.topics.iter().position(|name| name == topic)? as u32;
        Some(topic * self.target.partitions_per_topic + u32::try_from(partition).ok()?)
    }

    /// Whose record it is; else what is wrong with it.
    pub fn seen(&self, record: &ConsumerRecord) -> Result<Seen, String> {
        let place = format!("{}-{}, offset {}", record.topic, record.partition, record.offset);
        let partition = self
            .number(&record.topic, record.partition)
            .ok_or_else(|| format!("{place}: asked for by nobody"))?;
        let value = record.value.as_deref().unwrap_or_default();
        let identity = self.target.pool.read(value).map_err(|what| format!("{place}: {what}"))?;
        if identity.partition != partition {
            return Err(format!("{place}: {identity:?} is in the wrong partition"));
        }
        Ok(Seen { partition, offset: record.offset, identity })
    }
}

/// What clients were told, by its text, and how often.
#[derive(Debug, Default)]
pub struct Told(pub BTreeMap<String, u32>);

impl Told {
    pub fn add(&mut self, error: &corelog_client::Error) {
        let name = match error.code() {
            Some(code) => code.name().to_owned(),
            None => {
                let text = format!("{error:?}");
                text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
            }
        };
        *self.0.entry(name).or_default() += 1;
    }

    pub fn merge(&mut self, others: Told) {
        for (name, count) in others.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}
