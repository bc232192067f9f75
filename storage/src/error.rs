//! What can go wrong, with what a person needs to act on it.

use crate::ids::{LogId, RaftIndex};
use crate::producers::SequenceError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a person can do about damage and loss. No step of it loses anything that is there.
const REMEDY: &str = "Nothing was touched. Restore it from a copy, or rebuild the state of the logs from what is \
                      there: `corectl log repair DATA_DIR` shows what that keeps and what it cannot, and changes \
                      nothing without --execute";

/// A failure of the storage itself. Cheap to clone: one failure answers many waiting appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },

    /// Bytes that had been on stable storage are not what was written.
    #[error("{} is damaged at byte {position}: {what}. {REMEDY}", path.display())]
    Corrupt { path: PathBuf, position: u64, what: String },

    /// A file or directory that was on stable storage is not there.
    #[error("{} is missing: {what}. {REMEDY}", path.display())]
    Missing { path: PathBuf, what: String },

    /// A format this build does not know.
    #[error("{}: {what}", path.display())]
    Version { path: PathBuf, what: String },

    /// The log was found damaged when it was opened; it stays as it is until a person decides.
    #[error("log {log} is refused: {evidence}")]
    LogRefused { log: LogId, evidence: Arc<str> },

    /// A journal write failed. From then on this shard acknowledges nothing: what the disk holds is not known.
    #[error(
        "shard {shard} takes no more writes since its journal failed: {evidence}. Mend the disk and restart the broker"
    )]
    JournalFailed { shard: usize, evidence: Arc<str> },

    #[error("the storage is shut down")]
    Closed,

    #[error("log {0} was deleted")]
    LogDeleted(LogId),
}

impl StorageError {
    /// Puts action and path to an I/O error; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_path_buf();
        move |source| StorageError::Io { action, path, source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, what: impl Into<String>) -> StorageError {
        StorageError::Corrupt { path: path.to_path_buf(), position, what: what.into() }
    }

    pub(crate) fn missing(path: &Path, what: impl Into<String>) -> StorageError {
        StorageError::Missing { path: path.to_path_buf(), what: what.into() }
    }

    /// The core ends, and with it what it had under way.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if corelog_io::is_cancelled(source))
    }

    /// The disk (or a quota) is full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_full(source))
    }
}

/// ENOSPC or EDQUOT.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a batch was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Produce: OUT_OF_ORDER_SEQUENCE_NUMBER or INVALID_PRODUCER_EPOCH.
    #[error(transparent)]
    Sequence(#[from] SequenceError),

    #[error("the batch has {size} bytes; a journal group holds at most {max} (journal_file_bytes sets it)")]
    TooLarge { size: usize, max: usize },

    #[error("not a record batch this log can take: {0}")]
    Invalid(String),

    /// The leader epoch is below the log's: the caller is no longer the leader.
    #[error("leader epoch {given} is below the log's {current}")]
    StaleLeaderEpoch { given: i32, current: i32 },

    /// Produce: NOT_ENOUGH_REPLICAS. What no quorum confirms may not grow without a bound.
    #[error(
        "{bytes} bytes of the partition wait for a majority of its replicas, {max} may: see that they are running and \
         reachable"
    )]
    NoQuorum { bytes: u64, max: u64 },

    /// Refused before the disk is full. Reads go on; freed space brings appends back.
    #[error(
        "the disk is nearly full: {available} bytes are available, and {} are to be: {min_free} that are kept free \
         (corelog.disk.reserve.bytes) and {promised} for the journal and what it holds; make space",
        .min_free.saturating_add(*.promised)
    )]
    DiskFull { available: u64, min_free: u64, promised: u64 },

    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a follower does not append what a leader sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FollowError {
    /// The log has no entry before `index`, or another: the leader is to send from an earlier one on.
    #[error(
        "log {log} does not have what the entries follow: the one before Raft index {index} is of term {term:?} there and of \
         term {known:?} here, and the log ends before Raft index {next}"
    )]
    Gap { log: LogId, index: RaftIndex, term: Option<i32>, known: Option<i32>, next: RaftIndex },

    /// Two leaders' histories differ in what was committed here: nothing is changed.
    #[error(
        "Raft index {index} is committed here in term {known}, as all below {committed}, and the leader has it in term {term}"
    )]
    Committed { index: RaftIndex, term: i32, known: i32, committed: RaftIndex },

    #[error("the entry for Raft index {index} is not one this log can take: {what}")]
    Invalid { index: RaftIndex, what: String },

    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a segment, or the state beside it, is not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransferError {
    #[error(
        "a piece of {len} bytes at byte {position} does not go on where the file ends, at byte {expected}, or is no whole number \
         of pages, or more than 1 MiB, or than the segment has"
    )]
    Piece { position: u64, len: usize, expected: u64 },

    #[error(
        "the segment begins at Raft index {index}, offset {offset}, after term {term}; the log ends at index {next}, offset {end}, \
         after term {known:?}, and is committed up to {committed}: all of it has to be, and in a segment of another name"
    )]
    Elsewhere {
        index: RaftIndex,
        offset: i64,
        term: i32,
        next: RaftIndex,
        end: i64,
        known: Option<i32>,
        committed: RaftIndex,
    },

    /// What came of it is gone: it has to come again.
    #[error("what was received is not what was announced: {what}")]
    Damaged { what: String },

    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<StorageError> for TransferError {
    fn from(error: StorageError) -> TransferError {
        TransferError::Append(error.into())
    }
}

impl From<StorageError> for FollowError {
    fn from(error: StorageError) -> FollowError {
        FollowError::Append(error.into())
    }
}

/// Why entries are not given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EntriesError {
    /// Who lacks it is caught up by whole segments.
    #[error("the entry at Raft index {index} is gone: the first that is given by index is {first}")]
    Compacted { index: RaftIndex, first: RaftIndex },

    #[error("there is no entry at Raft index {index}: the log ends before {next}")]
    Beyond { index: RaftIndex, next: RaftIndex },

    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a read gives no batches.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is not within [{log_start_offset}, {log_end_offset}]")]
    OffsetOutOfRange { offset: i64, log_start_offset: i64, log_end_offset: i64 },

    #[error(transparent)]
    Storage(#[from] StorageError),
}
