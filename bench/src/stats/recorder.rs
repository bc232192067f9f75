//! `Recorder`: one thread's latencies and volumes, in total and over time.
//!
//! A latency belongs to the moment at which its record was due, whenever the answer came: what a broker owes at the end of the
//! window is waited for and counted. A volume belongs to the moment at which it was acknowledged or read.

use super::gauge::Gauge;
use super::steady::{self, Finding, Level};
use super::summary::{Latency, Point, Summary};
use hdrhistogram::{Counter, Histogram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Below this, latencies are not told apart, in nanoseconds.
const LOWEST_NS: u64 = 1_000;
/// Longer ones count as this: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Points of a course over time, about.
const POINTS: u64 = 120;
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// For times in nanoseconds, with so many significant digits. It has its bounds from the beginning: one without them takes what is
/// over two for two, unless it may resize.
pub fn times<C: Counter>(digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, digits).expect("constant bounds")
}

/// The part of a run that counts. When it begins is decided while the run goes on, once, and a moment ahead: so nothing of it has been
/// seen yet. Times are in nanoseconds since the run's start.
#[derive(Debug)]
pub struct Window {
    from: AtomicU64,
    to: AtomicU64,
    len: u64,
    /// Length of the pieces in which the course is told.
    pub interval: u64,
}

const UNDECIDED: u64 = u64::MAX;

impl Window {
    /// It begins when it is told to.
    pub fn undecided(measured: Duration) -> Window {
        let len = measured.as_nanos() as u64;
        let interval = (len / POINTS).max(INTERVAL_MIN.as_nanos() as u64);
        Window { from: AtomicU64::new(UNDECIDED), to: AtomicU64::new(UNDECIDED), len, interval }
    }

    /// For as long as it takes.
    pub fn open() -> Window {
        const DAY_NS: u64 = 24 * 3_600_000_000_000;
        Window { from: AtomicU64::new(0), to: AtomicU64::new(DAY_NS), len: DAY_NS, interval: 500_000_000 }
    }

    /// Begins with the first piece that is not before `at`; returns when that is.
    pub fn begin(&self, at: u64) -> u64 {
        let from = at.next_multiple_of(self.interval);
        self.to.store(from + self.len, Ordering::Relaxed);
        self.from.store(from, Ordering::Relaxed);
        from
    }

    /// The run has failed: it is over.
    pub fn abandon(&self) {
        self.to.store(0, Ordering::Relaxed);
    }

    pub fn from(&self) -> u64 {
        self.from.load(Ordering::Relaxed)
    }

    /// Later than all times until it is decided.
    pub fn to(&self) -> u64 {
        self.to.load(Ordering::Relaxed)
    }

    pub fn has(&self, at: u64) -> bool {
        (self.from()..self.to()).contains(&at)
    }

    pub fn seconds(&self) -> f64 {
        self.len as f64 / 1e9
    }

    fn piece(&self, at: u64) -> Option<usize> {
        // The warm-up is shown too: one sees whether it was long enough.
        (at < self.to()).then_some((at / self.interval) as usize)
    }
}

