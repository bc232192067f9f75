//! `Recorder`: one thread's latencies and volumes, in total and over time.
//!
//! A latency belongs to the moment at which its record was due, whenever the answer came: what a broker owes at the end of the
//! window is waited for and counted. A volume belongs to the moment at which it was acknowledged or read.

use super::summary::{Latency, Point, Summary};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Below this, latencies are not told apart, in nanoseconds.
const LOWEST_NS: u64 = 1_000;
/// Longer ones count as this: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Points of a course over time, about.
const POINTS: u64 = 120;
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The part of a run that counts. Times are in nanoseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: u64,
    pub to: u64,
    /// Length of the pieces in which the course is told.
    pub interval: u64,
}

impl Window {
    pub fn new(warm_up: Duration, measured: Duration) -> Window {
        let (from, len) = (warm_up.as_nanos() as u64, measured.as_nanos() as u64);
        Window { from, to: from + len, interval: (len / POINTS).max(INTERVAL_MIN.as_nanos() as u64) }
    }

    /// For as long as it takes.
    pub fn open() -> Window {
        const DAY_NS: u64 = 24 * 3_600_000_000_000;
        Window { from: 0, to: DAY_NS, interval: 500_000_000 }
    }

    pub fn has(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }

    pub fn seconds(&self) -> f64 {
        (self.to - self.from) as f64 / 1e9
    }

    fn piece(&self, at: u64) -> Option<usize> {
        // The warm-up is shown too: one sees whether it was long enough.
        (at < self.to).then_some((at / self.interval) as usize)
    }
}

#[derive(Clone)]
pub struct Recorder {
    window: Window,
    latencies: Histogram<u64>,
    records: u64,
    bytes: u64,
    pieces: Vec<Piece>,
}

#[derive(Clone)]
struct Piece {
    latencies: Histogram<u32>,
    records: u64,
    bytes: u64,
}

impl Piece {
    fn new() -> Piece {
        let latencies = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 2).expect("constant bounds");
        Piece { latencies, records: 0, bytes: 0 }
    }
}

impl Recorder {
    pub fn new(window: Window) -> Recorder {
        let latencies = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("constant bounds");
        Recorder { window, latencies, records: 0, bytes: 0, pieces: Vec::new() }
    }

    fn piece(&mut self, at: u64) -> Option<&mut Piece> {
        let piece = self.window.piece(at)?;
        if piece >= self.pieces.len() {
            self.pieces.resize_with(piece + 1, Piece::new);
        }
        self.pieces.get_mut(piece)
    }

    pub fn latency(&mut self, due: u64, done: u64) {
        let latency = done.saturating_sub(due);
        if self.window.has(due) {
            self.latencies.saturating_record(latency);
        }
        if let Some(piece) = self.piece(due) {
            piece.latencies.saturating_record(latency);
        }
    }

    pub fn volume(&mut self, done: u64, records: u64, bytes: u64) {
        if self.window.has(done) {
            self.records += records;
            self.bytes += bytes;
        }
        if let Some(piece) = self.piece(done) {
            piece.records += records;
            piece.bytes += bytes;
        }
    }

    pub fn merge(&mut self, other: &Recorder) {
        assert_eq!(self.window, other.window, "of one run");
        self.latencies += &other.latencies;
        self.records += other.records;
        self.bytes += other.bytes;
        if other.pieces.len() > self.pieces.len() {
            self.pieces.resize_with(other.pieces.len(), Piece::new);
        }
        for (piece, other) in self.pieces.iter_mut().zip(&other.pieces) {
            piece.latencies += &other.latencies;
            piece.records += other.records;
            piece.bytes += other.bytes;
        }
    }

    /// Latencies of the pieces that begin between the two.
    fn pieces_of(&self, from: u64, to: u64) -> Histogram<u32> {
        let mut all = Piece::new().latencies;
        for (at, piece) in self.pieces.iter().enumerate() {
            if (from..to).contains(&(at as u64 * self.window.interval)) {
                all += &piece.latencies;
            }
        }
        all
    }

