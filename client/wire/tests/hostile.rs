//! Bytes that lie: no decode panics, and none takes more memory than its bound, whatever the bytes say.

use bytes::Bytes;
use corelog_wire::testing::{CASES, Case, CountingAllocator, Gen};
use corelog_wire::{EXPANSION, Reader, RequestHeader};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Room for what `Bytes` shares per frame, independent of the input.
const SLACK: usize = 512;

/// Decodes and holds the decode to its bound; gives whether it succeeded.
fn decode(case: &Case, version: i16, bytes: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(bytes);
    let before = CountingAllocator::held();
    CountingAllocator::forget_peak();
    let decoded = (case.decode)(frame, version);
    let taken = (CountingAllocator::peak() - before) as usize;
    assert!(
        taken <= EXPANSION * bytes.len() + SLACK,
        "{} v{version}: {taken} bytes of memory for {} bytes: {bytes:02x?}",
        case.name,
        bytes.len()
    );
    decoded.is_ok()
}

fn for_each_version(mut check: impl FnMut(&Case, i16)) {
    for case in CASES {
        (case.min_version..=case.max_version).for_each(|version| check(case, version));
    }
}

/// Samples short enough to be cut and bent at every byte.
fn short_samples(case: &Case, version: i16, most: usize) -> impl Iterator<Item = Bytes> {
    (0..50)
        .map(move |seed| (case.sample)(&mut Gen::new(seed), version))
        .filter(move |sample| sample.len() <= most)
        .take(2)
}

#[test]
fn cut_at_every_byte() {
    for_each_version(|case, version| {
        for sample in short_samples(case, version, 300) {
            for len in 0..sample.len() {
                assert!(
                    !decode(case, version, &sample[..len]),
                    "{} v{version} decodes {len} bytes of {sample:02x?}",
                    case.name
                );
            }
            assert!(decode(case, version, &sample));
            let longer = [&sample[..], &[0]].concat();
            assert!(
                !decode(case, version, &longer),
                "{} v{version} swallows a byte after {sample:02x?}",
                case.name
            );
        }
    });
}

#[test]
fn every_place_overwritten_by_lengths_that_lie() {
    const LIES: [&[u8]; 9] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0x00, 0x01, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x7f],
        &[0x00],
    ];
    for_each_version(|case, version| {
        for sample in short_samples(case, version, 300) {
            for at in 0..sample.len() {
                for lie in LIES {
                    let mut bent = sample.to_vec();
                    let end = bent.len().min(at + lie.len());
                    bent.splice(at..end, lie.iter().copied());
                    if decode(case, version, &bent) {
                        still_a_value(case, version, bent.into());
                    }
                }
            }
        }
    });
}

/// What was decoded can be encoded, and that decodes to the same. Not always the same bytes: there may have been unknown tags, or
/// integers longer than need be.
fn still_a_value(case: &Case, version: i16, bytes: Bytes) {
    let once = (case.recode)(bytes.clone(), version)
        .unwrap()
        .unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"));
    let twice = (case.recode)(once.clone(), version).unwrap().unwrap();
    assert_eq!(once, twice, "{} v{version}", case.name);
}

#[test]
fn repetitions_and_noise() {
    let mut g = Gen::new(1);
    for_each_version(|case, version| {
        // Small counts over and over make the most elements of the fewest bytes.
        for byte in [0x00, 0x01, 0x02, 0x03, 0x10, 0x7f, 0x80, 0xff] {
            decode(case, version, &vec![byte; 10_000]);
        }
        for _ in 0..50 {
            let few = 1 + g.below(255);
            let noise: Vec<u8> = (0..g.below(200)).map(|_| g.below(few) as u8).collect();
            decode(case, version, &noise);
        }
    });
}

/// The most memory per byte: an array of the smallest possible elements, in each version and at whatever depth.
#[test]
fn largest_arrays_of_smallest_elements() {
    for_each_version(|case, version| {
        for sample in short_samples(case, version, 100) {
            for at in 0..sample.len() {
                // A count that the bytes after it could just bear, as four bytes and as a varint.
                for count in [4_000u32, 1_000] {
                    let mut frame = sample[..at].to_vec();
                    frame.extend(count.to_be_bytes());
                    frame.resize(frame.len() + 6_000, 1);
                    decode(case, version, &frame);
                    let mut frame = sample[..at].to_vec();
                    frame.extend([count as u8 | 0x80, (count >> 7) as u8 | 0x80, (count >> 14) as u8]);
                    frame.resize(frame.len() + 6_000, 1);
                    decode(case, version, &frame);
                }
            }
        }
    });
}

#[test]
fn headers() {
    let mut g = Gen::new(2);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..g.below(40)).map(|_| g.bits() as u8).collect();
        let _ = RequestHeader::decode(&mut Reader::new(noise.into()));
    }
    // The longest client id that can be claimed, in a frame that lacks it.
    let frame = Bytes::from_static(&[0, 3, 0, 9, 0, 0, 0, 1, 0x7f, 0xff, b'x']);
    assert!(RequestHeader::decode(&mut Reader::new(frame)).is_err());
}
