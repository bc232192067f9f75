//! A coordinator's log in this shard's storage.

use std::rc::Rc;

use bytes::Bytes;
use corelog_storage::{AppendError, BatchKind, ReadError};
use tracing::warn;

use super::log::{CoordinatorLog, LogRead, NotAppended, ReadFailed, WriteLost};
use super::machine::WriteFailure;
use crate::ids::LeaderEpoch;
use crate::logging::sparing::Sparing;
use crate::partition::{Acks, Committed, Partition};

/// A partition of an internal topic, and the epoch in which this broker leads it.
pub struct StorageLog {
    partition: Rc<Partition>,
    leader_epoch: LeaderEpoch,
    lines: Rc<Sparing>,
}

impl StorageLog {
    pub fn new(partition: Rc<Partition>, leader_epoch: LeaderEpoch, lines: Rc<Sparing>) -> StorageLog {
        StorageLog { partition, leader_epoch, lines }
    }
}

impl CoordinatorLog for StorageLog {
    type Durable = CommittedWrite;

    async fn append(&self, batch: Bytes) -> Result<CommittedWrite, NotAppended> {
        let (kind, log) = (BatchKind::Coordinator, self.partition.id());
        match self.partition.append_in(self.leader_epoch, kind, batch, Acks::All).await {
            Ok(appended) => Ok(CommittedWrite(appended.committed)),
            // The storage has told of it, once.
            Err(AppendError::DiskFull { .. }) => Err(NotAppended::Refused(WriteFailure::Unavailable)),
            Err(AppendError::StaleLeaderEpoch { .. } | AppendError::NotTaken(_)) => Err(NotAppended::Fenced),
            Err(error) => {
                if let Some(left_out) = self.lines.turn("group record not appended", 0, corelog_io::now()) {
                    warn!(%log, %error, left_out, "group record not appended");
                }
                Err(NotAppended::Refused(match error {
                    AppendError::TooLarge { .. } => WriteFailure::TooLarge,
                    _ => WriteFailure::Failed,
                }))
            }
        }
    }

    async fn read(&self, offset: i64, bytes_max: usize) -> Result<LogRead, ReadFailed> {
        let whole = |offset| self.partition.read(offset, bytes_max, usize::MAX);
        let mut read = whole(offset).await;
        // Where the log begins may only be known when its segments have been looked at.
        if let Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) = read
            && offset < log_start_offset
        {
            read = whole(log_start_offset).await;
        }
        let read = read.map_err(|error| ReadFailed(format!("log {}: {error}", self.partition.id())))?;
        let batches = match <[Bytes; 1]>::try_from(read.parts) {
            Ok([one]) => one,
            Err(parts) => Bytes::from(parts.concat()),
        };
        Ok(LogRead { batches, next_offset: read.next_offset })
    }

    fn start_offset(&self) -> i64 {
        self.partition.log_start_offset()
    }

    fn end_offset(&self) -> i64 {
        self.partition.log_end_offset()
    }

    fn leader_epoch(&self) -> i32 {
        self.leader_epoch.0
    }
}

/// Completes when the write is committed.
pub struct CommittedWrite(Committed);

impl Future for CommittedWrite {
    type Output = Result<(), WriteLost>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map_err(|refusal| WriteLost(refusal.message))
    }
}
