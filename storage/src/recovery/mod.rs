//! Start-up: what the journals and checkpoints of all former generations say of each log, and which logs have a
//! directory.
//!
//! Absence of state is not empty state. The order in which things become durable makes it provable that something is
//! missing, and each line of this list is checked ("then" is "durable later"):
//! - a shard's first checkpoint, then its first journal file, then `topics/`, then any record of that shard;
//! - a batch in the journal, then in a segment, then a checkpoint that says so, then is its journal file used again;
//! - a complete checkpoint of every shard, then former generations go.
//!
//! So a log with a directory has batches in a checkpoint or a journal, or something was lost: it is refused. Nothing
//! below the data directory is removed for want of a mention.
//!
//! Two steps, because a log may have lived on another shard before. First every core reads some of the journals
//! ([`read_journals`]); the results are split by owning shard, exchanged and merged. Then each shard opens its
//! storage with what concerns its logs, and the logs replay it when they are claimed. Nothing is written before the
//! second step, so a crash in between changes nothing.

mod chain;
mod window;

use crate::checkpoint;
use crate::error::StorageError;
use crate::format::checkpoint::{CheckpointHeader, JournalEnd, LogCheckpoint};
use crate::format::entry::{EntryHeader, EntryKind};
use crate::ids::{LogId, RaftIndex};
use crate::paths::{self, JournalName};
use crate::quarantine::{self, Held};
use bytes::Bytes;
pub(crate) use chain::{ChainFiles, read as read_chain};
use corelog_io::fs;
use corelog_io::planted::{Fault, planted};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What start-up found, of some or of all logs. `Send`: goes to the owning shards by mailbox.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The generation to open now: above every one on disk.
    pub next_generation: u64,
    pub(crate) logs: BTreeMap<LogId, RecoveredLog>,
    /// How far each journal was taken over.
    pub(crate) ends: Vec<JournalEnd>,
    /// How much it was. Of a split, the first part bears all of it.
    pub replayed: Replayed,
}

/// What a start reads and replays of former generations' journals. After a stop in good order there are no entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub journal_files: u64,
    /// That say something which checkpoints and segments do not.
    pub entries: u64,
    /// Of the entries' batches.
    pub bytes: u64,
}

impl Replayed {
    fn of(journal_files: usize, logs: &BTreeMap<LogId, RecoveredLog>) -> Replayed {
        Replayed {
            journal_files: journal_files as u64,
            entries: logs.values().map(|log| log.entries.len() as u64).sum(),
            bytes: logs.values().map(RecoveredLog::dirty_bytes).sum(),
        }
    }

    fn add(&mut self, other: Replayed) {
        self.journal_files += other.journal_files;
        self.entries += other.entries;
        self.bytes += other.bytes;
    }
}

