//! A log's state and a journal, made anew from what the files hold: for `corectl log repair`, offline. No I/O of its own.

use crate::batch;
use crate::format::checkpoint::{
    ActiveSegmentState, CheckpointHeader, CheckpointWriter, Committed, LogCheckpoint,
};
use crate::format::entry::{EntryHeader, unprotected};
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::journal_file::JournalFileHeader;
use crate::format::{PAGE, page_ceil};
use crate::ids::{LogId, RaftIndex};
use crate::log::produced;
use crate::producers::Producers;
use crate::terms::{NO_TERM, TermHistory, TermStart};
use corelog_wire::records::BatchHeader;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Builds a log's state from its segments' batches, oldest first.
pub struct StateBuilder {
    log: LogId,
    terms: Vec<TermStart>,
    /// Of the first batch; what was before it is gone.
    first: Option<RaftIndex>,
    producers: Producers,
}

/// What only the files tell.
pub struct Found {
    pub log_start_offset: i64,
    /// Behind the last batch that is in a segment.
    pub next_offset: i64,
    pub next_index: RaftIndex,
    pub active: Option<ActiveSegmentState>,
    /// Batches are missing among those that were noted: their Raft indexes are guesses.
    pub has_holes: bool,
}

impl StateBuilder {
    pub fn new(log: LogId) -> StateBuilder {
        StateBuilder { log, terms: Vec::new(), first: None, producers: Producers::default() }
    }

    /// The next sound batch, and its Raft index.
    pub fn note(&mut self, header: &BatchHeader, index: RaftIndex, now_ms: i64) {
        let term = header.partition_leader_epoch;
        self.first.get_or_insert(index);
        // No checksum covers it, and it never falls: a batch above those after it is damaged.
        while self.terms.pop_if(|last| last.term > term).is_some() {}
        if self.terms.last().is_none_or(|last| last.term < term) {
            self.terms.push(TermStart { term, index, offset: header.base_offset });
        }
        if let Some(claim) = batch::claim(header) {
            self.producers.replay(&claim, produced(&claim, header), now_ms, usize::MAX);
        }
    }

    /// The greatest producer id seen.
    pub fn producer_id_max(&self) -> Option<i64> {
        self.producers.entries().map(|(id, _)| id).max()
    }

    /// `known`: what a checkpoint says of the log, for what the batches do not tell.
    pub fn finish(mut self, found: Found, known: Option<&LogCheckpoint>) -> LogCheckpoint {
        let (offset, index) = (found.next_offset, found.next_index);
        if let Some(known) = known {
            // Those that were seen only in batches that are deleted by now.
            let seen: BTreeSet<i64> = self.producers.entries().map(|(id, _)| id).collect();
            let unseen = known.producers.iter().filter(|(id, entry)| {
                !seen.contains(id) && entry.batches.back().is_none_or(|last| last.last_offset < offset)
            });
            unseen.for_each(|(id, entry)| self.producers.restore(*id, entry.clone()));
        }
        let terms = self.terms(&found, known);
        let term = terms.latest().unwrap_or(0);
        LogCheckpoint {
            log: self.log,
            durable_through: 0,
            log_start_offset: found.log_start_offset,
            next_offset: offset,
            next_index: index,
            term,
            hard_state: known.map(|known| known.hard_state).unwrap_or_default(),
            flushed_offset: offset,
            flushed_index: index,
            active: found.active,
            terms,
            membership: known.and_then(|known| known.membership.clone()),
            reset: None,
            incoming: None,
            committed: Committed { offset, index, term, ..Committed::default() },
            producers: self.producers.entries().map(|(id, entry)| (id, entry.clone())).collect(),
        }
    }

