//! Counters, gauges and histograms of one core.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hdrhistogram::Histogram as Recorder;

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(Cell<u64>);

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    pub fn add(&self, count: u64) {
        self.0.set(self.0.get() + count);
    }

    pub fn take(&self, count: u64) {
        debug_assert!(self.0.get() >= count, "a gauge below zero");
        self.0.set(self.0.get().saturating_sub(count));
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Durations from a microsecond to a minute, to two digits: about 20 KiB, in exchange for a few nanoseconds a record.
/// Shorter and longer ones count as the nearest of these.
#[derive(Debug)]
pub struct Histogram {
    recorder: RefCell<Recorder<u64>>,
    sum_us: Cell<u64>,
}

const LEAST_US: u64 = 1;
const MOST_US: u64 = 60_000_000;
const DIGITS: u8 = 2;

/// What a histogram held when it was asked.
#[derive(Clone, Debug)]
pub struct Distribution {
    pub recorder: Recorder<u64>,
    pub sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { recorder: RefCell::new(recorder()), sum_us: Cell::new(0) }
    }
}

fn recorder() -> Recorder<u64> {
    Recorder::new_with_bounds(LEAST_US, MOST_US, DIGITS).expect("bounds that fit each other")
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.recorder.borrow_mut().saturating_record(us.max(LEAST_US));
        self.sum_us.set(self.sum_us.get().wrapping_add(us));
    }

    pub fn snapshot(&self) -> Distribution {
        Distribution { recorder: self.recorder.borrow().clone(), sum_us: self.sum_us.get() }
    }
}

impl Distribution {
    /// Adds what another core recorded.
    pub fn merge(&mut self, other: &Distribution) {
        self.recorder.add(&other.recorder).expect("all histograms have the same bounds");
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }

    /// How many recorded durations are no longer than each of these, ascending, in microseconds.
    pub fn cumulative<const N: usize>(&self, bounds_us: &[u64; N]) -> [u64; N] {
        let mut counts = [0; N];
        for step in self.recorder.iter_recorded() {
            // The value stands for those that round to it; up to a bucket's bound they belong below it.
            let value = self.recorder.lowest_equivalent(step.value_iterated_to());
            for (count, bound) in counts.iter_mut().zip(bounds_us) {
                if value <= *bound {
                    *count += step.count_at_value();
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_keep_two_digits_and_any_duration() {
        let histogram = Histogram::default();
        let durations = [0, 1, 99, 100, 101, 990, 5_000, 59_000_000, 61_000_000, u64::MAX / 1_000];
        for us in durations {
            histogram.record(Duration::from_micros(us));
        }
        let mut distribution = histogram.snapshot();
        assert_eq!(distribution.cumulative(&[50, 100, 1_000, 10_000, 30_000_000]), [2, 4, 6, 7, 7]);
        assert_eq!(distribution.recorder.len(), durations.len() as u64);
        assert_eq!(distribution.sum_us, durations.iter().fold(0u64, |sum, us| sum.wrapping_add(*us)));
        let other = Histogram::default();
        other.record(Duration::from_micros(10));
        distribution.merge(&other.snapshot());
        assert_eq!(distribution.recorder.len(), 11);
    }

    #[test]
    fn gauges_do_not_go_below_zero() {
        let gauge = Gauge::default();
        gauge.add(3);
        gauge.take(2);
        assert_eq!(gauge.get(), 1);
        gauge.set(9);
        assert_eq!(gauge.get(), 9);
        let counter = Counter::default();
        counter.add(2);
        counter.add(3);
        assert_eq!(counter.get(), 5);
    }
}
