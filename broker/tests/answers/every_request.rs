//! Whatever a well-formed request holds, it is answered: no value of any field of any version, and no string that is not
//! UTF-8, closes the connection without a word.

use std::io::ErrorKind;

use bytes::{BufMut, Bytes, BytesMut};
use corelog_broker::api::APIS;
use corelog_wire::produce::ProduceRequest;
use corelog_wire::testing::{CASES, Case, Gen, Role};
use corelog_wire::{ApiKey, Message, Reader, ResponseHeader};

use crate::world::{Client, World};

/// Random requests of each version of each API.
const SAMPLES: u64 = 12;
const CORRELATION_ID: i32 = 77;

/// A letter that the samples' strings have, and bytes of its length that are no text.
const LETTER: &[u8] = "\u{1f980}".as_bytes();
const NO_TEXT: [u8; 4] = [0xff, 0xc0, 0xe9, 0x80];

fn case(role: Role) -> &'static Case {
    CASES.iter().find(|case| case.role == role).expect("every API has a codec")
}

/// The frame with every [`LETTER`] spoilt, and whether there was one.
fn spoilt(frame: &Bytes) -> (Bytes, bool) {
    let mut bytes = frame.to_vec();
    let mut found = false;
    while let Some(at) = bytes.windows(LETTER.len()).position(|window| window == LETTER) {
        bytes[at..at + LETTER.len()].copy_from_slice(&NO_TEXT);
        found = true;
    }
    (bytes.into(), found)
}

fn framed(key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(key.into());
    frame.put_i16(version);
    frame.put_i32(CORRELATION_ID);
    let client_id = [b"client-".as_slice(), LETTER].concat();
    frame.put_i16(client_id.len() as i16);
    frame.put_slice(&client_id);
    if key.is_flexible(version) {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

/// Whether the request tells that it wants no answer; then an error closes the connection, for want of another way.
fn is_unanswered(key: ApiKey, version: i16, body: &Bytes) -> bool {
    key == ApiKey::Produce
        && ProduceRequest::from_bytes(body.clone(), version).expect("a sample can be decoded").acks == 0
}

async fn ask(client: Client, key: ApiKey, version: i16, frame: Bytes) {
    let mut connection = client.connect().await;
    let size = Bytes::copy_from_slice(&(frame.len() as i32).to_be_bytes());
    connection.send_bytes(vec![size, frame.clone()]).await.expect("the broker reads");
    match connection.next().await {
        Ok(answer) => {
            let mut reader = Reader::new(answer);
            let header = ResponseHeader::decode(&mut reader, key, version).expect("an answer has a header");
            assert_eq!(header.correlation_id, CORRELATION_ID);
            (case(Role::Response(key)).decode)(reader.rest(), version)
                .unwrap_or_else(|error| panic!("{key:?} v{version}: {error}"));
        }
        // A fetch or a member of a group may wait for as long as its request says.
        Err(error) if error.kind() == ErrorKind::TimedOut => {}
        Err(error) => panic!("{key:?} v{version} was not answered: {error}\n{frame:?}"),
    }
}

#[test]
fn every_request_of_every_version_is_answered() {
    let world = World::start(&[("num.partitions", "2")]);
    let mut spoilt_count = 0;
    for api in APIS {
        let sample = case(Role::Request(api.key)).sample;
        for version in api.min_version..=api.max_version {
            for seed in 0..SAMPLES {
                let seed = seed + SAMPLES * (i64::from(version) + 100 * i64::from(i16::from(api.key))) as u64;
                let body = sample(&mut Gen::new(seed), version);
                if is_unanswered(api.key, version, &body) {
                    continue;
                }
                let frame = framed(api.key, version, &body);
                let (broken, found) = spoilt(&frame);
                assert!(found, "the client id has the letter");
                spoilt_count += u32::from(spoilt(&body).1);
                for frame in [frame, broken] {
                    world.run(move |client| ask(client, api.key, version, frame));
                }
            }
        }
    }
    assert!(spoilt_count > 100, "only {spoilt_count} requests had a string to spoil");
}
