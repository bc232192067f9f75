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
use crate::format::checkpoint::{self, CheckpointHeader, LogCheckpoint};
use crate::format::entry::{ENTRY_HEADER, ENTRY_LEN_AT, EntryHeader, EntryKind, entry_span, unprotected};
use crate::format::fields::get_u32;
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::journal_file::JournalFileHeader;
use crate::format::mend::{Flipped, flipped_bit, mend};
use crate::format::{PAGE, Refused};
use crate::ids::LogId;
use crate::paths;
use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_io::{File, OpenOptions, fs, worked, yield_if_needed};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

/// Paths and lengths of a journal's files.
#[derive(Default)]
pub struct ChainFiles {
    /// By number in the ring.
    pub journals: BTreeMap<usize, (PathBuf, u64)>,
    pub checkpoint: Option<(PathBuf, u64)>,
    pub checkpoint_copy: Option<(PathBuf, u64)>,
}

impl ChainFiles {
    pub fn add_checkpoint(&mut self, path: PathBuf, len: u64) {
        let copy = if paths::is_copy(&path) { &mut self.checkpoint_copy } else { &mut self.checkpoint };
        *copy = Some((path, len));
    }
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
    /// Groups that were walked through and of which nothing says that they are on stable storage.
    unproven: VecDeque<Place>,
}

/// Where a group is.
struct Place {
    file: usize,
    position: u64,
    len: u64,
    sequence: u64,
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
/// later process took over, if there was one. `newest`: its newest checkpoint, where a copy said so: an older one will not
/// do where what it needs may be gone.
pub async fn read(
    dir: &Path,
    generation: u64,
    shard: u32,
    files: ChainFiles,
    end: Option<u64>,
    newest: Option<&CheckpointHeader>,
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
        unproven: VecDeque::new(),
    };
    let has_begun = match chain.read_checkpoints([files.checkpoint, files.checkpoint_copy], newest).await? {
        Some(has_begun) => has_begun,
        // Before all were written first, the first generation had none until its first flush.
        None if generation > 1 && !planted(Fault::AbsenceIsEmpty) => {
            let path = dir.join(paths::checkpoint_file(generation, shard));
            return Err(StorageError::missing(&path, "its journal is there, which was begun after it"));
        }
        None => false,
    };
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
            for JournalFile { path, window, .. } in chain.files.iter().filter(|f| f.window.pages_lost() > 0) {
                let (path, pages) = (path.display(), window.pages_lost());
                tracing::warn!(%path, pages, "pages cannot be read: taken for writes that a power cut left unfinished");
            }
            stop.sequence - 1
        }
    };
    chain.write_again().await?;
    for (id, checkpoint) in chain.checkpoints {
        chain.logs.entry(id).or_default().checkpoint = Some((generation, checkpoint));
    }
    Ok((chain.logs, last))
}

impl Chain {
    /// Takes the newer of both copies, if there is one: whether it is another than the one that is written before the
    /// journal is begun. One of them may be damaged: nothing was let go before both were durable.
    async fn read_checkpoints(
        &mut self,
        copies: [Option<(PathBuf, u64)>; 2],
        least: Option<&CheckpointHeader>,
    ) -> Result<Option<bool>, StorageError> {
        let (mut newest, mut damage) = (None::<(CheckpointHeader, Vec<LogCheckpoint>)>, None);
        for (path, len) in copies.into_iter().flatten() {
            match self.read_checkpoint(&path, len).await {
                Ok((header, logs)) => {
                    if newest.as_ref().is_none_or(|(known, _)| known.rank() < header.rank()) {
                        newest = Some((header, logs));
                    }
                }
                Err(error) => damage = damage.or(Some(error)),
            }
        }
        match (newest, damage) {
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
            // On the word of a complete one former generations are not read, and may be gone. Else nothing was let go
            // before both copies said the same.
            (Some((header, _)), Some(error))
                if least.is_some_and(|least| least.complete && !header.complete) =>
            {
                Err(error)
            }
            (Some((header, logs)), damage) => {
                if let Some(error) = damage {
                    tracing::warn!(%error, "a checkpoint cannot be used: its copy is");
                }
                self.replay_from = header.replay_from;
                self.durable_through = self.durable_through.max(header.durable_through);
                self.checkpoints = logs.into_iter().map(|log| (log.log, log)).collect();
                Ok(Some(header.complete || header.durable_through > 0 || header.logs > 0))
            }
        }
    }

    async fn read_checkpoint(
        &self,
        path: &Path,
        len: u64,
    ) -> Result<(CheckpointHeader, Vec<LogCheckpoint>), StorageError> {
        let bytes = read_listed(path, len).await.map_err(StorageError::io("read", path))?;
        let (header, logs) = checkpoint::decode(&bytes).map_err(|refused| match refused {
            Refused::Version { .. } => StorageError::Version { path: path.into(), what: refused.to_string() },
            _ => StorageError::corrupt(path, 0, format!("it is no checkpoint: {refused}")),
        })?;
        if (header.generation, header.shard) != (self.generation, self.shard) {
            return Err(StorageError::corrupt(path, 0, "it is another journal's checkpoint"));
        }
        Ok((header, logs))
    }

