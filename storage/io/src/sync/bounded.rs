//! A bounded queue between tasks of one core.

use super::Closed;
use crate::TrySendError;
use std::marker::PhantomData;

/// A queue of `capacity` values.
pub fn bounded<T>(_capacity: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    unimplemented!()
}

pub struct QueueSender<T>(PhantomData<T>);

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<T> QueueSender<T> {
    /// Waits (in the order of calls) while the queue is full.
    pub async fn send(&self, _value: T) -> Result<(), Closed> {
        unimplemented!()
    }
    pub fn try_send(&self, _value: T) -> Result<(), TrySendError<T>> {
        unimplemented!()
    }
}

pub struct QueueReceiver<T>(PhantomData<T>);

impl<T> QueueReceiver<T> {
    /// The next value; `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        unimplemented!()
    }
    pub fn try_recv(&mut self) -> Option<T> {
        unimplemented!()
    }
}
