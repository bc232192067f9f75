//! Which tasks of a core can run, so that the core knows when it may sleep.
//!
//! Every task is a [`Member`] and is polled with a waker of this module's. Woken on its core, it is counted as runnable
//! and handed to glommio. Woken from another thread, it is queued, and the core counts it when it next looks
//! ([`Roster::deliver`]); a core that sleeps is woken through an eventfd for that.

use super::fd::check;
use crossbeam_queue::SegQueue;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::task::{Wake, Waker};

thread_local! {
    /// The roster of the core that the thread is; compared, never followed.
    static HOME: Cell<*const Roster> = const { Cell::new(std::ptr::null()) };
}

/// One core's. What is not atomic is touched by the core's own thread alone, its home.
pub(crate) struct Roster {
    /// Tasks that glommio will run.
    runnable: Cell<usize>,
    reactor: RefCell<Option<Waker>>,
    reactor_is_woken: Cell<bool>,
    /// Woken by other threads and not counted yet: each task once or twice at the most.
    foreign: SegQueue<Arc<TaskWaker>>,
    /// The core sleeps or is about to: whoever queues something must signal it.
    asleep: AtomicBool,
    signal: OwnedFd,
}

// SAFETY: other threads reach `foreign`, `asleep` and `signal` alone: all methods that touch the rest are called on
// the home thread, which the public ones assert.
unsafe impl Send for Roster {}
unsafe impl Sync for Roster {}

impl Roster {
    /// The calling thread becomes its home.
    pub(crate) fn new() -> io::Result<Arc<Roster>> {
        // SAFETY: plain system call; the descriptor is new and owned by nobody else.
        let signal =
            unsafe { OwnedFd::from_raw_fd(check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?) };
        let roster = Arc::new(Roster {
            runnable: Cell::new(0),
            reactor: RefCell::new(None),
            reactor_is_woken: Cell::new(false),
            foreign: SegQueue::new(),
            asleep: AtomicBool::new(false),
            signal,
        });
        HOME.set(Arc::as_ptr(&roster));
        Ok(roster)
    }

    fn is_home(&self) -> bool {
        // A thread that ends is no core any more.
        HOME.try_with(|home| std::ptr::eq(home.get(), self)).unwrap_or(false)
    }

    /// Becomes readable when another thread has woken something and found the core asleep.
    pub(crate) fn signal(&self) -> RawFd {
        self.signal.as_raw_fd()
    }

    /// Makes the signal unreadable again.
    pub(crate) fn clear_signal(&self) {
        let mut count = 0u64;
        // SAFETY: an eventfd gives 8 bytes, or EAGAIN, which is as good.
        unsafe { libc::read(self.signal(), (&raw mut count).cast(), size_of_val(&count)) };
    }

    /// Whether glommio has a task of this core to run.
    pub(crate) fn has_runnable(&self) -> bool {
        debug_assert!(self.is_home());
        self.runnable.get() > 0
    }

    /// The reactor's turn begins: from now on it wants to be woken again.
    pub(crate) fn reactor_runs(&self, waker: &Waker) {
        self.reactor_is_woken.set(false);
        let mut reactor = self.reactor.borrow_mut();
        if reactor.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *reactor = Some(waker.clone());
        }
    }

    /// Has the reactor take a turn as soon as its queue's is there.
    pub(crate) fn wake_reactor(&self) {
        if !self.reactor_is_woken.replace(true)
            && let Some(reactor) = &*self.reactor.borrow()
        {
            reactor.wake_by_ref();
        }
    }

    /// The core ends: lets go of glommio's waker.
    pub(crate) fn reactor_ended(&self) {
        self.reactor.borrow_mut().take();
    }

    /// Counts what other threads have woken.
    pub(crate) fn deliver(&self) {
        while let Some(task) = self.foreign.pop() {
            task.make_runnable();
        }
    }

    /// Whether the core may sleep: from now on other threads signal it, and none has woken anything before.
    pub(crate) fn fall_asleep(&self) -> bool {
        debug_assert!(!self.has_runnable());
        self.asleep.store(true, Ordering::SeqCst);
        // Either a thread that queues something sees this store, or this look sees what it queued.
        fence(Ordering::SeqCst);
        let may = self.foreign.is_empty();
        if !may {
            self.rise();
        }
        may
    }

    pub(crate) fn rise(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn post(&self, task: Arc<TaskWaker>) {
        self.foreign.push(task);
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            let one = 1u64;
            // SAFETY: 8 bytes, as an eventfd wants. It fails only when the counter is full: then it is readable.
            unsafe { libc::write(self.signal(), (&raw const one).cast(), size_of_val(&one)) };
        }
    }

    fn count(&self) {
        self.runnable.set(self.runnable.get() + 1);
    }

    fn discount(&self) {
        self.runnable.set(self.runnable.get() - 1);
    }
}

/// Waits to be woken, or runs.
const IDLE: u8 = 0;
/// Woken by another thread, in the roster's queue, not counted.
const QUEUED: u8 = 1;
/// Counted; glommio will run it.
const RUNNABLE: u8 = 2;
/// It has ended.
const ENDED: u8 = 3;

struct TaskWaker {
    roster: Arc<Roster>,
    state: AtomicU8,
    /// glommio's waker, from the first poll to the task's end. The home thread's alone.
    inner: UnsafeCell<Option<Waker>>,
}

