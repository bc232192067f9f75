use super::super::builder::internal_batch;
use super::super::header::*;
use super::super::record::Header;
use super::*;

const NOW: i64 = 1_700_000_000_000;

fn rules() -> ProduceRules {
    ProduceRules::new(9, NOW)
}

fn batch_of(options: BatchOptions, timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (index, &timestamp) in timestamps.iter().enumerate() {
        let value = format!("value {index} {}", "x".repeat(40));
        let headers = [Header { key: b"h", value: Some(b"1") }, Header { key: b"", value: None }];
        builder.append(timestamp, Some(b"key"), Some(value.as_bytes()), &headers[..index % 3]).unwrap();
    }
    builder.build().unwrap()
}

fn batch() -> Bytes {
    batch_of(BatchOptions::default(), &[NOW, NOW + 20, NOW - 10])
}

/// The batch with some of its header changed and its checksum made right again.
fn with_header(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    let mut bytes = batch.to_vec();
    seal(header, &mut bytes);
    bytes.into()
}

/// The batch with other bytes for its records.
fn with_payload(batch: &Bytes, payload: &[u8]) -> Bytes {
    let mut bytes = batch[..BATCH_HEADER_LEN].to_vec();
    bytes.extend_from_slice(payload);
    seal(BatchHeader::parse(batch).unwrap(), &mut bytes);
    bytes.into()
}

fn values(batch: &Bytes) -> Vec<(i32, i64, Vec<u8>)> {
    let header = BatchHeader::parse(batch).unwrap();
    let mut plain = Vec::new();
    let codec = header.compression().unwrap();
    Codecs::default().decompress(codec, &batch[BATCH_HEADER_LEN..], 1 << 20, &mut plain).unwrap();
    RecordIter::new(&plain, header.records_count)
        .map(|record| record.unwrap())
        .map(|r| (r.offset_delta, header.timestamp_at(r.timestamp_delta), r.tail.to_vec()))
        .collect()
}

fn refused(records: &Bytes, rules: &ProduceRules) -> (i16, ProduceError) {
    let error = validate_produce(records, rules).expect_err("should be refused");
    (error.error_code(), error)
}

#[test]
fn a_good_batch_passes_as_the_same_bytes() {
    for codec in Compression::ALL {
        let batch = batch_of(
            BatchOptions { encoding: codec.into(), ..Default::default() },
            &[NOW, NOW + 20, NOW + 20],
        );
        let validated = validate_produce(&batch, &rules()).unwrap();
        assert_eq!(validated.batch.as_ptr(), batch.as_ptr(), "{codec}: by reference");
        assert_eq!(validated.batch, batch);
        assert!(!validated.rewritten);
        assert_eq!(validated.header, BatchHeader::parse(&batch).unwrap());
        assert_eq!(validated.max_timestamp_offset_delta, 1, "the first of the latest");
        assert_eq!(validated.log_append_time_ms, None);
    }
}

#[test]
fn idempotent_and_transactional_batches_pass() {
    let producer = Some(Producer { id: 5, epoch: 0, base_sequence: 0 });
    for transactional in [false, true] {
        let batch = batch_of(BatchOptions { producer, transactional, ..Default::default() }, &[NOW]);
        assert_eq!(validate_produce(&batch, &rules()).unwrap().header.is_transactional(), transactional);
    }
    // kafkajs writes epoch and sequence 0 beside producer id -1.
    let odd = with_header(&batch(), |h| (h.producer_epoch, h.base_sequence) = (0, 0));
    assert!(!validate_produce(&odd, &rules()).unwrap().rewritten);
}

