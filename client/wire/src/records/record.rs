//! Records of a v2 batch, read in place.
//!
//! ```text
//! length varint | attributes i8 | timestamp Δ varlong | offset Δ varint
//! | key length varint, key | value length varint, value | header count varint, { key, value } ...
//! ```

use super::error::{BatchError, RecordFault};
use super::varint;

/// Bytes of the smallest record: every field one byte, key and value null, no headers.
pub const RECORD_LEN_MIN: usize = 7;

/// One record, borrowed from the batch's uncompressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused by Kafka so far.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
    /// Key, value and headers as encoded: what stays the same when the record moves to another batch.
    pub(super) tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record's headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// Reads the record at `*at`, which moves behind it.
    #[inline(always)]
    pub(super) fn read(bytes: &'a [u8], at: &mut usize) -> Result<Record<'a>, RecordFault> {
        let length = varint::read_i32(bytes, at).ok_or(RecordFault::Length)?;
        let rest = &bytes[*at..];
        let Some(body) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else {
            return Err(RecordFault::Body { stated: length, present: rest.len() });
        };
        *at += body.len();

        let mut at = 0;
        let attributes = *body.first().ok_or(RecordFault::Prefix)? as i8;
        at += 1;
        let timestamp_delta = varint::read_i64(body, &mut at).ok_or(RecordFault::Prefix)?;
        let offset_delta = varint::read_i32(body, &mut at).ok_or(RecordFault::Prefix)?;
        let tail = &body[at..];
        let mut at = 0;
        let key = nullable(tail, &mut at).ok_or(RecordFault::Key)?;
        let value = nullable(tail, &mut at).ok_or(RecordFault::Value)?;
        let count = varint::read_i32(tail, &mut at).ok_or(RecordFault::HeaderCount)?;
        let headers = Headers { bytes: &tail[at..], left: count };
        if count != 0 {
            at += check_headers(headers)?;
        }
        if at != tail.len() {
            return Err(RecordFault::Excess(tail.len() - at));
        }
        Ok(Record { attributes, timestamp_delta, offset_delta, key, value, headers, tail })
    }
}

/// A record's header as read or to be written: a key, by convention UTF-8, and a value that may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The headers of one record. They were checked when the record was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: i32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left <= 0 {
            return None;
        }
        let mut at = 0;
        let header = read_header(self.bytes, &mut at)?;
        self.bytes = &self.bytes[at..];
        self.left -= 1;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left.max(0) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of a batch, strictly read: every record whole, exactly as many as stated, and nothing behind them.
///
/// The first error ends the iteration.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    bytes: &'a [u8],
    at: usize,
    index: i32,
    count: i32,
    done: bool,
}

impl<'a> RecordIter<'a> {
    /// Reads `count` records (the header's `records_count`) from the uncompressed `bytes`.
    pub fn new(bytes: &'a [u8], count: i32) -> RecordIter<'a> {
        RecordIter { bytes, at: 0, index: 0, count, done: false }
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let bytes = self.bytes.len() - self.at;
            if self.done || bytes == 0 {
                return None;
            }
            self.done = true;
            return Some(Err(BatchError::TrailingBytes { count: self.count, bytes }));
        }
        match Record::read(self.bytes, &mut self.at) {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(fault) => {
                let index = self.index;
                self.index = self.count;
                self.done = true;
                Some(Err(BatchError::Record { index, fault }))
            }
        }
    }
}

impl std::iter::FusedIterator for RecordIter<'_> {}

/// A length-prefixed value whose length -1 is null. `None` if it does not fit.
#[inline(always)]
fn nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let length = varint::read_i32(bytes, at)?;
    if length == -1 {
        return Some(None);
    }
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    let value = bytes.get(*at..end)?;
    *at = end;
    Some(Some(value))
}

fn read_header<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Header<'a>> {
    let key = nullable(bytes, at)??;
    let value = nullable(bytes, at)?;
    Some(Header { key, value })
}

/// Checks that all of `headers` are there; returns their length in bytes.
fn check_headers(headers: Headers<'_>) -> Result<usize, RecordFault> {
    // A header has at least its two lengths.
    if headers.left < 0 || headers.left as usize > headers.bytes.len() / 2 {
        return Err(RecordFault::HeaderCount);
    }
    let mut at = 0;
    for index in 0..headers.left {
        read_header(headers.bytes, &mut at).ok_or(RecordFault::Header(index))?;
    }
    Ok(at)
}
