//! Which logs' durable ends moved: one signal for all logs of a shard, for whoever replicates them.
//!
//! Only logs that were registered ([`crate::Log::watch_progress`]) count. Each is named once until it is taken, so no more
//! is kept than logs are registered; who takes is woken once a journal group, and looks at those logs alone.

use crate::ids::LogId;
use corelog_io::sync::Notify;
use std::cell::{Cell, RefCell};

pub struct Progress {
    moved: RefCell<Vec<LogId>>,
    /// Counts how often they were taken, from 1.
    round: Cell<u64>,
    wake: Notify,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { moved: RefCell::default(), round: Cell::new(1), wake: Notify::new() }
    }
}

impl Progress {
    /// Waits until a registered log's durable end has moved. All that moved since the last call, in the order they did.
    pub async fn moved(&self) -> Vec<LogId> {
        loop {
            let moved = self.take();
            if !moved.is_empty() {
                return moved;
            }
            self.wake.notified().await;
        }
    }

    /// As [`Progress::moved`], without waiting.
    pub fn take(&self) -> Vec<LogId> {
        self.round.set(self.round.get() + 1);
        self.moved.take()
    }

    pub(crate) fn note(&self, log: LogId, watch: &Watch) {
        if watch.is_on.get() && watch.noted.replace(self.round.get()) != self.round.get() {
            self.moved.borrow_mut().push(log);
        }
    }

    /// All of a turn are noted.
    pub(crate) fn tell(&self) {
        if !self.moved.borrow().is_empty() {
            self.wake.notify_one();
        }
    }
}

/// Whether a log is registered.
#[derive(Default)]
pub(crate) struct Watch {
    pub is_on: Cell<bool>,
    /// The round it was noted in last.
    noted: Cell<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Uuid;
    use corelog_io::sim::Sim;
    use corelog_io::{Queue, spawn, yield_now};
    use std::rc::Rc;

    fn id(partition: i32) -> LogId {
        LogId { topic: Uuid([1; 16]), partition }
    }

    #[test]
    fn each_registered_log_is_named_once_until_it_is_taken() {
        let (progress, first, second, other) =
            (Progress::default(), Watch::default(), Watch::default(), Watch::default());
        first.is_on.set(true);
        second.is_on.set(true);
        for (log, watch) in [(2, &second), (1, &first), (3, &other), (2, &second)] {
            progress.note(id(log), watch);
        }
        assert_eq!(progress.take(), [id(2), id(1)]);
        assert_eq!(progress.take(), []);
        progress.note(id(1), &first);
        first.is_on.set(false);
        progress.note(id(1), &first);
        assert_eq!(progress.take(), [id(1)]);
    }

    #[test]
    fn who_waits_is_woken_once_a_turn() {
        Sim::new(1).block_on(async {
            let (progress, watch) = (Rc::new(Progress::default()), Watch::default());
            watch.is_on.set(true);
            progress.tell();
            let waits = Rc::clone(&progress);
            let task = spawn(Queue::Control, async move { waits.moved().await });
            yield_now().await;
            progress.note(id(7), &watch);
            progress.tell();
            assert_eq!(task.await, [id(7)]);
        });
    }
}
