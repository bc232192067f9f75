//! Writes a shard's checkpoint, frees the journal files that it makes unnecessary, and removes former generations
//! once no shard needs them.

use crate::config::StorageConfig;
use crate::error::StorageError;
use crate::format::checkpoint::{CHECKPOINT_HEADER, CheckpointHeader, CheckpointWriter, JournalEnd};
use crate::paths::{self, JournalName};
use crate::shard::ShardStorage;
use corelog_io::{File, OpenOptions, fs};
use std::path::Path;

/// Writes a checkpoint of all logs as they are now.
pub async fn write(storage: &ShardStorage) -> Result<(), StorageError> {
    let _turn = storage.checkpointing.acquire(1).await;
    let shard = &storage.shard;
    // Logs are added one after the other, and groups may become durable meanwhile: each log says up to which group
    // its state goes. What is not covered begins after the first of these.
    let covered_from = shard.journal.durable_through();
    let mut replay_from = covered_from + 1;
    let mut complete = storage.recovery_settled.get();
    let mut writer = CheckpointWriter::new(storage.former_ends());
    for log in storage.logs() {
        if log.refused().is_some() {
            // As long as its evidence is in the former generations' journals, they stay.
            complete &= storage.former_generations_gone.get() || !log.is_refused_by_journals();
            continue;
        }
        complete &= log.first_dirty_sequence() != Some(0);
        if let Some(sequence) = log.first_dirty_own_sequence() {
            replay_from = replay_from.min(sequence);
        }
        if let Some((state, producers)) = log.checkpoint(shard.journal.durable_through()) {
            writer.add(&state, producers.entries().collect::<Vec<_>>().into_iter());
        }
        corelog_io::yield_if_needed().await;
    }
    let bytes = writer.finish(CheckpointHeader {
        generation: shard.generation,
        shard: shard.config.shard as u32,
        shards: shard.config.shards as u32,
        complete,
        replay_from,
        durable_through: covered_from,
        ..CheckpointHeader::default()
    });
    let dir = paths::journal_dir(&shard.config.data_dir);
    let path = dir.join(paths::checkpoint_file(shard.generation, shard.config.shard as u32));
    fs::write_atomic(&path, &bytes).await.map_err(StorageError::io("write", &path))?;
    shard.counters.note_checkpoint();
    shard.journal.ring.release_below(replay_from);
    if complete
        && !storage.former_generations_gone.get()
        && is_complete(&dir, shard.generation, shard.config.shards).await
    {
        remove_former(&dir, shard.generation).await?;
        storage.former_generations_gone.set(true);
    }
    Ok(())
}

/// Writes the first checkpoint of a generation: it has nothing to say but how far the former journals were taken over.
pub async fn write_first(
    config: &StorageConfig,
    generation: u64,
    ends: &[JournalEnd],
) -> Result<(), StorageError> {
    let bytes = CheckpointWriter::new(ends).finish(CheckpointHeader {
        generation,
        shard: config.shard as u32,
        shards: config.shards as u32,
        replay_from: 1,
        ..CheckpointHeader::default()
    });
    let dir = paths::journal_dir(&config.data_dir);
    let path = dir.join(paths::checkpoint_file(generation, config.shard as u32));
    fs::write_atomic(&path, &bytes).await.map_err(StorageError::io("write", &path))
}

/// Whether every shard of a generation has a complete checkpoint: nothing older is needed then.
async fn is_complete(dir: &Path, generation: u64, shards: usize) -> bool {
    for shard in 0..shards {
        match read_header(&dir.join(paths::checkpoint_file(generation, shard as u32))).await {
            Ok(Some((header, _))) if header.complete => {}
            _ => return false,
        }
    }
    true
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
        let of = match entry.name.to_str().and_then(JournalName::parse) {
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
