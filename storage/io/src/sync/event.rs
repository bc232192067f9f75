//! Something that happens again and again, with any number of waiters.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes all who listen. Take the [`Listener`] first, look at the state, then await: no wake-up is missed.
#[derive(Default)]
pub struct Event {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Counts notifications; a listener taken at another count is done, and its slot in `wakers` is void.
    generation: Cell<u64>,
    wakers: RefCell<Slab<Waker>>,
}

impl Event {
    pub fn new() -> Event {
        Event::default()
    }

    /// Completes when the event is notified after this call.
    pub fn listen(&self) -> Listener {
        Listener { shared: Rc::clone(&self.shared), generation: self.shared.generation.get(), slot: None }
    }

    /// Completes every listener taken so far.
    pub fn notify_all(&self) {
        self.shared.generation.set(self.shared.generation.get() + 1);
        let mut wakers = self.shared.wakers.take();
        for waker in wakers.drain() {
            waker.wake();
        }
        // Keep the allocation unless a waker has made somebody listen again meanwhile.
        let mut current = self.shared.wakers.borrow_mut();
        if current.is_empty() {
            *current = wakers;
        }
    }

    /// How many listeners are waiting (not merely taken).
    pub fn waiting(&self) -> usize {
        self.shared.wakers.borrow().len()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.notify_all();
    }
}

/// Waits for the next [`Event::notify_all`]; also completes when the event is dropped.
#[must_use = "a listener does nothing unless awaited"]
pub struct Listener {
    shared: Rc<Shared>,
    generation: u64,
    slot: Option<usize>,
}

impl Listener {
    /// Whether the event has been notified since this listener was taken.
    pub fn is_notified(&self) -> bool {
        self.shared.generation.get() != self.generation
    }
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_notified() {
            self.slot = None;
            return Poll::Ready(());
        }
        let shared = Rc::clone(&self.shared);
        let mut wakers = shared.wakers.borrow_mut();
        match self.slot {
            Some(slot) => wakers[slot].clone_from(cx.waker()),
            None => self.slot = Some(wakers.insert(cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && !self.is_notified()
        {
            self.shared.wakers.borrow_mut().remove(slot);
        }
    }
}
