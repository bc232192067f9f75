//! The 61-byte header of a v2 record batch (KIP-98).
//!
//! ```text
//!  0        8      12           16    17   21          23               27
//!  | offset | len  | ldr epoch  | mag | crc | attributes | last offset Δ | base timestamp ...
//!  27              35             43            51      53         57      61
//!  | base timestamp | max timestamp | producer id | epoch | sequence | count | records ...
//! ```
//! The CRC-32C covers everything from the attributes to the end. Base offset and leader epoch lie before it, so a
//! broker sets them in place without touching the checksum.

use super::compression::Compression;
use super::error::BatchError;

/// Where each field begins, in bytes from the start of the batch.
pub const BASE_OFFSET_AT: usize = 0;
pub const BATCH_LENGTH_AT: usize = 8;
pub const PARTITION_LEADER_EPOCH_AT: usize = 12;
pub const MAGIC_AT: usize = 16;
pub const CRC_AT: usize = 17;
pub const ATTRIBUTES_AT: usize = 21;
pub const LAST_OFFSET_DELTA_AT: usize = 23;
pub const BASE_TIMESTAMP_AT: usize = 27;
pub const MAX_TIMESTAMP_AT: usize = 35;
pub const PRODUCER_ID_AT: usize = 43;
pub const PRODUCER_EPOCH_AT: usize = 51;
pub const BASE_SEQUENCE_AT: usize = 53;
pub const RECORDS_COUNT_AT: usize = 57;
/// Length of the header: the records (or their compressed form) begin here.
pub const BATCH_HEADER_LEN: usize = 61;

/// Base offset and batch length: the bytes that `batch_length` does not count.
pub const LOG_OVERHEAD: usize = 12;
/// The least `batch_length` a v2 batch can state.
pub const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_LEN - LOG_OVERHEAD) as i32;

const _: () = assert!(RECORDS_COUNT_AT + 4 == BATCH_HEADER_LEN && BATCH_LENGTH_AT + 4 == LOG_OVERHEAD);
// Everything set in place after a produce was checked must lie before the checksummed range.
const _: () = assert!(PARTITION_LEADER_EPOCH_AT + 4 <= MAGIC_AT && CRC_AT + 4 == ATTRIBUTES_AT);

pub const MAGIC_V2: i8 = 2;
pub const NO_TIMESTAMP: i64 = -1;
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_LEADER_EPOCH: i32 = -1;

/// Attribute bits 0 to 2: the codec.
pub const CODEC_MASK: i16 = 0x07;
/// Attribute bit 3: timestamps are log append time (KIP-32).
pub const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
pub const TRANSACTIONAL_BIT: i16 = 1 << 4;
pub const CONTROL_BIT: i16 = 1 << 5;
/// Attribute bit 6: base timestamp holds the delete horizon (KIP-534). Set by compaction alone.
pub const DELETE_HORIZON_BIT: i16 = 1 << 6;
/// Attribute bit 15, unused by Kafka: a batch of Corelog's own (Raft's term starts and configurations). It counts no
/// records and its last offset delta is -1, so it takes no Kafka offset. It never leaves the broker.
pub const INTERNAL_BIT: i16 = i16::MIN;
/// The bits that a producer may set.
pub const CLIENT_BITS: i16 = CODEC_MASK | LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT;

