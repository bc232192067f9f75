//! A cluster of which this broker has a part: partitions that it leads, follows, or has no replica of. Every API that names
//! partitions is asked for each, and answers as Kafka does.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use corelog_storage::{
    AppendBatch, BatchKind, LogConfig, LogId, Recovered, ShardStorage, StorageConfig, read_journals,
};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic, LeaderIdAndEpoch};
use corelog_wire::messages::{
    DeleteGroupsRequest, DeleteRecordsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeTopicPartitionsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, delete_records_request,
    list_offsets_request, metadata_request, offset_for_leader_epoch_request,
};
use corelog_wire::metadata_records::{ConfigRecord, MetadataRecord, PartitionRecord, TopicRecord};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::connection::Connection;
use crate::world::World;

const TOPIC: Uuid = Uuid([0x11; 16]);
const OFFSETS: Uuid = Uuid([0x22; 16]);
const CONTROLLER: LogId =
    LogId { topic: Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), partition: 0 };
/// Of a topic that wants two replicas in sync, and has one.
const LACKING: Uuid = Uuid([0x33; 16]);
const EPOCH: i32 = 5;

/// Of each topic, by partition: replicas and leader. This broker is 1, and knows no other.
const PARTITIONS: [(&[i32], i32); 4] = [(&[1], 1), (&[1, 2], 2), (&[2, 3], 3), (&[1, 2], -1)];
const LED: i32 = 0;
const ELSEWHERE: i32 = 2;
const ALL: std::ops::Range<i32> = 0..4;

const MOVED: ErrorCode = ErrorCode::NOT_LEADER_OR_FOLLOWER;

/// What the controller's log says.
fn metadata() -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    let mut add = |record: MetadataRecord| {
        batch.append(0, None, Some(&record.to_bytes().unwrap()), &[]).unwrap();
    };
    for (name, topic_id) in [("t", TOPIC), ("__consumer_offsets", OFFSETS)] {
        add(MetadataRecord::TopicRecord(TopicRecord { name: name.into(), topic_id }));
        for (index, (replicas, leader)) in PARTITIONS.iter().enumerate() {
            add(MetadataRecord::PartitionRecord(PartitionRecord {
                partition_id: index as i32,
                topic_id,
                replicas: replicas.to_vec(),
                isr: replicas.to_vec(),
                leader: *leader,
                leader_epoch: EPOCH,
                partition_epoch: 0,
                ..Default::default()
            }));
        }
    }
    add(MetadataRecord::TopicRecord(TopicRecord { name: "lacking".into(), topic_id: LACKING }));
    add(MetadataRecord::PartitionRecord(PartitionRecord {
        topic_id: LACKING,
        partition_id: 0,
        replicas: vec![1, 2],
        isr: vec![1],
        leader: 1,
        leader_epoch: EPOCH,
        partition_epoch: 0,
        ..Default::default()
    }));
    add(MetadataRecord::ConfigRecord(ConfigRecord {
        resource_type: 2,
        resource_name: "lacking".into(),
        name: "min.insync.replicas".into(),
        value: Some("2".into()),
    }));
    batch.build().unwrap()
}

/// A data directory whose controller's log knows of other brokers.
async fn prepare() {
    let config = StorageConfig {
        journal_file_bytes: 1 << 20,
        journal_files: 2,
        tail_cache_bytes: 4 << 20,
        group_bytes_max: 256 << 10,
        ..StorageConfig::new("/data", 0, 1)
    };
    let recovered = read_journals(Path::new("/data"), 0, 1).await.unwrap();
    let storage: Rc<ShardStorage> = ShardStorage::open(config, Recovered::merge([recovered])).await.unwrap();
    storage.settle_recovery();
    let log_config = LogConfig { delete_enabled: false, ..LogConfig::default() };
    let log = storage.log(CONTROLLER, "__cluster_metadata", log_config);
    let batch = AppendBatch { bytes: metadata(), kind: BatchKind::Controller, leader_epoch: 0 };
    log.append(batch).await.unwrap().durable.await.unwrap();
    storage.close().await.unwrap();
}

fn world() -> World {
    World::start_on(prepare, &[("node.id", "1")])
}

fn expected(partition: i32) -> ErrorCode {
    if partition == LED { ErrorCode::NONE } else { MOVED }
}

/// What an answer says of a partition's leader beside its error.
fn hinted(partition: i32) -> LeaderIdAndEpoch {
    match PARTITIONS[partition as usize].1 {
        leader if leader > 1 => LeaderIdAndEpoch { leader_id: leader, leader_epoch: EPOCH },
        _ => LeaderIdAndEpoch::default(),
    }
}

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(1, None, Some(b"value"), &[]).unwrap();
    batch.build().unwrap()
}

