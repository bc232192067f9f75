//! Message sets of format 0 and 1, which producers before 0.11 send and consumers before 0.11 read.
//!
//! ```text
//! offset i64 | size i32 | crc u32 | magic i8 | attributes i8 | [v1: timestamp i64]
//! | key length i32, key | value length i32, value
//! ```
//! The CRC-32 covers everything behind it. A compressed message ("wrapper") holds a message set in its value: with
//! absolute offsets in format 0, relative to its first in format 1 (KIP-31), where the wrapper bears the last one's.
//! Format 1 brought timestamps (KIP-32).

use super::compression::{Codecs, Compression, CompressionError, Lz4Checksum};
use super::header::{CODEC_MASK, LOG_APPEND_TIME_BIT, LOG_OVERHEAD, NO_TIMESTAMP, TimestampType};

const CRC_AT: usize = LOG_OVERHEAD;
const MAGIC_AT: usize = CRC_AT + 4;
/// Least size that a message can state: all fields, null key, null value.
const SIZE_MIN_V0: usize = 14;
const SIZE_MIN_V1: usize = SIZE_MIN_V0 + 8;

// The magic byte is at the same place in every format.
const _: () = assert!(MAGIC_AT == super::header::MAGIC_AT);

/// The two formats before v2 batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyFormat {
    V0,
    V1,
}

impl LegacyFormat {
    pub fn magic(self) -> i8 {
        match self {
            LegacyFormat::V0 => 0,
            LegacyFormat::V1 => 1,
        }
    }

    pub(super) fn lz4_checksum(self) -> Lz4Checksum {
        match self {
            LegacyFormat::V0 => Lz4Checksum::MessageFormatV0,
            LegacyFormat::V1 => Lz4Checksum::Standard,
        }
    }
}

/// A message set that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegacyError {
    #[error("message is incomplete: it needs {needed} bytes and {present} are there")]
    Incomplete { needed: usize, present: usize },
    #[error("message states a size of {stated} bytes, less than its own fields have")]
    Size { stated: i32 },
    #[error("message has magic {found} where {expected} is needed")]
    Magic { found: i8, expected: i8 },
    #[error("message is corrupt: its checksum says {stored:08x}, its bytes give {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("message's key and value do not fill it exactly")]
    Body,
    #[error("compressed message has no value")]
    WrapperWithoutValue,
    #[error("compressed message holds no messages")]
    WrapperEmpty,
    #[error("compressed message holds a compressed message")]
    WrapperNested,
    #[error("message of format {magic} uses zstd, which needs format 2")]
    Zstd { magic: i8 },
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// One message, borrowed. Its checksum was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyMessage<'a> {
    pub offset: i64,
    pub format: LegacyFormat,
    pub attributes: i8,
    /// Milliseconds since 1970; -1 in format 0.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// Of a compressed message: its message set.
    pub value: Option<&'a [u8]>,
    /// Bytes of the whole message, offset and size included.
    pub len: usize,
}