#[derive(Clone)]
pub struct Recorder {
    window: Arc<Window>,
    gauge: Arc<Gauge>,
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
        Piece { latencies: times(2), records: 0, bytes: 0 }
    }

    fn level(&self, interval: u64) -> Level {
        Level {
            bytes_per_second: self.bytes as f64 * 1e9 / interval as f64,
            p99_us: self.latencies.value_at_quantile(0.99) as f64 / 1e3,
        }
    }

    fn add(&mut self, other: &Piece) {
        self.latencies += &other.latencies;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl Recorder {
    pub fn new(window: Arc<Window>) -> Recorder {
        let gauge = Arc::default();
        Recorder { window, gauge, latencies: times(3), records: 0, bytes: 0, pieces: Vec::new() }
    }

    /// By which others see how it stands.
    pub fn gauge(&self) -> Arc<Gauge> {
        self.gauge.clone()
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
        self.gauge.latency(latency);
        if self.window.has(due) {
            self.latencies.saturating_record(latency);
        }
        if let Some(piece) = self.piece(due) {
            piece.latencies.saturating_record(latency);
        }
    }

    pub fn volume(&mut self, done: u64, records: u64, bytes: u64) {
        self.gauge.volume(records, bytes);
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
        assert!(Arc::ptr_eq(&self.window, &other.window), "of one run");
        self.latencies += &other.latencies;
        self.records += other.records;
        self.bytes += other.bytes;
        if other.pieces.len() > self.pieces.len() {
            self.pieces.resize_with(other.pieces.len(), Piece::new);
        }
        self.pieces.iter_mut().zip(&other.pieces).for_each(|(piece, other)| piece.add(other));
    }

    /// Latencies of the pieces that begin between the two.
    fn latencies_of(&self, from: u64, to: u64) -> Histogram<u32> {
        let mut all = times(2);
        for (at, piece) in self.pieces.iter().enumerate() {
            if (from..to).contains(&(at as u64 * self.window.interval)) {
                all += &piece.latencies;
            }
        }
        all
    }

    /// In the window.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How far the window's first third and its last are apart.
    pub fn drift(&self, side: &str) -> Finding {
        let interval = self.window.interval;
        let parts = (self.window.len / 3 / interval).max(1) as usize;
        let from = (self.window.from() / interval) as usize;
        let last = ((self.window.to() / interval) as usize).saturating_sub(parts).max(from);
        let third = |first: usize| {
            let levels = (first..first + parts)
                .map(|at| self.pieces.get(at).map_or(Level::NONE, |it| it.level(interval)));
            Level::of(&levels.collect::<Vec<_>>())
        };
        steady::find(side, &[third(from), third(last)])
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
            let left = self.window.from() as f64 / 1e9 + seconds - begin as f64 / 1e9;
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
                let (from, to, sixth) = (self.window.from(), self.window.to(), self.window.len / 6);
                let (first, last) =
                    (self.latencies_of(from, from + sixth), self.latencies_of(to - sixth, to));
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

    fn window() -> Arc<Window> {
        let window = Window::undecided(Duration::from_secs(2));
        assert_eq!(window.begin(950 * MS), 1000 * MS);
        Arc::new(window)
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
    fn a_window_counts_from_when_it_is_decided() {
        let window = Arc::new(Window::undecided(Duration::from_secs(1)));
        let mut recorder = Recorder::new(window.clone());
        for at in 0..40 {
            if at == 20 {
                assert!(!window.has(u64::MAX - 1) && window.to() == u64::MAX);
                window.begin(2100 * MS);
            }
            recorder.latency(at * 100 * MS, at * 100 * MS + at * MS);
            recorder.volume(at * 100 * MS, 1, 100);
        }
        let summary = recorder.summary();
        assert_eq!((summary.records, summary.latency.unwrap().count), (10, 10));
        // With what was before, and nothing of what came after.
        assert_eq!(summary.course.len(), 31);
        assert!(!window.has(2099 * MS) && window.has(2100 * MS) && !window.has(3100 * MS));
    }

    #[test]
    fn times_have_room_up_to_an_hour() {
        for seconds in [1, 60, 3600] {
            let mut histogram = times::<u64>(3);
            histogram.saturating_record(seconds * 1000 * MS);
            let p99 = histogram.value_at_quantile(0.99) as f64 / 1e9;
            assert!((p99 / seconds as f64 - 1.0).abs() < 0.002, "{p99}");
        }
    }

    #[test]
    fn drift_is_what_the_ends_of_the_window_say() {
        let drifting = |bytes: fn(u64) -> u64, millis: fn(u64) -> u64| {
            let mut recorder = Recorder::new(window());
            for at in 0..300 {
                recorder.volume(at * 10 * MS, 1, bytes(at));
                recorder.latency(at * 10 * MS, (at * 10 + millis(at)) * MS);
            }
            recorder.drift("produced")
        };
        assert_eq!(drifting(|_| 1000, |_| 5).why, None);
        // Whatever was before the window.
        assert_eq!(drifting(|at| if at < 100 { 1 } else { 1000 }, |at| 1 + 100 / (at + 1)).why, None);
        let slower = drifting(|at| if at < 200 { 1000 } else { 750 }, |_| 5);
        assert!((slower.spread - 0.25).abs() < 0.01 && slower.why.is_some(), "{slower:?}");
        let later = drifting(|_| 1000, |at| if at < 200 { 5 } else { 20 });
        assert!((later.spread - 0.75).abs() < 0.01 && later.why.is_some(), "{later:?}");
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
