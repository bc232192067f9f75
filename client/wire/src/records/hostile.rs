//! Bytes that nobody should send: nothing here may panic, loop, or take memory beyond its limits.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::builder::seal;
use super::*;

const LIMIT: usize = 1 << 20;

/// Puts `bytes` through everything that faces the network or the disk.
fn try_everything(bytes: &Bytes) {
    for batch in split_batches(bytes).flatten() {
        let _ = batch.verify_checksum();
        if let Ok(records) = batch.records(&mut Scratch::new(), LIMIT) {
            for record in records.flatten() {
                assert_eq!(record.headers().count(), record.headers().len());
            }
        }
    }
    for message in legacy_messages(bytes).flatten() {
        assert!(message.len <= bytes.len());
    }
    for request_version in [2, 9] {
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            for compression in [TopicCompression::Producer, TopicCompression::Always(Compression::Lz4.into())]
            {
                let rules = ProduceRules {
                    timestamp_type,
                    compression,
                    decompressed_bytes_max: LIMIT,
                    ..ProduceRules::new(request_version, 1_000)
                };
                match validate_produce(bytes, &rules) {
                    Ok(validated) => check_validated(&validated, &rules),
                    Err(error) => assert!(error.error_code() > 0 && !error.to_string().is_empty()),
                }
            }
        }
    }
    let limits = DownConvertLimits { bytes_max: LIMIT, decompressed_bytes_max: LIMIT };
    for format in [LegacyFormat::V0, LegacyFormat::V1] {
        let _ = down_convert(bytes, format, 0, limits);
    }
}

/// What was let through must be a good batch, and must be let through again unchanged.
fn check_validated(validated: &Validated, rules: &ProduceRules) {
    let batch = BatchView::parse(&validated.batch).unwrap();
    batch.verify_checksum().unwrap();
    assert_eq!((batch.bytes(), batch.header()), (&validated.batch, &validated.header));
    let mut scratch = Scratch::new();
    let records: Vec<_> = batch.records(&mut scratch, LIMIT).unwrap().map(|record| record.unwrap()).collect();
    assert_eq!(records.len() as i32, validated.header.records_count);
    assert!((0..).zip(&records).all(|(index, record)| record.offset_delta == index));
    assert!(validated.max_timestamp_offset_delta < validated.header.records_count);
    if rules.timestamp_type == TimestampType::CreateTime {
        let again =
            validate_produce(&validated.batch, &ProduceRules { request_version: 9, ..*rules }).unwrap();
        assert_eq!((again.rewritten, &again.batch), (false, &validated.batch));
    }
}

fn good_batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { encoding: codec.into(), ..Default::default() });
    for index in 0..5i64 {
        let headers = [Header { key: b"trace", value: Some(b"0123") }, Header { key: b"", value: None }];
        let value = vec![b'v'; 10 * index as usize];
        builder
            .append(900 + index, (index != 2).then_some(b"key"), Some(&value), &headers[..index as usize % 3])
            .unwrap();
    }
    builder.build().unwrap()
}

fn resealed(mut bytes: Vec<u8>) -> Bytes {
    if let Ok(header) = BatchHeader::parse(&bytes) {
        seal(header, &mut bytes);
    }
    bytes.into()
}

#[test]
fn every_truncation_and_every_flipped_bit() {
    for codec in Compression::ALL {
        let good = good_batch(codec);
        try_everything(&good);
        for at in 0..good.len() {
            try_everything(&good.slice(..at));
            // With the checksum made right again, so that what lies behind it is reached.
            try_everything(&resealed(good[..at].to_vec()));
            for bit in 0..8 {
                let mut flipped = good.to_vec();
                flipped[at] ^= 1 << bit;
                if bit == 0 {
                    try_everything(&flipped.clone().into());
                }
                try_everything(&resealed(flipped));
            }
        }
    }
}

#[test]
fn huge_varints_at_every_place_of_the_records() {
    let good = good_batch(Compression::None);
    for huge in
        [&[0xfe, 0xff, 0xff, 0xff, 0x0f][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 12], &[0x80; 12]]
    {
        for at in BATCH_HEADER_LEN..good.len() {
            let mut bytes = good.to_vec();
            bytes.splice(at..at + 1, huge.iter().copied());
            try_everything(&resealed(bytes.clone()));
            bytes.truncate(at + huge.len());
            try_everything(&resealed(bytes));
        }
    }
}

#[test]
fn a_bomb_on_the_produce_path_is_refused() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { encoding: codec.into(), ..Default::default() });
        builder.append(900, None, Some(&vec![0; 4 * LIMIT]), &[]).unwrap();
        let bomb = builder.build().unwrap();
        assert!(bomb.len() < LIMIT, "{codec} bomb of {} bytes", bomb.len());
        let rules = ProduceRules { decompressed_bytes_max: LIMIT, ..ProduceRules::new(9, 1_000) };
        let error = validate_produce(&bomb, &rules).unwrap_err();
        assert_eq!(error, CompressionError::TooLarge { codec, limit: LIMIT }.into());
        assert_eq!(error.error_code(), 10);
    }
}

fn mutation() -> impl Strategy<Value = (prop::sample::Index, Vec<u8>, usize)> {
    (any::<prop::sample::Index>(), vec(any::<u8>(), 0..8), 0usize..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..400)) {
        try_everything(&bytes.into());
    }

    #[test]
    fn random_bytes_behind_a_plausible_header(
        payload in vec(any::<u8>(), 0..300),
        attributes in 0i16..16,
        count in 0i32..40,
        base_timestamp in any::<i64>(),
        max_timestamp in any::<i64>(),
    ) {
        let mut bytes = good_batch(Compression::None)[..BATCH_HEADER_LEN].to_vec();
        bytes.extend_from_slice(&payload);
        let header = BatchHeader {
            attributes,
            records_count: count,
            last_offset_delta: count - 1,
            base_timestamp,
            max_timestamp,
            ..BatchHeader::parse(&bytes).unwrap()
        };
        seal(header, &mut bytes);
        try_everything(&bytes.into());
    }

    #[test]
    fn random_changes_to_a_good_batch(
        codec in prop::sample::select(Compression::ALL.to_vec()),
        mutations in vec(mutation(), 1..4),
        format in prop::option::of(prop::sample::select(vec![LegacyFormat::V0, LegacyFormat::V1])),
    ) {
        let mut bytes = good_batch(codec).to_vec();
        if let Some(format) = format {
            let limits = DownConvertLimits { bytes_max: LIMIT, decompressed_bytes_max: LIMIT };
            bytes = down_convert(&bytes.into(), format, 0, limits).unwrap().records.to_vec();
        }
        for (at, insert, remove) in mutations {
            let at = at.index(bytes.len() + 1);
            let end = (at + remove).min(bytes.len());
            bytes.splice(at..end, insert);
        }
        try_everything(&bytes.clone().into());
        try_everything(&resealed(bytes));
    }
}