impl<'a> LegacyMessage<'a> {
    /// Reads the message at the front of `bytes`, which may hold more.
    pub fn parse(bytes: &'a [u8]) -> Result<LegacyMessage<'a>, LegacyError> {
        let Some(front) = bytes.first_chunk::<LOG_OVERHEAD>() else {
            return Err(LegacyError::Incomplete { needed: LOG_OVERHEAD, present: bytes.len() });
        };
        let offset = i64::from_be_bytes(*front.first_chunk().expect("12 bytes"));
        let stated = i32::from_be_bytes(*front.last_chunk().expect("12 bytes"));
        let size = usize::try_from(stated).unwrap_or(0);
        if size < SIZE_MIN_V0 {
            return Err(LegacyError::Size { stated });
        }
        let len = LOG_OVERHEAD + size;
        let Some(message) = bytes.get(..len) else {
            return Err(LegacyError::Incomplete { needed: len, present: bytes.len() });
        };
        let mut fields = Fields { rest: &message[CRC_AT..] };
        let stored = u32::from_be_bytes(fields.take().ok_or(LegacyError::Body)?);
        let format = match i8::from_be_bytes(fields.take().ok_or(LegacyError::Body)?) {
            0 => LegacyFormat::V0,
            1 => LegacyFormat::V1,
            found => return Err(LegacyError::Magic { found, expected: 1 }),
        };
        let computed = crc32(&message[MAGIC_AT..]);
        if stored != computed {
            return Err(LegacyError::Checksum { stored, computed });
        }
        let attributes = i8::from_be_bytes(fields.take().ok_or(LegacyError::Body)?);
        let timestamp = match format {
            LegacyFormat::V0 => NO_TIMESTAMP,
            LegacyFormat::V1 if size < SIZE_MIN_V1 => return Err(LegacyError::Size { stated }),
            LegacyFormat::V1 => i64::from_be_bytes(fields.take().ok_or(LegacyError::Body)?),
        };
        let key = fields.nullable().ok_or(LegacyError::Body)?;
        let value = fields.nullable().ok_or(LegacyError::Body)?;
        if !fields.rest.is_empty() {
            return Err(LegacyError::Body);
        }
        Ok(LegacyMessage { offset, format, attributes, timestamp, key, value, len })
    }

    pub fn compression(&self) -> Result<Compression, CompressionError> {
        let id = (i16::from(self.attributes) & CODEC_MASK) as u8;
        Compression::from_id(id).ok_or(CompressionError::UnknownCodec(id))
    }

    /// Format 0 has no timestamps, and so nobody who set them.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.format {
            LegacyFormat::V1 if i16::from(self.attributes) & LOG_APPEND_TIME_BIT != 0 => {
                TimestampType::LogAppendTime
            }
            _ => TimestampType::CreateTime,
        }
    }

    /// The message set that this compressed message holds, decompressed into `out` to at most `limit` bytes.
    pub(super) fn unwrap_into(
        &self,
        codec: Compression,
        codecs: &mut Codecs,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), LegacyError> {
        if codec == Compression::Zstd {
            return Err(LegacyError::Zstd { magic: self.format.magic() });
        }
        let value = self.value.ok_or(LegacyError::WrapperWithoutValue)?;
        codecs.decompress_as(codec, value, limit, self.format.lz4_checksum(), out)?;
        if out.is_empty() {
            return Err(LegacyError::WrapperEmpty);
        }
        Ok(())
    }
}

/// The messages of a set, compressed ones as they are. The first error ends the iteration;
/// [`LegacyError::Incomplete`] means that the last message is cut off, as in a fetch response of those days.
pub fn legacy_messages(set: &[u8]) -> LegacyMessages<'_> {
    LegacyMessages { rest: set }
}

/// See [`legacy_messages`].
#[derive(Clone, Debug)]
pub struct LegacyMessages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for LegacyMessages<'a> {
    type Item = Result<LegacyMessage<'a>, LegacyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = LegacyMessage::parse(self.rest);
        self.rest = match &message {
            Ok(message) => &self.rest[message.len..],
            Err(_) => &[],
        };
        Some(message)
    }
}

impl std::iter::FusedIterator for LegacyMessages<'_> {}

/// Appends a message. `timestamp` is left out in format 0; `attributes` are written as given.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    format: LegacyFormat,
    offset: i64,
    attributes: i8,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let start = out.len();
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.push(format.magic() as u8);
    out.push(attributes as u8);
    if format == LegacyFormat::V1 {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    for part in [key, value] {
        match part {
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(bytes) => {
                // Parts come from one v2 batch, whose length is an i32.
                out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
    let size = (out.len() - start - LOG_OVERHEAD) as i32;
    out[start + 8..start + 12].copy_from_slice(&size.to_be_bytes());
    let crc = crc32(&out[start + MAGIC_AT..]);
    out[start + CRC_AT..start + MAGIC_AT].copy_from_slice(&crc.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// A length-prefixed part whose length -1 is null; `None` if it does not fit.
    fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        let length = i32::from_be_bytes(self.take()?);
        if length == -1 {
            return Some(None);
        }
        let (part, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(Some(part))
    }
}
