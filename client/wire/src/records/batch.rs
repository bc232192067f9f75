//! Whole batches, viewed where they lie.

use bytes::Bytes;

use super::compression::{CompressionError, Scratch};
use super::error::BatchError;
use super::header::{ATTRIBUTES_AT, BATCH_HEADER_LEN, BatchHeader, CODEC_MASK};
use super::record::RecordIter;

/// One v2 batch: its parsed header and a reference to its bytes. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    header: BatchHeader,
    bytes: Bytes,
}

impl BatchView {
    /// The batch at the front of `bytes`, which may hold more. The checksum is not looked at; see
    /// [`BatchView::verify_checksum`].
    pub fn parse(bytes: &Bytes) -> Result<BatchView, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.size() > bytes.len() {
            return Err(BatchError::Incomplete { needed: header.size(), present: bytes.len() });
        }
        Ok(BatchView { header, bytes: bytes.slice(..header.size()) })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// What follows the header: records, or their compressed form.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[BATCH_HEADER_LEN..]
    }

    /// Compares the stored CRC-32C with the bytes'.
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        verify_checksum(&self.header, &self.bytes)
    }

    /// The records, decompressed into `scratch` if they are compressed, to at most `limit` bytes.
    ///
    /// An internal batch has none.
    pub fn records<'a>(
        &'a self,
        scratch: &'a mut Scratch,
        limit: usize,
    ) -> Result<RecordIter<'a>, BatchError> {
        if self.header.is_internal() {
            return Ok(RecordIter::new(&[], 0));
        }
        let codec = self.header.compression().ok_or_else(|| unknown_codec(&self.header))?;
        let plain = scratch.decompress(codec, self.payload(), limit)?;
        Ok(RecordIter::new(plain, self.header.records_count))
    }
}

pub(super) fn unknown_codec(header: &BatchHeader) -> CompressionError {
    CompressionError::UnknownCodec((header.attributes & CODEC_MASK) as u8)
}

/// The CRC-32C of the batch `bytes`: of everything from the attributes on.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[ATTRIBUTES_AT..])
}

pub(super) fn verify_checksum(header: &BatchHeader, bytes: &[u8]) -> Result<(), BatchError> {
    let computed = checksum(bytes);
    if computed == header.crc { Ok(()) } else { Err(BatchError::Checksum { stored: header.crc, computed }) }
}

/// The batches in `bytes`, one after the other. The first error ends the iteration;
/// [`BatchError::Incomplete`] means that the last batch is cut off, as fetch responses may be.
pub fn split_batches(bytes: &Bytes) -> SplitBatches {
    SplitBatches { rest: bytes.clone() }
}

/// See [`split_batches`].
#[derive(Clone, Debug)]
pub struct SplitBatches {
    rest: Bytes,
}

impl SplitBatches {
    /// The bytes not yet iterated over; after an error, nothing.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for SplitBatches {
    type Item = Result<BatchView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::parse(&self.rest);
        match &batch {
            Ok(batch) => self.rest = self.rest.slice(batch.bytes.len()..),
            Err(_) => self.rest = Bytes::new(),
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for SplitBatches {}

#[cfg(test)]
mod tests {
    use super::super::builder::{BatchBuilder, BatchOptions, internal_batch};
    use super::*;

    fn batch(base_offset: i64, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..Default::default() });
        for _ in 0..records {
            builder.append(1, Some(b"k"), Some(b"v"), &[]).unwrap();
        }
        builder.build().unwrap()
    }

    #[test]
    fn batches_are_split_and_a_cut_one_is_told() {
        let parts = [batch(0, 2), internal_batch(2, 1, 9, b"term 1"), batch(2, 3)];
        let all: Bytes = parts.concat().into();
        let views: Vec<BatchView> = split_batches(&all).map(|batch| batch.unwrap()).collect();
        assert_eq!(views.iter().map(|view| view.bytes().clone()).collect::<Vec<_>>(), parts);
        assert!(views.iter().all(|view| view.verify_checksum().is_ok()));
        let counts: Vec<usize> =
            views.iter().map(|view| view.records(&mut Scratch::new(), 100).unwrap().count()).collect();
        assert_eq!(counts, [2, 0, 3]);
        assert_eq!(views[1].payload(), b"term 1");
        assert_eq!(views[1].header().next_offset(), views[2].header().base_offset);

        for len in 0..all.len() {
            let whole = parts
                .iter()
                .scan(0, |end, part| {
                    *end += part.len();
                    Some(*end)
                })
                .filter(|end| *end <= len);
            let (whole, ends): (usize, Vec<usize>) = (whole.clone().count(), whole.collect());
            let mut split = split_batches(&all.slice(..len));
            assert_eq!(split.by_ref().take(whole).filter(|batch| batch.is_ok()).count(), whole);
            if ends.last().copied().unwrap_or(0) == len {
                assert_eq!(split.next(), None);
            } else {
                assert!(
                    matches!(split.next(), Some(Err(BatchError::Incomplete { present, .. })) if present < 200)
                );
                assert_eq!(split.next(), None, "the first error ends it");
            }
        }
    }

    #[test]
    fn lengths_larger_than_the_bytes_are_incomplete() {
        let mut bytes = batch(0, 1).to_vec();
        bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        let present = bytes.len();
        let needed = i32::MAX as usize + 12;
        assert_eq!(BatchView::parse(&bytes.into()), Err(BatchError::Incomplete { needed, present }));
    }

    #[test]
    fn a_changed_byte_fails_the_checksum() {
        let bytes = batch(0, 1);
        for at in ATTRIBUTES_AT..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            let view = BatchView::parse(&changed.into()).unwrap();
            assert!(matches!(view.verify_checksum(), Err(BatchError::Checksum { .. })), "byte {at}");
        }
    }
}
