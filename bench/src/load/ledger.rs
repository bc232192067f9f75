//! What was acknowledged, and what was read: the same, or there is no figure.

use super::payload::{Fault, Stamp};
use serde::Serialize;

/// Of one producer's records in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    count: u64,
    /// Sum of their digests.
    digest: u64,
    /// Sum of their offsets.
    offsets: u64,
    /// Of some it is not known where they were written.
    unlocated: bool,
    /// One more than the highest sequence number.
    next: u64,
}

/// Records of one producer that were acknowledged together, in one partition.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub count: u64,
    /// Sum of their digests.
    pub digest: u64,
    /// The first one's; the others follow. None if the broker did not say.
    pub offset: Option<i64>,
}

/// Counts by producer and partition.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// None: of any, or of other tools. Then only offsets and checksums are looked at.
    run: Option<u32>,
    partitions: usize,
    cells: Vec<Cell>,
    /// The offset that comes next, by partition.
    offsets: Vec<i64>,
    /// By key the partition that it was first read from.
    keys: Vec<u32>,
    /// Transactions leave markers between records, and aborted records: offsets only ascend.
    has_markers: bool,
    faults: Faults,
}

/// A key that was not read yet is in none.
const NOWHERE: u32 = u32::MAX;

/// The name of a key, by its number.
pub fn key_name(number: usize) -> String {
    format!("key-{number:08}")
}

fn key_number(name: &[u8]) -> Option<usize> {
    std::str::from_utf8(name).ok()?.strip_prefix("key-")?.parse().ok()
}

/// Whether a key's partition is the one where it was `first`, or it had none.
fn join(first: &mut u32, partition: u32) -> bool {
    if *first == NOWHERE {
        *first = partition;
    }
    *first == partition
}

/// What was wrong with records, by count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Not of this run, or not made by this tool.
    pub foreign: u64,
    /// The checksum does not fit.
    pub corrupt: u64,
    /// Read after a later one of the same producer and partition, or twice.
    pub disordered: u64,
    /// Places where an offset was skipped or came again.
    pub offset_gaps: u64,
    /// In another partition than others with their key, or with a key that was not sent.
    pub scattered: u64,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub acknowledged: u64,
    pub read: u64,
    /// Acknowledged and not read.
    pub lost: u64,
    /// Read and not acknowledged.
    pub surplus: u64,
    /// Producers' partitions with the right count and other records than were sent.
    pub exchanged: u64,
    /// Producers' partitions with the right records, at other offsets than were acknowledged.
    pub relocated: u64,
    pub faults: Faults,
    /// Others wrote the records: what is in them is not known, only how many there are.
    pub counted: bool,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.lost + self.surplus + self.exchanged + self.relocated == 0 && self.faults == Faults::default()
    }

    /// What to say if it is not good.
    pub fn problem(&self) -> Option<String> {
        (!self.is_good()).then(|| format!("what was read is not what was acknowledged: {self:?}"))
    }

    pub fn merge(self, other: Verdict) -> Verdict {
        Verdict {
            acknowledged: self.acknowledged + other.acknowledged,
            read: self.read + other.read,
            lost: self.lost + other.lost,
            surplus: self.surplus + other.surplus,
            exchanged: self.exchanged + other.exchanged,
            relocated: self.relocated + other.relocated,
            faults: self.faults.merge(other.faults),
            counted: self.counted || other.counted,
        }
    }
}

impl Faults {
    pub fn merge(self, other: Faults) -> Faults {
        Faults {
            foreign: self.foreign + other.foreign,
            corrupt: self.corrupt + other.corrupt,
            disordered: self.disordered + other.disordered,
            offset_gaps: self.offset_gaps + other.offset_gaps,
            scattered: self.scattered + other.scattered,
        }
    }
}

impl Ledger {
    pub fn new(run: u32, producers: usize, partitions: usize) -> Ledger {
        Ledger {
            run: Some(run),
            partitions,
            cells: vec![Cell::default(); producers * partitions],
            offsets: vec![-1; partitions],
            keys: Vec::new(),
            has_markers: false,
            faults: Faults::default(),
        }
    }

    /// For records of transactions.
    pub fn with_markers(self, has_markers: bool) -> Ledger {
        Ledger { has_markers, ..self }
    }

    /// For records with so many different keys.
    pub fn with_keys(self, count: usize) -> Ledger {
        Ledger { keys: vec![NOWHERE; count], ..self }
    }

    /// The offsets at which partitions begin, if they are known.
    pub fn starting_at(self, starts: Option<&[i64]>) -> Ledger {
        let offsets = starts.map_or(self.offsets, <[i64]>::to_vec);
        Ledger { offsets, ..self }
    }

    /// For records of whose origin nothing is known.
    pub fn of_strangers(partitions: usize) -> Ledger {
        Ledger { run: None, ..Ledger::new(0, 0, partitions) }
    }

    fn place(&self, producer: usize, partition: usize) -> usize {
        producer * self.partitions + partition
    }

