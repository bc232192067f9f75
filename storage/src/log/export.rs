//! What a log's segments do not tell of it, given to a replica that takes them in: producers whose batches are gone, and
//! the membership. As a checkpoint of this one log.

use super::Log;
use crate::checkpoint;
use crate::error::{StorageError, TransferError};
use crate::format::checkpoint::{CheckpointHeader, CheckpointWriter, Committed, LogCheckpoint, decode};
use crate::ids::RaftIndex;
use crate::shard::ShardStorage;
use crate::terms::TermHistory;
use bytes::Bytes;
use std::collections::BTreeSet;

/// A part of a log's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    pub bytes: Bytes,
    /// There are more producers: those above this id.
    pub more_above: Option<i64>,
}

impl Log {
    /// The log's state as of its commit index: the membership, and so many producers at the most, those with the lowest ids above
    /// `above`; -1: from the first on.
    pub fn export_state(&self, above: i64, producers_max: usize) -> Result<LogState, StorageError> {
        let state = self.state.borrow();
        state.check_writable(self.id)?;
        let all = state.checkpoint(self.id, 0);
        let Committed { offset, index, term, .. } = all.committed;
        let known = LogCheckpoint {
            next_offset: offset,
            next_index: index,
            flushed_offset: 0,
            flushed_index: RaftIndex(0),
            active: None,
            terms: TermHistory::default(),
            reset: None,
            incoming: None,
            committed: Committed { offset, index, term, ..Committed::default() },
            ..all
        };
        let mut rest = state.producers.entries_above(above).peekable();
        let producers: Vec<_> = rest.by_ref().take(producers_max).collect();
        let last = producers.last().map_or(above, |(id, _)| *id);
        let more_above = rest.peek().is_some().then_some(last);
        let mut writer = CheckpointWriter::new(&[]);
        writer.add(&known, producers.into_iter());
        let header = CheckpointHeader { shards: 1, replay_from: 1, ..CheckpointHeader::default() };
        Ok(LogState { bytes: writer.finish(header).into(), more_above })
    }

    /// Takes from another replica's [`Log::export_state`] what the log's own batches do not tell: producers that it has not
    /// seen, as far as their batches lie below its end, and the membership if that is newer. Durable when this returns.
    ///
    /// # Errors
    /// The bytes are not the state of this log.
    pub async fn import_state(&self, storage: &ShardStorage, bytes: &[u8]) -> Result<(), TransferError> {
        let damaged = |what: String| TransferError::Damaged { what };
        let (_, mut logs) = decode(bytes).map_err(|refused| damaged(refused.to_string()))?;
        let known = match (logs.pop(), logs.is_empty()) {
            (Some(known), true) if known.log == self.id => known,
            _ => return Err(damaged(format!("it is not the state of log {}", self.id))),
        };
        {
            let state = &mut *self.state.borrow_mut();
            state.check_writable(self.id)?;
            let (end, max) = (state.next.offset, self.shard.config.producer_ids_max);
            let seen: BTreeSet<i64> = state.producers.entries().map(|(id, _)| id).collect();
            let unseen = known.producers.into_iter().filter(|(id, _)| !seen.contains(id));
            for (id, mut entry) in unseen.take(max.saturating_sub(seen.len())) {
                entry.batches.retain(|batch| batch.last_offset < end);
                if !entry.batches.is_empty() {
                    state.producers.restore(id, entry);
                }
            }
            let own = state.membership.as_ref().map(|own| own.index);
            if let Some(newer) = known.membership.filter(|newer| own.is_none_or(|own| own < newer.index)) {
                state.membership = Some(newer);
            }
        }
        Ok(checkpoint::write(storage).await?)
    }
}