    /// Of the whole window.
    pub fn summary(&self) -> Summary {
        self.summary_of(self.window.seconds())
    }

    /// Of a window that ended early, after so many seconds.
    pub fn summary_of(&self, seconds: f64) -> Summary {
        let piece_seconds = self.window.interval as f64 / 1e9;
        let micros = |ns: u64| ns as f64 / 1e3;
        let point = |(at, piece): (usize, &Piece)| {
            let of = |quantile| micros(piece.latencies.value_at_quantile(quantile));
            let begin = at as u64 * self.window.interval;
            // The last piece may be cut off by the window's end; of a sliver nothing can be said.
            let left = self.window.from as f64 / 1e9 + seconds - begin as f64 / 1e9;
            let seconds = piece_seconds.min(left);
            (seconds > piece_seconds / 5.0).then(|| Point {
                seconds: begin as f64 / 1e9,
                records_per_second: piece.records as f64 / seconds,
                bytes_per_second: piece.bytes as f64 / seconds,
                p50_us: of(0.5),
                p99_us: of(0.99),
                p999_us: of(0.999),
                max_us: micros(piece.latencies.max()),
            })
        };
        Summary {
            records: self.records,
            bytes: self.bytes,
            records_per_second: self.records as f64 / seconds,
            bytes_per_second: self.bytes as f64 / seconds,
            latency: (!self.latencies.is_empty()).then(|| {
                let sixth = (self.window.to - self.window.from) / 6;
                let first = self.pieces_of(self.window.from, self.window.from + sixth);
                let last = self.pieces_of(self.window.to - sixth, self.window.to);
                Latency::of(&self.latencies, &first, &last)
            }),
            course: self.pieces.iter().enumerate().filter_map(point).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn window() -> Window {
        Window::new(Duration::from_secs(1), Duration::from_secs(2))
    }

    #[test]
    fn what_is_due_in_the_window_counts_whenever_it_is_done() {
        let mut recorder = Recorder::new(window());
        recorder.latency(500 * MS, 900 * MS);
        recorder.latency(1500 * MS, 1501 * MS);
        // The broker stalls until long after the end.
        recorder.latency(2999 * MS, 9999 * MS);
        recorder.latency(3000 * MS, 3001 * MS);
        let latency = recorder.summary().latency.unwrap();
        assert_eq!(latency.count, 2);
        assert!((latency.max_us / 7e6 - 1.0).abs() < 0.01, "{}", latency.max_us);
    }

    #[test]
    fn latencies_that_creep_show() {
        let mut recorder = Recorder::new(window());
        for at in 0..300 {
            recorder.latency(at * 10 * MS, at * 10 * MS + if at < 250 { MS } else { 5 * MS });
        }
        let latency = recorder.summary().latency.unwrap();
        assert!((latency.p99_first_us / 1000.0 - 1.0).abs() < 0.02, "{}", latency.p99_first_us);
        assert!((latency.p99_last_us / 5000.0 - 1.0).abs() < 0.02, "{}", latency.p99_last_us);
    }

    #[test]
    fn volume_counts_when_it_is_done_and_pieces_add_up() {
        let mut recorder = Recorder::new(window());
        let mut other = recorder.clone();
        for at in 0..40 {
            let recorder = if at % 2 == 0 { &mut recorder } else { &mut other };
            recorder.volume(at * 100 * MS, 10, 1000);
        }
        recorder.merge(&other);
        let summary = recorder.summary();
        assert_eq!((summary.records, summary.bytes), (200, 20_000));
        assert_eq!(summary.records_per_second, 100.0);
        assert_eq!(summary.course.len(), 30);
        assert!(summary.course.iter().all(|point| (point.records_per_second - 100.0).abs() < 1e-6));
    }
}
