//! Greetings and envelopes: what is said is heard, and what is no greeting or envelope is refused.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::envelope::{BadFrame, ENVELOPE_BYTES, Envelope, HEAD_BYTES_MAX, Kind};
use super::hello::{
    BadGreeting, GREETING_BYTES_MAX, Greeting, Hello, PREFIX_BYTES, Prefix, Purpose, Versions, decode, encode,
};
use super::*;

fn introduction() -> impl Strategy<Value = Introduction> {
    let cluster = prop::option::of("[a-zA-Z0-9_-]{1,64}");
    (cluster, 0..i32::MAX, any::<u64>(), 1..=u16::MAX, any::<(u16, u16, u16)>()).prop_map(
        |(cluster, broker, incarnation, shards, (shard, level, required))| Introduction {
            cluster,
            broker: BrokerId(broker),
            incarnation: Incarnation(incarnation),
            shard: ShardId((shard % shards).into()),
            shards: shards.into(),
            feature_level: level.max(required),
            feature_level_required: level.min(required),
        },
    )
}

fn greeting() -> impl Strategy<Value = Greeting> {
    let purpose = prop_oneof![Just(Purpose::Frames), Just(Purpose::Calls), Just(Purpose::Knock)];
    let to = (prop::option::of(0..i32::MAX), any::<u16>());
    let hello = (introduction(), purpose, to).prop_map(|(from, purpose, (broker, shard))| {
        Greeting::Hello(Hello {
            from,
            purpose,
            to_broker: broker.map(BrokerId),
            to_shard: ShardId(shard.into()),
        })
    });
    let kind = prop::sample::select(&RefusalKind::ALL[..]);
    let refusal = (kind, "[ -~&&[^\"'\\\\]]{0,400}", prop::option::of(1..=u16::MAX)).prop_map(
        |(kind, text, shards)| Greeting::Refusal(Refusal { kind, text, shards: shards.map(usize::from) }),
    );
    prop_oneof![hello, introduction().prop_map(Greeting::Welcome), refusal]
}

fn read(bytes: &[u8]) -> Result<Greeting, BadGreeting> {
    let prefix = Prefix::parse(*bytes.first_chunk().unwrap())?;
    decode(prefix, &bytes[PREFIX_BYTES..])
}

proptest! {
    #[test]
    fn greetings_are_heard(greeting in greeting()) {
        let bytes = encode(&greeting);
        prop_assert!(bytes.len() <= GREETING_BYTES_MAX);
        prop_assert_eq!(read(&bytes), Ok(greeting));
    }

    /// Behind a checksum that is right.
    #[test]
    fn changed_greetings_are_refused_or_make_sense(greeting in greeting(),
                                                   changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut bytes = encode(&greeting).to_vec();
        let length = bytes.len() - PREFIX_BYTES;
        for (at, value) in changes {
            bytes[PREFIX_BYTES + usize::from(at) % length] = value;
        }
        let checksum = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(Greeting::Hello(Hello { from, .. }) | Greeting::Welcome(from)) = read(&bytes) {
            prop_assert!(from.shard.0 < from.shards && from.broker.0 >= 0);
        }
    }

    #[test]
    fn envelopes_are_heard(number: u64, head in 0_usize..2000, body in 0_usize..2000, kind in 1_u8..5) {
        let frame = Frame { head: vec![7; head].into(), body: vec![vec![1; body].into(), Bytes::new()] };
        let kind = [Kind::Ping, Kind::Frame, Kind::Request, Kind::Answer, Kind::Failure][usize::from(kind)];
        let mut bytes = BytesMut::new();
        Envelope::write(kind, number, &frame, &mut bytes).unwrap();
        let envelope = Envelope::parse(*bytes.first_chunk().unwrap()).unwrap();
        prop_assert_eq!((envelope.kind, envelope.number), (kind, number));
        prop_assert_eq!((envelope.head as usize, envelope.body as usize), (head, body));
        prop_assert_eq!(envelope.bytes() as usize, ENVELOPE_BYTES + frame.bytes());
        prop_assert_eq!(envelope.check_head(&frame.head), Ok(()));
    }

    #[test]
    fn any_changed_bit_of_an_envelope_is_found(bit in 0..ENVELOPE_BYTES * 8) {
        let mut bytes = BytesMut::new();
        Envelope::write(Kind::Frame, 5, &Frame::default(), &mut bytes).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let parsed = Envelope::parse(*bytes.first_chunk().unwrap());
        let is_found = matches!(parsed, Err(BadFrame::Envelope { .. }));
        prop_assert!(is_found, "{parsed:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_a_byte_of_it_is_taken() {
    let (largest, larger) = (vec![0; HEAD_BYTES_MAX], vec![0; HEAD_BYTES_MAX + 1]);
    let write = |head: Vec<u8>| {
        Envelope::write(Kind::Frame, 0, &Frame { head: head.into(), body: Vec::new() }, &mut BytesMut::new())
    };
    assert_eq!((write(largest), write(larger)), (Some(()), None));
    let mut bytes = [0; ENVELOPE_BYTES];
    bytes[0] = 1;
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Envelope::parse(bytes), Err(BadFrame::HeadTooLong(u32::MAX)));
    let mut bytes = *encode(&Greeting::Refusal(Refusal::new(RefusalKind::Busy, "x"))).first_chunk().unwrap();
    bytes[12..16].copy_from_slice(&(GREETING_BYTES_MAX as u32).to_le_bytes());
    assert_eq!(Prefix::parse(bytes), Err(BadGreeting::TooLong(GREETING_BYTES_MAX as u32)));
}

#[test]
fn two_ends_speak_the_highest_version_that_both_know() {
    let versions = |min, max| Versions { min, max };
    for (here, there, common) in [
        (versions(1, 1), versions(1, 1), Some(1)),
        (versions(1, 3), versions(2, 7), Some(3)),
        (versions(4, 5), versions(1, 3), None),
    ] {
        assert_eq!((here.common(there), there.common(here)), (common, common));
    }
}

#[test]
fn endless_texts_are_cut_where_a_character_ends() {
    let refusal = Refusal::new(RefusalKind::Cluster, "ü".repeat(1000));
    let Ok(Greeting::Refusal(heard)) = read(&encode(&Greeting::Refusal(refusal))) else {
        panic!("not heard")
    };
    assert_eq!(heard.text, "ü".repeat(200));
}
