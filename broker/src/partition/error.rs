//! What the storage refuses, as Kafka's protocol says it.

use corelog_storage::{AppendError, SequenceError, StorageError};
use corelog_wire::ErrorCode;

/// Why a partition does not take a batch, as the producer is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: ErrorCode,
    /// Empty where the code says it all.
    pub message: String,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal { code, message: String::new() }
    }
}

pub fn append_refusal(error: &AppendError) -> Refusal {
    let code = match error {
        AppendError::Sequence(SequenceError::OutOfOrder { .. }) => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::Sequence(SequenceError::StaleEpoch { .. }) => ErrorCode::INVALID_PRODUCER_EPOCH,
        AppendError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::Invalid(_) => ErrorCode::CORRUPT_MESSAGE,
        AppendError::StaleLeaderEpoch { .. } | AppendError::NotTaken(_) => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        AppendError::NoQuorum { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::Storage(StorageError::LogDeleted(_)) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        AppendError::DiskFull { .. } | AppendError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    Refusal { code, message: error.to_string() }
}
