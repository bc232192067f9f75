//! Whole segments, given and taken in: so a follower is caught up that lacks entries which are not given by index any more.
//!
//! The sender lists its sealed segments and reads their files by range. The receiver writes what comes to a file of another
//! name, and goes on there after a crash. A file that is whole is verified batch by batch and becomes the log's next segment
//! with one checkpoint: a crash before leaves a file that nobody looks at, a crash after one that is renamed when the
//! directory is looked at next.

use super::{End, Log, LogStart, State, lookup};
use crate::batch;
use crate::config::SEGMENT_BYTES_MAX;
use crate::error::{AppendError, StorageError, TransferError};
use crate::format::index_page::Footer;
use crate::format::segment_file::FIRST_BATCH;
use crate::format::{PAGE, page_ceil, page_floor};
use crate::ids::RaftIndex;
use crate::producers::{Claim, Producers};
use crate::segment::{BatchStart, PIECE, Scanner, SegmentSpan, SparseIndex, check_header, rewrite_index};
use crate::shard::ShardStorage;
use crate::terms::{NO_TERM, TermStart};
use crate::{checkpoint, log::BatchKind, log::produced, paths};
use bytes::Bytes;
use corelog_io::{AlignedBuf, File, fs, wall_clock_ms};
use std::path::PathBuf;

/// A segment that is not written any more, as a receiver needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base_offset: i64,
    /// Of its first entry.
    pub base_index: RaftIndex,
    /// Of the entry before that, [`NO_TERM`] if there was none.
    pub term_before: i32,
    /// After its last record, and its last entry.
    pub next_offset: i64,
    pub next_index: RaftIndex,
    /// Of its last entry.
    pub last_term: i32,
    /// Bytes of its file.
    pub bytes: u64,
}

/// What a receiver can be given whole. What follows it comes as entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentList {
    /// Where the oldest segment begins: who ends before that begins anew there.
    pub start: LogStart,
    /// The sealed ones, oldest first, all of whose entries are committed.
    pub segments: Vec<SegmentInfo>,
}

/// What a segment was found to hold.
struct Verified {
    end: End,
    terms: Vec<TermStart>,
    producers: Producers,
    index: SparseIndex,
    footer: Footer,
}

impl Log {
    /// Seals the segment that is written to: what is in it can be given whole, then. What is in none yet goes into it first.
    pub async fn seal(&self) -> Result<(), StorageError> {
        let _turn = self.upkeep.acquire(1).await;
        self.flush_in_turn().await?;
        self.load_in_turn().await?;
        self.roll_in_turn().await?;
        Ok(())
    }

