//! Every message in every version: decoding what was encoded and encoding it again gives the same bytes. For Produce and Fetch the
//! samples are written by the codec generated from the schema, and read and written by the one made by hand.

use bytes::Bytes;
use corelog_wire::testing::{CASES, Gen};
use corelog_wire::{DecodeFault, Message, messages};

const SAMPLES: u64 = 100;

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

/// The codecs of Produce and Fetch made by hand give each field the meaning that the schema gives it.
#[test]
fn codecs_by_hand_agree_with_the_schema() {
    // Struct names differ, and records are one piece in the one and a list of parts in the other.
    let plain = |text: String| -> String {
        let text = text.replace("Some(b\"\")", "Some([])").replace(['[', ']'], "");
        let words: Vec<&str> = text.split(' ').collect();
        let follows = words[1..].iter().chain([&""]);
        words
            .iter()
            .zip(follows)
            .filter(|(_, next)| **next != "{")
            .map(|(word, _)| format!("{word} "))
            .collect()
    };
    for case in CASES.iter().filter(|case| case.name.starts_with("Produce") || case.name.starts_with("Fetch"))
    {
        for version in case.min_version..=case.max_version {
            for seed in 0..20 {
                let sample = (case.sample)(&mut Gen::new(seed), version);
                let (by_hand, generated) = (case.show)(sample, version).unwrap();
                assert_eq!(plain(by_hand), plain(generated), "{} v{version} seed {seed}", case.name);
            }
        }
    }
}

#[test]
fn versions_outside_the_schema_are_refused() {
    for case in CASES {
        for version in [case.min_version - 1, case.max_version + 1, i16::MIN, i16::MAX] {
            let error = (case.decode)(Bytes::from(vec![0; 100]), version).unwrap_err();
            let known = case.min_version..=case.max_version;
            assert_eq!(error.fault, DecodeFault::UnknownVersion { version, known }, "{}", case.name);
        }
    }
}

#[test]
fn decoded_values_are_those_encoded() {
    use messages::{MetadataResponse, metadata_response::Topic};
    let response = MetadataResponse {
        controller_id: 5,
        topics: vec![Topic { name: Some("t".into()), is_internal: true, ..Default::default() }],
        ..Default::default()
    };
    for version in MetadataResponse::VERSIONS {
        let decoded = MetadataResponse::from_bytes(response.to_bytes(version).unwrap(), version).unwrap();
        assert_eq!(decoded.topics[0].name.as_deref(), Some("t"));
        // Version 0 has neither, and falls back to the defaults.
        assert_eq!(decoded.controller_id, if version == 0 { -1 } else { 5 });
        assert_eq!(decoded.topics[0].is_internal, version > 0);
    }
}
