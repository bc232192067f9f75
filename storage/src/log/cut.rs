//! Cutting the log back: another leader's history replaces what no quorum confirmed.
//!
//! The order is fixed at once, in memory and as an entry of the journal: what is appended next goes on where the cut was
//! made. Segments may hold what was cut. They are brought in line in a turn of `upkeep`, when the entry is durable, and
//! nothing is flushed behind the cut before. Should a crash come in between, the journal or a checkpoint says of the log that
//! a cut is pending, and loading the segments cuts again: whatever is left of them ends where the log does, or reaches
//! beyond.
//!
//! The segment that the cut goes through is written to again, in the page that the cut goes through. A write that is torn
//! may leave nothing of it, and the batches before it are in no journal any more: so a checkpoint with that page's bytes
//! comes before the next flush (`unsaved_cut`).

use super::{End, Log, State};
use crate::config::CommitMode;
use crate::error::{AppendError, StorageError};
use crate::format::entry::{EntryHeader, EntryKind, entry_span};
use crate::ids::RaftIndex;
use crate::journal::{Durable, Effect};
use crate::segment::{Cut, cut};
use corelog_io::planted::{Fault, planted};

/// Segments may reach beyond the log's end, or hold there what was cut.
pub(super) struct Uncut {
    /// The journal group of the entry that says so; 0: a former process's.
    pub sequence: u64,
    /// No batch from here on is in segments, once they are cut.
    pub end: End,
    /// What was flushed before.
    pub reached: End,
}

impl Log {
    /// Takes the batches from Raft index `from` on off the end; nothing is done if there are none. Its order is fixed when
    /// this returns; durable when what it returns completes. `term`: of the leader whose history goes on there.
    ///
    /// # Errors
    /// What is committed, or said to be, is never cut; nor by a leader older than the last batch.
    pub async fn truncate(&self, from: RaftIndex, term: i32) -> Result<Durable, AppendError> {
        let _turn = self.shard.admit(entry_span(0), 0, || Ok::<_, StorageError>(())).await?;
        let state = &mut *self.state.borrow_mut();
        state.check_writable(self.id)?;
        if from >= state.next.index {
            return Ok(Durable::already());
        }
        if term < state.next.term {
            return Err(AppendError::StaleLeaderEpoch { given: term, current: state.next.term });
        }
        let kept = match state.config.commit {
            CommitMode::Alone => state.next.index,
            CommitMode::Quorum => state.committed.index.max(state.commit_target),
        };
        if from < kept {
            let what = format!("cut at Raft index {from}, below the commit index {kept}");
            return Err(AppendError::Invalid(what));
        }
        let end = state.end_at(from);
        let entry = EntryHeader {
            log: self.id,
            kind: EntryKind::Truncate,
            index: from,
            base_offset: end.offset,
            term: end.term,
            len: 0,
        };
        let pushed = self.shard.journal.push(&entry, &[], &[]);
        self.shard.journal.on_durable(self.me.clone(), Effect::Truncated);
        state.cut_back(end, pushed.sequence);
        let durable_through = self.shard.journal.durable_through();
        state.new_cuts.retain(|(group, _)| *group > durable_through);
        state.new_cuts.push((pushed.sequence, from));
        Ok(Durable::new(pushed.completion))
    }

    /// A cut is durable. Segments need not be cut before something is flushed, but what is in the way may go.
    pub(super) fn cut_is_durable(&self) {
        if self.state.borrow().uncut.is_none() {
            return;
        }
        let log = self.me.upgrade().expect("it is borrowed from an Rc");
        corelog_io::spawn(corelog_io::Queue::Background, async move {
            let _turn = log.upkeep.acquire(1).await;
            if let Err(error) = log.cut_in_turn().await {
                tracing::warn!(log = %log.id, %error, "what was cut stays in segments: the next flush tries again");
            }
        })
        .detach();
    }