    /// The segments that can be given whole.
    pub async fn segments(&self) -> Result<SegmentList, StorageError> {
        self.ensure_loaded().await?;
        let (spans, active, flushed, committed) = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().ok_or(StorageError::LogDeleted(self.id))?;
            let spans: Vec<SegmentSpan> = segments.sealed.iter().map(SegmentSpan::from).collect();
            let active = segments.active.as_ref().map(|active| (active.base_offset, active.base_index));
            (spans, active, (state.flushed.offset, state.flushed.index), state.committed.index)
        };
        let mut bases = Vec::with_capacity(spans.len() + 1);
        for span in &spans {
            bases.push((span.base_offset, self.base_index(*span).await?));
        }
        bases.push(active.unwrap_or(flushed));
        let state = self.state.borrow();
        let term_before = |(offset, index): (i64, RaftIndex)| {
            // Of what an earlier build wrote terms are known by offset.
            let by_offset = || state.terms.epoch_at(offset - 1);
            state.term_before(index).or_else(by_offset).unwrap_or(NO_TERM)
        };
        let info = |(span, ends): (&SegmentSpan, &[(i64, RaftIndex)])| SegmentInfo {
            base_offset: ends[0].0,
            base_index: ends[0].1,
            term_before: term_before(ends[0]),
            next_offset: ends[1].0,
            next_index: ends[1].1,
            last_term: term_before(ends[1]),
            bytes: span.end,
        };
        let segments = spans.iter().zip(bases.windows(2)).map(info);
        let segments = segments.take_while(|segment| segment.next_index <= committed).collect();
        let (offset, index) = bases[0];
        Ok(SegmentList { start: LogStart { index, term: term_before(bases[0]), offset }, segments })
    }

    /// What the file of the sealed segment at `base_offset` holds from byte `position` on, `len_max` bytes at the most (and
    /// 1 MiB); nothing at its end. `None`: it is gone.
    pub async fn segment_bytes(
        &self,
        base_offset: i64,
        position: u64,
        len_max: usize,
    ) -> Result<Option<Bytes>, StorageError> {
        self.ensure_loaded().await?;
        let Some(end) = self.sealed_end(base_offset) else { return Ok(None) };
        if position >= end {
            return Ok(Some(Bytes::new()));
        }
        let path = self.dir.join(paths::segment_file(base_offset));
        let read = async {
            let file = self.shard.files.open(&path, false).await?;
            let until = end.min(position + (len_max as u64).min(PIECE));
            let from = page_floor(position);
            let read = file.read_at(from, page_ceil(until - from) as usize).await;
            let bytes = read.map_err(StorageError::io("read", &path))?;
            if (bytes.len() as u64) < until - from {
                let what = format!("the file ends there, {end} bytes were written");
                return Err(StorageError::corrupt(&path, from + bytes.len() as u64, what));
            }
            Ok(bytes.slice((position - from) as usize..(until - from) as usize))
        };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) if self.sealed_end(base_offset).is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sealed_end(&self, base_offset: i64) -> Option<u64> {
        let state = self.state.borrow();
        let sealed = &state.segments.as_ref()?.sealed;
        sealed.iter().find(|segment| segment.base_offset == base_offset).map(|segment| segment.bytes)
    }

    /// Up to where the file of `segment` has come: where the next piece is to begin.
    pub async fn received(&self, segment: &SegmentInfo) -> Result<u64, StorageError> {
        let path = self.incoming_path(segment.base_offset);
        match fs::file_len(&path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Ok(len) if len == segment.bytes => Ok(len),
            Ok(len) if len < segment.bytes => Ok(page_floor(len)),
            // Of another that began there.
            Ok(_) => self.shard.files.remove(&path).await.map(|()| 0),
            Err(error) => Err(StorageError::io("look for", &path)(error)),
        }
    }

    /// Writes a piece of the file of `segment`, which begins at byte `position`: whole pages of 4 KiB, or what is left, and
    /// not more than 1 MiB. Where the next one is to begin.
    ///
    /// # Errors
    /// Another piece is expected ([`TransferError::Piece`]), or there is no space.
    pub async fn receive(
        &self,
        segment: &SegmentInfo,
        position: u64,
        piece: &[u8],
    ) -> Result<u64, TransferError> {
        self.check_state()?;
        if self.state.borrow().is_untouched() {
            // A directory of a log that nobody knows of would say that something was lost.
            self.reset(LogStart { index: RaftIndex(0), term: NO_TERM, offset: 0 }).await?;
        }
        let _turn = self.upkeep.acquire(1).await;
        self.check_state()?;
        self.check_space(BatchKind::Coordinator)?;
        self.shard.space.check_usable()?;
        let expected = self.received(segment).await?;
        let end = position.saturating_add(piece.len() as u64);
        let is_whole = piece.len().is_multiple_of(PAGE) || end == segment.bytes;
        let fits = !piece.is_empty() && piece.len() as u64 <= PIECE && end <= segment.bytes;
        if position != expected || !is_whole || !fits || segment.bytes > BYTES_MAX {
            return Err(TransferError::Piece { position, len: piece.len(), expected });
        }
        if position == 0 {
            self.begin_receiving().await?;
        }
        let path = self.incoming_path(segment.base_offset);
        let file = self.shard.files.open(&path, true).await?;
        let mut buffer = AlignedBuf::new(page_ceil(piece.len() as u64) as usize);
        buffer[..piece.len()].copy_from_slice(piece);
        file.write_at(position, buffer.freeze(), false).await.map_err(StorageError::io("write", &path))?;
        if end == segment.bytes {
            file.truncate(end).await.map_err(StorageError::io("truncate", &path))?;
        }
        Ok(end)
    }

    /// There is a directory, and nothing in it of what was to be received before.
    async fn begin_receiving(&self) -> Result<(), TransferError> {
        self.shard.dirs.make(&self.dir).await?;
        for entry in fs::read_dir(&self.dir).await.map_err(StorageError::io("list", &self.dir))? {
            if entry.name.to_str().is_some_and(paths::is_incoming) {
                self.shard.files.remove(&self.dir.join(&entry.name)).await?;
            }
        }
        Ok(())
    }

    /// Makes `segment`, which was received whole, the log's next: verified, with its terms and producers, durable when this
    /// returns. All that the log has is committed, and ends where the segment begins.
    ///
    /// # Errors
    /// It does not follow the log ([`TransferError::Elsewhere`]), or is not what was announced
    /// ([`TransferError::Damaged`]): then it has to come again.
    pub async fn install(&self, storage: &ShardStorage, segment: &SegmentInfo) -> Result<(), TransferError> {
        // What is before it, and a cut that made room for it.
        self.shard.journal.barrier().await?;
        let _turn = self.upkeep.acquire(1).await;
        if !self.shard.journal.ring.is_begun() {
            // On a disk that is full since the start there are no checkpoints.
            return Err(StorageError::io("install", &self.dir)(std::io::ErrorKind::StorageFull.into()).into());
        }
        // If it is, the checkpoint failed, and is tried again.
        if !self.state.borrow().is_installing {
            self.make_way(storage, segment).await?;
            let verified = match self.verify(segment).await {
                Err(error @ TransferError::Damaged { .. }) => {
                    self.shard.files.remove(&self.incoming_path(segment.base_offset)).await?;
                    return Err(error);
                }
                verified => verified?,
            };
            let Verified { index, footer, .. } = &verified;
            rewrite_index(&self.shard, &self.dir, segment.base_offset, index, *footer).await?;
            fs::sync_dir(&self.dir).await.map_err(StorageError::io("sync", &self.dir))?;
            self.check_follows(segment)?;
            let flushed = self.state.borrow().flushed.index;
            assert_eq!(flushed, segment.base_index, "all that comes before is in segments");
            self.state.borrow_mut().adopt(segment.base_offset, verified, &self.shard);
        }
        checkpoint::write(storage).await?;
        self.state.borrow_mut().is_installing = false;
        self.load_in_turn().await?;
        self.shard.progress.note(self.id, &self.watch);
        self.shard.progress.tell();
        self.news.tell();
        Ok(())
    }

    /// All that the log has goes into segments that are sealed.
    async fn make_way(&self, storage: &ShardStorage, segment: &SegmentInfo) -> Result<(), TransferError> {
        self.load_in_turn().await?;
        self.check_follows(segment)?;
        if self.unsaved_cut().is_some() {
            // Nothing is flushed before.
            checkpoint::write(storage).await?;
        }
        self.flush_in_turn().await?;
        self.roll_in_turn().await?;
        self.check_follows(segment)
    }

    /// Whether `segment` begins where the log ends, and nothing is there that it does not follow.
    fn check_follows(&self, segment: &SegmentInfo) -> Result<(), TransferError> {
        let state = self.state.borrow();
        state.check_writable(self.id)?;
        let (next, committed) = (state.next, state.committed.index);
        let follows = (next.offset, next.index) == (segment.base_offset, segment.base_index)
            && state.term_before(next.index) == Some(segment.term_before)
            && committed == next.index
            && (state.segments.is_none() || state.uncut.is_none());
        // Two segments would bear the same name.
        let segments = state.segments.as_ref();
        let active = segments.and_then(|segments| segments.active.as_ref());
        if follows && active.is_none_or(|active| active.base_offset < segment.base_offset) {
            return Ok(());
        }
        let (index, offset, term) = (segment.base_index, segment.base_offset, segment.term_before);
        let (next, end, known) = (next.index, next.offset, state.term_before(next.index));
        Err(TransferError::Elsewhere { index, offset, term, next, end, known, committed })
    }

    /// Reads the received file of `segment`, all of it.
    async fn verify(&self, segment: &SegmentInfo) -> Result<Verified, TransferError> {
        let path = self.incoming_path(segment.base_offset);
        let file = self.shard.files.open(&path, false).await?;
        file.sync_data().await.map_err(StorageError::io("sync", &path))?;
        let len = file.len().await.map_err(StorageError::io("measure", &path))?;
        if len != segment.bytes {
            return Err(TransferError::Damaged {
                what: format!("{len} bytes of {} are here", segment.bytes),
            });
        }
        match self.verify_batches(segment, file, path).await {
            Err(error @ StorageError::Io { .. }) => Err(error.into()),
            Err(error) => Err(TransferError::Damaged { what: error.to_string() }),
            Ok(verified) => Ok(verified),
        }
    }

    async fn verify_batches(
        &self,
        segment: &SegmentInfo,
        file: File,
        path: PathBuf,
    ) -> Result<Verified, StorageError> {
        let header = check_header(&file, &path, self.id, segment.base_offset).await?;
        if header.base_index != segment.base_index {
            let what = format!("it begins at Raft index {}, not {}", header.base_index, segment.base_index);
            return Err(StorageError::corrupt(&path, 0, what));
        }
        let first = BatchStart::of_segment(segment.base_offset);
        let mut scanner = Scanner::new(file, path.clone(), first, segment.bytes, PIECE);
        let (mut term, mut terms) = (segment.term_before, Vec::new());
        let (mut producers, now_ms) = (Producers::default(), wall_clock_ms());
        let producers_max = self.shard.config.producer_ids_max;
        let (index, footer) = lookup::index_batches(&mut scanner, &header, segment.bytes, |found, index| {
            let batch = &found.header;
            if batch.partition_leader_epoch < term {
                return Err(format!("term {} follows term {term}", batch.partition_leader_epoch));
            }
            if terms.is_empty() || batch.partition_leader_epoch > term {
                term = batch.partition_leader_epoch;
                terms.push(TermStart { term, index, offset: batch.base_offset });
            }
            if let Some(claim) = batch::claim(batch) {
                producers.replay(&claim, produced(&claim, batch), now_ms, producers_max);
            }
            Ok(())
        })
        .await?;
        if (footer.next_offset, footer.next_index) != (segment.next_offset, segment.next_index) {
            let what = format!("it ends at offset {}, Raft index {}", footer.next_offset, footer.next_index);
            return Err(StorageError::corrupt(&path, segment.bytes, what));
        }
        if term != segment.last_term {
            let what = format!("it ends in term {term}, not {}", segment.last_term);
            return Err(StorageError::corrupt(&path, segment.bytes, what));
        }
        let end = End { offset: footer.next_offset, index: footer.next_index, term };
        Ok(Verified { end, terms, producers, index, footer })
    }

    fn incoming_path(&self, base_offset: i64) -> PathBuf {
        self.dir.join(paths::incoming_file(base_offset))
    }

    /// Gives a segment that was taken in its name, if that is not done yet.
    pub(super) async fn settle_incoming_in_turn(&self) -> Result<(), StorageError> {
        let (incoming, is_installing) = {
            let state = self.state.borrow();
            (state.incoming, state.is_installing)
        };
        let Some(base_offset) = incoming else { return Ok(()) };
        let (from, to) = (self.incoming_path(base_offset), self.dir.join(paths::segment_file(base_offset)));
        if is_installing {
            // With its name and without a checkpoint that knows it, it would say that something was lost.
            return Err(StorageError::io("install", &from)(std::io::ErrorKind::WouldBlock.into()));
        }
        if fs::exists(&from).await.map_err(StorageError::io("look for", &from))? {
            self.shard.files.forget(&from);
            fs::rename(&from, &to).await.map_err(StorageError::io("rename", &from))?;
            fs::sync_dir(&self.dir).await.map_err(StorageError::io("sync", &self.dir))?;
        }
        self.state.borrow_mut().incoming = None;
        Ok(())
    }
}

