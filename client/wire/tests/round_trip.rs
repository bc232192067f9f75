//! Every message in every version: decoding what was encoded and encoding it again gives the same bytes. For Produce and Fetch the
//! samples are written by the codec generated from the schema, and read and written by the one made by hand.

use bytes::Bytes;
use corelog_wire::testing::{CASES, Gen};

const SAMPLES: u64 = 60;

#[test]
fn every_message_in_every_version() {
    for case in CASES {
        for version in case.min_version..=case.max_version {
            for seed in 0..SAMPLES {
                let sample = (case.sample)(&mut Gen::new(seed), version);
                match (case.recode)(sample.clone(), version) {
                    Ok(Ok(again)) => assert_eq!(again, sample, "{} v{version} seed {seed}", case.name),
                    other => panic!("{} v{version} seed {seed}: {other:?}", case.name),
                }
            }
        }
    }
}

#[test]
fn versions_outside_the_schema_are_refused() {
    for case in CASES {
        for version in [case.min_version - 1, case.max_version + 1, i16::MIN, i16::MAX] {
            assert!((case.decode)(Bytes::from(vec![0; 100]), version).is_err(), "{} v{version}", case.name);
        }
    }
}
