//! Mailboxes between the cores of one process: a bounded queue (a lane) for each ordered pair of cores.
//!
//! A lane is lock-free and has one sending and one receiving core. The receiving core is woken at most once until
//! it has looked again, so a burst of messages costs one wake-up.

use crate::sync::Semaphore;
use crate::turn;
use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver has gone")]
pub struct Disconnected;

/// Why nothing was sent; the value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    #[error("the mailbox is full")]
    Full(T),
    #[error("the receiver has gone")]
    Disconnected(T),
}

struct Lane<T> {
    capacity: usize,
    /// Made for the first message: of thousands of pairs of cores, few have any.
    queue: OnceLock<ArrayQueue<T>>,
    /// The sending core, when it waits for room.
    sender: AtomicWaker,
    /// The receiving core, when it waits for messages; shared by all lanes that end there.
    receiver: Arc<AtomicWaker>,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
}

/// One core's place in a mesh; made anywhere, carried to its core, joined there.
pub struct Seat<T> {
    core: usize,
    out: Out<T>,
    inbox: Receiver<T>,
}

/// `cores` seats; each ordered pair of cores (a core and itself included) has a lane of `capacity` messages, in order.
pub fn mesh<T: Send>(cores: usize, capacity: usize) -> Vec<Seat<T>> {
    assert!(cores > 0 && capacity > 0, "a mesh needs a core and room for one message");
    let wakers: Vec<Arc<AtomicWaker>> = (0..cores).map(|_| Arc::default()).collect();
    // lanes[from][to]
    let lanes: Vec<Vec<Arc<Lane<T>>>> = (0..cores)
        .map(|_| {
            let lane = |to: usize| Lane {
                capacity,
                queue: OnceLock::new(),
                sender: AtomicWaker::new(),
                receiver: Arc::clone(&wakers[to]),
                sender_gone: AtomicBool::new(false),
                receiver_gone: AtomicBool::new(false),
            };
            (0..cores).map(|to| Arc::new(lane(to))).collect()
        })
        .collect();
    (0..cores)
        .map(|core| Seat {
            core,
            out: Out { lanes: lanes[core].clone() },
            inbox: Receiver {
                lanes: lanes.iter().map(|from| Arc::clone(&from[core])).collect(),
                waker: Arc::clone(&wakers[core]),
                next: 0,
                told_gone: vec![false; cores],
            },
        })
        .collect()
}

impl<T: Send> Seat<T> {
    /// Takes the seat on core `core`. Seat `i` of [`mesh`] is for core `i` (asserted).
    pub async fn join(self, core: usize) -> (Senders<T>, Receiver<T>) {
        assert_eq!(self.core, core, "a mesh seat is taken by its own core");
        let lines = (0..self.out.lanes.len()).map(|_| Semaphore::new(1)).collect();
        (Senders { out: self.out, lines }, self.inbox)
    }
}

struct Out<T> {
    lanes: Vec<Arc<Lane<T>>>,
}

impl<T> Drop for Out<T> {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.sender_gone.store(true, Ordering::Release);
            lane.receiver.wake();
        }
    }
}

/// This core's ways out.
pub struct Senders<T> {
    out: Out<T>,
    /// For each target: tasks of this core that wait for room, in line; the first holds the permit.
    lines: Vec<Semaphore>,
}

impl<T: Send> Senders<T> {
    /// Sends to core `to`, waiting (in the order of calls) while its lane is full. A dropped send has sent nothing.
    pub async fn send(&self, to: usize, message: T) -> Result<(), Disconnected> {
        let mut message = match self.try_send(to, message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(Disconnected),
            Err(TrySendError::Full(message)) => Some(message),
        };
        let _first_in_line = self.lines[to].acquire(1).await;
        let lane = &self.out.lanes[to];
        poll_fn(|cx| lane.poll_push(&mut message, cx)).await
    }

