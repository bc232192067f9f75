//! What every record of a suite says about itself, so that a reader can tell whose it is, and whether it is whole.

use crate::random::Random;
use corelog_wire::Str;

/// Magic, producer, partition, number, length.
const FRONT_LEN: usize = 4 + 4 + 4 + 8 + 4;
pub const VALUE_LEN_MIN: usize = 100;
pub const VALUE_LEN_MAX: usize = 500_000;
const MAGIC: u32 = 0x434f_5245;
const POOL_LEN: usize = 2 << 20;

/// Whose record it is: the `number`th of a producer in a partition, from 0 and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub producer: u32,
    pub partition: u32,
    pub number: u64,
}

/// The bytes that fill records: which of them follows from the record's identity.
pub struct Pool {
    bytes: Vec<u8>,
}

impl Pool {
    /// Half of it repeats, so that compression has something to do.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut bytes = Vec::with_capacity(POOL_LEN);
        while bytes.len() < POOL_LEN {
            bytes.extend_from_slice(&random.bytes(32));
            bytes.extend_from_slice(&[b'.'; 32]);
        }
        Pool { bytes }
    }

    /// Replaces what is in `value` by the record's value of `len` bytes.
    pub fn write(&self, identity: Identity, len: usize, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&MAGIC.to_be_bytes());
        value.extend_from_slice(&identity.producer.to_be_bytes());
        value.extend_from_slice(&identity.partition.to_be_bytes());
        value.extend_from_slice(&identity.number.to_be_bytes());
        value.extend_from_slice(&(len as u32).to_be_bytes());
        value.extend_from_slice(self.filler(identity, len));
    }

    fn filler(&self, identity: Identity, len: usize) -> &[u8] {
        let seed = u64::from(identity.producer) << 40 ^ u64::from(identity.partition) << 32 ^ identity.number;
        let start = Random::new(seed).below((POOL_LEN - VALUE_LEN_MAX) as u64) as usize;
        &self.bytes[start..start + len - FRONT_LEN]
    }

    /// The identity of a value, if every byte of it is as it was written.
    pub fn read(&self, value: &[u8]) -> Result<Identity, String> {
        let u32_at = |at: usize| {
            value.get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))
        };
        let front = (u32_at(0), u32_at(4), u32_at(8), value.get(12..20), u32_at(20));
        let (Some(MAGIC), Some(producer), Some(partition), Some(number), Some(len)) = front else {
            return Err(format!("a value of {} bytes that nobody wrote", value.len()));
        };
        let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
        let identity = Identity { producer, partition, number };
        if len as usize != value.len() || !(VALUE_LEN_MIN..=VALUE_LEN_MAX).contains(&value.len()) {
            return Err(format!("{identity:?} was written with {len} bytes and has {}", value.len()));
        }
        if &value[FRONT_LEN..] != self.filler(identity, value.len()) {
            return Err(format!("{identity:?} has other bytes than were written"));
        }
        Ok(identity)
    }
}

/// Partitions are numbered through over all topics.
pub struct Target<'a> {
    pub topics: &'a [Str],
    pub partitions_per_topic: u32,
    pub pool: &'a Pool,
}

impl Target<'_> {
    pub fn partitions(&self) -> u32 {
        self.topics.len() as u32 * self.partitions_per_topic
    }

    pub fn locate(&self, partition: u32) -> (&Str, i32) {
        let topic = &self.topics[(partition / self.partitions_per_topic) as usize];
        (topic, (partition % self.partitions_per_topic) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen() {
        let pool = Pool::new(1);
        let identity = Identity { producer: 3, partition: 9, number: 70 };
        let mut value = Vec::new();
        for len in [VALUE_LEN_MIN, 5000, VALUE_LEN_MAX] {
            pool.write(identity, len, &mut value);
            assert_eq!((value.len(), pool.read(&value)), (len, Ok(identity)));
            let last = value.len() - 1;
            for at in [0, 20, FRONT_LEN, last] {
                value[at] ^= 1;
                assert!(pool.read(&value).is_err(), "{at}");
                value[at] ^= 1;
            }
            assert!(pool.read(&value[..last]).is_err());
        }
    }
}
