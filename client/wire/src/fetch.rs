//! Fetch (API key 1), versions 0 to 18: [`FetchRequest`], and [`FetchResponse`] whose records are lists of parts by reference.
//!
//! Written by hand because record batches go from the log to the socket through it without a copy.

mod request;
mod response;

pub use crate::leader_hint::{LeaderIdAndEpoch, NodeEndpoint};
pub use request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, ReplicaState};
pub use response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, PartitionData, SnapshotId,
};

/// Versions from this on are flexible.
const FLEXIBLE: i16 = 12;
/// From this on topics go by id alone (KIP-516).
const TOPIC_IDS: i16 = 13;
