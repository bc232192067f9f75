//! Producer state of one log: what makes retries of idempotent producers harmless (KIP-98, KIP-360).
//!
//! Two layers. *Settled* state is of batches that are committed and on stable storage: nothing takes them back. What is
//! *in flight* has its place in the log and may lose it, by a crash or a cut; it is kept in the order of the log, so that a
//! cut forgets what it takes and nothing else. Checks look at both together, a checkpoint saves both.

use crate::ids::RaftIndex;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

/// Batches remembered per producer: the most a client has in flight on one connection.
pub const BATCHES_KEPT: usize = 5;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
    /// Greatest timestamp of the batch, as it was answered to the producer.
    pub timestamp: i64,
}

/// A producer's latest epoch and last batches of that epoch, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    pub epoch: i16,
    /// Wall clock of the last append seen, milliseconds since the Unix epoch.
    pub last_seen_ms: i64,
    pub batches: VecDeque<ProducedBatch>,
}

impl ProducerEntry {
    fn apply(&mut self, epoch: i16, batch: ProducedBatch, now_ms: i64) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
    }
}

/// A batch's claim, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub producer_id: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    /// Records of the batch less one.
    pub last_offset_delta: i32,
}

impl Claim {
    /// Sequence number of the last record; sequence numbers wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        let room = i32::MAX - self.first_sequence;
        if self.last_offset_delta > room {
            self.last_offset_delta - room - 1
        } else {
            self.first_sequence + self.last_offset_delta
        }
    }
}

/// A producer's batch whose place is fixed, and which is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub index: RaftIndex,
    pub producer_id: i64,
    pub epoch: i16,
    pub batch: ProducedBatch,
}

/// The producer's claim is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    #[error("producer {producer_id} epoch {epoch}: first sequence {got}, expected {expected}")]
    OutOfOrder { producer_id: i64, epoch: i16, got: i32, expected: i32 },
    #[error("producer {producer_id}: epoch {got} is below the current epoch {current}")]
    StaleEpoch { producer_id: i64, got: i16, current: i16 },
}

/// What to do with a batch that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Append,
    /// Appended before: answer with this.
    Duplicate(ProducedBatch),
}

/// How many producers the logs of a shard remember together.
pub struct ProducerRoom {
    max: usize,
    used: Cell<usize>,
    logs: Cell<usize>,
}

impl ProducerRoom {
    pub fn new(max: usize) -> Rc<ProducerRoom> {
        Rc::new(ProducerRoom { max, used: Cell::new(0), logs: Cell::new(0) })
    }

    /// How many one log may remember. When all room is used a log keeps its share: those that have more give it up, and none
    /// goes without.
    fn of_one(&self) -> usize {
        if self.used.get() < self.max { usize::MAX } else { (self.max / self.logs.get().max(1)).max(1) }
    }
}

/// A log's part of the room.
struct InRoom {
    room: Rc<ProducerRoom>,
    used: usize,
}

impl InRoom {
    fn count(&mut self, used: usize) {
        self.room.used.set(self.room.used.get() - self.used + used);
        self.used = used;
    }
}

impl Drop for InRoom {
    fn drop(&mut self) {
        self.count(0);
        self.room.logs.set(self.room.logs.get() - 1);
    }
}

#[derive(Default)]
pub struct Producers {
    settled: BTreeMap<i64, ProducerEntry>,
    /// Where it counts, once its log is in use.
    place: Option<InRoom>,
    /// In the order of the log.
    in_flight: VecDeque<InFlight>,
    /// Entries of producers with batches in flight as they are with those, and how many those are.
    pending: BTreeMap<i64, (ProducerEntry, usize)>,
    /// Every producer of the log is known: one that is not has appended nothing.
    knows_all: bool,
}

impl Producers {
    /// Of a log that nobody has written to yet.
    pub fn of_new_log() -> Producers {
        Producers { knows_all: true, ..Producers::default() }
    }

    /// From now on they take part of `room`.
    pub fn enter(&mut self, room: &Rc<ProducerRoom>) {
        room.logs.set(room.logs.get() + 1);
        self.place = Some(InRoom { room: Rc::clone(room), used: 0 });
        self.count();
    }

    fn count(&mut self) {
        if let Some(place) = &mut self.place {
            place.count(self.settled.len());
        }
    }

