//! What leaves a log: retention by time and size, DeleteRecords, deletion of the whole log.

use super::{Log, State};
use crate::error::{ReadError, StorageError};
use crate::format::entry::{EntryHeader, EntryKind};
use crate::format::index_page::Footer;
use crate::ids::RaftIndex;
use crate::journal::Effect;
use crate::paths::SegmentFileKind;
use crate::quarantine;
use crate::segment::{SegmentSpan, remove};
use corelog_io::fs;

/// The active segment while it is looked at.
#[derive(Clone, Copy)]
struct ActiveNow {
    base_offset: i64,
    position: u64,
    max_timestamp: i64,
    created_ms: i64,
}

impl State {
    /// Whether every batch of the segments that end at `offset` is committed: internal ones at their end, which take no
    /// offset, too.
    fn is_committed_before(&self, offset: i64) -> bool {
        self.committed.offset > offset || self.committed.index >= self.flushed.index
    }
}

impl Log {
    /// Bytes of the log: of its segment files, and of what is in none yet.
    pub async fn size_bytes(&self) -> Result<u64, StorageError> {
        self.ensure_loaded().await?;
        let state = self.state.borrow();
        Ok(state.segments.as_ref().map_or(0, |s| s.bytes()) + state.tail.dirty_bytes())
    }

    /// DeleteRecords: no record below `before` is served any more once this returns; durable. -1 stands for the high
    /// watermark. Gives the log start offset (Kafka's low watermark).
    ///
    /// # Errors
    /// `before` is above the high watermark or below -1.
    pub async fn delete_records(&self, before: i64) -> Result<i64, ReadError> {
        self.check_state()?;
        let before = {
            let state = self.state.borrow();
            let end = state.committed.offset;
            let before = if before == -1 { end } else { before };
            if before < 0 || before > end {
                let log_start_offset = state.log_start_offset;
                return Err(ReadError::OffsetOutOfRange {
                    offset: before,
                    log_start_offset,
                    log_end_offset: end,
                });
            }
            before
        };
        self.move_log_start(before).await?;
        let log = self.me.upgrade().expect("it is borrowed from an Rc");
        // The files' removal need not be waited for.
        corelog_io::spawn(corelog_io::Queue::Background, async move {
            if let Err(error) = log.trim().await {
                tracing::warn!(log = %log.id, %error, "cannot remove deleted segments: retention will try again");
            }
        })
        .detach();
        Ok(self.log_start_offset())
    }

    /// Applies `retention_ms` and `retention_bytes`, rolls an active segment that is too old, and removes what lies
    /// below the log start offset. The log start offset after it.
    pub async fn apply_retention(&self, now_ms: i64) -> Result<i64, StorageError> {
        let start = {
            let _turn = self.upkeep.acquire(1).await;
            let config = self.config();
            if self.check_state().is_err() {
                return Ok(self.log_start_offset());
            }
            self.load_in_turn().await?;
            let expired = |max_timestamp: i64| {
                config.retention_ms >= 0 && max_timestamp < now_ms.saturating_sub(config.retention_ms)
            };
            if config.delete_enabled && !self.shard.space.is_used_up() && self.tail_may_go(&config, expired) {
                self.if_there_is_space(self.flush_in_turn().await.map(|()| true))?;
            }
            if self.active_is_old(now_ms, config.segment_ms) {
                self.if_there_is_space(self.roll_in_turn().await)?;
            }
            match config.delete_enabled {
                true => self.retained_from(&config, expired).await?,
                false => 0,
            }
        };
        self.move_log_start(start).await?;
        self.trim().await?;
        Ok(self.log_start_offset())
    }

    /// What found no space may wait: what is deleted without it makes some. Whether it was done.
    fn if_there_is_space(&self, outcome: Result<bool, StorageError>) -> Result<bool, StorageError> {
        match outcome {
            Err(error) if error.is_storage_full() => {
                self.shard.space.note_full();
                Ok(false)
            }
            outcome => outcome,
        }
    }