    /// Enters records as sent.
    pub fn sent(&mut self, producer: usize, partition: usize, written: Written) {
        let Written { count, digest, offset } = written;
        let place = self.place(producer, partition);
        let cell = &mut self.cells[place];
        cell.count += count;
        cell.digest = cell.digest.wrapping_add(digest);
        match offset {
            Some(first) => {
                let sum =
                    (first as u64).wrapping_mul(count).wrapping_add(count * count.saturating_sub(1) / 2);
                cell.offsets = cell.offsets.wrapping_add(sum);
            }
            None => cell.unlocated = true,
        }
    }

    /// Enters a record as read. Returns what it says of itself if it is one of this run.
    pub fn read(
        &mut self,
        partition: i32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<Stamp> {
        let at = usize::try_from(partition).ok().filter(|at| *at < self.partitions)?;
        let expected = self.offsets[at];
        if expected >= 0 && (offset < expected || offset > expected && !self.has_markers) {
            self.faults.offset_gaps += 1;
        }
        self.offsets[at] = offset + 1;
        let stamp = match (Stamp::read(value.unwrap_or_default()), self.run) {
            (Ok(stamp), None) => return Some(stamp),
            (Err(Fault::Foreign), None) => return None,
            (Ok(stamp), Some(run)) if stamp.run == run => stamp,
            (Ok(_) | Err(Fault::Foreign), Some(_)) => {
                self.faults.foreign += 1;
                return None;
            }
            (Err(Fault::Corrupt), _) => {
                self.faults.corrupt += 1;
                return None;
            }
        };
        let place = self.place(stamp.producer as usize, at);
        let Some(cell) = self.cells.get_mut(place) else {
            self.faults.foreign += 1;
            return None;
        };
        if stamp.sequence < cell.next {
            self.faults.disordered += 1;
        }
        cell.next = cell.next.max(stamp.sequence + 1);
        cell.count += 1;
        cell.digest = cell.digest.wrapping_add(stamp.digest);
        cell.offsets = cell.offsets.wrapping_add(offset as u64);
        if !self.keys.is_empty() {
            let first = key.and_then(key_number).and_then(|key| self.keys.get_mut(key));
            self.faults.scattered += u64::from(!first.is_some_and(|first| join(first, partition as u32)));
        }
        Some(stamp)
    }

    /// Adds what others entered, who had other producers, or other partitions.
    pub fn merge(&mut self, other: &Ledger) {
        for (cell, other) in self.cells.iter_mut().zip(&other.cells) {
            cell.count += other.count;
            cell.digest = cell.digest.wrapping_add(other.digest);
            cell.offsets = cell.offsets.wrapping_add(other.offsets);
            cell.unlocated |= other.unlocated;
            cell.next = cell.next.max(other.next);
        }
        for (first, other) in self.keys.iter_mut().zip(&other.keys) {
            self.faults.scattered += u64::from(*other != NOWHERE && !join(first, *other));
        }
        self.faults = self.faults.merge(other.faults);
    }

    /// Whether it is known whose the records are.
    pub fn is_of_run(&self) -> bool {
        self.run.is_some()
    }

    pub fn partitions(&self) -> usize {
        self.partitions
    }

    pub fn faults(&self) -> Faults {
        self.faults
    }

    pub fn total(&self) -> u64 {
        self.cells.iter().map(|cell| cell.count).sum()
    }

    /// Records in each partition.
    pub fn by_partition(&self) -> Vec<u64> {
        let of = |at: usize| self.cells[at..].iter().step_by(self.partitions).map(|cell| cell.count).sum();
        (0..self.partitions).map(of).collect()
    }

    /// Compares what was sent (`self`) with what was read.
    pub fn verdict(&self, read: &Ledger) -> Verdict {
        let mut verdict = Verdict {
            acknowledged: self.total(),
            read: read.total(),
            faults: self.faults.merge(read.faults),
            ..Default::default()
        };
        for (sent, read) in self.cells.iter().zip(&read.cells) {
            verdict.lost += sent.count.saturating_sub(read.count);
            verdict.surplus += read.count.saturating_sub(sent.count);
            let are_same = sent.count == read.count && sent.digest == read.digest;
            verdict.exchanged += u64::from(sent.count == read.count && !are_same);
            verdict.relocated += u64::from(are_same && !sent.unlocated && sent.offsets != read.offsets);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::payload::{Filler, Payloads, Sizes};
    use bytes::Bytes;

    fn sent() -> (Ledger, Vec<(i32, i64, Bytes)>) {
        let mut ledger = Ledger::new(7, 2, 3);
        let mut payloads = Payloads::new(7, Sizes::Fixed(64), Filler::Random, 1);
        let (mut records, mut offsets) = (Vec::new(), [0; 3]);
        for sequence in 0..60 {
            for producer in 0..2 {
                let partition = (sequence as usize * 7 + producer) % 3;
                let (value, digest) = payloads.make(producer as u32, sequence, 0);
                ledger.sent(
                    producer,
                    partition,
                    Written { count: 1, digest, offset: Some(offsets[partition]) },
                );
                records.push((partition as i32, offsets[partition], value));
                offsets[partition] += 1;
            }
        }
        (ledger, records)
    }

    fn verdict(change: impl FnOnce(&mut Vec<(i32, i64, Bytes)>)) -> Verdict {
        let (sent, mut records) = sent();
        change(&mut records);
        let mut read = Ledger::new(7, 2, 3).starting_at(Some(&[0; 3]));
        for (partition, offset, value) in &records {
            read.read(*partition, *offset, None, Some(value));
        }
        sent.verdict(&read)
    }

    #[test]
    fn what_is_the_same_is_good() {
        let good = verdict(|_| ());
        assert!(good.is_good(), "{good:?}");
        assert_eq!((good.acknowledged, good.read), (120, 120));
    }

    #[test]
    fn whatever_is_wrong_shows() {
        let lost = verdict(|records| drop(records.pop()));
        assert_eq!((lost.lost, lost.is_good()), (1, false));
        let twice = verdict(|records| {
            let (partition, offset, value) = records.last().unwrap().clone();
            records.push((partition, offset + 1, value));
        });
        assert_eq!((twice.surplus, twice.faults.disordered), (1, 1));
        let first = verdict(|records| drop(records.remove(0)));
        assert_eq!((first.lost, first.faults.offset_gaps), (1, 1));
        let swapped = verdict(|records| {
            // Two of one producer in one partition.
            let (a, b) = (records[0].2.clone(), records[6].2.clone());
            assert_eq!(records[0].0, records[6].0);
            (records[0].2, records[6].2) = (b, a);
        });
        assert!(swapped.faults.disordered > 0 && swapped.lost == 0, "{swapped:?}");
        let gap = verdict(|records| records.last_mut().unwrap().1 += 1);
        assert_eq!((gap.faults.offset_gaps, gap.relocated), (1, 1));
        let mut behind_a_marker = Ledger::new(7, 2, 3).with_markers(true);
        for offset in [4, 5, 7, 6] {
            behind_a_marker.read(0, offset, None, None);
        }
        assert_eq!(behind_a_marker.faults().offset_gaps, 1);
        let corrupt = verdict(|records| {
            let mut value = records[5].2.to_vec();
            value[40] ^= 1;
            records[5].2 = value.into();
        });
        assert_eq!((corrupt.faults.corrupt, corrupt.lost), (1, 1));
        let elsewhere = verdict(|records| records[0].0 = (records[0].0 + 1) % 3);
        assert!(elsewhere.lost == 1 && elsewhere.surplus == 1, "{elsewhere:?}");
        let exchanged = verdict(|records| {
            let other = Payloads::new(7, Sizes::Fixed(64), Filler::Random, 2).make(0, 0, 0).0;
            records[0].2 = other;
        });
        assert_eq!(exchanged.exchanged, 1);
    }

    #[test]
    fn a_key_is_in_one_partition() {
        let mut payloads = Payloads::new(7, Sizes::Fixed(64), Filler::Random, 1);
        let mut sequence = 0;
        let mut read = |ledger: &mut Ledger, partition, key: &str| {
            let value = payloads.make(0, sequence, 0).0;
            sequence += 1;
            ledger.read(partition, sequence as i64, Some(key.as_bytes()), Some(&value));
            ledger.faults().scattered
        };
        let blank = || Ledger::new(7, 1, 3).with_keys(10).with_markers(true);
        let (mut one, mut other) = (blank(), blank());
        assert_eq!(read(&mut one, 0, &key_name(1)), 0);
        assert_eq!(read(&mut one, 1, &key_name(2)), 0);
        assert_eq!(read(&mut one, 1, &key_name(2)), 0);
        assert_eq!(read(&mut one, 1, &key_name(1)), 1);
        assert_eq!(read(&mut one, 1, "stranger"), 2);
        assert_eq!(read(&mut one, 1, &key_name(10)), 3);
        // Another consumer has another partition.
        assert_eq!(read(&mut other, 2, &key_name(2)), 0);
        assert_eq!(read(&mut other, 2, &key_name(3)), 0);
        let mut all = blank();
        all.merge(&one);
        all.merge(&other);
        assert_eq!(all.faults().scattered, 4);
    }

    #[test]
    fn what_is_not_where_it_was_said_to_be_shows() {
        let mut payloads = Payloads::new(7, Sizes::Fixed(64), Filler::Random, 1);
        let values: Vec<_> = (0..3).map(|sequence| payloads.make(0, sequence, 0)).collect();
        let digest = values.iter().fold(0u64, |sum, (_, digest)| sum.wrapping_add(*digest));
        let relocated = |offset| {
            let mut sent = Ledger::new(7, 1, 1);
            sent.sent(0, 0, Written { count: 3, digest, offset });
            let mut read = Ledger::new(7, 1, 1);
            for (at, (value, _)) in values.iter().enumerate() {
                read.read(0, 5 + at as i64, None, Some(value));
            }
            sent.verdict(&read).relocated
        };
        assert_eq!((relocated(Some(5)), relocated(Some(6)), relocated(None)), (0, 1, 0));
    }
}
