//! Batches to produce, good and bad.

use bytes::Bytes;
use corelog_wire::records::{
    ATTRIBUTES_AT, BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, Compression, Header, Producer,
};

/// The time of the first record of every batch, in ms; the next ones follow by 1.
pub const TIME: i64 = 1_700_000_000_000;

/// Plain records with these values, no keys.
pub fn batch(values: &[&str]) -> Bytes {
    build(BatchOptions::default(), TIME, values)
}

pub fn batch_at(time: i64, values: &[&str]) -> Bytes {
    build(BatchOptions::default(), time, values)
}

pub fn compressed(codec: Compression, values: &[&str]) -> Bytes {
    build(BatchOptions { encoding: codec.into(), ..Default::default() }, TIME, values)
}

pub fn idempotent(id: i64, epoch: i16, base_sequence: i32, values: &[&str]) -> Bytes {
    build(
        BatchOptions { producer: Some(Producer { id, epoch, base_sequence }), ..Default::default() },
        TIME,
        values,
    )
}

pub fn build(options: BatchOptions, time: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (i, value) in values.iter().enumerate() {
        builder.append(time + i as i64, None, Some(value.as_bytes()), &[]).expect("it is small");
    }
    builder.build().expect("it has records")
}

/// Null and empty keys and values, headers of all kinds.
pub fn rich() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let header = |key: &'static str, value| Header { key: key.as_bytes(), value };
    let twice =
        [header("h", Some(&b"1"[..])), header("h", Some(b"2")), header("null", None), header("", Some(b""))];
    for (key, value, headers) in [
        (Some(&b"key"[..]), Some(&b"value"[..]), &twice[..]),
        (None, Some(b"no key"), &[]),
        (Some(b"no value"), None, &[]),
        (None, None, &[]),
        (Some(b""), Some(b""), &twice[2..]),
    ] {
        builder.append(TIME, key, value, headers).expect("it is small");
    }
    builder.build().expect("it has records")
}

/// A batch of exactly this many bytes: one record.
pub fn of_size(size: usize) -> Bytes {
    let mut value_len = size - BATCH_HEADER_LEN - 7;
    loop {
        let batch = batch(&[&"x".repeat(value_len)]);
        match batch.len().cmp(&size) {
            std::cmp::Ordering::Equal => return batch,
            std::cmp::Ordering::Greater => value_len -= batch.len() - size,
            std::cmp::Ordering::Less => value_len += size - batch.len(),
        }
    }
}

/// The batch with a header that was changed, and a checksum that holds.
pub fn with_header(batch: &Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).expect("it was good so far");
    change(&mut header);
    let mut bytes = batch.to_vec();
    write(&header, &mut bytes);
    header.crc = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    write(&header, &mut bytes);
    bytes.into()
}

/// The batch with other bytes in place of its records, and length and checksum to match.
pub fn with_payload(batch: &Bytes, payload: &[u8]) -> Bytes {
    let mut bytes = batch[..BATCH_HEADER_LEN].to_vec();
    bytes.extend_from_slice(payload);
    let length = bytes.len() as i32 - 12;
    with_header(&bytes.into(), |header| header.batch_length = length)
}

/// The batch with other bytes at a place, and nothing else made to match.
pub fn with_bytes(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut changed = batch.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed.into()
}

fn write(header: &BatchHeader, bytes: &mut [u8]) {
    header.write(bytes.first_chunk_mut().expect("a batch has a header"));
}

pub fn joined(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}