#[test]
fn header_faults_by_table() {
    let good = batch();
    type Change = fn(&mut BatchHeader);
    let table: &[(&str, i16, Change)] = &[
        ("base offset", 87, |h| h.base_offset = 1),
        ("count 0", 87, |h| (h.records_count, h.last_offset_delta) = (0, -1)),
        ("count negative", 87, |h| (h.records_count, h.last_offset_delta) = (-5, -6)),
        ("count less than delta", 87, |h| h.last_offset_delta = 3),
        ("count more than delta", 87, |h| h.last_offset_delta = 1),
        ("delta overflows", 87, |h| (h.records_count, h.last_offset_delta) = (i32::MIN, i32::MAX)),
        ("more records stated than there", 87, |h| (h.records_count, h.last_offset_delta) = (4, 3)),
        ("fewer records stated than there", 87, |h| (h.records_count, h.last_offset_delta) = (2, 1)),
        ("very many records stated", 87, |h| {
            (h.records_count, h.last_offset_delta) = (i32::MAX, i32::MAX - 1)
        }),
        ("control", 87, |h| h.attributes |= CONTROL_BIT),
        ("internal", 87, |h| h.attributes |= INTERNAL_BIT),
        ("delete horizon", 87, |h| h.attributes |= DELETE_HORIZON_BIT),
        ("unused attribute", 87, |h| h.attributes |= 1 << 7),
        ("transactional without producer", 87, |h| h.attributes |= TRANSACTIONAL_BIT),
        ("sequence", 87, |h| (h.producer_id, h.producer_epoch) = (1, 0)),
        ("epoch", 87, |h| (h.producer_id, h.base_sequence) = (1, 0)),
        ("unknown codec", 76, |h| h.attributes |= 5),
        ("not the codec it says", 87, |h| h.attributes |= 4),
    ];
    for (what, code, change) in table {
        let (found, error) = refused(&with_header(&good, change), &rules());
        assert_eq!(found, *code, "{what}: {error}");
    }
}

#[test]
fn frame_faults() {
    let good = batch();
    assert_eq!(refused(&Bytes::new(), &rules()).0, 87);
    for len in 1..good.len() {
        let (code, error) = refused(&good.slice(..len), &rules());
        assert_eq!(code, 87, "{len}: {error}");
    }
    let twice: Bytes = [&good[..], &good[..]].concat().into();
    assert_eq!(refused(&twice, &rules()).0, 87);
    let trailing: Bytes = [&good[..], &[0]].concat().into();
    assert_eq!(refused(&trailing, &rules()).1, ProduceError::NotOneBatch { version: 9, bytes: 1 });

    let mut bytes = good.to_vec();
    bytes[MAGIC_AT] = 1;
    assert_eq!(refused(&bytes.clone().into(), &rules()).1, ProduceError::Format { version: 9, found: 1 });
    assert_eq!(refused(&bytes.clone().into(), &rules()).0, 87);
    bytes[MAGIC_AT] = 3;
    assert_eq!(refused(&bytes.clone().into(), &rules()).0, 2);
    // A length that is damaged shows in the checksum, whatever else it would seem to be.
    let mut bytes = good.to_vec();
    bytes[BATCH_LENGTH_AT + 3] -= 1;
    assert_eq!(refused(&bytes.into(), &rules()).0, 2);

    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0x10;
        let result = validate_produce(&Bytes::from(bytes), &rules());
        match at {
            // The leader epoch is outside the checksum and the broker's to set.
            PARTITION_LEADER_EPOCH_AT..=15 => assert!(result.is_ok()),
            CRC_AT.. => assert_eq!(result.unwrap_err().error_code(), 2, "byte {at}"),
            _ => assert!(result.is_err(), "byte {at}"),
        }
    }
}

#[test]
fn sizes() {
    let good = batch();
    let at = ProduceRules { batch_bytes_max: good.len(), segment_bytes_max: good.len(), ..rules() };
    assert!(validate_produce(&good, &at).is_ok());
    assert_eq!(refused(&good, &ProduceRules { batch_bytes_max: good.len() - 1, ..at }).0, 10);
    assert_eq!(refused(&good, &ProduceRules { segment_bytes_max: good.len() - 1, ..at }).0, 18);
    // Grown past the limit by what the topic demands.
    let packed =
        batch_of(BatchOptions { encoding: Compression::Gzip.into(), ..Default::default() }, &[NOW; 50]);
    let plain = TopicCompression::Always(Compression::None.into());
    let tight = ProduceRules { compression: plain, batch_bytes_max: packed.len(), ..rules() };
    assert_eq!(refused(&packed, &tight).0, 10);
    let (code, error) = refused(&packed, &ProduceRules { decompressed_bytes_max: 100, ..rules() });
    assert_eq!(code, 10);
    assert_eq!(error.to_string(), "gzip records decompress to more than the limit of 100 bytes");
}

