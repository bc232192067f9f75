//! Wakes one waiter, or lets the next one pass.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Holds at most one permit: [`Notify::notify_one`] hands it to the longest waiter, or keeps it for the next.
#[derive(Default)]
pub struct Notify {
    permit: Cell<bool>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    notified: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Lets one waiter go, the longest one; with none waiting, the next to come.
    pub fn notify_one(&self) {
        let first = self.waiters.borrow_mut().pop_front();
        match first {
            Some(waiter) => {
                waiter.notified.set(true);
                let waker = waiter.waker.borrow().clone();
                waker.wake();
            }
            None => self.permit.set(true),
        }
    }

    /// Waits for a permit and takes it. Dropped after it was handed the permit, it passes it on.
    pub async fn notified(&self) {
        Notified { notify: self, waiter: None }.await
    }
}

struct Notified<'a> {
    notify: &'a Notify,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.waiter {
            None => {
                if self.notify.permit.take() {
                    return Poll::Ready(());
                }
                let waiter =
                    Rc::new(Waiter { notified: Cell::new(false), waker: RefCell::new(cx.waker().clone()) });
                self.notify.waiters.borrow_mut().push_back(Rc::clone(&waiter));
                self.waiter = Some(waiter);
                Poll::Pending
            }
            Some(waiter) if waiter.notified.get() => {
                self.waiter = None;
                Poll::Ready(())
            }
            Some(waiter) => {
                waiter.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            if waiter.notified.get() {
                self.notify.notify_one();
            } else {
                self.notify.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
            }
        }
    }
}
