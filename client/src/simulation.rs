//! A world in place of the machine, for tests: whole clients run in it as tasks, with its clock, its network and its randomness.
//!
//! Only with the feature `simulation`, which no program needs. A thread that has [entered](enter) a world starts no thread for a
//! client: the client's driver becomes one task of the world, spawned where [`Client::connect`](crate::Client::connect) was called,
//! and ends with the client, or when the world drops it. Hosts are given by their IP addresses there.

pub use crate::planted::{Fault, Planting};

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Instant;

/// What a client asks of its world. It acts for whichever of the world's tasks is being polled.
pub trait World {
    fn now(&self) -> Instant;
    /// Milliseconds since 1970.
    fn wall_clock_ms(&self) -> i64;
    fn random_u64(&self) -> u64;
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);
    fn sleep_until(&self, at: Instant) -> Sleep;
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

pub type Sleep = Pin<Box<dyn Future<Output = ()>>>;

/// A TCP connection of the world.
pub trait Stream {
    /// Appends what has come, as far as `buffer` has room; 0 at the end of the stream.
    fn read<'a>(&'a self, buffer: &'a mut BytesMut) -> LocalBoxFuture<'a, io::Result<usize>>;
    /// Writes a part of `slices`.
    fn write<'a>(&'a self, slices: &'a [IoSlice<'a>]) -> LocalBoxFuture<'a, io::Result<usize>>;
    /// Ends both directions.
    fn shutdown(&self);
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

pub(crate) fn current() -> Option<Rc<dyn World>> {
    WORLD.with_borrow(|world| world.clone())
}

/// Has the clients of this thread live in `world` until the guard is dropped.
pub fn enter(world: Rc<dyn World>) -> Entered {
    Entered(WORLD.replace(Some(world)))
}

#[must_use = "dropped, it leaves the world"]
pub struct Entered(Option<Rc<dyn World>>);

impl Drop for Entered {
    fn drop(&mut self) {
        WORLD.set(self.0.take());
    }
}
