//! The core's ring: file I/O and readiness of sockets, and the place where the core sleeps.
//!
//! Operations are queued during a turn of the core; the first of a turn wakes the reactor ([`Core::start`]), which
//! submits them all at once and takes in what has completed. When nothing can run, one system call submits and sleeps
//! until something completes, a timer is due or another thread signals.
//!
//! [`Core::start`]: super::Core::start
//!
//! An operation's entry owns everything the kernel uses (memory, paths, the descriptor) until its completion is in.
//! A dropped [`Operation`] only gives up the result.

use super::fd::Fd;
use super::file::READS_UNDER_WAY_MAX;
use super::roster::Roster;
use crate::AlignedBuf;
use crate::Instant;
use crate::sync::{Permit, Semaphore};
use bytes::Bytes;
use io_uring::{IoUring, opcode, squeue, types};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// user_data of operations whose completion nobody looks at (cancellations, background closes).
const UNATTENDED: u64 = u64::MAX;
/// user_data of the wait for other threads' signal.
const SIGNAL: u64 = u64::MAX - 1;

/// The core sleeps no longer at a time: the kernel adds its clock to a time limit, and a sum beyond 2^63 nanoseconds is in
/// the past.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// What the kernel uses during an operation.
#[expect(dead_code, reason = "the values are held, not read")]
pub(crate) enum Hold {
    Nothing,
    /// The read's place among the bytes that are read at once is given back with it.
    Buffer {
        buffer: Rc<AlignedBuf>,
        turn: Permit,
    },
    Bytes(Bytes),
    Vectored {
        parts: Vec<Bytes>,
        vectors: Vec<libc::iovec>,
    },
    Path(CString),
}

enum State {
    Waiting(Option<Waker>),
    Done(i32),
    /// The [`Operation`] was dropped.
    Orphan,
}

struct Entry {
    state: State,
    /// Its result is a descriptor, which is closed if nobody takes it.
    opens: bool,
    /// Everything the kernel uses; let go of at the completion.
    held: Option<Held>,
}

#[expect(dead_code, reason = "the values are held, not read")]
struct Held {
    hold: Hold,
    fd: Option<Rc<Fd>>,
    /// This operation's place among the ring's depth; readiness waits have none (one per stream bounds them).
    slot: Option<Permit>,
}

impl Entry {
    /// The descriptor that it opened, if it did.
    fn unclaimed(&self) -> Option<RawFd> {
        match self.state {
            State::Done(fd) if self.opens && fd >= 0 => Some(fd),
            _ => None,
        }
    }
}

pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    entries: RefCell<Slab<Entry>>,
    slots: Semaphore,
    /// Bytes that more reads may put into the disk's queue.
    pub(super) reads: Semaphore,
    unsubmitted: Cell<bool>,
    roster: Arc<Roster>,
    closing: Cell<bool>,
    completed: RefCell<Vec<(u64, i32)>>,
}

