//! How long a peer may take over what holds memory here: a request that it sends, an answer that it receives.

use std::time::Duration;

use corelog_io::Instant;

/// Limits of one transfer. A byte now and then is no progress: the whole has a limit too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// No byte moves for this long.
    pub stall: Duration,
    /// The whole may take `stall`, and a second more for each so many of its bytes that have moved.
    pub bytes_per_second: u64,
}

/// How a transfer goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub bytes: u64,
    /// Time in which the peer could have gone on.
    pub spent: Duration,
    /// How much of it was since the last byte.
    pub stalled: Duration,
}

impl Progress {
    /// `bytes` have moved by now, where the peer could go on since `since`.
    pub fn note(&mut self, bytes: u64, since: &mut Instant, now: Instant) {
        let passed = now.since(*since);
        *since = now;
        self.spent += passed;
        self.stalled = if bytes > self.bytes { Duration::ZERO } else { self.stalled + passed };
        self.bytes = bytes;
    }
}

impl Patience {
    pub fn is_over(&self, progress: &Progress) -> bool {
        let earned = Duration::from_millis(progress.bytes.saturating_mul(1000) / self.bytes_per_second);
        progress.stalled >= self.stall || progress.spent >= self.stall.saturating_add(earned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_and_a_trickle_both_end() {
        let patience = Patience { stall: Duration::from_secs(30), bytes_per_second: 1000 };
        let (mut since, mut now) = (Instant::from_nanos(0), Instant::from_nanos(0));
        let mut trickle = Progress::default();
        let mut bytes = 0;
        while !patience.is_over(&trickle) {
            now += Duration::from_secs(29);
            bytes += 1;
            trickle.note(bytes, &mut since, now);
        }
        assert_eq!((trickle.spent, trickle.stalled), (Duration::from_secs(58), Duration::ZERO));

        let mut steady = Progress::default();
        for second in 1..1000 {
            now += Duration::from_secs(1);
            steady.note(second * 1000, &mut since, now);
            assert!(!patience.is_over(&steady));
        }
        // What it has earned does not let it stop.
        for _ in 0..2 {
            now += Duration::from_secs(15);
            steady.note(999_000, &mut since, now);
        }
        assert!(patience.is_over(&steady));
    }
}
