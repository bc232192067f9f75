//! Whether a run stood still: a figure of something that is still getting faster, or slower, is of a moment and of nothing else.

use super::spread::Spread;
use crate::report::terminal::{micros, number};
use serde::Serialize;
use std::time::Duration;

/// Successive pieces are steady if their throughputs are not further apart than this, as a share of the greatest.
pub const THROUGHPUT_APART: f64 = 0.1;
/// The same for p99, which hangs on few records.
pub const P99_APART: f64 = 0.3;
/// And what is done in the window, with a rate, from what is due.
const RATE_APART: f64 = 0.02;
/// So many pieces are looked at.
const PIECES: usize = 3;
/// Of so many parts each.
const PARTS: usize = 5;
const PART_MAX: Duration = Duration::from_secs(1);
const PART_MIN: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, Default, Serialize)]
pub struct Steady {
    /// Before the window, and from its first third to its last.
    pub reached: bool,
    /// How long it took, or was waited for.
    pub warm_up_s: f64,
    /// The furthest that throughputs, or p99s, of pieces were apart, as a share of the greatest.
    pub spread: f64,
    /// Why it was not.
    pub why: Option<String>,
    pub dips: Dips,
}

/// Times in the window in which less than half of what is usual was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Dips {
    pub count: usize,
    /// All together.
    pub seconds: f64,
    /// From one to the next, in the mean.
    pub every_s: Option<f64>,
}

impl Dips {
    /// None if there were none.
    pub fn text(&self) -> Option<String> {
        let every = self.every_s.map_or(String::new(), |every| format!(", one every {} s", number(every)));
        let (count, seconds) = (self.count, number(self.seconds));
        let what = "less than half of what is usual was done";
        (count > 0).then(|| format!("dips: {count} times, {seconds} s in all, {what}{every}"))
    }
}

/// What one side of a run did in a piece of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    pub bytes_per_second: f64,
    pub p99_us: f64,
}

impl Level {
    pub const NONE: Level = Level { bytes_per_second: 0.0, p99_us: 0.0 };

    /// Of a piece, by its parts. Of their p99s it is the median: one hiccup is no trend, and tells in p99.9 and maximum.
    pub fn of(parts: &[Level]) -> Level {
        let bytes_per_second =
            parts.iter().map(|part| part.bytes_per_second).sum::<f64>() / parts.len() as f64;
        let p99 = Spread::of(parts.iter().map(|part| part.p99_us));
        Level { bytes_per_second, p99_us: p99.map_or(0.0, |p99| p99.median) }
    }
}

/// How far pieces are apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    pub spread: f64,
    /// None if they are near enough to each other.
    pub why: Option<String>,
}

impl Finding {
    /// Says when it was so.
    pub fn when(self, when: &str) -> Finding {
        Finding { why: self.why.map(|why| format!("{when}: {why}")), ..self }
    }

    /// The worse of both.
    pub fn and(self, other: Finding) -> Finding {
        Finding { spread: self.spread.max(other.spread), why: self.why.or(other.why) }
    }
}

/// Of one side's pieces, in their order.
pub fn find(side: &str, pieces: &[Level]) -> Finding {
    let compare = |what: &str, values: Vec<f64>, allowed: f64, tell: fn(f64) -> String| {
        let spread = apart(&values);
        let why = (spread > allowed).then(|| {
            let values: Vec<String> = values.iter().map(|value| tell(*value)).collect();
            format!(
                "{what} of what was {side} went {}: {:.0} % apart, where {:.0} % are allowed",
                values.join(", "),
                spread * 100.0,
                allowed * 100.0
            )
        });
        Finding { spread, why }
    };
    let throughputs = pieces.iter().map(|piece| piece.bytes_per_second / 1e6).collect();
    let p99s = pieces.iter().map(|piece| piece.p99_us).collect();
    compare("throughput", throughputs, THROUGHPUT_APART, |value| format!("{} MB/s", number(value)))
        .and(compare("p99", p99s, P99_APART, micros))
}

