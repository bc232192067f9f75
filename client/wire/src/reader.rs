//! `Reader`: values out of bytes that nobody vouches for.

use crate::{DecodeError, DecodeFault, Str, Uuid};
use bytes::Bytes;
use std::mem::size_of;
use std::ops::RangeInclusive;

/// Memory that a decode may take for its arrays, in multiples of the bytes it was given.
///
/// Every array element takes some bytes on the wire (at least one; the schema knows how many), and a compile-time assertion per
/// element type holds its size in memory to `EXPANSION` times that. The fixed parts of all elements, nested ones included, are
/// disjoint bytes of the message: so the arrays of a true message never take more than `EXPANSION` times its length, and whatever claims
/// more, at once or in sum, is refused before memory is taken for it. Strings, byte fields and records share the message's own
/// bytes and take none, but for text that is not UTF-8: its bytes are no element's fixed part, and `EXPANSION` times their number is
/// enough for what they become.
///
/// The widest elements are those of ListGroups answers (128 bytes from 3); in requests, strings (32 from 1).
pub const EXPANSION: usize = 48;

/// What an array element counts as at the least where the caller bounds the memory: a number of a request takes four bytes, and
/// its place in the answer a hundred.
pub const ELEMENT_BYTES: usize = 128;

/// What a block of memory costs beside its bytes, allocator and reference count.
const BLOCK_OVERHEAD: usize = 40;
// One byte may become the three of U+FFFD.
const _: () = assert!(BLOCK_OVERHEAD + 3 <= EXPANSION);

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
    /// Of what the caller gave, with each array element at its least.
    given_left: usize,
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
    /// Each of their elements counts as [`ELEMENT_BYTES`] at the least.
    pub fn with_memory(bytes: Bytes, memory: usize) -> Self {
        let memory_left = bytes.len().saturating_mul(EXPANSION);
        Reader { at: 0, end: bytes.len(), bytes, memory_left, given_left: memory }
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
        let bytes = self.bytes.slice(self.at..self.at + len);
        let text = match Str::from_utf8(bytes.clone()) {
            Ok(text) => text,
            Err(_) => self.replaced(field, &bytes)?,
        };
        self.at += len;
        Ok(Some(text))
    }

    /// Text of bytes that are not UTF-8: what is none becomes U+FFFD, as in Java, so that the same bytes are the same text
    /// always. It has memory of its own, up to three times the bytes, which counts against the bound.
    #[cold]
    fn replaced(&mut self, field: &'static str, bytes: &[u8]) -> Result<Str> {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        // It must still fit where a string's length is an INT16.
        text.truncate(text.floor_char_boundary(i16::MAX as usize));
        let needed = text.len() + BLOCK_OVERHEAD;
        self.spend(field, needed, needed)?;
        Ok(text.into())
    }

    /// Takes `needed` bytes of what the length allows, and `counted` of what the caller gave.
    fn spend(&mut self, field: &'static str, needed: usize, counted: usize) -> Result<()> {
        for (needed, left) in [(needed, self.memory_left), (counted, self.given_left)] {
            if needed > left {
                return Err(self.fault(field, DecodeFault::TooMuchMemory { needed, left }));
            }
        }
        self.memory_left -= needed;
        self.given_left -= counted;
        Ok(())
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
        let counted = size_of::<T>().max(ELEMENT_BYTES);
        self.spend(field, count.saturating_mul(size_of::<T>()), count.saturating_mul(counted))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    fn fault<T: std::fmt::Debug>(result: Result<T>) -> DecodeFault {
        result.unwrap_err().fault
    }

    #[test]
    fn varints() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], u32::MAX),
            // Longer than need be, as some clients write sizes.
            (&[0x85, 0x80, 0x00], 5),
        ] {
            let mut r = reader(bytes);
            assert_eq!(r.uvarint("x"), Ok(value));
            assert_eq!(r.remaining(), 0);
        }
        assert_eq!(fault(reader(&[0xff, 0xff, 0xff, 0xff, 0x10]).uvarint("x")), DecodeFault::VarintTooLong);
        assert_eq!(fault(reader(&[0x80; 6]).uvarint("x")), DecodeFault::VarintTooLong);
        assert_eq!(fault(reader(&[0x80]).uvarint("x")), DecodeFault::Truncated { needed: 1, remaining: 0 });
    }

    #[test]
    fn strings_and_bytes() {
        assert_eq!(reader(b"\0\x02hi").string("x", false).unwrap(), "hi");
        assert_eq!(reader(b"\x03hi").string("x", true).unwrap(), "hi");
        assert_eq!(reader(b"\xff\xff").string_opt("x", false), Ok(None));
        assert_eq!(reader(b"\0").bytes_opt("x", true), Ok(None));
        assert_eq!(fault(reader(b"\xff\xff").string("x", false)), DecodeFault::Null);
        assert_eq!(fault(reader(b"\0").bytes("x", true)), DecodeFault::Null);
        assert_eq!(fault(reader(b"\xff\xfe").string("x", false)), DecodeFault::BadLength(-2));
        assert_eq!(fault(reader(b"\x80\0\0\0").bytes("x", false)), DecodeFault::BadLength(i32::MIN.into()));
        assert_eq!(fault(reader(&[0x81, 0x80, 0x02]).string("x", true)), DecodeFault::StringTooLong(32768));
        let needed = i32::MAX as usize;
        assert_eq!(
            fault(reader(b"\x7f\xff\xff\xff").bytes("x", false)),
            DecodeFault::Truncated { needed, remaining: 0 }
        );
    }

    /// What Java's `new String(bytes, UTF_8)` makes of them.
    #[test]
    fn what_is_not_utf8_is_replaced() {
        for (bytes, text) in [
            (&b"\xff"[..], "\u{fffd}"),
            (b"caf\xe9", "caf\u{fffd}"),
            (b"\xe2\x82", "\u{fffd}"),
            (b"\xc0\x80", "\u{fffd}\u{fffd}"),
            (b"a\0b\xf0\x9f\x98\x80\xff", "a\0b\u{1f600}\u{fffd}"),
        ] {
            let mut wire = (bytes.len() as i16).to_be_bytes().to_vec();
            wire.extend_from_slice(bytes);
            wire.push(9);
            let mut r = reader(&wire);
            assert_eq!(r.string("x", false).unwrap(), text);
            assert_eq!(r.u8("after"), Ok(9), "the field was as long as it said");
        }
        // However long, it fits into a string of an answer.
        let mut wire = i16::MAX.to_be_bytes().to_vec();
        wire.extend(std::iter::repeat_n(0xff, i16::MAX as usize));
        let text = reader(&wire).string("x", false).unwrap();
        assert!(text.len() <= i16::MAX as usize && text.chars().all(|c| c == '\u{fffd}'));
    }

    #[test]
    fn replaced_text_is_bounded_by_memory() {
        let wire = Bytes::from_static(b"\0\x01\xff");
        let text = |memory| Reader::with_memory(wire.clone(), memory).string("x", false);
        assert!(text(BLOCK_OVERHEAD + 3).is_ok());
        let needed = BLOCK_OVERHEAD + 3;
        assert_eq!(fault(text(needed - 1)), DecodeFault::TooMuchMemory { needed, left: needed - 1 });
        // Text that is as it should be shares the frame's memory.
        assert_eq!(Reader::with_memory(Bytes::from_static(b"\0\x01x"), 0).string("x", false).unwrap(), "x");
    }

    #[test]
    fn arrays_are_bounded_by_the_bytes_and_by_memory() {
        let numbers = |r: &mut Reader| r.array("x", false, 4, |r| r.i32("x"));
        assert_eq!(numbers(&mut reader(b"\0\0\0\x02\0\0\0\x01\0\0\0\x02")), Ok(vec![1, 2]));
        let error = fault(numbers(&mut reader(b"\0\0\0\x02\0\0\0\x01\0\0\0")));
        assert_eq!(error, DecodeFault::ArrayTooLong { count: 2, smallest: 4, remaining: 7 });
        assert_eq!(fault(numbers(&mut reader(b"\xff\xff\xff\xfe"))), DecodeFault::BadLength(-2));

        let given =
            |memory| Reader::with_memory(Bytes::from_static(b"\0\0\0\x02\0\0\0\x01\0\0\0\x02"), memory);
        let needed = 2 * ELEMENT_BYTES;
        assert_eq!(numbers(&mut given(needed)), Ok(vec![1, 2]));
        let too_little = fault(numbers(&mut given(needed - 1)));
        assert_eq!(too_little, DecodeFault::TooMuchMemory { needed, left: needed - 1 });
    }

    #[test]
    fn tags() {
        let read = |bytes: &[u8]| {
            let mut r = reader(bytes);
            let mut seen = Vec::new();
            r.tags("x", |r, tag| {
                if tag == 1 {
                    seen.push(r.i16("x")?);
                }
                Ok(tag == 1)
            })?;
            r.finish("x")?;
            Ok(seen)
        };
        assert_eq!(read(&[0]), Ok(vec![]));
        assert_eq!(read(&[1, 1, 2, 0, 9]), Ok(vec![9]));
        // An unknown tag is skipped by its size.
        assert_eq!(read(&[3, 0, 1, 0xff, 1, 2, 0, 9, 5, 0]), Ok(vec![9]));
        assert_eq!(fault(read(&[2, 1, 2, 0, 9, 1, 2, 0, 9])), DecodeFault::TagOrder { tag: 1, previous: 1 });
        assert_eq!(fault(read(&[2, 3, 0, 1, 2, 0, 9])), DecodeFault::TagOrder { tag: 1, previous: 3 });
        assert_eq!(fault(read(&[1, 1, 3, 0, 9, 9])), DecodeFault::TagSize { tag: 1, size: 3, used: 2 });
        // A known field cannot read beyond its own size.
        assert_eq!(fault(read(&[1, 1, 1, 0, 9])), DecodeFault::Truncated { needed: 2, remaining: 1 });
        assert_eq!(fault(read(&[1, 7, 9, 0])), DecodeFault::Truncated { needed: 9, remaining: 1 });
        // Four billion tags in six bytes end with the bytes.
        assert_eq!(
            fault(read(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0])),
            DecodeFault::Truncated { needed: 1, remaining: 0 }
        );
        assert_eq!(fault(read(&[0, 7])), DecodeFault::TrailingBytes(1));
    }

    #[test]
    fn errors_say_field_place_and_fault() {
        let mut r = reader(&[0, 0, 0, 1]);
        r.i16("a").unwrap();
        let error = r.i32("Topic.partition").unwrap_err();
        assert_eq!(error.to_string(), "cannot decode Topic.partition at byte 2: needs 4 bytes, 2 are left");
    }
}