impl Ring {
    /// Sets the ring up on the calling core.
    pub(crate) fn start(depth: u32, roster: &Arc<Roster>) -> io::Result<Rc<Ring>> {
        assert!(depth > 0, "a ring needs room for one operation");
        let uring = build(depth)?;
        if !uring.params().is_feature_ext_arg() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring cannot wait with a timeout: run Linux 5.11 or later",
            ));
        }
        let ring = Rc::new(Ring {
            uring: RefCell::new(uring),
            entries: RefCell::new(Slab::with_capacity(depth as usize)),
            slots: Semaphore::new(u64::from(depth)),
            reads: Semaphore::new(READS_UNDER_WAY_MAX),
            unsubmitted: Cell::new(false),
            roster: Arc::clone(roster),
            closing: Cell::new(false),
            completed: RefCell::new(Vec::new()),
        });
        ring.listen();
        Ok(ring)
    }

    /// Waits for the next signal of another thread.
    fn listen(&self) {
        let poll = opcode::PollAdd::new(types::Fd(self.roster.signal()), libc::POLLIN as u32);
        self.push(&poll.build().user_data(SIGNAL));
    }

    /// Queues an operation, waiting while the ring's depth is used up. `entry`'s pointers lie in `hold`; its
    /// descriptor is `fd`'s.
    ///
    /// # Safety
    /// Everything `entry` points to is owned by `hold` and stays in place when `hold` moves.
    pub(crate) async unsafe fn submit(
        self: &Rc<Ring>,
        entry: squeue::Entry,
        fd: Option<Rc<Fd>>,
        hold: Hold,
    ) -> Operation {
        let slot = match self.slots.try_acquire(1) {
            Some(slot) => slot,
            None => self.slots.acquire(1).await,
        };
        // SAFETY: the caller's promise.
        unsafe { self.queue(entry, Held { hold, fd, slot: Some(slot) }) }
    }

    /// Waits until the descriptor is ready for `events` (POLLIN, POLLOUT), has an error or was hung up.
    pub(crate) async fn ready(self: &Rc<Ring>, fd: &Rc<Fd>, events: libc::c_short) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(fd.raw()), events as u32).build();
        let held = Held { hold: Hold::Nothing, fd: Some(Rc::clone(fd)), slot: None };
        // SAFETY: a poll points to no memory.
        let mut operation = unsafe { self.queue(poll, held) };
        operation.cancel_on_drop = true;
        operation.await.map(|_| ())
    }

    /// Closes a descriptor in the background: closing a removed file frees its space, which takes time.
    pub(crate) fn close_unattended(&self, fd: RawFd) {
        if self.closing.get() {
            // SAFETY: the caller owned it, and nothing of this ring uses it.
            unsafe { libc::close(fd) };
            return;
        }
        self.push(&opcode::Close::new(types::Fd(fd)).build().user_data(UNATTENDED));
    }

    unsafe fn queue(self: &Rc<Ring>, sqe: squeue::Entry, held: Held) -> Operation {
        // The core ends: what still runs on it waits until it is dropped. An error would have loops go round for ever.
        let key = if self.closing.get() {
            NEVER
        } else {
            let opens = matches!(held.hold, Hold::Path(_));
            let entry = Entry { state: State::Waiting(None), opens, held: Some(held) };
            let key = self.entries.borrow_mut().insert(entry);
            self.push(&sqe.user_data(key as u64));
            key
        };
        Operation { ring: Rc::clone(self), key, cancel_on_drop: false }
    }

    /// Puts an entry into the submission queue; its memory is owned by this ring already.
    fn push(&self, sqe: &squeue::Entry) {
        loop {
            // SAFETY: whoever made the entry gave what it points to into `entries`, or it points to nothing.
            let pushed = unsafe { self.uring.borrow_mut().submission().push(sqe) };
            if pushed.is_ok() {
                break;
            }
            self.submit_queued();
        }
        if !self.unsubmitted.replace(true) {
            self.roster.wake_reactor();
        }
    }

    /// Submits what is queued and takes in what has completed.
    pub(super) fn flush(&self) {
        // What has completed is only posted when this thread enters the kernel.
        let due = self.unsubmitted.get() || self.uring.borrow_mut().submission().taskrun();
        if due {
            self.submit_queued();
        }
        self.drain();
    }

    /// Submits what is queued and sleeps until an operation completes, or `until`.
    pub(super) fn sleep(&self, until: Option<Instant>) {
        if self.uring.borrow_mut().completion().is_empty() {
            let timespec = until.map(|until| types::Timespec::from(until.since(crate::now()).min(SLEEP_MAX)));
            let mut args = types::SubmitArgs::new();
            if let Some(timespec) = &timespec {
                args = args.timespec(timespec);
            }
            let slept = self.uring.borrow().submitter().submit_with_args(1, &args);
            match slept.map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) => {}
                // The time is over, or the kernel is short of something: what it took is taken in, the rest tried again.
                Err((Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => {}
                Err((_, error)) => panic!("waiting in the ring: {error}"),
            }
            let all_gone = self.uring.borrow_mut().submission().is_empty();
            self.unsubmitted.set(!all_gone);
        }
        self.drain();
    }

    /// What the kernel has no memory or completion space for stays queued, and the reactor awake.
    fn submit_queued(&self) {
        loop {
            let result = self.uring.borrow().submit();
            match result {
                Ok(_) => break,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.drain();
                        break;
                    }
                    _ => panic!("submitting to the ring: {error}"),
                },
            }
        }
        let all_gone = self.uring.borrow_mut().submission().is_empty();
        self.unsubmitted.set(!all_gone);
        if !all_gone {
            self.roster.wake_reactor();
        }
    }

    /// Hands completions to whoever waits for them.
    pub(super) fn drain(&self) {
        let mut completed = self.completed.take();
        {
            let mut uring = self.uring.borrow_mut();
            completed.extend(uring.completion().map(|cqe| (cqe.user_data(), cqe.result())));
        }
        for (user_data, result) in completed.drain(..) {
            match user_data {
                UNATTENDED => {}
                SIGNAL => {
                    self.roster.clear_signal();
                    self.listen();
                }
                key => self.complete(key as usize, result),
            }
        }
        self.completed.replace(completed);
    }

    fn complete(&self, key: usize, result: i32) {
        let (waker, held, unclaimed) = {
            let mut entries = self.entries.borrow_mut();
            let entry = &mut entries[key];
            let held = entry.held.take();
            match std::mem::replace(&mut entry.state, State::Done(result)) {
                State::Waiting(waker) => (waker, held, None),
                State::Orphan => (None, held, entries.remove(key).unclaimed()),
                State::Done(_) => unreachable!("an operation completes once"),
            }
        };
        if let Some(fd) = unclaimed {
            self.close_unattended(fd);
        }
        // Outside the borrow: dropping a descriptor may queue its close, giving the slot back may wake.
        drop(held);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the core ends.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Takes no more operations, and waits until the kernel has finished with all there are.
    pub(crate) async fn shut_down(&self) {
        self.closing.set(true);
        let waiting: Vec<usize> = {
            let entries = self.entries.borrow();
            entries
                .iter()
                .filter(|(_, entry)| !matches!(entry.state, State::Done(_)))
                .map(|(key, _)| key)
                .collect()
        };
        for key in waiting {
            self.push(&opcode::AsyncCancel::new(key as u64).build().user_data(UNATTENDED));
        }
        loop {
            self.flush();
            if self.entries.borrow().iter().all(|(_, entry)| matches!(entry.state, State::Done(_))) {
                return;
            }
            crate::sleep(Duration::from_micros(200)).await;
        }
    }
}

