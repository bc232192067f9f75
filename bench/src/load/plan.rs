//! `Plan`: all that determines a run's load.

use super::payload::{Filler, Sizes};
use super::schedule::Arrivals;
use anyhow::{Result, bail};
use corelog_client::{Acks, ConsumerConfig, Encoding, Isolation, OffsetReset, ProducerConfig};
use std::time::Duration;

/// When records are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they are taken: a closed loop, bounded by the producers' buffers. Latency counts from sending.
    Saturate,
    /// By a schedule: an open loop. Latency counts from when the record was due.
    Rate { records_per_second: f64, arrivals: Arrivals },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub bootstrap: String,
    pub partitions: usize,
    /// Further settings of the topic that is made for the run.
    pub topic_configs: Vec<(String, String)>,
    /// Each has a connection of its own.
    pub producers: usize,
    pub producer_threads: usize,
    pub pace: Pace,
    pub sizes: Sizes,
    pub filler: Filler,
    /// Different keys; 0 for records without.
    pub keys: usize,
    pub acks: Acks,
    pub idempotent: bool,
    /// How long a transaction takes records before it is committed; none for sending without.
    pub transaction_every: Option<Duration>,
    pub encoding: Encoding,
    pub batch_bytes: usize,
    pub linger: Duration,
    /// Of each producer.
    pub buffer_bytes: usize,
    pub requests_in_flight: usize,
    /// Each of them reads everything, as it is written. None: everything is read afterwards, to check it.
    pub groups: usize,
    /// Whether that is done. Only where it is known that nothing was kept.
    pub read_back: bool,
    /// In each group; they share the partitions.
    pub consumers: usize,
    pub fetch_bytes_min: usize,
    /// Without a record for so long after producing is over, what is missing counts as lost. Longer than the client waits for an
    /// answer: then it tries again.
    pub patience: Duration,
    /// At least.
    pub warm_up: Duration,
    /// At most: if figures do not stand by then, the run is measured all the same, and marked.
    pub warm_up_max: Duration,
    pub measured: Duration,
    /// How long after the window's end what was due in it is still sent.
    pub grace: Duration,
    pub seed: u64,
}

/// Beyond the time for which a transaction takes records.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Of one request, where the largest record does not need more.
const REQUEST_BYTES_MAX: usize = 1 << 20;

impl Plan {
    /// One saturating producer, set as Kafka's own is by default, and nobody who reads meanwhile.
    pub fn new(bootstrap: &str) -> Plan {
        Plan {
            bootstrap: bootstrap.to_owned(),
            partitions: 100,
            topic_configs: Vec::new(),
            producers: 1,
            producer_threads: 1,
            pace: Pace::Saturate,
            sizes: Sizes::Fixed(1000),
            filler: Filler::Random,
            keys: 0,
            acks: Acks::All,
            idempotent: true,
            transaction_every: None,
            encoding: Encoding::default(),
            batch_bytes: 16 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            requests_in_flight: 5,
            groups: 0,
            read_back: true,
            consumers: 1,
            fetch_bytes_min: 1,
            patience: Duration::from_secs(45),
            warm_up: Duration::from_secs(20),
            warm_up_max: Duration::from_secs(120),
            measured: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            seed: 1,
        }
    }

    pub fn check(&self) -> Result<()> {
        if self.partitions == 0 || self.producers == 0 || self.producer_threads == 0 {
            bail!("partitions, producers and threads must be at least 1");
        }
        if self.measured.is_zero() {
            bail!("the duration is 0: give at least a second, better thirty");
        }
        if self.groups > 0 && self.consumers == 0 {
            bail!("--consumers is 0: use at least 1");
        }
        if let Some(every) = self.transaction_every {
            if every.is_zero() {
                bail!("--transaction-every is 0: give at least some milliseconds");
            }
            if !self.idempotent {
                bail!("transactions need --acks all, and idempotence");
            }
        }
        if self.consumers > self.partitions {
            bail!(
                "{} consumers share {} partitions, and some would have none: lower --consumers, or raise --partitions",
                self.consumers,
                self.partitions
            );
        }
        Ok(())
    }

