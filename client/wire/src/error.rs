//! What can be wrong with bytes that came in, and with values that are to go out.

use std::ops::RangeInclusive;

/// Bytes that are no message. The connection that sent them is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {field} at byte {offset}: {fault}")]
pub struct DecodeError {
    /// `Struct.field`, by the names in `messages`.
    pub field: &'static str,
    /// Position in the reader's bytes at which the value begins.
    pub offset: usize,
    pub fault: DecodeFault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    #[error("needs {needed} bytes, {remaining} are left")]
    Truncated { needed: usize, remaining: usize },
    #[error("{0} is no length")]
    BadLength(i64),
    #[error("a string of {0} bytes, more than 32767")]
    StringTooLong(usize),
    #[error("null where a value must stand")]
    Null,
    #[error("the variable-length integer is too long")]
    VarintTooLong,
    #[error("{count} elements of at least {smallest} bytes each cannot be in the {remaining} bytes left")]
    ArrayTooLong { count: usize, smallest: usize, remaining: usize },
    #[error("the arrays would take {needed} bytes of memory, {left} are left of the bound for this message")]
    TooMuchMemory { needed: usize, left: usize },
    #[error("tag {tag} follows tag {previous}: tags must ascend, each once")]
    TagOrder { tag: u32, previous: u32 },
    #[error("tag {tag} says {size} bytes, its value takes {used}")]
    TagSize { tag: u32, size: usize, used: usize },
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
    #[error("version {version} is not in {}-{}", .known.start(), .known.end())]
    UnknownVersion { version: i16, known: RangeInclusive<i16> },
    #[error("{0} is not known here")]
    UnknownKey(i64),
}

/// A value that the chosen version of its message cannot carry: an error of the caller, not of the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("cannot encode {message}: version {version} is not in {}-{}", .known.start(), .known.end())]
    UnknownVersion { message: &'static str, version: i16, known: RangeInclusive<i16> },
    #[error("cannot encode {field}: version {version} has no such field; leave it at its default")]
    NotInVersion { field: &'static str, version: i16 },
    #[error("cannot encode {field}: version {version} does not allow null")]
    Null { field: &'static str, version: i16 },
    #[error("cannot encode {field}: {len} exceeds the limit of {limit}")]
    TooLong { field: &'static str, len: usize, limit: usize },
}

impl EncodeError {
    #[cold]
    pub(crate) fn not_in_version(field: &'static str, version: i16) -> Self {
        EncodeError::NotInVersion { field, version }
    }
}
