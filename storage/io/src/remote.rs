//! A bounded mailbox from foreign threads (the service thread, a test) to a core.

use crate::{Disconnected, TrySendError};
use std::marker::PhantomData;

/// The sending side, for any thread.
pub struct RemoteSender<T> {
    inner: PhantomData<T>,
}

impl<T> Clone for RemoteSender<T> {
    fn clone(&self) -> Self {
        RemoteSender { inner: PhantomData }
    }
}

/// The receiving side; Send, so that it can be carried to its core.
pub struct RemoteReceiver<T> {
    inner: PhantomData<T>,
}

/// A queue of `capacity` messages from any thread to one core.
pub fn remote<T: Send>(_capacity: usize) -> (RemoteSender<T>, RemoteReceiver<T>) {
    unimplemented!()
}

impl<T: Send> RemoteSender<T> {
    /// Sends, waiting while the queue is full. Works under any executor.
    pub async fn send(&self, _message: T) -> Result<(), Disconnected> {
        unimplemented!()
    }

    /// Sends if there is room.
    pub fn try_send(&self, _message: T) -> Result<(), TrySendError<T>> {
        unimplemented!()
    }

    /// Sends, blocking the calling thread while the queue is full. Never call it on a core.
    pub fn blocking_send(&self, _message: T) -> Result<(), Disconnected> {
        unimplemented!()
    }
}

impl<T: Send> RemoteReceiver<T> {
    /// The next message; `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        unimplemented!()
    }
}
