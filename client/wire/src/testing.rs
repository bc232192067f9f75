//! For tests and fuzz targets: random values of every message, and one table of all codecs.

use crate::{ApiKey, DecodeError, EncodeError, Message, Str, Uuid};
use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

/// A value that the given version of its message can carry: fields that the version lacks have their defaults.
pub trait Arbitrary {
    fn arbitrary(g: &mut Gen, version: i16) -> Self;
}

/// Random numbers that a seed repeats.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// splitmix64.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }
}

/// A source of random values that prefers the ends of their ranges. The same seed gives the same values.
pub struct Gen {
    random: Random,
    /// Array elements that are still to be had: keeps messages with arrays in arrays in arrays small.
    elements_left: u64,
}

impl Gen {
    pub fn new(seed: u64) -> Self {
        Gen { random: Random(seed), elements_left: 400 }
    }

    pub fn bits(&mut self) -> u64 {
        self.random.bits()
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    pub fn null(&mut self) -> bool {
        self.below(4) == 0
    }

    /// To be cut to the width of the field.
    pub fn int(&mut self) -> i64 {
        match self.below(8) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            4 | 5 => self.below(300) as i64 - 20,
            _ => self.bits() as i64,
        }
    }

    pub fn string(&mut self) -> Str {
        let len = match self.below(400) {
            0 => 4_094 + self.below(4),
            1..10 => 126 + self.below(4),
            _ => self.below(12),
        };
        const LETTERS: [char; 8] = ['a', 'Z', '0', '.', '-', 'é', '漢', '🦀'];
        Str::from((0..len).map(|_| LETTERS[self.below(8) as usize]).collect::<String>().as_str())
    }

    pub fn bytes(&mut self) -> Bytes {
        let len = match self.below(10) {
            // Around the size from which the writer takes bytes by reference.
            0 => 1020 + self.below(8),
            1 => 126 + self.below(4),
            _ => self.below(20),
        };
        (0..len).map(|_| self.bits() as u8).collect()
    }

    pub fn uuid(&mut self) -> Uuid {
        if self.below(4) == 0 {
            Uuid::ZERO
        } else {
            Uuid::from_halves(self.bits() as i64, self.bits() as i64)
        }
    }

    pub fn vec<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = if self.below(30) == 0 { 126 + self.below(4) } else { self.below(4) };
        let len = len.min(self.elements_left);
        self.elements_left -= len;
        (0..len).map(|_| element(self)).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Request(ApiKey),
    Response(ApiKey),
    Record,
}

/// One message's codec. For Produce and Fetch, whose codecs are written by hand, the values come from the generated twin.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub role: Role,
    pub min_version: i16,
    pub max_version: i16,
    /// A random value, encoded by the generated codec.
    pub sample: fn(&mut Gen, i16) -> Bytes,
    /// Decodes all of the bytes and encodes the value again.
    pub recode: fn(Bytes, i16) -> Result<Result<Bytes, EncodeError>, DecodeError>,
    /// Decodes all of the bytes.
    pub decode: fn(Bytes, i16) -> Result<(), DecodeError>,
    /// The same by the generated codec.
    pub decode_generated: fn(Bytes, i16) -> Result<(), DecodeError>,
    /// The decoded value in `Debug`'s form, from both codecs.
    pub show: fn(Bytes, i16) -> Result<(String, String), DecodeError>,
}

impl Case {
    const fn new<Served: Message + Debug, Generated: Message + Arbitrary + Debug>(role: Role) -> Self {
        Case {
            name: Generated::NAME,
            role,
            min_version: Generated::MIN_VERSION,
            max_version: Generated::MAX_VERSION,
            sample: |g, version| {
                Generated::arbitrary(g, version)
                    .to_bytes(version)
                    .expect("arbitrary values fit their version")
            },
            recode: |bytes, version| Served::from_bytes(bytes, version).map(|value| value.to_bytes(version)),
            decode: |bytes, version| Served::from_bytes(bytes, version).map(drop),
            decode_generated: |bytes, version| Generated::from_bytes(bytes, version).map(drop),
            show: |bytes, version| {
                let served = Served::from_bytes(bytes.clone(), version)?;
                let generated = Generated::from_bytes(bytes, version)?;
                Ok((format!("{served:?}"), format!("{generated:?}")))
            },
        }
    }
}

/// Every message and record that this crate can encode and decode.
pub const CASES: &[Case] = include!(concat!(env!("OUT_DIR"), "/cases.rs"));

/// The system's allocator, which counts the bytes that each thread holds, and the most that it held: a test that says what
/// memory something may take makes it its global allocator.
pub struct CountingAllocator;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

impl CountingAllocator {
    /// What this thread holds.
    pub fn held() -> isize {
        HELD.get()
    }

    /// The most that it held since [`CountingAllocator::forget_peak`].
    pub fn peak() -> isize {
        PEAK.get()
    }

    pub fn forget_peak() {
        PEAK.set(HELD.get());
    }

    fn count(change: isize) {
        let held = HELD.get() + change;
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
    }
}

// SAFETY: the system's allocator does the work; counting touches no memory that it gives.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CountingAllocator::count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        CountingAllocator::count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
