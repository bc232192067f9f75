use super::super::builder::{BatchBuilder, BatchOptions, Producer, internal_batch, seal};
use super::super::header::*;
use super::super::legacy::{LegacyMessage, legacy_messages};
use super::super::record::Header;
use super::super::testdata::{KEYS, LOG_APPEND_TIME, OFFSETS, TIMESTAMPS, VALUES, message_sets};
use super::super::varint;
use super::*;

const LIMITS: DownConvertLimits = DownConvertLimits { bytes_max: 1 << 20, decompressed_bytes_max: 1 << 20 };

/// The batch that `testdata` tells of, with a gap as compaction leaves, and headers.
fn gappy_batch(codec: Compression, timestamp_type: TimestampType, no_timestamps: bool) -> Bytes {
    let mut plain = Vec::new();
    for i in 0..3 {
        let mut body = vec![0];
        varint::write_i64(&mut body, if no_timestamps { 0 } else { TIMESTAMPS[i] - TIMESTAMPS[0] });
        varint::write_i64(&mut body, OFFSETS[i] - OFFSETS[0]);
        for part in [KEYS[i], VALUES[i]] {
            varint::write_i64(&mut body, part.map_or(-1, |bytes| bytes.len() as i64));
            body.extend_from_slice(part.unwrap_or_default());
        }
        body.extend_from_slice(&[2, 2, b'h', 1]);
        varint::write_i64(&mut plain, body.len() as i64);
        plain.extend_from_slice(&body);
    }
    let mut batch = vec![0; BATCH_HEADER_LEN];
    Codecs::default().compress(codec.into(), &plain, &mut batch);
    let stamped = timestamp_type == TimestampType::LogAppendTime;
    let header = BatchHeader {
        base_offset: OFFSETS[0],
        batch_length: 0,
        partition_leader_epoch: 4,
        magic: MAGIC_V2,
        crc: 0,
        attributes: i16::from(codec.id()) | if stamped { LOG_APPEND_TIME_BIT } else { 0 },
        last_offset_delta: (OFFSETS[2] - OFFSETS[0]) as i32,
        base_timestamp: if no_timestamps { NO_TIMESTAMP } else { TIMESTAMPS[0] },
        max_timestamp: if stamped {
            LOG_APPEND_TIME
        } else if no_timestamps {
            NO_TIMESTAMP
        } else {
            TIMESTAMPS[1]
        },
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: 3,
    };
    seal(header, &mut batch);
    batch.into()
}

fn batch(base_offset: i64, records: usize, codec: Compression) -> Bytes {
    let mut builder =
        BatchBuilder::new(BatchOptions { base_offset, encoding: codec.into(), ..Default::default() });
    for index in 0..records {
        let value = format!("value {index}");
        builder.append(1000, None, Some(value.as_bytes()), &[Header { key: b"h", value: None }]).unwrap();
    }
    builder.build().unwrap()
}

fn control_batch(base_offset: i64) -> Bytes {
    let producer = Some(Producer { id: 1, epoch: 0, base_sequence: -1 });
    let options =
        BatchOptions { base_offset, producer, transactional: true, control: true, ..Default::default() };
    let mut builder = BatchBuilder::new(options);
    builder.append(1000, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]).unwrap();
    builder.build().unwrap()
}

/// Offset, timestamp and value of every message, wrappers opened and relative offsets made absolute.
fn read(set: &[u8]) -> Vec<(i64, i64, Option<Vec<u8>>)> {
    let mut read = Vec::new();
    for message in legacy_messages(set) {
        let message = message.unwrap();
        let codec = message.compression().unwrap();
        if codec == Compression::None {
            read.push((message.offset, message.timestamp, message.value.map(<[u8]>::to_vec)));
            continue;
        }
        let mut inner = Vec::new();
        message.unwrap_into(codec, &mut Codecs::default(), 1 << 20, &mut inner).unwrap();
        let inner: Vec<LegacyMessage<'_>> = legacy_messages(&inner).map(|message| message.unwrap()).collect();
        let base = match message.format {
            LegacyFormat::V0 => 0,
            LegacyFormat::V1 => message.offset - inner.last().unwrap().offset,
        };
        read.extend(inner.iter().map(|m| (base + m.offset, m.timestamp, m.value.map(<[u8]>::to_vec))));
    }
    read
}

fn offsets(converted: &DownConverted) -> Vec<i64> {
    read(&converted.records).iter().map(|(offset, _, _)| *offset).collect()
}

#[test]
fn what_kafka_writes_is_what_we_write() {
    for set in message_sets() {
        let what = format!("{:?} {} {:?}", set.format, set.codec, set.timestamp_type);
        let source = gappy_batch(set.codec, set.timestamp_type, set.format == LegacyFormat::V0);
        let converted = down_convert(&source, set.format, 100, LIMITS).unwrap();
        assert_eq!(converted.next_offset, 106);
        if set.codec == Compression::None {
            assert_eq!(converted.records, set.bytes, "{what}");
            continue;
        }
        // Compressors differ in their bytes: compare the wrapper's fields and what is in it.
        let unwrap = |bytes: &[u8]| {
            let wrapper = LegacyMessage::parse(bytes).unwrap();
            let mut inner = Vec::new();
            wrapper.unwrap_into(set.codec, &mut Codecs::default(), 1 << 20, &mut inner).unwrap();
            (
                wrapper.offset,
                wrapper.attributes,
                wrapper.timestamp,
                wrapper.key.is_none(),
                wrapper.len == bytes.len(),
                inner,
            )
        };
        assert_eq!(unwrap(&converted.records), unwrap(&set.bytes), "{what}");
    }
}

