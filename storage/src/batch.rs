//! The header of a Kafka v2 record batch, as far as the log looks at it.
//!
//! Big-endian, 61 bytes. The CRC covers everything from the attributes on; what stands before (base offset, length,
//! leader epoch, magic, the CRC itself) is the broker's to set and is protected by the journal group's checksum and
//! by the continuity of offsets.

use bytes::Bytes;

/// Bytes of the header.
pub const HEADER: usize = 61;
/// Bytes before what the length field counts: base offset and the length field itself.
pub const LOG_OVERHEAD: usize = 12;
/// Where the part under the CRC begins.
pub const CRC_FROM: usize = 21;

const LEADER_EPOCH: usize = 12;
const MAGIC: usize = 16;
const ATTRIBUTES: usize = 21;

const ATTRIBUTE_LOG_APPEND_TIME: i16 = 1 << 3;
/// Reserved by Kafka; here it marks Raft's own batches, which take no Kafka offset.
const ATTRIBUTE_INTERNAL: i16 = 1 << 15;

/// Values of a batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes of the whole batch, header and length field included.
    pub size: usize,
    pub leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotABatch {
    /// Fewer than [`HEADER`] bytes.
    Short,
    /// The length field is below the header's size or negative.
    Length(i32),
    Magic(i8),
    /// The last offset delta is negative.
    OffsetDelta(i32),
}

impl std::fmt::Display for NotABatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotABatch::Short => write!(f, "fewer bytes than a batch header ({HEADER})"),
            NotABatch::Length(n) => write!(f, "a batch length of {n}"),
            NotABatch::Magic(n) => write!(f, "batch magic {n}, not 2"),
            NotABatch::OffsetDelta(n) => write!(f, "a last offset delta of {n}"),
        }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

impl BatchHeader {
    /// Reads the header `bytes` begin with. Does not look at the records nor the CRC.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, NotABatch> {
        if bytes.len() < HEADER {
            return Err(NotABatch::Short);
        }
        let length = i32::from_be_bytes(field(bytes, 8));
        if (length as i64) < (HEADER - LOG_OVERHEAD) as i64 {
            return Err(NotABatch::Length(length));
        }
        let magic = bytes[MAGIC] as i8;
        if magic != 2 {
            return Err(NotABatch::Magic(magic));
        }
        let last_offset_delta = i32::from_be_bytes(field(bytes, 23));
        if last_offset_delta < 0 {
            return Err(NotABatch::OffsetDelta(last_offset_delta));
        }
        Ok(BatchHeader {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            size: length as usize + LOG_OVERHEAD,
            leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES)),
            last_offset_delta,
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
        })
    }

    /// Raft's own batch: takes no Kafka offset, is not served.
    pub fn is_internal(&self) -> bool {
        self.attributes & ATTRIBUTE_INTERNAL != 0
    }

    /// All its records bear the batch's max timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    /// The Kafka offset after the batch.
    pub fn next_offset(&self) -> i64 {
        if self.is_internal() { self.base_offset } else { self.base_offset + i64::from(self.last_offset_delta) + 1 }
    }

    /// The greatest timestamp its records add to the log; -1 for none.
    pub fn timestamp(&self) -> i64 {
        if self.is_internal() { -1 } else { self.max_timestamp }
    }
}

/// Whether the CRC of a whole batch is right.
pub fn crc_matches(batch: &[u8]) -> bool {
    batch.len() >= HEADER && crc32c::crc32c(&batch[CRC_FROM..]) == u32::from_be_bytes(field(batch, 17))
}

/// The first `LEADER_EPOCH + 4` bytes of `batch` with the base offset and leader epoch it gets in this log, and the rest.
pub fn patched(batch: &Bytes, base_offset: i64, leader_epoch: i32) -> ([u8; LEADER_EPOCH + 4], &[u8]) {
    let mut head = field::<{ LEADER_EPOCH + 4 }>(batch, 0);
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[LEADER_EPOCH..].copy_from_slice(&leader_epoch.to_be_bytes());
    (head, &batch[LEADER_EPOCH + 4..])
}