fn produce(acks: i16, partitions: impl Iterator<Item = i32>) -> ProduceRequest {
    let partition_data = partitions.map(|index| PartitionProduceData { index, records: Some(batch()) });
    let topic =
        TopicProduceData { name: "t".into(), topic_id: TOPIC, partition_data: partition_data.collect() };
    ProduceRequest { acks, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() }
}

#[test]
fn acks_all_is_refused_where_too_few_replicas_are_in_sync() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        for (acks, expected) in [(-1, ErrorCode::NOT_ENOUGH_REPLICAS), (1, ErrorCode::NONE)] {
            let partition_data = vec![PartitionProduceData { index: 0, records: Some(batch()) }];
            let topic = TopicProduceData { name: "lacking".into(), topic_id: LACKING, partition_data };
            let request =
                ProduceRequest { acks, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
            let response = connection.call(&request, 13).await.unwrap();
            assert_eq!(response.responses[0].partition_responses[0].error_code, expected.0, "acks {acks}");
        }
    });
}

#[test]
fn batches_are_taken_by_the_leader_alone() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        for version in [3, 9, 10, 12, 13] {
            for acks in [1, -1] {
                let response = connection.call(&produce(acks, ALL), version).await.unwrap();
                for answer in &response.responses[0].partition_responses {
                    assert_eq!(ErrorCode(answer.error_code), expected(answer.index), "{answer:?}");
                    assert_eq!(answer.base_offset >= 0, answer.index == LED);
                    let hint = if version < 10 { LeaderIdAndEpoch::default() } else { hinted(answer.index) };
                    assert_eq!(answer.current_leader, hint, "v{version} {answer:?}");
                }
                assert!(response.node_endpoints.is_empty(), "of no other broker it is known where it is");
            }
        }
        connection.send(&produce(0, ELSEWHERE..ELSEWHERE + 1), 9).await.unwrap();
        assert!(connection.next().await.is_err(), "it is closed: there is no answer to put an error in");
    });
}

fn fetch(epoch: i32, max_wait_ms: i32) -> FetchRequest {
    let partitions = ALL.map(|partition| FetchPartition {
        partition,
        current_leader_epoch: epoch,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    });
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![FetchTopic { topic: "t".into(), topic_id: TOPIC, partitions: partitions.collect() }],
        ..Default::default()
    }
}

/// By partition: the code, and who leads.
async fn fetched(
    connection: &mut Connection,
    request: &FetchRequest,
    version: i16,
) -> BTreeMap<i32, (ErrorCode, LeaderIdAndEpoch)> {
    let response = connection.call(request, version).await.unwrap();
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|it| (it.partition_index, (ErrorCode(it.error_code), it.current_leader))).collect()
}

#[test]
fn records_are_read_from_the_leader_alone() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        let begun = corelog_io::now();
        for version in [4, 9, 12, 13, 16, 18] {
            let hint_of = |partition| match version {
                16.. => hinted(partition),
                _ => LeaderIdAndEpoch::default(),
            };
            // What is refused is told at once.
            let found = fetched(&mut connection, &fetch(-1, 60_000), version).await;
            for partition in ALL {
                assert_eq!(found[&partition], (expected(partition), hint_of(partition)), "v{version}");
            }
        }
        assert!((corelog_io::now() - begun).as_secs() < 10);
    });
}

#[test]
fn who_knows_another_epoch_is_told_that_first() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        let me = LeaderIdAndEpoch { leader_id: 1, leader_epoch: EPOCH };
        for (epoch, code) in
            [(EPOCH - 1, ErrorCode::FENCED_LEADER_EPOCH), (EPOCH + 1, ErrorCode::UNKNOWN_LEADER_EPOCH)]
        {
            let found = fetched(&mut connection, &fetch(epoch, 60_000), 16).await;
            for partition in ALL {
                // Without a replica nothing is known of its epoch but what the metadata say.
                let code = if partition == ELSEWHERE { MOVED } else { code };
                let hint = match (code, partition) {
                    (ErrorCode::UNKNOWN_LEADER_EPOCH, _) => LeaderIdAndEpoch::default(),
                    (ErrorCode::FENCED_LEADER_EPOCH, LED) => me,
                    _ => hinted(partition),
                };
                assert_eq!(found[&partition], (code, hint), "{partition}");
            }
        }
        let found = fetched(&mut connection, &fetch(EPOCH, 0), 16).await;
        assert_eq!(found[&LED].0, ErrorCode::NONE);
        let response = connection.call(&fetch(EPOCH - 1, 0), 16).await.unwrap();
        let told: Vec<_> = response.node_endpoints.iter().map(|node| (node.node_id, node.port)).collect();
        assert_eq!(told, [(1, 9092)]);
    });
}