    /// `name` is the producer's alone.
    pub fn producer_config(&self, name: &str) -> ProducerConfig {
        // A record has a head of its own in its batch.
        let record_max = self.sizes.largest() + 1024;
        let request_bytes_max = REQUEST_BYTES_MAX.max(record_max).max(self.batch_bytes);
        ProducerConfig {
            acks: self.acks,
            idempotent: self.idempotent,
            transactional_id: self.transaction_every.map(|_| name.to_owned()),
            // Of what it is committed with, as much as the client gives by default.
            transaction_timeout: self.transaction_every.unwrap_or_default() + TRANSACTION_TIMEOUT,
            encoding: self.encoding,
            linger: self.linger,
            batch_bytes: self.batch_bytes,
            request_bytes_max,
            buffer_bytes_max: self.buffer_bytes.max(request_bytes_max),
            requests_in_flight_max: self.requests_in_flight,
            create_topics: false,
            ..Default::default()
        }
    }

    pub fn consumer_config(&self) -> ConsumerConfig {
        ConsumerConfig {
            offset_reset: OffsetReset::Earliest,
            fetch_bytes_min: self.fetch_bytes_min,
            poll_records_max: 5000,
            isolation: match self.transaction_every {
                Some(_) => Isolation::ReadCommitted,
                None => Isolation::ReadUncommitted,
            },
            ..Default::default()
        }
    }

    /// For reports: names as on the command line, and values.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let acks = match self.acks {
            Acks::None => "0",
            Acks::Leader => "1",
            Acks::All => "all",
        };
        let rate = match self.pace {
            Pace::Saturate => "saturated".to_owned(),
            Pace::Rate { records_per_second, arrivals } => {
                format!("{records_per_second:.0} records/s, {arrivals:?}").to_lowercase()
            }
        };
        let codec = self.encoding.codec.name();
        let encoding = self.encoding.level.map_or(codec.to_owned(), |level| format!("{codec}:{level}"));
        let size = match &self.sizes {
            Sizes::Fixed(size) => format!("{size} bytes"),
            sizes => format!("{sizes:?}, mean {:.0} bytes", sizes.mean()),
        };
        let configs = self.topic_configs.iter().map(|(name, value)| format!("{name}={value}"));
        let mut all = vec![
            ("partitions", self.partitions.to_string()),
            ("producers", self.producers.to_string()),
            ("producer threads", self.producer_threads.to_string()),
            ("rate", rate),
            ("record", size),
            ("filler", format!("{:?}", self.filler).to_lowercase()),
            ("keys", self.keys.to_string()),
            ("acks", acks.to_owned()),
            ("idempotent", self.idempotent.to_string()),
            ("compression", encoding),
            ("batch bytes", self.batch_bytes.to_string()),
            ("linger", format!("{:?}", self.linger)),
            ("buffer bytes per producer", self.producer_config("").buffer_bytes_max.to_string()),
            ("requests in flight", self.requests_in_flight.to_string()),
        ];
        if let Some(every) = self.transaction_every {
            all.push(("transaction every", format!("{every:?}")));
        }
        if self.groups > 0 {
            all.push(("consumer groups", self.groups.to_string()));
            all.push(("consumers per group", self.consumers.to_string()));
            all.push(("fetch bytes min", self.fetch_bytes_min.to_string()));
        }
        if !self.topic_configs.is_empty() {
            all.push(("topic", configs.collect::<Vec<_>>().join(" ")));
        }
        let most = self.warm_up_max.max(self.warm_up);
        all.push(("warm-up", format!("{:?} to {most:?}", self.warm_up)));
        all.push(("measured", format!("{:?}", self.measured)));
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
