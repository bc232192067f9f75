#![no_main]
//! What another broker, or a stranger, sends to the port for brokers: greetings and envelopes. What is decoded says the
//! same when it is encoded again.
//!
//! The rest of the bytes changes a sound sample; with an odd second byte its checksum is made right again, so that the
//! fuzzer gets behind it.

use bytes::BytesMut;
use corelog_broker::peer::envelope::{ENVELOPE_BYTES, Envelope, Frame, HEAD_BYTES_MAX, Kind};
use corelog_broker::peer::hello::{
    self, GREETING_BYTES_MAX, Greeting, Hello, PREFIX_BYTES, Prefix, Purpose, Refusal, RefusalKind,
};
use corelog_broker::peer::{BrokerId, Incarnation, Introduction, ShardId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[sample, seal], change)) = data.split_first_chunk::<2>() else { return };
    match sample % 4 {
        0 => envelope(change, seal & 1 == 1),
        sample => greeting(sample, change, seal & 1 == 1),
    }
});

fn from() -> Introduction {
    Introduction {
        cluster: Some("aaaaaaaaaaaaaaaaaaaaaa".into()),
        broker: BrokerId(7),
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        shard: ShardId(3),
        shards: 4,
        feature_level: 2,
        feature_level_required: 1,
    }
}

fn greeting(sample: u8, change: &[u8], seal: bool) {
    let sample = match sample {
        1 => Greeting::Welcome(from()),
        2 => Greeting::Refusal(Refusal::new(RefusalKind::Cluster, "of another cluster")),
        _ => Greeting::Hello(Hello {
            from: from(),
            purpose: Purpose::Calls,
            to_broker: Some(BrokerId(2)),
            to_shard: ShardId(1),
        }),
    };
    let mut bytes = hello::encode(&sample).to_vec();
    // Behind the magic, which the fuzzer need not guess.
    for (byte, change) in bytes[8..].iter_mut().zip(change) {
        *byte ^= change;
    }
    if seal {
        let crc = crc(&bytes[PREFIX_BYTES..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    }
    let (prefix, content) = bytes.split_at(PREFIX_BYTES);
    let Ok(prefix) = Prefix::parse(prefix.try_into().unwrap()) else { return };
    assert!(PREFIX_BYTES + prefix.length <= GREETING_BYTES_MAX);
    let Some(content) = content.get(..prefix.length) else { return };
    let Ok(decoded) = hello::decode(prefix, content) else { return };
    let again = hello::encode(&decoded);
    let prefix = Prefix::parse(*again.first_chunk().unwrap()).unwrap();
    let again = hello::decode(prefix, &again[PREFIX_BYTES..]);
    // A refusal's text is for people: it is escaped, and cut off.
    if !matches!(decoded, Greeting::Refusal(_)) {
        assert_eq!(again.as_ref(), Ok(&decoded));
    }
    assert!(again.is_ok());
}

fn envelope(change: &[u8], seal: bool) {
    let frame = Frame { head: vec![1; 40].into(), body: vec![vec![2; 100].into()] };
    let mut bytes = BytesMut::new();
    Envelope::write(Kind::Frame, 9, &frame, &mut bytes).unwrap();
    for (byte, change) in bytes.iter_mut().zip(change) {
        *byte ^= change;
    }
    if seal {
        let crc = crc(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(envelope) = Envelope::parse(*bytes.first_chunk::<ENVELOPE_BYTES>().unwrap()) {
        assert!(envelope.head as usize <= HEAD_BYTES_MAX);
        assert!(envelope.bytes() >= ENVELOPE_BYTES as u64);
    }
}

/// CRC-32C, bit by bit: it need not be fast, and depends on nothing.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