#[test]
fn timestamps_outside_the_limits_are_refused_by_record() {
    let limits = ProduceRules { timestamp_before_max_ms: 1000, timestamp_after_max_ms: 500, ..rules() };
    let edges = [NOW - 1000, NOW + 500, NO_TIMESTAMP];
    assert!(validate_produce(&batch_of(BatchOptions::default(), &edges), &limits).is_ok());
    for codec in Compression::ALL {
        let options = BatchOptions { encoding: codec.into(), ..Default::default() };
        let (code, error) =
            refused(&batch_of(options, &[NOW, NOW - 1001, NOW, NOW + 501, i64::MIN, i64::MAX]), &limits);
        assert_eq!(code, 32);
        let indexes: Vec<i32> = error.record_errors().iter().map(|e| e.batch_index).collect();
        assert_eq!(indexes, [1, 3, 4, 5]);
        assert!(
            error.to_string().starts_with("4 of the batch's records were refused (invalid timestamps)"),
            "{error}"
        );
    }
    // Kafka 4's default: at most one hour ahead, any age.
    assert!(validate_produce(&batch_of(BatchOptions::default(), &[NOW + 3_600_000, 0]), &rules()).is_ok());
    assert_eq!(refused(&batch_of(BatchOptions::default(), &[NOW + 3_600_001]), &rules()).0, 32);
}

#[test]
fn the_list_of_refused_records_is_bounded() {
    let (_, error) = refused(&batch_of(BatchOptions::default(), &[NOW + 10_000_000; 1000]), &rules());
    assert_eq!(error.record_errors().len(), RECORD_ERRORS_MAX);
    assert!(matches!(error, ProduceError::Records { total: 1000, .. }));
}

#[test]
fn compacted_topics_need_keys() {
    let compacted = ProduceRules { compacted: true, ..rules() };
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, Some(b""), None, &[]).unwrap();
    builder.append(NOW, None, Some(b"v"), &[]).unwrap();
    let records = builder.build().unwrap();
    let (code, error) = refused(&records, &compacted);
    assert_eq!((code, error.record_errors()[0].batch_index), (87, 1));
    assert!(validate_produce(&records, &rules()).is_ok());
    assert!(validate_produce(&batch(), &compacted).is_ok());
}

#[test]
fn log_append_time_stamps_the_batch() {
    let stamped = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    for codec in Compression::ALL {
        // Far outside the limits, which do not apply.
        let sent = batch_of(BatchOptions { encoding: codec.into(), ..Default::default() }, &[5, NOW * 2, 7]);
        let validated = validate_produce(&sent, &stamped).unwrap();
        assert!(validated.rewritten);
        assert_eq!(validated.log_append_time_ms, Some(NOW));
        assert_eq!(validated.max_timestamp_offset_delta, 0);
        let header = BatchHeader::parse(&validated.batch).unwrap();
        assert_eq!(header, validated.header);
        assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, NOW));
        verify_checksum(&header, &validated.batch).unwrap();
        assert_eq!(validated.batch[BATCH_HEADER_LEN..], sent[BATCH_HEADER_LEN..]);
        assert!(values(&validated.batch).iter().all(|(_, timestamp, _)| *timestamp == NOW));
    }
}