#[test]
fn the_lz4_header_for_format_0_is_the_one_java_expects() {
    let java = message_sets()
        .into_iter()
        .find(|s| s.format == LegacyFormat::V0 && s.codec == Compression::Lz4)
        .unwrap();
    let source = gappy_batch(Compression::Lz4, TimestampType::CreateTime, true);
    let ours = down_convert(&source, LegacyFormat::V0, 0, LIMITS).unwrap();
    let header = |bytes: &[u8]| LegacyMessage::parse(bytes).unwrap().value.unwrap()[..7].to_vec();
    assert_eq!(header(&ours.records), header(&java.bytes));
}

#[test]
fn uncompressed_messages_begin_at_the_offset_asked_for_and_wrappers_are_whole() {
    for format in [LegacyFormat::V0, LegacyFormat::V1] {
        let plain = down_convert(&batch(10, 5, Compression::None), format, 12, LIMITS).unwrap();
        assert_eq!(offsets(&plain), [12, 13, 14]);
        let wrapped = down_convert(&batch(10, 5, Compression::Gzip), format, 12, LIMITS).unwrap();
        assert_eq!(offsets(&wrapped), [10, 11, 12, 13, 14]);
        // zstd cannot stay, so its messages come one by one.
        let unpacked = down_convert(&batch(10, 5, Compression::Zstd), format, 12, LIMITS).unwrap();
        assert_eq!(unpacked.records, plain.records);
    }
}

#[test]
fn what_old_consumers_do_not_see_is_dropped() {
    let emptied = {
        let mut bytes = batch(6, 1, Compression::None)[..BATCH_HEADER_LEN].to_vec();
        let header =
            BatchHeader { records_count: 0, ..BatchHeader::parse(&batch(6, 1, Compression::None)).unwrap() };
        seal(header, &mut bytes);
        Bytes::from(bytes)
    };
    let log: Bytes = [
        internal_batch(0, 1, 9, b"x"),
        batch(0, 2, Compression::Lz4),
        control_batch(2),
        batch(3, 3, Compression::None),
        emptied,
    ]
    .concat()
    .into();
    let converted = down_convert(&log, LegacyFormat::V1, 0, LIMITS).unwrap();
    assert_eq!(offsets(&converted), [0, 1, 3, 4, 5]);
    assert_eq!(converted.next_offset, 7);

    let nothing = down_convert(&control_batch(2), LegacyFormat::V1, 2, LIMITS).unwrap();
    assert_eq!(nothing, DownConverted { records: Bytes::new(), next_offset: 3 });
    let empty = down_convert(&Bytes::new(), LegacyFormat::V1, 2, LIMITS).unwrap();
    assert_eq!(empty, DownConverted { records: Bytes::new(), next_offset: 2 });
}

#[test]
fn the_limit_stops_between_batches_and_the_first_is_given_whole() {
    let log: Bytes = (0..5).map(|i| batch(i * 10, 10, Compression::None)).collect::<Vec<_>>().concat().into();
    let at = |bytes_max| {
        down_convert(&log, LegacyFormat::V1, 0, DownConvertLimits { bytes_max, ..LIMITS }).unwrap()
    };
    let one = at(1);
    assert_eq!((offsets(&one).len(), one.next_offset), (10, 10));
    let len = one.records.len();
    assert_eq!(at(2 * len).next_offset, 20);
    assert_eq!(at(3 * len - 1).next_offset, 20);
    assert_eq!(at(usize::MAX).next_offset, 50);
}

#[test]
fn a_cut_batch_ends_it_and_a_bad_one_is_told() {
    let good = batch(0, 2, Compression::Gzip);
    let cut: Bytes = [&good[..], &good[..80]].concat().into();
    assert_eq!(down_convert(&cut, LegacyFormat::V1, 0, LIMITS).unwrap().next_offset, 2);

    let mut bad = batch(2, 2, Compression::Gzip).to_vec();
    bad[BATCH_HEADER_LEN] = 0;
    let bad = Bytes::from(bad);
    let error = down_convert(&bad, LegacyFormat::V1, 2, LIMITS).unwrap_err();
    assert_eq!((error.base_offset, error.magic), (2, 1));
    let behind: Bytes = [&good[..], &bad[..]].concat().into();
    assert_eq!(down_convert(&behind, LegacyFormat::V1, 0, LIMITS).unwrap().next_offset, 2);

    let small = DownConvertLimits { decompressed_bytes_max: 10, ..LIMITS };
    assert!(down_convert(&good, LegacyFormat::V1, 0, small).is_err());
}

#[test]
fn there_and_back_again() {
    use super::super::validate::{ProduceRules, validate_produce};
    for codec in Compression::ALL {
        for format in [LegacyFormat::V0, LegacyFormat::V1] {
            let set = down_convert(&batch(0, 7, codec), format, 0, LIMITS).unwrap().records;
            let back = validate_produce(&set, &ProduceRules::new(1, 2000)).unwrap();
            let again = down_convert(&back.batch, format, 0, LIMITS).unwrap().records;
            assert_eq!(read(&again), read(&set));
            let timestamp = if format == LegacyFormat::V0 { -1 } else { 1000 };
            assert!(read(&set).iter().all(|(_, found, _)| *found == timestamp));
        }
    }
}
