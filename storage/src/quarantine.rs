//! What the journal alone has of a refused log, put aside in `journal/refused/`.
//!
//! A refused log is not written to its segments. Its acknowledged batches are kept, but they must not keep the ring, the
//! tail cache or former generations' journals from the other logs: they go into a small journal of the log's own, in
//! the journal's formats, with a checkpoint of this one log beside it. Every start reads it like any other journal and
//! looks anew, since what was wrong may have been mended meanwhile. It goes when the log is deleted, or sound again and
//! in a checkpoint.
//!
//! ```text
//! journal/refused/<generation>-<log>/<generation>-<shard>-0.journal    the batches
//!                                    <generation>-<shard>.checkpoint   written last: with it the whole counts
//! ```

use crate::error::StorageError;
use crate::format::checkpoint::{CheckpointHeader, CheckpointWriter, LogCheckpoint};
use crate::format::entry::EntryHeader;
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::journal_file::JournalFileHeader;
use crate::format::log_sections::Reset;
use crate::format::{PAGE, page_ceil};
use crate::ids::{LogId, Uuid};
use crate::journal::Filling;
use crate::paths::{self, JournalName};
use crate::recovery::{ChainFiles, RecoveredLog, read_chain};
use bytes::Bytes;
use corelog_io::{AlignedBuf, Block, File, OpenOptions, fs, random_u64};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of one group, unless a batch is larger.
const GROUP_BYTES: u64 = 1 << 20;

/// Whose it is, and where it lies.
pub struct Place<'a> {
    pub data_dir: &'a Path,
    pub generation: u64,
    pub shard: u32,
    pub log: LogId,
}

/// What there is of the log beside its segments.
pub struct Held {
    pub checkpoint: Option<LogCheckpoint>,
    /// Journal entries, in order; of the first `covered` the checkpoint knows.
    pub entries: Vec<(EntryHeader, Bytes)>,
    pub covered: usize,
}

impl Held {
    /// Bytes of batches.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(_, payload)| payload.len() as u64).sum()
    }
}

impl Place<'_> {
    fn dir(&self) -> PathBuf {
        paths::refused_dir(self.data_dir).join(paths::refused_log_dir(self.generation, self.log))
    }
}

/// Writes it, durably. What an attempt before left is replaced.
pub async fn write(place: &Place<'_>, held: &Held) -> Result<(), StorageError> {
    let dir = place.dir();
    remove_dir(&dir).await?;
    fs::create_dir_all(&dir).await.map_err(StorageError::io("create", &dir))?;
    let (last_covered, last) = write_entries(place, &dir, held).await?;
    let mut checkpoint = CheckpointWriter::new(&[]);
    if let Some(state) = &held.checkpoint {
        // The groups are numbered anew: none of them is from before a reset.
        let reset = state.reset.map(|reset| Reset { generation: 0, sequence: 0, ..reset });
        let mut state = LogCheckpoint { durable_through: last_covered, reset, ..state.clone() };
        // Of what was cut nothing is here.
        state.committed.cuts.clear();
        checkpoint.add(&state, state.producers.iter().map(|(id, entry)| (*id, entry)));
    }
    let bytes = checkpoint.finish(CheckpointHeader {
        generation: place.generation,
        shard: place.shard,
        shards: 1,
        replay_from: 1,
        durable_through: last,
        ..CheckpointHeader::default()
    });
    let path = dir.join(paths::checkpoint_file(place.generation, place.shard));
    fs::write_atomic(&path, &bytes).await.map_err(StorageError::io("write", &path))?;
    for dir in [paths::refused_dir(place.data_dir), paths::journal_dir(place.data_dir)] {
        fs::sync_dir(&dir).await.map_err(StorageError::io("sync", &dir))?;
    }
    Ok(())
}

/// Numbers of the last group that the checkpoint covers, and of the last.
async fn write_entries(place: &Place<'_>, dir: &Path, held: &Held) -> Result<(u64, u64), StorageError> {
    let (generation, shard, salt) = (place.generation, place.shard, random_u64());
    let path = dir.join(paths::journal_file(generation, shard, 0));
    let options = OpenOptions { read: true, write: true, create: true, direct: true };
    let file = File::open(&path, options).await.map_err(StorageError::io("create", &path))?;
    let mut page = AlignedBuf::new(PAGE);
    JournalFileHeader { generation, shard, salt, first_sequence: 1 }.encode(&mut page);
    file.write_at(0, page.freeze(), false).await.map_err(StorageError::io("write", &path))?;
    let (mut position, mut last_covered, mut last) = (PAGE as u64, 0, 0);
    let (covered, uncovered) = held.entries.split_at(held.covered);
    for mut entries in [covered, uncovered] {
        while let Some((first, _)) = entries.first() {
            let capacity = page_ceil((GROUP_HEADER + first.span()) as u64).max(GROUP_BYTES) as usize;
            let mut group = Filling::begin(Block::with_capacity(capacity), last + 1);
            while let Some(((header, payload), rest)) = entries.split_first()
                && group.fits(header.span(), capacity)
            {
                group.push(header, payload, &[]);
                entries = rest;
            }
            let (bytes, group, _) = group.seal(GroupHeader {
                generation,
                salt,
                sequence: 0,
                durable_through: last,
                shard,
                payload_len: 0,
                entries: 0,
                entries_crc: 0,
            });
            file.write_at(position, bytes, false).await.map_err(StorageError::io("write", &path))?;
            position += group.len;
            last += 1;
        }
        if last_covered == 0 {
            last_covered = last;
        }
    }
    file.sync_data().await.map_err(StorageError::io("sync", &path))?;
    Ok((if held.covered == 0 { 0 } else { last_covered }, last))
}