    /// Kafka's rules for one batch; changes nothing.
    pub fn check(&self, claim: &Claim) -> Result<Verdict, SequenceError> {
        let id = claim.producer_id;
        let out_of_order = |expected| {
            let Claim { producer_id, epoch, first_sequence: got, .. } = *claim;
            Err(SequenceError::OutOfOrder { producer_id, epoch, got, expected })
        };
        let entry = match self.pending.get(&id) {
            Some((entry, _)) => entry,
            None => match self.settled.get(&id) {
                Some(entry) => entry,
                // A new one's batches may come in another order than they were sent in, as while its topic is made.
                None if self.knows_all && claim.first_sequence != 0 => return out_of_order(0),
                // It may have been forgotten: any sequence begins the history, as at Kafka.
                None => return Ok(Verdict::Append),
            },
        };
        if claim.epoch < entry.epoch {
            return Err(SequenceError::StaleEpoch {
                producer_id: id,
                got: claim.epoch,
                current: entry.epoch,
            });
        }
        if claim.epoch > entry.epoch {
            return if claim.first_sequence == 0 { Ok(Verdict::Append) } else { out_of_order(0) };
        }
        let last_sequence = claim.last_sequence();
        let same =
            |b: &&ProducedBatch| b.first_sequence == claim.first_sequence && b.last_sequence == last_sequence;
        if let Some(known) = entry.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*known));
        }
        match entry.batches.back() {
            None => Ok(Verdict::Append),
            Some(last) => {
                let expected = if last.last_sequence == i32::MAX { 0 } else { last.last_sequence + 1 };
                if claim.first_sequence == expected { Ok(Verdict::Append) } else { out_of_order(expected) }
            }
        }
    }

    /// The place of the batch at `index` is fixed; it is behind all before.
    pub fn assign(&mut self, index: RaftIndex, claim: &Claim, batch: ProducedBatch, now_ms: i64) {
        let Claim { producer_id, epoch, .. } = *claim;
        self.put_in_flight(InFlight { index, producer_id, epoch, batch }, now_ms);
    }

    /// As [`Producers::assign`], of one that a checkpoint or another layer knows.
    pub fn put_in_flight(&mut self, in_flight: InFlight, now_ms: i64) {
        self.pend(&in_flight, now_ms);
        self.in_flight.push_back(in_flight);
    }

    fn pend(&mut self, in_flight: &InFlight, now_ms: i64) {
        let InFlight { producer_id, epoch, batch, .. } = *in_flight;
        let (entry, count) = self.pending.entry(producer_id).or_insert_with(|| {
            let entry = self.settled.get(&producer_id).cloned();
            (entry.unwrap_or_else(|| new_entry(epoch)), 0)
        });
        entry.apply(epoch, batch, now_ms);
        *count += 1;
    }

    /// The beginning of the log is gone, and with it who wrote it.
    pub fn forget_beginning(&mut self) {
        self.knows_all = false;
    }

    /// All batches below `index` are committed and on stable storage.
    /// At most `producers_max` producers are kept: the ones longest unseen go first.
    pub fn settle_below(&mut self, index: RaftIndex, now_ms: i64, producers_max: usize) {
        while let Some(settled) = self.in_flight.pop_front_if(|batch| batch.index < index) {
            let InFlight { producer_id, epoch, batch, .. } = settled;
            if let Some((_, count)) = self.pending.get_mut(&producer_id) {
                *count -= 1;
                if *count == 0 {
                    self.pending.remove(&producer_id);
                }
            }
            self.settle(producer_id, epoch, batch, now_ms, producers_max);
        }
    }

    /// A settled batch, found at recovery.
    pub fn replay(&mut self, claim: &Claim, batch: ProducedBatch, now_ms: i64, producers_max: usize) {
        self.settle(claim.producer_id, claim.epoch, batch, now_ms, producers_max);
    }

    fn settle(&mut self, id: i64, epoch: i16, batch: ProducedBatch, now_ms: i64, producers_max: usize) {
        let producers_max =
            self.place.as_ref().map_or(producers_max, |at| at.room.of_one().min(producers_max));
        if self.settled.len() >= producers_max && !self.settled.contains_key(&id) {
            self.evict(producers_max);
        }
        let entry = self.settled.entry(id).or_insert_with(|| new_entry(epoch));
        entry.apply(epoch, batch, now_ms);
        self.count();
    }

    /// Drops the longest unseen until a sixteenth of the room is free: evictions stay rare.
    fn evict(&mut self, producers_max: usize) {
        let keep = producers_max - producers_max.div_ceil(16);
        let mut by_age: Vec<(i64, i64)> = self.settled.iter().map(|(id, e)| (e.last_seen_ms, *id)).collect();
        by_age.sort_unstable();
        for (_, id) in by_age.into_iter().take(self.settled.len().saturating_sub(keep)) {
            self.settled.remove(&id);
            self.knows_all = false;
        }
    }

    /// The batches from `index` on were cut off the log.
    pub fn cut_back(&mut self, index: RaftIndex) {
        if self.in_flight.back().is_none_or(|last| last.index < index) {
            return;
        }
        let kept = self.in_flight.partition_point(|batch| batch.index < index);
        self.in_flight.truncate(kept);
        self.pending.clear();
        let in_flight = std::mem::take(&mut self.in_flight);
        in_flight.iter().for_each(|batch| self.pend(batch, i64::MIN));
        self.in_flight = in_flight;
    }

    /// Those in flight below `index`, in the order of the log.
    pub fn in_flight_below(&self, index: RaftIndex) -> impl Iterator<Item = &InFlight> {
        self.in_flight.iter().take_while(move |batch| batch.index < index)
    }

    fn retain(&mut self, keep: impl Fn(&ProducerEntry) -> bool) {
        let known = self.settled.len();
        self.settled.retain(|_, entry| keep(entry));
        self.knows_all &= self.settled.len() == known;
        self.count();
    }

    /// Forgets producers not seen for `expiration_ms`.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.retain(|entry| now_ms.saturating_sub(entry.last_seen_ms) < expiration_ms);
    }

    /// What is settled, by producer id.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (i64, &ProducerEntry)> {
        self.settled.iter().map(|(id, entry)| (*id, entry))
    }

    /// Of these, those above an id.
    pub fn entries_above(&self, id: i64) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.settled.range((Bound::Excluded(id), Bound::Unbounded)).map(|(id, entry)| (*id, entry))
    }

    /// From a checkpoint.
    pub fn restore(&mut self, producer_id: i64, entry: ProducerEntry) {
        self.settled.insert(producer_id, entry);
    }
}

