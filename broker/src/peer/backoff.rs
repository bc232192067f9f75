//! Pauses between attempts to reach somebody.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// A connection that lasted for so long was none of the attempts.
const LASTING: Duration = Duration::from_secs(1);

/// Each pause is drawn from the upper half of a time that doubles: many that lost one peer do not come back in step.
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// A connection stood for so long.
    pub fn stood_for(&mut self, time: Duration) {
        if time >= LASTING {
            self.next = FIRST;
        }
    }

    pub fn pause(&mut self) -> Duration {
        let most = self.next.as_micros() as u64;
        self.next = (self.next * 2).min(LONGEST);
        Duration::from_micros(most / 2 + corelog_io::random_u64() % (most / 2))
    }
}
