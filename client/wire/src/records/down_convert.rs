//! v2 batches for consumers that read only message format 0 or 1 (Fetch before version 4).
//!
//! Offsets stay; headers are dropped, as are control batches and the broker's own. Records stay compressed in the
//! batch's codec, except that zstd, which those formats do not have, is undone.

use bytes::Bytes;

use super::batch::{BatchView, split_batches, unknown_codec};
use super::compression::{Codecs, Compression, Encoding, Scratch, with_scratch};
use super::error::BatchError;
use super::header::{LOG_APPEND_TIME_BIT, NO_TIMESTAMP, TimestampType};
use super::legacy::{LegacyFormat, put_message};
use super::record::RecordIter;

/// How much to convert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownConvertLimits {
    /// Of the result, in bytes. The first batch with anything to give is given whole, as any fetch does.
    pub bytes_max: usize,
    /// What one batch's records may decompress to.
    pub decompressed_bytes_max: usize,
}

/// A message set and how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownConverted {
    /// Empty if all batches were such as old consumers do not see; reading on from `next_offset` may find others.
    pub records: Bytes,
    /// The offset behind the last batch looked at, dropped ones included; `first_offset` if there was none.
    pub next_offset: i64,
}

/// A stored batch that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch at offset {base_offset} cannot be converted to message format {magic}: {cause}")]
pub struct DownConvertError {
    pub base_offset: i64,
    pub magic: i8,
    pub cause: BatchError,
}

/// Converts the whole v2 batches in `batches`, as read from a log, for a fetch from `first_offset` on.
///
/// A batch that is cut off ends the conversion, as does one that cannot be read if others came before it.
pub fn down_convert(
    batches: &Bytes,
    format: LegacyFormat,
    first_offset: i64,
    limits: DownConvertLimits,
) -> Result<DownConverted, DownConvertError> {
    let mut records = Vec::new();
    let mut next_offset = first_offset;
    with_scratch(|scratch| {
        for batch in split_batches(batches) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(BatchError::Incomplete { .. }) => break,
                Err(_) if !records.is_empty() => break,
                Err(cause) => {
                    return Err(DownConvertError { base_offset: next_offset, magic: format.magic(), cause });
                }
            };
            let before = records.len();
            match convert(&batch, format, first_offset, limits, scratch, &mut records) {
                Ok(()) => {}
                Err(_) if before > 0 => {
                    records.truncate(before);
                    break;
                }
                Err(cause) => {
                    let base_offset = batch.header().base_offset;
                    return Err(DownConvertError { base_offset, magic: format.magic(), cause });
                }
            }
            if before > 0 && records.len() > limits.bytes_max {
                records.truncate(before);
                break;
            }
            next_offset = batch.header().next_offset();
        }
        Ok(())
    })?;
    Ok(DownConverted { records: records.into(), next_offset })
}

/// Appends the messages of one batch to `out`.
fn convert(
    batch: &BatchView,
    format: LegacyFormat,
    first_offset: i64,
    limits: DownConvertLimits,
    Scratch { plain, codecs }: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let header = batch.header();
    if header.is_control() || header.is_internal() || header.records_count == 0 {
        return Ok(());
    }
    let codec = header.compression().ok_or_else(|| unknown_codec(header))?;
    let payload = match codec {
        Compression::None => batch.payload(),
        codec => {
            codecs.decompress(codec, batch.payload(), limits.decompressed_bytes_max, plain)?;
            plain
        }
    };
    let stamp = match (format, header.timestamp_type()) {
        (LegacyFormat::V1, TimestampType::LogAppendTime) => LOG_APPEND_TIME_BIT as i8,
        _ => 0,
    };
    if !matches!(codec, Compression::None | Compression::Zstd) {
        return wrap(batch, format, codec, stamp, payload, codecs, out);
    }
    for record in RecordIter::new(payload, header.records_count) {
        let record = record?;
        let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
        // Uncompressed messages come one by one, and consumers of those formats (librdkafka among them) do not
        // expect any before the offset they asked for; inside a wrapper they do.
        if offset >= first_offset {
            let timestamp = header.timestamp_at(record.timestamp_delta);
            put_message(out, format, offset, stamp, timestamp, record.key, record.value);
        }
    }
    Ok(())
}

/// Appends one compressed message with all of the batch's records in it.
fn wrap(
    batch: &BatchView,
    format: LegacyFormat,
    codec: Compression,
    stamp: i8,
    payload: &[u8],
    codecs: &mut Codecs,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let header = batch.header();
    let mut set = Vec::with_capacity(payload.len());
    let (mut first_delta, mut last_offset, mut max_timestamp) = (None, header.base_offset, NO_TIMESTAMP);
    for record in RecordIter::new(payload, header.records_count) {
        let record = record?;
        let first_delta = *first_delta.get_or_insert(record.offset_delta);
        last_offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
        let offset = match format {
            LegacyFormat::V0 => last_offset,
            LegacyFormat::V1 => i64::from(record.offset_delta) - i64::from(first_delta),
        };
        let timestamp = header.timestamp_at(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        put_message(&mut set, format, offset, stamp, timestamp, record.key, record.value);
    }
    let mut value = Vec::new();
    codecs.compress_as(Encoding::from(codec), &set, format.lz4_checksum(), &mut value);
    put_message(out, format, last_offset, codec.id() as i8 | stamp, max_timestamp, None, Some(&value));
    Ok(())
}

#[cfg(test)]
mod tests;
