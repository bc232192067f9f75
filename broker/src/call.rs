//! Calls between the shards of one process.
//!
//! A call is a closure that runs on the shard it is sent to, with that shard's [`Shard`] in hand; its result
//! travels back by mailbox. Nothing is shared: what goes in and what comes out is moved. Calls from one shard
//! to another are *begun* in the order they were sent, which is what keeps a producer's batches in order.
//!
//! Two meshes are used so that a shard that is busy with calls can still take in replies: calls are bounded
//! ([`CALLS_RUNNING_MAX`] run at once, the rest wait in the mailbox), replies are always taken. What waits for people
//! or peers is asked ([`Shard::ask`]) and counts outside that bound: a full pool of it would keep everything else out.
//!
//! A call runs to its end whoever waits for it has gone, on another shard or on this one: what it does in two halves
//! is never left between them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotReceiver, OneshotSender, oneshot};
use corelog_io::{Queue, Received, Receiver, Seat, Senders, Task, TrySendError, yield_if_needed};
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::ids::ShardId;
use crate::shard::Shard;

/// Messages that may wait for one shard, of all others together: what each of many shards has a part of.
const MESSAGES_MAX: usize = 8192;
/// Calls of other shards that run on one shard at once.
pub const CALLS_RUNNING_MAX: usize = 4096;
/// Calls that are taken before those that run are looked after.
const CALLS_TAKEN_MAX: usize = 32;

/// Messages that may wait in one mailbox (one pair of shards, one direction).
fn mailbox_capacity(shards: usize) -> usize {
    (MESSAGES_MAX / shards).clamp(64, 1024)
}

type Value = Box<dyn Any + Send>;
type Running = Pin<Box<dyn Future<Output = Value>>>;
type PostedWork = Box<dyn FnOnce(&Rc<Shard>) + Send>;
type Work = Box<dyn FnOnce(Rc<Shard>) -> Running + Send>;

/// A call on its way to the shard that will run it.
pub enum CallMessage {
    Call {
        id: u64,
        work: Work,
        /// Counts among the calls that run at once.
        counts: bool,
    },
    /// Runs at once and answers nothing.
    Post(PostedWork),
}

/// The result of a call on its way back.
pub struct ReplyMessage {
    id: u64,
    value: Value,
}

/// The two seats a shard takes in the process's meshes.
pub struct CallSeats {
    pub calls: Seat<CallMessage>,
    pub replies: Seat<ReplyMessage>,
}

/// Makes the meshes for `shards` shards.
pub fn meshes(shards: usize) -> Vec<CallSeats> {
    let capacity = mailbox_capacity(shards);
    let calls = corelog_io::mesh(shards, capacity);
    let replies = corelog_io::mesh(shards, capacity);
    calls.into_iter().zip(replies).map(|(calls, replies)| CallSeats { calls, replies }).collect()
}

/// The other shard ended (the process is stopping) before it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard that owns this partition is shutting down")]
pub struct ShardGone;

/// One shard's end of the mesh: sends calls and matches replies to the callers that wait for them.
pub struct Calls {
    calls: Senders<CallMessage>,
    waiting: RefCell<BTreeMap<u64, (ShardId, OneshotSender<Value>)>>,
    next_id: Cell<u64>,
    /// By shard.
    peers: Vec<Peer>,
}

#[derive(Default)]
struct Peer {
    /// It has ended, and answers nothing any more.
    is_gone: Cell<bool>,
    /// Posts that found its mailbox full, in order. There is one for each connection that closes, for each fetch list
    /// that is given up and for each that waits and has news: as many as there may be of these, and no more.
    posts: RefCell<VecDeque<CallMessage>>,
    /// A task carries them over.
    is_carried: Cell<bool>,
}

/// A reply that has not come yet. Dropping it gives the reply up; the call itself runs to its end.
pub struct Reply<T> {
    shard: Rc<Shard>,
    id: u64,
    receiver: OneshotReceiver<Value>,
    has_come: bool,
    _result: std::marker::PhantomData<T>,
}

impl<T: 'static> Reply<T> {
    pub async fn wait(mut self) -> Result<T, ShardGone> {
        let value = (&mut self.receiver).await;
        self.has_come = true;
        let value = value.map_err(|_| ShardGone)?;
        Ok(*value.downcast::<T>().expect("a reply carries the type its call returns"))
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.has_come {
            self.shard.calls.waiting.borrow_mut().remove(&self.id);
        }
    }
}

