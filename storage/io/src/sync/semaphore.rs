//! A counting semaphore, first come first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A number of permits, handed out in the order of asking: a large request is not overtaken by small ones.
/// Clones share the permits.
#[derive(Clone)]
pub struct Semaphore {
    shared: Rc<Shared>,
}

struct Shared {
    total: u64,
    available: Cell<u64>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    n: u64,
    granted: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Semaphore {
    /// A semaphore of `total` permits, all free.
    pub fn new(total: u64) -> Semaphore {
        let shared = Shared { total, available: Cell::new(total), waiters: RefCell::default() };
        Semaphore { shared: Rc::new(shared) }
    }

    /// Waits in line for `n` permits. More than the total is taken as the total: an oversized user runs alone
    /// instead of never.
    pub async fn acquire(&self, n: u64) -> Permit {
        Acquire { semaphore: self, n: n.min(self.shared.total), waiter: None }.await
    }

    /// `n` permits (capped as in [`Semaphore::acquire`]) if they are free and nobody waits.
    pub fn try_acquire(&self, n: u64) -> Option<Permit> {
        let n = n.min(self.shared.total);
        if !self.shared.waiters.borrow().is_empty() || self.shared.available.get() < n {
            return None;
        }
        self.shared.available.set(self.shared.available.get() - n);
        Some(Permit { shared: Rc::clone(&self.shared), n })
    }

    /// Permits free now.
    pub fn available(&self) -> u64 {
        self.shared.available.get()
    }

    /// All permits, free or held.
    pub fn total(&self) -> u64 {
        self.shared.total
    }

    /// How many wait in line.
    pub fn waiting(&self) -> usize {
        self.shared.waiters.borrow().len()
    }
}

impl Shared {
    fn give_back(&self, n: u64) {
        self.available.set(self.available.get() + n);
        self.grant();
    }

    fn grant(&self) {
        loop {
            let next = {
                let mut waiters = self.waiters.borrow_mut();
                match waiters.front() {
                    Some(first) if first.n <= self.available.get() => waiters.pop_front(),
                    _ => None,
                }
            };
            let Some(waiter) = next else { return };
            self.available.set(self.available.get() - waiter.n);
            waiter.granted.set(true);
            let waker = waiter.waker.borrow().clone();
            waker.wake();
        }
    }
}

struct Acquire<'a> {
    semaphore: &'a Semaphore,
    n: u64,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        match &self.waiter {
            None => {
                if let Some(permit) = self.semaphore.try_acquire(self.n) {
                    return Poll::Ready(permit);
                }
                let waiter = Rc::new(Waiter {
                    n: self.n,
                    granted: Cell::new(false),
                    waker: RefCell::new(cx.waker().clone()),
                });
                self.semaphore.shared.waiters.borrow_mut().push_back(Rc::clone(&waiter));
                self.waiter = Some(waiter);
                Poll::Pending
            }
            Some(waiter) if waiter.granted.get() => {
                self.waiter = None;
                Poll::Ready(Permit { shared: Rc::clone(&self.semaphore.shared), n: self.n })
            }
            Some(waiter) => {
                waiter.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        let shared = &self.semaphore.shared;
        if waiter.granted.get() {
            shared.give_back(self.n);
        } else {
            shared.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
            // It may have been what the line waited behind.
            shared.grant();
        }
    }
}

/// Permits held; given back on drop.
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    shared: Rc<Shared>,
    n: u64,
}

impl Permit {
    /// How many permits are held.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// Takes `n` of the held permits off into a permit of their own. Panics if fewer are held.
    pub fn split(&mut self, n: u64) -> Permit {
        assert!(n <= self.n, "{n} permits split off {} held", self.n);
        self.n -= n;
        Permit { shared: Rc::clone(&self.shared), n }
    }

    /// Takes another permit of the same semaphore in. Panics if it is of another.
    pub fn merge(&mut self, mut other: Permit) {
        assert!(Rc::ptr_eq(&self.shared, &other.shared), "permits of two semaphores cannot be one");
        self.n += std::mem::take(&mut other.n);
    }

    /// Gives `n` of the held permits back now. Panics if fewer are held.
    pub fn release(&mut self, n: u64) {
        drop(self.split(n));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.n > 0 {
            self.shared.give_back(self.n);
        }
    }
}
