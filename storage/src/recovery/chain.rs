//! One journal: the files that one shard wrote in one generation, and its checkpoint.
//!
//! Groups are walked in order of their sequence. Where the walk meets a group that is not as it was written, one of
//! two things has happened. If nothing proves that the group had been on stable storage, its write (or that of a
//! group before) never completed and nobody was told it had: the journal ends there. If a later group or the
//! checkpoint says that it was durable, the bytes have been damaged since: that is an error, never cut away.

use super::window::Window;
use super::{RecoveredEntry, RecoveredLog};
use crate::batch;
use crate::error::StorageError;
use crate::format::checkpoint::{self, LogCheckpoint};
use crate::format::entry::{EntryHeader, EntryKind, unprotected};
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::journal_file::JournalFileHeader;
use crate::format::{PAGE, Refused};
use crate::ids::LogId;
use crate::paths;
use bytes::Bytes;
use corelog_io::{File, OpenOptions, fs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Paths and lengths of a journal's files.
#[derive(Default)]
pub struct ChainFiles {
    /// By number in the ring.
    pub journals: BTreeMap<usize, (PathBuf, u64)>,
    pub checkpoint: Option<(PathBuf, u64)>,
}

struct JournalFile {
    path: PathBuf,
    window: Window,
    /// `None`: unused, or its header was damaged.
    header: Option<JournalFileHeader>,
}

struct Chain {
    generation: u64,
    shard: u32,
    /// In order of their first sequence; those without a header last.
    files: Vec<JournalFile>,
    replay_from: u64,
    /// The checkpoint, or a later process that took the journal over, says that groups up to this one were durable.
    durable_through: u64,
    /// A later process took the journal over up to this group: what follows does not count.
    end: Option<u64>,
    checkpoints: BTreeMap<LogId, LogCheckpoint>,
    logs: BTreeMap<LogId, RecoveredLog>,
}

enum Walk {
    /// At the end that is known, after this group.
    Ended(u64),
    Stopped(Stop),
}

/// Where the walk stopped.
struct Stop {
    file: usize,
    position: u64,
    sequence: u64,
    what: &'static str,
}

/// Reads one journal: what it and its checkpoint say of each log, and its last group. `end`: the last group that a
/// later process took over, if there was one.
pub async fn read(
    dir: &Path,
    generation: u64,
    shard: u32,
    files: ChainFiles,
    end: Option<u64>,
) -> Result<(BTreeMap<LogId, RecoveredLog>, u64), StorageError> {
    let mut chain = Chain {
        generation,
        shard,
        files: Vec::new(),
        replay_from: 1,
        durable_through: end.unwrap_or(0),
        end,
        checkpoints: BTreeMap::new(),
        logs: BTreeMap::new(),
    };
    let mut has_begun = false;
    match files.checkpoint {
        Some((path, len)) => has_begun = chain.read_checkpoint(&path, len).await?,
        // Before all were written first, the first generation had none until its first flush.
        None if generation > 1 => {
            let path = dir.join(paths::checkpoint_file(generation, shard));
            return Err(StorageError::missing(&path, "its journal is there, which was begun after it"));
        }
        None => {}
    }
    // They come into being in the order of their numbers, the first before any but the first checkpoint.
    let numbers = files.journals.keys().copied().chain(has_begun.then_some(0));
    let last = numbers.max();
    if let Some(gap) = last.and_then(|last| (0..=last).find(|number| !files.journals.contains_key(number))) {
        let path = dir.join(paths::journal_file(generation, shard, gap));
        return Err(StorageError::missing(&path, "a file that was made after it is there"));
    }
    for (path, len) in files.journals.into_values() {
        chain.open_file(path, len).await?;
    }
    chain.files.sort_by_key(|f| f.header.map_or(u64::MAX, |h| h.first_sequence));
    let last = match chain.walk().await? {
        Walk::Ended(last) => last,
        Walk::Stopped(stop) => {
            chain.prove_torn(&stop).await?;
            stop.sequence - 1
        }
    };
    for (id, checkpoint) in chain.checkpoints {
        chain.logs.entry(id).or_default().checkpoint = Some((generation, checkpoint));
    }
    Ok((chain.logs, last))
}

impl Chain {
    /// Whether it is another than the one that is written before the journal is begun.
    async fn read_checkpoint(&mut self, path: &Path, len: u64) -> Result<bool, StorageError> {
        let bytes = fs::read(path, len as usize).await.map_err(StorageError::io("read", path))?;
        let (header, logs) = checkpoint::decode(&bytes).map_err(|refused| match refused {
            Refused::Version(_) => StorageError::Version { path: path.into(), what: refused.to_string() },
            _ => StorageError::corrupt(path, 0, format!("it is no checkpoint: {refused}")),
        })?;
        if (header.generation, header.shard) != (self.generation, self.shard) {
            return Err(StorageError::corrupt(path, 0, "it is another journal's checkpoint"));
        }
        self.replay_from = header.replay_from;
        self.durable_through = self.durable_through.max(header.durable_through);
        self.checkpoints = logs.into_iter().map(|log| (log.log, log)).collect();
        Ok(header.complete || header.durable_through > 0 || header.logs > 0)
    }

    async fn open_file(&mut self, path: PathBuf, len: u64) -> Result<(), StorageError> {
        let options = OpenOptions { read: true, write: true, create: false, direct: true };
        let file = File::open(&path, options).await.map_err(StorageError::io("open", &path))?;
        // After a kill the file may hold what was written but never synced. We are about to serve it: make it last.
        file.sync_data().await.map_err(StorageError::io("sync", &path))?;
        let mut window = Window::new(file, len);
        let page =
            window.at(0, PAGE as u64).await.map_err(StorageError::io("read", &path))?.unwrap_or_default();
        let header = match JournalFileHeader::decode(&page) {
            Ok(header) if (header.generation, header.shard) == (self.generation, self.shard) => Some(header),
            Ok(_) => return Err(StorageError::corrupt(&path, 0, "the file belongs to another journal")),
            Err(refused @ Refused::Version(_)) => {
                return Err(StorageError::Version { path, what: refused.to_string() });
            }
            Err(_) => None,
        };
        self.files.push(JournalFile { path, window, header });
        Ok(())
    }

    /// Goes through the groups in order and keeps the entries that matter.
    async fn walk(&mut self) -> Result<Walk, StorageError> {
        let first_sequence = |f: &JournalFile| f.header.map(|h| h.first_sequence);
        let holds_start = |f: &JournalFile| first_sequence(f).is_some_and(|first| first <= self.replay_from);
        let Some(mut current) = self.files.iter().rposition(holds_start) else {
            let stop = Stop {
                file: 0,
                position: 0,
                sequence: self.replay_from,
                what: "the header of the journal file is missing",
            };
            return Ok(match self.files.is_empty() || self.end.is_some_and(|end| end < self.replay_from) {
                true => Walk::Ended(self.replay_from - 1),
                false => Walk::Stopped(stop),
            });
        };
        let mut sequence = first_sequence(&self.files[current]).expect("it holds the start");
        loop {
            let mut position = PAGE as u64;
            let what = loop {
                if self.end.is_some_and(|end| sequence > end) {
                    return Ok(Walk::Ended(sequence - 1));
                }
                match self.group(current, position, sequence).await? {
                    Ok((header, group)) => {
                        if sequence >= self.replay_from {
                            match self.keep(current, position, &header, &group).await? {
                                None => {}
                                Some(stop) => return Ok(Walk::Stopped(stop)),
                            }
                        }
                        position += header.disk_len();
                        sequence += 1;
                    }
                    Err(what) => {
                        // What lies below the replay point is only walked to find it.
                        let Some(next) = self.group_after(current, position, sequence).await? else {
                            sequence = sequence.max(self.replay_from);
                            break what;
                        };
                        (position, sequence) = next;
                    }
                }
            };
            // The rest of a file is unused when the next file goes on where this one ends.
            let next = self.files.get(current + 1).and_then(first_sequence);
            if next == Some(sequence) {
                current += 1;
                continue;
            }
            return Ok(Walk::Stopped(Stop { file: current, position, sequence, what }));
        }
    }

    /// Where the next group after number `sequence`, which should begin at `position`, begins, and its number: of those
    /// up to the replay point.
    async fn group_after(
        &mut self,
        file: usize,
        position: u64,
        sequence: u64,
    ) -> Result<Option<(u64, u64)>, StorageError> {
        if sequence >= self.replay_from {
            return Ok(None);
        }
        let mut at = position + PAGE as u64;
        while at < self.files[file].window.end() {
            if let Some(header) = self.group_header(file, at).await?
                && header.sequence > sequence
                && header.sequence <= self.replay_from
            {
                return Ok(Some((at, header.sequence)));
            }
            at += PAGE as u64;
        }
        Ok(None)
    }

    /// The group at `position`, if it is number `sequence` and whole: all but the batches' own checksums is checked.
    async fn group(
        &mut self,
        file: usize,
        position: u64,
        sequence: u64,
    ) -> Result<Result<(GroupHeader, Bytes), &'static str>, StorageError> {
        let Some(header) = self.group_header(file, position).await? else {
            return Ok(Err("no journal group begins here"));
        };
        if header.sequence != sequence {
            return Ok(Err("the journal group that begins here is another than the one that follows"));
        }
        let JournalFile { path, window, .. } = &mut self.files[file];
        let read = window.at(position, header.disk_len()).await.map_err(StorageError::io("read", path))?;
        let Some(group) = read else {
            return Ok(Err("the journal group runs past the end of the file"));
        };
        let payload = group.slice(GROUP_HEADER..GROUP_HEADER + header.payload_len as usize);
        let (mut crc, mut rest, mut entries) = (0, &payload[..], 0);
        while !rest.is_empty() {
            let Ok(entry) = EntryHeader::decode(rest) else {
                return Ok(Err("an entry of the journal group is damaged"));
            };
            let Some((this, after)) = rest.split_at_checked(entry.span()) else {
                return Ok(Err("an entry runs past the end of its journal group"));
            };
            let (head, body) = this.split_at(crate::format::entry::ENTRY_HEADER);
            crc = crc32c::crc32c_append(crc, head);
            crc = crc32c::crc32c_append(crc, unprotected(&body[..entry.len as usize]));
            entries += 1;
            rest = after;
        }
        if crc != header.entries_crc || entries != header.entries {
            return Ok(Err("the checksum of the journal group's entries does not match"));
        }
        Ok(Ok((header, payload)))
    }

    /// A group header of this journal at `position`; of a file without header, any of the generation and shard.
    async fn group_header(
        &mut self,
        file: usize,
        position: u64,
    ) -> Result<Option<GroupHeader>, StorageError> {
        let salt = self.files.iter().find_map(|f| f.header).map(|h| h.salt);
        let JournalFile { path, window, .. } = &mut self.files[file];
        let page = window.at(position, PAGE as u64).await.map_err(StorageError::io("read", path))?;
        let Some(page) = page else { return Ok(None) };
        match GroupHeader::decode(&page) {
            Ok(h) => {
                let ours = (h.generation, h.shard) == (self.generation, self.shard)
                    && salt.is_none_or(|salt| salt == h.salt);
                Ok(ours.then_some(h))
            }
            Err(_) => Ok(None),
        }
    }

    /// Keeps the entries of a whole group that the logs will need. `Some`: a batch's checksum is wrong and nothing
    /// proves that the group had been durable.
    async fn keep(
        &mut self,
        file: usize,
        position: u64,
        header: &GroupHeader,
        payload: &Bytes,
    ) -> Result<Option<Stop>, StorageError> {
        let damaged = damaged_entry(payload);
        let mut evidence = None;
        if let Some(at) = damaged {
            let what = "the checksum of a batch in the journal group does not match";
            let stop = Stop { file, position, sequence: header.sequence, what };
            match self.prove_torn(&stop).await {
                Ok(()) => return Ok(Some(stop)),
                Err(StorageError::Corrupt { path, .. }) => {
                    let entry_at = position + (GROUP_HEADER + at) as u64;
                    evidence = Some(StorageError::corrupt(
                        &path,
                        entry_at,
                        "the checksum of a batch does not match",
                    ));
                }
                Err(other) => return Err(other),
            }
        }
        let mut at = 0;
        while at < payload.len() {
            let entry = EntryHeader::decode(&payload[at..]).expect("the group was checked");
            let from = at + crate::format::entry::ENTRY_HEADER;
            let batch = payload.slice(from..from + entry.len as usize);
            if self.matters(&entry, header.sequence) {
                let log = self.logs.entry(entry.log).or_default();
                let sound = entry.kind != EntryKind::Append || batch::crc_matches([&batch[..]]);
                if let (false, Some(evidence)) = (sound, &evidence) {
                    log.damaged.get_or_insert_with(|| evidence.to_string().into());
                }
                if log.damaged.is_none() {
                    log.entries.push(RecoveredEntry {
                        generation: self.generation,
                        sequence: header.sequence,
                        header: entry,
                        payload: batch,
                    });
                }
            }
            at += entry.span();
        }
        Ok(None)
    }

    /// Whether an entry says something that the checkpoint and the segments do not.
    fn matters(&self, entry: &EntryHeader, sequence: u64) -> bool {
        match self.checkpoints.get(&entry.log) {
            None => true,
            Some(checkpoint) => match entry.kind {
                EntryKind::Append => entry.index >= checkpoint.flushed_index,
                EntryKind::Truncate => true,
                EntryKind::HardState | EntryKind::LogStart => sequence > checkpoint.durable_through,
            },
        }
    }

    /// The walk stopped: fails if anything proves that the group it stopped at had been durable.
    async fn prove_torn(&mut self, stop: &Stop) -> Result<(), StorageError> {
        let corrupt = |chain: &Chain, by: String| {
            let what =
                format!("{}, although group {} had been on stable storage: {by}", stop.what, stop.sequence);
            Err(StorageError::corrupt(&chain.files[stop.file].path, stop.position, what))
        };
        if self.durable_through >= stop.sequence {
            let by = format!("a checkpoint covers groups up to {}", self.durable_through);
            return corrupt(self, by);
        }
        for file in 0..self.files.len() {
            let unused = self.files[file].header.is_none();
            let mut position = if file == stop.file { stop.position.max(PAGE as u64) } else { PAGE as u64 };
            // Files that were walked through hold nothing above the stop.
            if !unused && file < stop.file {
                continue;
            }
            while position < self.files[file].window.end() {
                if let Some(header) = self.group_header(file, position).await?
                    && header.sequence >= stop.sequence
                {
                    if header.durable_through >= stop.sequence {
                        let path = self.files[file].path.display();
                        let by = format!("group {} in {path} at byte {position} says so", header.sequence);
                        return corrupt(self, by);
                    }
                    if unused {
                        // A group is written only after its file's header is durable.
                        let what = "the file's header is damaged: groups of this journal follow it";
                        return Err(StorageError::corrupt(&self.files[file].path, 0, what));
                    }
                }
                position += PAGE as u64;
            }
        }
        Ok(())
    }
}

/// Where the first batch with a wrong checksum lies in a group's payload.
fn damaged_entry(payload: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < payload.len() {
        let entry = EntryHeader::decode(&payload[at..]).expect("the group was checked");
        let from = at + crate::format::entry::ENTRY_HEADER;
        if entry.kind == EntryKind::Append && !batch::crc_matches([&payload[from..from + entry.len as usize]])
        {
            return Some(at);
        }
        at += entry.span();
    }
    None
}