fn build(depth: u32) -> io::Result<IoUring> {
    let entries = depth.min(256).next_power_of_two();
    let completions = depth.saturating_mul(2).next_power_of_two().max(entries * 2);
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions).setup_clamp();
    // Fewer interruptions of the core where the kernel knows these (6.0); without them all works the same.
    let mut tuned = builder.clone();
    match tuned.setup_coop_taskrun().setup_taskrun_flag().setup_single_issuer().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(entries),
        built => built,
    }
}

/// An operation under way. Completes with the kernel's result, once nothing is held for it any more.
pub(crate) struct Operation {
    ring: Rc<Ring>,
    key: usize,
    cancel_on_drop: bool,
}

/// Marks an [`Operation`] whose entry is gone.
const FINISHED: usize = usize::MAX;
/// Marks one that was never begun.
const NEVER: usize = usize::MAX - 1;

impl Future for Operation {
    type Output = io::Result<u32>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.key == NEVER {
            return Poll::Pending;
        }
        let result = {
            let mut entries = self.ring.entries.borrow_mut();
            match &mut entries[self.key].state {
                State::Waiting(waker) => {
                    *waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                State::Done(result) => *result,
                State::Orphan => unreachable!("an orphan has no one to poll it"),
            }
        };
        self.ring.entries.borrow_mut().remove(self.key);
        self.key = FINISHED;
        Poll::Ready(u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if matches!(self.key, FINISHED | NEVER) {
            return;
        }
        let (under_way, unclaimed) = {
            let mut entries = self.ring.entries.borrow_mut();
            match entries[self.key].state {
                State::Done(_) => (false, entries.remove(self.key).unclaimed()),
                _ => {
                    entries[self.key].state = State::Orphan;
                    (true, None)
                }
            }
        };
        if let Some(fd) = unclaimed {
            self.ring.close_unattended(fd);
        }
        if under_way && self.cancel_on_drop && !self.ring.closing.get() {
            // The key cannot have passed to a newer operation: it is freed only when this one's completion is taken
            // in, and a newer operation's entry then stands behind this cancellation in the submission queue.
            self.ring.push(&opcode::AsyncCancel::new(self.key as u64).build().user_data(UNATTENDED));
        }
    }
}
