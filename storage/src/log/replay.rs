//! A log's state from what start-up found of it.
//!
//! What is committed is what the checkpoint knows of, and what the log start offset proves. Alone, it is all that is found.

use super::commit::uncommitted;
use super::cut::Uncut;
use super::{End, LogStart, State, end_after, produced};
use crate::batch;
use crate::config::{CommitMode, LogConfig};
use crate::format::checkpoint::{Committed, LogCheckpoint};
use crate::format::entry::{EntryKind, HardState};
use crate::format::log_sections::Reset;
use crate::ids::{LogId, RaftIndex};
use crate::producers::Producers;
use crate::recovery::{RecoveredEntry, RecoveredLog};
use crate::shard::Shard;
use crate::tail::{Tail, TailBatch};
use crate::terms::TermHistory;
use crate::uncommitted::Uncommitted;
use corelog_io::planted::{Fault, planted};
use corelog_io::wall_clock_ms;
use corelog_wire::records::BatchHeader;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

impl State {
    /// The checkpoint's state, and on top of it what the journals say. Gaps are never papered over: the log is refused.
    pub(crate) fn recover(id: LogId, config: LogConfig, mut found: RecoveredLog, shard: &Shard) -> State {
        found.forget_cut();
        let mut state = State::new(config);
        let now_ms = wall_clock_ms();
        let alone = config.commit == CommitMode::Alone;
        let has_state = found.checkpoint.is_some() || !found.entries.is_empty() || found.damaged.is_some();
        let mut promised = End::default();
        let covered_by = found.covered_by();
        if let Some((_, c)) = &found.checkpoint {
            state.log_start_offset = c.log_start_offset;
            state.next = End { offset: c.next_offset, index: c.next_index, term: c.term };
            promised = state.next;
            let last_flushed =
                c.flushed_index.0.checked_sub(1).and_then(|last| c.terms.term_at(RaftIndex(last)));
            let flushed_term = last_flushed.or(c.terms.epoch_at(c.flushed_offset - 1)).unwrap_or(c.term);
            state.flushed = End { offset: c.flushed_offset, index: c.flushed_index, term: flushed_term };
            state.restore_committed(c, lowest_cut(&found), shard);
            if c.committed.cut_pending {
                state.uncut = Some(Uncut { sequence: 0, end: state.flushed, reached: state.flushed });
            }
            state.is_cut = c.committed.is_cut;
            state.hard_state = c.hard_state;
            state.active = c.active.clone();
            state.terms = c.terms.clone();
            state.membership = c.membership.clone();
            state.reset = c.reset;
            state.incoming = c.incoming;
        }
        // Batches: all that are in no segment. State: only what the checkpoint does not cover.
        let mut data = state.flushed;
        let mut refused = found.damaged.as_ref().map(|(_, evidence)| evidence.clone());
        // Of a damaged one nothing can be said.
        let entries = if refused.is_some() { &[][..] } else { &found.entries };
        let begins = found.begins();
        for (entry, taken_back) in entries.iter().zip(taken_back(entries)) {
            if taken_back || entry.is_void(begins) {
                continue;
            }
            let covered = covered_by.is_some_and(|by| (entry.generation, entry.sequence) <= by);
            let e = entry.header;
            match e.kind {
                EntryKind::Append if e.index < state.flushed.index => {}
                EntryKind::Append => {
                    let header = match BatchHeader::parse(&entry.payload) {
                        Ok(header)
                            if header.size() == entry.payload.len() && batch::takes_its_offsets(&header) =>
                        {
                            header
                        }
                        _ => {
                            refused = Some(gap(id, data, entry, "holds no batch"));
                            break;
                        }
                    };
                    if state.is_cut && e.index < data.index {
                        // A former generation's was cut, and the checkpoint has made what says so unnecessary.
                        state.tail.cut_back(e.index);
                        data = End { offset: e.base_offset, index: e.index, term: e.term };
                    }
                    if e.index != data.index
                        || e.base_offset != data.offset
                        || header.base_offset != data.offset
                    {
                        refused = Some(gap(id, data, entry, "does not follow"));
                        break;
                    }
                    let batch = TailBatch {
                        index: e.index,
                        base_offset: e.base_offset,
                        next_offset: header.next_offset(),
                        max_timestamp: batch::timestamp(&header),
                        sequence: 0,
                        bytes: entry.payload.clone(),
                    };
                    data = end_after(&batch, &header);
                    state.tail.push(batch);
                    if !covered {
                        state.next = data;
                        state.terms.note(header.partition_leader_epoch, e.index, header.base_offset);
                        if !alone {
                            state.uncommitted.push(uncommitted(&header));
                        }
                        if let Some(claim) = batch::claim(&header) {
                            let produced = produced(&claim, &header);
                            match alone {
                                true => {
                                    let max = shard.config.producer_ids_max;
                                    state.producers.replay(&claim, produced, now_ms, max);
                                }
                                false => state.producers.assign(e.index, &claim, produced, now_ms),
                            }
                        }
                    }
                }
                EntryKind::Truncate if e.index == data.index && e.base_offset != data.offset => {
                    refused = Some(gap(id, data, entry, "does not end where a batch begins"));
                    break;
                }
                EntryKind::Truncate if !covered && e.index < state.committed.index => {
                    refused = Some(gap(id, data, entry, "takes back what is committed"));
                    break;
                }
                EntryKind::Truncate if covered => {}
                EntryKind::Truncate => {
                    let end = End { offset: e.base_offset, index: e.index, term: e.term };
                    state.cut_back(end, 0);
                    if end.index < data.index {
                        data = end;
                    }
                }
                EntryKind::HardState if !covered => state.hard_state = HardState::decode(&entry.payload),
                EntryKind::LogStart if !covered => state.move_log_start(e.base_offset),
                EntryKind::Reset if !covered => {
                    let start = LogStart { index: e.index, term: e.term, offset: e.base_offset };
                    let (generation, sequence) = (entry.generation, entry.sequence);
                    state.begin_anew(start, Reset { generation, sequence, is_cleared: false });
                    data = state.next;
                }
                EntryKind::HardState | EntryKind::LogStart | EntryKind::Reset => {}
            }
        }
        if refused.is_none() && data.index < state.next.index {
            let (found, known) = (data.index, state.next.index);
            let first = promised.index;
            refused = Some(
                format!(
                    "its checkpoint knows batches up to Raft index {first}, the journals lead to {found} of {known}: \
                     journal files are missing from the data directory"
                )
                .into(),
            );
        }
        state.is_known = has_state;
        let refused = refused.or_else(|| state.missing(found.dir.as_deref()));
        state.put_aside = found.put_aside;
        if let Some(evidence) = &refused {
            tracing::error!(log = %id, %evidence, "the log is refused");
            state.next = data;
            state.tail.clear();
            state.all_aside = !has_state || found.is_all_aside();
            state.held = (!state.all_aside).then(|| Rc::new(found.into_held()));
        }
        state.refused = refused;
        state.found_end = state.next;
        if state.is_untouched() && !state.is_elsewhere() {
            state.producers = Producers::of_new_log();
        }
        state.producers.enter(&shard.producers);
        state.durable = state.next;
        if alone || state.refused.is_some() || planted(Fault::AllFoundIsCommitted) {
            state.committed = state.next;
            state.uncommitted.cut_back(0);
        }
        // Nothing is deleted that is not committed.
        while state.committed.offset < state.log_start_offset && state.committed.index < state.next.index {
            state.commit_below(state.committed.index.next());
        }
        state.commit_target = state.committed.index;
        state.settle_producers(now_ms, shard.config.producer_ids_max);
        state
    }