/// What was found of one log.
#[derive(Debug, Default)]
pub(crate) struct RecoveredLog {
    /// The newest checkpoint that knows it, and the generation it is from.
    pub checkpoint: Option<(u64, LogCheckpoint)>,
    /// Entries in the order they were journaled, oldest first.
    pub entries: Vec<RecoveredEntry>,
    /// An entry is damaged, in a journal of this generation.
    pub damaged: Option<(u64, Arc<str>)>,
    /// It was refused by this generation, which put all aside that was known of it: what journals of this and former
    /// generations say is in here.
    pub put_aside: Option<u64>,
    /// The directory it has: there are segments in it, or were.
    pub dir: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct RecoveredEntry {
    pub generation: u64,
    /// Its journal group.
    pub sequence: u64,
    pub header: EntryHeader,
    pub payload: Bytes,
}

impl RecoveredEntry {
    /// Whether it is of the log as it was before it began anew. Raft's own state stays.
    pub fn is_void(&self, begins: (u64, u64)) -> bool {
        self.header.kind != EntryKind::HardState && (self.generation, self.sequence) < begins
    }
}

impl RecoveredLog {
    /// Bytes of the batches held.
    pub fn dirty_bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.payload.len() as u64).sum()
    }

    /// Whether nothing is newer than what was put aside.
    pub fn is_all_aside(&self) -> bool {
        self.put_aside.is_some_and(|aside| {
            self.entries.iter().all(|e| e.generation <= aside)
                && self.checkpoint.as_ref().is_none_or(|(generation, _)| *generation <= aside)
                && self.damaged.as_ref().is_none_or(|(generation, _)| *generation <= aside)
        })
    }

    /// Generation and group up to which its checkpoint knows all.
    pub fn covered_by(&self) -> Option<(u64, u64)> {
        self.checkpoint.as_ref().map(|(generation, c)| (*generation, c.durable_through))
    }

    /// The journal group, by generation and sequence, that the log begins with: of its last reset.
    pub fn begins(&self) -> (u64, u64) {
        let known = self.checkpoint.as_ref().and_then(|(_, checkpoint)| checkpoint.reset);
        let resets = self.entries.iter().filter(|entry| entry.header.kind == EntryKind::Reset);
        let last = resets.map(|entry| (entry.generation, entry.sequence)).max();
        known.map(|reset| (reset.generation, reset.sequence)).max(last).unwrap_or_default()
    }

    /// Leaves out the batches that its checkpoint knows to be cut. The journal may have lost what says so.
    pub fn forget_cut(&mut self) {
        let Some((generation, checkpoint)) = &self.checkpoint else { return };
        let (generation, known) = (*generation, (*generation, checkpoint.durable_through));
        let is_cut = |e: &RecoveredEntry| {
            let by = |(group, index): &(u64, RaftIndex)| {
                (e.generation, e.sequence) < (generation, *group) && e.header.index >= *index
            };
            let is_beyond = e.header.index >= checkpoint.next_index && (e.generation, e.sequence) <= known;
            (is_beyond && checkpoint.committed.is_cut) || checkpoint.committed.cuts.iter().any(by)
        };
        self.entries.retain(|e| e.header.kind != EntryKind::Append || !is_cut(e));
    }

    /// All of it, to be put aside.
    pub fn into_held(mut self) -> Held {
        let begins = self.begins();
        self.entries.retain(|entry| !entry.is_void(begins));
        let covered_by = self.covered_by();
        let is_covered = |e: &RecoveredEntry| covered_by.is_some_and(|by| (e.generation, e.sequence) <= by);
        Held {
            covered: self.entries.iter().take_while(|e| is_covered(e)).count(),
            checkpoint: self.checkpoint.map(|(_, checkpoint)| checkpoint),
            entries: self.entries.into_iter().map(|e| (e.header, e.payload)).collect(),
        }
    }

    /// Leaves out what a journal says of generations up to `generation`.
    fn forget_through(&mut self, generation: u64) {
        self.entries.retain(|e| e.generation > generation);
        self.checkpoint.take_if(|(of, _)| *of <= generation);
        self.damaged.take_if(|(of, _)| *of <= generation);
    }

    fn merge(&mut self, mut other: RecoveredLog) {
        match (self.put_aside, other.put_aside) {
            (Some(generation), _) => other.forget_through(generation),
            (None, Some(generation)) => self.forget_through(generation),
            (None, None) => {}
        }
        self.put_aside = self.put_aside.or(other.put_aside);
        let generation = |c: &Option<(u64, LogCheckpoint)>| c.as_ref().map(|(generation, _)| *generation);
        if generation(&other.checkpoint) > generation(&self.checkpoint) {
            self.checkpoint = other.checkpoint;
        }
        self.entries.extend(other.entries);
        self.entries.sort_by_key(|e| (e.generation, e.sequence));
        self.damaged = self.damaged.take().or(other.damaged);
        self.dir = self.dir.take().or(other.dir);
    }

    /// Forgets what was found in journals and checkpoints. What has a directory is still not taken for new.
    pub fn forget_state(&mut self) -> bool {
        *self = RecoveredLog { dir: self.dir.take(), ..RecoveredLog::default() };
        self.dir.is_some()
    }
}

impl Recovered {
    /// Logs with state.
    pub fn logs(&self) -> impl Iterator<Item = LogId> {
        self.logs.keys().copied()
    }

