//! A broker's data directory: which logs are in it, and where their batches are: in segments, and behind them in the journal alone.

use super::journal::{self, Group, Journal};
use super::names::{CONTROLLER, Names};
use super::report::Report;
use super::segment::{self, End};
use anyhow::{Context, Result, bail};
use corelog_storage::LogId;
use corelog_storage::format::PAGE;
use corelog_storage::format::checkpoint::{self, LogCheckpoint};
use corelog_storage::format::entry::{EntryHeader, EntryKind};
use corelog_storage::paths::{self, JournalName, SegmentFileKind};
use corelog_storage::rebuild::is_sound;
use corelog_wire::records::BatchHeader;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub struct DataDir {
    path: PathBuf,
    pub names: Names,
    /// Directories of segments.
    pub dirs: BTreeMap<LogId, PathBuf>,
    pub journals: Vec<Journal>,
    /// Of former journals, by generation and shard, the last group that counts.
    ends: BTreeMap<(u64, u32), u64>,
    /// The newest of each log.
    pub checkpoints: BTreeMap<LogId, LogCheckpoint>,
    pub journaled: BTreeMap<LogId, Journaled>,
    /// Of each journal, the first group that its checkpoint does not cover.
    replay_from: BTreeMap<(u64, u32), u64>,
    /// Where journals are damaged: which logs' records are lost by that, the journals do not tell.
    pub losses: Vec<String>,
}

/// What the journal has of one log.
#[derive(Default)]
pub struct Journaled {
    /// By Raft index, as of the last entry that concerns it.
    pub appends: BTreeMap<u64, Place>,
    pub log_start_offset: Option<i64>,
}

pub struct Place {
    pub journal: usize,
    pub at: u64,
    pub header: EntryHeader,
}

/// What to read of a journal in which something is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// What lies before it: what a broker may know.
    Ends,
    /// All groups that are whole.
    IsPassedOver,
}

/// How far a journal was read.
struct Before {
    /// Generation and shard, and whether it was put aside.
    of: ((u64, u32), bool),
    /// The group that follows.
    next: u64,
    /// Which file ends where.
    at: (usize, u64),
}

/// One log in short.
pub struct Summary {
    pub log_start_offset: i64,
    pub next_offset: Option<i64>,
    pub segments: usize,
    pub segment_bytes: u64,
    pub journal_bytes: u64,
}

/// A segment file, and its length.
pub type SegmentFiles = BTreeMap<i64, (PathBuf, u64)>;

impl DataDir {
    /// Reads all but segments.
    pub fn open(path: &Path, damaged: Damaged, report: &mut Report) -> Result<DataDir> {
        let (journal_dir, topics_dir) = (paths::journal_dir(path), paths::topics_dir(path));
        if !journal_dir.is_dir() && !topics_dir.is_dir() {
            bail!("{} is no data directory: it has neither journal/ nor topics/", path.display());
        }
        let mut data_dir = DataDir {
            path: path.to_owned(),
            names: Names::default(),
            dirs: BTreeMap::new(),
            journals: Vec::new(),
            ends: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            journaled: BTreeMap::new(),
            replay_from: BTreeMap::new(),
            losses: Vec::new(),
        };
        data_dir.find_dirs(&topics_dir)?;
        data_dir.read_checkpoints(&journal_dir, report)?;
        data_dir.read_journals(&journal_dir, damaged)?;
        data_dir.learn_names(report)?;
        Ok(data_dir)
    }

    fn find_dirs(&mut self, topics_dir: &Path) -> Result<()> {
        for (name, path) in entries(topics_dir)? {
            let Some(topic) = paths::topic_of_dir(&name) else { continue };
            self.names.note_dir(&name);
            for (name, path) in entries(&path)? {
                if let Ok(partition) = name.parse() {
                    self.dirs.insert(LogId { topic, partition }, path);
                }
            }
        }
        Ok(())
    }

    fn read_checkpoints(&mut self, journal_dir: &Path, report: &mut Report) -> Result<()> {
        let mut newest: BTreeMap<LogId, u64> = BTreeMap::new();
        for (name, path) in journal_files(journal_dir)? {
            let Some(JournalName::Checkpoint { .. }) = JournalName::parse(&name) else { continue };
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let (header, logs) = match checkpoint::decode(&bytes) {
                Ok(decoded) => decoded,
                Err(refused) => {
                    report.problem(&path, 0, format!("it is no checkpoint: {refused}"))?;
                    continue;
                }
            };
            let from = self.replay_from.entry((header.generation, header.shard)).or_default();
            *from = header.replay_from.max(*from);
            // Checked already, as a part of the whole.
            for end in header.decode_ends(&bytes).unwrap_or_default() {
                self.ends.insert((end.generation, end.shard), end.sequence);
            }
            for log in logs {
                if newest.get(&log.log).is_none_or(|generation| *generation < header.generation) {
                    newest.insert(log.log, header.generation);
                    self.checkpoints.insert(log.log, log);
                }
            }
        }
        Ok(())
    }

