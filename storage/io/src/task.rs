//! Tasks of one core.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The task queue a task runs in; each has its share of the core: produce > fetch > control > background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    Produce,
    Fetch,
    Control,
    Background,
}

/// A spawned task. Dropping it cancels the task; [`Task::detach`] lets it run on; awaiting it gives its value.
#[must_use = "dropping a task cancels it: await it, keep it or detach it"]
pub struct Task<T> {
    inner: PhantomData<T>,
}

impl<T: 'static> Task<T> {
    /// Lets the task run to its end on its own.
    pub fn detach(self) {
        unimplemented!()
    }
}

impl<T: 'static> Future for Task<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<T> {
        unimplemented!()
    }
}

/// Starts a task on this core. Panics when called outside a core.
pub fn spawn<T: 'static>(_queue: Queue, _future: impl Future<Output = T> + 'static) -> Task<T> {
    unimplemented!()
}

/// Lets every other runnable task of this core's queue run once.
pub async fn yield_now() {
    unimplemented!()
}

/// Yields if this task has had its turn's time: call it in loops that may run long without awaiting.
pub async fn yield_if_needed() {
    unimplemented!()
}

/// Index of this core in its process, from 0. Panics when called outside a core.
pub fn core() -> usize {
    unimplemented!()
}

/// How many cores this process runs. Panics when called outside a core.
pub fn cores() -> usize {
    unimplemented!()
}
