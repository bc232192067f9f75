//! Waiting for a journal group to be on stable storage.

use crate::error::StorageError;
use corelog_io::sync::{Event, Listener};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// What became of one group; shared by all who wait for it.
#[derive(Default)]
pub struct Completion {
    event: Event,
    outcome: RefCell<Option<Result<(), StorageError>>>,
}

impl Completion {
    pub fn complete(&self, outcome: Result<(), StorageError>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.event.notify_all();
    }
}

/// Completes when an append (and every append of the shard before it) is on stable storage.
///
/// An error says that it is *not known* to be: after a restart it may be there or not.
#[must_use = "an append is acknowledged when this completes"]
pub struct Durable {
    /// `None`: it is durable already.
    completion: Option<Rc<Completion>>,
    listener: Option<Listener>,
}

impl Durable {
    pub(crate) fn new(completion: Rc<Completion>) -> Durable {
        Durable { completion: Some(completion), listener: None }
    }

    /// Of what is durable already.
    pub(crate) fn already() -> Durable {
        Durable { completion: None, listener: None }
    }

    /// Of what nobody will ever know to be durable.
    pub(crate) fn failed(error: StorageError) -> Durable {
        let completion = Rc::new(Completion::default());
        completion.complete(Err(error));
        Durable::new(completion)
    }
}

impl Future for Durable {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(completion) = &this.completion else { return Poll::Ready(Ok(())) };
        loop {
            if let Some(outcome) = &*completion.outcome.borrow() {
                return Poll::Ready(outcome.clone());
            }
            let listener = this.listener.get_or_insert_with(|| completion.event.listen());
            match Pin::new(listener).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => this.listener = None,
            }
        }
    }
}
