//! Byte for byte against the `kafka-protocol` crate: what we encode, it decodes completely and encodes to the same bytes, and what it
//! encodes from its own values we decode and encode to the same bytes.

use bytes::{Buf, Bytes, BytesMut};
use corelog_wire::testing::{CASES, Gen};
use kafka_protocol::messages as kp;
use kafka_protocol::protocol::{Decodable, Encodable, Message};

const SAMPLES: u64 = 100;

struct Oracle {
    name: &'static str,
    min_version: i16,
    max_version: i16,
    /// Decodes and encodes again; an error names what went wrong.
    recode: fn(Bytes, i16) -> Result<Bytes, String>,
    /// The encoding of the crate's default value, where the version can carry it.
    default: fn(i16) -> Option<Bytes>,
}

fn oracle<M: Message + Encodable + Decodable + Default>(name: &'static str) -> Oracle {
    Oracle {
        name,
        min_version: M::VERSIONS.min,
        max_version: M::VERSIONS.max,
        recode: |mut bytes, version| {
            let value = M::decode(&mut bytes, version).map_err(|error| format!("decode: {error}"))?;
            if bytes.has_remaining() {
                return Err(format!("{} bytes left over", bytes.remaining()));
            }
            let mut out = BytesMut::new();
            value.encode(&mut out, version).map_err(|error| format!("encode: {error}"))?;
            Ok(out.freeze())
        },
        default: |version| {
            let mut out = BytesMut::new();
            M::default().encode(&mut out, version).ok()?;
            Some(out.freeze())
        },
    }
}

macro_rules! oracles {
    ($($name:ident)*) => { vec![$(oracle::<kp::$name>(stringify!($name))),*] };
}

fn oracles() -> Vec<Oracle> {
    oracles! {
    ProduceRequest ProduceResponse
    FetchRequest FetchResponse
    ListOffsetsRequest ListOffsetsResponse
    MetadataRequest MetadataResponse
    OffsetCommitRequest OffsetCommitResponse
    OffsetFetchRequest OffsetFetchResponse
    FindCoordinatorRequest FindCoordinatorResponse
    JoinGroupRequest JoinGroupResponse
    HeartbeatRequest HeartbeatResponse
    LeaveGroupRequest LeaveGroupResponse
    SyncGroupRequest SyncGroupResponse
    DescribeGroupsRequest DescribeGroupsResponse
    ListGroupsRequest ListGroupsResponse
    SaslHandshakeRequest SaslHandshakeResponse
    ApiVersionsRequest ApiVersionsResponse
    CreateTopicsRequest CreateTopicsResponse
    DeleteTopicsRequest DeleteTopicsResponse
    DeleteRecordsRequest DeleteRecordsResponse
    InitProducerIdRequest InitProducerIdResponse
    OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse
    AddPartitionsToTxnRequest AddPartitionsToTxnResponse
    AddOffsetsToTxnRequest AddOffsetsToTxnResponse
    EndTxnRequest EndTxnResponse
    WriteTxnMarkersRequest WriteTxnMarkersResponse
    TxnOffsetCommitRequest TxnOffsetCommitResponse
    DescribeConfigsRequest DescribeConfigsResponse
    AlterConfigsRequest AlterConfigsResponse
    DescribeLogDirsRequest DescribeLogDirsResponse
    SaslAuthenticateRequest SaslAuthenticateResponse
    CreatePartitionsRequest CreatePartitionsResponse
    DeleteGroupsRequest DeleteGroupsResponse
    IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
    OffsetDeleteRequest OffsetDeleteResponse
    DescribeClusterRequest DescribeClusterResponse
    DescribeProducersRequest DescribeProducersResponse
    DescribeTransactionsRequest DescribeTransactionsResponse
    ListTransactionsRequest ListTransactionsResponse
    ListConfigResourcesRequest ListConfigResourcesResponse
    ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse
    DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
    AlterPartitionReassignmentsRequest AlterPartitionReassignmentsResponse
    ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse
    ElectLeadersRequest ElectLeadersResponse
    DescribeQuorumRequest DescribeQuorumResponse
    UnregisterBrokerRequest UnregisterBrokerResponse
    ConsumerProtocolSubscription ConsumerProtocolAssignment
    }
}

/// Messages that Kafka's own Java code has read and written, for what the crate does not have: versions before Kafka 2.1 and
/// after 4.1, and persisted records.
fn vectors() -> impl Iterator<Item = (&'static str, i16, Bytes)> {
    let lines = include_str!("vectors/kafka_java.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let [name, version, hex] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (name, version.parse().unwrap(), (0..hex.len()).step_by(2).map(byte).collect())
    })
}

#[test]
fn same_bytes_as_kafkas_java_code() {
    for (name, version, bytes) in vectors() {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        assert_eq!((case.recode)(bytes.clone(), version), Ok(Ok(bytes)), "{name} v{version}");
    }
}

/// What Kafka does not have: brokers of Corelog say it to each other.
const OWN: [&str; 16] = [
    "CreateTopicChange",
    "DeleteTopicChange",
    "CreatePartitionsChange",
    "AlterConfigsChange",
    "RegisterBrokerChange",
    "TakeProducerIdsChange",
    "LeadersChange",
    "JoinChange",
    "FenceChange",
    "UnregisterChange",
    "ReassignChange",
    "RenewChange",
    "ChangeAnswer",
    "BrokerStatus",
    "JoinCall",
    "JoinAnswer",
];

#[test]
fn same_bytes_as_kafka_protocol() {
    let oracles = oracles();
    let mut absent = Vec::new();
    for case in CASES {
        let oracle = oracles.iter().find(|oracle| oracle.name == case.name);
        for version in case.min_version..=case.max_version {
            let Some(oracle) =
                oracle.filter(|oracle| (oracle.min_version..=oracle.max_version).contains(&version))
            else {
                absent.push((case.name, version));
                continue;
            };
            for seed in 0..SAMPLES {
                let ours = (case.sample)(&mut Gen::new(seed), version);
                match (oracle.recode)(ours.clone(), version) {
                    Ok(theirs) => assert_eq!(theirs, ours, "{} v{version} seed {seed}", case.name),
                    Err(error) => panic!("{} v{version} seed {seed}: {error}", case.name),
                }
            }
            if let Some(theirs) = (oracle.default)(version) {
                let ours = (case.recode)(theirs.clone(), version);
                assert_eq!(ours, Ok(Ok(theirs)), "{} v{version}: their default", case.name);
            }
        }
    }
    absent.retain(|&(name, _)| !OWN.contains(&name));
    absent.retain(|&(name, version)| !vectors().any(|vector| (vector.0, vector.1) == (name, version)));
    assert!(absent.is_empty(), "neither oracle nor vector for {absent:?}");
}