    fn read_journals(&mut self, journal_dir: &Path, damaged: Damaged) -> Result<()> {
        for (name, path) in journal_files(journal_dir)? {
            if let Some(JournalName::Journal { .. }) = JournalName::parse(&name) {
                self.journals.push(Journal::open(&path)?);
            }
        }
        if damaged == Damaged::IsPassedOver {
            let salts: BTreeMap<(u64, u32), u64> = self
                .journals
                .iter()
                .filter(|journal| journal.path.parent() == Some(journal_dir))
                .filter_map(|journal| journal.header)
                .map(|header| ((header.generation, header.shard), header.salt))
                .collect();
            for journal in self.journals.iter_mut().filter(|journal| journal.header.is_none()) {
                // What was put aside has a salt of its own.
                let is_aside = journal.path.parent() != Some(journal_dir);
                journal.without_header(|generation, shard| {
                    salts.get(&(generation, shard)).copied().filter(|_| !is_aside)
                })?;
            }
        }
        self.journals.retain(|journal| journal.header.is_some());
        // What a generation put aside of a log is all that it had of it.
        self.journals.sort_by_key(|journal| {
            let is_aside = journal.path.parent() != Some(journal_dir);
            journal.header.map(|header| (header.generation, is_aside, header.shard, header.first_sequence))
        });
        let mut before: Option<Before> = None;
        for (at, journal) in self.journals.iter().enumerate() {
            let of = journal.header.map_or((0, 0), |header| (header.generation, header.shard));
            let is_aside = journal.path.parent() != Some(journal_dir);
            let mut place = match before.take() {
                Some(before) if before.of == (of, is_aside) => before,
                _ => Before {
                    of: (of, is_aside),
                    next: journal.header.map_or(1, |header| header.first_sequence),
                    at: (at, PAGE as u64),
                },
            };
            let last = self.ends.get(&of).copied().unwrap_or(u64::MAX);
            let groups: Box<dyn Iterator<Item = Result<Group>>> = match damaged {
                Damaged::Ends => Box::new(journal.groups()),
                Damaged::IsPassedOver => Box::new(journal.groups_that_are_left()),
            };
            for group in groups {
                let group = group?;
                if group.header.sequence > last {
                    // Written after the next process had begun: it was not seen, and never counts.
                    break;
                }
                // Of a group that was never on stable storage nobody was told anything.
                let was_durable = place.next <= group.header.durable_through;
                let is_needed =
                    self.replay_from.get(&of).is_none_or(|from| group.header.sequence > *from) || is_aside;
                if group.header.sequence > place.next && was_durable && is_needed {
                    let (path, byte) = (self.journals[place.at.0].path.display(), place.at.1);
                    let last = group.header.sequence - 1;
                    self.losses.push(format!(
                        "what groups {} to {last} in {path} from byte {byte} on say: it is damaged, and of which logs it is \
                         cannot be said",
                        place.next
                    ));
                }
                place.next = group.header.sequence + 1;
                place.at = (at, group.position + group.header.disk_len());
                for entry in group.entries() {
                    let log = self.journaled.entry(entry.header.log).or_default();
                    match entry.header.kind {
                        EntryKind::Append => {
                            let place = Place { journal: at, at: entry.payload_at, header: entry.header };
                            // What is appended anew was never told to have been there.
                            drop(log.appends.split_off(&entry.header.index.0));
                            log.appends.insert(entry.header.index.0, place);
                        }
                        EntryKind::Truncate => drop(log.appends.split_off(&entry.header.index.0)),
                        EntryKind::LogStart => log.log_start_offset = Some(entry.header.base_offset),
                        EntryKind::Reset => {
                            log.appends.clear();
                            log.log_start_offset = Some(entry.header.base_offset);
                        }
                        EntryKind::HardState => {}
                    }
                }
            }
            before = Some(place);
        }
        Ok(())
    }

    fn learn_names(&mut self, report: &mut Report) -> Result<()> {
        let log = LogId { topic: CONTROLLER, partition: 0 };
        let mut batches = Vec::new();
        for (path, len) in self.segments(log)?.into_values() {
            batches.extend(batches_of(&path, len, report)?);
        }
        for place in self.journaled.get(&log).into_iter().flat_map(|log| log.appends.values()) {
            batches.push(self.journals[place.journal].read(place.at, place.header.len)?);
        }
        batches.iter().for_each(|batch| self.names.note_batch(batch));
        Ok(())
    }

