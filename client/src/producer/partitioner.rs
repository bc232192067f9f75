//! Which partition a record goes to.

use super::record::ProducerRecord;
use crate::driver::random_u64;
use std::fmt;
use std::sync::Arc;

/// How records that do not name their partition get one.
#[derive(Clone, Default)]
pub enum Partitioner {
    /// By the key's hash, as Kafka's Java client does; records without a key fill a batch for one partition, then for another
    /// (KIP-480, KIP-794).
    #[default]
    KeyHash,
    /// One partition after the other, whatever the key.
    RoundRobin,
    /// By a function of the record and the number of partitions; what it returns is taken modulo that number.
    Custom(PartitionFn),
}

/// See [`Partitioner::Custom`].
pub type PartitionFn = Arc<dyn Fn(&ProducerRecord, u32) -> u32 + Send + Sync>;

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Partitioner::KeyHash => "KeyHash",
            Partitioner::RoundRobin => "RoundRobin",
            Partitioner::Custom(_) => "Custom",
        })
    }
}

/// One topic's turn.
#[derive(Default)]
pub(super) struct Chooser {
    turn: u32,
    sticky: Option<u32>,
    sticky_bytes: usize,
}

impl Chooser {
    /// Where records without a key go now, if that is settled.
    pub(super) fn sticky(&self) -> Option<u32> {
        self.sticky
    }

    /// The next record without a key goes elsewhere.
    pub(super) fn leave(&mut self) {
        self.sticky_bytes = usize::MAX;
    }

    /// A partition below `count`, which is not 0. `available` are those with a leader, in
    /// order: where any will do, one of them is taken.
    pub(super) fn choose(
        &mut self,
        partitioner: &Partitioner,
        record: &ProducerRecord,
        count: u32,
        available: &[i32],
        batch_bytes: usize,
    ) -> i32 {
        let chosen = match (partitioner, &record.key) {
            (Partitioner::KeyHash, Some(key)) => (murmur2(key) & 0x7fff_ffff) % count,
            (Partitioner::KeyHash, None) => {
                return self.stick(record.size(), count, available, batch_bytes);
            }
            (Partitioner::RoundRobin, _) => {
                self.turn = self.turn.wrapping_add(1);
                let all = available.len().max(1);
                return available.get(self.turn as usize % all).copied().unwrap_or(0);
            }
            (Partitioner::Custom(choose), _) => choose(record, count) % count,
        };
        chosen as i32
    }

    fn stick(&mut self, bytes: usize, count: u32, available: &[i32], batch_bytes: usize) -> i32 {
        let full = self.sticky_bytes >= batch_bytes;
        let is_available = |sticky: u32| available.binary_search(&(sticky as i32)).is_ok();
        let partition = match self.sticky {
            Some(sticky) if !full && (available.is_empty() || is_available(sticky)) => sticky,
            previous => {
                self.sticky_bytes = 0;
                another(previous, count, available)
            }
        };
        self.sticky = Some(partition);
        self.sticky_bytes = self.sticky_bytes.saturating_add(bytes);
        partition as i32
    }
}

/// Any of `available` but `previous`, if there is another; any below `count` if none is available.
fn another(previous: Option<u32>, count: u32, available: &[i32]) -> u32 {
    let pick = |all: usize| (random_u64() % all as u64) as usize;
    match available.len() {
        0 => pick(count as usize) as u32,
        1 => available[0] as u32,
        all => {
            let at = pick(all);
            let chosen = available[at] as u32;
            if Some(chosen) != previous {
                return chosen;
            }
            available[(at + 1 + pick(all - 1)) % all] as u32
        }
    }
}

/// MurmurHash2 (Austin Appleby's, public domain) with the seed of Kafka's Java client: keys go where that one puts them.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hashes_are_those_of_kafkas_java_client() {
        // From Kafka's UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            ("abc", 479470107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn keys_stay_where_they_are_and_the_keyless_change_after_a_batch() {
        let mut chooser = Chooser::default();
        let available: Vec<i32> = (0..6).collect();
        let mut choose =
            |record: &ProducerRecord| chooser.choose(&Partitioner::KeyHash, record, 6, &available, 1000);
        let keyed = ProducerRecord::to("t").key("foobar");
        assert_eq!(choose(&keyed), (-790332482 & 0x7fff_ffff) % 6);
        let keyless = ProducerRecord::to("t").value(vec![0; 100]);
        let choices: Vec<i32> = (0..1000).map(|_| choose(&keyless)).collect();
        let changes: Vec<usize> = (1..1000).filter(|at| choices[*at] != choices[at - 1]).collect();
        let gaps: BTreeSet<usize> = changes.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps.len(), 1, "after as many records as fill a batch");
        assert_eq!(choices.iter().collect::<BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn the_keyless_avoid_partitions_without_a_leader() {
        for partitioner in [Partitioner::KeyHash, Partitioner::RoundRobin] {
            let mut chooser = Chooser::default();
            let record = ProducerRecord::to("t").value(vec![0; 100]);
            let chosen: BTreeSet<i32> =
                (0..1000).map(|_| chooser.choose(&partitioner, &record, 6, &[1, 4], 100)).collect();
            assert_eq!(chosen, BTreeSet::from([1, 4]));
        }
    }
}
