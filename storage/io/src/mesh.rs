//! Mailboxes between the cores of one process: a bounded queue for each ordered pair of cores.

use std::marker::PhantomData;

/// The other side is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiving core has gone")]
pub struct Disconnected;

/// Why nothing was sent; the value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    #[error("the mailbox is full")]
    Full(T),
    #[error("the receiver has gone")]
    Disconnected(T),
}

/// One core's place in a mesh; made anywhere, carried to its core, joined there.
pub struct Seat<T> {
    inner: PhantomData<T>,
}

/// `cores` seats; each ordered pair of cores has a queue of `capacity` messages, in order.
pub fn mesh<T: Send>(_cores: usize, _capacity: usize) -> Vec<Seat<T>> {
    unimplemented!()
}

impl<T: Send> Seat<T> {
    /// Takes the seat on core `core`. Seat `i` of [`mesh`] is for core `i` (asserted).
    pub async fn join(self, _core: usize) -> (Senders<T>, Receiver<T>) {
        unimplemented!()
    }
}

/// This core's ways out.
pub struct Senders<T> {
    inner: PhantomData<T>,
}

impl<T: Send> Senders<T> {
    /// Sends to core `to`, waiting (in the order of calls) while its queue is full.
    pub async fn send(&self, _to: usize, _message: T) -> Result<(), Disconnected> {
        unimplemented!()
    }

    /// Sends to core `to` if there is room and nobody waits.
    pub fn try_send(&self, _to: usize, _message: T) -> Result<(), TrySendError<T>> {
        unimplemented!()
    }
}

/// This core's way in.
pub struct Receiver<T> {
    inner: PhantomData<T>,
}

impl<T: Send> Receiver<T> {
    /// The next message and the core it came from; fair among cores; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<(usize, T)> {
        unimplemented!()
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<(usize, T)> {
        unimplemented!()
    }
}