#[test]
fn a_producer_that_stamps_log_append_time() {
    let sent = batch_of(BatchOptions { log_append_time: Some(NOW), ..Default::default() }, &[1, 2]);
    // Refused where the broker stamps, set back to create time where it does not: as Kafka does.
    let stamped = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    let (code, error) = refused(&sent, &stamped);
    assert_eq!((code, error.record_errors().len()), (32, 2));
    let validated = validate_produce(&sent, &rules()).unwrap();
    assert_eq!(validated.header.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(validated.header.max_timestamp, NOW);
    verify_checksum(&validated.header, &validated.batch).unwrap();
    let late = batch_of(BatchOptions { log_append_time: Some(NOW + 10_000_000), ..Default::default() }, &[1]);
    assert_eq!(refused(&late, &rules()).0, 32, "its records' time is the batch's");
}

#[test]
fn a_wrong_max_timestamp_is_put_right() {
    let sent = with_header(&batch(), |h| h.max_timestamp = 12);
    let validated = validate_produce(&sent, &rules()).unwrap();
    assert!(validated.rewritten);
    assert_eq!(validated.header.max_timestamp, NOW + 20);
    assert_eq!(validated.batch, batch());
}

#[test]
fn the_topics_compression_is_applied() {
    let producer = Some(Producer { id: 9, epoch: 2, base_sequence: 40 });
    for source in Compression::ALL {
        for target in Compression::ALL {
            for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                let options = BatchOptions {
                    encoding: source.into(),
                    producer,
                    transactional: true,
                    ..Default::default()
                };
                let sent = batch_of(options, &[NOW + 5, NOW, NOW + 7]);
                let compression = TopicCompression::Always(target.into());
                let rules = ProduceRules { compression, timestamp_type, ..rules() };
                let validated = validate_produce(&sent, &rules).unwrap();
                assert_eq!(validated.header.compression(), Some(target));
                let stamped = timestamp_type == TimestampType::LogAppendTime;
                assert_eq!(validated.rewritten, source != target || stamped);
                assert_eq!(validated.header.producer_id, 9);
                assert_eq!(validated.header.last_sequence(), Some(42));
                assert!(validated.header.is_transactional());
                assert_eq!(validated.header.max_timestamp, if stamped { NOW } else { NOW + 7 });
                assert_eq!(validated.max_timestamp_offset_delta, if stamped { 0 } else { 2 });
                verify_checksum(&validated.header, &validated.batch).unwrap();
                let content = |batch| {
                    values(batch)
                        .into_iter()
                        .map(|(o, t, v)| (o, if stamped { 0 } else { t }, v))
                        .collect::<Vec<_>>()
                };
                assert_eq!(content(&validated.batch), content(&sent), "{source} to {target}");
            }
        }
    }
}

#[test]
fn zstd_needs_version_7() {
    let sent = batch_of(BatchOptions { encoding: Compression::Zstd.into(), ..Default::default() }, &[NOW]);
    assert_eq!(refused(&sent, &ProduceRules { request_version: 6, ..rules() }).0, 76);
    assert!(validate_produce(&sent, &ProduceRules { request_version: 7, ..rules() }).is_ok());
    // A topic's own zstd has nothing to do with the request's version.
    let compression = TopicCompression::Always(Compression::Zstd.into());
    assert!(validate_produce(&batch(), &ProduceRules { request_version: 3, compression, ..rules() }).is_ok());
}

#[test]
fn wrong_offset_deltas_are_put_right() {
    // Two records, both with delta 0: length 7, attributes, timestamp, offset, null key, null value, no headers.
    let record = [0x0c, 0, 0, 0, 1, 1, 0];
    let sent = batch_of(BatchOptions::default(), &[NOW, NOW]);
    let sent = with_payload(&sent, &[record, record].concat());
    let validated = validate_produce(&sent, &rules()).unwrap();
    assert!(validated.rewritten);
    let deltas: Vec<i32> = values(&validated.batch).iter().map(|(offset, _, _)| *offset).collect();
    assert_eq!(deltas, [0, 1]);
}

#[test]
fn malformed_records_are_refused() {
    let base = batch_of(BatchOptions::default(), &[NOW]);
    let table: &[(&[u8], &str)] = &[
        (&[], "no record"),
        (&[0x0c, 0, 0, 0, 1, 1], "cut off"),
        (&[0x00], "empty body"),
        (&[0x01], "negative length"),
        (&[0xff, 0xff, 0xff, 0xff, 0x0f], "length -2^31"),
        (&[0xfe, 0xff, 0xff, 0xff, 0x0f], "length 2^31 - 1"),
        (&[0x0c, 0, 0, 0, 3, 1, 0], "key length -2"),
        (&[0x0c, 0, 0, 0, 2, 1, 0], "key one longer than the record"),
        (&[0x0c, 0, 0, 0, 1, 8, 0], "value longer than the record"),
        (&[0x0c, 0, 0, 0, 1, 1, 1], "header count -1"),
        (&[0x0c, 0, 0, 0, 1, 1, 2], "a header that is not there"),
        (&[0x10, 0, 0, 0, 1, 1, 2, 1, 1], "a null header key"),
        (&[0x10, 0, 0, 0, 1, 1, 2, 0, 3], "header value length -2"),
        (&[0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], "2^31 - 1 headers"),
        (&[0x0e, 0, 0, 0, 1, 1, 0, 0], "a byte behind the headers"),
        (&[0x0c, 0, 0, 0, 1, 1, 0, 0], "a byte behind the records"),
    ];
    for (payload, what) in table {
        assert_eq!(refused(&with_payload(&base, payload), &rules()).0, 87, "{what}");
    }
    let least = with_payload(&base, &[0x0c, 0, 0, 0, 1, 1, 0]);
    assert!(validate_produce(&least, &rules()).is_ok(), "the table's base is good");
}