    /// Up to where the journal has sound batches of a log without a gap, from the one at offset `from` on.
    pub fn reach(&self, journaled: &Journaled, from: i64) -> Result<i64> {
        let mut end = from;
        for place in journaled.appends.values().skip_while(|place| place.header.base_offset != from) {
            let batch = self.journals[place.journal].read(place.at, place.header.len)?;
            match BatchHeader::parse(&batch) {
                Ok(header) if header.base_offset == end && is_sound(&batch) => end = header.next_offset(),
                _ => break,
            }
        }
        Ok(end)
    }

    /// All logs that have anything here.
    pub fn logs(&self) -> Vec<LogId> {
        let logs: BTreeSet<LogId> =
            self.dirs.keys().chain(self.checkpoints.keys()).chain(self.journaled.keys()).copied().collect();
        let mut logs: Vec<LogId> = logs.into_iter().collect();
        logs.sort_by_key(|log| (self.names.of(log.topic).map(str::to_owned), *log));
        logs
    }

    pub fn segments(&self, log: LogId) -> Result<SegmentFiles> {
        let mut segments = BTreeMap::new();
        let Some(dir) = self.dirs.get(&log) else { return Ok(segments) };
        for (name, path) in entries(dir)? {
            if let Some((base, SegmentFileKind::Data)) = paths::parse_segment_name(&name) {
                let len = std::fs::metadata(&path)?.len();
                segments.insert(base, (path, len));
            }
        }
        Ok(segments)
    }

    pub fn summary(&self, log: LogId) -> Result<Summary> {
        let segments = self.segments(log)?;
        let checkpoint = self.checkpoints.get(&log);
        let journaled = self.journaled.get(&log);
        let last = journaled.and_then(|journaled| journaled.appends.values().next_back());
        let end = match last {
            Some(place) => {
                let journal = &self.journals[place.journal];
                let batch = BatchHeader::parse(&journal.read(place.at, place.header.len)?);
                batch.ok().map(|header| header.next_offset())
            }
            None => None,
        };
        let flushed = checkpoint.map_or(0, |checkpoint| checkpoint.flushed_index.0);
        let alone = journaled.into_iter().flat_map(|journaled| journaled.appends.range(flushed..));
        Ok(Summary {
            log_start_offset: journaled
                .and_then(|journaled| journaled.log_start_offset)
                .max(checkpoint.map(|checkpoint| checkpoint.log_start_offset))
                .unwrap_or(0),
            next_offset: end.max(checkpoint.map(|checkpoint| checkpoint.next_offset)),
            segments: segments.len(),
            segment_bytes: segments.values().map(|(_, len)| len).sum(),
            journal_bytes: alone.map(|(_, place)| u64::from(place.header.len)).sum(),
        })
    }

    /// All batches of a log in order.
    pub fn dump(&self, log: LogId, report: &mut Report) -> Result<()> {
        let name = self.names.of(log.topic).unwrap_or("?");
        let summary = self.summary(log)?;
        let text = format!(
            "partition {name}-{}: topic id {}, offsets {} to {}",
            log.partition,
            log.topic,
            summary.log_start_offset,
            summary.next_offset.map_or("?".to_owned(), |offset| offset.to_string())
        );
        let fields = json!({
            "topic": self.names.of(log.topic),
            "topic_id": log.topic.to_string(),
            "partition": log.partition,
            "log_start_offset": summary.log_start_offset,
            "next_offset": summary.next_offset,
        });
        report.heading(&text, "partition", fields)?;
        let end = self.dump_segments(log, report)?;
        self.dump_journaled(log, end, report)
    }

    fn dump_segments(&self, log: LogId, report: &mut Report) -> Result<Option<End>> {
        let active = self.checkpoints.get(&log).and_then(|checkpoint| checkpoint.active.as_ref());
        let mut end: Option<End> = None;
        for (base, (path, _)) in self.segments(log)? {
            if active.is_some_and(|active| base > active.base_offset) {
                // Begun since the checkpoint: what is in it is in the journal too.
                report.line(
                    &format!("segment {} is newer than the checkpoint", path.display()),
                    "newer",
                    json!({"path": path}),
                )?;
                continue;
            }
            if let Some(end) = end.filter(|end| end.next_offset != base) {
                let what = format!("the segment before it ends at offset {}", end.next_offset);
                report.problem(&path, 0, what)?;
            }
            let synced = active.filter(|active| active.base_offset == base).map(|active| active.position);
            end = segment::dump(&path, Some(log), synced, report)?.or(end);
        }
        Ok(end)
    }

