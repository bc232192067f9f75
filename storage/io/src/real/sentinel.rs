//! Timers that keep the executor from sleeping on runnable tasks.
//!
//! glommio 0.9.0 parks on a turn that ran nothing, and takes a turn that was preempted before its first task for one
//! (the same in its fork glommio-ng 0.12.0; the fork has the correction merged, not released). A turn is preempted so
//! when the thread loses its CPU for longer than the preemption time just then, or when another thread's wake-up
//! arrives late just then. Nothing would end that sleep but the next I/O, and the tasks that would issue it are those
//! that wait to be run: seen here as hangs within seconds on a machine with more runnable threads than CPUs.
//!
//! A timer due does end it. So some timer is always set: a fast one while tasks run, slow ones at rest, and more than
//! one, because a timer that fires into the same trap again is used up.

use super::core::Core;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The longest such sleep while the core is at work.
const FAST: Duration = Duration::from_millis(1);
/// The longest at rest, when the trap is met by the first turn after a pause.
const SLOW: Duration = Duration::from_millis(50);
/// Behind the others.
const LAST: Duration = Duration::from_millis(300);

/// What a core tells its sentinel.
#[derive(Default)]
pub(crate) struct Activity {
    /// Polls of the core's tasks.
    polls: Cell<u64>,
    /// The fast sentinel, when it rests.
    resting: RefCell<Option<Waker>>,
    is_resting: Cell<bool>,
}

impl Activity {
    /// A task of the core is polled.
    pub(crate) fn note(&self) {
        self.polls.set(self.polls.get().wrapping_add(1));
        if self.is_resting.replace(false) {
            let waker = self.resting.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Waits until a task is polled.
    async fn resume(&self) {
        self.is_resting.set(true);
        poll_fn(|cx| {
            if !self.is_resting.get() {
                return Poll::Ready(());
            }
            *self.resting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Starts the core's sentinels. They end with its executor.
pub(crate) fn start(core: &Rc<Core>) {
    let fast = Rc::clone(core);
    core.spawn_sentinel(async move {
        loop {
            fast.activity.resume().await;
            loop {
                let before = fast.activity.polls.get();
                glommio::timer::sleep(FAST).await;
                if fast.activity.polls.get() == before {
                    break;
                }
            }
        }
    });
    for period in [SLOW, LAST] {
        core.spawn_sentinel(async move {
            loop {
                glommio::timer::sleep(period).await;
            }
        });
    }
}
