//! Reads a journal file front to back in large pieces, and gives slices of them.

use crate::format::{PAGE, page_ceil};
use bytes::Bytes;
use corelog_io::File;
use std::io;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

pub struct Window {
    file: File,
    len: u64,
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// `len`: bytes of the file; what follows the last whole page is not looked at.
    pub fn new(file: File, len: u64) -> Window {
        Window { file, len: len - len % PAGE as u64, start: 0, bytes: Bytes::new() }
    }

    /// Where the file ends, in bytes.
    pub fn end(&self) -> u64 {
        self.len
    }

    /// The `need` bytes at `position`, a page boundary; `None` if they run past the end of the file.
    pub async fn at(&mut self, position: u64, need: u64) -> io::Result<Option<Bytes>> {
        if position.checked_add(need).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if !(held.contains(&position) && position + need <= held.end) {
            let want = page_ceil(need).max(PIECE).min(self.len - position);
            self.bytes = self.file.read_at(position, want as usize).await?;
            self.start = position;
            if (self.bytes.len() as u64) < need {
                return Ok(None);
            }
        }
        let from = (position - self.start) as usize;
        Ok(Some(self.bytes.slice(from..from + need as usize)))
    }
}
