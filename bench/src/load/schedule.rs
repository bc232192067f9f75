//! When records are due. In an open loop that does not depend on how fast the broker answers: a stall delays all records that
//! were due during it, and each delay counts (no coordinated omission).

use corelog_conformance::random::Random;
use serde::Serialize;

/// How records are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// One after the other at even distances
    Even,
    /// Independent of each other, as from many users: distances are exponentially distributed
    Poisson,
}

/// Times due, in nanoseconds since the start, in order.
pub struct Schedule {
    gap_ns: f64,
    next_ns: f64,
    arrivals: Arrivals,
    random: Random,
}

impl Schedule {
    /// One of `parts` schedules, which together have `per_second` records a second.
    pub fn new(per_second: f64, part: usize, parts: usize, arrivals: Arrivals, seed: u64) -> Schedule {
        let gap_ns = 1e9 * parts as f64 / per_second;
        let random = Random::new(seed.wrapping_add(part as u64));
        Schedule { gap_ns, next_ns: gap_ns * part as f64 / parts as f64, arrivals, random }
    }

    pub fn due(&self) -> u64 {
        self.next_ns as u64
    }

    pub fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Even => self.gap_ns,
            Arrivals::Poisson => {
                // In (0, 1]: the logarithm is finite.
                let uniform = (self.random.below(1 << 53) + 1) as f64 / (1u64 << 53) as f64;
                -uniform.ln() * self.gap_ns
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(schedule: &mut Schedule, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        while schedule.due() < until {
            times.push(schedule.due());
            schedule.advance();
        }
        times
    }

    #[test]
    fn parts_interleave_to_the_whole() {
        let mut all: Vec<u64> = (0..4)
            .flat_map(|part| times(&mut Schedule::new(1000.0, part, 4, Arrivals::Even, 1), 1_000_000_000))
            .collect();
        all.sort();
        assert_eq!(all.len(), 1000);
        assert!(all.windows(2).all(|pair| (999_999..=1_000_001).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn a_rate_that_divides_nothing_does_not_drift() {
        let times = times(&mut Schedule::new(70_001.3, 0, 1, Arrivals::Even, 1), 100_000_000_000);
        assert!((times.len() as i64 - 7_000_130).abs() <= 1, "{}", times.len());
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_vary_as_they_should() {
        let times = times(&mut Schedule::new(10_000.0, 0, 1, Arrivals::Poisson, 3), 50_000_000_000);
        let count = times.len() as f64;
        assert!((count / 500_000.0 - 1.0).abs() < 0.01, "{count}");
        // The variance of an exponential distribution is its mean squared.
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 100_000.0);
        let variance = gaps.map(|gap| (gap - 1.0).powi(2)).sum::<f64>() / count;
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }
}
