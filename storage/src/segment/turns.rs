//! When segments are written: evenly over the time that the journal gives, since a group of the journal waits behind
//! what the disk was given before it. In a hurry, as fast as the disk takes them.

use corelog_io::sync::{Permit, Semaphore};
use corelog_io::{Instant, now, sleep};
use std::cell::Cell;
use std::time::Duration;

/// A journal group that comes while segments are written waits for at most this many bytes ahead of it in the disk's
/// queue: two of the largest pieces, so that the next is there when one is done.
const UNDER_WAY_MAX: u64 = 2 * super::PIECE;
/// Bytes a second that are written at the least: a slow journal keeps no flush waiting long.
const RATE_MIN: u64 = 64 << 20;
/// How soon a wait finds out that there is a hurry.
const LOOK: Duration = Duration::from_millis(5);

pub struct Turns {
    under_way: Semaphore,
    /// Bytes a second.
    rate: Cell<u64>,
    /// When the next write may begin.
    next: Cell<Instant>,
    haste: Cell<Haste>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Haste {
    #[default]
    None,
    /// Until [`Turns::no_hurry`].
    Hurry,
    /// To the end.
    Closing,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            under_way: Semaphore::new(UNDER_WAY_MAX),
            rate: Cell::new(RATE_MIN),
            next: Cell::default(),
            haste: Cell::default(),
        }
    }
}

impl Turns {
    /// Waits until `len` bytes (at most [`super::PIECE`]) may be written. The permit is held while they are.
    pub async fn wait(&self, len: u64) -> Permit {
        let begin = self.next.get().max(now());
        self.next.set(begin + Duration::from_nanos(len * 1_000_000_000 / self.rate.get()));
        while self.haste.get() == Haste::None && now() < begin {
            sleep(begin.since(now()).min(LOOK)).await;
        }
        self.under_way.acquire(len).await
    }

    /// The journal took `took` for `bytes`: segments are written twice as fast, so that each file of the journal is
    /// free again when the next is half full.
    pub fn keep_up_with(&self, bytes: u64, took: Duration) {
        let rate = u128::from(bytes) * 2_000_000_000 / took.as_nanos().max(1);
        self.rate.set(u64::try_from(rate).unwrap_or(u64::MAX).max(RATE_MIN));
    }

    /// From now on writes wait for nothing but the disk, until [`Turns::no_hurry`].
    pub fn hurry(&self) {
        if self.haste.get() == Haste::None {
            self.haste.set(Haste::Hurry);
        }
    }

    /// What the hurry was for is done.
    pub fn no_hurry(&self) {
        if self.haste.get() == Haste::Hurry {
            self.haste.set(Haste::None);
            self.next.set(now());
        }
    }

    /// Writes wait for nothing but the disk from now on.
    pub fn close(&self) {
        self.haste.set(Haste::Closing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::PIECE;
    use corelog_io::sim::Sim;
    use corelog_io::{Queue, spawn};
    use std::rc::Rc;

    /// Virtual time until `pieces` writes that take none have had their turns, 16 at once.
    async fn time_for(turns: &Rc<Turns>, pieces: u64) -> Duration {
        let began = now();
        let tasks: Vec<_> = (0..pieces)
            .map(|_| {
                let turns = Rc::clone(turns);
                spawn(Queue::Background, async move { drop(turns.wait(PIECE).await) })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        began.elapsed()
    }

    #[test]
    fn writes_are_spread_over_half_of_the_time_that_the_journal_took() {
        Sim::new(1).block_on(async {
            let turns = Rc::new(Turns::default());
            turns.keep_up_with(64 * PIECE, Duration::from_millis(400));
            let took = time_for(&turns, 64).await;
            assert!((195..=202).contains(&took.as_millis()), "{took:?}");
            turns.keep_up_with(64 * PIECE, Duration::from_secs(100));
            let took = time_for(&turns, 64).await;
            assert!((980..=1005).contains(&took.as_millis()), "{took:?}, at the least rate");
        });
    }

    #[test]
    fn a_hurry_ends_the_waiting() {
        Sim::new(1).block_on(async {
            let turns = Rc::new(Turns::default());
            let hurried = Rc::clone(&turns);
            let hurry = spawn(Queue::Background, async move {
                sleep(Duration::from_millis(100)).await;
                hurried.hurry();
            });
            let took = time_for(&turns, 64).await;
            assert!(took < Duration::from_millis(100) + 2 * LOOK, "{took:?}");
            hurry.await;
            turns.no_hurry();
            assert!(time_for(&turns, 32).await > Duration::from_millis(400), "the pace is kept again");
        });
    }
}
