//! Building v2 batches.

use bytes::Bytes;

use super::batch::checksum;
use super::compression::{Codecs, Compression, Encoding, with_scratch};
use super::header::{
    BATCH_HEADER_LEN, BatchHeader, CONTROL_BIT, INTERNAL_BIT, LOG_APPEND_TIME_BIT, LOG_OVERHEAD, MAGIC_V2,
    NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL_BIT,
};
use super::record::{Header, Record};
use super::varint;

/// An idempotent producer's identity and the sequence number of a batch's first record (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

/// What a batch says besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    pub encoding: Encoding,
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub producer: Option<Producer>,
    /// Needs a producer.
    pub transactional: bool,
    pub control: bool,
    /// Some: the batch bears this time, in milliseconds, for all its records.
    pub log_append_time: Option<i64>,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            encoding: Encoding::default(),
            base_offset: 0,
            leader_epoch: NO_LEADER_EPOCH,
            producer: None,
            transactional: false,
            control: false,
            log_append_time: None,
        }
    }
}

/// A batch that cannot be built as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("the batch would be longer than a batch's length field can say (2^31 - 1 bytes)")]
    TooLarge,
    #[error("a batch without records cannot be built")]
    Empty,
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    #[error("producer id, epoch and base sequence must not be negative")]
    NegativeProducer,
}

/// Collects records and turns them into one batch.
///
/// ```
/// use corelog_wire::records::{BatchBuilder, BatchOptions, Compression, Header};
/// let mut batch = BatchBuilder::new(BatchOptions { encoding: Compression::Lz4.into(), ..Default::default() });
/// batch.append(1_700_000_000_000, Some(b"key"), Some(b"value"), &[Header { key: b"from", value: None }])?;
/// let bytes = batch.build()?;
/// # Ok::<(), corelog_wire::records::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the records as encoded.
    buffer: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// A batch's length field counts all but the first 12 bytes, and clients hold it in an i32.
const BATCH_LEN_MAX: usize = i32::MAX as usize;

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> BatchBuilder {
        BatchBuilder::with_capacity(options, 0)
    }

    /// With room for `records_len` bytes of uncompressed records.
    pub fn with_capacity(options: BatchOptions, records_len: usize) -> BatchBuilder {
        let mut buffer = Vec::with_capacity(BATCH_HEADER_LEN + records_len);
        buffer.resize(BATCH_HEADER_LEN, 0);
        BatchBuilder { options, buffer, count: 0, base_timestamp: NO_TIMESTAMP, max_timestamp: NO_TIMESTAMP }
    }

    /// Adds a record; its timestamp is in milliseconds since 1970, -1 for none.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BuildError> {
        let header_len = |header: &Header<'_>| {
            varint::size(header.key.len() as i64) + header.key.len() + nullable_len(header.value)
        };
        let tail_len = nullable_len(key)
            + nullable_len(value)
            + varint::size(headers.len() as i64)
            + headers.iter().map(header_len).sum::<usize>();
        self.begin(timestamp, tail_len)?;
        put_nullable(&mut self.buffer, key);
        put_nullable(&mut self.buffer, value);
        varint::write_i32(&mut self.buffer, headers.len() as i32);
        for header in headers {
            put_nullable(&mut self.buffer, Some(header.key));
            put_nullable(&mut self.buffer, header.value);
        }
        self.count += 1;
        Ok(())
    }

    /// Adds a record of another batch, with its key, value and headers as they are.
    pub(super) fn append_record(&mut self, timestamp: i64, record: &Record<'_>) -> Result<(), BuildError> {
        self.begin(timestamp, record.tail.len())?;
        self.buffer.extend_from_slice(record.tail);
        self.count += 1;
        Ok(())
    }

    /// Writes a record up to its key; `tail_len` is the length of the rest.
    fn begin(&mut self, timestamp: i64, tail_len: usize) -> Result<(), BuildError> {
        let base_timestamp = if self.count == 0 { timestamp } else { self.base_timestamp };
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp);
        let offset_delta = self.count;
        let length = 1 + varint::size(timestamp_delta) + varint::size(i64::from(offset_delta)) + tail_len;
        if length > BATCH_LEN_MAX || self.buffer.len() + varint::size(length as i64) + length > BATCH_LEN_MAX
        {
            return Err(BuildError::TooLarge);
        }
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        varint::write_i32(&mut self.buffer, length as i32);
        self.buffer.push(0);
        varint::write_i64(&mut self.buffer, timestamp_delta);
        varint::write_i32(&mut self.buffer, offset_delta);
        Ok(())
    }

    pub fn records_count(&self) -> i32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, before compression.
    pub fn uncompressed_len(&self) -> usize {
        self.buffer.len()
    }

    /// The finished batch, with this thread's scratch for compression.
    pub fn build(self) -> Result<Bytes, BuildError> {
        with_scratch(|scratch| self.build_with(&mut scratch.codecs))
    }

    /// As [`BatchBuilder::build`], with the caller's codecs.
    pub fn build_with(self, codecs: &mut Codecs) -> Result<Bytes, BuildError> {
        let mut buffer = self.buffer;
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let (producer_id, producer_epoch, base_sequence) = match self.options.producer {
            Some(Producer { id, epoch, base_sequence }) => {
                // Markers are written in a producer's name and have no sequence of their own.
                if id < 0 || epoch < 0 || (base_sequence < 0 && !self.options.control) {
                    return Err(BuildError::NegativeProducer);
                }
                (id, epoch, base_sequence)
            }
            None if self.options.transactional => return Err(BuildError::TransactionalWithoutProducer),
            None => (NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE),
        };
        let codec = self.options.encoding.codec;
        if codec != Compression::None {
            let mut compressed = Vec::with_capacity(BATCH_HEADER_LEN + buffer.len() / 2);
            compressed.resize(BATCH_HEADER_LEN, 0);
            let plain = &buffer[BATCH_HEADER_LEN..];
            codecs.compress(self.options.encoding, plain, &mut compressed);
            if compressed.len() > BATCH_LEN_MAX {
                return Err(BuildError::TooLarge);
            }
            buffer = compressed;
        }
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        let header = BatchHeader {
            base_offset: self.options.base_offset,
            batch_length: 0,
            partition_leader_epoch: self.options.leader_epoch,
            magic: MAGIC_V2,
            crc: 0,
            attributes: i16::from(codec.id())
                | flag(self.options.log_append_time.is_some(), LOG_APPEND_TIME_BIT)
                | flag(self.options.transactional, TRANSACTIONAL_BIT)
                | flag(self.options.control, CONTROL_BIT),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.options.log_append_time.unwrap_or(self.max_timestamp),
            producer_id,
            producer_epoch,
            base_sequence,
            records_count: self.count,
        };
        seal(header, &mut buffer);
        Ok(Bytes::from(buffer))
    }
}

