//! A core's timers.

use super::core::Core;
use crate::Instant;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub(crate) struct Timers {
    /// By time, then in the order they were set.
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    set: Cell<u64>,
}

impl Timers {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes whoever waits for a time up to `now`.
    pub(super) fn fire(&self, now: Instant) {
        loop {
            let due = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(first) if first.key().0 <= now => first.remove(),
                    _ => return,
                }
            };
            due.wake();
        }
    }
}

/// Completes when the clock reaches its time.
pub(crate) struct Sleep {
    core: Rc<Core>,
    at: Instant,
    key: Option<u64>,
}

impl Sleep {
    pub(crate) fn until(core: Rc<Core>, at: Instant) -> Sleep {
        Sleep { core, at, key: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if crate::now() >= self.at {
            return Poll::Ready(());
        }
        let timers = &self.core.timers;
        let key = match self.key {
            Some(key) => key,
            None => timers.set.replace(timers.set.get() + 1),
        };
        let mut waiting = timers.waiting.borrow_mut();
        let replaced = match waiting.entry((self.at, key)) {
            Entry::Occupied(known) if known.get().will_wake(cx.waker()) => None,
            Entry::Occupied(mut known) => Some(known.insert(cx.waker().clone())),
            Entry::Vacant(place) => {
                place.insert(cx.waker().clone());
                None
            }
        };
        // As in `drop`.
        drop(waiting);
        drop(replaced);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.core.timers.waiting.borrow_mut().remove(&(self.at, key));
            // Outside the borrow: the last waker of a task may drop its future, and that its own timers.
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use crate::{Instant, Queue, RunConfig, available_cpus, remote, sleep_until, spawn};
    use std::mem::MaybeUninit;
    use std::time::Duration;

    fn cpu_time_of_this_thread() -> Duration {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the buffer is a timespec, which the call fills: every Linux has the clock.
        let time = unsafe {
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
            time.assume_init()
        };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[test]
    fn a_core_sleeps_while_its_next_timer_is_beyond_what_the_kernel_can_count() {
        let config = RunConfig::new(vec![available_cpus().expect("there are CPUs")[0]]);
        let (sender, receiver) = remote::<()>(1);
        let main = |_, mut receiver: crate::RemoteReceiver<()>| async move {
            let _far = spawn(Queue::Background, sleep_until(Instant::from_nanos(u64::MAX)));
            crate::yield_now().await;
            let before = cpu_time_of_this_thread();
            receiver.recv().await.expect("it is sent");
            cpu_time_of_this_thread() - before
        };
        let cores = run::start(&config, vec![receiver], main).expect("the core starts");
        std::thread::sleep(Duration::from_millis(300));
        assert!(sender.try_send(()).is_ok(), "there is room");
        for core in cores {
            let took = core.join().expect("the core ends").expect("it has run");
            assert!(took < Duration::from_millis(100), "{took:?} of CPU time");
        }
    }
}
