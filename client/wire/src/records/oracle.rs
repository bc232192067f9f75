//! Our encoder and decoder against those of the `kafka-protocol` crate, both ways, in every codec.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type OurHeader = (String, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OurHeader>,
}

fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let bytes = || proptest::option::of(vec(any::<u8>(), 0..200));
    // Their headers are a map: names are kept distinct by their place.
    let headers = vec(("[a-zé]{0,8}", bytes()), 0..4).prop_map(|list| {
        list.into_iter().enumerate().map(|(i, (name, value))| (format!("{name}{i}"), value)).collect()
    });
    let sample = (-1i64..1 << 41, bytes(), bytes(), headers)
        .prop_map(|(timestamp, key, value, headers)| Sample { timestamp, key, value, headers });
    vec(sample, 1..40)
}

fn codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

fn ours(samples: &[Sample], options: BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for sample in samples {
        let headers: Vec<Header<'_>> = sample
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref() })
            .collect();
        builder.append(sample.timestamp, sample.key.as_deref(), sample.value.as_deref(), &headers).unwrap();
    }
    builder.build().unwrap()
}

fn read_ours(batch: &BatchView) -> Vec<Sample> {
    let mut scratch = Scratch::new();
    batch
        .records(&mut scratch, 1 << 20)
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let header =
                |h: Header<'_>| (String::from_utf8(h.key.to_vec()).unwrap(), h.value.map(<[u8]>::to_vec));
            Sample {
                timestamp: batch.header().timestamp_at(record.timestamp_delta),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers().map(header).collect(),
            }
        })
        .collect()
}

fn their_codec(codec: Compression) -> theirs::Compression {
    match codec {
        Compression::None => theirs::Compression::None,
        Compression::Gzip => theirs::Compression::Gzip,
        Compression::Snappy => theirs::Compression::Snappy,
        Compression::Lz4 => theirs::Compression::Lz4,
        Compression::Zstd => theirs::Compression::Zstd,
    }
}

fn their_records(samples: &[Sample]) -> Vec<theirs::Record> {
    samples
        .iter()
        .enumerate()
        .map(|(index, sample)| theirs::Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 3,
            producer_id: 70,
            producer_epoch: 2,
            timestamp_type: theirs::TimestampType::Creation,
            offset: index as i64,
            sequence: 10 + index as i32,
            timestamp: sample.timestamp,
            key: sample.key.clone().map(Bytes::from),
            value: sample.value.clone().map(Bytes::from),
            headers: sample
                .headers
                .iter()
                .map(|(key, value)| (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from)))
                .collect(),
        })
        .collect()
}

fn their_batch(samples: &[Sample], codec: Compression) -> Bytes {
    let mut out = BytesMut::new();
    let options = theirs::RecordEncodeOptions { version: 2, compression: their_codec(codec) };
    theirs::RecordBatchEncoder::encode(&mut out, &their_records(samples), &options).unwrap();
    out.freeze()
}

fn options(codec: Compression) -> BatchOptions {
    BatchOptions {
        encoding: codec.into(),
        leader_epoch: 3,
        producer: Some(Producer { id: 70, epoch: 2, base_sequence: 10 }),
        transactional: true,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn they_read_what_we_write(samples in samples(), codec in codec()) {
        let mut bytes = ours(&samples, options(codec));
        let read = theirs::RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert!(bytes.is_empty());
        prop_assert_eq!(read.records, their_records(&samples));
        prop_assert_eq!(read.compression, their_codec(codec));
    }

    #[test]
    fn we_read_what_they_write(samples in samples(), codec in codec()) {
        let bytes = their_batch(&samples, codec);
        let batch = BatchView::parse(&bytes).unwrap();
        prop_assert_eq!(batch.bytes(), &bytes);
        batch.verify_checksum().unwrap();
        prop_assert_eq!(read_ours(&batch), samples.clone());
        let header = batch.header();
        prop_assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (70, 2, 10));
        prop_assert_eq!(header.last_offset_delta, samples.len() as i32 - 1);
        // The rules accept it; far-away timestamps are not this test's matter.
        let rules = ProduceRules { timestamp_after_max_ms: i64::MAX, ..ProduceRules::new(9, 0) };
        prop_assert_eq!(validate_produce(&bytes, &rules).unwrap().batch, bytes);
    }

    #[test]
    fn uncompressed_batches_are_the_same_to_the_byte(mut samples in samples()) {
        // They count timestamps from the least, we and Java from the first.
        samples.sort_by_key(|sample| sample.timestamp);
        prop_assert_eq!(ours(&samples, options(Compression::None)), their_batch(&samples, Compression::None));
    }

    #[test]
    fn what_was_built_is_read_back(samples in samples(), codec in codec()) {
        let bytes = ours(&samples, BatchOptions { encoding: codec.into(), base_offset: 1 << 40, ..Default::default() });
        let batch = BatchView::parse(&bytes).unwrap();
        prop_assert_eq!(read_ours(&batch), samples.clone());
        prop_assert_eq!(batch.header().next_offset(), (1 << 40) + samples.len() as i64);
        prop_assert_eq!(batch.header().max_timestamp, samples.iter().map(|s| s.timestamp).max().unwrap());
    }
}
