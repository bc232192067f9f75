//! What would be kept of each log, and what cannot be.

use super::segment::{self, Hole};
use crate::log::data_dir::{DataDir, Journaled};
use anyhow::Result;
use bytes::Bytes;
use corelog_storage::format::checkpoint::{ActiveSegmentState, LogCheckpoint};
use corelog_storage::format::entry::{EntryHeader, EntryKind};
use corelog_storage::format::segment_file::{FIRST_BATCH, SegmentHeader};
use corelog_storage::rebuild::{Found, StateBuilder, is_sound};
use corelog_storage::{LogId, RaftIndex};
use corelog_wire::records::BatchHeader;
use std::path::PathBuf;

/// One log as it will be.
pub struct LogPlan {
    pub log: LogId,
    pub state: LogCheckpoint,
    /// What follows the segments, for the new journal.
    pub entries: Vec<(EntryHeader, Bytes)>,
    pub segments: usize,
    /// In segments.
    pub batches: u64,
    pub next_offset: i64,
    /// Whether a checkpoint told of it.
    pub was_known: bool,
    pub producer_id_max: Option<i64>,
    /// What cannot be kept, or not be served.
    pub losses: Vec<String>,
    pub changes: Vec<Change>,
}

impl LogPlan {
    /// A log of which nothing is there.
    pub fn new(log: LogId) -> LogPlan {
        let found = Found {
            log_start_offset: 0,
            next_offset: 0,
            next_index: RaftIndex(0),
            active: None,
            has_holes: false,
        };
        LogPlan {
            log,
            state: StateBuilder::new(log).finish(found, None),
            entries: Vec::new(),
            segments: 0,
            batches: 0,
            next_offset: 0,
            was_known: false,
            producer_id_max: None,
            losses: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Batches that are in no segment.
    pub fn journal_batches(&self) -> u64 {
        self.entries.iter().filter(|(entry, _)| entry.kind == EntryKind::Append).count() as u64
    }
}

/// A change of files other than the journal's. What was there goes aside first.
pub enum Change {
    MoveAside(PathBuf),
    /// Bytes behind the end of a segment, which the broker will write over.
    CopyAside {
        name: PathBuf,
        bytes: Vec<u8>,
    },
    /// The header of the segment that is written to was damaged.
    Header {
        path: PathBuf,
        header: SegmentHeader,
    },
}

/// Where a log goes on.
#[derive(Clone, Copy)]
struct Next {
    offset: i64,
    index: u64,
}

/// `now_ms`: the wall clock.
pub fn plan(data_dir: &DataDir, log: LogId, now_ms: i64) -> Result<LogPlan> {
    let known = data_dir.checkpoints.get(&log);
    let journaled = data_dir.journaled.get(&log);
    let mut builder = StateBuilder::new(log);
    let mut plan = Planning {
        losses: Vec::new(),
        changes: Vec::new(),
        first: None,
        has_holes: false,
        segments: 0,
        batches: 0,
    };
    let files = data_dir.segments(log)?;
    let has_more = known.is_some() || journaled.is_some_and(|journaled| !journaled.appends.is_empty());
    if let (true, false, Some(dir)) = (files.is_empty(), has_more, data_dir.dirs.get(&log)) {
        plan.losses.push(format!("{} is empty: what it held is not known", dir.display()));
        plan.changes.push(Change::MoveAside(dir.clone()));
    }
    let reach = |from: i64| journaled.map_or(Ok(from), |journaled| data_dir.reach(journaled, from));
    let (mut end, active) = plan.segments(&files, log, known, &mut builder, now_ms, reach)?;
    // Without a segment a log goes on where the journal has its first batch, or where the checkpoint says it ended.
    let known_end = known.map(|known| Next { offset: known.next_offset, index: known.next_index.0 });
    let first_entry = journaled.and_then(|journaled| journaled.appends.values().next());
    let from_journal =
        first_entry.map(|place| Next { offset: place.header.base_offset, index: place.header.index.0 });
    if end.is_none() {
        end = from_journal.or(known_end);
        if let (Some(at), Some(known)) = (end, known)
            && at.offset > known.log_start_offset
        {
            plan.losses
                .push(format!("offsets {} to {}: no file has them", known.log_start_offset, at.offset));
        }
    }
    let end = end.unwrap_or(Next { offset: 0, index: 0 });
    let (mut entries, last) = plan.journaled(data_dir, journaled, end)?;
    if let Some(known) = known_end.filter(|known| known.offset > last.offset) {
        plan.losses.push(format!(
            "offsets {} to {}: no file has them, and new records will take them",
            last.offset, known.offset
        ));
    }
    let first = plan.first.unwrap_or(end.offset);
    if let (Some(first), Some(known)) = (plan.first, known)
        && first > known.log_start_offset
    {
        plan.losses.push(format!("offsets {} to {first}: no file has them", known.log_start_offset));
    }
    let told_start = known
        .map(|known| known.log_start_offset)
        .max(journaled.and_then(|journaled| journaled.log_start_offset));
    let log_start_offset = told_start.unwrap_or(first).clamp(first.min(end.offset), last.offset);
    let producer_id_max = builder.producer_id_max();
    let found = Found {
        // What is in the journal alone is behind it: its own entry says so.
        log_start_offset: log_start_offset.min(end.offset),
        next_offset: end.offset,
        next_index: RaftIndex(end.index),
        active,
        has_holes: plan.has_holes,
    };
    let state = builder.finish(found, known);
    if log_start_offset > end.offset {
        entries.push((
            EntryHeader {
                log,
                kind: EntryKind::LogStart,
                index: RaftIndex(0),
                base_offset: log_start_offset,
                term: 0,
                len: 0,
            },
            Bytes::new(),
        ));
    }
    Ok(LogPlan {
        log,
        state,
        entries,
        segments: plan.segments,
        batches: plan.batches,
        next_offset: last.offset,
        was_known: known.is_some(),
        producer_id_max,
        losses: plan.losses,
        changes: plan.changes,
    })
}

struct Planning {
    losses: Vec<String>,
    changes: Vec<Change>,
    /// Where the first segment begins.
    first: Option<i64>,
    /// Batches are missing between those that are there.
    has_holes: bool,
    segments: usize,
    batches: u64,
}

impl Planning {
    /// Goes through the segments. Where the log goes on behind them, and the one that is written to.
    fn segments(
        &mut self,
        files: &crate::log::data_dir::SegmentFiles,
        log: LogId,
        known: Option<&LogCheckpoint>,
        builder: &mut StateBuilder,
        now_ms: i64,
        reach: impl Fn(i64) -> Result<i64>,
    ) -> Result<(Option<Next>, Option<ActiveSegmentState>)> {
        let (mut next, mut active): (Option<Next>, _) = (None, None);
        let last_base = files.keys().next_back().copied();
        for (base, (path, len)) in files {
            let is_last = Some(*base) == last_base;
            // A power cut leaves holes in the last one alone: those before it are synced.
            let journal = |from| if is_last { reach(from) } else { Ok(from) };
            let base_index = match (next, known.and_then(|known| known.active.as_ref())) {
                (Some(next), _) if next.offset == *base => next.index,
                (_, Some(active)) if active.base_offset == *base => active.base_index.0,
                _ if *base == 0 => 0,
                _ => next.map_or(*base as u64, |next| next.index),
            };
            let scanned = segment::scan(path, *base, base_index, builder, now_ms, journal)?;
            let is_foreign =
                scanned.header.is_some_and(|header| header.log != log || header.base_offset != *base);
            if is_foreign || next.is_some_and(|next| next.offset > *base) {
                self.losses.push(format!("{}: it does not belong here, and goes aside", path.display()));
                self.changes.push(Change::MoveAside(path.clone()));
                continue;
            }
            self.first.get_or_insert(*base);
            self.segments += 1;
            self.batches += scanned.batches;
            if let Some(before) = next.filter(|next| next.offset < *base) {
                self.losses.push(format!("offsets {} to {}: no file has them", before.offset, base));
            }
            for Hole { position, from_offset, to_offset } in &scanned.holes {
                let path = path.display();
                self.losses.push(format!(
                    "offsets {from_offset} to {to_offset}: {path} is damaged at byte {position}; fetches of these fail"
                ));
            }
            let holes = scanned.holes.len() as u64;
            self.has_holes |= holes > 0 || next.is_some_and(|next| next.offset < *base);
            let after =
                Next { offset: scanned.next_offset, index: scanned.base_index + scanned.batches + holes };
            next = Some(after);
            if !is_last {
                continue;
            }
            let is_sealed = scanned.footer.is_some_and(|footer| {
                footer.end == *len && footer.end == scanned.end && footer.next_offset == scanned.next_offset
            });
            if is_sealed && scanned.header.is_some() {
                continue;
            }
            if !scanned.tail.is_empty() {
                let position = known
                    .and_then(|known| known.active.as_ref())
                    .filter(|active| active.base_offset == *base)
                    .map_or(0, |active| active.position);
                if position > scanned.end && !scanned.is_cut {
                    self.losses.push(format!(
                        "what follows offset {} in {}: it is damaged at byte {}",
                        after.offset,
                        path.display(),
                        scanned.end
                    ));
                }
                let name = path.with_extension(format!("log.from-byte-{}", scanned.end));
                self.changes.push(Change::CopyAside { name, bytes: scanned.tail });
            }
            let header = scanned.header.unwrap_or(SegmentHeader {
                log,
                base_offset: *base,
                base_index: RaftIndex(scanned.base_index),
                created_ms: now_ms,
            });
            if scanned.header.is_none() {
                self.changes.push(Change::Header { path: path.clone(), header });
            }
            active = Some(ActiveSegmentState {
                base_offset: *base,
                base_index: header.base_index,
                created_ms: header.created_ms,
                position: scanned.end.max(FIRST_BATCH),
                max_timestamp: scanned.max_timestamp,
                last_page: Bytes::new(),
            });
        }
        Ok((next, active))
    }

    /// The sound batches of the journal that follow `end`, and where they lead.
    fn journaled(
        &mut self,
        data_dir: &DataDir,
        journaled: Option<&Journaled>,
        end: Next,
    ) -> Result<(Vec<(EntryHeader, Bytes)>, Next)> {
        let (mut entries, mut next) = (Vec::new(), end);
        for place in journaled.into_iter().flat_map(|journaled| journaled.appends.values()) {
            if place.header.base_offset < next.offset {
                continue;
            }
            let batch = data_dir.journals[place.journal].read(place.at, place.header.len)?;
            let header = BatchHeader::parse(&batch).ok().filter(|header| {
                is_sound(&batch)
                    && header.size() == batch.len()
                    && header.base_offset == place.header.base_offset
            });
            let Some(header) = header.filter(|header| header.base_offset == next.offset) else {
                self.losses.push(format!(
                    "offsets from {} on in {}: it is damaged, or what comes before is lost",
                    next.offset,
                    data_dir.journals[place.journal].path.display()
                ));
                break;
            };
            entries.push((EntryHeader { index: RaftIndex(next.index), ..place.header }, batch));
            next = Next { offset: header.next_offset(), index: next.index + 1 };
        }
        Ok((entries, next))
    }
}
