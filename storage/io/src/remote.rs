//! A bounded mailbox from foreign threads (the service thread, a test) to a core.
//!
//! The one place where a data core meets a lock: foreign threads are many and unknown, messages are rare (an admin
//! request, a scrape), and the lock is held for a push or a pop alone.

use crate::{Disconnected, TrySendError};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

#[expect(clippy::disallowed_types, reason = "the boundary to foreign threads: see the module's note")]
type Lock<T> = std::sync::Mutex<T>;

struct Mailbox<T> {
    messages: VecDeque<T>,
    capacity: usize,
    receiver: Option<Waker>,
    /// Senders that wait for room; all are woken when some is made (they are few).
    waiting: Vec<Waker>,
    senders: usize,
    receiver_gone: bool,
}

struct Shared<T>(Lock<Mailbox<T>>);

impl<T> Shared<T> {
    fn with<R>(&self, f: impl FnOnce(&mut Mailbox<T>) -> R) -> R {
        // A panic anywhere ends the process, so a poisoned lock is a mailbox in a consistent state.
        f(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// A queue of `capacity` messages (at least 1) from any thread to one core.
pub fn remote<T: Send>(capacity: usize) -> (RemoteSender<T>, RemoteReceiver<T>) {
    assert!(capacity > 0, "a mailbox needs room for one message");
    let mailbox = Mailbox {
        messages: VecDeque::new(),
        capacity,
        receiver: None,
        waiting: Vec::new(),
        senders: 1,
        receiver_gone: false,
    };
    let shared = Arc::new(Shared(Lock::new(mailbox)));
    (RemoteSender { shared: Arc::clone(&shared) }, RemoteReceiver { shared })
}

/// The sending side, for any thread.
pub struct RemoteSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> RemoteSender<T> {
    /// Sends, waiting while the queue is full. Works under any executor.
    pub async fn send(&self, message: T) -> Result<(), Disconnected> {
        let mut message = Some(message);
        poll_fn(|cx| {
            let Some(value) = message.take() else { unreachable!("polled after it was done") };
            match self.push(value, Some(cx)) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Disconnected(_)) => Poll::Ready(Err(Disconnected)),
                Err(TrySendError::Full(value)) => {
                    message = Some(value);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Sends if there is room.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.push(message, None)
    }

    /// Sends, blocking the calling thread while the queue is full. Never call it on a core.
    pub fn blocking_send(&self, message: T) -> Result<(), Disconnected> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut sending = pin!(self.send(message));
        loop {
            match sending.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    fn push(&self, message: T, waiting: Option<&Context<'_>>) -> Result<(), TrySendError<T>> {
        let receiver = self.shared.with(|mailbox| {
            if mailbox.receiver_gone {
                return Err(TrySendError::Disconnected(message));
            }
            if mailbox.messages.len() >= mailbox.capacity {
                if let Some(cx) = waiting
                    && !mailbox.waiting.iter().any(|waker| waker.will_wake(cx.waker()))
                {
                    mailbox.waiting.push(cx.waker().clone());
                }
                return Err(TrySendError::Full(message));
            }
            mailbox.messages.push_back(message);
            Ok(mailbox.receiver.take())
        })?;
        if let Some(waker) = receiver {
            waker.wake();
        }
        Ok(())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Clone for RemoteSender<T> {
    fn clone(&self) -> Self {
        self.shared.with(|mailbox| mailbox.senders += 1);
        RemoteSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for RemoteSender<T> {
    fn drop(&mut self) {
        let receiver = self.shared.with(|mailbox| {
            mailbox.senders -= 1;
            if mailbox.senders == 0 { mailbox.receiver.take() } else { None }
        });
        if let Some(waker) = receiver {
            waker.wake();
        }
    }
}

/// The receiving side; Send, so that it can be carried to its core.
pub struct RemoteReceiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> RemoteReceiver<T> {
    /// The next message; `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let (message, waiting) = self.shared.with(|mailbox| match mailbox.messages.pop_front() {
            Some(message) => (Poll::Ready(Some(message)), std::mem::take(&mut mailbox.waiting)),
            None if mailbox.senders == 0 => (Poll::Ready(None), Vec::new()),
            None => {
                mailbox.receiver = Some(cx.waker().clone());
                (Poll::Pending, Vec::new())
            }
        });
        waiting.into_iter().for_each(Waker::wake);
        message
    }
}

impl<T> Drop for RemoteReceiver<T> {
    fn drop(&mut self) {
        let (messages, waiting) = self.shared.with(|mailbox| {
            mailbox.receiver_gone = true;
            (std::mem::take(&mut mailbox.messages), std::mem::take(&mut mailbox.waiting))
        });
        waiting.into_iter().for_each(Waker::wake);
        drop(messages);
    }
}
