//! A coordinator's deadlines: set, moved and cancelled by key, expired in time order.

use std::collections::{BTreeMap, BTreeSet};

/// Deadlines in milliseconds of the caller's monotonic clock.
///
/// A deadline that moves later (each heartbeat does that) only notes its new time; the queue entry follows when it
/// comes up. So a heartbeat costs one map look-up, and `next` may be early but never late.
#[derive(Debug)]
pub struct Timers<K> {
    armed: BTreeMap<K, Armed>,
    queue: BTreeSet<(u64, K)>,
}

#[derive(Debug)]
struct Armed {
    due_ms: u64,
    queued_ms: u64,
}

impl<K> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { armed: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Clone + Ord> Timers<K> {
    /// Sets or moves the deadline of `key`.
    pub fn schedule(&mut self, key: K, due_ms: u64) {
        if let Some(armed) = self.armed.get_mut(&key) {
            armed.due_ms = due_ms;
            if due_ms < armed.queued_ms {
                let queued_ms = std::mem::replace(&mut armed.queued_ms, due_ms);
                let mut entry = (queued_ms, key);
                self.queue.remove(&entry);
                entry.0 = due_ms;
                self.queue.insert(entry);
            }
        } else {
            self.queue.insert((due_ms, key.clone()));
            self.armed.insert(key, Armed { due_ms, queued_ms: due_ms });
        }
    }

    pub fn cancel(&mut self, key: &K) {
        if let Some(armed) = self.armed.remove(key) {
            self.queue.remove(&(armed.queued_ms, key.clone()));
        }
    }

    /// Takes the earliest deadline at or before `now_ms`.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<K> {
        while self.queue.first()?.0 <= now_ms {
            let (_, key) = self.queue.pop_first()?;
            let armed = self.armed.get_mut(&key).expect("a queued deadline is armed");
            if armed.due_ms <= now_ms {
                self.armed.remove(&key);
                return Some(key);
            }
            armed.queued_ms = armed.due_ms;
            self.queue.insert((armed.due_ms, key));
        }
        None
    }

    /// When `pop_expired` should be called next: not later than the earliest deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
impl<K: Clone + Ord> Timers<K> {
    pub fn is_armed(&self, key: &K) -> bool {
        self.armed.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moved_later_fires_at_its_new_time_only() {
        let mut timers = Timers::default();
        timers.schedule("a", 10);
        timers.schedule("b", 12);
        timers.schedule("a", 20);
        assert_eq!(timers.pop_expired(10), None);
        assert_eq!(timers.pop_expired(15), Some("b"));
        assert_eq!(timers.pop_expired(15), None);
        assert_eq!(timers.next_ms(), Some(20));
        assert_eq!(timers.pop_expired(20), Some("a"));
        assert_eq!(timers.next_ms(), None);
    }

    #[test]
    fn a_deadline_moved_earlier_fires_early_and_once() {
        let mut timers = Timers::default();
        timers.schedule("a", 50);
        timers.schedule("a", 5);
        assert_eq!(timers.next_ms(), Some(5));
        assert_eq!(timers.pop_expired(60), Some("a"));
        assert_eq!(timers.pop_expired(60), None);
    }

    #[test]
    fn a_cancelled_deadline_never_fires() {
        let mut timers = Timers::default();
        timers.schedule("a", 5);
        timers.schedule("a", 9);
        timers.cancel(&"a");
        assert_eq!(timers.next_ms(), None);
        assert_eq!(timers.pop_expired(100), None);
    }
}