/// A batch of Corelog's own, which takes no Kafka offset and bears `payload` in place of records
/// ([`INTERNAL_BIT`]). `base_offset` is that of the next record; time in milliseconds.
///
/// Panics if `payload` is longer than a batch can be (2^31 - 1 bytes with the header).
pub fn internal_batch(base_offset: i64, leader_epoch: i32, now_ms: i64, payload: &[u8]) -> Bytes {
    assert!(payload.len() <= BATCH_LEN_MAX - BATCH_HEADER_LEN, "internal batch of {} bytes", payload.len());
    let mut buffer = Vec::with_capacity(BATCH_HEADER_LEN + payload.len());
    buffer.resize(BATCH_HEADER_LEN, 0);
    buffer.extend_from_slice(payload);
    let header = BatchHeader {
        base_offset,
        batch_length: 0,
        partition_leader_epoch: leader_epoch,
        magic: MAGIC_V2,
        crc: 0,
        attributes: INTERNAL_BIT,
        last_offset_delta: -1,
        base_timestamp: now_ms,
        max_timestamp: now_ms,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        base_sequence: NO_SEQUENCE,
        records_count: 0,
    };
    seal(header, &mut buffer);
    Bytes::from(buffer)
}

/// Writes `header` over the front of `batch` with its length and checksum set to the batch's; returns it so.
pub(super) fn seal(mut header: BatchHeader, batch: &mut [u8]) -> BatchHeader {
    header.batch_length = (batch.len() - LOG_OVERHEAD) as i32;
    let front = batch.first_chunk_mut::<BATCH_HEADER_LEN>().expect("room for the header was made");
    header.write(front);
    header.crc = checksum(batch);
    let front = batch.first_chunk_mut::<BATCH_HEADER_LEN>().expect("as above");
    header.write(front);
    header
}

fn nullable_len(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varint::size(value.len() as i64) + value.len())
}

fn put_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => varint::write_i32(out, -1),
        Some(value) => {
            varint::write_i64(out, value.len() as i64);
            out.extend_from_slice(value);
        }
    }
}