impl Calls {
    /// Calls that other shards have not answered yet.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Nobody waits any longer for a shard that has ended.
    fn peer_has_gone(&self, peer: ShardId) {
        self.peers[peer.0].is_gone.set(true);
        let of_peer: Vec<_> = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.extract_if(.., |_, (to, _)| *to == peer).collect()
        };
        drop(of_peer);
    }

    /// Takes the seats and starts the tasks that serve calls and replies. `shard` is handed out only once it is
    /// built, so it comes through a cell.
    pub async fn join(
        seats: CallSeats,
        core: usize,
    ) -> (Calls, Receiver<CallMessage>, Senders<ReplyMessage>, Receiver<ReplyMessage>) {
        let (calls, call_receiver) = seats.calls.join(core).await;
        let (reply_senders, reply_receiver) = seats.replies.join(core).await;
        let peers = (0..corelog_io::cores()).map(|_| Peer::default()).collect();
        let calls = Calls { calls, waiting: RefCell::default(), next_id: Cell::new(0), peers };
        (calls, call_receiver, reply_senders, reply_receiver)
    }
}

impl Shard {
    /// Sends `work` to `to` and returns when it is in that shard's mailbox: its place in the order is fixed.
    pub async fn send_call<T, F, Fut>(self: &Rc<Self>, to: ShardId, work: F) -> Result<Reply<T>, ShardGone>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.send(to, work, true).await
    }

    async fn send<T, F, Fut>(
        self: &Rc<Self>,
        to: ShardId,
        work: F,
        counts: bool,
    ) -> Result<Reply<T>, ShardGone>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if self.calls.peers[to.0].is_gone.get() {
            return Err(ShardGone);
        }
        let id = self.calls.next_id.get();
        self.calls.next_id.set(id + 1);
        let (sender, receiver) = oneshot();
        self.calls.waiting.borrow_mut().insert(id, (to, sender));
        let reply =
            Reply { shard: self.clone(), id, receiver, has_come: false, _result: std::marker::PhantomData };
        let work: Work = Box::new(move |shard| {
            let future = work(shard);
            Box::pin(async move { Box::new(future.await) as Value })
        });
        self.calls.calls.send(to.0, CallMessage::Call { id, work, counts }).await.map_err(|_| ShardGone)?;
        Ok(reply)
    }

    /// Runs `work` on shard `to`, which may be this one, and waits for its result.
    pub async fn on<T, F, Fut>(self: &Rc<Self>, to: ShardId, work: F) -> Result<T, ShardGone>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if to == self.id {
            return Ok(Here(Some(Box::pin(work(self.clone())))).await);
        }
        self.send(to, work, true).await?.wait().await
    }

    /// As [`Shard::on`], for work that waits for others: members of a group, a turn at the controller. However many
    /// wait, other calls are served; what they wait for bounds them.
    pub async fn ask<T, F, Fut>(self: &Rc<Self>, to: ShardId, work: F) -> Result<T, ShardGone>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        if to == self.id {
            return self.on(to, work).await;
        }
        self.send(to, work, false).await?.wait().await
    }

    /// Has `to` run `work` some time soon; nobody waits for it.
    pub fn post(self: &Rc<Self>, to: ShardId, work: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        if to == self.id {
            return work(self);
        }
        let message = CallMessage::Post(Box::new(work));
        let peer = &self.calls.peers[to.0];
        if peer.is_carried.get() {
            return peer.posts.borrow_mut().push_back(message);
        }
        if let Err(TrySendError::Full(message)) = self.calls.calls.try_send(to.0, message) {
            peer.posts.borrow_mut().push_back(message);
            peer.is_carried.set(true);
            corelog_io::spawn(Queue::Produce, carry_posts(self.clone(), to)).detach();
        }
    }

    /// Runs a copy of `work` on every shard at once; results are in shard order.
    pub async fn on_all<T, F, Fut>(self: &Rc<Self>, work: F) -> Result<Vec<T>, ShardGone>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Shard>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let calls = (0..self.shards).map(|to| self.on(ShardId(to), work.clone()));
        futures_util::future::join_all(calls).await.into_iter().collect()
    }
}

