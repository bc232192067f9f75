//! The flusher: empties the journal into segments ahead of need, writes checkpoints, and so lets journal files be
//! used again. One task a shard, in the background queue.
//!
//! It is woken when a journal file is full, when memory of the tail cache runs short, and when recovery is settled.

use crate::checkpoint;
use crate::error::StorageError;
use crate::log::Log;
use crate::shard::ShardStorage;
use corelog_io::sync::{Notify, Semaphore};
use corelog_io::{Queue, sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// How long a flush that met a full disk waits before it tries again.
const FULL_DISK_RETRY: Duration = Duration::from_millis(500);
/// How often a flush that met another error is tried again before the shard stops taking writes.
const RETRIES: u32 = 3;
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// What the flusher has been asked for.
#[derive(Default)]
pub struct Flusher {
    wake: Notify,
    file_is_full: Cell<bool>,
    memory_is_short: Cell<bool>,
    recovery_is_settled: Cell<bool>,
    /// Logs that had something to flush when it was last looked.
    pub dirty_logs: Cell<usize>,
    /// A journal group became durable; for the marker.
    pub durable_groups: Notify,
}

impl Flusher {
    pub fn file_is_full(&self) {
        self.file_is_full.set(true);
        self.wake();
    }

    pub fn memory_is_short(&self) {
        if !self.memory_is_short.replace(true) {
            self.wake();
        }
    }

    pub fn recovery_is_settled(&self) {
        self.recovery_is_settled.set(true);
        self.wake();
    }

    pub fn group_is_durable(&self) {
        self.durable_groups.notify_one();
    }

    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Runs until the storage is closed.
pub async fn run(storage: Rc<ShardStorage>) {
    let shard = &storage.shard;
    loop {
        shard.flusher.wake.notified().await;
        if shard.is_closed() {
            return;
        }
        if let Err(error) = serve(&storage).await {
            if shard.is_closed() {
                return;
            }
            if shard.is_closing() && error.is_storage_full() {
                // What waits for room in the journal waits in vain.
                return shard.journal.fail(error);
            }
            let evidence = format!("flushing to segments: {error}");
            tracing::error!(shard = shard.config.shard, %evidence, "this shard takes no more writes");
            shard
                .journal
                .fail(StorageError::JournalFailed { shard: shard.config.shard, evidence: evidence.into() });
            return;
        }
    }
}

/// Does what has been asked for.
async fn serve(storage: &Rc<ShardStorage>) -> Result<(), StorageError> {
    let outcome = serve_in_turns(storage).await;
    storage.shard.segment_writes.no_hurry();
    outcome
}

async fn serve_in_turns(storage: &Rc<ShardStorage>) -> Result<(), StorageError> {
    let shard = &storage.shard;
    if shard.flusher.memory_is_short.take() {
        let oldest = shard.cache.bytes().saturating_sub(shard.dirty_wanted());
        flush_through(storage, shard.cache.sequence_after(oldest)).await?;
    }
    let settled = shard.flusher.recovery_is_settled.take();
    if settled {
        // Until this is done the next start has the former journals to read as well.
        shard.segment_writes.hurry();
        flush_through(storage, 0).await?;
    }
    if shard.flusher.file_is_full.take() || settled {
        let wait = shard.dirty_wanted() > shard.journal.ring.file_bytes();
        let due_through = shard.journal.ring.due_through(wait);
        if let Some(due_through) = due_through {
            flush_through(storage, due_through).await?;
        }
        if due_through.is_some() || settled {
            write_checkpoint(storage).await?;
        }
    }
    Ok(())
}

/// Writes everything to segments, and a checkpoint that says so.
pub async fn flush_everything(storage: &Rc<ShardStorage>) -> Result<(), StorageError> {
    flush_through(storage, u64::MAX).await?;
    checkpoint::write(storage).await
}

/// A full disk has kept room for this: with it journal files come free, which the deletion of records and topics needs.
async fn write_checkpoint(storage: &Rc<ShardStorage>) -> Result<(), StorageError> {
    retry(storage, async || {
        let written = checkpoint::write(storage).await;
        if written.as_ref().is_err_and(StorageError::is_storage_full) {
            storage.shard.space.give_up_reserve().await;
        }
        written
    })
    .await
}

/// Flushes every log with a dirty batch in a journal group up to `sequence`. Those whose segments were cut wait for a
/// checkpoint first.
async fn flush_through(storage: &Rc<ShardStorage>, sequence: u64) -> Result<(), StorageError> {
    // On a disk that has been full since the start there is none.
    while flush_due(storage, sequence).await? && storage.shard.journal.ring.is_begun() {
        write_checkpoint(storage).await?;
    }
    Ok(())
}

/// Flushes the logs that are due, several at once. Whether some wait for a checkpoint.
async fn flush_due(storage: &Rc<ShardStorage>, sequence: u64) -> Result<bool, StorageError> {
    let mut dirty_logs = 0;
    let mut due = |log: &Rc<Log>| match log.first_dirty_sequence() {
        None => false,
        Some(first) => {
            dirty_logs += 1;
            first <= sequence
        }
    };
    let logs: Vec<Rc<Log>> = storage.logs().into_iter().filter(|log| due(log)).collect();
    storage.shard.flusher.dirty_logs.set(dirty_logs);
    let slots = Semaphore::new(storage.shard.config.flush_concurrency as u64);
    let mut flushes = Vec::with_capacity(logs.len());
    for log in &logs {
        let slot = slots.acquire(1).await;
        let (storage, log) = (Rc::clone(storage), Rc::clone(log));
        flushes.push(spawn(Queue::Background, async move {
            let flush = async || {
                wait_for_space(&storage).await?;
                log.flush().await
            };
            let mut outcome = retry(&storage, flush).await;
            if let Err(error) = &outcome
                && log.refuse(error)
            {
                // Damage stays with its log: it waits aside for a person, the journal goes on for the others.
                outcome = retry(&storage, flush).await;
            }
            if log.is_deleted() {
                outcome = Ok(());
            }
            drop(slot);
            outcome
        }));
    }
    for flush in flushes {
        flush.await?;
    }
    Ok(logs.iter().any(|log| log.waits_for_checkpoint()))
}

/// On a disk that is used up, what is free is what was given up for the journal: segments would take it all.
async fn wait_for_space(storage: &ShardStorage) -> Result<(), StorageError> {
    while let Err(full) = storage.shard.space.check_usable() {
        if storage.shard.is_closing() {
            return Err(full);
        }
        sleep(FULL_DISK_RETRY).await;
    }
    Ok(())
}

/// Waits out a full disk, but for a shard that ends; tries other errors again a few times.
async fn retry(
    storage: &ShardStorage,
    attempt: impl AsyncFn() -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if storage.shard.is_closed() => return Err(error),
            Err(error) if error.is_storage_full() && storage.shard.is_closing() => return Err(error),
            Err(error) if error.is_storage_full() => {
                storage.shard.space.note_full();
                sleep(FULL_DISK_RETRY).await;
            }
            Err(error) => {
                failures += 1;
                if failures > RETRIES || !matches!(error, StorageError::Io { .. }) {
                    return Err(error);
                }
                tracing::warn!(%error, "flushing failed: trying again");
                sleep(RETRY_DELAY).await;
            }
        }
    }
}
