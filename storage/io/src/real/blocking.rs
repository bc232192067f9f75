//! Threads beside a core: one for what may wait for the disk and has no asynchronous form, one for what computes for long.

use super::run::mark_core_thread;
use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// What waits for the thread: callers that have gone leave theirs behind.
const JOBS_MAX: usize = 256;
/// How long a caller that found the queue full waits before it tries again.
const FULL_RETRY: Duration = Duration::from_millis(1);

/// Ends when it is dropped and has done what it was given.
pub(crate) struct BlockingThread {
    jobs: mpsc::SyncSender<Job>,
}

/// Brings a result back to the core.
struct Result<T> {
    value: ArrayQueue<T>,
    waiter: AtomicWaker,
}

impl BlockingThread {
    /// Runs on the CPUs that the calling thread may use.
    pub(crate) fn start(name: String) -> io::Result<BlockingThread> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(JOBS_MAX);
        thread::Builder::new().name(name).spawn(move || {
            // A panic here would leave the core waiting for ever: it ends the process as on the core itself.
            mark_core_thread();
            for job in queue {
                job();
            }
        })?;
        Ok(BlockingThread { jobs })
    }

    /// Runs `f` after all that is in the queue; waits while that is full. If the caller is dropped then, `f` still runs.
    pub(crate) async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let result = Arc::new(Result { value: ArrayQueue::new(1), waiter: AtomicWaker::new() });
        let giver = Arc::clone(&result);
        let job = move || {
            let Ok(()) = giver.value.push(f()) else { unreachable!("it is given once") };
            giver.waiter.wake();
        };
        let mut job: Job = Box::new(job);
        while let Err(full) = self.jobs.try_send(job) {
            match full {
                mpsc::TrySendError::Full(back) => job = back,
                mpsc::TrySendError::Disconnected(_) => unreachable!("the thread lives as long as this"),
            }
            crate::sleep(FULL_RETRY).await;
        }
        poll_fn(|cx| {
            result.waiter.register(cx.waker());
            result.value.pop().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