/// No segment is larger: positions in it have 32 bits.
const BYTES_MAX: u64 = FIRST_BATCH + SEGMENT_BYTES_MAX + i32::MAX as u64;

impl State {
    /// What may be appended to follows nothing that is not durable yet.
    pub(super) fn check_appendable(&self) -> Result<(), AppendError> {
        match self.is_installing {
            false => Ok(()),
            true => Err(AppendError::Invalid(
                "the log is taking in a segment: it takes no batch meanwhile".into(),
            )),
        }
    }

    /// The log ends after the segment from now on; in its directory, that is to be looked at anew.
    fn adopt(&mut self, base_offset: i64, verified: Verified, shard: &crate::shard::Shard) {
        let Verified { end, terms, producers, .. } = verified;
        (self.next, self.durable, self.committed, self.flushed, self.found_end) = (end, end, end, end, end);
        self.settle_all();
        terms.iter().for_each(|start| self.terms.note(start.term, start.index, start.offset));
        let (now_ms, max) = (wall_clock_ms(), shard.config.producer_ids_max);
        for (producer_id, entry) in producers.entries() {
            for batch in &entry.batches {
                let last_offset_delta = (batch.last_offset - batch.base_offset) as i32;
                let (epoch, first_sequence) = (entry.epoch, batch.first_sequence);
                let claim = Claim { producer_id, epoch, first_sequence, last_offset_delta };
                self.producers.replay(&claim, *batch, now_ms, max);
            }
        }
        self.tail.clear();
        self.active = None;
        self.segments = None;
        self.incoming = Some(base_offset);
        self.is_installing = true;
    }
}