    fn terms(&self, found: &Found, known: Option<&LogCheckpoint>) -> TermHistory {
        let known = known.map(|known| &known.terms);
        let starts = match (self.terms.is_empty(), known) {
            (true, Some(known)) => known.starts(),
            _ => &self.terms,
        };
        let Some(first) = self.first.filter(|_| !found.has_holes) else {
            let epochs = starts.iter().map(|start| (start.term, start.offset));
            let terms = TermHistory::without_indexes(found.next_index, found.log_start_offset, epochs);
            return terms.unwrap_or_default();
        };
        let last_gone = first.0.checked_sub(1).map(RaftIndex);
        let before = last_gone.and_then(|index| match known {
            Some(known) if known.first() == first => Some(known.before()),
            known => known?.term_at(index),
        });
        let mut terms = TermHistory::beginning_at(first, before.unwrap_or(NO_TERM), found.log_start_offset);
        starts.iter().for_each(|start| terms.note(start.term, start.index, start.offset));
        terms
    }
}

/// Whether a batch's bytes are what its checksum says.
pub fn is_sound(batch: &[u8]) -> bool {
    batch::crc_matches([batch])
}

/// The checkpoint of a generation of one shard that begins with `logs`; its journal's groups go up to `last_group`.
pub fn checkpoint(generation: u64, logs: &[LogCheckpoint], last_group: u64) -> Vec<u8> {
    let mut writer = CheckpointWriter::new(&[]);
    for log in logs {
        writer.add(log, log.producers.iter().map(|(id, entry)| (*id, entry)).collect::<Vec<_>>().into_iter());
    }
    writer.finish(CheckpointHeader {
        generation,
        shards: 1,
        complete: true,
        replay_from: 1,
        durable_through: last_group,
        ..CheckpointHeader::default()
    })
}

/// Writes the first journal file of a generation's shard 0.
pub struct JournalWriter<W> {
    out: W,
    of: GroupHeader,
    payload: Vec<u8>,
}

impl<W: Write> JournalWriter<W> {
    /// A group is written when it has so many bytes.
    const GROUP_BYTES: usize = 1 << 20;

    /// `salt`: a random number.
    pub fn begin(mut out: W, generation: u64, salt: u64) -> io::Result<JournalWriter<W>> {
        let mut page = vec![0; PAGE];
        JournalFileHeader { generation, shard: 0, salt, first_sequence: 1 }.encode(&mut page);
        out.write_all(&page)?;
        let of = GroupHeader {
            generation,
            salt,
            sequence: 1,
            durable_through: 0,
            shard: 0,
            payload_len: 0,
            entries: 0,
            entries_crc: 0,
        };
        Ok(JournalWriter { out, of, payload: Vec::new() })
    }

    pub fn push(&mut self, entry: &EntryHeader, batch: &[u8]) -> io::Result<()> {
        let encoded = entry.encode();
        let from = self.payload.len();
        self.payload.extend_from_slice(&encoded);
        self.payload.extend_from_slice(batch);
        self.payload.resize(from + entry.span(), 0);
        self.of.entries += 1;
        self.of.entries_crc = crc32c::crc32c_append(self.of.entries_crc, &encoded);
        self.of.entries_crc = crc32c::crc32c_append(self.of.entries_crc, unprotected(batch));
        if self.payload.len() >= Self::GROUP_BYTES { self.end_group() } else { Ok(()) }
    }

    fn end_group(&mut self) -> io::Result<()> {
        let header = GroupHeader { payload_len: self.payload.len() as u32, ..self.of };
        self.out.write_all(&header.encode())?;
        self.out.write_all(&self.payload)?;
        let len = GROUP_HEADER + self.payload.len();
        self.out.write_all(&vec![0; page_ceil(len as u64) as usize - len])?;
        self.payload.clear();
        let sequence = self.of.sequence;
        self.of = GroupHeader {
            sequence: sequence + 1,
            durable_through: sequence,
            entries: 0,
            entries_crc: 0,
            ..self.of
        };
        Ok(())
    }

    /// Ends it with a marker, which proves those before it durable. What it was written to, and the last group.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        if !self.payload.is_empty() {
            self.end_group()?;
        }
        let last = self.of.sequence;
        self.end_group()?;
        Ok((self.out, last))
    }
}
