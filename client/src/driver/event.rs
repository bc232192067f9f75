//! `Event`: what one task of the driver waits for and another one tells.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes all that listen. What was told before one listens is not seen: look at the state after calling `listen`, then await.
#[derive(Clone, Default)]
pub(crate) struct Event(Rc<Inner>);

#[derive(Default)]
struct Inner {
    told: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Event {
    pub(crate) fn notify(&self) {
        self.0.told.set(self.0.told.get() + 1);
        self.0.wakers.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn listen(&self) -> Listen {
        Listen { event: self.clone(), from: self.0.told.get() }
    }
}

/// Done when the event was told after this was made.
pub(crate) struct Listen {
    event: Event,
    from: u64,
}

impl Future for Listen {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context) -> Poll<()> {
        let inner = &self.event.0;
        if inner.told.get() != self.from {
            return Poll::Ready(());
        }
        let mut wakers = inner.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}
