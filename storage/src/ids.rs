//! Names and numbers that must not be mixed.

pub use corelog_wire::Uuid;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

/// One partition's log: topic id and partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    pub topic: Uuid,
    pub partition: i32,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Hashes [`LogId`]s in a few instructions and the same in each run. Topic ids are random and made by the broker: nobody
/// can choose some that collide.
pub type HashLogId = BuildHasherDefault<LogIdHasher>;

#[derive(Default)]
pub struct LogIdHasher(u64);

impl LogIdHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for LogIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_i32(&mut self, number: i32) {
        self.mix(number as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    /// Maps take buckets from the low bits, which a product mixes least.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

/// Position of a batch in its partition's Raft log, from 0, without gaps. Every batch has one; Kafka offsets are
/// taken only by the records of batches that are not internal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RaftIndex(pub u64);

impl RaftIndex {
    /// The index after this one.
    pub fn next(self) -> RaftIndex {
        RaftIndex(self.0 + 1)
    }
}

impl fmt::Display for RaftIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
