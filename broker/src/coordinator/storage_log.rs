//! A coordinator's log in this shard's storage.

use std::rc::Rc;

use bytes::Bytes;
use corelog_storage::{AppendBatch, AppendError, BatchKind, Durable, Log, ReadError};
use tracing::warn;

use super::log::{CoordinatorLog, LogRead, NotAppended, ReadFailed, WriteLost};
use super::machine::WriteFailure;
use crate::logging::sparing::Sparing;

/// A partition of an internal topic, and the epoch in which this broker leads it.
pub struct StorageLog {
    log: Rc<Log>,
    leader_epoch: i32,
    lines: Rc<Sparing>,
}

impl StorageLog {
    pub fn new(log: Rc<Log>, leader_epoch: i32, lines: Rc<Sparing>) -> StorageLog {
        StorageLog { log, leader_epoch, lines }
    }
}

impl CoordinatorLog for StorageLog {
    type Durable = DurableWrite;

    async fn append(&self, batch: Bytes) -> Result<DurableWrite, NotAppended> {
        let batch =
            AppendBatch { bytes: batch, kind: BatchKind::Coordinator, leader_epoch: self.leader_epoch };
        match self.log.append(batch).await {
            Ok(appended) => Ok(DurableWrite(appended.durable)),
            // The storage has told of it, once.
            Err(AppendError::DiskFull { .. }) => Err(NotAppended::Refused(WriteFailure::Unavailable)),
            Err(AppendError::StaleLeaderEpoch { .. } | AppendError::NotTaken(_)) => Err(NotAppended::Fenced),
            Err(error) => {
                if let Some(left_out) = self.lines.turn("group record not appended", 0, corelog_io::now()) {
                    warn!(log = %self.log.id(), %error, left_out, "group record not appended");
                }
                Err(NotAppended::Refused(match error {
                    AppendError::TooLarge { .. } => WriteFailure::TooLarge,
                    _ => WriteFailure::Failed,
                }))
            }
        }
    }

    async fn read(&self, offset: i64, bytes_max: usize) -> Result<LogRead, ReadFailed> {
        let mut read = self.log.read(offset, bytes_max, true).await;
        // Where the log begins may only be known when its segments have been looked at.
        if let Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) = read
            && offset < log_start_offset
        {
            read = self.log.read(log_start_offset, bytes_max, true).await;
        }
        let read = read.map_err(|error| ReadFailed(format!("log {}: {error}", self.log.id())))?;
        let batches = match <[Bytes; 1]>::try_from(read.parts) {
            Ok([one]) => one,
            Err(parts) => Bytes::from(parts.concat()),
        };
        Ok(LogRead { batches, next_offset: read.next_offset })
    }

    fn start_offset(&self) -> i64 {
        self.log.log_start_offset()
    }

    fn end_offset(&self) -> i64 {
        self.log.log_end_offset()
    }

    fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }
}

/// Completes when the write is on stable storage.
pub struct DurableWrite(Durable);

impl Future for DurableWrite {
    type Output = Result<(), WriteLost>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map_err(|error| WriteLost(error.to_string()))
    }
}
