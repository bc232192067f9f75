//! `Writer`: values into bytes, with large byte fields taken over by reference.

use crate::{EncodeError, Uuid};
use bytes::{BufMut, Bytes};
use std::ops::RangeInclusive;

/// Byte fields from this size on are taken by reference: below it a copy costs less than one more part in the vectored write.
const REFERENCE_MIN: usize = 1024;

/// Collects a message. What it wrote itself lies in one buffer; byte fields of 1 KiB or more stay where they are and become parts of
/// their own in [`Writer::into_parts`].
#[derive(Debug, Default)]
pub struct Writer {
    /// Small appends to a `Vec` cost a fraction of those to a `BytesMut`.
    own: Vec<u8>,
    /// Parts taken by reference, each with the length of `own` at which it belongs, in order.
    references: Vec<(usize, Bytes)>,
    references_len: usize,
}

type Result<T> = std::result::Result<T, EncodeError>;

macro_rules! integers {
    ($($name:ident $put:ident)*) => {$(
        #[inline]
        pub fn $name(&mut self, value: $name) {
            self.own.$put(value);
        }
    )*};
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Writer { own: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Bytes written so far, those by reference included.
    pub fn len(&self) -> usize {
        self.own.len() + self.references_len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message as parts for a vectored write. None of them is empty.
    pub fn into_parts(self) -> Vec<Bytes> {
        let mut own = Bytes::from(self.own);
        let mut parts = Vec::with_capacity(2 * self.references.len() + 1);
        let mut cut = 0;
        for (at, reference) in self.references {
            if at > cut {
                parts.push(own.split_to(at - cut));
                cut = at;
            }
            parts.push(reference);
        }
        if !own.is_empty() {
            parts.push(own);
        }
        parts
    }

    /// The message in one piece: copies if something was taken by reference.
    pub fn into_bytes(self) -> Bytes {
        if self.references.is_empty() {
            return self.own.into();
        }
        self.into_parts().concat().into()
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
            Err(EncodeError::UnknownVersion { message, version, known })
        }
    }

    #[inline]
    pub(crate) fn required<'a, T>(
        &self,
        field: &'static str,
        version: i16,
        value: &'a Option<T>,
    ) -> Result<&'a T> {
        value.as_ref().ok_or(EncodeError::Null { field, version })
    }

    integers!(i8 put_i8 u8 put_u8 i16 put_i16 u16 put_u16 i32 put_i32 u32 put_u32 i64 put_i64 f64 put_f64);

    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.own.put_u8(value.into());
    }

    pub fn uuid(&mut self, value: &Uuid) {
        self.own.put_slice(&value.0);
    }

    /// Bytes as they are, copied.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.own.put_slice(bytes);
    }

    /// Bytes as they are, by reference if that is worth it.
    pub fn raw_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < REFERENCE_MIN {
            self.own.put_slice(bytes);
        } else {
            self.references.push((self.own.len(), bytes.clone()));
            self.references_len += bytes.len();
        }
    }

    /// Overwrites four bytes at `at`, which must be among those written before anything was taken by reference.
    pub(crate) fn patch_i32(&mut self, at: usize, value: i32) {
        debug_assert!(self.references.first().is_none_or(|(cut, _)| at + 4 <= *cut));
        self.own[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Unsigned, 7 bits per byte, low bits first.
    #[inline]
    pub fn uvarint(&mut self, value: u32) {
        let (bytes, len) = uvarint_bytes(value);
        self.own.put_slice(&bytes[..len]);
    }

    #[inline]
    pub fn string(&mut self, field: &'static str, flexible: bool, value: &str) -> Result<()> {
        let len = value.len();
        let limit = i16::MAX as usize;
        if len > limit {
            return Err(EncodeError::TooLong { field, len, limit });
        }
        if flexible {
            self.uvarint(len as u32 + 1);
        } else {
            self.own.put_i16(len as i16);
        }
        self.own.put_slice(value.as_bytes());
        Ok(())
    }

    pub fn string_opt(&mut self, field: &'static str, flexible: bool, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => self.string(field, flexible, value)?,
            None => self.null_string(flexible),
        }
        Ok(())
    }

    pub fn null_string(&mut self, flexible: bool) {
        if flexible { self.own.put_u8(0) } else { self.own.put_i16(-1) }
    }

    /// Null for bytes and arrays.
    pub fn null_bytes(&mut self, flexible: bool) {
        if flexible { self.own.put_u8(0) } else { self.own.put_i32(-1) }
    }

    pub fn bytes(&mut self, field: &'static str, flexible: bool, value: &Bytes) -> Result<()> {
        self.array_len(field, flexible, value.len())?;
        self.raw_bytes(value);
        Ok(())
    }

    /// The length that stands before bytes and arrays.
    #[inline]
    pub fn array_len(&mut self, field: &'static str, flexible: bool, len: usize) -> Result<()> {
        // The compact form holds one more than the length.
        let limit = i32::MAX as usize - 1;
        if len > limit {
            return Err(EncodeError::TooLong { field, len, limit });
        }
        if flexible {
            self.uvarint(len as u32 + 1)
        } else {
            self.own.put_i32(len as i32)
        }
        Ok(())
    }

    /// One tagged field: tag, size and what `value` writes, which must not take anything by reference.
    pub(crate) fn tagged(&mut self, tag: u32, value: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.uvarint(tag);
        let start = self.own.len();
        let references = self.references.len();
        value(self)?;
        debug_assert_eq!(references, self.references.len());
        // The size is known only now, and goes before: tagged fields are small and rare.
        let end = self.own.len();
        let (size, size_len) = uvarint_bytes((end - start) as u32);
        self.own.put_slice(&size[..size_len]);
        self.own[start..].rotate_right(size_len);
        Ok(())
    }
}

fn uvarint_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    loop {
        bytes[len] = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            return (bytes, len + 1);
        }
        bytes[len] |= 0x80;
        len += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bytes_become_parts_in_order() {
        let large = Bytes::from(vec![1; REFERENCE_MIN]);
        let small = Bytes::from(vec![2; REFERENCE_MIN - 1]);
        let mut w = Writer::new();
        w.raw_bytes(&large);
        w.raw_bytes(&large);
        w.i32(7);
        w.raw_bytes(&small);
        w.raw_bytes(&large);
        assert_eq!(w.len(), 3 * large.len() + small.len() + 4);
        let parts = w.into_parts();
        let lens: Vec<usize> = parts.iter().map(Bytes::len).collect();
        assert_eq!(lens, [1024, 1024, 4 + 1023, 1024]);
        assert_eq!(parts[0].as_ptr(), large.as_ptr());
        assert_eq!(parts[2][..5], [0, 0, 0, 7, 2]);
    }

    #[test]
    fn tags_of_any_size() {
        for len in [0, 1, 127, 128, 20_000] {
            let mut w = Writer::new();
            w.i8(1);
            w.tagged(300, |w| {
                w.raw(&vec![9; len]);
                Ok(())
            })
            .unwrap();
            let mut r = crate::Reader::new(w.into_bytes());
            assert_eq!(r.i8("x"), Ok(1));
            assert_eq!(r.uvarint("x"), Ok(300));
            assert_eq!(r.uvarint("x"), Ok(len as u32));
            assert_eq!(r.rest(), vec![9; len]);
        }
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let mut w = Writer::new();
        let error = w.string("Topic.name", false, &"x".repeat(32768)).unwrap_err();
        assert_eq!(error.to_string(), "cannot encode Topic.name: 32768 exceeds the limit of 32767");
        assert!(w.string("Topic.name", true, &"x".repeat(32767)).is_ok());
    }
}