    /// What the checkpoint knows of what is committed, of what is not, and of producers; without what was cut since, at
    /// `cut`.
    fn restore_committed(&mut self, c: &LogCheckpoint, cut: Option<RaftIndex>, shard: &Shard) {
        let now_ms = wall_clock_ms();
        for (producer_id, entry) in &c.producers {
            self.producers.restore(*producer_id, entry.clone());
        }
        let Committed { offset, index, term, rest, in_flight, .. } = &c.committed;
        self.committed = End { offset: *offset, index: *index, term: *term };
        for batch in in_flight.iter().filter(|batch| cut.is_none_or(|cut| batch.index < cut)) {
            self.producers.put_in_flight(*batch, now_ms);
        }
        match self.config.commit {
            CommitMode::Alone => {
                self.producers.settle_below(self.next.index, now_ms, shard.config.producer_ids_max);
            }
            CommitMode::Quorum => rest.iter().for_each(|batch| self.uncommitted.push(*batch)),
        }
    }

    /// What must be there and is not, for the state and the log's directory (as start-up found it) to fit together.
    fn missing(&self, dir: Option<&Path>) -> Option<Arc<str>> {
        let remedy = "Nothing was touched. Restore the data directory from a copy, or rebuild the log's state from its \
                      segments with `corectl log repair`";
        match dir {
            _ if planted(Fault::AbsenceIsEmpty) => None,
            // The directory was made for a batch that the journal had.
            Some(dir) if self.next.index == RaftIndex(0) && !self.is_known => {
                let dir = dir.display();
                Some(format!(
                    "{dir} is there, and neither a checkpoint nor the journal knows of its log. {remedy}"
                ))
            }
            None if self.flushed.offset > self.log_start_offset => {
                let (from, to) = (self.log_start_offset, self.flushed.offset);
                Some(format!(
                    "its directory is missing, which held the records from offset {from} to {to}. {remedy}"
                ))
            }
            _ if self.log_start_offset > self.next.offset => {
                let (start, end) = (self.log_start_offset, self.next.offset);
                Some(format!(
                    "its first offset is {start}, and the journal knows records up to {end} only. {remedy}"
                ))
            }
            _ => None,
        }
        .map(Arc::from)
    }

