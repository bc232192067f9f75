//! The tasks that write sealed groups.

use crate::error::StorageError;
use crate::shard::Shard;
use corelog_io::sleep;
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
                Err(error) if error.is_storage_full() && !shard.is_closed() => {
                    // Nothing of it is acknowledged yet, and writing it again changes nothing: wait for space.
                    shard.space.note_full();
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
        let first_sequence = journal.front_sequence();
        let freed = journal.ring.freed.listen();
        match journal.ring.roll(first_sequence).await {
            Ok(true) => shard.journal_file_is_full(true),
            Ok(false) => {
                shard.journal_file_is_full(false);
                freed.await;
            }
            Err(error) if error.is_storage_full() && !shard.is_closed() => {
                shard.space.note_full();
                sleep(FULL_DISK_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn fail(shard: &Rc<Shard>, error: StorageError) {
    let evidence = error.to_string();
    tracing::error!(shard = shard.config.shard, %evidence, "the journal failed: this shard takes no more writes");
    shard.journal.fail(StorageError::JournalFailed { shard: shard.config.shard, evidence: evidence.into() });
}