#[test]
fn a_session_tells_of_a_refused_partition_each_time() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        let begin = FetchRequest { session_epoch: 0, ..fetch(-1, 0) };
        let response = connection.call(&begin, 12).await.unwrap();
        assert_ne!(response.session_id, 0);
        for epoch in 1..4 {
            let request = FetchRequest {
                session_id: response.session_id,
                session_epoch: epoch,
                topics: Vec::new(),
                ..fetch(-1, 60_000)
            };
            let found = fetched(&mut connection, &request, 12).await;
            assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
            assert!(found.values().all(|(code, _)| *code == MOVED));
        }
    });
}

#[test]
fn offsets_and_epochs_are_told_by_the_leader_alone() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        connection.call(&produce(-1, LED..LED + 1), 9).await.unwrap();
        for (version, timestamp, epoch) in
            [(0, -1, -1), (1, -2, -1), (4, -1, EPOCH), (7, -3, EPOCH), (9, 0, -1), (11, -4, EPOCH)]
        {
            let partitions = ALL.map(|partition_index| list_offsets_request::Partition {
                partition_index,
                timestamp,
                current_leader_epoch: epoch,
                ..Default::default()
            });
            let topic = list_offsets_request::Topic { name: "t".into(), partitions: partitions.collect() };
            let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
            let response = connection.call(&request, version).await.unwrap();
            for answer in &response.topics[0].partitions {
                assert_eq!(ErrorCode(answer.error_code), expected(answer.partition_index), "v{version}");
                if version >= 4 && answer.partition_index == LED {
                    assert_eq!(answer.leader_epoch, EPOCH, "v{version}: {answer:?}");
                }
            }
        }
        for (epoch, code) in [(-1, ErrorCode::NONE), (EPOCH, ErrorCode::NONE), (EPOCH - 1, MOVED)] {
            let partitions = ALL.map(|partition| offset_for_leader_epoch_request::OffsetForLeaderPartition {
                partition,
                current_leader_epoch: epoch,
                leader_epoch: EPOCH,
            });
            let partitions = partitions.collect();
            let topics =
                vec![offset_for_leader_epoch_request::OffsetForLeaderTopic { topic: "t".into(), partitions }];
            let request = OffsetForLeaderEpochRequest { topics, ..Default::default() };
            let response = connection.call(&request, 4).await.unwrap();
            for answer in &response.topics[0].partitions {
                let expected = match answer.partition {
                    ELSEWHERE => MOVED,
                    _ if !code.is_ok() => ErrorCode::FENCED_LEADER_EPOCH,
                    partition => expected(partition),
                };
                assert_eq!(ErrorCode(answer.error_code), expected, "{answer:?}");
                let end = if expected.is_ok() { (EPOCH, 1) } else { (-1, -1) };
                assert_eq!((answer.leader_epoch, answer.end_offset), end);
            }
        }
    });
}

#[test]
fn records_are_deleted_by_the_leader_alone() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        connection.call(&produce(-1, LED..LED + 1), 9).await.unwrap();
        let partitions =
            ALL.map(|partition_index| delete_records_request::Partition { partition_index, offset: 1 });
        let topics =
            vec![delete_records_request::Topic { name: "t".into(), partitions: partitions.collect() }];
        let response = connection.call(&DeleteRecordsRequest { topics, timeout_ms: 1000 }, 2).await.unwrap();
        for answer in &response.topics[0].partitions {
            let low = if answer.partition_index == LED { 1 } else { -1 };
            assert_eq!(
                (ErrorCode(answer.error_code), answer.low_watermark),
                (expected(answer.partition_index), low)
            );
        }
    });
}

