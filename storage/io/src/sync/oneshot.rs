//! One value from one task to another.

use super::Closed;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

pub fn oneshot<T>() -> (OneshotSender<T>, OneshotReceiver<T>) {
    unimplemented!()
}

pub struct OneshotSender<T>(PhantomData<T>);

impl<T> OneshotSender<T> {
    /// Gives the value back when the receiver is gone.
    pub fn send(self, _value: T) -> Result<(), T> {
        unimplemented!()
    }
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }
}

pub struct OneshotReceiver<T>(PhantomData<T>);

impl<T> Future for OneshotReceiver<T> {
    type Output = Result<T, Closed>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        unimplemented!()
    }
}
