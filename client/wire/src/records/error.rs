//! What can be wrong with batches and records.

use super::compression::CompressionError;

/// A batch that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("record batch is incomplete: it needs {needed} bytes and {present} are there")]
    Incomplete { needed: usize, present: usize },
    #[error("record batch states a length of {stated} bytes, less than the 49 of its own header")]
    Length { stated: i32 },
    #[error("record batch has magic {found} where 2 is needed")]
    Magic { found: i8 },
    #[error("record batch is corrupt: its checksum says {stored:08x}, its bytes give {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error("record {index} of the batch is malformed: {fault}")]
    Record { index: i32, fault: RecordFault },
    #[error("{bytes} bytes follow the last of the batch's {count} records")]
    TrailingBytes { count: i32, bytes: usize },
}

/// What is wrong with one v2 record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("its length is missing or not a 32-bit varint")]
    Length,
    #[error("it states {stated} bytes and {present} are left in the batch")]
    Body { stated: i32, present: usize },
    #[error("its attributes, timestamp delta or offset delta is missing or too wide")]
    Prefix,
    #[error("its key does not fit in it")]
    Key,
    #[error("its value does not fit in it")]
    Value,
    #[error("its header count is impossible")]
    HeaderCount,
    #[error("its header {0} does not fit in it, or has a null key")]
    Header(i32),
    #[error("{0} bytes are left over behind its headers")]
    Excess(usize),
}
