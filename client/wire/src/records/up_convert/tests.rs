use bytes::Bytes;

use super::super::batch::BatchView;
use super::super::header::*;
use super::super::legacy::put_message;
use super::super::testdata::{KEYS, LOG_APPEND_TIME, TIMESTAMPS, VALUES, message_sets};
use super::super::validate::validate_produce;
use super::*;

fn rules() -> ProduceRules {
    ProduceRules::new(2, 10_000)
}

fn message(format: LegacyFormat, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    put_message(&mut out, format, 0, 0, timestamp, key, value);
    out
}

fn wrapper(format: LegacyFormat, codec: Compression, attributes: i8, timestamp: i64, set: &[u8]) -> Vec<u8> {
    let (mut value, mut out) = (Vec::new(), Vec::new());
    Scratch::new().codecs.compress_as(codec.into(), set, format.lz4_checksum(), &mut value);
    put_message(&mut out, format, 0, codec.id() as i8 | attributes, timestamp, None, Some(&value));
    out
}

type Read = Vec<(i64, Option<Vec<u8>>, Option<Vec<u8>>)>;

fn read(validated: &Validated) -> Read {
    let batch = BatchView::parse(&validated.batch).unwrap();
    batch.verify_checksum().unwrap();
    assert_eq!(*batch.header(), validated.header);
    let mut scratch = Scratch::new();
    let records = batch.records(&mut scratch, 1 << 20).unwrap().map(|record| record.unwrap());
    (0..)
        .zip(records)
        .map(|(index, record)| {
            assert_eq!(record.offset_delta, index);
            assert_eq!(record.headers().count(), 0);
            let timestamp = batch.header().timestamp_at(record.timestamp_delta);
            (timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec))
        })
        .collect()
}

fn refused(set: Vec<u8>, rules: &ProduceRules) -> (i16, ProduceError) {
    let error = validate_produce(&Bytes::from(set), rules).expect_err("should be refused");
    (error.error_code(), error)
}