// SAFETY: other threads touch `state` and the roster's shared part alone; `inner` is used by methods that are called at
// home. It is empty when the last reference goes, wherever that is.
unsafe impl Send for TaskWaker {}
unsafe impl Sync for TaskWaker {}

impl TaskWaker {
    /// Counts it, unless it is counted or has ended. At home. Whether it was.
    fn enter(&self) -> bool {
        debug_assert!(self.roster.is_home());
        for from in [IDLE, QUEUED] {
            if self.state.compare_exchange(from, RUNNABLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.roster.count();
                return true;
            }
        }
        false
    }

    fn make_runnable(&self) {
        if self.enter() {
            // SAFETY: at home, and glommio's wake only puts the task into a queue.
            if let Some(waker) = unsafe { &*self.inner.get() } {
                waker.wake_by_ref();
            }
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.roster.is_home() {
            self.make_runnable();
        } else if self.state.compare_exchange(IDLE, QUEUED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.roster.post(Arc::clone(self));
        }
    }
}

/// A task's place on the roster; dropped with its future.
pub(crate) struct Member {
    task: Arc<TaskWaker>,
    waker: Waker,
}

/// Lets a task's owner cancel it.
pub(crate) struct Canceller(Arc<TaskWaker>);

impl Member {
    /// A task that is about to be given to glommio, and so runnable.
    pub(crate) fn new(roster: &Arc<Roster>) -> (Member, Canceller) {
        assert!(roster.is_home(), "a core's tasks are its own");
        roster.count();
        let task = Arc::new(TaskWaker {
            roster: Arc::clone(roster),
            state: AtomicU8::new(RUNNABLE),
            inner: UnsafeCell::new(None),
        });
        (Member { task: Arc::clone(&task), waker: Waker::from(Arc::clone(&task)) }, Canceller(task))
    }

    /// The task's poll begins, which glommio's `inner` woke it for; the waker to poll it with.
    pub(crate) fn begin_poll(&self, inner: &Waker) -> &Waker {
        // SAFETY: at home; nobody holds a reference into it meanwhile.
        let known = unsafe { &mut *self.task.inner.get() };
        if known.is_none() {
            *known = Some(inner.clone());
        }
        if self.task.state.swap(IDLE, Ordering::AcqRel) == RUNNABLE {
            self.task.roster.discount();
        }
        &self.waker
    }

    pub(crate) fn end_poll(&self) {
        if !self.task.roster.has_runnable() {
            self.task.roster.wake_reactor();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.task.state.swap(ENDED, Ordering::AcqRel) == RUNNABLE {
            self.task.roster.discount();
        }
        // SAFETY: at home, where futures are dropped; nobody holds a reference into it.
        let inner = unsafe { (*self.task.inner.get()).take() };
        drop(inner);
        self.end_poll();
    }
}

impl Canceller {
    /// glommio is about to be told to drop the task's future, which it does in a turn of the task's: the core must not
    /// sleep before.
    pub(crate) fn cancel(&self) {
        self.0.enter();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// What glommio's waker would be.
    #[derive(Default)]
    struct Counted(AtomicU32);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_counted_once_however_often_it_is_woken() {
        let roster = Roster::new().expect("an eventfd can be had");
        let (member, _canceller) = Member::new(&roster);
        assert!(roster.has_runnable());
        let glommio = Arc::new(Counted::default());
        let waker = member.begin_poll(&Waker::from(Arc::clone(&glommio))).clone();
        assert!(!roster.has_runnable());
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!((roster.runnable.get(), glommio.0.load(Ordering::Relaxed)), (1, 1));
        drop(member);
        waker.wake();
        assert_eq!((roster.runnable.get(), glommio.0.load(Ordering::Relaxed)), (0, 1));
    }

    #[test]
    fn another_thread_wakes_a_core_that_sleeps_and_signals_once() {
        let roster = Roster::new().expect("an eventfd can be had");
        let (member, _canceller) = Member::new(&roster);
        let glommio = Arc::new(Counted::default());
        let waker = member.begin_poll(&Waker::from(Arc::clone(&glommio))).clone();
        assert!(roster.fall_asleep());
        std::thread::spawn(move || {
            waker.wake_by_ref();
            waker.wake();
        })
        .join()
        .expect("waking cannot fail");
        let mut poll = libc::pollfd { fd: roster.signal(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 1, "the core was signalled");
        roster.clear_signal();
        assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0);
        roster.rise();
        assert!(!roster.has_runnable(), "it is counted when it is delivered");
        assert!(!roster.fall_asleep(), "and the core does not sleep before");
        roster.deliver();
        assert_eq!((roster.runnable.get(), glommio.0.load(Ordering::Relaxed)), (1, 1));
        // Cancelled while it is runnable, and dropped.
        drop(member);
        assert!(!roster.has_runnable() && roster.fall_asleep());
    }

    #[test]
    fn a_cancelled_task_keeps_the_core_awake_until_its_future_is_dropped() {
        let roster = Roster::new().expect("an eventfd can be had");
        let (member, canceller) = Member::new(&roster);
        member.begin_poll(Waker::noop());
        canceller.cancel();
        assert!(roster.has_runnable());
        drop(member);
        assert!(!roster.has_runnable());
        canceller.cancel();
        assert!(!roster.has_runnable(), "it has ended");
    }
}
