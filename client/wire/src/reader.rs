//! `Reader`: values out of bytes that nobody vouches for.

use crate::{DecodeError, DecodeFault, Str, Uuid};
use bytes::Bytes;
use std::mem::size_of;
use std::ops::RangeInclusive;

/// Memory that a decode may take for its arrays, in multiples of the bytes it was given.
///
/// Every array element takes at least some bytes on the wire (at least one; the schema knows how many), and a compile-time
/// assertion for each element type holds its size in memory to `EXPANSION` times that. The fixed parts of all elements are disjoint
/// bytes of the message, so the arrays of a true message never take more than `EXPANSION` times its length; whatever claims more is refused
/// before memory is taken for it. Strings, byte fields and records share the message's own bytes and take none.
pub const EXPANSION: usize = 64;

/// The fewest bytes that an array element of type `T` takes on the wire, checked against [`EXPANSION`].
pub(crate) const fn smallest<T>(bytes: usize) -> usize {
    assert!(size_of::<T>() <= EXPANSION * bytes, "array elements may expand too much: raise EXPANSION");
    bytes
}

/// Takes values off the front of a [`Bytes`]. Nothing here panics or allocates because of what the bytes say, beyond [`EXPANSION`].
///
/// Each method is given the name of the field for the error it may return.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
    /// Bytes at and after this are not to be read; less than `bytes.len()` within a tagged field.
    end: usize,
    memory_left: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

macro_rules! integers {
    ($($name:ident)*) => {$(
        #[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$name> {
            let bytes = self.take(size_of::<$name>(), field)?;
            Ok($name::from_be_bytes(bytes.try_into().expect("as many bytes as asked for")))
        }
    )*};
}

impl Reader {
    pub fn new(bytes: Bytes) -> Self {
        Self::with_memory(bytes, usize::MAX)
    }

    /// As `new`, but the decoded arrays may take no more than `memory` bytes if that is less than [`EXPANSION`] times the length.
    pub fn with_memory(bytes: Bytes, memory: usize) -> Self {
        let memory_left = bytes.len().saturating_mul(EXPANSION).min(memory);
        Reader { at: 0, end: bytes.len(), bytes, memory_left }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// What has not been read, by reference.
    pub fn rest(&self) -> Bytes {
        self.bytes.slice(self.at..self.end)
    }

    /// Ends a decode: bytes left over are an error, since whoever wrote them meant something that was not understood.
    pub fn finish(&self, message: &'static str) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(message, DecodeFault::TrailingBytes(left))),
        }
    }

    #[cold]
    pub(crate) fn fault(&self, field: &'static str, fault: DecodeFault) -> DecodeError {
        DecodeError { field, offset: self.at, fault }
    }

    #[inline]
    pub(crate) fn check_version(
        &self,
        message: &'static str,
        version: i16,
        known: RangeInclusive<i16>,
    ) -> Result<()> {
        if known.contains(&version) {
            Ok(())
        } else {
            Err(self.fault(message, DecodeFault::UnknownVersion { version, known }))
        }
    }

    #[inline]
    fn need(&self, needed: usize, field: &'static str) -> Result<()> {
        let remaining = self.remaining();
        if needed <= remaining {
            Ok(())
        } else {
            Err(self.fault(field, DecodeFault::Truncated { needed, remaining }))
        }
    }

