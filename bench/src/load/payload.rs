//! What records carry: enough to tell, when they are read, that they are whole, whose they are, in which order they were
//! sent, and when they should have been.
//!
//! ```text
//! value: magic 4 | run 4 | producer 4 | checksum 4 | sequence 8 | due 8 | filler ...        (little-endian)
//! ```
//! The checksum is CRC-32C over all of the value but itself. The time due is in nanoseconds since the run's start.

use bytes::{BufMut, Bytes, BytesMut};
use corelog_conformance::random::Random;
use serde::Serialize;

/// Bytes of the smallest value.
pub const HEADER_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"CBv1";
const CHECKSUM_AT: usize = 12;
/// The largest value: beyond it a record does not fit into a request by default, and the pool of filler would grow.
const SIZE_MAX: u64 = 8 << 20;

/// Sizes of values, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    Fixed(u64),
    Uniform {
        least: u64,
        most: u64,
    },
    LogUniform {
        least: u64,
        most: u64,
    },
    /// Sizes and their weights.
    Mix(Vec<(u64, u32)>),
}

impl Sizes {
    pub fn check(&self) -> Result<(), String> {
        let (least, most) = self.bounds();
        if least < HEADER_LEN as u64 {
            return Err(format!("the smallest record has {HEADER_LEN} bytes, which check the rest"));
        }
        if most > SIZE_MAX {
            return Err(format!("the largest record has {SIZE_MAX} bytes"));
        }
        Ok(())
    }

    fn bounds(&self) -> (u64, u64) {
        match self {
            Sizes::Fixed(size) => (*size, *size),
            Sizes::Uniform { least, most } | Sizes::LogUniform { least, most } => (*least, *most),
            Sizes::Mix(parts) => {
                let sizes = || parts.iter().map(|(size, _)| *size);
                (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0))
            }
        }
    }

    pub fn largest(&self) -> usize {
        self.bounds().1 as usize
    }

    pub fn mean(&self) -> f64 {
        match self {
            Sizes::Fixed(size) => *size as f64,
            Sizes::Uniform { least, most } => (least + most) as f64 / 2.0,
            Sizes::LogUniform { least, most } if least == most => *least as f64,
            Sizes::LogUniform { least, most } => {
                let (least, most) = (*least as f64, *most as f64);
                (most - least) / (most.ln() - least.ln())
            }
            Sizes::Mix(parts) => {
                let weights: f64 = parts.iter().map(|(_, weight)| f64::from(*weight)).sum();
                parts.iter().map(|(size, weight)| *size as f64 * f64::from(*weight)).sum::<f64>() / weights
            }
        }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let size = match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform { least, most } => random.between(*least, *most),
            Sizes::LogUniform { least, most } => random.log_uniform(*least, *most),
            Sizes::Mix(parts) => {
                let weights: u64 = parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut at = random.below(weights);
                let hit = parts.iter().find(|(_, weight)| match at.checked_sub(u64::from(*weight)) {
                    Some(left) => {
                        at = left;
                        false
                    }
                    None => true,
                });
                hit.expect("weights were summed up").0
            }
        };
        size as usize
    }
}

/// What fills values up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Filler {
    /// Bytes that do not compress
    Random,
    /// Lines of JSON with repeating names and varying numbers, which compress to about a quarter
    Json,
}

impl Filler {
    /// A cycle of filler from which any `len` bytes may be cut at any place below `len`.
    fn pool(self, len: usize, random: &mut Random) -> Vec<u8> {
        let mut pool = match self {
            Filler::Random => random.bytes(len),
            Filler::Json => {
                let mut text = Vec::with_capacity(len + 128);
                while text.len() < len {
                    let line = format!(
                        "{{\"id\":{},\"user\":\"user-{}\",\"action\":\"{}\",\"amount\":{}.{:02}}}\n",
                        random.below(1 << 40),
                        random.below(10_000),
                        ["view", "click", "order", "refund"][random.below(4) as usize],
                        random.below(1000),
                        random.below(100),
                    );
                    text.extend_from_slice(line.as_bytes());
                }
                text.truncate(len);
                text
            }
        };
        pool.extend_from_within(..);
        pool
    }
}

