//! Appends batches to the active segment, in large aligned pieces, and seals it.
//!
//! The last partial page is written again by the next flush. A write that the power cuts short may leave nothing of it,
//! neither what is new nor what was synced before: a checkpoint holds the latter (`Active::last_page`) before the
//! journal lets go of it, and the former is in the journal.

use super::{Active, Sealed, SparseIndex};
use crate::error::StorageError;
use crate::format::index_page::{ENTRIES_PER_PAGE, Footer, IndexPage};
use crate::format::segment_file::{FIRST_BATCH, SegmentHeader};
use crate::format::{PAGE, page_ceil, page_floor};
use crate::ids::{LogId, RaftIndex};
use crate::paths;
use crate::shard::Shard;
use crate::tail::TailBatch;
use bytes::Bytes;
use corelog_io::sync::Permit;
use corelog_io::{AlignedBuf, Block, File, fs};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Bytes written at once.
pub const PIECE: u64 = 1 << 20;

pub struct SegmentWriter<'a> {
    shard: &'a Shard,
    dir: &'a Path,
    log: LogId,
    path: PathBuf,
    file: File,
    active: Active,
    /// Offset and index after the last batch.
    next_offset: i64,
    next_index: RaftIndex,
    /// What is not written yet. Filled when its turn to be written has come, so that no more is copied at once.
    buffer: Option<(Block, Permit)>,
    /// Goes before what is pushed next: the bytes of the last page, or a new segment's header.
    carry: Bytes,
    /// Where the buffer goes, or the carry.
    buffer_at: u64,
    /// Bytes of batches still to be pushed, as far as it was told: the next buffer is made for them.
    expected: u64,
    /// The file is new: its name is not durable yet.
    is_new: bool,
}

