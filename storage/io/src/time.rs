//! Time: a monotonic clock in nanoseconds, the wall clock, timers.

use crate::world::{self, World};
use crate::{real, sim};
use std::future::{Future, poll_fn};
use std::ops::{Add, AddAssign, Sub};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    match world::try_current() {
        Some(World::Sim(context)) => context.now(),
        Some(World::Real(_)) | None => monotonic(),
    }
}

/// Milliseconds since the Unix epoch by the wall clock, which may jump. Outside a core: the machine's own.
pub fn wall_clock_ms() -> i64 {
    match world::try_current() {
        Some(World::Sim(context)) => context.wall_clock_ms(),
        Some(World::Real(_)) | None => match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        },
    }
}

fn monotonic() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the buffer is a timespec; the clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Waits for at least `d`.
pub async fn sleep(d: Duration) {
    sleep_until(now() + d).await
}

/// Waits until the monotonic clock reaches `t`.
pub async fn sleep_until(t: Instant) {
    match world::current() {
        World::Real(core) => real::Sleep::until(core, t).await,
        World::Sim(context) => sim::Sleep::until(context, t).await,
    }
}

/// `future`'s value, or [`Elapsed`] if it takes longer than `d`; the future is dropped either way. Whatever is ready
/// at the first poll wins.
pub async fn timeout<T>(d: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(d));
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        timer.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
