//! The driver: one thread on which everything of a client runs: sockets, timers, tasks.
//!
//! Public handles live on the application's threads, under any runtime or none. They send the driver closures, which it turns
//! into tasks over the state `S` that it owns, and get the results back through one-shot channels, which are plain futures.
//! So there is one owner of all connections, no lock around any of them, and code that reads as a sequence of awaits.
//!
//! The driver ends, and drops all its tasks, when the last [`Handle`] is dropped.

mod event;
mod reactor;
mod world;

pub(crate) use event::{Event, Listen};
pub(crate) use reactor::resolve;
pub(crate) use world::{TcpStream, elapsed, now, now_ms, random_u64, sleep, sleep_until, timeout_at};

use crate::error::{Error, Result};
#[cfg(feature = "simulation")]
use crate::simulation;
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
        #[cfg(feature = "simulation")]
        if let Some(world) = simulation::current() {
            return Ok(Handle::start_in(&*world, init));
        }
        let poll = mio::Poll::new()?;
        let inbox = Inbox::new(Alarm::Machine(mio::Waker::new(poll.registry(), reactor::WAKER)?));
        // Also when a task panics: whoever calls later is told instead of left waiting.
        let theirs = CloseOnDrop(inbox.clone());
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let reactor = Rc::new(Reactor::new(poll));
            let mut driver = Driver::new(theirs, Some(reactor.clone()), init);
            while driver.turn() {
                reactor.turn(driver.signal().sleep());
            }
        })?;
        Ok(Handle(Arc::new(Owner(inbox))))
    }

    /// A task of the world in place of a thread.
    #[cfg(feature = "simulation")]
    fn start_in(world: &dyn simulation::World, init: impl FnOnce() -> Rc<S> + 'static) -> Handle<S> {
        let inbox = Inbox::new(Alarm::Simulated(Mutex::default()));
        let theirs = CloseOnDrop(inbox.clone());
        world.spawn(Box::pin(async move {
            let mut driver = Driver::new(theirs, None, init);
            std::future::poll_fn(move |cx| {
                driver.signal().rings(cx.waker());
                if !driver.turn() {
                    return Poll::Ready(());
                }
                if !driver.signal().sleep() {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            })
            .await
        }));
        Handle(Arc::new(Owner(inbox)))
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

impl<S: 'static> Inbox<S> {
    fn new(alarm: Alarm) -> Arc<Inbox<S>> {
        let signal = Arc::new(Signal { state: AtomicU8::new(RUNNING), alarm });
        Arc::new(Inbox { jobs: Mutex::new(Some(Vec::new())), stop: AtomicBool::new(false), signal })
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
    alarm: Alarm,
}

enum Alarm {
    Machine(mio::Waker),
    #[cfg(feature = "simulation")]
    Simulated(Mutex<Option<Waker>>),
}

impl Alarm {
    fn ring(&self) {
        match self {
            // Fails only if the event counter overflows, which a wake-up empties.
            Alarm::Machine(waker) => drop(waker.wake()),
            #[cfg(feature = "simulation")]
            Alarm::Simulated(waker) => {
                let waker = waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
                waker.into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl Signal {
    fn notify(&self) {
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == SLEEPING {
            self.alarm.ring();
        }
    }

    fn run(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    #[cfg(feature = "simulation")]
    fn rings(&self, waker: &Waker) {
        if let Alarm::Simulated(known) = &self.alarm {
            known.lock().unwrap_or_else(PoisonError::into_inner).replace(waker.clone());
        }
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
    /// None in a simulated world.
    reactor: Option<Rc<Reactor>>,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
}

impl Local {
    fn reactor(&self) -> Rc<Reactor> {
        self.reactor.clone().expect("a simulated driver has the world's sockets and timers")
    }
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

/// Makes a driver the calling thread's until the guard is dropped: in a simulated world one thread has many.
struct Entered(Option<Rc<Local>>);

impl Entered {
    fn new(local: &Rc<Local>) -> Entered {
        Entered(LOCAL.replace(Some(local.clone())))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        LOCAL.set(self.0.take());
    }
}

/// What runs on a driver's thread.
struct Driver<S: 'static> {
    local: Rc<Local>,
    tasks: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    waker: Waker,
    state: Rc<S>,
    inbox: CloseOnDrop<S>,
}

impl<S: 'static> Driver<S> {
    fn new(inbox: CloseOnDrop<S>, reactor: Option<Rc<Reactor>>, init: impl FnOnce() -> Rc<S>) -> Driver<S> {
        let local = Rc::new(Local { reactor, spawned: RefCell::default() });
        let _entered = Entered::new(&local);
        let state = init();
        let waker = Waker::from(inbox.0.signal.clone());
        Driver { local, tasks: FuturesUnordered::new(), waker, state, inbox }
    }

    fn signal(&self) -> &Signal {
        &self.inbox.0.signal
    }

    /// Runs what can run; false once the last handle is gone.
    fn turn(&mut self) -> bool {
        let inbox = &self.inbox.0;
        if inbox.stop.load(Ordering::SeqCst) {
            return false;
        }
        let _entered = Entered::new(&self.local);
        inbox.signal.run();
        let jobs = inbox.jobs.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(mem::take);
        jobs.unwrap_or_default().into_iter().for_each(|job| job(&self.state));
        let mut cx = Context::from_waker(&self.waker);
        loop {
            self.tasks.extend(self.local.spawned.take());
            match self.tasks.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending if self.local.spawned.borrow().is_empty() => return true,
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        let _entered = Entered::new(&self.local);
        self.tasks.clear();
        // Tasks may spawn as they are dropped; nothing runs any more.
        self.local.spawned.take();
    }
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