    async fn open_file(&mut self, path: PathBuf, len: u64) -> Result<(), StorageError> {
        let options = OpenOptions { read: true, write: true, create: false, direct: true };
        let file = File::open(&path, options).await.map_err(StorageError::io("open", &path))?;
        // After a kill the file may hold what was written but never synced. We are about to serve it: make it last.
        file.sync_data().await.map_err(StorageError::io("sync", &path))?;
        let mut window = Window::new(file, len);
        let page =
            window.at(0, PAGE as u64).await.map_err(StorageError::io("read", &path))?.unwrap_or_default();
        let mut decoded = JournalFileHeader::decode(&page);
        let mut mended = page.to_vec();
        if decoded.is_err()
            && let Some((at, mask)) = mend(&mut mended, PAGE - 4)
            && let Ok(header) = JournalFileHeader::decode(&mended)
        {
            tell_mended(&path, at as u64, mask);
            decoded = Ok(header);
        }
        let header = match decoded {
            Ok(header) if (header.generation, header.shard) == (self.generation, self.shard) => Some(header),
            Ok(_) => return Err(StorageError::corrupt(&path, 0, "the file belongs to another journal")),
            Err(refused @ Refused::Version { .. }) => {
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
        let mut resume_at = PAGE as u64;
        loop {
            let mut position = std::mem::replace(&mut resume_at, PAGE as u64);
            let what = loop {
                if self.end.is_some_and(|end| sequence > end) {
                    return Ok(Walk::Ended(sequence - 1));
                }
                match self.group(current, position, sequence).await? {
                    Ok((header, group)) => {
                        self.note(current, position, &header);
                        // A window holds many groups.
                        worked(group.len());
                        yield_if_needed().await;
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
            let stop = Stop { file: current, position, sequence, what };
            if !self.mend(&stop).await? {
                return Ok(Walk::Stopped(stop));
            }
            resume_at = position;
        }
    }

    fn note(&mut self, file: usize, position: u64, header: &GroupHeader) {
        self.durable_through = self.durable_through.max(header.durable_through);
        let GroupHeader { sequence, .. } = *header;
        self.unproven.push_back(Place { file, position, len: header.disk_len(), sequence });
        while self.unproven.front().is_some_and(|place| place.sequence <= self.durable_through) {
            self.unproven.pop_front();
        }
    }

    /// Groups whose sync may have failed: what is read may be in a cache that takes it for written, whatever syncs it again.
    /// They are about to be served, so they are written anew. There are few: as many as are in flight.
    async fn write_again(&mut self) -> Result<(), StorageError> {
        for Place { file, position, len, .. } in std::mem::take(&mut self.unproven) {
            let JournalFile { path, window, .. } = &mut self.files[file];
            window.write_again(position, len).await.map_err(StorageError::io("write", path))?;
        }
        Ok(())
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
        let header = GroupHeader::decode(&page).ok().or_else(|| {
            // It may be all that proves a group before it durable.
            let mut mended = page[..GROUP_HEADER].to_vec();
            let (at, mask) = mend(&mut mended, GROUP_HEADER - 4)?;
            let header = GroupHeader::decode(&mended).ok()?;
            tell_mended(path, position + at as u64, mask);
            Some(header)
        });
        let ours = |h: &GroupHeader| {
            (h.generation, h.shard) == (self.generation, self.shard) && salt.is_none_or(|salt| salt == h.salt)
        };
        Ok(header.filter(ours))
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
                    log.damaged.get_or_insert_with(|| (self.generation, evidence.to_string().into()));
                }
                log.entries.push(RecoveredEntry {
                    generation: self.generation,
                    sequence: header.sequence,
                    header: entry,
                    payload: batch,
                });
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
                // After a cut they take the place of what was flushed before.
                EntryKind::Append => {
                    entry.index >= checkpoint.flushed_index || sequence > checkpoint.durable_through
                }
                EntryKind::Truncate | EntryKind::Reset => true,
                EntryKind::HardState | EntryKind::LogStart => sequence > checkpoint.durable_through,
            },
        }
    }

    /// The walk stopped at a group that had been on stable storage: whether one flipped bit was the reason, and is set
    /// right. Which logs have entries in a group is not known of a damaged one, so all would suffer for one.
    async fn mend(&mut self, stop: &Stop) -> Result<bool, StorageError> {
        match self.prove_torn(stop).await {
            Ok(()) => return Ok(false),
            Err(StorageError::Corrupt { .. }) => {}
            Err(other) => return Err(other),
        }
        let JournalFile { path, window, .. } = &mut self.files[stop.file];
        let path = path.clone();
        let Some(page) =
            window.at(stop.position, PAGE as u64).await.map_err(StorageError::io("read", &path))?
        else {
            return Ok(false);
        };
        let flipped = match GroupHeader::decode(&page) {
            Ok(header) if header.sequence == stop.sequence => {
                let read = window.at(stop.position, header.disk_len()).await;
                let group = read.map_err(StorageError::io("read", &path))?;
                group.and_then(|group| flipped_in_entries(&header, &group))
            }
            _ => None,
        };
        let Some((at, mask)) = flipped else { return Ok(false) };
        let position = stop.position + at as u64;
        self.files[stop.file].window.flip(position, mask);
        let mended = self.group(stop.file, stop.position, stop.sequence).await?.is_ok();
        if mended {
            tell_mended(&path, position, mask);
        } else {
            // More than one bit is wrong, and the checksum led astray.
            self.files[stop.file].window.unflip();
        }
        Ok(mended)
    }

    /// A power cut leaves one header unreadable at the most, of a file that was about to be used again while another was in
    /// use: of more, nobody can say what followed them.
    fn expect_headers(&self) -> Result<(), StorageError> {
        let is_blind =
            |f: &&JournalFile| f.header.is_none() && f.window.is_lost(0) && f.window.end() > PAGE as u64;
        let mut blind = self.files.iter().filter(is_blind);
        match (blind.next(), blind.next()) {
            (Some(file), another) if another.is_some() || self.files.iter().all(|f| f.header.is_none()) => {
                let what = "it cannot be read, and tells where the journal goes on. If the disk answers again, start again";
                Err(StorageError::corrupt(&file.path, 0, what))
            }
            _ => Ok(()),
        }
    }

    /// The walk stopped: fails if anything proves that the group it stopped at had been durable.
    async fn prove_torn(&mut self, stop: &Stop) -> Result<(), StorageError> {
        let corrupt = |chain: &Chain, by: String| {
            let what =
                format!("{}, although group {} had been on stable storage: {by}", stop.what, stop.sequence);
            Err(StorageError::corrupt(&chain.files[stop.file].path, stop.position, what))
        };
        self.expect_headers()?;
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

/// A file that had `len` bytes when it was listed. It may be another by now: what a killed process had begun comes to its end.
async fn read_listed(path: &Path, mut len: u64) -> io::Result<Bytes> {
    loop {
        match fs::read(path, len as usize).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let grown = fs::file_len(path).await?;
                if grown <= len {
                    return Err(error);
                }
                len = grown;
            }
            read => return read,
        }
    }
}

fn tell_mended(path: &Path, byte: u64, mask: u8) {
    let path = path.display();
    tracing::warn!(%path, byte, mask, "a flipped bit was found by its checksum and set right: look at the disk's health");
}

/// The bit of a group's entries that is not as it was written, if it is one that the group's checksum covers.
fn flipped_in_entries(header: &GroupHeader, group: &[u8]) -> Option<(usize, u8)> {
    let payload = GROUP_HEADER..GROUP_HEADER + header.payload_len as usize;
    let (covered, whole) = covered_parts(&group[payload.clone()]);
    if whole && covered.len() == header.entries as usize {
        let pieces = || covered.iter().map(|part| &group[payload.clone()][part.clone()]);
        let computed = pieces().fold(0, crc32c::crc32c_append);
        let len = pieces().map(<[u8]>::len).sum();
        return match flipped_bit(len, header.entries_crc, computed)? {
            Flipped::Checksum(_) => None,
            Flipped::Message { mut byte, mask } => {
                let part = covered.iter().find(|part| {
                    let here = byte < part.len();
                    byte -= if here { 0 } else { part.len() };
                    here
                })?;
                Some((payload.start + part.start + byte, mask))
            }
        };
    }
    // A length is wrong: the one with which all fits together again.
    for part in covered.iter().rev().take(LENGTHS_TRIED) {
        for bit in 0..u32::BITS as usize {
            let (at, mask) = (part.start + ENTRY_LEN_AT + bit / 8, 1 << (bit % 8));
            let mut mended = group[payload.clone()].to_vec();
            *mended.get_mut(at)? ^= mask;
            let (covered, whole) = covered_parts(&mended);
            let crc = covered.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, &mended[part.clone()]));
            if whole && covered.len() == header.entries as usize && crc == header.entries_crc {
                return Some((payload.start + at, mask));
            }
        }
    }
    None
}

/// Entries whose length is tried: where lengths are wrong the walk goes astray at once.
const LENGTHS_TRIED: usize = 4;

/// The parts of a group's payload that its checksum covers, one an entry (header and the unprotected part of what follows),
/// by the lengths that the headers state; whether they end where the payload does.
fn covered_parts(payload: &[u8]) -> (Vec<std::ops::Range<usize>>, bool) {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at + ENTRY_HEADER <= payload.len() {
        let len = get_u32(payload, at + ENTRY_LEN_AT) as usize;
        let end = at + ENTRY_HEADER + len.min(crate::batch::CRC_FROM);
        parts.push(at..end.min(payload.len()));
        at += entry_span(len);
    }
    (parts, at == payload.len())
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
