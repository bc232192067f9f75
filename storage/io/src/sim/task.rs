//! Tasks and timers of the simulated world.

use super::scheduler::{Context, Event, Scheduler, TaskId};
use crate::Instant;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};

pub(super) struct TaskWaker {
    pub(super) id: TaskId,
    pub(super) queued: AtomicBool,
    pub(super) wake: mpsc::Sender<TaskId>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            // Fails only when the world is gone.
            let _ = self.wake.send(self.id);
        }
    }
}

/// Where a task leaves its value.
pub(super) struct Join<T> {
    pub(super) value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    pub(super) done: Cell<bool>,
}

impl<T> Join<T> {
    pub(super) fn new() -> Join<T> {
        Join { value: RefCell::new(None), waker: RefCell::new(None), done: Cell::new(false) }
    }

    pub(super) fn finish(&self, value: T) {
        *self.value.borrow_mut() = Some(value);
        self.done.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A task of the simulated world.
pub(crate) struct Task<T> {
    pub(super) join: Rc<Join<T>>,
    id: TaskId,
    scheduler: Weak<Scheduler>,
    detached: bool,
}

impl<T> Task<T> {
    pub(super) fn new(id: TaskId, join: Rc<Join<T>>, scheduler: &Rc<Scheduler>) -> Task<T> {
        Task { join, id, scheduler: Rc::downgrade(scheduler), detached: false }
    }

    pub(crate) fn detach(mut self) {
        self.detached = true;
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<T> {
        if let Some(value) = self.join.value.borrow_mut().take() {
            return Poll::Ready(value);
        }
        assert!(!self.join.done.get(), "a task was polled after it gave its value");
        *self.join.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.detached
            && !self.join.done.get()
            && let Some(scheduler) = self.scheduler.upgrade()
        {
            scheduler.cancel(self.id);
        }
    }
}

/// A timer.
pub(crate) struct Sleep {
    context: Rc<Context>,
    /// By the machine's clock, whose rate may change on the way.
    until: Instant,
    event: Option<(u64, u64)>,
}

impl Sleep {
    pub(crate) fn until(context: Rc<Context>, t: Instant) -> Sleep {
        Sleep { context, until: t, event: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let scheduler = Rc::clone(&self.context.scheduler);
        if let Some(event) = self.event.take() {
            scheduler.unschedule(event);
        }
        if self.context.now() >= self.until {
            return Poll::Ready(());
        }
        let at = self.context.machine.world_time(self.until);
        self.event = Some(scheduler.schedule(at, Event::Timer(self.context.machine.id, cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.context.scheduler.unschedule(event);
        }
    }
}
