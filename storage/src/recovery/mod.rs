//! Start-up: what the journals and checkpoints of all former generations say of each log.
//!
//! Two steps, because a log may have lived on another shard before. First every core reads some of the journals
//! ([`read_journals`]); the results are split by owning shard, exchanged and merged. Then each shard opens its
//! storage with what concerns its logs, and the logs replay it when they are claimed. Nothing is written before the
//! second step, so a crash in between changes nothing.

mod chain;
mod window;

use crate::checkpoint;
use crate::error::StorageError;
use crate::format::checkpoint::{JournalEnd, LogCheckpoint};
use crate::format::entry::EntryHeader;
use crate::ids::LogId;
use crate::paths::{self, JournalName};
use bytes::Bytes;
use chain::ChainFiles;
use corelog_io::fs;
use std::collections::BTreeMap;
use std::path::Path;
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
    /// An entry is damaged: those after it are left out.
    pub damaged: Option<Arc<str>>,
}

#[derive(Debug)]
pub(crate) struct RecoveredEntry {
    pub generation: u64,
    /// Its journal group.
    pub sequence: u64,
    pub header: EntryHeader,
    pub payload: Bytes,
}

impl RecoveredLog {
    /// Bytes of the batches held.
    pub fn dirty_bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.payload.len() as u64).sum()
    }

    fn merge(&mut self, other: RecoveredLog) {
        let generation = |c: &Option<(u64, LogCheckpoint)>| c.as_ref().map(|(generation, _)| *generation);
        if generation(&other.checkpoint) > generation(&self.checkpoint) {
            self.checkpoint = other.checkpoint;
        }
        self.entries.extend(other.entries);
        self.entries.sort_by_key(|e| (e.generation, e.sequence));
        self.damaged = self.damaged.take().or(other.damaged);
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

/// Reads every `readers`th journal below `data_dir`, beginning with number `reader`. All cores of the process call
/// this before any opens its storage.
///
/// # Errors
/// Damage to what had been on stable storage, an unknown format version, or I/O. A torn end is none: it was never
/// acknowledged, and is left out.
pub async fn read_journals(
    data_dir: &Path,
    reader: usize,
    readers: usize,
) -> Result<Recovered, StorageError> {
    let dir = paths::journal_dir(data_dir);
    if !fs::exists(&dir).await.map_err(StorageError::io("look for", &dir))? {
        return Ok(Recovered { next_generation: 1, ..Recovered::default() });
    }
    let mut chains: BTreeMap<(u64, u32), ChainFiles> = BTreeMap::new();
    for entry in fs::read_dir(&dir).await.map_err(StorageError::io("list", &dir))? {
        let Some(name) = entry.name.to_str().and_then(JournalName::parse) else { continue };
        let path = dir.join(&entry.name);
        match name {
            JournalName::Journal { generation, shard, .. } => {
                chains.entry((generation, shard)).or_default().journals.push((path, entry.len));
            }
            JournalName::Checkpoint { generation, shard } => {
                chains.entry((generation, shard)).or_default().checkpoint = Some((path, entry.len));
            }
        }
    }
    let newest = chains.keys().next_back().map_or(0, |(generation, _)| *generation);
    let Some(next_generation) = newest.checked_add(1) else {
        let what = format!("a file bears generation {newest} in its name, and none can follow");
        return Err(StorageError::corrupt(&dir, 0, what));
    };
    let known = Known::read(&chains).await?;
    chains.retain(|(generation, _), _| *generation >= known.needed_from);
    let mut found = Recovered { next_generation, ..Recovered::default() };
    for ((generation, shard), files) in chains.into_iter().skip(reader).step_by(readers.max(1)) {
        let end = known.ends.get(&(generation, shard)).copied();
        let journal_files = files.journals.len();
        let (logs, sequence) = chain::read(generation, shard, files, end).await?;
        let ends = vec![JournalEnd { generation, shard, sequence }];
        let replayed = Replayed::of(journal_files, &logs);
        found = Recovered::merge([found, Recovered { next_generation, logs, ends, replayed }]);
    }
    Ok(found)
}

/// What the checkpoints say of journals other than their own.
struct Known {
    /// The newest generation in which every shard has a complete checkpoint. What is older is about to be removed, and
    /// may be half removed already.
    needed_from: u64,
    /// How far a later process took a journal over, by generation and shard.
    ends: BTreeMap<(u64, u32), u64>,
}

impl Known {
    async fn read(chains: &BTreeMap<(u64, u32), ChainFiles>) -> Result<Known, StorageError> {
        let mut complete: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        let mut ends = BTreeMap::new();
        for ((generation, _), files) in chains {
            let Some((path, _)) = &files.checkpoint else { continue };
            // A damaged one is reported when its journal is read.
            let Some((header, its_ends)) = checkpoint::read_header(path).await? else { continue };
            if header.complete {
                let (count, _) = complete.entry(*generation).or_insert((0, header.shards));
                *count += 1;
            }
            for end in its_ends {
                let known = ends.entry((end.generation, end.shard)).or_insert(end.sequence);
                *known = end.sequence.min(*known);
            }
        }
        let whole = complete.into_iter().rev().find(|(_, (count, shards))| count == shards);
        Ok(Known { needed_from: whole.map_or(0, |(generation, _)| generation), ends })
    }
}
