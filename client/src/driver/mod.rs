//! The driver: one thread on which everything of a client runs: sockets, timers, tasks.
//!
//! Public handles live on the application's threads, under any runtime or none. They send the driver closures, which it turns
//! into tasks over the state `S` that it owns, and get the results back through one-shot channels, which are plain futures.
//! So there is one owner of all connections, no lock around any of them, and code that reads as a sequence of awaits.
//!
//! The driver ends, and drops all its tasks, when the last [`Handle`] is dropped.

mod event;
mod reactor;

pub(crate) use event::{Event, Listen};
pub(crate) use reactor::{TcpStream, resolve, sleep, sleep_until, timeout_at};

use crate::error::{Error, Result};
use futures_channel::oneshot;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use reactor::Reactor;
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::{io, mem, thread};

type Job<S> = Box<dyn FnOnce(&Rc<S>) + Send>;

/// Reaches the driver from any thread. The driver runs as long as one of these is there.
pub(crate) struct Handle<S: 'static>(Arc<Owner<S>>);

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Handle(self.0.clone())
    }
}

struct Owner<S: 'static>(Arc<Inbox<S>>);

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.signal.notify();
    }
}

struct Inbox<S: 'static> {
    /// None once the driver has ended. As long as the calls under way: each caller waits for its own.
    jobs: Mutex<Option<Vec<Job<S>>>>,
    stop: AtomicBool,
    signal: Arc<Signal>,
}

impl<S: 'static> Handle<S> {
    /// Starts a driver's thread with the state that `init` makes there.
    pub(crate) fn start(name: &str, init: impl FnOnce() -> Rc<S> + Send + 'static) -> io::Result<Handle<S>> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), reactor::WAKER)?;
        let signal = Arc::new(Signal { state: AtomicU8::new(RUNNING), waker });
        let jobs = Mutex::new(Some(Vec::new()));
        let inbox = Arc::new(Inbox { jobs, stop: AtomicBool::new(false), signal });
        let theirs = inbox.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Also when a task panics: whoever calls later is told instead of left waiting.
            let inbox = CloseOnDrop(theirs);
            run(&inbox.0, Rc::new(Reactor::new(poll)), init);
        })?;
        Ok(Handle(Arc::new(Owner(inbox))))
    }

    /// Runs `job` on the driver's thread; false if that has ended.
    pub(crate) fn post(&self, job: impl FnOnce(&Rc<S>) + Send + 'static) -> bool {
        let inbox = &self.0.0;
        match inbox.jobs.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(jobs) => jobs.push(Box::new(job)),
            None => return false,
        }
        inbox.signal.notify();
        true
    }

    /// Runs a future on the driver's thread. Dropping what this returns cancels it.
    pub(crate) async fn call<T, F>(&self, make: impl FnOnce(Rc<S>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (mut tx, rx) = oneshot::channel();
        self.post(move |state| {
            let state = state.clone();
            spawn(async move {
                let outcome = match select(pin!(make(state)), tx.cancellation()).await {
                    Either::Left((outcome, _)) => outcome,
                    Either::Right(_) => return,
                };
                // The caller may have gone meanwhile.
                let _ = tx.send(outcome);
            });
        });
        rx.await.unwrap_or(Err(Error::Closed))
    }
}

struct CloseOnDrop<S: 'static>(Arc<Inbox<S>>);

impl<S> Drop for CloseOnDrop<S> {
    fn drop(&mut self) {
        // Dropped jobs drop their channels, and so tell their callers.
        drop(self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

const RUNNING: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;

/// Wakes the driver. Costs a system call only if it sleeps.
struct Signal {
    state: AtomicU8,
    waker: mio::Waker,
}

impl Signal {
    fn notify(&self) {
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == SLEEPING {
            // Fails only if the event counter overflows, which a wake-up empties.
            let _ = self.waker.wake();
        }
    }

    fn run(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    /// False if there is something to do.
    fn sleep(&self) -> bool {
        self.state.compare_exchange(RUNNING, SLEEPING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

struct Local {
    reactor: Rc<Reactor>,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
}

thread_local! {
    static LOCAL: RefCell<Option<Rc<Local>>> = const { RefCell::new(None) };
}

fn local() -> Rc<Local> {
    LOCAL.with_borrow(|local| local.clone()).expect("called on a driver's thread only")
}

/// Starts a task on this driver; it runs until it ends or the driver does.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    local().spawned.borrow_mut().push(Box::pin(task));
}

fn run<S: 'static>(inbox: &Inbox<S>, reactor: Rc<Reactor>, init: impl FnOnce() -> Rc<S>) {
    let local = Rc::new(Local { reactor, spawned: RefCell::default() });
    LOCAL.set(Some(local.clone()));
    let state = init();
    let waker = Waker::from(inbox.signal.clone());
    let mut cx = Context::from_waker(&waker);
    let mut tasks = FuturesUnordered::new();
    while !inbox.stop.load(Ordering::SeqCst) {
        inbox.signal.run();
        let jobs = inbox.jobs.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(mem::take);
        jobs.unwrap_or_default().into_iter().for_each(|job| job(&state));
        loop {
            tasks.extend(local.spawned.take());
            match tasks.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if local.spawned.borrow().is_empty() => break,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        local.reactor.turn(inbox.signal.sleep());
    }
    // Tasks may spawn as they are dropped; nothing runs any more.
    drop(tasks);
    local.spawned.take();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;
    use std::time::{Duration, Instant};

    #[test]
    fn calls_run_on_the_driver_and_answer() {
        let handle = Handle::start("test", || Rc::new(RefCell::new(0))).unwrap();
        let started = Instant::now();
        for turn in 1..=100 {
            let sum = block_on(handle.call(move |state| async move {
                sleep(Duration::from_micros(10)).await;
                *state.borrow_mut() += turn;
                Ok(*state.borrow())
            }));
            assert_eq!(sum.unwrap(), turn * (turn + 1) / 2);
        }
        assert!(started.elapsed() > Duration::from_millis(1));
    }

    #[test]
    fn a_panic_closes_the_driver_instead_of_leaving_callers_waiting() {
        let handle = Handle::start("test", || Rc::new(())).unwrap();
        let first = block_on(handle.call::<(), _>(|_| async { panic!("on purpose, in a test") }));
        assert!(matches!(first, Err(Error::Closed)));
        let second = block_on(handle.call(|_| async { Ok(()) }));
        assert!(matches!(second, Err(Error::Closed)));
    }

    #[test]
    fn a_dropped_call_is_cancelled() {
        let handle = Handle::start("test", || Rc::new(RefCell::new(0))).unwrap();
        {
            let call = pin!(handle.call::<(), _>(|state| async move {
                *state.borrow_mut() = 1;
                sleep(Duration::from_secs(3600)).await;
                unreachable!()
            }));
            let mut call = call;
            let waker = futures_util::task::noop_waker();
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        // Runs after the first, and only if that one does not hold the state.
        let left = block_on(handle.call(|state| async move {
            while Rc::strong_count(&state) > 2 {
                sleep(Duration::from_millis(1)).await;
            }
            Ok(*state.borrow())
        }));
        assert_eq!(left.unwrap(), 1);
    }
}
