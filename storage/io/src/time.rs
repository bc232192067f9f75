//! Time: a monotonic clock in nanoseconds, the wall clock, timers.

use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds from an arbitrary origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    /// Nanoseconds since the clock's origin.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `nanos` nanoseconds after the clock's origin.
    pub fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time passed from this point until now.
    pub fn elapsed(self) -> Duration {
        now().since(self)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// [`timeout`]'s time ran out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time allowed ran out")]
pub struct Elapsed;

/// The monotonic clock. Outside a core: the machine's own.
pub fn now() -> Instant {
    unimplemented!()
}

/// Milliseconds since the Unix epoch by the wall clock, which may jump. Outside a core: the machine's own.
pub fn wall_clock_ms() -> i64 {
    unimplemented!()
}

/// Waits for at least `d`.
pub async fn sleep(d: Duration) {
    sleep_until(now() + d).await
}

/// Waits until the monotonic clock reaches `t`.
pub async fn sleep_until(_t: Instant) {
    unimplemented!()
}

/// `future`'s value, or [`Elapsed`] if it takes longer than `d`; the future is dropped either way.
pub async fn timeout<T>(_d: Duration, _future: impl Future<Output = T>) -> Result<T, Elapsed> {
    unimplemented!()
}
