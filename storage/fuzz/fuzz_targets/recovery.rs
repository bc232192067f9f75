#![no_main]
//! What a start finds in `journal/`: files and a checkpoint, of which some are as a broker writes them and some are not.
//!
//! Input of zeros gives sound files; every part can differ from that by little or be bytes of the fuzzer's, and at the
//! end single bytes are changed behind all checksums. What is recovered is then served, written to segments, and
//! recovered once more: the second time must find what the first one had.

use corelog_io::fs;
use corelog_io::sim::Sim;
use corelog_storage::format::PAGE;
use corelog_storage::format::checkpoint::{
    CheckpointHeader, CheckpointWriter, Committed, JournalEnd, LogCheckpoint,
};
use corelog_storage::format::entry::{EntryHeader, EntryKind, HardState, entry_span, unprotected};
use corelog_storage::format::group::{GROUP_HEADER, GroupHeader};
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::{RaftIndex, TermHistory, paths};
use corelog_storage_fuzz::{Batch, DIR, JOURNAL_FILE_BYTES, Near, log_id, serve};
use corelog_wire::records::BatchHeader;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};

const LOGS: usize = 3;

#[derive(Arbitrary, Debug)]
struct Journal {
    checkpoint: Option<Checkpoint>,
    files: Vec<File>,
    /// File, byte, what is changed in it.
    damage: Vec<(u8, u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct File {
    generation_in_name: Near,
    generation: Near,
    shard: Near,
    first_sequence: Near,
    parts: Vec<Part>,
}

#[derive(Arbitrary, Debug)]
enum Part {
    Group {
        generation: Near,
        sequence: Near,
        durable_through: Near,
        entries: Vec<Entry>,
        more: Near,
        crc: Near,
    },
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Entry {
    log: u8,
    kind: u8,
    index: Near,
    base_offset: Near,
    term: i8,
    body: Body,
}

#[derive(Arbitrary, Debug)]
enum Body {
    Batch(Batch),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Checkpoint {
    generation: Near,
    shards: Near,
    complete: bool,
    replay_from: Near,
    durable_through: Near,
    end: Option<(Near, Near)>,
    logs: Vec<LogState>,
}

#[derive(Arbitrary, Debug)]
struct LogState {
    log: u8,
    durable_through: Near,
    log_start_offset: Near,
    next_offset: Near,
    next_index: Near,
    flushed_offset: Near,
    flushed_index: Near,
    epochs: Vec<(u8, u8)>,
}

/// Where each log and the journal are while files are made.
#[derive(Default)]
struct Progress {
    sequence: u64,
    ends: [(u64, u64); LOGS],
}

impl Entry {
    fn encode(&self, progress: &mut Progress, crc: &mut u32, out: &mut Vec<u8>) {
        let end = &mut progress.ends[usize::from(self.log) % LOGS];
        let kind = match self.kind % 16 {
            13 => EntryKind::Truncate,
            14 => EntryKind::HardState,
            15 => EntryKind::LogStart,
            _ => EntryKind::Append,
        };
        let payload = match (&self.body, kind) {
            (Body::Bytes(bytes), EntryKind::Append) => bytes.clone(),
            (Body::Batch(batch), EntryKind::Append) => batch.encode(end.0),
            _ => Vec::new(),
        };
        let header = EntryHeader {
            log: log_id(self.log % LOGS as u8),
            kind,
            index: RaftIndex(self.index.to(end.1)),
            base_offset: self.base_offset.to(end.0) as i64,
            term: self.term.into(),
            len: payload.len() as u32,
        };
        match (kind, BatchHeader::parse(&payload)) {
            (EntryKind::Append, Ok(batch)) => *end = (batch.next_offset() as u64, end.1.wrapping_add(1)),
            (EntryKind::Truncate, _) => *end = (header.base_offset as u64, header.index.0),
            _ => {}
        }
        let from = out.len();
        out.extend_from_slice(&header.encode());
        *crc = crc32c::crc32c_append(*crc, &header.encode());
        *crc = crc32c::crc32c_append(*crc, unprotected(&payload));
        out.extend_from_slice(&payload);
        out.resize(from + entry_span(payload.len()), 0);
    }
}

impl File {
    fn encode(&self, progress: &mut Progress) -> Vec<u8> {
        let mut out = vec![0; PAGE];
        let header = JournalFileHeader {
            generation: self.generation.to(1),
            shard: self.shard.to(0) as u32,
            salt: 7,
            first_sequence: self.first_sequence.to(progress.sequence + 1),
        };
        header.encode(&mut out);
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Group { generation, sequence, durable_through, entries, more, crc: crc_is } => {
                    progress.sequence += 1;
                    let (mut payload, mut crc) = (Vec::new(), 0);
                    for entry in entries {
                        entry.encode(progress, &mut crc, &mut payload);
                    }
                    let sequence = sequence.to(progress.sequence);
                    let header = GroupHeader {
                        generation: generation.to(1),
                        salt: 7,
                        sequence,
                        durable_through: durable_through.to(sequence.saturating_sub(1)),
                        shard: 0,
                        payload_len: more.to(payload.len() as u64) as u32,
                        entries: entries.len() as u32,
                        entries_crc: crc_is.to(crc.into()) as u32,
                    };
                    out.extend_from_slice(&header.encode());
                    assert_eq!(out.len() % PAGE, GROUP_HEADER);
                    out.extend_from_slice(&payload);
                }
            }
            out.resize(out.len().next_multiple_of(PAGE), 0);
            if out.len() >= JOURNAL_FILE_BYTES {
                break;
            }
        }
        out
    }
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let end = |(generation, sequence): &(Near, Near)| JournalEnd {
            generation: generation.to(1),
            shard: 0,
            sequence: sequence.to(2),
        };
        let mut writer = CheckpointWriter::new(&self.end.iter().map(end).collect::<Vec<_>>());
        for state in self.logs.iter().take(LOGS) {
            let epochs = state.epochs.iter().map(|(epoch, start)| (i32::from(*epoch), i64::from(*start)));
            let next = RaftIndex(state.next_index.to(0));
            let next_offset = state.next_offset.to(0) as i64;
            let log = LogCheckpoint {
                log: log_id(state.log % LOGS as u8),
                durable_through: state.durable_through.to(0),
                log_start_offset: state.log_start_offset.to(0) as i64,
                next_offset,
                next_index: next,
                term: 0,
                hard_state: HardState::default(),
                flushed_offset: state.flushed_offset.to(0) as i64,
                flushed_index: RaftIndex(state.flushed_index.to(0)),
                active: None,
                terms: TermHistory::without_indexes(next, 0, epochs).unwrap_or_default(),
                membership: None,
                reset: None,
                incoming: None,
                producers: Vec::new(),
                committed: Committed { offset: next_offset, index: next, ..Committed::default() },
            };
            writer.add(&log, std::iter::empty());
        }
        writer.finish(CheckpointHeader {
            generation: self.generation.to(1),
            shards: self.shards.to(1) as u32,
            complete: self.complete,
            replay_from: self.replay_from.to(1),
            durable_through: self.durable_through.to(0),
            ..CheckpointHeader::default()
        })
    }
}

impl Journal {
    /// Paths and contents.
    fn encode(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = paths::journal_dir(Path::new(DIR));
        let mut progress = Progress::default();
        let mut files = Vec::new();
        for (number, file) in self.files.iter().enumerate().take(4) {
            let generation = match file.generation_in_name.to(1) {
                // Before the last generations a start may succeed that leaves none for the next one.
                large if large > u64::MAX / 2 => u64::MAX,
                generation => generation,
            };
            let name = paths::journal_file(generation, 0, number);
            files.push((dir.join(name), file.encode(&mut progress)));
        }
        if let Some(checkpoint) = &self.checkpoint {
            files.push((dir.join(paths::checkpoint_file(1, 0)), checkpoint.encode()));
        }
        for (file, at, change) in &self.damage {
            let count = files.len().max(1);
            if let Some((_, bytes)) = files.get_mut(usize::from(*file) % count) {
                let at = usize::from(*at) % bytes.len();
                bytes[at] ^= change;
            }
        }
        files
    }
}

fuzz_target!(|journal: Journal| {
    let files = journal.encode();
    let sim = Sim::new(1);
    sim.block_on(async move {
        fs::create_dir_all(&paths::journal_dir(Path::new(DIR))).await.expect("the directory is made");
        for (path, bytes) in files {
            fs::write_atomic(&path, &bytes).await.expect("the file is written");
        }
        if let Ok(first) = serve().await {
            let second = serve().await.expect("what was closed opens again");
            for end in first {
                assert!(second.contains(&end), "{end:?} was served, then {second:?}");
            }
        }
    });
});