/// Who gave the records their timestamps (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// A batch's header, by value. Offsets and sequences as on the wire; timestamps in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes that follow this field: the whole batch less [`LOG_OVERHEAD`].
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`.
    ///
    /// Checks only what is needed to find the batch's end: that the header is there, magic is 2, and the stated
    /// length is possible. The batch itself need not be there; see [`BatchHeader::size`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // A message of format 0 or 1 can be shorter than a v2 header: name the format before the length.
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic as i8 != MAGIC_V2
        {
            return Err(BatchError::Magic { found: magic as i8 });
        }
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_LEN>() else {
            return Err(BatchError::Incomplete { needed: BATCH_HEADER_LEN, present: bytes.len() });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field(header, BASE_OFFSET_AT)),
            batch_length: i32::from_be_bytes(field(header, BATCH_LENGTH_AT)),
            partition_leader_epoch: i32::from_be_bytes(field(header, PARTITION_LEADER_EPOCH_AT)),
            magic: i8::from_be_bytes(field(header, MAGIC_AT)),
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: i16::from_be_bytes(field(header, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(header, LAST_OFFSET_DELTA_AT)),
            base_timestamp: i64::from_be_bytes(field(header, BASE_TIMESTAMP_AT)),
            max_timestamp: i64::from_be_bytes(field(header, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(header, PRODUCER_ID_AT)),
            producer_epoch: i16::from_be_bytes(field(header, PRODUCER_EPOCH_AT)),
            base_sequence: i32::from_be_bytes(field(header, BASE_SEQUENCE_AT)),
            records_count: i32::from_be_bytes(field(header, RECORDS_COUNT_AT)),
        };
        if header.batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::Length { stated: header.batch_length });
        }
        Ok(header)
    }

    /// Writes the header as it stands, checksum included, over the first 61 bytes of `out`.
    pub fn write(&self, out: &mut [u8; BATCH_HEADER_LEN]) {
        put(out, BASE_OFFSET_AT, self.base_offset.to_be_bytes());
        put(out, BATCH_LENGTH_AT, self.batch_length.to_be_bytes());
        put(out, PARTITION_LEADER_EPOCH_AT, self.partition_leader_epoch.to_be_bytes());
        put(out, MAGIC_AT, self.magic.to_be_bytes());
        put(out, CRC_AT, self.crc.to_be_bytes());
        put(out, ATTRIBUTES_AT, self.attributes.to_be_bytes());
        put(out, LAST_OFFSET_DELTA_AT, self.last_offset_delta.to_be_bytes());
        put(out, BASE_TIMESTAMP_AT, self.base_timestamp.to_be_bytes());
        put(out, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(out, PRODUCER_ID_AT, self.producer_id.to_be_bytes());
        put(out, PRODUCER_EPOCH_AT, self.producer_epoch.to_be_bytes());
        put(out, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(out, RECORDS_COUNT_AT, self.records_count.to_be_bytes());
    }

    /// Bytes of the whole batch, header included: at least [`BATCH_HEADER_LEN`] for a parsed header.
    pub fn size(&self) -> usize {
        LOG_OVERHEAD + self.batch_length.max(0) as usize
    }

    /// The offset of the last record; for an internal batch, the one before its place.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The offset that the next batch begins at.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// The codec, or `None` if the three bits name none of Kafka's.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_id((self.attributes & CODEC_MASK) as u8)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds control records (transaction markers), which consumers skip.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the batch is Corelog's own ([`INTERNAL_BIT`]) and hidden from every client.
    pub fn is_internal(&self) -> bool {
        self.attributes & INTERNAL_BIT != 0
    }

    /// When compaction may drop this batch's tombstones and markers, in milliseconds (KIP-534).
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }

    /// Whether an idempotent or transactional producer wrote the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The last record's sequence number; sequences wrap from 2^31 - 1 to 0. `None` without a base sequence.
    pub fn last_sequence(&self) -> Option<i32> {
        if self.base_sequence < 0 {
            return None;
        }
        // The sign bit is where the sequence space ends, so masking it off is the wrap.
        Some(self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX)
    }

    /// As [`BatchHeader::timestamp_at`]; none where the sum has no place in an INT64.
    #[inline]
    pub fn checked_timestamp_at(&self, delta: i64) -> Option<i64> {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.checked_add(delta),
            TimestampType::LogAppendTime => Some(self.max_timestamp),
        }
    }

    /// The timestamp of a record in this batch, given its delta. In a stored batch it was checked.
    #[inline]
    pub fn timestamp_at(&self, delta: i64) -> i64 {
        match self.timestamp_type() {
            TimestampType::CreateTime => self.base_timestamp.wrapping_add(delta),
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }
}

/// Sets the base offset of the batch that `batch` begins with. The checksum does not cover it.
///
/// Panics if `batch` is shorter than the field.
pub fn patch_base_offset(batch: &mut [u8], offset: i64) {
    batch[BASE_OFFSET_AT..BASE_OFFSET_AT + 8].copy_from_slice(&offset.to_be_bytes());
}

/// Sets the partition leader epoch of the batch that `batch` begins with. The checksum does not cover it.
///
/// Panics if `batch` is shorter than the field.
pub fn patch_leader_epoch(batch: &mut [u8], epoch: i32) {
    batch[PARTITION_LEADER_EPOCH_AT..PARTITION_LEADER_EPOCH_AT + 4].copy_from_slice(&epoch.to_be_bytes());
}

#[inline(always)]
fn field<const N: usize>(header: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}

fn put<const N: usize>(header: &mut [u8; BATCH_HEADER_LEN], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BatchHeader {
        BatchHeader {
            base_offset: 0x0102_0304_0506_0708,
            batch_length: 49,
            partition_leader_epoch: 7,
            magic: MAGIC_V2,
            crc: 0xdead_beef,
            attributes: TRANSACTIONAL_BIT | 4,
            last_offset_delta: 9,
            base_timestamp: 1000,
            max_timestamp: 2000,
            producer_id: 77,
            producer_epoch: 3,
            base_sequence: i32::MAX - 4,
            records_count: 10,
        }
    }

    #[test]
    fn written_header_is_read_back() {
        let mut bytes = [0; BATCH_HEADER_LEN];
        sample().write(&mut bytes);
        assert_eq!(BatchHeader::parse(&bytes), Ok(sample()));
        patch_base_offset(&mut bytes, 5);
        patch_leader_epoch(&mut bytes, 6);
        let expected = BatchHeader { base_offset: 5, partition_leader_epoch: 6, ..sample() };
        assert_eq!(BatchHeader::parse(&bytes), Ok(expected));
    }

    #[test]
    fn accessors() {
        let header = sample();
        assert_eq!(header.compression(), Some(Compression::Zstd));
        assert!(header.is_transactional() && !header.is_control() && !header.is_internal());
        assert_eq!(header.size(), 61);
        assert_eq!(header.last_sequence(), Some(4), "the sequence wraps to zero behind 2^31 - 1");
        assert_eq!(header.timestamp_at(5), 1005);
        assert_eq!(header.delete_horizon_ms(), None);

        let header = BatchHeader { attributes: LOG_APPEND_TIME_BIT | DELETE_HORIZON_BIT | 7, ..sample() };
        assert_eq!(header.compression(), None);
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(header.timestamp_at(5), 2000);
        assert_eq!(header.delete_horizon_ms(), Some(1000));

        let header = BatchHeader { attributes: INTERNAL_BIT, last_offset_delta: -1, ..sample() };
        assert!(header.is_internal());
        assert_eq!(header.next_offset(), header.base_offset, "an internal batch takes no offset");
    }

    #[test]
    fn impossible_headers_are_refused() {
        let mut bytes = [0; BATCH_HEADER_LEN];
        sample().write(&mut bytes);
        for len in 0..BATCH_HEADER_LEN {
            assert_eq!(
                BatchHeader::parse(&bytes[..len]),
                Err(BatchError::Incomplete { needed: 61, present: len })
            );
        }
        bytes[BATCH_LENGTH_AT + 3] = 48;
        assert_eq!(BatchHeader::parse(&bytes), Err(BatchError::Length { stated: 48 }));
        bytes[MAGIC_AT] = 1;
        assert_eq!(BatchHeader::parse(&bytes[..17]), Err(BatchError::Magic { found: 1 }));
    }
}