    /// One part for each of `shards` shards, by the shard that owns each log now.
    pub fn split(self, shards: usize, owner: impl Fn(LogId) -> usize) -> Vec<Recovered> {
        let (next_generation, ends) = (self.next_generation, self.ends);
        let empty = || Recovered { next_generation, ends: ends.clone(), ..Recovered::default() };
        let mut parts: Vec<_> = (0..shards).map(|_| empty()).collect();
        parts[0].replayed = self.replayed;
        for (id, log) in self.logs {
            parts[owner(id)].logs.insert(id, log);
        }
        parts
    }

    /// What all cores found of one shard's logs.
    pub fn merge(parts: impl IntoIterator<Item = Recovered>) -> Recovered {
        let mut whole = Recovered::default();
        for part in parts {
            whole.next_generation = whole.next_generation.max(part.next_generation);
            whole.ends.extend(part.ends);
            whole.replayed.add(part.replayed);
            for (id, log) in part.logs {
                whole.logs.entry(id).or_default().merge(log);
            }
        }
        whole
    }
}

/// Reads every `readers`th journal below `data_dir`, beginning with number `reader`, and looks for as many of the logs'
/// directories. All cores of the process call this before any opens its storage.
///
/// # Errors
/// Damage to what had been on stable storage, files that must be there and are not, an unknown format version, or I/O.
/// A torn end is none: it was never acknowledged, and is left out.
pub async fn read_journals(
    data_dir: &Path,
    reader: usize,
    readers: usize,
) -> Result<Recovered, StorageError> {
    let dir = paths::journal_dir(data_dir);
    let (mut chains, newest) = find_chains(&dir).await?;
    let aside = quarantine::find(data_dir).await?;
    let newest = aside.values().map(|(generation, _)| *generation).chain([newest]).max().unwrap_or(0);
    let topics_dir = paths::topics_dir(data_dir);
    if chains.values().all(|files| files.journals.is_empty())
        && exists(&topics_dir).await?
        && !planted(Fault::AbsenceIsEmpty)
    {
        // The first journal file was durable before this directory was made.
        let what = format!("{} is there, which was made after it", topics_dir.display());
        return Err(StorageError::missing(&dir.join("*.journal"), what));
    }
    let Some(next_generation) = newest.checked_add(1) else {
        let what = format!("a file bears generation {newest} in its name, and none can follow");
        return Err(StorageError::corrupt(&dir, 0, what));
    };
    let known = Known::read(&chains).await?;
    // Shared out before any is left out: should a checkpoint be readable for one core and not for another, they differ in
    // what they need, and each journal is read all the same.
    let shares: BTreeMap<(u64, u32), usize> = chains.keys().copied().zip(0..).collect();
    chains.retain(|(generation, _), _| *generation >= known.needed_from);
    known.expect_all_shards(&dir, &chains)?;
    let logs = find_dirs(&topics_dir, reader, readers).await?;
    let mut found = Recovered { next_generation, logs, ..Recovered::default() };
    for ((generation, shard), files) in chains {
        if shares[&(generation, shard)] % readers.max(1) != reader {
            continue;
        }
        let end = known.ends.get(&(generation, shard)).copied();
        let newest = known.newest.get(&(generation, shard));
        let journal_files = files.journals.len();
        let (logs, sequence) = chain::read(&dir, generation, shard, files, end, newest).await?;
        let ends = vec![JournalEnd { generation, shard, sequence }];
        let replayed = Replayed::of(journal_files, &logs);
        found = Recovered::merge([found, Recovered { next_generation, logs, ends, replayed }]);
    }
    for (id, (generation, dir)) in aside.into_iter().skip(reader).step_by(readers.max(1)) {
        let logs = BTreeMap::from([(id, quarantine::read(id, generation, &dir).await?)]);
        found = Recovered::merge([found, Recovered { next_generation, logs, ..Recovered::default() }]);
    }
    Ok(found)
}

async fn exists(path: &Path) -> Result<bool, StorageError> {
    fs::exists(path).await.map_err(StorageError::io("look for", path))
}

/// Files by the journal they are of: generation and shard.
type Chains = BTreeMap<(u64, u32), ChainFiles>;

