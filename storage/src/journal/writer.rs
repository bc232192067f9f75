//! The tasks that write sealed groups.

use crate::checkpoint;
use crate::error::StorageError;
use crate::paths;
use crate::shard::Shard;
use corelog_io::{fs, sleep};
use std::rc::Rc;
use std::time::Duration;

/// How long a write that met a full disk waits before it tries again.
const FULL_DISK_RETRY: Duration = Duration::from_millis(100);

/// Takes one group after the other, writes it and settles what is durable by that; until the journal fails or is
/// shut down. As many of these run as groups may be in flight.
pub async fn write_groups(shard: Rc<Shard>) {
    let journal = &shard.journal;
    loop {
        let sealed = {
            let _head = journal.head.acquire(1).await;
            match next_group(&shard).await {
                Ok(Some(sealed)) => sealed,
                Ok(None) => return,
                Err(error) => return fail(&shard, error),
            }
        };
        loop {
            match sealed.place.write(sealed.bytes.clone()).await {
                Ok(()) => break,
                Err(error) if error.is_storage_full() && !shard.is_closing() => {
                    // Nothing of it is acknowledged yet, and writing it again changes nothing: wait for space.
                    shard.space.give_up_reserve().await;
                    sleep(FULL_DISK_RETRY).await;
                }
                Err(error) => return fail(&shard, error),
            }
        }
        if journal.failure().is_some() {
            return;
        }
        for group in journal.written(sealed.sequence, sealed.durable_through) {
            shard.settle(group);
        }
        journal.room.notify_all();
    }
}

/// Waits for a group and for its place. `None`: shut down.
async fn next_group(shard: &Rc<Shard>) -> Result<Option<super::Sealed>, StorageError> {
    let journal = &shard.journal;
    loop {
        if journal.failure().is_some() {
            // The next writer in line finds out too.
            journal.work.notify_one();
            return Ok(None);
        }
        let Some(len) = journal.front_disk_len() else {
            if shard.is_closed() {
                journal.work.notify_one();
                return Ok(None);
            }
            journal.work.notified().await;
            continue;
        };
        // The group may grow while we wait for its place: look again after every wait.
        if journal.ring.is_being_filled(len) {
            let freed = journal.ring.freed.listen();
            if journal.ring.is_being_filled(len) {
                freed.await;
            }
            continue;
        }
        if journal.ring.has_room(len) {
            return Ok(Some(journal.seal_front()));
        }
        let freed = journal.ring.freed.listen();
        let is_first = !journal.ring.is_begun();
        let rolled = match is_first {
            true => begin(shard).await,
            false => journal.ring.roll(journal.front_sequence()).await,
        };
        match rolled {
            Ok(true) if is_first => {}
            Ok(true) => shard.journal_file_is_full(true),
            Ok(false) => {
                shard.journal_file_is_full(false);
                freed.await;
            }
            Err(error) if error.is_storage_full() && !shard.is_closing() => {
                shard.space.give_up_reserve().await;
                sleep(FULL_DISK_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes the generation's first checkpoint durable, and then the journal's first file: the one without the other, or
/// none of both, is what a start finds that had no room for more.
pub async fn begin(shard: &Shard) -> Result<bool, StorageError> {
    checkpoint::write_first(&shard.config, shard.generation, &shard.former_ends).await?;
    let begun = shard.journal.ring.roll(1).await?;
    // Where it is, there was a journal (see recovery).
    let data_dir = &shard.config.data_dir;
    let topics_dir = paths::topics_dir(data_dir);
    fs::create_dir_all(&topics_dir).await.map_err(StorageError::io("create", &topics_dir))?;
    fs::sync_dir(data_dir).await.map_err(StorageError::io("sync", data_dir))?;
    Ok(begun)
}

fn fail(shard: &Rc<Shard>, error: StorageError) {
    if shard.is_closing() && error.is_storage_full() {
        // Nothing of what waits was acknowledged.
        return shard.journal.fail(error);
    }
    let evidence = error.to_string();
    tracing::error!(shard = shard.config.shard, %evidence, "the journal failed: this shard takes no more writes");
    shard.journal.fail(StorageError::JournalFailed { shard: shard.config.shard, evidence: evidence.into() });
}
