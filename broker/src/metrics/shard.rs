//! What a shard counts of its requests, and of its storage.

use std::cell::OnceCell;
use std::time::Duration;

use corelog_wire::{ApiKey, ErrorCode, Response};

use super::cells::{Counter, Gauge, Histogram};
use super::families;
use super::snapshot::Snapshot;

/// One more than the highest API key that clients can call.
const API_KEYS: usize = 95;
/// Kafka's error codes begin at -1; one more than the highest, shifted by that. Codes beyond count as the first.
const ERROR_CODES: usize = 140;

/// The counters of one shard. Lives on its core.
#[derive(Debug)]
pub struct ShardMetrics {
    requests: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    connections: Gauge,
    connections_opened: Counter,
    connections_refused: Counter,
    metadata_snapshots: Counter,
    produced_batches: Counter,
    produced_records: Counter,
    produced_bytes: Counter,
    fetched_bytes: Counter,
    /// By API key; made when the API is first called, since most never are.
    latency: [OnceCell<Box<Histogram>>; API_KEYS],
    /// By API key, made at the first error; then by error code plus one.
    errors: [OnceCell<Box<[Counter; ERROR_CODES]>>; API_KEYS],
}

impl Default for ShardMetrics {
    fn default() -> ShardMetrics {
        ShardMetrics::new()
    }
}

impl ShardMetrics {
    pub fn new() -> ShardMetrics {
        ShardMetrics {
            requests: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            connections: Gauge::default(),
            connections_opened: Counter::default(),
            connections_refused: Counter::default(),
            metadata_snapshots: Counter::default(),
            produced_batches: Counter::default(),
            produced_records: Counter::default(),
            produced_bytes: Counter::default(),
            fetched_bytes: Counter::default(),
            latency: [const { OnceCell::new() }; API_KEYS],
            errors: [const { OnceCell::new() }; API_KEYS],
        }
    }

    pub fn connection_opened(&self) {
        self.connections.add(1);
        self.connections_opened.add(1);
    }

    pub fn connection_closed(&self) {
        self.connections.take(1);
    }

    pub fn connection_refused(&self) {
        self.connections_refused.add(1);
    }

    pub fn metadata_snapshot(&self) {
        self.metadata_snapshots.add(1);
    }

    /// A whole request has come in; `bytes` of it.
    pub fn request_received(&self, bytes: usize) {
        self.requests.add(1);
        self.received_bytes.add(bytes as u64);
    }

    /// A request is done with: `bytes` of response were sent (0 for none), `took` since it had come in. Keys that no
    /// API has are not counted: they are closed on.
    pub fn request_answered(&self, api_key: i16, bytes: usize, took: Duration) {
        self.sent_bytes.add(bytes as u64);
        if let Some(latency) = usize::try_from(api_key).ok().and_then(|key| self.latency.get(key)) {
            latency.get_or_init(Box::default).record(took);
        }
    }

    /// Counts the errors that a client is given with a response.
    pub fn errors<R: Response>(&self, response: &R) {
        response.each_error(&mut |code| self.error(R::API_KEY, code));
    }

    /// A client was given this error code, for a request or for a part of one. 0 is no error and not counted.
    pub fn error(&self, api: ApiKey, code: i16) {
        let errors = usize::try_from(i16::from(api)).ok().and_then(|key| self.errors.get(key));
        if let (Some(errors), true) = (errors, code != 0) {
            let errors = errors.get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
            let index = usize::try_from(i32::from(code) + 1).unwrap_or(0);
            errors[if index < ERROR_CODES { index } else { 0 }].add(1);
        }
    }

    /// A batch of a producer was appended.
    pub fn produced(&self, records: u64, bytes: u64) {
        self.produced_batches.add(1);
        self.produced_records.add(records);
        self.produced_bytes.add(bytes);
    }

    /// Bytes of batches were put into a fetch response.
    pub fn fetched(&self, bytes: u64) {
        self.fetched_bytes.add(bytes);
    }

    /// All of it, to be sent to the service thread. To be called on the shard's own thread, whose CPU time it gives.
    pub fn snapshot(&self, core: usize) -> Snapshot {
        let mut snapshot = Snapshot::new(Some(core));
        snapshot.put(&families::CORE_UP, 1);
        snapshot.put_decimal(&families::CORE_CPU_SECONDS, thread_cpu_seconds());
        for (family, value) in [
            (&families::CORE_REQUESTS, self.requests.get()),
            (&families::RECEIVED_BYTES, self.received_bytes.get()),
            (&families::SENT_BYTES, self.sent_bytes.get()),
            (&families::CONNECTIONS, self.connections.get()),
            (&families::CONNECTIONS_OPENED, self.connections_opened.get()),
            (&families::CONNECTIONS_REFUSED, self.connections_refused.get()),
            (&families::METADATA_SNAPSHOTS, self.metadata_snapshots.get()),
            (&families::PRODUCED_BATCHES, self.produced_batches.get()),
            (&families::PRODUCED_RECORDS, self.produced_records.get()),
            (&families::PRODUCED_BYTES, self.produced_bytes.get()),
            (&families::FETCHED_BYTES, self.fetched_bytes.get()),
        ] {
            snapshot.put(family, value);
        }
        for (key, latency) in self.latency.iter().enumerate() {
            if let (Some(latency), Some(api)) = (latency.get(), ApiKey::from_i16(key as i16)) {
                snapshot.put_distribution(&families::REQUEST_SECONDS, api.name(), latency.snapshot());
            }
        }
        for (key, errors) in self.errors.iter().enumerate() {
            let (Some(errors), Some(api)) = (errors.get(), ApiKey::from_i16(key as i16)) else { continue };
            for (index, count) in errors.iter().enumerate().filter(|(_, count)| count.get() > 0) {
                let code = ErrorCode(index as i16 - 1);
                snapshot.put_labelled_twice(&families::ERRORS, [api.name(), code.name()], count.get());
            }
        }
        snapshot
    }
}

fn thread_cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that the call may write.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if failed == 0 { time.tv_sec as f64 + time.tv_nsec as f64 / 1e9 } else { 0.0 }
}
