//! The controller's log: where a change's records are once they hold. Of one broker, they hold when they are durable; of several,
//! when a majority of its group has them.

use std::rc::Rc;

use corelog_storage::{AppendBatch, AppendError, Appended, BatchKind, Log};
use corelog_wire::ErrorCode;
use corelog_wire::metadata_records::MetadataRecord;

use super::change::{CHANGE_BYTES_MAX, ChangeError};
use super::member::{Member, not_controller};
use super::records::encode_batch;
use crate::ids::LeaderEpoch;

pub struct MetadataLog {
    log: Rc<Log>,
    /// `None`: this broker is alone with it.
    member: Option<Rc<Member>>,
    /// Why nothing is taken any more: it is not known whether the log has what was given last, or what it says makes no sense.
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
    pub fn new(log: Rc<Log>, member: Option<Rc<Member>>) -> MetadataLog {
        MetadataLog { log, member, failed: None }
    }

    pub fn log(&self) -> &Rc<Log> {
        &self.log
    }

    pub fn member(&self) -> Option<&Rc<Member>> {
        self.member.as_ref()
    }

    pub fn check_sound(&self) -> Result<(), ChangeError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// In which epoch it takes records of who knows what it says up to `applied`.
    pub fn check(&self, applied: Option<i64>) -> Result<LeaderEpoch, ChangeError> {
        self.check_sound()?;
        match &self.member {
            None => Ok(LeaderEpoch(0)),
            Some(member) => member
                .leads()
                .filter(|_| applied == Some(self.log.log_end_offset()))
                .ok_or_else(not_controller),
        }
    }

    /// Nothing more can be made of it.
    pub fn fail(&mut self, failed: ChangeError) {
        tracing::error!("{failed}");
        // Of changes to come it is known: they are not made.
        self.failed = Some(ChangeError { in_doubt: false, ..failed });
    }

    /// Makes `records` hold, as one batch: all of them, or none. `kind`: whether a full disk refuses it. `epoch`: in which it
    /// was decided.
    pub async fn replicate(
        &mut self,
        records: &[MetadataRecord],
        kind: BatchKind,
        epoch: LeaderEpoch,
    ) -> Result<Written, ChangeError> {
        let storage = |error: &dyn std::fmt::Display| {
            ChangeError::new(ErrorCode::KAFKA_STORAGE_ERROR, format!("the controller's log: {error}"))
        };
        self.check_sound()?;
        let bytes = encode_batch(records, corelog_io::wall_clock_ms()).map_err(|error| storage(&error))?;
        let len = bytes.len();
        if self.member.is_some() && len > CHANGE_BYTES_MAX {
            return Err(too_large(len));
        }
        let batch = AppendBatch { bytes, kind, leader_epoch: epoch.0 };
        // Refused here, it is not in the log.
        let appended = self.log.append(batch).await.map_err(|error| match error {
            AppendError::NotTaken(_) | AppendError::StaleLeaderEpoch { .. } => not_controller(),
            error => storage(&error),
        })?;
        let written =
            Written { first: appended.base_offset, end: appended.last_offset + 1, bytes: len as u64 };
        self.holds(appended, epoch).await?;
        Ok(written)
    }

    async fn holds(&mut self, appended: Appended, epoch: LeaderEpoch) -> Result<(), ChangeError> {
        if let Some(member) = &self.member {
            let index = appended.index.expect("a batch without a producer is no retry");
            return member.group.replica.committed(index, epoch.0).await.map_err(|_| {
                ChangeError::in_doubt(
                    ErrorCode::NOT_CONTROLLER,
                    "the broker that made the change has lost the controller's group meanwhile: look whether it is made",
                )
            });
        }
        let Err(error) = appended.durable.await else { return Ok(()) };
        let failed = ChangeError::in_doubt(
            ErrorCode::KAFKA_STORAGE_ERROR,
            format!(
                "the controller's log failed ({error}), and whether it has the last change is not known: topics and \
                 configs cannot be changed until this broker is restarted"
            ),
        );
        self.fail(failed.clone());
        Err(failed)
    }

    /// What is before `first` says nothing any more.
    pub async fn begin_with(&self, first: i64) {
        if let Err(error) = self.log.delete_records(first).await {
            tracing::warn!(%error, "the controller's log keeps what is before its snapshot");
        }
    }
}

/// Links between brokers, and calls, carry no more at once.
pub fn too_large(bytes: usize) -> ChangeError {
    ChangeError::new(
        ErrorCode::INVALID_REQUEST,
        format!(
            "the change takes {bytes} bytes, and brokers of a cluster hand each other at most {CHANGE_BYTES_MAX} at once: \
             make it in several smaller ones"
        ),
    )
}