/// Makes values.
pub struct Payloads {
    run: u32,
    sizes: Sizes,
    pool: Vec<u8>,
    random: Random,
    /// Values are cut from this, so that they cost no allocation each.
    buffer: BytesMut,
}

const BUFFER_LEN: usize = 256 << 10;
const POOL_LEN_MIN: usize = 1 << 20;

impl Payloads {
    pub fn new(run: u32, sizes: Sizes, filler: Filler, seed: u64) -> Payloads {
        let mut random = Random::new(seed);
        let pool = filler.pool(sizes.largest().max(POOL_LEN_MIN), &mut random);
        Payloads { run, sizes, pool, random, buffer: BytesMut::new() }
    }

    /// A value, and its part of the producer's tally.
    pub fn make(&mut self, producer: u32, sequence: u64, due: u64) -> (Bytes, u64) {
        let len = self.sizes.draw(&mut self.random);
        if self.buffer.capacity() < len {
            self.buffer.reserve(len.max(BUFFER_LEN));
        }
        let at = (self.random.bits() as usize) % (self.pool.len() / 2);
        let filler = &self.pool[at..at + len - HEADER_LEN];
        let value = &mut self.buffer;
        value.put_slice(&MAGIC);
        value.put_u32_le(self.run);
        value.put_u32_le(producer);
        value.put_u32_le(0);
        value.put_u64_le(sequence);
        value.put_u64_le(due);
        value.put_slice(filler);
        let mut value = value.split();
        let checksum = checksum(&value);
        value[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
        (value.freeze(), digest(sequence, checksum))
    }
}

fn checksum(value: &[u8]) -> u32 {
    let before = crc32c::crc32c(&value[..CHECKSUM_AT]);
    crc32c::crc32c_append(before, &value[CHECKSUM_AT + 4..])
}

/// Sums of these are equal if the same records were summed up, in whichever order.
fn digest(sequence: u64, checksum: u32) -> u64 {
    Random::new(sequence ^ u64::from(checksum) << 32).bits()
}

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u32,
    pub producer: u32,
    pub sequence: u64,
    pub due: u64,
    pub digest: u64,
}

/// Why a value is none that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was not made here.
    Foreign,
    Corrupt,
}

impl Stamp {
    pub fn read(value: &[u8]) -> Result<Stamp, Fault> {
        if value.len() < HEADER_LEN || value[..4] != MAGIC {
            return Err(Fault::Foreign);
        }
        let word = |at: usize| u32::from_le_bytes(value[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("eight bytes"));
        let checksum = checksum(value);
        if word(CHECKSUM_AT) != checksum {
            return Err(Fault::Corrupt);
        }
        let (sequence, due) = (long(16), long(24));
        Ok(Stamp { run: word(4), producer: word(8), sequence, due, digest: digest(sequence, checksum) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_what_they_are_and_any_flip_shows() {
        for sizes in [Sizes::Fixed(32), Sizes::Fixed(1000), Sizes::Uniform { least: 32, most: 5000 }] {
            for filler in [Filler::Random, Filler::Json] {
                let mut payloads = Payloads::new(7, sizes.clone(), filler, 1);
                for sequence in 0..50 {
                    let (value, digest) = payloads.make(3, sequence, 11);
                    let stamp = Stamp::read(&value).unwrap();
                    assert_eq!(stamp, Stamp { run: 7, producer: 3, sequence, due: 11, digest });
                    let mut flipped = value.to_vec();
                    flipped[(sequence as usize * 31) % value.len()] ^= 4;
                    assert!(Stamp::read(&flipped).is_err());
                }
            }
        }
        assert_eq!(Stamp::read(b"something else"), Err(Fault::Foreign));
    }

    #[test]
    fn sizes_have_the_mean_that_they_claim() {
        let mut random = Random::new(5);
        for sizes in [
            Sizes::Fixed(100),
            Sizes::Uniform { least: 100, most: 900 },
            Sizes::LogUniform { least: 100, most: 10_000 },
            Sizes::Mix(vec![(100, 9), (10_000, 1)]),
        ] {
            let drawn: usize = (0..200_000).map(|_| sizes.draw(&mut random)).sum();
            let mean = drawn as f64 / 200_000.0;
            assert!((mean / sizes.mean() - 1.0).abs() < 0.02, "{sizes:?}: {mean} against {}", sizes.mean());
        }
    }
}