#[test]
fn kafkas_own_message_sets_become_one_batch() {
    for set in message_sets() {
        let what = format!("{:?} {} {:?}", set.format, set.codec, set.timestamp_type);
        let validated =
            validate_produce(&set.bytes.clone().into(), &rules()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let timestamps = match (set.format, set.timestamp_type) {
            (LegacyFormat::V0, _) => [NO_TIMESTAMP; 3],
            (LegacyFormat::V1, TimestampType::CreateTime) => TIMESTAMPS,
            // Taken as a create time on such a topic; see the next test for the other.
            (LegacyFormat::V1, TimestampType::LogAppendTime) => [LOG_APPEND_TIME; 3],
        };
        let expected: Read = (0..3)
            .map(|i| (timestamps[i], KEYS[i].map(<[u8]>::to_vec), VALUES[i].map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(read(&validated), expected, "{what}");
        let header = validated.header;
        assert_eq!(header.compression(), Some(set.codec), "{what}");
        assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(header.max_timestamp, timestamps.into_iter().max().unwrap());
        assert_eq!((header.base_offset, header.last_offset_delta, header.records_count), (0, 2, 3));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (-1, -1, -1));
        let latest = if timestamps == TIMESTAMPS { 1 } else { 0 };
        assert_eq!(validated.max_timestamp_offset_delta, latest);
        assert!(validated.rewritten);
    }
}

#[test]
fn log_append_time_topics_stamp_old_messages() {
    let rules = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for set in message_sets() {
        let result = validate_produce(&set.bytes.clone().into(), &rules);
        if set.timestamp_type == TimestampType::LogAppendTime {
            let error = result.unwrap_err();
            assert_eq!((error.error_code(), error.record_errors().len()), (32, 3), "producers may not stamp");
            continue;
        }
        let validated = result.unwrap();
        assert_eq!(validated.header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(validated.header.max_timestamp, 10_000);
        assert!(read(&validated).iter().all(|(timestamp, _, _)| *timestamp == 10_000));
    }
}

#[test]
fn the_topics_compression_is_applied_to_old_messages() {
    for set in message_sets() {
        for target in Compression::ALL {
            let rules = ProduceRules { compression: TopicCompression::Always(target.into()), ..rules() };
            let validated = validate_produce(&set.bytes.clone().into(), &rules).unwrap();
            assert_eq!(validated.header.compression(), Some(target));
            assert_eq!(read(&validated).len(), 3);
        }
    }
}

#[test]
fn old_formats_are_refused_from_version_3_on() {
    for set in message_sets() {
        let (code, error) = refused(set.bytes, &ProduceRules { request_version: 3, ..rules() });
        let found = set.format.magic();
        assert_eq!((code, error), (87, ProduceError::Format { version: 3, found }));
    }
}

#[test]
fn a_v2_batch_in_an_old_request_passes_as_it_is() {
    let mut builder = BatchBuilder::new(Default::default());
    builder.append(1, None, Some(b"v"), &[]).unwrap();
    let batch = builder.build().unwrap();
    assert_eq!(validate_produce(&batch, &rules()).unwrap().batch, batch);
}

#[test]
fn refusals_by_table() {
    use Compression::{Gzip, Lz4, Zstd};
    use LegacyFormat::*;
    let v1 = || message(V1, 1, Some(b"k"), Some(b"v"));
    let v0 = || message(V0, -1, Some(b"k"), Some(b"v"));
    let changed = |mut bytes: Vec<u8>, at: usize, to: u8| {
        bytes[at] = to;
        bytes
    };
    let without_value = {
        let mut out = Vec::new();
        put_message(&mut out, V1, 0, 1, 0, None, None);
        out
    };
    let unknown_codec = {
        let mut out = Vec::new();
        put_message(&mut out, V1, 0, 6, 0, None, Some(b"x"));
        out
    };
    let zstd = wrapper(V1, Zstd, 0, 0, &v1());
    let nested = wrapper(V1, Gzip, 0, 0, &wrapper(V1, Gzip, 0, 0, &v1()));
    let corrupt_inner = wrapper(V1, Gzip, 0, 0, &changed(v1(), 30, 0xff));
    let broken_lz4 = {
        let (mut value, mut out) = (Vec::new(), Vec::new());
        Scratch::new().codecs.compress_as(Lz4.into(), &v1(), V0.lz4_checksum(), &mut value);
        put_message(&mut out, V1, 0, 3, 0, None, Some(&value));
        out
    };
    let table: Vec<(&str, i16, Vec<u8>)> = vec![
        ("checksum", 2, changed(v1(), 12, 0)),
        ("size below the fields of its format", 2, changed(v1(), 11, 13)),
        ("negative size", 2, changed(v1(), 8, 0x80)),
        ("size beyond the set", 87, changed(v1(), 9, 1)),
        ("two magics", 87, [v1(), v0()].concat()),
        ("two magics, other way", 87, [v0(), v1()].concat()),
        ("unknown magic", 87, changed(v1(), 16, 9)),
        ("wrapper without value", 87, without_value),
        ("empty wrapper", 87, wrapper(V1, Gzip, 0, 0, &[])),
        ("nested wrapper", 87, nested),
        ("other magic inside", 87, wrapper(V1, Gzip, 0, 0, &v0())),
        ("corrupt inside", 2, corrupt_inner),
        ("cut off inside", 87, wrapper(V1, Gzip, 0, 0, &v1()[..20])),
        ("garbage behind", 87, [v1(), vec![0; 5]].concat()),
        ("zstd", 87, zstd),
        ("unknown codec", 76, unknown_codec),
        ("format 0's lz4 header in format 1", 87, broken_lz4),
    ];
    for (what, code, set) in table {
        let (found, error) = refused(set, &rules());
        assert_eq!(found, code, "{what}: {error}");
    }
    for good in
        [v0(), v1(), [v1(), v1()].concat(), wrapper(V1, Lz4, 0, 0, &v1()), wrapper(V0, Lz4, 0, 0, &v0())]
    {
        assert!(validate_produce(&good.into(), &rules()).is_ok());
    }
}

#[test]
fn key_and_value_lengths_must_fill_the_message() {
    let good = message(LegacyFormat::V0, 0, Some(b"k"), Some(b"v"));
    // Key length at 18, value length at 23. The checksum is made right again, so only the lengths are wrong.
    for (at, length) in
        [(18, 2i32), (18, 0), (18, -2), (18, i32::MAX), (23, 0), (23, 2), (23, -1), (23, i32::MIN)]
    {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&length.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&bad[16..]);
        bad[12..16].copy_from_slice(&crc.sum().to_be_bytes());
        assert_eq!(
            refused(bad, &rules()),
            (87, ProduceError::MessageSet(LegacyError::Body)),
            "{at} {length}"
        );
    }
}

#[test]
fn rules_for_records_hold_for_old_messages() {
    let set =
        [message(LegacyFormat::V1, 1, None, None), message(LegacyFormat::V1, 1, Some(b"k"), None)].concat();
    let wrapped = wrapper(LegacyFormat::V1, Compression::Snappy, 0, 0, &set);
    for set in [set, wrapped] {
        let (code, error) = refused(set.clone(), &ProduceRules { compacted: true, ..rules() });
        assert_eq!((code, error.record_errors().len(), error.record_errors()[0].batch_index), (87, 1, 0));
        let (code, error) = refused(set.clone(), &ProduceRules { timestamp_before_max_ms: 9_998, ..rules() });
        assert_eq!((code, error.record_errors().len()), (32, 2));
        assert_eq!(refused(set.clone(), &ProduceRules { batch_bytes_max: 10, ..rules() }).0, 10);
        assert!(validate_produce(&set.into(), &rules()).is_ok());
    }
    // Each fits, the batch of both does not.
    let one = message(LegacyFormat::V1, 1, None, Some(&[0; 100]));
    let limit = ProduceRules { batch_bytes_max: 200, ..rules() };
    assert!(validate_produce(&one.clone().into(), &limit).is_ok());
    assert_eq!(refused([one.clone(), one].concat(), &limit).0, 10);
}

#[test]
fn a_bomb_in_a_wrapper_is_refused_and_all_wrappers_count() {
    let set = message(LegacyFormat::V1, 1, None, Some(&vec![0; 100_000]));
    let bomb = wrapper(LegacyFormat::V1, Compression::Gzip, 0, 0, &set);
    let rules = ProduceRules { decompressed_bytes_max: 150_000, ..rules() };
    assert!(validate_produce(&bomb.clone().into(), &rules).is_ok());
    let (code, error) = refused([bomb.clone(), bomb].concat(), &rules);
    assert_eq!(code, 10);
    assert_eq!(error.to_string(), "gzip records decompress to more than the limit of 150000 bytes");
}

#[test]
fn truncated_and_flipped_sets_never_panic() {
    for set in message_sets() {
        for len in 0..set.bytes.len() {
            let cut = Bytes::copy_from_slice(&set.bytes[..len]);
            // A set cut between uncompressed messages is a shorter set.
            if let Ok(validated) = validate_produce(&cut, &rules()) {
                assert!(set.codec == Compression::None && validated.header.records_count < 3);
            }
        }
        for at in 0..set.bytes.len() {
            let mut flipped = set.bytes.clone();
            flipped[at] ^= 0x41;
            // Only the offsets, which are not looked at, may change unnoticed.
            let result = validate_produce(&Bytes::from(flipped), &rules());
            assert!(result.is_err() || set.codec == Compression::None || at < 8, "byte {at}");
        }
    }
}
