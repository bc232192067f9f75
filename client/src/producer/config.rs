//! A producer's settings.

use super::partitioner::Partitioner;
use crate::config::bound;
use crate::error::{Error, Result};
use corelog_wire::records::{Compression, Encoding};
use std::str::FromStr;
use std::time::Duration;

/// When a record counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// As soon as it is sent: nothing is heard of errors, and its offset is not known.
    None,
    /// When the leader has it.
    Leader,
    /// When all in-sync replicas have it.
    #[default]
    All,
}

impl Acks {
    pub(super) fn on_the_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// As in producers' configs (`acks`), or by name.
impl FromStr for Acks {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Acks, String> {
        match text {
            "0" | "none" => Ok(Acks::None),
            "1" | "leader" => Ok(Acks::Leader),
            "all" | "-1" => Ok(Acks::All),
            _ => Err("use 0, 1 or all".into()),
        }
    }
}

/// Start from `ProducerConfig::default()` and change what matters.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub acks: Acks,
    /// Whether retries can neither duplicate records nor change their order (KIP-98). Needs `Acks::All`. Without it a retry may repeat
    /// records, and comes after what was sent behind it meanwhile, unless `requests_in_flight_max` is 1.
    ///
    /// That holds also across batches that fail: what follows one that is [not acknowledged](Error::NotAcknowledged) is written after it
    /// or without it, never before.
    pub idempotent: bool,
    /// Makes a transactional producer (KIP-98), under a name that is the same after a restart: then it fences its predecessor, and
    /// ends what that left open. Needs idempotence.
    pub transactional_id: Option<String>,
    /// A transaction that is open for longer is aborted by the coordinator, and its producer fenced. Brokers bound it
    /// (`transaction.max.timeout.ms`, 15 minutes by default).
    pub transaction_timeout: Duration,
    /// Codec and level; see [`ProducerConfig::compression`].
    pub encoding: Encoding,
    pub partitioner: Partitioner,
    /// How long a batch waits for more records before it is sent.
    pub linger: Duration,
    /// A batch of this size is sent at once; bytes before compression. A larger record is a batch of its own.
    pub batch_bytes: usize,
    /// Bound of one record, and of one request if it has more than one batch; bytes before compression. Brokers refuse batches over
    /// the topic's `max.message.bytes`.
    pub request_bytes_max: usize,
    /// Records that wait for their delivery, in bytes before compression; senders wait beyond it.
    pub buffer_bytes_max: usize,
    /// How long sending waits for room in the buffer, or for the topic and the producer's id to be known.
    pub send_timeout: Duration,
    /// From sending the first record of a batch until the batch counts as failed, all retries included. Then its deliveries end, also if
    /// its request is still under way: with [`Error::NotAcknowledged`] if a broker may have it, with [`Error::Timeout`] if none can.
    pub delivery_timeout: Duration,
    /// Requests without an answer per broker; at most 5 if idempotent. Without idempotence the order of records is kept only with 1.
    pub requests_in_flight_max: usize,
    /// Whether asking for an unknown topic may create it, if the broker is so configured.
    pub create_topics: bool,
}

/// A broker remembers an idempotent producer's last five batches per partition.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

impl Default for ProducerConfig {
    fn default() -> Self {
        ProducerConfig {
            acks: Acks::All,
            idempotent: true,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
            encoding: Encoding::default(),
            partitioner: Partitioner::default(),
            linger: Duration::from_millis(5),
            batch_bytes: 64 << 10,
            request_bytes_max: 1 << 20,
            buffer_bytes_max: 32 << 20,
            send_timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            requests_in_flight_max: IDEMPOTENT_IN_FLIGHT_MAX,
            create_topics: true,
        }
    }
}

impl ProducerConfig {
    /// With a transactional id.
    pub fn transactional(transactional_id: impl Into<String>) -> ProducerConfig {
        ProducerConfig { transactional_id: Some(transactional_id.into()), ..Default::default() }
    }

    /// With this codec, at its default level.
    pub fn compression(mut self, codec: Compression) -> Self {
        self.encoding = codec.into();
        self
    }

    /// Without idempotence, and so without its promises of order, unless `acks` allows it.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self.idempotent = acks == Acks::All;
        self
    }

    /// With times that can be counted with.
    pub(super) fn bounded(mut self) -> ProducerConfig {
        bound([
            &mut self.transaction_timeout,
            &mut self.linger,
            &mut self.send_timeout,
            &mut self.delivery_timeout,
        ]);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.idempotent && self.acks != Acks::All {
            return Err(Error::config(
                "idempotent needs Acks::All",
                "set idempotent to false, or acks to Acks::All",
            ));
        }
        if self.idempotent && self.requests_in_flight_max > IDEMPOTENT_IN_FLIGHT_MAX {
            let what = format!("idempotent allows {IDEMPOTENT_IN_FLIGHT_MAX} requests in flight");
            return Err(Error::config(what, "lower requests_in_flight_max, or set idempotent to false"));
        }
        if let Some(transactional_id) = &self.transactional_id {
            if transactional_id.is_empty() {
                return Err(Error::config("transactional_id is empty", "give it a name, or leave it out"));
            }
            if !self.idempotent {
                return Err(Error::config(
                    "transactional_id needs idempotence",
                    "set idempotent to true, and acks to Acks::All",
                ));
            }
            if self.transaction_timeout.is_zero() {
                return Err(Error::config("transaction_timeout is 0", "use a minute, or a few"));
            }
        }
        if self.requests_in_flight_max == 0 {
            return Err(Error::config("requests_in_flight_max is 0", "use at least 1"));
        }
        if self.batch_bytes > self.request_bytes_max || self.request_bytes_max > self.buffer_bytes_max {
            let what = format!(
                "batch_bytes {}, request_bytes_max {} and buffer_bytes_max {} must ascend",
                self.batch_bytes, self.request_bytes_max, self.buffer_bytes_max
            );
            return Err(Error::config(what, "raise the later ones"));
        }
        // A batch's length is an i32 on the wire, headers and growth by compression included.
        if self.request_bytes_max > 1 << 30 {
            return Err(Error::config("request_bytes_max is over 1 GiB", "lower it"));
        }
        Ok(())
    }
}
