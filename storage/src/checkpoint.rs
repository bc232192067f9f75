//! Writes a shard's checkpoint, frees the journal files that it makes unnecessary, and removes former generations
//! once no shard needs them.

use crate::config::StorageConfig;
use crate::error::StorageError;
use crate::format::checkpoint::{CHECKPOINT_HEADER, CheckpointHeader, CheckpointWriter, JournalEnd};
use crate::paths::{self, JournalName};
use crate::shard::ShardStorage;
use corelog_io::{File, OpenOptions, fs};
use std::path::Path;
use std::rc::Rc;

/// Writes a checkpoint of all logs as they are now.
pub async fn write(storage: &ShardStorage) -> Result<(), StorageError> {
    let _turn = storage.checkpointing.acquire(1).await;
    let shard = &storage.shard;
    if !shard.journal.ring.is_begun() {
        // The disk has been full since the start: nothing was appended, and the former generations' journals stay.
        return Ok(());
    }
    // Logs are added one after the other, and groups may become durable meanwhile: each log says up to which group
    // its state goes. What is not covered begins after the first of these.
    let covered_from = shard.journal.durable_through();
    let number = shard.checkpoints_begun.get() + 1;
    shard.checkpoints_begun.set(number);
    let mut replay_from = covered_from + 1;
    let mut complete = storage.recovery_settled.get();
    let mut writer = CheckpointWriter::new(storage.former_ends());
    let mut copy = CheckpointWriter::new(storage.former_ends()).without_last_pages();
    let (mut back, mut cut) = (Vec::new(), Vec::new());
    for log in storage.logs() {
        complete &= log.first_dirty_sequence() != Some(0);
        if let Some(sequence) = log.first_dirty_own_sequence() {
            replay_from = replay_from.min(sequence);
        }
        if let Some((state, producers)) = log.checkpoint(shard.journal.durable_through()) {
            let producers: Vec<_> = producers.entries().collect();
            writer.add(&state, producers.iter().copied());
            copy.add(&state, producers.into_iter());
            cut.extend(log.unsaved_cut().map(|number| (Rc::clone(&log), number)));
        }
        if log.is_back() {
            back.push(log);
        }
        corelog_io::yield_if_needed().await;
    }
    let dir = paths::journal_dir(&shard.config.data_dir);
    let header = CheckpointHeader {
        generation: shard.generation,
        shard: shard.config.shard as u32,
        shards: shard.config.shards as u32,
        complete: complete && all_have_begun(storage, &dir).await?,
        replay_from,
        durable_through: covered_from,
        ..CheckpointHeader::default()
    };
    write_both(&dir, header, writer, copy).await?;
    shard.counters.note_checkpoint();
    shard.checkpoints_written.set(number);
    shard.journal.ring.release_below(replay_from);
    cut.into_iter().for_each(|(log, number)| log.cut_is_saved(number));
    // What is of no use any more may stay: the next checkpoint tries again.
    for log in back {
        if let Err(error) = log.forget_aside().await {
            tracing::warn!(log = %log.id(), %error, "what was put aside of it stays");
        }
    }
    if header.complete
        && !storage.former_generations_gone.get()
        && is_complete(&dir, shard.generation, shard.config.shards).await
    {
        match remove_former(&dir, shard.generation).await {
            Ok(()) => storage.former_generations_gone.set(true),
            Err(error) => tracing::warn!(%error, "former journals stay"),
        }
    }
    Ok(())
}

/// A complete checkpoint says that every shard has begun its journal (see recovery). On a full disk one may still wait for
/// room.
async fn all_have_begun(storage: &ShardStorage, dir: &Path) -> Result<bool, StorageError> {
    let shard = &storage.shard;
    while storage.shards_begun.get() < shard.config.shards {
        let path = dir.join(paths::checkpoint_file(shard.generation, storage.shards_begun.get() as u32));
        if !fs::exists(&path).await.map_err(StorageError::io("look for", &path))? {
            return Ok(false);
        }
        storage.shards_begun.set(storage.shards_begun.get() + 1);
    }
    Ok(true)
}