#[test]
fn internal_batches_cannot_come_from_outside() {
    assert_eq!(refused(&internal_batch(0, 1, NOW, b"term"), &rules()).0, 87);
}

/// Wrapped around they would be times long before all others: "the newest" to retention, "the oldest" to a consumer.
#[test]
fn timestamps_that_overflow_are_refused() {
    let wide = ProduceRules { timestamp_after_max_ms: i64::MAX, ..rules() };
    let delta = |first: i64, second: i64| batch_of(BatchOptions::default(), &[first, second]);
    for (base, records) in [
        ("2^63-1 with delta 1", with_header(&delta(NOW, NOW + 1), |h| h.base_timestamp = i64::MAX)),
        ("now with delta 2^63-1", delta(NOW, NOW.wrapping_add(i64::MAX))),
        ("-2^63 with delta -1", with_header(&delta(NOW, NOW - 1), |h| h.base_timestamp = i64::MIN)),
    ] {
        for codec in [Compression::None, Compression::Lz4] {
            for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                let compression = TopicCompression::Always(codec.into());
                let (code, error) = refused(&records, &ProduceRules { compression, timestamp_type, ..wide });
                assert_eq!(code, 32, "{base}: {error}");
                assert_eq!(
                    error.record_errors().iter().map(|e| e.batch_index).collect::<Vec<_>>(),
                    [1],
                    "{base}"
                );
            }
        }
    }
    // The last time there is is one.
    let last = with_header(&batch_of(BatchOptions::default(), &[NOW]), |h| h.base_timestamp = i64::MAX);
    assert_eq!(validate_produce(&last, &wide).unwrap().header.max_timestamp, i64::MAX);
}

#[test]
fn what_may_take_long_is_left_for_another_thread() {
    let sized = |encoding: Encoding, bytes: usize| {
        let mut builder = BatchBuilder::new(BatchOptions { encoding, ..Default::default() });
        builder.append(rules().now_ms, None, Some(&vec![0; bytes]), &[]).unwrap();
        builder.build().unwrap()
    };
    let rules = ProduceRules { batch_bytes_max: 1 << 30, ..rules() };
    let always = |codec: Compression| ProduceRules {
        compression: TopicCompression::Always(Encoding::from(codec)),
        ..rules
    };
    for codec in Compression::ALL {
        let small = sized(codec.into(), 10_000);
        assert_eq!(validate_if_short(&small, &rules), Some(validate_produce(&small, &rules)), "{codec:?}");
        // However little it came in.
        let large = sized(codec.into(), 3 << 20);
        assert_eq!(validate_if_short(&large, &rules), None, "{codec:?}");
        // Where it may not become so much, that is soon found out.
        let narrow = ProduceRules { decompressed_bytes_max: 1 << 20, ..rules };
        if codec != Compression::None && large.len() < SHORT_COMPRESSED_MAX {
            let refused = validate_if_short(&large, &narrow).expect("it is short").expect_err("too large");
            assert!(refused.is_decompressed_too_large());
        }
        // To be compressed anew it may take long.
        let other = if codec == Compression::Zstd { Compression::Gzip } else { Compression::Zstd };
        assert_eq!(validate_if_short(&small, &always(other)), None, "{codec:?}");
        assert!(validate_if_short(&small, &always(codec)).is_some(), "{codec:?}");
    }
    for bytes in [&b""[..], b"short", &[0; 70_000]] {
        let bytes = Bytes::copy_from_slice(bytes);
        let checked = validate_if_short(&bytes, &rules);
        assert!(checked.is_none() || checked == Some(validate_produce(&bytes, &rules)));
    }
}