fn new_entry(epoch: i16) -> ProducerEntry {
    ProducerEntry { epoch, last_seen_ms: i64::MIN, batches: VecDeque::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    /// Many short-lived producers, each with a batch in many logs.
    #[test]
    fn the_logs_of_a_shard_remember_so_many_producers_together() {
        let room = ProducerRoom::new(400);
        let mut logs: Vec<Producers> = (0..20).map(|_| Producers::default()).collect();
        logs.iter_mut().for_each(|log| log.enter(&room));
        let remember = |log: &mut Producers, producer_id: i64| {
            let claim = Claim { producer_id, ..claim(0, 0, 1) };
            log.replay(&claim, batch(&claim, producer_id), producer_id, MAX);
        };
        // One alone may have them all.
        (0..400).for_each(|id| remember(&mut logs[0], id));
        assert_eq!(logs[0].entries().len(), 400);
        for id in 400..1000 {
            logs.iter_mut().for_each(|log| remember(log, id));
            assert!(room.used.get() <= 2 * 400, "{} are remembered", room.used.get());
        }
        for log in &logs {
            assert!(log.entries().len() >= 10, "each has its share: {}", log.entries().len());
            assert!(log.entries().any(|(id, _)| id == 999), "those seen last stay");
        }
        logs.clear();
        assert_eq!((room.used.get(), room.logs.get()), (0, 0));
    }

    fn claim(epoch: i16, first_sequence: i32, records: i32) -> Claim {
        Claim { producer_id: 7, epoch, first_sequence, last_offset_delta: records - 1 }
    }

    /// Appends the batch and settles it at once.
    fn append(p: &mut Producers, c: Claim, base_offset: i64) {
        assert_eq!(p.check(&c), Ok(Verdict::Append), "{c:?}");
        let b = batch(&c, base_offset);
        p.assign(RaftIndex(base_offset as u64), &c, b, 0);
        p.settle_below(RaftIndex(u64::MAX), 0, MAX);
    }

    fn batch(c: &Claim, base_offset: i64) -> ProducedBatch {
        ProducedBatch {
            first_sequence: c.first_sequence,
            last_sequence: c.last_sequence(),
            base_offset,
            last_offset: base_offset + i64::from(c.last_offset_delta),
            timestamp: 0,
        }
    }

    fn expected(result: Result<Verdict, SequenceError>) -> i32 {
        match result {
            Err(SequenceError::OutOfOrder { expected, .. }) => expected,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_five_batches_are_duplicates_older_ones_out_of_order() {
        let mut p = Producers::default();
        for i in 0..6 {
            append(&mut p, claim(0, i * 2, 2), i64::from(i) * 2);
        }
        for i in 1..6 {
            let c = claim(0, i * 2, 2);
            assert_eq!(p.check(&c), Ok(Verdict::Duplicate(batch(&c, i64::from(i) * 2))));
        }
        assert_eq!(expected(p.check(&claim(0, 0, 2))), 12);
        assert_eq!(expected(p.check(&claim(0, 13, 1))), 12);
        assert_eq!(expected(p.check(&claim(0, 10, 1))), 12, "same first, other last sequence");
    }

    #[test]
    fn sequences_wrap() {
        let mut p = Producers::default();
        append(&mut p, claim(0, i32::MAX - 1, 2), 0);
        append(&mut p, claim(0, 0, 1), 2);
        let mut p = Producers::default();
        let c = claim(0, i32::MAX - 1, 4);
        assert_eq!(c.last_sequence(), 1);
        append(&mut p, c, 0);
        append(&mut p, claim(0, 2, 1), 4);
    }

    #[test]
    fn epochs() {
        let mut p = Producers::default();
        append(&mut p, claim(3, 17, 1), 0);
        assert_eq!(
            p.check(&claim(2, 18, 1)),
            Err(SequenceError::StaleEpoch { producer_id: 7, got: 2, current: 3 })
        );
        assert_eq!(expected(p.check(&claim(4, 18, 1))), 0);
        append(&mut p, claim(4, 0, 1), 1);
        assert!(p.check(&claim(3, 17, 1)).is_err(), "the old epoch's batches are forgotten");
        let c = claim(4, 0, 1);
        assert_eq!(p.check(&c), Ok(Verdict::Duplicate(batch(&c, 1))));
    }

    #[test]
    fn what_is_under_way_counts_for_checks_but_not_for_the_checkpoint() {
        let mut p = Producers::default();
        append(&mut p, claim(0, 0, 1), 0);
        let (second, fenced) = (claim(0, 1, 1), claim(1, 0, 1));
        p.assign(RaftIndex(1), &second, batch(&second, 1), 0);
        assert_eq!(p.check(&second), Ok(Verdict::Duplicate(batch(&second, 1))));
        p.assign(RaftIndex(2), &fenced, batch(&fenced, 2), 0);
        assert!(p.check(&second).is_err());
        assert_eq!(p.entries().map(|(_, e)| (e.epoch, e.batches.len())).collect::<Vec<_>>(), [(0, 1)]);
        p.settle_below(RaftIndex(2), 0, MAX);
        assert!(p.check(&second).is_err(), "the newer epoch is still under way");
        p.settle_below(RaftIndex(3), 0, MAX);
        assert_eq!(p.entries().map(|(_, e)| (e.epoch, e.batches.len())).collect::<Vec<_>>(), [(1, 1)]);
    }

    #[test]
    fn expiry_and_bound() {
        let mut p = Producers::default();
        for id in 0..40 {
            let c = Claim { producer_id: id, epoch: 0, first_sequence: 5, last_offset_delta: 0 };
            p.replay(&c, batch(&c, id), id, 32);
            assert!(p.entries().len() <= 32);
        }
        assert!(p.entries().all(|(id, _)| id >= 8 - 2), "the longest unseen went first");
        p.expire(1039, 1000);
        assert_eq!(p.entries().count(), 0);
    }

    #[test]
    fn a_new_producer_of_a_new_log_begins_with_sequence_0() {
        let mut p = Producers::of_new_log();
        let later = Claim { producer_id: 8, ..claim(0, 5, 1) };
        assert_eq!(expected(p.check(&claim(0, 5, 1))), 0);
        append(&mut p, claim(0, 0, 5), 0);
        append(&mut p, claim(0, 5, 1), 5);
        assert_eq!(expected(p.check(&later)), 0, "nor does another, whatever has been written meanwhile");
        let mut forgotten = Producers::of_new_log();
        forgotten.forget_beginning();
        assert_eq!(forgotten.check(&later), Ok(Verdict::Append));
        p.expire(2, 1);
        assert_eq!(p.check(&later), Ok(Verdict::Append), "it may be one that was forgotten");
    }

    #[test]
    fn a_cut_forgets_the_batches_it_takes_and_no_others() {
        let mut p = Producers::default();
        let [first, second, fenced] = [claim(0, 0, 1), claim(0, 1, 1), claim(1, 0, 1)];
        append(&mut p, first, 0);
        p.assign(RaftIndex(1), &second, batch(&second, 1), 0);
        p.assign(RaftIndex(2), &fenced, batch(&fenced, 2), 0);
        assert!(p.check(&first).is_err(), "a newer epoch is in flight");
        p.cut_back(RaftIndex(2));
        assert_eq!(p.check(&first), Ok(Verdict::Duplicate(batch(&first, 0))), "committed, and known again");
        assert_eq!(p.check(&second), Ok(Verdict::Duplicate(batch(&second, 1))));
        p.cut_back(RaftIndex(1));
        assert_eq!(p.check(&second), Ok(Verdict::Append));
        assert_eq!(p.in_flight_below(RaftIndex(9)).count(), 0);
        assert_eq!(p.entries().map(|(_, e)| (e.epoch, e.batches.len())).collect::<Vec<_>>(), [(0, 1)]);
    }
}
