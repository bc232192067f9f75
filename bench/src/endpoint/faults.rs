//! What an endpoint does wrong, and by how much: an instrument is tested on what it shows if things are bad.

use bytes::Bytes;
use corelog_wire::ApiKey;
use corelog_wire::records::{ATTRIBUTES_AT, CRC_AT};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// None by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// After a topic was made, its partitions refuse everything for so long.
    pub unready: Duration,
    /// Answers to such requests come so much later than they could; those to other requests do not wait for them.
    pub late: Option<(ApiKey, Duration)>,
    /// That ends so long after the start.
    pub late_for: Option<Duration>,
    /// Every so often nothing is answered for so long; it begins with that.
    pub stalls: Option<(Duration, Duration)>,
    /// What it takes in a second, over all connections.
    pub bytes_per_second: Option<u64>,
    /// Of so many batches one is wronged.
    pub wrongs: Option<(Wrong, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "brokers are bad by themselves: only tests need one that is so by intent")
)]
pub enum Wrong {
    /// Acknowledged, and not kept.
    Lose,
    /// Written twice.
    Repeat,
    /// Written after the one that comes next of the same producer and partition.
    Delay,
    /// One of its records, with a checksum of the batch that fits.
    Corrupt,
    /// The same, and it does not.
    Damage,
    /// Of partition 0, and written to partition 1.
    Misplace,
    /// Acknowledged with an offset that is not its own.
    Misreport,
}

/// The clock by which an endpoint is late.
pub struct Delays {
    started: Instant,
    /// When what was taken so far would have been taken at the rate that it has.
    taken: Mutex<Instant>,
}

impl Delays {
    pub fn begin() -> Delays {
        let started = Instant::now();
        Delays { started, taken: Mutex::new(started) }
    }

    /// When a request that has come now may be answered.
    pub fn answer_at(&self, faults: &Faults, api: i16, len: usize) -> Instant {
        let now = Instant::now();
        let mut at = now;
        if let Some((of, late)) = faults.late
            && i16::from(of) == api
            && faults.late_for.is_none_or(|long| now < self.started + long)
        {
            at += late;
        }
        if let Some(rate) = faults.bytes_per_second
            && i16::from(ApiKey::Produce) == api
        {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            *taken = (*taken).max(now) + Duration::from_secs_f64(len as f64 / rate as f64);
            at = at.max(*taken);
        }
        if let Some((every, long)) = faults.stalls {
            let into = Duration::from_nanos(((at - self.started).as_nanos() % every.as_nanos()) as u64);
            at += long.saturating_sub(into);
        }
        at
    }
}

impl Faults {
    pub fn delays(&self) -> bool {
        self.late.is_some() || self.stalls.is_some() || self.bytes_per_second.is_some()
    }
}

/// A batch without headers whose last record has another last byte.
pub fn damaged(batch: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    let at = batch.len() - 2;
    batch[at] ^= 1;
    batch
}

/// One of which the client cannot tell.
pub fn corrupted(batch: &[u8]) -> Bytes {
    let mut batch = damaged(batch);
    let checksum = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
    batch.into()
}
