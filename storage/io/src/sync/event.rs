//! Something that happens again and again, with any number of waiters.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Wakes all who listen. Take the [`Listener`] first, look at the state, then await: no wake-up is missed.
#[derive(Default)]
pub struct Event(());

impl Event {
    pub fn new() -> Event {
        Event::default()
    }
    /// Completes when the event is notified after this call.
    pub fn listen(&self) -> Listener {
        unimplemented!()
    }
    /// Completes every listener taken so far.
    pub fn notify_all(&self) {
        unimplemented!()
    }
}

/// Waits for the next [`Event::notify_all`]; also completes when the event is dropped.
pub struct Listener(());

impl Future for Listener {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        unimplemented!()
    }
}
