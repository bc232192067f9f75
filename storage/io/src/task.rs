//! Tasks of one core.

use crate::world::{self, World};
use crate::{real, sim, turn};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The task queue a task runs in; each has its share of the core: produce > fetch > control > background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    Produce,
    Fetch,
    Control,
    Background,
}

/// What [`yield_if_needed`] lets a task run at a time while others wait.
pub(crate) const TURN: Duration = Duration::from_micros(500);

/// A spawned task. Dropping it cancels the task (its future is dropped at its next turn); [`Task::detach`] lets it
/// run on; awaiting it gives its value.
#[must_use = "dropping a task cancels it: await it, keep it or detach it"]
pub struct Task<T> {
    inner: Inner<T>,
}

enum Inner<T> {
    Real(real::Task<T>),
    Sim(sim::Task<T>),
    /// Spawned when its core had ended: never runs.
    Never,
}

impl<T: 'static> Task<T> {
    /// Lets the task run to its end on its own.
    pub fn detach(self) {
        match self.inner {
            Inner::Real(task) => task.detach(),
            Inner::Sim(task) => task.detach(),
            Inner::Never => {}
        }
    }
}

// A task only holds handles: moving it moves nothing that is pinned.
impl<T> Unpin for Task<T> {}

impl<T: 'static> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.inner {
            Inner::Real(task) => Pin::new(task).poll(cx),
            Inner::Sim(task) => Pin::new(task).poll(cx),
            Inner::Never => Poll::Pending,
        }
    }
}

/// Starts a task on this core. It costs a process-wide lock on glommio: no task per request on a hot path. Panics
/// when called outside a core.
#[track_caller]
pub fn spawn<T: 'static>(queue: Queue, future: impl Future<Output = T> + 'static) -> Task<T> {
    let inner = match world::current() {
        World::Real(core) if core.ring.is_closing() => Inner::Never,
        World::Real(core) => Inner::Real(core.spawn(queue, future)),
        World::Sim(context) => Inner::Sim(context.spawn(queue, future)),
    };
    Task { inner }
}

/// Lets the other tasks of this core run.
pub async fn yield_now() {
    match world::current() {
        World::Real(_) => glommio::executor().yield_task_queue_now().await,
        World::Sim(_) => yield_once().await,
    }
}

/// Yields if this task has had its turn's time: call it in loops that may run long without awaiting.
pub async fn yield_if_needed() {
    let turn_is_over = world::with_current(|world| match world {
        World::Real(core) => core.turn_is_over(),
        World::Sim(context) => turn::spent() > TURN || context.gives_way(),
    });
    if turn_is_over {
        yield_now().await;
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// What `work` comes to, which computes for long: done by a thread beside the core, one such after the other, so that the
/// core goes on. If the caller is dropped it is done all the same.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match world::current() {
        World::Real(core) => core.compute(work).await,
        World::Sim(_) => {
            yield_once().await;
            work()
        }
    }
}

/// Index of this core in its process, from 0. Panics when called outside a core.
pub fn core() -> usize {
    match world::current() {
        World::Real(core) => core.index,
        World::Sim(context) => context.core,
    }
}

/// How many cores this process runs. Panics when called outside a core.
pub fn cores() -> usize {
    match world::current() {
        World::Real(core) => core.cores,
        World::Sim(context) => context.cores,
    }
}