    /// What is not in segments yet.
    fn dump_journaled(&self, log: LogId, end: Option<End>, report: &mut Report) -> Result<()> {
        let Some(journaled) = self.journaled.get(&log) else { return Ok(()) };
        let flushed = self
            .checkpoints
            .get(&log)
            .map(|checkpoint| (checkpoint.flushed_index.0, checkpoint.flushed_offset));
        let from = end.map(|end| end.next_index).or(flushed.map(|(index, _)| index)).unwrap_or(0);
        let mut alone = journaled.appends.range(from..).peekable();
        if alone.peek().is_none() {
            return Ok(());
        }
        report.heading("journal: not in segments yet", "journaled", json!({"from_index": from}))?;
        let mut next = (from, end.map(|end| end.next_offset));
        for (index, place) in alone {
            let journal = &self.journals[place.journal];
            if *index != next.0 {
                report.problem(
                    &journal.path,
                    place.at,
                    format!("Raft index {index} follows, expected {}", next.0),
                )?;
            }
            let payload = journal.read(place.at, place.header.len)?;
            if let Ok(header) = BatchHeader::parse(&payload) {
                if let Some(expected) = next.1.filter(|expected| *expected != header.base_offset) {
                    let what =
                        format!("a batch begins at offset {}, expected {expected}", header.base_offset);
                    report.problem(&journal.path, place.at, what)?;
                }
                next.1 = Some(header.next_offset());
            }
            next.0 = index + 1;
            journal::batch(journal, place.at, &place.header, payload, report)?;
        }
        Ok(())
    }

    /// Every batch of every log.
    pub fn check_all(&self, report: &mut Report) -> Result<()> {
        let mut bytes = 0;
        for log in self.logs() {
            let summary = self.summary(log)?;
            bytes += summary.segment_bytes + summary.journal_bytes;
        }
        report.expect_bytes(bytes);
        debug_assert!(!report.shows());
        for log in self.logs() {
            self.dump(log, report).with_context(|| format!("log {log} in {}", self.path.display()))?;
        }
        Ok(())
    }
}

/// The batches of a segment as bytes, checked by nobody: for what only serves to show names.
fn batches_of(path: &Path, len: u64, report: &mut Report) -> Result<Vec<bytes::Bytes>> {
    /// The controller's log is small: topics, partitions and configs.
    const LEN_MAX: u64 = 1 << 30;
    if len > LEN_MAX {
        report.problem(
            path,
            0,
            format!("{len} bytes are too many for a controller's segment: names are not read from it"),
        )?;
        return Ok(Vec::new());
    }
    let bytes =
        bytes::Bytes::from(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    let first = corelog_storage::format::segment_file::FIRST_BATCH as usize;
    let batches = corelog_wire::records::split_batches(&bytes.slice(first.min(bytes.len())..));
    Ok(batches.map_while(|batch| batch.ok()).map(|batch| batch.into_bytes()).collect())
}

/// Files of the journals, those of logs that were refused and put aside too.
fn journal_files(journal_dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = entries(journal_dir)?;
    for (_, dir) in entries(&journal_dir.join("refused"))? {
        files.extend(entries(&dir)?);
    }
    Ok(files)
}

/// Names and paths in a directory, by name; none if it is not there.
pub fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", dir.display())),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
        // What is not UTF-8 is not ours.
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// A checkpoint file by itself.
pub fn dump_checkpoint(path: &Path, report: &mut Report) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (header, logs) = match checkpoint::decode(&bytes) {
        Ok(decoded) => decoded,
        Err(refused) => return report.problem(path, 0, format!("it is no checkpoint: {refused}")),
    };
    let complete = if header.complete { "complete" } else { "former generations are still needed" };
    let text = format!(
        "checkpoint {}: generation {}, shard {} of {}, replay from group {}, durable through {}, {complete}",
        path.display(),
        header.generation,
        header.shard,
        header.shards,
        header.replay_from,
        header.durable_through
    );
    let fields = json!({
        "path": path,
        "generation": header.generation,
        "shard": header.shard,
        "shards": header.shards,
        "replay_from": header.replay_from,
        "durable_through": header.durable_through,
        "complete": header.complete,
    });
    report.heading(&text, "checkpoint", fields)?;
    for log in logs {
        let text = format!(
            "{} offsets {} to {}, flushed to {}, term {}, {} producers",
            log.log,
            log.log_start_offset,
            log.next_offset,
            log.flushed_offset,
            log.term,
            log.producers.len()
        );
        let fields = json!({
            "topic_id": log.log.topic.to_string(),
            "partition": log.log.partition,
            "log_start_offset": log.log_start_offset,
            "next_offset": log.next_offset,
            "next_index": log.next_index.0,
            "flushed_offset": log.flushed_offset,
            "flushed_index": log.flushed_index.0,
            "term": log.term,
            "producers": log.producers.len(),
            "active_segment": log.active.as_ref().map(|active| json!({"base_offset": active.base_offset, "position": active.position})),
            "epochs": log.terms.epochs().map(|(epoch, start)| json!([epoch, start])).collect::<Vec<_>>(),
        });
        report.line(&text, "log", fields)?;
    }
    Ok(())
}