/// By a rate, as many records are done in the window as are due in it: else others wait at its beginning, or at its end. So many more may
/// be done `at_once`, as a share of all.
pub fn keeps(side: &str, due: f64, done: u64, at_once: f64) -> Finding {
    // They come by chance, perhaps; then that is four standard deviations.
    let allowed = RATE_APART + at_once + 4.0 / due.sqrt();
    let spread = apart(&[due, done as f64]);
    let what = if done as f64 > due { "a backlog was worked off" } else { "a backlog came about" };
    let why = (spread > allowed).then(|| {
        format!(
            "{} records were due in the window, and {} were {side}: {what}",
            number(due),
            number(done as f64)
        )
    });
    Finding { spread, why }
}

/// As a share of the greatest. Where nothing is done there is nothing that could be steady.
fn apart(values: &[f64]) -> f64 {
    let (min, max) =
        values.iter().fold((f64::MAX, 0.0), |(min, max), value| (value.min(min), value.max(max)));
    if max > 0.0 { (max - min) / max } else { 1.0 }
}

/// Watches a run warm up.
pub struct WarmUp {
    least: Duration,
    most: Duration,
    parts: Vec<(&'static str, Vec<Level>)>,
}

impl WarmUp {
    /// The sides that the run has.
    pub fn new(least: Duration, most: Duration, sides: &[&'static str]) -> WarmUp {
        let parts = sides.iter().map(|side| (*side, Vec::new())).collect();
        WarmUp { least, most: most.max(least), parts }
    }

    /// How long each part is: all pieces, and one more before them, fit into the shortest warm-up, if that is not very short.
    pub fn part(&self) -> Duration {
        (self.least / (PARTS * (PIECES + 1)) as u32).clamp(PART_MIN, PART_MAX)
    }

    /// A part has ended, with so much on each side.
    pub fn push(&mut self, levels: &[Level]) {
        self.parts.iter_mut().zip(levels).for_each(|((_, parts), level)| parts.push(*level));
    }

    fn finding(&self) -> Finding {
        let last = |(side, parts): &(&'static str, Vec<Level>)| match parts.len().checked_sub(PIECES * PARTS)
        {
            Some(first) => find(side, &parts[first..].chunks(PARTS).map(Level::of).collect::<Vec<_>>()),
            None => Finding { spread: 1.0, why: Some("the warm-up was too short to tell".to_owned()) },
        };
        self.parts.iter().map(last).fold(Finding::default(), Finding::and)
    }

    /// What was found once the window may begin, after so long: because the load stands, or because it never will.
    pub fn ended(&self, after: Duration) -> Option<Finding> {
        let finding = (after >= self.least).then(|| self.finding())?;
        (finding.why.is_none() || after >= self.most).then_some(finding)
    }
}

/// In pieces of the window, `seconds` long, by what was done in each. None where too little is done to tell.
pub fn dips(records: &[u64], seconds: f64) -> Dips {
    /// Fewer vary by themselves.
    const USUAL_MIN: u64 = 50;
    let mut sorted = records.to_vec();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    if usual < USUAL_MIN {
        return Dips::default();
    }
    let is_low: Vec<bool> = records.iter().map(|records| *records < usual / 2).collect();
    let begins = |at: &usize| is_low[*at] && (*at == 0 || !is_low[*at - 1]);
    let begins: Vec<usize> = (0..is_low.len()).filter(begins).collect();
    let low = is_low.iter().filter(|low| **low).count();
    let span = begins.last().zip(begins.first()).map_or(0, |(last, first)| last - first);
    Dips {
        count: begins.len(),
        seconds: low as f64 * seconds,
        every_s: (begins.len() > 1).then(|| span as f64 * seconds / (begins.len() - 1) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(megabytes: &[f64], p99_ms: &[f64]) -> Vec<Level> {
        let level = |(mb, ms): (&f64, &f64)| Level { bytes_per_second: mb * 1e6, p99_us: ms * 1e3 };
        megabytes.iter().zip(p99_ms).map(level).collect()
    }

    const STILL: [f64; 3] = [5.0; 3];

    #[test]
    fn what_moves_is_found_with_how_far() {
        let still = find("produced", &levels(&[100.0, 95.0, 92.0], &[5.0, 4.0, 4.4]));
        assert_eq!(still.why, None);
        assert!((still.spread - 0.2).abs() < 1e-9, "{still:?}");
        // A Java machine in its first seconds; then its p99, when its throughput stands already.
        let cold = find("produced", &levels(&[0.3, 5.0, 19.4], &STILL));
        assert!((cold.spread - 0.985).abs() < 0.001, "{cold:?}");
        assert!(cold.why.unwrap().contains("0.30 MB/s, 5.00 MB/s, 19.4 MB/s: 98 % apart"));
        let falling = find("consumed", &levels(&[137.0; 3], &[33.8, 20.0, 13.9]));
        assert!(falling.why.unwrap().contains("33.8 ms, 20.0 ms, 13.9 ms: 59 % apart"));
        // Slower is as bad as faster, and nothing at all is worst.
        assert!(find("produced", &levels(&[100.0, 100.0, 89.0], &STILL)).why.is_some());
        assert_eq!(find("produced", &levels(&[0.0; 3], &[0.0; 3])).spread, 1.0);
    }

    #[test]
    fn by_a_rate_what_is_due_is_done() {
        assert_eq!(keeps("read", 1e6, 1_015_000, 0.0).why, None);
        let worked_off = keeps("read", 1e6, 1_080_000, 0.0);
        assert!(worked_off.why.unwrap().contains("worked off"));
        assert!(keeps("produced", 1e6, 950_000, 0.0).why.unwrap().contains("came about"));
        assert_eq!(keeps("read", 1e6, 950_000, 0.05).why, None);
        // A hundred arrivals by chance.
        assert_eq!(keeps("produced", 100.0, 70, 0.0).why, None);
    }

    #[test]
    fn one_hiccup_is_no_trend() {
        let parts = levels(&[100.0, 100.0, 20.0, 100.0, 100.0], &[5.0, 5.5, 900.0, 4.5, 5.0]);
        assert_eq!(Level::of(&parts), levels(&[84.0], &[5.0])[0]);
    }

    /// After how many seconds the window begins, and whether the load stood then.
    fn warmed(least: u64, most: u64, throughput: impl Fn(u64) -> f64) -> (u64, bool) {
        let mut warm_up = WarmUp::new(Duration::from_secs(least), Duration::from_secs(most), &["produced"]);
        for second in 1.. {
            warm_up.push(&levels(&[throughput(second)], &STILL));
            if let Some(finding) = warm_up.ended(Duration::from_secs(second)) {
                return (second, finding.why.is_none());
            }
        }
        unreachable!()
    }

    #[test]
    fn the_window_begins_when_the_load_stands_or_never_will() {
        assert_eq!(warmed(20, 120, |_| 100.0), (20, true));
        // Rises to 60 until second 40. At 46 the first of three pieces is that of 32 to 36, with 54 in the mean.
        assert_eq!(warmed(20, 120, |second| 20.0 + second.min(40) as f64), (46, true));
        assert_eq!(warmed(20, 120, |second| 1.02f64.powi(second as i32)), (120, false));
        assert_eq!(warmed(20, 20, |second| second as f64), (20, false));
        assert_eq!(warmed(10, 10, |_| 100.0), (10, false));
    }

    #[test]
    fn both_sides_have_to_stand() {
        let (least, most) = (Duration::from_secs(20), Duration::from_secs(99));
        let mut warm_up = WarmUp::new(least, most, &["produced", "read"]);
        for second in 1..=40 {
            let falling = if second < 18 { 10.0 } else { 5.0 };
            warm_up.push(&levels(&[10.0, falling], &[1.0, 1.0]));
            let ended = warm_up.ended(Duration::from_secs(second)).is_some();
            // Then all three pieces are behind the fall.
            assert_eq!(ended, second >= 32, "{second}");
        }
    }

    #[test]
    fn dips_are_counted_with_how_often_they_come() {
        let mut records = vec![1000; 60];
        assert_eq!(dips(&records, 0.5), Dips::default());
        for at in [4, 5, 24, 25, 44, 45, 46] {
            records[at] = 400;
        }
        assert_eq!(dips(&records, 0.5), Dips { count: 3, seconds: 3.5, every_s: Some(10.0) });
        // A few records a piece come and go by chance.
        assert_eq!(dips(&[5, 0, 6, 1], 0.5), Dips::default());
    }
}