    #[inline]
    fn take(&mut self, count: usize, field: &'static str) -> Result<&[u8]> {
        self.need(count, field)?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    integers!(i8 u8 i16 u16 i32 u32 i64 f64);

    #[inline]
    pub fn bool(&mut self, field: &'static str) -> Result<bool> {
        Ok(self.u8(field)? != 0)
    }

    pub fn uuid(&mut self, field: &'static str) -> Result<Uuid> {
        Ok(Uuid(self.take(16, field)?.try_into().expect("as many bytes as asked for")))
    }

    /// Unsigned, 7 bits per byte, low bits first, at most 5 bytes.
    pub fn uvarint(&mut self, field: &'static str) -> Result<u32> {
        let start = self.at;
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.u8(field)?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.at = start;
        Err(self.fault(field, DecodeFault::VarintTooLong))
    }

    /// The length that stands before a string: none for null.
    #[inline]
    fn string_len(&mut self, field: &'static str, flexible: bool) -> Result<Option<usize>> {
        if flexible {
            return self.compact_len(field);
        }
        match self.i16(field)? {
            -1 => Ok(None),
            len if len < 0 => Err(self.fault(field, DecodeFault::BadLength(len.into()))),
            len => Ok(Some(len as usize)),
        }
    }

    /// The length that stands before bytes and arrays: none for null.
    #[inline]
    fn len(&mut self, field: &'static str, flexible: bool) -> Result<Option<usize>> {
        if flexible {
            return self.compact_len(field);
        }
        match self.i32(field)? {
            -1 => Ok(None),
            len if len < 0 => Err(self.fault(field, DecodeFault::BadLength(len.into()))),
            len => Ok(Some(len as usize)),
        }
    }

    #[inline]
    fn compact_len(&mut self, field: &'static str) -> Result<Option<usize>> {
        Ok((self.uvarint(field)? as usize).checked_sub(1))
    }

    pub fn string_opt(&mut self, field: &'static str, flexible: bool) -> Result<Option<Str>> {
        let Some(len) = self.string_len(field, flexible)? else { return Ok(None) };
        if len > i16::MAX as usize {
            return Err(self.fault(field, DecodeFault::StringTooLong(len)));
        }
        self.need(len, field)?;
        match Str::from_utf8(self.bytes.slice(self.at..self.at + len)) {
            Ok(text) => {
                self.at += len;
                Ok(Some(text))
            }
            Err(_) => Err(self.fault(field, DecodeFault::NotUtf8)),
        }
    }

    pub fn string(&mut self, field: &'static str, flexible: bool) -> Result<Str> {
        self.string_opt(field, flexible)?.ok_or_else(|| self.fault(field, DecodeFault::Null))
    }

    /// By reference to the message's bytes.
    pub fn bytes_opt(&mut self, field: &'static str, flexible: bool) -> Result<Option<Bytes>> {
        let Some(len) = self.len(field, flexible)? else { return Ok(None) };
        self.need(len, field)?;
        let taken = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(Some(taken))
    }

    pub fn bytes(&mut self, field: &'static str, flexible: bool) -> Result<Bytes> {
        self.bytes_opt(field, flexible)?.ok_or_else(|| self.fault(field, DecodeFault::Null))
    }

    /// The byte before a struct that may be null.
    pub fn present(&mut self, field: &'static str) -> Result<bool> {
        Ok(self.i8(field)? >= 0)
    }

    /// An array whose elements take at least `smallest` bytes each (at least 1).
    pub fn array_opt<T>(
        &mut self,
        field: &'static str,
        flexible: bool,
        smallest: usize,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.len(field, flexible)? else { return Ok(None) };
        let remaining = self.remaining();
        if count > remaining / smallest {
            return Err(self.fault(field, DecodeFault::ArrayTooLong { count, smallest, remaining }));
        }
        let needed = count.saturating_mul(size_of::<T>());
        if needed > self.memory_left {
            return Err(self.fault(field, DecodeFault::TooMuchMemory { needed, left: self.memory_left }));
        }
        self.memory_left -= needed;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    pub fn array<T>(
        &mut self,
        field: &'static str,
        flexible: bool,
        smallest: usize,
        element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.array_opt(field, flexible, smallest, element)?
            .ok_or_else(|| self.fault(field, DecodeFault::Null))
    }

    /// The tagged fields that end a flexible struct (KIP-482). `known` decodes the tags it knows from exactly their own bytes
    /// and says whether it did; the others are skipped.
    pub fn tags(
        &mut self,
        name: &'static str,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool>,
    ) -> Result<()> {
        let count = self.uvarint(name)?;
        let mut previous = None;
        // No bound on `count` is needed: each turn reads at least two bytes or fails.
        for _ in 0..count {
            let tag = self.uvarint(name)?;
            if let Some(previous) = previous.filter(|previous| tag <= *previous) {
                return Err(self.fault(name, DecodeFault::TagOrder { tag, previous }));
            }
            previous = Some(tag);
            let size = self.uvarint(name)? as usize;
            self.need(size, name)?;
            let (start, outer_end) = (self.at, self.end);
            self.end = start + size;
            let used = known(self, tag).map(|known| if known { self.at - start } else { size })?;
            if used != size {
                return Err(self.fault(name, DecodeFault::TagSize { tag, size, used }));
            }
            self.at = self.end;
            self.end = outer_end;
        }
        Ok(())
    }

    pub fn skip_tags(&mut self, name: &'static str) -> Result<()> {
        self.tags(name, |_, _| Ok(false))
    }
}
