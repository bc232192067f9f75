//! The simulated world as the client's: its clock, its network, its tasks.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use corelog_client::simulation::{self, Entered, Sleep};
use corelog_io::{Queue, spawn};
use futures_util::future::LocalBoxFuture;

/// Has this thread's clients live in whichever simulated world polls them.
pub fn enter() -> Entered {
    simulation::enter(Rc::new(World { origin: Instant::now() }))
}

struct World {
    /// What the simulated clocks' origin is on the machine's: only differences are ever looked at.
    origin: Instant,
}

impl simulation::World for World {
    fn now(&self) -> Instant {
        self.origin + Duration::from_nanos(corelog_io::now().as_nanos())
    }

    fn wall_clock_ms(&self) -> i64 {
        corelog_io::wall_clock_ms()
    }

    fn random_u64(&self) -> u64 {
        corelog_io::random_u64()
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        spawn(Queue::Control, task).detach();
    }

    fn sleep_until(&self, at: Instant) -> Sleep {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        let at = corelog_io::Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Box::pin(corelog_io::sleep_until(at))
    }

    fn connect(
        &self,
        address: SocketAddr,
    ) -> LocalBoxFuture<'static, io::Result<Box<dyn simulation::Stream>>> {
        Box::pin(async move {
            let stream = corelog_io::Stream::connect(address).await?;
            Ok(Box::new(Stream(stream)) as Box<dyn simulation::Stream>)
        })
    }
}

struct Stream(corelog_io::Stream);

impl simulation::Stream for Stream {
    fn read<'a>(&'a self, buffer: &'a mut BytesMut) -> LocalBoxFuture<'a, io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        Box::pin(self.0.read(buffer, room))
    }

    fn write<'a>(&'a self, slices: &'a [IoSlice<'a>]) -> LocalBoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<bytes::Bytes>();
            let written = bytes.len();
            self.0.send(vec![bytes.into()]).await?;
            Ok(written)
        })
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}
