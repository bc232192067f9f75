//! A partition as this broker has it: between the handlers in `api/`, which see nothing below, and its log in the storage.
//!
//! ```text
//!  api::*  ── Router ──▶ Route: the shard that has the replica      (any shard: from the metadata image)
//!                          │
//!                          ▼ a call
//!                      Partitions ──▶ Partition ──▶ storage::Log    (the owning shard)
//! ```
//!
//! What a replica is to its partition (leader, follower, none) is known here alone: a handler asks for the partition to
//! lead ([`Partitions::led`]), and is told so, or told off with Kafka's code for it. The log knows nothing of it.

mod commits;
mod error;
mod leadership;
mod partitions;
pub mod placement;
mod route;

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::sync::Source;
use corelog_replicas::{Led, Replica};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, EpochEnd, Log, LogId, LogStats, Read, ReadError, StorageError,
};
use corelog_wire::ErrorCode;

use commits::Commits;
pub use commits::{Acks, Committed};
pub use error::{Refusal, append_refusal};
pub use leadership::{Leadership, Role};
pub use partitions::Partitions;
pub use route::{Route, Router};

use crate::ids::{BrokerId, LeaderEpoch, ReplicaId};

/// How much of a partition a reader sees (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    /// As requests name it.
    pub fn from_level(level: i8) -> Option<Isolation> {
        match level {
            0 => Some(Isolation::ReadUncommitted),
            1 => Some(Isolation::ReadCommitted),
            _ => None,
        }
    }
}

/// A replica on this broker, on the shard that owns it.
pub struct Partition {
    log: Rc<Log>,
    leadership: Cell<Leadership>,
    commits: Commits,
}

/// Which offset is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    Earliest,
    Latest(Isolation),
    /// That of the record with the greatest timestamp.
    MaxTimestamp,
    /// The first whose record is as old as this, in milliseconds since the Unix epoch, or newer.
    Timestamp(i64),
}

/// An offset that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    pub offset: i64,
    /// -1 where no record was looked for.
    pub timestamp: i64,
    pub leader_epoch: i32,
}

/// A batch whose order is fixed.
pub struct Appended {
    pub base_offset: i64,
    pub log_start_offset: i64,
    /// It was there: a retry of an idempotent producer. The timestamp that it was given at first.
    pub duplicate_of: Option<i64>,
    pub committed: Committed,
}

impl Partition {
    fn new(log: Rc<Log>, leadership: Leadership, commits: Commits) -> Rc<Partition> {
        Rc::new(Partition { log, leadership: Cell::new(leadership), commits })
    }

    /// Of one replica, for who needs no more of it.
    #[cfg(test)]
    pub fn alone(log: Rc<Log>, epoch: i32) -> Rc<Partition> {
        let leadership = Leadership { role: Role::Leader, epoch: LeaderEpoch(epoch), leader: None };
        Partition::new(log, leadership, Commits::default())
    }

    pub fn id(&self) -> LogId {
        self.log.id()
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership.get()
    }

    fn leader_epoch(&self) -> LeaderEpoch {
        self.leadership.get().epoch
    }

    /// Who waits for news of the partition is told when it is led otherwise.
    fn set_leadership(&self, leadership: Leadership) {
        if self.leadership.replace(leadership) != leadership {
            self.log.news().tell();
        }
    }

    /// Whether the partition may be asked as its leader, by a client that takes `epoch` for the leader's (-1: does not say).
    ///
    /// A log that was found damaged at the start knows less than it told clients before: nothing it says may reach them.
    ///
    /// A leader whose group may have another by now is not asked: what it has committed may not be all.
    pub fn check_leader(&self, epoch: i32) -> Result<(), ErrorCode> {
        self.leadership.get().check(epoch)?;
        if !self.commits.may_lead(self.id()) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        self.check_sound()
    }

    /// Whether it is one of several replicas, or was.
    pub fn has_group(&self) -> bool {
        self.commits.has_group()
    }

    /// Its replica, if it is one of a group and open.
    pub fn replica(&self) -> Option<&Rc<Replica>> {
        self.commits.replica()
    }

    /// Which replica of its group it is; `None`: it has none.
    pub fn replica_id(&self) -> Option<ReplicaId> {
        self.commits.id()
    }

    /// Its group goes on with this replica.
    fn set_replica(&self, replica: Rc<Replica>) {
        self.commits.set_replica(replica);
    }

    /// Who leads its group has changed. `leader`: that one's broker. True: this replica leads from now on, or no more.
    fn set_led(&self, led: Led, leader: Option<BrokerId>) -> bool {
        let role = if led.serves { Role::Leader } else { Role::Follower };
        let was = self.leadership.get();
        self.set_leadership(Leadership { role, epoch: LeaderEpoch(led.term.0), leader });
        was.role != role || (role == Role::Leader && was.epoch.0 != led.term.0)
    }

    pub fn check_sound(&self) -> Result<(), ErrorCode> {
        if self.log.refused().is_some() { Err(ErrorCode::KAFKA_STORAGE_ERROR) } else { Ok(()) }
    }

    /// Its topic was deleted: another of its name may be there.
    pub fn is_deleted(&self) -> bool {
        self.log.is_deleted()
    }

    /// The offset after the last record that is committed.
    pub fn high_watermark(&self) -> i64 {
        self.log.high_watermark()
    }

    /// The offset after the last record before which no transaction is open. There are none yet.
    pub fn last_stable_offset(&self) -> i64 {
        self.log.high_watermark()
    }