/// Work of this shard for itself. Given up, it goes on in a task of its own, as a call to another shard does there.
struct Here<F: Future<Output: 'static> + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: 'static> + 'static> Future for Here<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let work = self.0.as_mut().expect("it is not polled once it has ended");
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<F: Future<Output: 'static> + 'static> Drop for Here<F> {
    fn drop(&mut self) {
        if let Some(rest) = self.0.take()
            && !planted(Fault::ChangeGivenUpHalfway)
        {
            corelog_io::spawn(Queue::Produce, rest).detach();
        }
    }
}

/// Sends what was posted to a full mailbox, in its order.
async fn carry_posts(shard: Rc<Shard>, to: ShardId) {
    let peer = &shard.calls.peers[to.0];
    loop {
        let next = peer.posts.borrow_mut().pop_front();
        let Some(message) = next else { break };
        // Of one that is gone nothing is left to be told.
        let _ = shard.calls.calls.send(to.0, message).await;
        yield_if_needed().await;
    }
    peer.is_carried.set(false);
}

/// Serves other shards' calls until the meshes close. Calls run concurrently inside this one task: spawning a
/// task for each would take the executor's process-wide lock on the hot path. The task gives way when it has had its
/// time: however full the mailbox is, the core's sockets, timers and journal go on.
pub async fn serve_calls(shard: Rc<Shard>, mut calls: Receiver<CallMessage>, replies: Senders<ReplyMessage>) {
    let replies = Rc::new(replies);
    let mut running = FuturesUnordered::new();
    // Those of them that count.
    let mut counted: usize = 0;
    let mut taken = 0;
    loop {
        yield_if_needed().await;
        if counted >= CALLS_RUNNING_MAX {
            counted -= running.next().await.map_or(0, usize::from);
            continue;
        }
        if taken >= CALLS_TAKEN_MAX {
            taken = 0;
            // Among many new calls those that run are polled too.
            let polled = poll_fn(|cx| Poll::Ready(running.poll_next_unpin(cx))).await;
            counted -= usize::from(matches!(polled, Poll::Ready(Some(true))));
        }
        let received = if running.is_empty() {
            calls.recv().await
        } else {
            let next_call = std::pin::pin!(calls.recv());
            match select(next_call, running.next()).await {
                Either::Left((received, _)) => received,
                Either::Right((ended, _)) => {
                    counted -= ended.map_or(0, usize::from);
                    continue;
                }
            }
        };
        let Some((from, message)) = received else { return };
        taken += 1;
        let (id, work, counts) = match message {
            CallMessage::Call { id, work, counts } => (id, work, counts),
            CallMessage::Post(work) => {
                work(&shard);
                continue;
            }
        };
        let future = work(shard.clone());
        let replies = replies.clone();
        counted += usize::from(counts);
        running.push(async move {
            let value = future.await;
            // A shard that is gone waits for no reply.
            let _ = replies.send(from, ReplyMessage { id, value }).await;
            counts
        });
    }
}

/// Hands replies to the callers that wait for them.
pub async fn serve_replies(shard: Rc<Shard>, mut replies: Receiver<ReplyMessage>) {
    while let Some((from, received)) = replies.recv_or_gone().await {
        match received {
            Received::Message(ReplyMessage { id, value }) => {
                let waiting = shard.calls.waiting.borrow_mut().remove(&id);
                if let Some((_, sender)) = waiting {
                    let _ = sender.send(value);
                }
            }
            Received::Gone => shard.calls.peer_has_gone(ShardId(from)),
        }
        yield_if_needed().await;
    }
}

/// Starts the two tasks above. When they are dropped, the other shards learn that this one is gone.
#[must_use = "dropped, the tasks end"]
pub fn start(
    shard: &Rc<Shard>,
    calls: Receiver<CallMessage>,
    reply_senders: Senders<ReplyMessage>,
    replies: Receiver<ReplyMessage>,
) -> [Task<()>; 2] {
    [
        corelog_io::spawn(Queue::Produce, serve_calls(shard.clone(), calls, reply_senders)),
        corelog_io::spawn(Queue::Produce, serve_replies(shard.clone(), replies)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_of_many_shards_are_small() {
        for (shards, capacity) in [(1, 1024), (8, 1024), (64, 128), (192, 64)] {
            assert_eq!(mailbox_capacity(shards), capacity);
        }
    }
}
