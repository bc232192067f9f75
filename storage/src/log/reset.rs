//! Reset: the log begins anew at a given place, as before its segments come from elsewhere.
//!
//! A journal entry says so. What journals have of the log before it is void: by its order where both are in one journal,
//! and by the checkpoint, which names the reset's group, where the entry is gone and what it voids is not. The files of
//! before go next; until that is done, whoever looks at the directory first removes them.

use super::{End, Log, State};
use crate::error::{AppendError, StorageError};
use crate::format::checkpoint::INDEX_MAX;
use crate::format::entry::{EntryHeader, EntryKind, entry_span};
use crate::format::log_sections::Reset;
use crate::ids::RaftIndex;
use crate::journal::{Durable, Effect};
use crate::paths;
use crate::producers::Producers;
use crate::terms::{NO_TERM, TermHistory};
use corelog_io::fs;

/// Where a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// Of the first entry to come.
    pub index: RaftIndex,
    /// Of the entry before it, [`NO_TERM`] if there was none.
    pub term: i32,
    /// Of the first record to come.
    pub offset: i64,
}

impl Log {
    /// Gives up all that the log has: it is empty and begins at `start`. Durable when this returns; a crash before leaves
    /// the old log whole, or this. Raft's term and vote and the membership stay.
    ///
    /// The caller sees to it that nothing is lost by it: that what the log had was not counted for a majority, or that it
    /// comes again before the log's owner votes.
    pub async fn reset(&self, start: LogStart) -> Result<(), AppendError> {
        let LogStart { index, term, offset } = start;
        if index > INDEX_MAX || term < NO_TERM || !(0..=i64::MAX / 2).contains(&offset) {
            let what =
                format!("a log cannot begin at Raft index {index}, offset {offset}, after term {term}");
            return Err(AppendError::Invalid(what));
        }
        let durable = {
            let _turn = self.shard.admit(entry_span(0), 0, || Ok::<_, StorageError>(())).await?;
            // Nothing of before is under way any more when it takes effect, and it is the first of its group.
            self.shard.journal.barrier().await?;
            // Nor is a flush. While the journal is waited for it must not be kept from its turn.
            let _upkeep = self.upkeep.acquire(1).await;
            let mut state = self.state.borrow_mut();
            state.check_writable(self.id)?;
            state.check_appendable()?;
            let entry = EntryHeader {
                log: self.id,
                kind: EntryKind::Reset,
                index,
                base_offset: offset,
                term,
                len: 0,
            };
            let pushed = self.shard.journal.push(&entry, &[], &[]);
            self.shard.journal.on_durable(self.me.clone(), Effect::Reset);
            let (generation, sequence) = (self.shard.generation, pushed.sequence);
            state.begin_anew(start, Reset { generation, sequence, is_cleared: false });
            state.producers.enter(&self.shard.producers);
            Durable::new(pushed.completion)
        };
        self.hints.borrow_mut().clear();
        self.news.tell();
        self.shard.journal.room.notify_all();
        durable.await?;
        let _upkeep = self.upkeep.acquire(1).await;
        Ok(self.load_in_turn().await?)
    }

    /// Removes the files that the log had before its reset, if that is not done yet.
    pub(super) async fn clear_in_turn(&self) -> Result<(), StorageError> {
        let dir = &self.dir;
        match self.state.borrow().reset {
            Some(reset) if !reset.is_cleared => {
                self.check_state()?;
                let own = reset.generation == self.shard.generation;
                if own && reset.sequence > self.shard.journal.durable_through() {
                    // A crash would bring the log back, and find its files gone.
                    return Err(StorageError::io("clear", dir)(std::io::ErrorKind::WouldBlock.into()));
                }
            }
            _ => return Ok(()),
        }
        if fs::exists(dir).await.map_err(StorageError::io("look for", dir))? {
            for entry in fs::read_dir(dir).await.map_err(StorageError::io("list", dir))? {
                let segment = entry.name.to_str().and_then(paths::parse_segment_name);
                if let Some((base_offset, _)) = segment {
                    self.shard.indexes.forget(self.id, base_offset);
                    self.shard.files.remove(&dir.join(&entry.name)).await?;
                }
            }
            fs::sync_dir(dir).await.map_err(StorageError::io("sync", dir))?;
        }
        if let Some(reset) = &mut self.state.borrow_mut().reset {
            reset.is_cleared = true;
        }
        Ok(())
    }
}

impl State {
    /// Nothing is uncommitted, in flight or to be cut any more: the log's ends were set to one.
    pub(super) fn settle_all(&mut self) {
        let index = self.next.index;
        self.uncommitted.cut_back(0);
        (self.commit_target, self.reach) = (index, index);
        (self.uncut, self.unsaved_cut) = (None, None);
        self.new_cuts.clear();
        self.is_known = true;
    }

    /// Nothing is left of the log but Raft's own state.
    pub(super) fn begin_anew(&mut self, start: LogStart, reset: Reset) {
        let LogStart { index, term, offset } = start;
        let end = End { offset, index, term };
        (self.next, self.durable, self.committed, self.flushed, self.found_end) = (end, end, end, end, end);
        self.settle_all();
        self.log_start_offset = offset;
        self.terms = TermHistory::beginning_at(index, term, offset);
        let is_new = index == RaftIndex(0) && offset == 0;
        self.producers = if is_new { Producers::of_new_log() } else { Producers::default() };
        self.tail.clear();
        self.active = None;
        self.segments = None;
        self.reset = Some(reset);
        self.incoming = None;
    }
}