    fn new(config: LogConfig) -> State {
        State {
            config,
            next: End::default(),
            durable: End::default(),
            committed: End::default(),
            uncommitted: Uncommitted::default(),
            commit_target: RaftIndex(0),
            flushed: End::default(),
            reach: RaftIndex(0),
            uncut: None,
            unsaved_cut: None,
            is_cut: false,
            cuts: 0,
            new_cuts: Vec::new(),
            log_start_offset: 0,
            terms: TermHistory::default(),
            membership: None,
            membership_saved_by: 0,
            reset: None,
            incoming: None,
            is_installing: false,
            producers: Producers::default(),
            hard_state: Default::default(),
            tail: Tail::default(),
            active: None,
            segments: None,
            found_end: End::default(),
            is_known: false,
            refused: None,
            held: None,
            put_aside: None,
            all_aside: false,
            deleted: false,
        }
    }
}

/// The lowest index at which the log was cut since its checkpoint.
fn lowest_cut(found: &RecoveredLog) -> Option<RaftIndex> {
    let covered_by = found.covered_by();
    let is_new = |e: &&RecoveredEntry| covered_by.is_none_or(|by| (e.generation, e.sequence) > by);
    let cuts = found.entries.iter().filter(|e| e.header.kind == EntryKind::Truncate).filter(is_new);
    cuts.map(|e| e.header.index).min()
}

/// For each entry, whether a later truncation took it back: it says nothing of the log that is left, and what is in the
/// segments since then need not fit it.
fn taken_back(entries: &[RecoveredEntry]) -> Vec<bool> {
    let mut cut: Option<RaftIndex> = None;
    let is_taken_back = |entry: &RecoveredEntry| {
        let index = entry.header.index;
        match entry.header.kind {
            EntryKind::Append => cut.is_some_and(|cut| index >= cut),
            EntryKind::Truncate => {
                let later = cut;
                cut = Some(later.map_or(index, |later| later.min(index)));
                later.is_some_and(|later| index > later)
            }
            EntryKind::HardState | EntryKind::LogStart | EntryKind::Reset => false,
        }
    };
    let mut taken_back: Vec<bool> = entries.iter().rev().map(is_taken_back).collect();
    taken_back.reverse();
    taken_back
}

fn gap(id: LogId, data: End, entry: &RecoveredEntry, how: &str) -> Arc<str> {
    format!(
        "journal entry of generation {}, group {} (offset {}, Raft index {}) {how}: log {id} ends at offset {}, Raft \
         index {}",
        entry.generation, entry.sequence, entry.header.base_offset, entry.header.index, data.offset, data.index
    )
    .into()
}
