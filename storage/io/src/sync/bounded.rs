//! A bounded queue between tasks of one core.

use super::{Closed, Permit, Semaphore};
use crate::TrySendError;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Shared<T> {
    /// Each value holds the room it takes; senders wait for room in line.
    values: RefCell<VecDeque<(T, Permit)>>,
    room: Semaphore,
    receiver: RefCell<Option<Waker>>,
    senders: Cell<usize>,
    receiver_gone: Cell<bool>,
}

/// A queue of at most `capacity` values (at least 1).
pub fn bounded<T>(capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    assert!(capacity > 0, "a queue needs room for one value");
    let shared = Rc::new(Shared {
        values: RefCell::default(),
        room: Semaphore::new(capacity as u64),
        receiver: RefCell::default(),
        senders: Cell::new(1),
        receiver_gone: Cell::new(false),
    });
    (QueueSender { shared: Rc::clone(&shared) }, QueueReceiver { shared })
}

/// The sending side; clones send into the same queue.
pub struct QueueSender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> QueueSender<T> {
    /// Waits (in the order of calls) while the queue is full.
    pub async fn send(&self, value: T) -> Result<(), Closed> {
        let permit = self.shared.room.acquire(1).await;
        self.push(value, permit).map_err(|_| Closed)
    }

    /// Sends if there is room and nobody waits for it.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Disconnected(value));
        }
        match self.shared.room.try_acquire(1) {
            Some(permit) => self.push(value, permit).map_err(TrySendError::Disconnected),
            None => Err(TrySendError::Full(value)),
        }
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.get()
    }

    fn push(&self, value: T, permit: Permit) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.shared.values.borrow_mut().push_back((value, permit));
        self.shared.wake_receiver();
        Ok(())
    }
}

impl<T> Shared<T> {
    fn wake_receiver(&self) {
        let waker = self.receiver.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        QueueSender { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        self.shared.senders.set(self.shared.senders.get() - 1);
        if self.shared.senders.get() == 0 {
            self.shared.wake_receiver();
        }
    }
}

/// The receiving side.
pub struct QueueReceiver<T> {
    shared: Rc<Shared<T>>,
}

impl<T> QueueReceiver<T> {
    /// The next value; `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// A value that is there already.
    pub fn try_recv(&mut self) -> Option<T> {
        let next = self.shared.values.borrow_mut().pop_front();
        if next.is_some() {
            crate::turn::operation();
        }
        next.map(|(value, _room)| value)
    }

    /// Values waiting.
    pub fn len(&self) -> usize {
        self.shared.values.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.try_recv() {
            return Poll::Ready(Some(value));
        }
        if self.shared.senders.get() == 0 {
            return Poll::Ready(None);
        }
        *self.shared.receiver.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.set(true);
        // Dropping the values gives their room back, which lets waiting senders see that nobody receives.
        let values = self.shared.values.take();
        drop(values);
    }
}
