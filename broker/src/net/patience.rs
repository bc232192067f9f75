//! How long a peer may take over what holds memory here: a request that it sends, an answer that it receives.

use std::time::Duration;

use corelog_io::Instant;

/// Limits of one transfer. A byte now and then is no progress, and what went fast before does not pay for a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// No byte moves for this long.
    pub stall: Duration,
    /// Nor may it be slower than this on the average of about `stall`.
    pub bytes_per_second: u64,
}

impl Patience {
    /// The same, and a transfer of `bytes` may not take much longer than `time`: the more it holds, the faster it must be.
    pub const fn within(self, time: Duration, bytes: u64) -> Patience {
        let least = bytes / time.as_secs();
        let bytes_per_second = if least > self.bytes_per_second { least } else { self.bytes_per_second };
        Patience { bytes_per_second, ..self }
    }
}

/// How a transfer goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub bytes: u64,
    /// Time in which the peer could have gone on.
    pub spent: Duration,
    /// How much of it is not paid for by bytes.
    owed: Duration,
}

impl Progress {
    /// `bytes` have moved by now, where the peer could go on since `since`. Whether `patience` with it is over.
    pub fn is_over(&mut self, patience: &Patience, bytes: u64, since: &mut Instant, now: Instant) -> bool {
        let passed = now.since(*since);
        *since = now;
        self.spent += passed;
        let moved = bytes.saturating_sub(self.bytes);
        self.bytes = bytes;
        let paid = Duration::from_micros(moved.saturating_mul(1_000_000) / patience.bytes_per_second);
        self.owed = (self.owed + passed).saturating_sub(paid);
        self.owed >= patience.stall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_and_a_trickle_both_end() {
        let patience = Patience { stall: Duration::from_secs(30), bytes_per_second: 1000 };
        let (mut since, mut now) = (Instant::from_nanos(0), Instant::from_nanos(0));
        let mut after = |progress: &mut Progress, secs, bytes| {
            now += Duration::from_secs(secs);
            progress.is_over(&patience, bytes, &mut since, now)
        };
        let mut trickle = Progress::default();
        assert!(!after(&mut trickle, 29, 1) && after(&mut trickle, 29, 2));

        let mut steady = Progress::default();
        assert!((1..1000).all(|second| !after(&mut steady, 1, second * 1000)));
        // A burst earns nothing beyond what is owed.
        assert!(!after(&mut steady, 1, 1 << 30));
        assert!(!after(&mut steady, 15, 1 << 30) && after(&mut steady, 15, 1 << 30));
    }
}
