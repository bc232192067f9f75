//! What a driver and its handles stand on: this machine's clock, sockets and randomness; or, with the feature `simulation`, those of the
//! simulated world that the calling thread is in. The only place that knows which.

use super::reactor;
#[cfg(feature = "simulation")]
use crate::simulation;
use bytes::BytesMut;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> Instant {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::current() {
        return world.now();
    }
    Instant::now()
}

pub(crate) fn elapsed(since: Instant) -> Duration {
    now().saturating_duration_since(since)
}

/// Milliseconds since 1970, by a clock that may jump.
pub(crate) fn now_ms() -> i64 {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::current() {
        return world.wall_clock_ms();
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Not for secrets.
pub(crate) fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::current() {
        return world.random_u64();
    }
    // Every `RandomState` has keys of its own.
    RandomState::new().build_hasher().finish()
}

/// A connected socket of this driver.
pub(crate) enum TcpStream {
    Machine(reactor::TcpStream),
    #[cfg(feature = "simulation")]
    Simulated(Box<dyn simulation::Stream>),
}

impl TcpStream {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        #[cfg(feature = "simulation")]
        if let Some(world) = simulation::current() {
            return Ok(TcpStream::Simulated(world.connect(address).await?));
        }
        Ok(TcpStream::Machine(reactor::TcpStream::connect(address).await?))
    }

    /// Appends what has come, as far as `buffer` has room; 0 at the end of the stream.
    pub(crate) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            TcpStream::Machine(stream) => stream.read(buffer).await,
            #[cfg(feature = "simulation")]
            TcpStream::Simulated(stream) => stream.read(buffer).await,
        }
    }

    /// Writes a part of `slices`.
    pub(crate) async fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            TcpStream::Machine(stream) => stream.write(slices).await,
            #[cfg(feature = "simulation")]
            TcpStream::Simulated(stream) => stream.write(slices).await,
        }
    }

    /// Ends both directions, so that reads and writes under way return.
    pub(crate) fn shutdown(&self) {
        match self {
            TcpStream::Machine(stream) => stream.shutdown(),
            #[cfg(feature = "simulation")]
            TcpStream::Simulated(stream) => stream.shutdown(),
        }
    }
}

/// A timer of this driver.
pub(crate) enum Sleep {
    Machine(reactor::Sleep),
    #[cfg(feature = "simulation")]
    Simulated(simulation::Sleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context) -> Poll<()> {
        match self.get_mut() {
            Sleep::Machine(sleep) => Pin::new(sleep).poll(cx),
            #[cfg(feature = "simulation")]
            Sleep::Simulated(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

pub(crate) fn sleep_until(at: Instant) -> Sleep {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::current() {
        return Sleep::Simulated(world.sleep_until(at));
    }
    Sleep::Machine(reactor::Sleep::until(at))
}

pub(crate) fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// None if the deadline came first.
pub(crate) async fn timeout_at<F: Future>(at: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep_until(at));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