/// Leaders are those that are known to be there.
#[test]
fn leaders_are_told_as_the_metadata_have_them() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        let named = metadata_request::Topic { name: Some("t".into()), ..Default::default() };
        for topics in [None, Some(vec![named])] {
            let request = MetadataRequest { topics, ..Default::default() };
            let response = connection.call(&request, 12).await.unwrap();
            let brokers: Vec<i32> = response.brokers.iter().map(|broker| broker.node_id).collect();
            assert_eq!(brokers, [1]);
            let topic = response.topics.iter().find(|topic| topic.name.as_deref() == Some("t")).unwrap();
            for partition in &topic.partitions {
                let (replicas, _) = PARTITIONS[partition.partition_index as usize];
                let (code, leader) = match partition.partition_index {
                    LED => (ErrorCode::NONE, 1),
                    _ => (ErrorCode::LEADER_NOT_AVAILABLE, -1),
                };
                assert_eq!((ErrorCode(partition.error_code), partition.leader_id), (code, leader));
                assert_eq!(partition.leader_epoch, EPOCH);
                assert_eq!((&*partition.replica_nodes, &*partition.isr_nodes), (replicas, replicas));
                let away: Vec<i32> = replicas.iter().copied().filter(|id| *id != 1).collect();
                assert_eq!(partition.offline_replicas, away);
            }
        }
        let request = DescribeTopicPartitionsRequest { response_partition_limit: 100, ..Default::default() };
        let response = connection.call(&request, 0).await.unwrap();
        let topic = response.topics.iter().find(|topic| topic.name.as_deref() == Some("t")).unwrap();
        let leaders: Vec<i32> = topic.partitions.iter().map(|partition| partition.leader_id).collect();
        assert_eq!(leaders, [1, -1, -1, -1]);
        assert_eq!(topic.partitions[ELSEWHERE as usize].offline_replicas, [2, 3]);
        // Followers take room on disk too.
        let response = connection.call(&DescribeLogDirsRequest { topics: None }, 4).await.unwrap();
        let topic = response.results[0].topics.iter().find(|topic| &*topic.name == "t").unwrap();
        let here: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        assert_eq!(here, [0, 1, 3]);
    });
}

#[test]
fn groups_are_coordinated_where_their_partition_is_led() {
    world().run(|client| async move {
        let mut connection = client.connect().await;
        let mut seen = [0; 2];
        for n in 0..20 {
            let group = Str::from(format!("g{n}"));
            let request =
                FindCoordinatorRequest { coordinator_keys: vec![group.clone()], ..Default::default() };
            let response = connection.call(&request, 4).await.unwrap();
            let found = &response.coordinators[0];
            let is_here = found.node_id == 1;
            seen[usize::from(is_here)] += 1;
            let unavailable = ErrorCode::COORDINATOR_NOT_AVAILABLE;
            let code = if is_here { ErrorCode::NONE } else { unavailable };
            assert_eq!(ErrorCode(found.error_code), code, "{found:?}");
            assert_eq!(found.port, if is_here { 9092 } else { -1 });
            let not_here = if is_here { ErrorCode::UNKNOWN_MEMBER_ID } else { ErrorCode::NOT_COORDINATOR };
            let request = HeartbeatRequest {
                group_id: group.clone(),
                member_id: "nobody".into(),
                ..Default::default()
            };
            assert_eq!(answered(&mut connection, &request).await, not_here);
            if !is_here {
                let request = JoinGroupRequest {
                    group_id: group.clone(),
                    session_timeout_ms: 10_000,
                    protocol_type: "consumer".into(),
                    ..Default::default()
                };
                let response = connection.call(&request, 5).await.unwrap();
                assert_eq!(ErrorCode(response.error_code), ErrorCode::NOT_COORDINATOR);
                let request = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
                let response = connection.call(&request, 5).await.unwrap();
                assert_eq!(ErrorCode(response.groups[0].error_code), ErrorCode::NOT_COORDINATOR);
                let response =
                    connection.call(&DeleteGroupsRequest { groups_names: vec![group] }, 2).await.unwrap();
                assert_eq!(ErrorCode(response.results[0].error_code), ErrorCode::NOT_COORDINATOR);
            }
        }
        assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
    });
}

/// A member that nobody knows, until the coordinator has loaded.
async fn answered(connection: &mut Connection, request: &HeartbeatRequest) -> ErrorCode {
    loop {
        let response = connection.call(request, 4).await.unwrap();
        match ErrorCode(response.error_code) {
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => {
                corelog_io::sleep(std::time::Duration::from_millis(10)).await;
            }
            code => return code,
        }
    }
}

/// Of what other brokers have nothing is counted here.
#[test]
fn metrics_are_of_the_partitions_that_are_here() {
    let world = world();
    let scraper = world.scraper();
    let page = world.run(|_| async move { scraper.scrape().await });
    let text: String = page.pieces().collect();
    let told = |partition: i32| {
        let labels = format!("corelog_partition_high_watermark{{topic=\"t\",partition=\"{partition}\"}}");
        text.contains(&labels)
    };
    assert_eq!(ALL.map(told).collect::<Vec<_>>(), [true, true, false, true], "{text}");
    let owned = text.lines().filter(|line| line.starts_with("corelog_partitions{"));
    let owned: u64 = owned.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
    assert_eq!(owned, 7, "three of each topic, and one that lacks: {text}");
}
