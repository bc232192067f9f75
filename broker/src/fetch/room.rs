//! The fetch budget of a shard: the bytes of answers that are being read, or sent.

use corelog_io::sync::{Permit, Semaphore};

/// Answers take no less.
pub const GRANT_MIN: u64 = 64 * 1024;
/// Whoever wants little has a part of the budget alone, one in this many: an answer with small batches does not wait in line
/// behind those who want a large one.
const SMALL_SHARE: u64 = 4;
/// Little is so much of that part at the most: one in this many.
const SMALL_ANSWERS: u64 = 8;

pub struct FetchRoom {
    small: Semaphore,
    large: Semaphore,
}

impl FetchRoom {
    pub fn new(total: u64) -> FetchRoom {
        let small = total / SMALL_SHARE;
        FetchRoom { small: Semaphore::new(small), large: Semaphore::new(total - small) }
    }

    pub fn used(&self) -> u64 {
        [&self.small, &self.large].iter().map(|lane| lane.total() - lane.available()).sum()
    }

    /// How many answers wait for room.
    pub fn waiting(&self) -> usize {
        self.small.waiting() + self.large.waiting()
    }

    /// What an answer of up to `max_bytes` may take now: the less the more is taken.
    pub fn grant(&self, max_bytes: usize) -> Option<Permit> {
        let bytes = (max_bytes as u64).min(self.large.available() / 4).max(GRANT_MIN);
        self.large.try_acquire(bytes).or_else(|| self.small.try_acquire(GRANT_MIN))
    }

    /// Waits in line for room for so many bytes, or for all there is.
    pub async fn wait(&self, bytes: u64) -> Permit {
        let small = bytes <= GRANT_MIN.max(self.small.total() / SMALL_ANSWERS);
        let lane = if small { &self.small } else { &self.large };
        lane.acquire(bytes).await
    }

    /// The largest batch that fits into it. Nobody has more than all, who takes any.
    pub fn batch_bytes_max(&self, held: &Permit) -> usize {
        if held.count() == self.large.total() { usize::MAX } else { held.count() as usize }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_wants_little_does_not_wait_behind_who_wants_much() {
        let room = FetchRoom::new(64 * GRANT_MIN);
        let all = room.wait(1 << 30).now_or_never().expect("it is free");
        assert_eq!((all.count(), room.batch_bytes_max(&all)), (48 * GRANT_MIN, usize::MAX));
        let mut large = Box::pin(room.wait(3 * GRANT_MIN));
        assert!(large.as_mut().now_or_never().is_none());
        let small: Vec<Permit> = std::iter::from_fn(|| room.grant(1 << 20)).collect();
        assert_eq!(small.len(), 16);
        assert!(small.iter().all(|small| room.batch_bytes_max(small) == GRANT_MIN as usize));
        assert_eq!((room.used(), room.waiting()), (64 * GRANT_MIN, 1));
        drop(all);
        assert!(large.as_mut().now_or_never().is_some());
        drop((large, small));
        assert_eq!(room.grant(usize::MAX).map(|grant| grant.count()), Some(12 * GRANT_MIN), "a quarter");
    }
}
