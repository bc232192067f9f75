//! `Gauge`: what a thread has done so far, for those who watch while the run goes on.
//!
//! One thread writes it, and waits for nobody; others read what is there. Latencies count when they are known, not when their
//! records were due: that is for the `Recorder`, which has the last word.

use super::steady::Level;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Latencies are told apart to one part in so many.
const STEPS: u64 = 32;
const BUCKETS: usize = bucket(u64::MAX) + 1;

pub struct Gauge {
    records: AtomicU64,
    bytes: AtomicU64,
    /// In nanoseconds, by bucket.
    latencies: [AtomicU64; BUCKETS],
}

/// Below twice the steps each value has one of its own; then each doubling has as many as there are steps.
const fn bucket(value: u64) -> usize {
    let shift = (63 - (value | (2 * STEPS - 1)).leading_zeros() as u64) - STEPS.ilog2() as u64;
    (shift * STEPS + (value >> shift)) as usize
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket as u64 / STEPS).saturating_sub(1);
    let first = (bucket as u64 - shift * STEPS) << shift;
    first + ((1 << shift) - 1)
}

/// Sums of several gauges at a moment, or between two.
#[derive(Clone)]
pub struct Reading {
    pub records: u64,
    pub bytes: u64,
    latencies: Vec<u64>,
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latencies: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// Of the only writer: cheaper than `fetch_add`.
fn add(to: &AtomicU64, count: u64) {
    to.store(to.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Gauge {
    pub fn latency(&self, nanos: u64) {
        add(&self.latencies[bucket(nanos)], 1);
    }

    pub fn volume(&self, records: u64, bytes: u64) {
        add(&self.records, records);
        add(&self.bytes, bytes);
    }
}

impl Reading {
    pub fn of(gauges: &[Arc<Gauge>]) -> Reading {
        let sum = |of: &dyn Fn(&Gauge) -> u64| gauges.iter().map(|gauge| of(gauge)).sum();
        Reading {
            records: sum(&|gauge| gauge.records.load(Ordering::Relaxed)),
            bytes: sum(&|gauge| gauge.bytes.load(Ordering::Relaxed)),
            latencies: (0..BUCKETS)
                .map(|at| sum(&|gauge| gauge.latencies[at].load(Ordering::Relaxed)))
                .collect(),
        }
    }

    pub fn since(&self, before: &Reading) -> Reading {
        let latencies = self.latencies.iter().zip(&before.latencies).map(|(now, before)| now - before);
        Reading {
            records: self.records - before.records,
            bytes: self.bytes - before.bytes,
            latencies: latencies.collect(),
        }
    }

    /// Done within so long.
    pub fn level(&self, long: Duration) -> Level {
        Level { bytes_per_second: self.bytes as f64 / long.as_secs_f64(), p99_us: self.p99() as f64 / 1e3 }
    }

    /// In nanoseconds; 0 of nothing.
    pub fn p99(&self) -> u64 {
        let beyond = self.latencies.iter().sum::<u64>() / 100;
        let mut seen = 0;
        let at = self.latencies.iter().enumerate().rev().find(|(_, count)| {
            seen += **count;
            seen > beyond
        });
        at.map_or(0, |(at, _)| highest(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_bucket_that_is_near_to_it() {
        let mut last = 0;
        for value in (0..2000).chain((11..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1])) {
            let bucket = bucket(value);
            assert!(bucket >= last && bucket < BUCKETS);
            last = bucket;
            let highest = highest(bucket);
            assert!(highest >= value && highest - value <= value / STEPS, "{value}: {highest}");
        }
        assert_eq!(highest(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn threads_add_up_and_what_was_before_does_not_count() {
        let gauges: Vec<Arc<Gauge>> = (0..2).map(|_| Arc::default()).collect();
        gauges[0].latency(1 << 40);
        gauges[0].volume(1, 10);
        let before = Reading::of(&gauges);
        assert_eq!(before.since(&before).p99(), 0);
        for at in 0..1000 {
            let gauge = &gauges[at % 2];
            gauge.latency(if at < 11 { 5_000_000 } else { 1_000_000 });
            gauge.volume(1, 100);
        }
        let piece = Reading::of(&gauges).since(&before);
        assert_eq!((piece.records, piece.bytes), (1000, 100_000));
        assert!((5_000_000..5_200_000).contains(&piece.p99()), "{}", piece.p99());
    }
}