impl<'a> SegmentWriter<'a> {
    /// Goes on with the active segment; `expected` bytes of batches are about to be pushed. `next`: offset and index
    /// after its last batch.
    pub async fn resume(
        shard: &'a Shard,
        dir: &'a Path,
        log: LogId,
        active: Active,
        next: (i64, RaftIndex),
        expected: u64,
    ) -> Result<SegmentWriter<'a>, StorageError> {
        let path = dir.join(paths::segment_file(active.base_offset));
        let file = shard.files.open(&path, false).await?;
        // Entries of a flush that failed half-way point to nothing.
        active.index.borrow_mut().entries.retain(|e| u64::from(e.position) < active.position);
        let buffer_at = page_floor(active.position);
        let carry = active.last_page.clone();
        assert_eq!(carry.len() as u64, active.position - buffer_at, "the last page is at hand");
        let (next_offset, next_index) = next;
        Ok(SegmentWriter {
            shard,
            dir,
            log,
            path,
            file,
            active,
            next_offset,
            next_index,
            buffer: None,
            carry,
            buffer_at,
            expected,
            is_new: false,
        })
    }

    /// Begins a new segment with the batch at `base_offset` and `base_index`.
    pub async fn create(
        shard: &'a Shard,
        dir: &'a Path,
        log: LogId,
        base_offset: i64,
        base_index: RaftIndex,
        expected: u64,
    ) -> Result<SegmentWriter<'a>, StorageError> {
        shard.dirs.make(dir).await?;
        let path = dir.join(paths::segment_file(base_offset));
        let file = shard.files.open(&path, true).await?;
        let created_ms = corelog_io::wall_clock_ms();
        let mut header = vec![0; PAGE];
        SegmentHeader { log, base_offset, base_index, created_ms }.encode(&mut header);
        let active = Active {
            base_offset,
            base_index,
            created_ms,
            position: FIRST_BATCH,
            max_timestamp: -1,
            index: Rc::new(RefCell::new(SparseIndex::default())),
            index_pages: 0,
            last_page: Bytes::new(),
        };
        Ok(SegmentWriter {
            shard,
            dir,
            log,
            path,
            file,
            active,
            next_offset: base_offset,
            next_index: base_index,
            buffer: None,
            carry: header.into(),
            buffer_at: 0,
            expected,
            is_new: true,
        })
    }

    pub fn active(&self) -> &Active {
        &self.active
    }

    /// Appends a batch. It is in the file, synced, after the next [`SegmentWriter::sync`].
    pub async fn push(&mut self, batch: &TailBatch) -> Result<(), StorageError> {
        assert_eq!(batch.index, self.next_index, "batches go to the segment without gaps");
        assert_eq!(batch.base_offset, self.next_offset, "batches go to the segment without gaps");
        let a = &mut self.active;
        a.index.borrow_mut().note(
            (a.base_offset, a.base_index),
            batch.base_offset,
            batch.index,
            a.position,
            a.max_timestamp,
        );
        a.position += batch.bytes.len() as u64;
        a.max_timestamp = a.max_timestamp.max(batch.max_timestamp);
        self.next_offset = batch.next_offset;
        self.next_index = batch.index.next();
        let mut rest = &batch.bytes[..];
        while !rest.is_empty() {
            if self.buffer.as_ref().is_some_and(|(buffer, _)| buffer.remaining() == 0) {
                self.write_out().await?;
            }
            let (buffer, _) = match &mut self.buffer {
                Some(buffer) => buffer,
                None => {
                    let wanted = self.carry.len() as u64 + self.expected.max(rest.len() as u64);
                    let len = page_ceil(wanted.min(PIECE));
                    let turn = self.shard.segment_writes.wait(len).await;
                    let mut buffer = Block::with_capacity(len as usize);
                    buffer.append(&std::mem::take(&mut self.carry));
                    self.buffer.insert((buffer, turn))
                }
            };
            let n = rest.len().min(buffer.remaining());
            buffer.append(&rest[..n]);
            self.expected = self.expected.saturating_sub(n as u64);
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Writes what the buffer holds, its last page filled with zeros.
    async fn write_out(&mut self) -> Result<(), StorageError> {
        let Some((mut buffer, turn)) = self.buffer.take() else { return Ok(()) };
        // What is free on a disk that is used up is the journal's.
        self.shard.space.check_usable()?;
        let len = page_ceil(buffer.len() as u64);
        buffer.reserve(len as usize - buffer.len());
        let bytes = buffer.slice(0..len as usize);
        let written = self.file.write_at(self.buffer_at, bytes, false).await;
        drop(turn);
        self.shard.counters.note_segment_write();
        self.buffer_at += len;
        written.map_err(StorageError::io("write", &self.path))
    }

    /// Everything pushed is on stable storage when this returns.
    pub async fn sync(&mut self) -> Result<(), StorageError> {
        if let Some((buffer, _)) = &mut self.buffer {
            // The last page stays at hand: the next batch goes on in it.
            let end = buffer.len();
            self.carry = buffer.slice(end - end % PAGE..end);
            // The log keeps it for as long as it rests: not the whole buffer with it.
            self.active.last_page = Bytes::copy_from_slice(&self.carry);
            self.write_out().await?;
            self.buffer_at = page_floor(self.active.position);
        }
        let synced = self.shard.segment_syncs.sync(&self.file, self.is_new.then_some(self.dir)).await;
        synced.map_err(StorageError::io("sync", &self.path))?;
        self.is_new = false;
        let full = (self.active.index.borrow().entries.len() / ENTRIES_PER_PAGE) as u32;
        if full > self.active.index_pages {
            let file = self.shard.files.open(&self.index_path(), true).await?;
            self.write_index_pages(&file, full).await?;
        }
        Ok(())
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join(paths::index_file(self.active.base_offset))
    }

    /// Writes index pages that are not in the file yet, up to number `until`.
    async fn write_index_pages(&mut self, file: &File, until: u32) -> Result<(), StorageError> {
        while self.active.index_pages < until {
            let number = self.active.index_pages;
            let mut page = AlignedBuf::new(PAGE);
            {
                let index = self.active.index.borrow();
                let from = number as usize * ENTRIES_PER_PAGE;
                let to = index.entries.len().min(from + ENTRIES_PER_PAGE);
                let entries = IndexPage::Entries(index.entries[from..to].to_vec());
                entries.encode(self.active.base_offset, number, &mut page);
            }
            let at = u64::from(number) * PAGE as u64;
            let written = file.write_at(at, page.freeze(), false).await;
            written.map_err(StorageError::io("write", &self.index_path()))?;
            self.active.index_pages += 1;
        }
        Ok(())
    }

    /// Makes the segment one that is not written any more: synced, exactly as long as its batches, its index whole. On a
    /// disk without space it does without an index on disk: deletion may wait for it, and a restart builds it anew.
    pub async fn seal(mut self) -> Result<Sealed, StorageError> {
        self.sync().await?;
        let end = self.active.position;
        self.file.truncate(end).await.map_err(StorageError::io("truncate", &self.path))?;
        self.file.sync_data().await.map_err(StorageError::io("sync", &self.path))?;
        let footer = Footer {
            end,
            next_offset: self.next_offset,
            next_index: self.next_index,
            max_timestamp: self.active.max_timestamp,
            sealed_ms: corelog_io::wall_clock_ms(),
        };
        match self.end_index(footer).await {
            Err(error) if error.is_storage_full() => {
                tracing::warn!(log = %self.log, segment = self.active.base_offset, %error, "its index stays missing");
            }
            outcome => outcome?,
        }
        let index = Rc::new(self.active.index.borrow().clone());
        self.shard.indexes.insert(self.log, self.active.base_offset, index);
        self.shard.files.forget(&self.path);
        self.shard.files.forget(&self.index_path());
        Ok(Sealed {
            base_offset: self.active.base_offset,
            base_index: Cell::new(Some(self.active.base_index)),
            bytes: end,
            footer: Cell::new(Some(footer)),
        })
    }

    async fn end_index(&mut self, footer: Footer) -> Result<(), StorageError> {
        let path = self.index_path();
        let file = self.shard.files.open(&path, true).await?;
        let pages = self.active.index.borrow().entries.len().div_ceil(ENTRIES_PER_PAGE) as u32;
        self.write_index_pages(&file, pages).await?;
        write_footer(&file, &path, self.active.base_offset, pages, footer).await?;
        fs::sync_dir(self.dir).await.map_err(StorageError::io("sync", self.dir))
    }
}

/// Ends an index file: the footer, nothing behind it, synced.
async fn write_footer(
    file: &File,
    path: &Path,
    base_offset: i64,
    pages: u32,
    footer: Footer,
) -> Result<(), StorageError> {
    let mut page = AlignedBuf::new(PAGE);
    IndexPage::Footer(footer).encode(base_offset, pages, &mut page);
    let at = u64::from(pages) * PAGE as u64;
    file.write_at(at, page.freeze(), false).await.map_err(StorageError::io("write", path))?;
    file.truncate(at + PAGE as u64).await.map_err(StorageError::io("truncate", path))?;
    file.sync_data().await.map_err(StorageError::io("sync", path))
}

/// Writes a sealed segment's index file anew, after it was found missing or damaged.
pub async fn rewrite_index(
    shard: &Shard,
    dir: &Path,
    base_offset: i64,
    index: &SparseIndex,
    footer: Footer,
) -> Result<(), StorageError> {
    let path = dir.join(paths::index_file(base_offset));
    let file = shard.files.open(&path, true).await?;
    let mut pages = 0;
    for entries in index.entries.chunks(ENTRIES_PER_PAGE) {
        let mut page = AlignedBuf::new(PAGE);
        IndexPage::Entries(entries.to_vec()).encode(base_offset, pages, &mut page);
        let at = u64::from(pages) * PAGE as u64;
        file.write_at(at, page.freeze(), false).await.map_err(StorageError::io("write", &path))?;
        pages += 1;
    }
    write_footer(&file, &path, base_offset, pages, footer).await
}
