//! Kafka's error codes, with their standard messages.

use std::fmt;

/// An error code as it goes over the wire. Codes that are not in the table are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i16);

/// What a client may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    /// Retrying the same request cannot help.
    No,
    /// The same request may succeed later.
    Yes,
    /// As `Yes`, after asking for metadata again: the client's view of leaders or topics is stale.
    Refresh,
}

use Retry::{No, Refresh, Yes};

macro_rules! codes {
    ($($code:literal $name:ident $retry:ident $message:literal)*) => {
        impl ErrorCode {
            $(#[doc = concat!("Code ", $code, ". ", $message)] pub const $name: ErrorCode = ErrorCode($code);)*
        }

        /// In ascending order of code, without gaps: the code plus one is the index.
        const TABLE: &[(ErrorCode, &str, Retry, &str)] = &[$((ErrorCode($code), stringify!($name), $retry, $message)),*];
    };
}

impl ErrorCode {
    pub fn code(self) -> i16 {
        self.0
    }

    pub fn is_ok(self) -> bool {
        self == ErrorCode::NONE
    }

    fn entry(self) -> Option<&'static (ErrorCode, &'static str, Retry, &'static str)> {
        TABLE.get(usize::try_from(i32::from(self.0) + 1).ok()?)
    }

    /// Kafka's name in capitals, such as `NOT_LEADER_OR_FOLLOWER`; `UNKNOWN_CODE` for a code that is not Kafka's.
    pub fn name(self) -> &'static str {
        self.entry().map_or("UNKNOWN_CODE", |entry| entry.1)
    }

    /// The standard text, as Kafka's brokers put it into answers; empty for `NONE`.
    pub fn message(self) -> &'static str {
        self.entry().map_or("The error code is not known.", |entry| entry.3)
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(self) -> bool {
        self.entry().is_some_and(|entry| entry.2 != No)
    }

    /// Whether the client should ask for metadata before it retries.
    pub fn wants_metadata_refresh(self) -> bool {
        self.entry().is_some_and(|entry| entry.2 == Refresh)
    }

    /// Every code that Kafka defines.
    pub fn all() -> impl Iterator<Item = ErrorCode> {
        TABLE.iter().map(|entry| entry.0)
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        ErrorCode(code)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.0
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

codes! {
    -1 UNKNOWN_SERVER_ERROR No "The server experienced an unexpected error when processing the request."
    0 NONE No ""
    1 OFFSET_OUT_OF_RANGE No "The requested offset is not within the range of offsets maintained by the server."
    2 CORRUPT_MESSAGE Yes "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt."
    3 UNKNOWN_TOPIC_OR_PARTITION Refresh "This server does not host this topic-partition."
    4 INVALID_FETCH_SIZE No "The requested fetch size is invalid."
    5 LEADER_NOT_AVAILABLE Refresh "There is no leader for this topic-partition as we are in the middle of a leadership election."
    6 NOT_LEADER_OR_FOLLOWER Refresh "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition."
    7 REQUEST_TIMED_OUT Yes "The request timed out."
    8 BROKER_NOT_AVAILABLE No "The broker is not available."
    9 REPLICA_NOT_AVAILABLE Refresh "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition."
    10 MESSAGE_TOO_LARGE No "The request included a message larger than the max message size the server will accept."
    11 STALE_CONTROLLER_EPOCH No "The controller moved to another broker."
    12 OFFSET_METADATA_TOO_LARGE No "The metadata field of the offset request was too large."
    13 NETWORK_EXCEPTION Refresh "The server disconnected before a response was received."
    14 COORDINATOR_LOAD_IN_PROGRESS Yes "The coordinator is loading and hence can't process requests."
    15 COORDINATOR_NOT_AVAILABLE Yes "The coordinator is not available."
    16 NOT_COORDINATOR Yes "This is not the correct coordinator."
    17 INVALID_TOPIC_EXCEPTION No "The request attempted to perform an operation on an invalid topic."
    18 RECORD_LIST_TOO_LARGE No "The request included message batch larger than the configured segment size on the server."
    19 NOT_ENOUGH_REPLICAS Yes "Messages are rejected since there are fewer in-sync replicas than required."
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Yes "Messages are written to the log, but to fewer in-sync replicas than required."
    21 INVALID_REQUIRED_ACKS No "Produce request specified an invalid value for required acks."
    22 ILLEGAL_GENERATION No "Specified group generation id is not valid."
    23 INCONSISTENT_GROUP_PROTOCOL No "The group member's supported protocols are incompatible with those of existing members or first group member tried to join with empty protocol type or empty protocol list."
    24 INVALID_GROUP_ID No "The group id is invalid."
    25 UNKNOWN_MEMBER_ID No "The coordinator is not aware of this member."
    26 INVALID_SESSION_TIMEOUT No "The session timeout is not within the range allowed by the broker (as configured by group.min.session.timeout.ms and group.max.session.timeout.ms)."
    27 REBALANCE_IN_PROGRESS No "The group is rebalancing, so a rejoin is needed."
    28 INVALID_COMMIT_OFFSET_SIZE No "The committing offset data size is not valid."
    29 TOPIC_AUTHORIZATION_FAILED No "Topic authorization failed."
    30 GROUP_AUTHORIZATION_FAILED No "Group authorization failed."
    31 CLUSTER_AUTHORIZATION_FAILED No "Cluster authorization failed."
    32 INVALID_TIMESTAMP No "The timestamp of the message is out of acceptable range."
    33 UNSUPPORTED_SASL_MECHANISM No "The broker does not support the requested SASL mechanism."
    34 ILLEGAL_SASL_STATE No "Request is not valid given the current SASL state."
    35 UNSUPPORTED_VERSION No "The version of API is not supported."
    36 TOPIC_ALREADY_EXISTS No "Topic with this name already exists."
    37 INVALID_PARTITIONS No "Number of partitions is below 1."
    38 INVALID_REPLICATION_FACTOR No "Replication factor is below 1 or larger than the number of available brokers."
    39 INVALID_REPLICA_ASSIGNMENT No "Replica assignment is invalid."
    40 INVALID_CONFIG No "Configuration is invalid."
    41 NOT_CONTROLLER Yes "This is not the correct controller for this cluster."
    42 INVALID_REQUEST No "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details."
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT No "The message format version on the broker does not support the request."
    44 POLICY_VIOLATION No "Request parameters do not satisfy the configured policy."
    45 OUT_OF_ORDER_SEQUENCE_NUMBER No "The broker received an out of order sequence number."
    46 DUPLICATE_SEQUENCE_NUMBER No "The broker received a duplicate sequence number."
    47 INVALID_PRODUCER_EPOCH No "Producer attempted to produce with an old epoch."
    48 INVALID_TXN_STATE No "The producer attempted a transactional operation in an invalid state."
    49 INVALID_PRODUCER_ID_MAPPING No "The producer attempted to use a producer id which is not currently assigned to its transactional id."
    50 INVALID_TRANSACTION_TIMEOUT No "The transaction timeout is larger than the maximum value allowed by the broker (as configured by transaction.max.timeout.ms)."
    51 CONCURRENT_TRANSACTIONS Yes "The producer attempted to update a transaction while another concurrent operation on the same transaction was ongoing."
    52 TRANSACTION_COORDINATOR_FENCED No "Indicates that the transaction coordinator sending a WriteTxnMarker is no longer the current coordinator for a given producer."
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED No "Transactional Id authorization failed."
    54 SECURITY_DISABLED No "Security features are disabled."
    55 OPERATION_NOT_ATTEMPTED No "The broker did not attempt to execute this operation. This may happen for batched RPCs where some operations in the batch failed, causing the broker to respond without trying the rest."
    56 KAFKA_STORAGE_ERROR Refresh "Disk error when trying to access log file on the disk."
    57 LOG_DIR_NOT_FOUND No "The user-specified log directory is not found in the broker config."
    58 SASL_AUTHENTICATION_FAILED No "SASL Authentication failed."
    59 UNKNOWN_PRODUCER_ID No "This exception is raised by the broker if it could not locate the producer metadata associated with the producerId in question. This could happen if, for instance, the producer's records were deleted because their retention time had elapsed. Once the last records of the producerId are removed, the producer's metadata is removed from the broker, and future appends by the producer will return this exception."
    60 REASSIGNMENT_IN_PROGRESS No "A partition reassignment is in progress."
    61 DELEGATION_TOKEN_AUTH_DISABLED No "Delegation Token feature is not enabled."
    62 DELEGATION_TOKEN_NOT_FOUND No "Delegation Token is not found on server."
    63 DELEGATION_TOKEN_OWNER_MISMATCH No "Specified Principal is not valid Owner/Renewer."
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED No "Delegation Token requests are not allowed on PLAINTEXT/1-way SSL channels and on delegation token authenticated channels."
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED No "Delegation Token authorization failed."
    66 DELEGATION_TOKEN_EXPIRED No "Delegation Token is expired."
    67 INVALID_PRINCIPAL_TYPE No "Supplied principalType is not supported."
    68 NON_EMPTY_GROUP No "The group is not empty."
    69 GROUP_ID_NOT_FOUND No "The group id does not exist."
    70 FETCH_SESSION_ID_NOT_FOUND Yes "The fetch session ID was not found."
    71 INVALID_FETCH_SESSION_EPOCH Yes "The fetch session epoch is invalid."
    72 LISTENER_NOT_FOUND Refresh "There is no listener on the leader broker that matches the listener on which metadata request was processed."
    73 TOPIC_DELETION_DISABLED No "Topic deletion is disabled."
    74 FENCED_LEADER_EPOCH Refresh "The leader epoch in the request is older than the epoch on the broker."
    75 UNKNOWN_LEADER_EPOCH Yes "The leader epoch in the request is newer than the epoch on the broker."
    76 UNSUPPORTED_COMPRESSION_TYPE No "The requesting client does not support the compression type of given partition."
    77 STALE_BROKER_EPOCH No "Broker epoch has changed."
    78 OFFSET_NOT_AVAILABLE Yes "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing."
    79 MEMBER_ID_REQUIRED No "The group member needs to have a valid member id before actually entering a consumer group."
    80 PREFERRED_LEADER_NOT_AVAILABLE Refresh "The preferred leader was not available."
    81 GROUP_MAX_SIZE_REACHED No "The group has reached its maximum size."
    82 FENCED_INSTANCE_ID No "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id."
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE Refresh "Eligible topic partition leaders are not available."
    84 ELECTION_NOT_NEEDED Refresh "Leader election not needed for topic partition."
    85 NO_REASSIGNMENT_IN_PROGRESS No "No partition reassignment is in progress."
    86 GROUP_SUBSCRIBED_TO_TOPIC No "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it."
    87 INVALID_RECORD No "This record has failed the validation on broker and hence will be rejected."
    88 UNSTABLE_OFFSET_COMMIT Yes "There are unstable offsets that need to be cleared."
    89 THROTTLING_QUOTA_EXCEEDED Yes "The throttling quota has been exceeded."
    90 PRODUCER_FENCED No "There is a newer producer with the same transactionalId which fences the current one."
    91 RESOURCE_NOT_FOUND No "A request illegally referred to a resource that does not exist."
    92 DUPLICATE_RESOURCE No "A request illegally referred to the same resource twice."
    93 UNACCEPTABLE_CREDENTIAL No "Requested credential would not meet criteria for acceptability."
    94 INCONSISTENT_VOTER_SET No "Indicates that the either the sender or recipient of a voter-only request is not one of the expected voters."
    95 INVALID_UPDATE_VERSION No "The given update version was invalid."
    96 FEATURE_UPDATE_FAILED No "Unable to update finalized features due to an unexpected server error."
    97 PRINCIPAL_DESERIALIZATION_FAILURE No "Request principal deserialization failed during forwarding. This indicates an internal error on the broker cluster security setup."
    98 SNAPSHOT_NOT_FOUND No "Requested snapshot was not found."
    99 POSITION_OUT_OF_RANGE No "Requested position is not greater than or equal to zero, and less than the size of the snapshot."
    100 UNKNOWN_TOPIC_ID Refresh "This server does not host this topic ID."
    101 DUPLICATE_BROKER_REGISTRATION No "This broker ID is already in use."
    102 BROKER_ID_NOT_REGISTERED No "The given broker ID was not registered."
    103 INCONSISTENT_TOPIC_ID Refresh "The log's topic ID did not match the topic ID in the request."
    104 INCONSISTENT_CLUSTER_ID No "The clusterId in the request does not match that found on the server."
    105 TRANSACTIONAL_ID_NOT_FOUND No "The transactionalId could not be found."
    106 FETCH_SESSION_TOPIC_ID_ERROR Yes "The fetch session encountered inconsistent topic ID usage."
    107 INELIGIBLE_REPLICA No "The new ISR contains at least one ineligible replica."
    108 NEW_LEADER_ELECTED No "The AlterPartition request successfully updated the partition state but the leader has changed."
    109 OFFSET_MOVED_TO_TIERED_STORAGE No "The requested offset is moved to tiered storage."
    110 FENCED_MEMBER_EPOCH No "The member epoch is fenced by the group coordinator. The member must abandon all its partitions and rejoin."
    111 UNRELEASED_INSTANCE_ID No "The instance ID is still used by another member in the consumer group. That member must leave first."
    112 UNSUPPORTED_ASSIGNOR No "The assignor or its version range is not supported by the consumer group."
    113 STALE_MEMBER_EPOCH No "The member epoch is stale. The member must retry after receiving its updated member epoch via the ConsumerGroupHeartbeat API."
    114 MISMATCHED_ENDPOINT_TYPE No "The request was sent to an endpoint of the wrong type."
    115 UNSUPPORTED_ENDPOINT_TYPE No "This endpoint type is not supported yet."
    116 UNKNOWN_CONTROLLER_ID No "This controller ID is not known."
    117 UNKNOWN_SUBSCRIPTION_ID No "Client sent a push telemetry request with an invalid or outdated subscription ID."
    118 TELEMETRY_TOO_LARGE No "Client sent a push telemetry request larger than the maximum size the broker will accept."
    119 INVALID_REGISTRATION No "The controller has considered the broker registration to be invalid."
    120 TRANSACTION_ABORTABLE No "The server encountered an error with the transaction. The client can abort the transaction to continue using this transactional ID."
    121 INVALID_RECORD_STATE No "The record state is invalid. The acknowledgement of delivery could not be completed."
    122 SHARE_SESSION_NOT_FOUND Yes "The share session was not found."
    123 INVALID_SHARE_SESSION_EPOCH Yes "The share session epoch is invalid."
    124 FENCED_STATE_EPOCH No "The share coordinator rejected the request because the share-group state epoch did not match."
    125 INVALID_VOTER_KEY No "The voter key doesn't match the receiving replica's key."
    126 DUPLICATE_VOTER No "The voter is already part of the set of voters."
    127 VOTER_NOT_FOUND No "The voter is not part of the set of voters."
    128 INVALID_REGULAR_EXPRESSION No "The regular expression is not valid."
    129 REBOOTSTRAP_REQUIRED No "Client metadata is stale. The client should rebootstrap to obtain new metadata."
    130 STREAMS_INVALID_TOPOLOGY No "The supplied topology is invalid."
    131 STREAMS_INVALID_TOPOLOGY_EPOCH No "The supplied topology epoch is invalid."
    132 STREAMS_TOPOLOGY_FENCED No "The supplied topology epoch is outdated."
    133 SHARE_SESSION_LIMIT_REACHED Yes "The limit of share sessions has been reached."
    134 GROUP_DELETION_FAILED No "The group could not be deleted."
    135 STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED No "The description of the streams topology could not be updated."
    136 CONTROLLER_ID_NOT_REGISTERED No "The given controller ID was not registered."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_gaps() {
        for (at, error) in ErrorCode::all().enumerate() {
            assert_eq!(i32::from(error.code()), at as i32 - 1);
        }
        assert_eq!(ErrorCode::all().last(), Some(ErrorCode::CONTROLLER_ID_NOT_REGISTERED));
        assert_eq!(ErrorCode::CONTROLLER_ID_NOT_REGISTERED.code(), 136);
    }

    #[test]
    fn codes_out_of_the_table_are_carried() {
        for code in [i16::MIN, -2, 137, i16::MAX] {
            assert_eq!(ErrorCode(code).to_string(), format!("UNKNOWN_CODE ({code})"));
            assert!(!ErrorCode(code).is_retriable());
        }
    }

    #[test]
    fn retry_classes() {
        assert!(ErrorCode::NOT_LEADER_OR_FOLLOWER.wants_metadata_refresh());
        assert!(
            ErrorCode::REQUEST_TIMED_OUT.is_retriable()
                && !ErrorCode::REQUEST_TIMED_OUT.wants_metadata_refresh()
        );
        assert!(!ErrorCode::MESSAGE_TOO_LARGE.is_retriable());
    }
}
