//! Reads a journal file front to back in large pieces, and gives slices of them.

use crate::format::{PAGE, page_ceil};
use bytes::Bytes;
use corelog_io::{AlignedBuf, File, fs, sleep};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;
/// After how long what cannot be read is read again. A disk may not answer for a while.
const AGAIN: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(200), Duration::from_secs(2)];

pub struct Window {
    file: File,
    len: u64,
    start: u64,
    bytes: Bytes,
    /// Bits that were found flipped: position of the byte, and which of it.
    flipped: Vec<(u64, u8)>,
    /// Positions of pages that cannot be read.
    lost: BTreeSet<u64>,
}

impl Window {
    /// `len`: bytes of the file; what follows the last whole page is not looked at.
    pub fn new(file: File, len: u64) -> Window {
        let len = len - len % PAGE as u64;
        Window { file, len, start: 0, bytes: Bytes::new(), flipped: Vec::new(), lost: BTreeSet::new() }
    }

    /// Whether the page at `position` was found to be unreadable.
    pub fn is_lost(&self, position: u64) -> bool {
        self.lost.contains(&position)
    }

    /// How many pages were.
    pub fn pages_lost(&self) -> usize {
        self.lost.len()
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
            self.bytes = match self.read(position, want as usize).await {
                Err(error) if fs::is_unreadable(&error) => self.page_by_page(position, want).await?,
                read => read?,
            };
            self.start = position;
            self.set_right();
            if (self.bytes.len() as u64) < need {
                return Ok(None);
            }
        }
        let from = (position - self.start) as usize;
        Ok(Some(self.bytes.slice(from..from + need as usize)))
    }

    /// Has the medium take `len` bytes at `position`, page boundaries, as they are held to be.
    pub async fn write_again(&mut self, position: u64, len: u64) -> io::Result<()> {
        let Some(bytes) = self.at(position, len).await? else { return Ok(()) };
        let mut aligned = AlignedBuf::new(bytes.len());
        aligned.copy_from_slice(&bytes);
        self.file.write_at(position, aligned.freeze(), true).await
    }

    /// Takes the bits `mask` of the byte at `position` for flipped from now on.
    pub fn flip(&mut self, position: u64, mask: u8) {
        self.flipped.push((position, mask));
        self.bytes = Bytes::new();
    }

    /// Takes the last [`Window::flip`] back.
    pub fn unflip(&mut self) {
        self.flipped.pop();
        self.bytes = Bytes::new();
    }

    fn set_right(&mut self) {
        let held = self.start..self.start + self.bytes.len() as u64;
        if self.flipped.iter().all(|(position, _)| !held.contains(position)) {
            return;
        }
        let mut bytes = self.bytes.to_vec();
        for (position, mask) in self.flipped.iter().filter(|(position, _)| held.contains(position)) {
            bytes[(position - held.start) as usize] ^= mask;
        }
        self.bytes = bytes.into();
    }

    /// Tries again for a while, if all could be read so far.
    async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let mut again = AGAIN.iter().filter(|_| self.lost.is_empty());
        loop {
            match (self.file.read_at(position, len).await, again.next()) {
                (Err(error), Some(delay)) if fs::is_unreadable(&error) => sleep(*delay).await,
                (read, _) => return read,
            }
        }
    }

    /// Some page cannot be read, as a write that the power cut short may leave it: it holds nothing, like one that was
    /// never written. Whether anything was lost by that, the walk finds out.
    async fn page_by_page(&mut self, position: u64, want: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; want as usize];
        for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
            let at = position + (number * PAGE) as u64;
            match self.file.read_at(at, PAGE).await {
                Ok(read) => page[..read.len()].copy_from_slice(&read),
                Err(error) if fs::is_unreadable(&error) => drop(self.lost.insert(at)),
                Err(error) => return Err(error),
            }
        }
        Ok(bytes.into())
    }
}
