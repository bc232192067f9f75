//! The controller's log: where a change's records are once they hold. Today it is one broker's, and what is durable holds; of
//! several brokers a majority will have to have it.

use std::rc::Rc;

use corelog_storage::{AppendBatch, BatchKind, Log};
use corelog_wire::ErrorCode;
use corelog_wire::metadata_records::MetadataRecord;

use super::change::ChangeError;
use super::records::encode_batch;

pub struct MetadataLog {
    log: Rc<Log>,
    /// Why nothing is taken any more: it is not known whether the log has what was given last.
    failed: Option<ChangeError>,
}

/// Where a batch is in the log.
pub struct Written {
    pub first: i64,
    /// The offset after it.
    pub end: i64,
    pub bytes: u64,
}

impl MetadataLog {
    pub fn new(log: Rc<Log>) -> MetadataLog {
        MetadataLog { log, failed: None }
    }

    /// Whether it takes records.
    pub fn check(&self) -> Result<(), ChangeError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Makes `records` hold, as one batch: all of them, or none. `kind`: whether a full disk refuses it.
    pub async fn replicate(
        &mut self,
        records: &[MetadataRecord],
        kind: BatchKind,
    ) -> Result<Written, ChangeError> {
        let storage = |error: &dyn std::fmt::Display| {
            ChangeError::new(ErrorCode::KAFKA_STORAGE_ERROR, format!("the controller's log: {error}"))
        };
        self.check()?;
        let bytes = encode_batch(records, corelog_io::wall_clock_ms()).map_err(|error| storage(&error))?;
        let len = bytes.len() as u64;
        let batch = AppendBatch { bytes, kind, leader_epoch: 0 };
        // Refused here, it is not in the log.
        let appended = self.log.append(batch).await.map_err(|error| storage(&error))?;
        if let Err(error) = appended.durable.await {
            let failed = ChangeError::new(
                ErrorCode::KAFKA_STORAGE_ERROR,
                format!(
                    "the controller's log failed ({error}), and whether it has the last change is not known: topics and \
                     configs cannot be changed until this broker is restarted"
                ),
            );
            tracing::error!("{failed}");
            self.failed = Some(failed.clone());
            return Err(failed);
        }
        Ok(Written { first: appended.base_offset, end: appended.last_offset + 1, bytes: len })
    }

    /// What is before `first` says nothing any more.
    pub async fn begin_with(&self, first: i64) {
        if let Err(error) = self.log.delete_records(first).await {
            tracing::warn!(%error, "the controller's log keeps what is before its snapshot");
        }
    }
}