/// The newest of each log that has one: its generation and where it is. One that was never finished does not count: what it
/// was to hold is still where it was.
pub async fn find(data_dir: &Path) -> Result<BTreeMap<LogId, (u64, PathBuf)>, StorageError> {
    let refused = paths::refused_dir(data_dir);
    let mut newest: BTreeMap<LogId, (u64, PathBuf)> = BTreeMap::new();
    for entry in list(&refused).await? {
        let Some((generation, log)) = entry.name.to_str().and_then(paths::parse_refused_log_dir) else {
            continue;
        };
        let dir = refused.join(&entry.name);
        if list(&dir).await?.iter().any(is_checkpoint)
            && newest.get(&log).is_none_or(|(known, _)| *known < generation)
        {
            newest.insert(log, (generation, dir));
        }
    }
    Ok(newest)
}

/// Removes what was never finished in generations before `generation`. A start that may still be refused removes nothing.
pub async fn sweep(data_dir: &Path, generation: u64) -> Result<(), StorageError> {
    let refused = paths::refused_dir(data_dir);
    for entry in list(&refused).await? {
        let of = entry.name.to_str().and_then(paths::parse_refused_log_dir);
        let dir = refused.join(&entry.name);
        if of.is_some_and(|(of, _)| of < generation) && !list(&dir).await?.iter().any(is_checkpoint) {
            remove_dir(&dir).await?;
        }
    }
    Ok(())
}

/// What was put aside of `log` in `dir`. Damage to it concerns this log alone.
pub async fn read(log: LogId, generation: u64, dir: &Path) -> Result<RecoveredLog, StorageError> {
    let mut files: BTreeMap<u32, ChainFiles> = BTreeMap::new();
    for entry in list(dir).await? {
        let path = dir.join(&entry.name);
        match entry.name.to_str().and_then(JournalName::parse) {
            Some(JournalName::Journal { shard, number, .. }) => {
                drop(files.entry(shard).or_default().journals.insert(number, (path, entry.len)))
            }
            Some(JournalName::Checkpoint { shard, .. }) => {
                files.entry(shard).or_default().add_checkpoint(path, entry.len)
            }
            None => {}
        }
    }
    let mut found = RecoveredLog::default();
    for (shard, files) in files {
        match read_chain(dir, generation, shard, files, None, None).await {
            Ok((mut logs, _)) => found = logs.remove(&log).unwrap_or_default(),
            Err(error) => found.damaged = Some((generation, error.to_string().into())),
        }
    }
    found.put_aside = Some(generation);
    Ok(found)
}

/// Removes what was put aside of `log`, in generations before `generation`.
pub async fn remove(data_dir: &Path, log: LogId, before: u64) -> Result<(), StorageError> {
    let refused = paths::refused_dir(data_dir);
    for entry in list(&refused).await? {
        let of = entry.name.to_str().and_then(paths::parse_refused_log_dir);
        if of.is_some_and(|(generation, of)| of == log && generation < before) {
            remove_dir(&refused.join(&entry.name)).await?;
        }
    }
    Ok(())
}

/// The topics of which something is put aside. That nothing is of others is durable.
pub async fn refused_topics(data_dir: &Path) -> Result<BTreeSet<Uuid>, StorageError> {
    let refused = paths::refused_dir(data_dir);
    let entries = list(&refused).await?;
    match fs::sync_dir(&refused).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        synced => synced.map_err(StorageError::io("sync", &refused))?,
    }
    let of = |entry: &fs::DirEntry| entry.name.to_str().and_then(paths::parse_refused_log_dir);
    Ok(entries.iter().filter_map(of).map(|(_, log)| log.topic).collect())
}

/// What was written last goes first: whatever a crash leaves of the rest does not count.
async fn remove_dir(dir: &Path) -> Result<(), StorageError> {
    for checkpoint in list(dir).await?.into_iter().filter(is_checkpoint) {
        let path = dir.join(checkpoint.name);
        fs::remove_file(&path).await.map_err(StorageError::io("remove", &path))?;
        fs::sync_dir(dir).await.map_err(StorageError::io("sync", dir))?;
    }
    fs::remove_dir_all(dir).await.map_err(StorageError::io("remove", dir))
}

fn is_checkpoint(entry: &fs::DirEntry) -> bool {
    matches!(entry.name.to_str().and_then(JournalName::parse), Some(JournalName::Checkpoint { .. }))
}

/// The entries of a directory that may be missing.
async fn list(dir: &Path) -> Result<Vec<fs::DirEntry>, StorageError> {
    match fs::read_dir(dir).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(StorageError::io("list", dir)),
    }
}
