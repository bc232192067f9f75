//! The controller's log: batches of Kafka's metadata records, one batch a change, so that a change is whole or
//! not there.

use bytes::Bytes;
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::records::{BatchBuilder, BatchOptions, Scratch, split_batches};

/// No batch of this log decompresses to more.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// One batch that holds `records`, at offset 0: the log puts the true offset in.
pub fn encode_batch(records: &[MetadataRecord], now_ms: i64) -> Result<Bytes, String> {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for record in records {
        let value = record.to_bytes().map_err(|error| error.to_string())?;
        batch.append(now_ms, None, Some(&value), &[]).map_err(|error| error.to_string())?;
    }
    batch.build().map_err(|error| error.to_string())
}

/// The parts of a read as one: a part may be a piece of a batch.
pub fn joined(parts: &[Bytes]) -> Bytes {
    match parts {
        [one] => one.clone(),
        parts => parts.concat().into(),
    }
}

/// One batch's records, and where it is.
pub struct Batch {
    pub records: Vec<MetadataRecord>,
    pub first: i64,
    /// The offset after it.
    pub end: i64,
    pub bytes: u64,
}

/// Some batches, in order.
pub fn decode_batches(batches: &Bytes) -> Result<Vec<Batch>, String> {
    let mut decoded = Vec::new();
    let mut scratch = Scratch::default();
    for batch in split_batches(batches) {
        let batch = batch.map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        for record in batch.records(&mut scratch, BATCH_BYTES_MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let value = Bytes::copy_from_slice(record.value.ok_or("a record without a value")?);
            records.push(MetadataRecord::from_bytes(value).map_err(|error| error.to_string())?);
        }
        let header = batch.header();
        let (first, end) = (header.base_offset, header.next_offset());
        decoded.push(Batch { records, first, end, bytes: header.size() as u64 });
    }
    Ok(decoded)
}
