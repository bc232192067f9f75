//! Goes through the batches of a segment file from some position on, in large aligned reads.

use super::BatchStart;
use crate::batch;
use crate::error::StorageError;
use crate::format::{PAGE, page_ceil, page_floor};
use bytes::Bytes;
use corelog_io::File;
use corelog_wire::records::BatchHeader;
use std::path::PathBuf;

/// Most bytes that are read, and held, at once.
pub const READ_MAX: u64 = 1 << 20;

/// Reads batch after batch. Everything between two batches is checked: sizes, offsets without gaps.
pub struct Scanner {
    file: File,
    path: PathBuf,
    /// Where the batches end.
    end: u64,
    position: u64,
    /// The offset the next batch must begin at: a batch's checksum does not cover its base offset.
    expected_offset: i64,
    /// Batches of the segment before it.
    number: u32,
    /// Bytes to read at once when nothing is at hand.
    ahead: u64,
    /// The last read: where it begins, and its bytes up to `end`.
    chunk_at: u64,
    chunk: Bytes,
}

/// One batch.
pub struct Found {
    pub header: BatchHeader,
    pub position: u64,
    pub body: Body,
}

/// Where a batch's bytes are.
pub enum Body {
    /// In one read.
    Whole(Bytes),
    /// Larger than one read: in order, without gaps.
    Parts(Vec<Bytes>),
}

impl Body {
    pub fn parts(&self) -> &[Bytes] {
        match self {
            Body::Whole(bytes) => std::slice::from_ref(bytes),
            Body::Parts(parts) => parts,
        }
    }
}

impl Scanner {
    /// From the batch that begins at `start`; `ahead` bytes are about to be used.
    pub fn new(file: File, path: PathBuf, start: BatchStart, end: u64, ahead: u64) -> Scanner {
        let ahead = page_ceil(ahead).clamp(PAGE as u64, READ_MAX);
        let BatchStart { position, offset: expected_offset, number } = start;
        Scanner {
            file,
            path,
            end,
            position,
            expected_offset,
            number,
            ahead,
            chunk_at: 0,
            chunk: Bytes::new(),
        }
    }

    /// Where the next batch begins.
    pub fn at(&self) -> BatchStart {
        BatchStart { position: self.position, offset: self.expected_offset, number: self.number }
    }

    pub fn corrupt(&self, position: u64, what: impl Into<String>) -> StorageError {
        StorageError::corrupt(&self.path, position, what)
    }

    /// The header of the next batch and its position, without moving on; `None` at the end.
    pub async fn peek(&mut self) -> Result<Option<BatchHeader>, StorageError> {
        if self.position == self.end {
            return Ok(None);
        }
        let want = (batch::HEADER as u64).min(self.end - self.position);
        let bytes = self.at_least(self.position, want).await?;
        let header = BatchHeader::parse(&bytes)
            .map_err(|e| self.corrupt(self.position, format!("no record batch begins here: {e}")))?;
        if header.size() as u64 > self.end - self.position {
            let what = format!("a batch of {} bytes runs past the end at {}", header.size(), self.end);
            return Err(self.corrupt(self.position, what));
        }
        if header.base_offset != self.expected_offset {
            let what =
                format!("a batch begins at offset {}, expected {}", header.base_offset, self.expected_offset);
            return Err(self.corrupt(self.position, what));
        }
        if !batch::takes_its_offsets(&header) {
            let what = format!("the batch at offset {} ends before it", header.base_offset);
            return Err(self.corrupt(self.position, what));
        }
        Ok(Some(header))
    }

    /// Moves past the batch that [`Scanner::peek`] gave.
    pub fn skip(&mut self, header: &BatchHeader) {
        self.position += header.size() as u64;
        self.expected_offset = header.next_offset();
        self.number += 1;
    }

    /// The bytes of the batch that [`Scanner::peek`] gave, its checksum verified; moves past it.
    pub async fn take(&mut self, header: BatchHeader) -> Result<Found, StorageError> {
        let (position, size) = (self.position, header.size() as u64);
        let body = if size <= READ_MAX - PAGE as u64 {
            Body::Whole(self.at_least(position, size).await?.slice(..size as usize))
        } else {
            let mut parts = Vec::new();
            let mut at = position;
            while at < position + size {
                let want = (position + size - at).min(READ_MAX - PAGE as u64);
                let bytes = self.at_least(at, want).await?;
                let take = (bytes.len() as u64).min(position + size - at);
                parts.push(bytes.slice(..take as usize));
                at += take;
            }
            Body::Parts(parts)
        };
        if !batch::crc_matches(body.parts().iter().map(|p| &p[..])) {
            let what = format!("the checksum of the batch at offset {} does not match", header.base_offset);
            return Err(self.corrupt(position, what));
        }
        self.skip(&header);
        Ok(Found { header, position, body })
    }

    /// The next batch with its bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Found>, StorageError> {
        match self.peek().await? {
            None => Ok(None),
            Some(header) => self.take(header).await.map(Some),
        }
    }

    /// Everything at hand from `position` on, `need` bytes at the least; reads if that is not there.
    async fn at_least(&mut self, position: u64, need: u64) -> Result<Bytes, StorageError> {
        let have = self.chunk_at..self.chunk_at + self.chunk.len() as u64;
        if !(have.contains(&position) && position + need <= have.end) {
            let from = page_floor(position);
            let until = (position + need).max(from + self.ahead).min(self.end);
            let len = page_ceil(until - from);
            let read =
                self.file.read_at(from, len as usize).await.map_err(StorageError::io("read", &self.path))?;
            let usable = (self.end - from).min(read.len() as u64);
            self.chunk = read.slice(..usable as usize);
            self.chunk_at = from;
            if from + usable < position + need {
                let what = format!("the file ends at byte {}, {} were written", from + usable, self.end);
                return Err(self.corrupt(from + usable, what));
            }
        }
        Ok(self.chunk.slice((position - self.chunk_at) as usize..))
    }
}
