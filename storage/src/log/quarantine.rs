//! A log that is refused: damage stays with it. It takes and serves nothing, and what the shard's journal alone has of
//! it is put aside ([`crate::quarantine`]), so that neither journal files nor memory wait for it.

use super::{Log, State};
use crate::error::StorageError;
use crate::format::entry::{EntryHeader, EntryKind};
use crate::ids::LogId;
use crate::quarantine::{self, Held, Place};
use crate::tail::TailBatch;
use corelog_io::planted::{Fault, planted};
use corelog_wire::records::BatchHeader;
use std::rc::Rc;

impl Log {
    /// Why the log is refused, if it was found damaged.
    pub fn refused(&self) -> Option<StorageError> {
        let state = self.state.borrow();
        let evidence = state.refused.as_ref()?;
        Some(StorageError::LogRefused { log: self.id, evidence: evidence.clone() })
    }

    /// A flush met damage to the log's own files, or a disk that does not take them: refuses the log. `false`: the error
    /// is not the log's, or it is refused already.
    pub(crate) fn refuse(&self, error: &StorageError) -> bool {
        {
            let mut state = self.state.borrow_mut();
            let own = match error {
                StorageError::Corrupt { .. }
                | StorageError::Missing { .. }
                | StorageError::Version { .. } => true,
                StorageError::Io { .. } => !error.is_storage_full(),
                _ => false,
            };
            if !own || state.deleted || state.refused.is_some() {
                return false;
            }
            tracing::error!(log = %self.id, evidence = %error, "the log is refused: its segments are damaged, or cannot be written");
            state.refused = Some(error.to_string().into());
        }
        // Those who wait for records learn of it.
        self.news.tell();
        true
    }

    /// Puts aside what the shard's journal alone has of the refused log. The caller has the turn of `upkeep`.
    pub(super) async fn put_aside_in_turn(&self) -> Result<(), StorageError> {
        let held = {
            let state = self.state.borrow();
            match &state.held {
                _ if state.deleted || planted(Fault::RefusedLogKeepsItsPlace) => return Ok(()),
                Some(held) => Rc::clone(held),
                None if state.tail.dirty_bytes() == 0 => return Ok(()),
                None => Rc::new(state.dirty(self.id)),
            }
        };
        let generation = self.shard.generation;
        let (data_dir, shard) = (&*self.shard.config.data_dir, self.shard.config.shard as u32);
        let place = Place { data_dir, generation, shard, log: self.id };
        quarantine::write(&place, &held).await?;
        {
            let state = &mut *self.state.borrow_mut();
            state.put_aside = Some(generation);
            state.all_aside = true;
            state.held = None;
            state.tail.clear();
        }
        self.shard.journal.room.notify_all();
        quarantine::remove(data_dir, self.id, generation).await
    }

    /// The generation that put aside what the journals had of the log, if it is sound again and all of that is in
    /// segments: once a checkpoint says so, what was put aside can go.
    pub(crate) fn is_back(&self) -> bool {
        let state = self.state.borrow();
        state.put_aside.is_some() && state.refused.is_none() && state.tail.first_dirty_sequence() != Some(0)
    }

    /// The checkpoint that says so is durable.
    pub(crate) async fn forget_aside(&self) -> Result<(), StorageError> {
        quarantine::remove(&self.shard.config.data_dir, self.id, u64::MAX).await?;
        self.state.borrow_mut().put_aside = None;
        Ok(())
    }
}

impl State {
    /// Its state is in former generations' journals, or was put aside: not in the shard's checkpoint.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.held.is_some() || self.all_aside
    }

    /// What the checkpoint of a sound log and the journal would hold together; of what is under way too, which is not to be
    /// waited for: the journal may have no room before this is done.
    fn dirty(&self, log: LogId) -> Held {
        let batches = self.tail.dirty_below(self.next.index, u64::MAX);
        let covered = batches.partition_point(|batch| batch.index < self.durable.index);
        let entry = |batch: TailBatch| {
            let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
            let entry = EntryHeader {
                log,
                kind: EntryKind::Append,
                index: batch.index,
                base_offset: batch.base_offset,
                term: header.partition_leader_epoch,
                len: batch.bytes.len() as u32,
            };
            (entry, batch.bytes)
        };
        let entries: Vec<_> = batches.into_iter().map(entry).collect();
        let mut checkpoint = self.checkpoint(log, 0);
        checkpoint.producers = self.producers.entries().map(|(id, entry)| (id, entry.clone())).collect();
        Held { checkpoint: Some(checkpoint), covered, entries }
    }
}