    /// Brings the segments in line with the log, if it was cut and that is durable. The caller has the turn of `upkeep`.
    pub(super) async fn cut_in_turn(&self) -> Result<(), StorageError> {
        self.clear_in_turn().await?;
        self.settle_incoming_in_turn().await?;
        let (what, cuts) = {
            let state = self.state.borrow();
            state.check_writable(self.id)?;
            let reached_offset = match &state.uncut {
                Some(uncut) if uncut.sequence <= self.shard.journal.durable_through() => uncut.reached.offset,
                _ => return Ok(()),
            };
            let End { offset, index, .. } = state.flushed;
            let active = state.active_state();
            let log_start_offset = state.log_start_offset;
            (Cut { log: self.id, offset, index, log_start_offset, reached_offset, active }, state.cuts)
        };
        let segments = cut(&self.dir, &self.shard.files, &self.shard.indexes, &what).await?;
        self.hints.borrow_mut().clear();
        let state = &mut *self.state.borrow_mut();
        if state.deleted {
            return Ok(());
        }
        let is_last = state.cuts == cuts;
        state.cuts += 1;
        state.unsaved_cut = segments.active.is_some().then_some(state.cuts);
        state.segments = Some(segments);
        state.reach = what.index;
        // Cut again meanwhile: the next turn's.
        if is_last {
            state.uncut = None;
        }
        Ok(())
    }

    /// Whether its segments are to be cut before anything is flushed.
    pub(super) fn is_cut_due(&self) -> bool {
        let durable = self.shard.journal.durable_through();
        self.state.borrow().uncut.as_ref().is_some_and(|uncut| uncut.sequence <= durable)
    }

    /// Whether the log or its segments were cut since [`Log::cuts`] was `cuts`: who met something odd looks again.
    pub(super) async fn was_cut_since(&self, cuts: u64) -> bool {
        let is_pending = self.state.borrow().uncut.is_some();
        if is_pending {
            // It may be under way.
            drop(self.upkeep.acquire(1).await);
        }
        self.cuts() != cuts
    }

    /// How often the log was cut, and its segments.
    pub(super) fn cuts(&self) -> u64 {
        self.state.borrow().cuts
    }

    /// Nothing may be flushed before a checkpoint has what this returns ([`Log::cut_is_saved`]).
    pub(crate) fn unsaved_cut(&self) -> Option<u64> {
        self.state.borrow().unsaved_cut
    }

    /// Whether nothing is flushed before that.
    pub(crate) fn waits_for_checkpoint(&self) -> bool {
        let state = self.state.borrow();
        state.unsaved_cut.is_some() && state.check_writable(self.id).is_ok() && !state.is_elsewhere()
    }

    /// A checkpoint is durable that was made when [`Log::unsaved_cut`] was `cut`.
    pub(crate) fn cut_is_saved(&self, cut: u64) {
        self.state.borrow_mut().unsaved_cut.take_if(|unsaved| *unsaved == cut);
    }
}

impl State {
    /// Takes the batches from `end` on off the end; group `sequence` says so.
    pub(super) fn cut_back(&mut self, end: End, sequence: u64) {
        self.cuts += 1;
        self.is_cut = true;
        self.is_known = true;
        if end.index < self.next.index {
            self.next = end;
        }
        if end.index < self.durable.index {
            self.durable = end;
        }
        self.tail.cut_back(end.index);
        self.uncommitted.cut_back(end.index.0.saturating_sub(self.committed.index.0) as usize);
        self.terms.cut_back(end.index, end.offset);
        match planted(Fault::CutForgetsNoProducers) {
            true => {}
            false => self.producers.cut_back(end.index),
        }
        // Of what was not loaded yet nobody knows how far a flush got that a crash ended.
        if self.segments.is_none() || end.index < self.reach.max(self.flushed.index) {
            let (lowest, reached) = match &self.uncut {
                Some(uncut) if uncut.end.index < end.index => (uncut.end, uncut.reached),
                Some(uncut) => (end, uncut.reached),
                None => (end, self.flushed),
            };
            self.uncut = Some(Uncut { sequence, end: lowest, reached });
            if end.index < self.flushed.index {
                self.flushed = end;
            }
        }
    }
}