/// The journals in `dir`, and the newest generation; 0: there is none.
async fn find_chains(dir: &Path) -> Result<(Chains, u64), StorageError> {
    let mut chains = Chains::new();
    if !exists(dir).await? {
        return Ok((chains, 0));
    }
    for entry in fs::read_dir(dir).await.map_err(StorageError::io("list", dir))? {
        let Some(name) = entry.name.to_str().and_then(JournalName::parse) else { continue };
        let path = dir.join(&entry.name);
        match name {
            JournalName::Journal { generation, shard, number } => {
                let files: &mut ChainFiles = chains.entry((generation, shard)).or_default();
                files.journals.insert(number, (path, entry.len));
            }
            JournalName::Checkpoint { generation, shard } => {
                chains.entry((generation, shard)).or_default().add_checkpoint(path, entry.len);
            }
        }
    }
    let newest = chains.keys().next_back().map_or(0, |(generation, _)| *generation);
    Ok((chains, newest))
}

/// The logs that have a directory, of every `readers`th topic.
async fn find_dirs(
    topics_dir: &Path,
    reader: usize,
    readers: usize,
) -> Result<BTreeMap<LogId, RecoveredLog>, StorageError> {
    let mut logs = BTreeMap::new();
    if !exists(topics_dir).await? {
        return Ok(logs);
    }
    let list = async |dir: &Path| fs::read_dir(dir).await.map_err(StorageError::io("list", dir));
    for topic_dir in list(topics_dir).await?.into_iter().skip(reader).step_by(readers.max(1)) {
        let Some(topic) = topic_dir.name.to_str().and_then(paths::topic_of_dir) else { continue };
        let path = topics_dir.join(&topic_dir.name);
        for dir in list(&path).await?.into_iter().filter(|dir| dir.is_dir) {
            let Some(partition) = dir.name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let dir = Some(path.join(&dir.name));
            logs.insert(LogId { topic, partition }, RecoveredLog { dir, ..RecoveredLog::default() });
        }
    }
    Ok(logs)
}

/// What the checkpoints say of journals other than their own.
struct Known {
    /// The newest generation in which every shard has a complete checkpoint. What is older is about to be removed, and
    /// may be half removed already.
    needed_from: u64,
    /// How far a later process took a journal over, by generation and shard.
    ends: BTreeMap<(u64, u32), u64>,
    /// How many shards there were in each generation.
    shards: BTreeMap<u64, u32>,
    /// The newest checkpoint of each journal, by generation and shard.
    newest: BTreeMap<(u64, u32), CheckpointHeader>,
}

impl Known {
    async fn read(chains: &BTreeMap<(u64, u32), ChainFiles>) -> Result<Known, StorageError> {
        let mut complete: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        let (mut ends, mut shards, mut newest) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for ((generation, shard), files) in chains {
            // A damaged one is reported when its journal is read.
            let copies = [&files.checkpoint, &files.checkpoint_copy];
            let paths = copies.into_iter().flatten().map(|(path, _)| &**path);
            let Some((header, its_ends)) = checkpoint::read_newest_header(paths).await? else { continue };
            shards.insert(*generation, header.shards);
            newest.insert((*generation, *shard), header);
            if header.complete {
                let (count, _) = complete.entry(*generation).or_insert((0, header.shards));
                *count += 1;
            }
            for end in its_ends {
                let known = ends.entry((end.generation, end.shard)).or_insert(end.sequence);
                *known = end.sequence.min(*known);
            }
        }
        let whole = complete.iter().rev().find(|(_, (count, shards))| count == shards);
        let needed_from = whole.map_or(0, |(generation, _)| *generation);
        Ok(Known { needed_from, ends, shards, newest })
    }

    /// With all former generations gone, every shard of the oldest had a complete checkpoint.
    fn expect_all_shards(&self, dir: &Path, chains: &Chains) -> Result<(), StorageError> {
        let oldest = chains.keys().next().map_or(0, |(generation, _)| *generation);
        if oldest <= 1 {
            return Ok(());
        }
        let shards = self.shards.get(&oldest).copied().unwrap_or(0);
        if let Some(shard) = (0..shards).find(|shard| !chains.contains_key(&(oldest, *shard))) {
            let path = dir.join(paths::checkpoint_file(oldest, shard));
            let what = format!("shard {shard} of {shards} has neither it nor a journal file");
            return Err(StorageError::missing(&path, what));
        }
        Ok(())
    }
}
