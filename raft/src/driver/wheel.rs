//! Deadlines of many groups, found without looking at those that have none now.

use crate::ids::Tick;

/// Buckets: deadlines further away than so many ticks come round more than once.
const BUCKETS: usize = 256;

/// A hashed timer wheel. What is no longer due is not taken out: who set it knows, when it fires.
pub(super) struct Wheel {
    buckets: Vec<Vec<(Tick, usize)>>,
    now: Tick,
}

impl Wheel {
    pub fn new(now: Tick) -> Wheel {
        Wheel { buckets: vec![Vec::new(); BUCKETS], now }
    }

    pub fn set(&mut self, due: Tick, what: usize) {
        let due = due.max(self.now.after(1));
        self.buckets[(due.0 % BUCKETS as u64) as usize].push((due, what));
    }

    /// Moves on to `now` and adds to `fired` what was due.
    pub fn advance(&mut self, now: Tick, fired: &mut Vec<usize>) {
        let passed = now.since(self.now).min(BUCKETS as u64);
        for back in (0..passed).rev() {
            let bucket = &mut self.buckets[((now.0 - back) % BUCKETS as u64) as usize];
            fired.extend(bucket.extract_if(.., |&mut (due, _)| due <= now).map(|(_, what)| what));
        }
        self.now = self.now.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fire_once_when_due() {
        let mut wheel = Wheel::new(Tick(5));
        let dues = [0, 6, 7, 261, 262, 300, 1000, 7];
        dues.iter().enumerate().for_each(|(what, &due)| wheel.set(Tick(due), what));
        let mut at = vec![None; dues.len()];
        for now in [6, 7, 8, 200, 261, 262, 600, 999, 1000, 5000] {
            let mut fired = Vec::new();
            wheel.advance(Tick(now), &mut fired);
            fired.into_iter().for_each(|what| assert_eq!(at[what].replace(now), None));
        }
        let expected = [6, 6, 7, 261, 262, 600, 1000, 7].map(Some);
        assert_eq!(at, expected);
    }
}
