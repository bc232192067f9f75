//! A partition's part of a produce request: what is let through must be a sound batch.
//!
//! The first bytes choose the rules; with an odd second byte the checksum is made right, so that the fuzzer gets
//! behind it.
#![no_main]

use bytes::Bytes;
use corelog_wire::records::{
    BatchView, Compression, ProduceRules, Scratch, TimestampType, TopicCompression, validate_produce,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, seal], records)) = data.split_first_chunk::<2>() else { return };
    let mut records = records.to_vec();
    if seal & 1 == 1 && records.len() > 21 {
        let length = (records.len() - 12) as i32;
        records[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&records[21..]);
        records[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let compression = match Compression::from_id(choice & 7) {
        None => TopicCompression::Producer,
        Some(codec) => TopicCompression::Always(codec.into()),
    };
    let timestamp_type =
        if choice & 8 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime };
    let rules = ProduceRules {
        compression,
        timestamp_type,
        compacted: choice & 16 != 0,
        decompressed_bytes_max: LIMIT,
        ..ProduceRules::new(if choice & 32 == 0 { 9 } else { 2 }, 1_700_000_000_000)
    };
    let Ok(validated) = validate_produce(&Bytes::from(records), &rules) else { return };
    let batch = BatchView::parse(&validated.batch).expect("a batch");
    batch.verify_checksum().expect("its checksum");
    assert_eq!(batch.bytes(), &validated.batch);
    let mut scratch = Scratch::new();
    let mut count = 0;
    for record in batch.records(&mut scratch, 2 * LIMIT).expect("its records") {
        assert_eq!(record.expect("a record").offset_delta, count);
        count += 1;
    }
    assert_eq!((count, count - 1), (validated.header.records_count, validated.header.last_offset_delta));
});
