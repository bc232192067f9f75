//! The APIs of the protocol, and those of them that this crate has codecs for.

use std::fmt;

macro_rules! keys {
    ($($name:ident = $key:literal,)*) => {
        /// An API that clients can call. Those that only brokers call among themselves are absent on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// None for keys that are unknown, dead, or internal to brokers.
            pub fn from_i16(key: i16) -> Option<ApiKey> {
                match key {
                    $($key => Some(ApiKey::$name),)*
                    _ => None,
                }
            }

            pub fn name(self) -> &'static str {
                match self {
                    $(ApiKey::$name => stringify!($name),)*
                }
            }
        }
    };
}

keys! {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    SaslHandshake = 17,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    WriteTxnMarkers = 27,
    TxnOffsetCommit = 28,
    DescribeAcls = 29,
    CreateAcls = 30,
    DeleteAcls = 31,
    DescribeConfigs = 32,
    AlterConfigs = 33,
    AlterReplicaLogDirs = 34,
    DescribeLogDirs = 35,
    SaslAuthenticate = 36,
    CreatePartitions = 37,
    CreateDelegationToken = 38,
    RenewDelegationToken = 39,
    ExpireDelegationToken = 40,
    DescribeDelegationToken = 41,
    DeleteGroups = 42,
    ElectLeaders = 43,
    IncrementalAlterConfigs = 44,
    AlterPartitionReassignments = 45,
    ListPartitionReassignments = 46,
    OffsetDelete = 47,
    DescribeClientQuotas = 48,
    AlterClientQuotas = 49,
    DescribeUserScramCredentials = 50,
    AlterUserScramCredentials = 51,
    DescribeQuorum = 55,
    UpdateFeatures = 57,
    DescribeCluster = 60,
    DescribeProducers = 61,
    UnregisterBroker = 64,
    DescribeTransactions = 65,
    ListTransactions = 66,
    ConsumerGroupHeartbeat = 68,
    ConsumerGroupDescribe = 69,
    GetTelemetrySubscriptions = 71,
    PushTelemetry = 72,
    ListConfigResources = 74,
    DescribeTopicPartitions = 75,
    ShareGroupHeartbeat = 76,
    ShareGroupDescribe = 77,
    ShareFetch = 78,
    ShareAcknowledge = 79,
    AddRaftVoter = 80,
    RemoveRaftVoter = 81,
    StreamsGroupHeartbeat = 88,
    StreamsGroupDescribe = 89,
    DescribeShareGroupOffsets = 90,
    AlterShareGroupOffsets = 91,
    DeleteShareGroupOffsets = 92,
    StreamsGroupTopologyDescriptionUpdate = 93,
    UnregisterController = 94,
}

/// What the codec can do for one API. What a broker *offers* is its own affair, and never more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiInfo {
    pub key: ApiKey,
    pub name: &'static str,
    pub min_version: i16,
    pub max_version: i16,
    /// The first version with compact lengths, tagged fields and the newer headers; none if no version has them.
    pub first_flexible: Option<i16>,
}

/// Every API that has a codec, in ascending order of key. Generated from the schema.
pub const API_TABLE: &[ApiInfo] = include!(concat!(env!("OUT_DIR"), "/apis.rs"));

/// `API_TABLE`'s entry by key, found without a search.
static BY_KEY: [Option<&ApiInfo>; 95] = {
    let mut by_key = [None; 95];
    let mut at = 0;
    while at < API_TABLE.len() {
        by_key[API_TABLE[at].key as usize] = Some(&API_TABLE[at]);
        at += 1;
    }
    by_key
};

impl ApiKey {
    pub fn info(self) -> Option<&'static ApiInfo> {
        BY_KEY[self as usize]
    }

    /// Whether this version of the API is flexible (KIP-482); false where there is no codec.
    pub fn is_flexible(self, version: i16) -> bool {
        self.info().and_then(|info| info.first_flexible).is_some_and(|first| version >= first)
    }
}

impl From<ApiKey> for i16 {
    fn from(key: ApiKey) -> i16 {
        key as i16
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ascends_and_is_found_by_key() {
        assert!(API_TABLE.windows(2).all(|pair| pair[0].key < pair[1].key));
        for info in API_TABLE {
            assert_eq!(info.key.info(), Some(info));
            assert_eq!(info.key.name(), info.name);
            assert_eq!(ApiKey::from_i16(info.key.into()), Some(info.key));
        }
    }

    #[test]
    fn broker_internal_and_unknown_keys_are_refused() {
        for key in [-1, 4, 5, 6, 7, 52, 62, 67, 95, i16::MIN, i16::MAX] {
            assert_eq!(ApiKey::from_i16(key), None, "{key}");
        }
    }
}
