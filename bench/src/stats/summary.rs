//! `Summary`: what a report says of one side of a run, producing or consuming.

use hdrhistogram::Histogram;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// In the window.
    pub records: u64,
    /// Of keys and values, before compression.
    pub bytes: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    pub latency: Option<Latency>,
    pub course: Vec<Point>,
}

/// Latencies of the records due in the window, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub max_us: f64,
    /// p99 in the first and in the last sixth of the window: of half an hour, five minutes each.
    pub p99_first_us: f64,
    pub p99_last_us: f64,
    /// Quantiles and latencies, dense towards 1.
    pub curve: Vec<(f64, f64)>,
}

/// A piece of time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Its beginning, since the start of the run.
    pub seconds: f64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

/// Steps of the percentile curve for each tenfold rarer record.
const CURVE_STEPS: u32 = 10;
const CURVE_DECADES: u32 = 6;

impl Latency {
    /// Of nanoseconds; `first` and `last` are of the two ends of the window.
    pub fn of(histogram: &Histogram<u64>, first: &Histogram<u32>, last: &Histogram<u32>) -> Latency {
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let steps = 0..=CURVE_STEPS * CURVE_DECADES;
        let rarity = |step: u32| 10f64.powf(-f64::from(step) / f64::from(CURVE_STEPS));
        // Beyond one record in all there is nothing to see.
        let seen = steps.map(rarity).filter(|rarity| rarity * histogram.len() as f64 >= 1.0);
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p95_us: micros(0.95),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            p9999_us: micros(0.9999),
            max_us: histogram.max() as f64 / 1e3,
            p99_first_us: first.value_at_quantile(0.99) as f64 / 1e3,
            p99_last_us: last.value_at_quantile(0.99) as f64 / 1e3,
            curve: seen.map(|rarity| (1.0 - rarity, micros(1.0 - rarity))).collect(),
        }
    }
}