    pub fn log_start_offset(&self) -> i64 {
        self.log.log_start_offset()
    }

    /// The offset after the last record that a reader sees.
    pub fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.last_stable_offset(),
        }
    }

    /// Tells when an offset above moves, when the partition is led otherwise, and when it is deleted.
    pub fn news(&self) -> &Source {
        self.log.news()
    }

    /// So much of it has gone out to a client.
    pub fn note_given(&self, bytes: u64, records: u64) {
        self.log.note_given(bytes, records);
    }

    pub fn stats(&self) -> LogStats {
        self.log.stats()
    }

    /// Fixes the order of a client's batch, as the leader. In the epoch in which it is asked: should another have begun when
    /// its turn comes, the log refuses it.
    pub async fn append(&self, batch: Bytes, acks: Acks) -> Result<Appended, Refusal> {
        self.leadership.get().check(-1)?;
        let appended = self.append_in(self.leader_epoch(), BatchKind::Client, batch, acks).await;
        appended.map_err(|error| append_refusal(&error))
    }

    /// As [`Partition::append`], in the epoch in which it is asked.
    pub async fn append_in(
        &self,
        epoch: LeaderEpoch,
        kind: BatchKind,
        bytes: Bytes,
        acks: Acks,
    ) -> Result<Appended, AppendError> {
        let mut appended = self.log.append(AppendBatch { bytes, kind, leader_epoch: epoch.0 }).await?;
        // Only clients may say that they would rather not wait.
        appended.cached &= kind == BatchKind::Client;
        Ok(Appended {
            base_offset: appended.base_offset,
            log_start_offset: appended.log_start_offset,
            duplicate_of: appended.duplicate.then_some(appended.max_timestamp),
            committed: self.commits.of(appended, epoch, acks),
        })
    }

    /// Whole batches from `offset` on, about `max_bytes` of them; a first one of up to `first_batch` bytes (KIP-74).
    pub async fn read(&self, offset: i64, max_bytes: usize, first_batch: usize) -> Result<Read, ReadError> {
        self.log.read_within(offset, max_bytes, first_batch).await
    }

    /// `None` where there is no such offset.
    pub async fn find_offset(&self, query: OffsetQuery) -> Result<Option<FoundOffset>, StorageError> {
        let own_epoch = self.leader_epoch().0;
        let found = match query {
            OffsetQuery::Earliest => {
                let offset = self.log_start_offset();
                // A log that never had a record has begun in its leader's epoch.
                let epoch = Some(self.log.epoch_at(offset)).filter(|epoch| *epoch >= 0);
                return Ok(Some(FoundOffset {
                    offset,
                    timestamp: -1,
                    leader_epoch: epoch.unwrap_or(own_epoch),
                }));
            }
            // What comes next comes in the leader's epoch.
            OffsetQuery::Latest(isolation) => {
                let offset = self.end(isolation);
                return Ok(Some(FoundOffset { offset, timestamp: -1, leader_epoch: own_epoch }));
            }
            OffsetQuery::MaxTimestamp => self.log.max_timestamp().await?,
            OffsetQuery::Timestamp(timestamp) => self.log.offset_for_timestamp(timestamp).await?,
        };
        Ok(found.map(|found| FoundOffset {
            offset: found.offset,
            timestamp: found.timestamp,
            leader_epoch: found.leader_epoch,
        }))
    }

    /// Where the records of an epoch end (KIP-320).
    pub fn epoch_end(&self, epoch: i32) -> EpochEnd {
        // The leader's own lasts, though nothing may have been written in it yet.
        if epoch == self.leader_epoch().0 {
            return EpochEnd { epoch, end_offset: self.high_watermark() };
        }
        self.log.epoch_end_offset(epoch)
    }

    /// The epoch before which a client's log goes the same way as this one, and where that ends, if it does not up to
    /// `offset`, before which the client has `epoch` (KIP-595).
    pub fn diverging(&self, epoch: i32, offset: i64) -> Result<Option<EpochEnd>, ErrorCode> {
        let end = self.epoch_end(epoch);
        if end.epoch < 0 {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        Ok((end.epoch < epoch || end.end_offset < offset).then_some(end))
    }

    /// Deletes the records before an offset, or all that are committed. Gives where the log begins then.
    pub async fn delete_records(&self, before: Option<i64>) -> Result<i64, ReadError> {
        let (log_start_offset, end) = (self.log_start_offset(), self.high_watermark());
        let before = before.unwrap_or(end);
        if before < 0 || before > end {
            return Err(ReadError::OffsetOutOfRange {
                offset: before,
                log_start_offset,
                log_end_offset: end,
            });
        }
        self.log.delete_records(before).await?;
        Ok(self.log_start_offset())
    }

    pub async fn apply_retention(&self, now_ms: i64) -> Result<(), StorageError> {
        self.log.apply_retention(now_ms).await.map(drop)
    }

    /// Bytes of its segments on disk.
    pub async fn size_bytes(&self) -> Result<u64, StorageError> {
        self.log.size_bytes().await
    }

    /// For the coordinator whose state the partition holds, if this broker leads it: it reads and writes as the leader.
    pub fn coordinators(self: &Rc<Self>) -> Option<(Rc<Partition>, LeaderEpoch)> {
        let Leadership { role, epoch, .. } = self.leadership.get();
        (role == Role::Leader).then(|| (self.clone(), epoch))
    }

    pub fn log_end_offset(&self) -> i64 {
        self.log.log_end_offset()
    }
}

#[cfg(test)]
mod tests;