/// One after the other: whatever becomes of one of them, the other is whole, and what it needs is still there.
async fn write_both(
    dir: &Path,
    header: CheckpointHeader,
    writer: CheckpointWriter,
    copy: CheckpointWriter,
) -> Result<(), StorageError> {
    let (generation, shard) = (header.generation, header.shard);
    for (name, writer) in [
        (paths::checkpoint_file(generation, shard), writer),
        (paths::checkpoint_copy_file(generation, shard), copy),
    ] {
        let path = dir.join(name);
        let bytes = writer.finish(header);
        fs::write_atomic(&path, &bytes).await.map_err(StorageError::io("write", &path))?;
    }
    Ok(())
}

/// Writes the first checkpoint of a generation: it has nothing to say but how far the former journals were taken over.
pub async fn write_first(
    config: &StorageConfig,
    generation: u64,
    ends: &[JournalEnd],
) -> Result<(), StorageError> {
    let header = CheckpointHeader {
        generation,
        shard: config.shard as u32,
        shards: config.shards as u32,
        replay_from: 1,
        ..CheckpointHeader::default()
    };
    let dir = paths::journal_dir(&config.data_dir);
    write_both(&dir, header, CheckpointWriter::new(ends), CheckpointWriter::new(ends)).await
}

/// Whether every shard of a generation has a complete checkpoint: nothing older is needed then.
async fn is_complete(dir: &Path, generation: u64, shards: usize) -> bool {
    for shard in 0..shards {
        // The copy is written last.
        match read_header(&dir.join(paths::checkpoint_copy_file(generation, shard as u32))).await {
            Ok(Some((header, _))) if header.complete => {}
            _ => return false,
        }
    }
    true
}

/// As [`read_header`], of the newer of both copies. One that cannot be read is passed over.
pub async fn read_newest_header(
    copies: impl Iterator<Item = &Path>,
) -> Result<Option<(CheckpointHeader, Vec<JournalEnd>)>, StorageError> {
    let (mut newest, mut failed) = (None::<(CheckpointHeader, Vec<JournalEnd>)>, None);
    for path in copies {
        match read_header(path).await {
            Ok(Some(found)) if newest.as_ref().is_none_or(|(known, _)| known.rank() < found.0.rank()) => {
                newest = Some(found)
            }
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    match (newest, failed) {
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// Header and ends of the checkpoint at `path`; `None` if it is missing or no checkpoint.
pub async fn read_header(path: &Path) -> Result<Option<(CheckpointHeader, Vec<JournalEnd>)>, StorageError> {
    if !fs::exists(path).await.map_err(StorageError::io("look for", path))? {
        return Ok(None);
    }
    let options = OpenOptions { read: true, ..OpenOptions::default() };
    let file = File::open(path, options).await.map_err(StorageError::io("open", path))?;
    let bytes = file.read_at(0, CHECKPOINT_HEADER).await.map_err(StorageError::io("read", path))?;
    let Ok(header) = CheckpointHeader::decode(&bytes) else { return Ok(None) };
    let len = file.len().await.map_err(StorageError::io("measure", path))?;
    let prefix = (header.prefix_len() as u64).min(len) as usize;
    let bytes = file.read_at(0, prefix).await.map_err(StorageError::io("read", path))?;
    Ok(header.decode_ends(&bytes).ok().map(|ends| (header, ends)))
}

async fn remove_former(dir: &Path, generation: u64) -> Result<(), StorageError> {
    for entry in fs::read_dir(dir).await.map_err(StorageError::io("list", dir))? {
        // A crash may have left a checkpoint that was being written under its temporary name.
        let name = entry.name.to_str().map(|name| name.strip_suffix(".tmp").unwrap_or(name));
        let of = match name.and_then(JournalName::parse) {
            Some(JournalName::Journal { generation, .. } | JournalName::Checkpoint { generation, .. }) => {
                generation
            }
            None => continue,
        };
        if of < generation {
            let path = dir.join(&entry.name);
            match fs::remove_file(&path).await {
                // Another shard is at it too.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                outcome => outcome.map_err(StorageError::io("remove", &path))?,
            }
        }
    }
    fs::sync_dir(dir).await.map_err(StorageError::io("sync", dir))
}