    pub(super) fn check_state(&self) -> Result<(), StorageError> {
        self.state.borrow().check_writable(self.id)
    }

    /// Whether what is only in memory may be due for deletion.
    fn tail_may_go(&self, config: &crate::config::LogConfig, expired: impl Fn(i64) -> bool) -> bool {
        let state = self.state.borrow();
        if state.tail.dirty_bytes() == 0 {
            return false;
        }
        let bytes = state.segments.as_ref().map_or(0, |s| s.bytes()) + state.tail.dirty_bytes();
        expired(state.tail.dirty_max_timestamp())
            || (config.retention_bytes >= 0 && bytes > config.retention_bytes as u64)
    }

    fn active_is_old(&self, now_ms: i64, segment_ms: i64) -> bool {
        let state = self.state.borrow();
        let active = state.segments.as_ref().and_then(|s| s.active.as_ref());
        active.is_some_and(|a| now_ms.saturating_sub(a.created_ms) > segment_ms)
    }

    /// The offset that retention lets the log begin at.
    async fn retained_from(
        &self,
        config: &crate::config::LogConfig,
        expired: impl Fn(i64) -> bool,
    ) -> Result<i64, StorageError> {
        let spans: Vec<SegmentSpan> = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().expect("they were loaded");
            segments.sealed.iter().map(SegmentSpan::from).collect()
        };
        let (active, mut bytes, dirty, flushed) = {
            let state = self.state.borrow();
            let segments = state.segments.as_ref().expect("they were loaded");
            let active = segments.active.as_ref().map(|a| ActiveNow {
                base_offset: a.base_offset,
                position: a.position,
                max_timestamp: a.max_timestamp,
                created_ms: a.created_ms,
            });
            let bytes = segments.bytes() + state.tail.dirty_bytes();
            (active, bytes, state.tail.dirty_bytes(), state.flushed.offset)
        };
        let too_large = |bytes: u64, less: u64| {
            config.retention_bytes >= 0 && bytes - less >= config.retention_bytes as u64
        };
        // Without timestamps the time of sealing counts, as a file's modification time does for Kafka.
        let newest =
            |footer: Footer| if footer.max_timestamp < 0 { footer.sealed_ms } else { footer.max_timestamp };
        let mut gone = 0;
        for (n, span) in spans.iter().enumerate() {
            let next = spans.get(n + 1).map(|span| span.base_offset).or(active.map(|a| a.base_offset));
            if !self.state.borrow().is_committed_before(next.unwrap_or(flushed)) {
                break;
            }
            if too_large(bytes, span.end) {
                gone = n + 1;
            } else {
                match self.footer(*span).await.map(|footer| expired(newest(footer))) {
                    Ok(true) => gone = n + 1,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(log = %self.id, segment = span.base_offset, %error, "it goes with the one behind it");
                    }
                }
            }
            bytes -= span.end;
        }
        if gone < spans.len() {
            return Ok(spans[gone].base_offset);
        }
        // All sealed segments go; the active one too if it is due and nothing follows it.
        if let Some(active) = active {
            let newest = if active.max_timestamp < 0 { active.created_ms } else { active.max_timestamp };
            if dirty == 0
                && self.state.borrow().is_committed_before(flushed)
                && (expired(newest) || too_large(bytes, active.position))
                && self.if_there_is_space(self.roll_in_turn().await)?
            {
                return Ok(flushed);
            }
            let state = self.state.borrow();
            let active = state.segments.as_ref().and_then(|s| s.active.as_ref());
            return Ok(active.map_or(0, |a| a.base_offset));
        }
        Ok(if gone > 0 { flushed } else { 0 })
    }

    /// Moves the log start offset up to `offset`, durably. Not while `upkeep` is held: it may wait for a flush.
    async fn move_log_start(&self, offset: i64) -> Result<(), StorageError> {
        if offset <= self.log_start_offset() {
            return Ok(());
        }
        let entry = EntryHeader {
            log: self.id,
            kind: EntryKind::LogStart,
            index: RaftIndex(0),
            base_offset: offset,
            term: 0,
            len: 0,
        };
        self.journal(entry, &[], Effect::LogStart(offset)).await?.await?;
        // Refused meanwhile, what was put aside of it may not know.
        self.check_state()
    }

    /// Removes segments that lie below the log start offset.
    pub(crate) async fn trim(&self) -> Result<(), StorageError> {
        let _turn = self.upkeep.acquire(1).await;
        if self.check_state().is_err() {
            return Ok(());
        }
        self.load_in_turn().await?;
        let mut has_gone = false;
        while let Some(base_offset) = self.take_oldest_gone() {
            has_gone = true;
            self.shard.indexes.forget(self.id, base_offset);
            remove(&self.dir, &self.shard.files, base_offset, SegmentFileKind::Data).await?;
            remove(&self.dir, &self.shard.files, base_offset, SegmentFileKind::Index).await?;
        }
        if has_gone {
            self.forget_entries_in_turn().await;
        }
        Ok(())
    }

    /// Takes the oldest segment out, if it lies below the log start offset.
    fn take_oldest_gone(&self) -> Option<i64> {
        if !self.is_membership_saved() {
            return None;
        }
        let mut state = self.state.borrow_mut();
        let (start, flushed) = (state.log_start_offset, state.flushed.offset);
        let segments = state.segments.as_ref()?;
        let oldest = segments.sealed.first()?.base_offset;
        let next = segments.base_after(oldest).unwrap_or(flushed);
        if next > start || !state.is_committed_before(next) {
            return None;
        }
        state.segments.as_mut()?.sealed.remove(0);
        Some(oldest)
    }

    /// Segments are gone, and their entries with them. Which is first now may stay unknown: who asks for one finds out.
    async fn forget_entries_in_turn(&self) {
        let (sealed, active, flushed) = {
            let state = self.state.borrow();
            let Some(segments) = &state.segments else { return };
            let sealed = segments.sealed.first().map(SegmentSpan::from);
            (sealed, segments.active.as_ref().map(|active| active.base_index), state.flushed.index)
        };
        let first = match sealed {
            Some(segment) => self.base_index(segment).await.ok(),
            None => active.or(Some(flushed)),
        };
        if let Some(first) = first {
            self.state.borrow_mut().terms.forget_below(first);
        }
    }

    /// Ends the log and lets its memory go. Its files are there until [`Log::remove_files`].
    pub(crate) fn end(&self) {
        {
            let mut state = self.state.borrow_mut();
            state.deleted = true;
            state.tail.clear();
        }
        self.news.tell();
        self.shard.journal.room.notify_all();
    }

    /// Removes the files of a log that was ended.
    pub(crate) async fn remove_files(&self) -> Result<(), StorageError> {
        let _turn = self.upkeep.acquire(1).await;
        let bases: Vec<i64> = {
            let segments = self.state.borrow_mut().segments.take();
            segments.map_or(Vec::new(), |s| s.sealed.iter().map(|s| s.base_offset).collect())
        };
        for base_offset in bases {
            self.shard.indexes.forget(self.id, base_offset);
        }
        self.hints.borrow_mut().clear();
        let put_aside = self.state.borrow_mut().put_aside.take();
        if put_aside.is_some() {
            quarantine::remove(&self.shard.config.data_dir, self.id, u64::MAX).await?;
        }
        self.shard.dirs.forget(&self.dir);
        let removed = fs::remove_dir_all(&self.dir).await;
        self.shard.files.forget_below(&self.dir);
        removed.map_err(StorageError::io("remove", &self.dir))?;
        // The last partition's removal takes the topic's directory along.
        let topic_dir = self.dir.parent().expect("a log's directory lies in its topic's");
        if fs::remove_dir_if_empty(topic_dir).await.map_err(StorageError::io("remove", topic_dir))? {
            self.shard.dirs.forget(topic_dir);
        }
        Ok(())
    }
}