    /// Sends to core `to` if there is room and nobody waits for it.
    pub fn try_send(&self, to: usize, message: T) -> Result<(), TrySendError<T>> {
        if self.lines[to].available() == 0 {
            return Err(TrySendError::Full(message));
        }
        self.out.lanes[to].push(message)
    }
}

impl<T> Lane<T> {
    fn push(&self, message: T) -> Result<(), TrySendError<T>> {
        if self.receiver_gone.load(Ordering::Acquire) {
            return Err(TrySendError::Disconnected(message));
        }
        let queue = self.queue.get_or_init(|| ArrayQueue::new(self.capacity));
        queue.push(message).map_err(TrySendError::Full)?;
        turn::operation();
        self.receiver.wake();
        Ok(())
    }

    fn pop(&self) -> Option<T> {
        self.queue.get()?.pop()
    }

    fn poll_push(&self, message: &mut Option<T>, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        // Second try after registering: room made between the first try and the registration would wake nobody.
        for registered in [false, true] {
            if registered {
                self.sender.register(cx.waker());
            }
            let Some(value) = message.take() else { unreachable!("polled after it was done") };
            match self.push(value) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(TrySendError::Disconnected(_)) => return Poll::Ready(Err(Disconnected)),
                Err(TrySendError::Full(value)) => *message = Some(value),
            }
        }
        Poll::Pending
    }
}

/// This core's way in.
pub struct Receiver<T> {
    /// By sending core.
    lanes: Vec<Arc<Lane<T>>>,
    waker: Arc<AtomicWaker>,
    /// Where the next look starts, so that no core starves another.
    next: usize,
    /// Of which cores it was said that they send no more.
    told_gone: Vec<bool>,
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<T> {
    Message(T),
    /// The core sends no more, and all that it sent has been received.
    Gone,
}

impl<T: Send> Receiver<T> {
    /// The next message and the core it came from; fair among cores; `None` when all senders are gone.
    pub async fn recv(&mut self) -> Option<(usize, T)> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Receiver::recv`], and says once of each core that it has gone.
    pub async fn recv_or_gone(&mut self) -> Option<(usize, Received<T>)> {
        poll_fn(|cx| self.poll_recv_or_gone(cx)).await
    }

    fn poll_recv_or_gone(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Received<T>)>> {
        for registered in [false, true] {
            if registered {
                self.waker.register(cx.waker());
            }
            // Read before the look for messages: a sender pushes first and leaves after.
            let has_gone = |from: &usize| {
                !self.told_gone[*from] && self.lanes[*from].sender_gone.load(Ordering::Acquire)
            };
            let gone = (0..self.lanes.len()).find(has_gone);
            if let Some((from, message)) = self.try_recv() {
                return Poll::Ready(Some((from, Received::Message(message))));
            }
            if let Some(from) = gone {
                self.told_gone[from] = true;
                return Poll::Ready(Some((from, Received::Gone)));
            }
        }
        if self.told_gone.contains(&false) { Poll::Pending } else { Poll::Ready(None) }
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<(usize, T)> {
        let cores = self.lanes.len();
        for i in 0..cores {
            let from = (self.next + i) % cores;
            if let Some(message) = self.lanes[from].pop() {
                self.next = from + 1;
                turn::operation();
                self.lanes[from].sender.wake();
                return Some((from, message));
            }
        }
        None
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, T)>> {
        if let Some(found) = self.try_recv() {
            return Poll::Ready(Some(found));
        }
        self.waker.register(cx.waker());
        // Read before the last look: a sender pushes first and leaves after.
        let all_gone = self.lanes.iter().all(|lane| lane.sender_gone.load(Ordering::Acquire));
        match self.try_recv() {
            Some(found) => Poll::Ready(Some(found)),
            None if all_gone => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.receiver_gone.store(true, Ordering::Release);
            lane.sender.wake();
            // What is left may hold replies that somebody awaits.
            while lane.pop().is_some() {}
        }
    }
}
