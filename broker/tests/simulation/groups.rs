//! Groups and their log: what outlives a topic, crowds that wait, records that are too large, damage.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use corelog_io::sim::Sim;
use corelog_io::{Queue, sleep, spawn, timeout};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_records_request;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, JoinGroupRequest,
    ListGroupsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
    create_partitions_request, join_group_request, offset_commit_request, offset_fetch_request,
};
use corelog_wire::{ErrorCode, Str};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{Faults, Plan};
use crate::tailer::{connect, create_topic, produce};

const OFFSETS: &str = "__consumer_offsets";
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn start(sim: &Sim, broker: &mut Broker, cores: usize, memory_bytes: u64) -> SocketAddr {
    let plan = Plan { memory_bytes, ..Plan::from_seed(sim.seed(), Faults::Crashes) };
    broker.start(&plan, cores);
    assert_eq!(broker.await_ready(sim), Start::Ready);
    broker.address()
}

const MEMORY: u64 = 16 << 20;

pub async fn create(connection: &mut Connection, name: &str) {
    let topic =
        CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let answer = connection.call(&request, 7).await.expect("an answer");
    assert_eq!(answer.topics[0].error_code, 0);
}

/// Has the broker make its offsets topic.
pub async fn find(connection: &mut Connection) {
    let request = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let answer = connection.call(&request, 4).await.expect("an answer");
    assert_eq!(answer.coordinators[0].error_code, 0);
}

pub async fn commit(connection: &mut Connection, group: &str, topic: &str, metadata: &str) -> ErrorCode {
    let partition = offset_commit_request::Partition {
        partition_index: 0,
        committed_offset: 5,
        committed_metadata: Some(metadata.into()),
        ..Default::default()
    };
    let topic = offset_commit_request::Topic {
        name: topic.into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = connection.call(&request, 8).await.expect("an answer");
    ErrorCode(answer.topics[0].partitions[0].error_code)
}

pub async fn committed(connection: &mut Connection, group: &str, topic: &str) -> i64 {
    let topics = vec![offset_fetch_request::Topics {
        name: topic.into(),
        partition_indexes: vec![0],
        ..Default::default()
    }];
    let group =
        offset_fetch_request::Group { group_id: group.into(), topics: Some(topics), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    loop {
        let answer = connection.call(&request, 8).await.expect("an answer");
        if ErrorCode(answer.groups[0].error_code) != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            return answer.groups[0].topics[0].partitions[0].committed_offset;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The power fails between the answer that a topic is deleted and the tombstones of its offsets.
#[test]
fn a_topic_created_anew_has_no_commits_of_the_former() {
    for seed in 1..=20 {
        let sim = Sim::new(seed);
        let mut broker = Broker::new(&sim);
        let address = start(&sim, &mut broker, 1 + seed as usize % 3, MEMORY);
        sim.block_on(async move {
            let mut connection = connect(address).await;
            create(&mut connection, "t").await;
            find(&mut connection).await;
            assert_eq!(commit(&mut connection, "g", "t", "").await, ErrorCode::NONE);
            assert_eq!(committed(&mut connection, "g", "t").await, 5);
            let topics = vec![State { name: Some("t".into()), ..Default::default() }];
            let request = DeleteTopicsRequest { topics, ..Default::default() };
            let answer = connection.call(&request, 6).await.expect("an answer");
            assert_eq!(answer.responses[0].error_code, 0);
        });
        broker.machine.crash();
        start(&sim, &mut broker, 1, MEMORY);
        sim.block_on(async move {
            let mut connection = connect(address).await;
            create(&mut connection, "t").await;
            assert_eq!(committed(&mut connection, "g", "t").await, -1, "seed {seed}");
            assert_eq!(commit(&mut connection, "g", "t", "").await, ErrorCode::NONE);
        });
        broker.machine.crash();
        start(&sim, &mut broker, 2, MEMORY);
        sim.block_on(async move {
            let mut connection = connect(address).await;
            assert_eq!(committed(&mut connection, "g", "t").await, 5, "of the topic that is there");
        });
        broker.machine.kill();
    }
}

#[test]
fn the_partitions_of_the_offsets_topic_are_fixed() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let address = start(&sim, &mut broker, 2, MEMORY);
    sim.block_on(async move {
        let mut connection = connect(address).await;
        find(&mut connection).await;
        let topic = create_partitions_request::Topic { name: OFFSETS.into(), count: 9, ..Default::default() };
        let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
        let answer = connection.call(&request, 3).await.expect("an answer").results.remove(0);
        assert_eq!(ErrorCode(answer.error_code), ErrorCode::INVALID_PARTITIONS);
        let message = answer.error_message.expect("a refusal says why");
        assert!(message.contains("fixed"), "{message}");
        let all = connection.call(&MetadataRequest::default(), 12).await.expect("an answer");
        assert_eq!(all.topics[0].partitions.len(), 3);
    });
}

/// Far more members wait for a rebalance than calls may run on a shard at once: everything else is served.
#[test]
fn a_crowd_that_waits_keeps_nothing_else_out() {
    // Two thirds of them come through another shard than the one that knows the group.
    const CROWD: usize = 6_600;
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let address = start(&sim, &mut broker, 3, 4 << 30);
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 8).await;
        find(&mut connection).await;
        let join = |connection: Connection, wait: Duration| async move {
            let mut connection = connection;
            let protocol = join_group_request::Protocol { name: "range".into(), ..Default::default() };
            let request = JoinGroupRequest {
                group_id: "crowd".into(),
                session_timeout_ms: 1_500_000,
                rebalance_timeout_ms: 1_500_000,
                protocol_type: "other".into(),
                protocols: vec![protocol],
                ..Default::default()
            };
            // By version 3 without the step of KIP-394.
            let id = connection.send(&request, 3).await.expect("it is sent");
            let answer =
                timeout(wait, connection.receive::<corelog_wire::messages::JoinGroupResponse>(3, id));
            (answer.await.ok().map(|answer| answer.expect("an answer")), connection)
        };
        let (leader, mut leads) = join(connect(address).await, Duration::from_secs(10)).await;
        let leader = leader.expect("it is alone");
        let sync = SyncGroupRequest {
            group_id: "crowd".into(),
            generation_id: leader.generation_id,
            member_id: leader.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(leads.call(&sync, 3).await.expect("an answer").error_code, 0);
        // The leader does not join again: all others wait for it.
        let mut crowd = Vec::with_capacity(CROWD);
        for _ in 0..CROWD {
            crowd.push(spawn(Queue::Control, async move {
                join(connect(address).await, Duration::from_secs(600)).await
            }));
            sleep(Duration::from_micros(300)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let beat = HeartbeatRequest {
            group_id: "crowd".into(),
            generation_id: leader.generation_id,
            member_id: leader.member_id.clone(),
            ..Default::default()
        };
        let served = async {
            for _ in 0..4 {
                let mut connection = connect(address).await;
                produce(&mut connection, topic, 0..8, 1, 10).await;
                let answer = connection.call(&beat, 3).await.expect("an answer");
                assert_eq!(ErrorCode(answer.error_code), ErrorCode::REBALANCE_IN_PROGRESS);
                let mut create =
                    CreateTopicsRequest { timeout_ms: 30_000, validate_only: false, ..Default::default() };
                create.topics.push(CreatableTopic {
                    name: format!("t-{}", corelog_io::random_u64()).into(),
                    num_partitions: 2,
                    replication_factor: 1,
                    ..Default::default()
                });
                assert_eq!(connection.call(&create, 7).await.expect("an answer").topics[0].error_code, 0);
            }
        };
        assert!(timeout(Duration::from_secs(30), served).await.is_ok(), "others are not served");
        drop(crowd);
    });
    broker.machine.kill();
}

async fn set(connection: &mut Connection, kind: i8, name: &str, config: &str, value: &str) {
    let config = AlterableConfig { name: config.into(), config_operation: 0, value: Some(value.into()) };
    let resource =
        AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = connection.call(&request, 1).await.expect("an answer");
    let answer = &answer.responses[0];
    assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
}

/// `max.message.bytes` of the offsets topic, and of the broker where the topic has none, bounds what the coordinator
/// writes: at once, and after a restart.
#[test]
fn the_size_of_group_records_follows_the_configs() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let address = start(&sim, &mut broker, 2, MEMORY);
    let large: Str = "x".repeat(3_000).into();
    let metadata = large.clone();
    sim.block_on(async move {
        let mut connection = connect(address).await;
        create(&mut connection, "t").await;
        find(&mut connection).await;
        for (kind, name, config) in [(TOPIC, OFFSETS, "max.message.bytes"), (BROKER, "", "message.max.bytes")]
        {
            if kind == BROKER {
                let unset = AlterableConfig {
                    name: "max.message.bytes".into(),
                    config_operation: 1,
                    ..Default::default()
                };
                let resource = AlterConfigsResource {
                    resource_type: TOPIC,
                    resource_name: OFFSETS.into(),
                    configs: vec![unset],
                };
                let request =
                    IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
                assert_eq!(connection.call(&request, 1).await.expect("an answer").responses[0].error_code, 0);
            }
            assert_eq!(commit(&mut connection, "g", "t", &metadata).await, ErrorCode::NONE, "{config}");
            set(&mut connection, kind, name, config, "1000").await;
            let code = commit(&mut connection, "g", "t", &metadata).await;
            assert_eq!(code, ErrorCode::UNKNOWN_SERVER_ERROR, "{config}");
            assert_eq!(commit(&mut connection, "g", "t", "short").await, ErrorCode::NONE, "{config}");
            set(&mut connection, kind, name, config, "100000").await;
            assert_eq!(commit(&mut connection, "g", "t", &metadata).await, ErrorCode::NONE, "{config}");
        }
        set(&mut connection, BROKER, "", "message.max.bytes", "1000").await;
    });
    broker.machine.kill();
    start(&sim, &mut broker, 1, MEMORY);
    sim.block_on(async move {
        let mut connection = connect(address).await;
        committed(&mut connection, "g", "t").await;
        let code = commit(&mut connection, "g", "t", &large).await;
        assert_eq!(code, ErrorCode::UNKNOWN_SERVER_ERROR, "after a restart");
    });
    broker.machine.kill();
}

async fn list(connection: &mut Connection) -> (ErrorCode, Vec<Str>) {
    let answer = connection.call(&ListGroupsRequest::default(), 4).await.expect("an answer");
    (ErrorCode(answer.error_code), answer.groups.into_iter().map(|group| group.group_id).collect())
}

async fn delete_records(connection: &mut Connection, partition: i32) -> ErrorCode {
    let partition = delete_records_request::Partition { partition_index: partition, offset: -1 };
    let topic = delete_records_request::Topic { name: OFFSETS.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    let answer = connection.call(&request, 2).await.expect("an answer");
    ErrorCode(answer.topics[0].partitions[0].error_code)
}

/// One partition of the offsets topic is damaged: its groups are refused, all others are listed and served, and the way
/// out that the log names is open, and only there.
#[test]
fn a_damaged_group_log_costs_its_own_groups_and_can_be_given_up() {
    let groups: Vec<String> = (0..12).map(|n| format!("group-{n}")).collect();
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let address = start(&sim, &mut broker, 2, MEMORY);
    let all = groups.clone();
    sim.block_on(async move {
        let mut connection = connect(address).await;
        create(&mut connection, "t").await;
        find(&mut connection).await;
        for group in &all {
            assert_eq!(commit(&mut connection, group, "t", "findme").await, ErrorCode::NONE);
        }
        // So that it does not lie in a segment's last page, of which a checkpoint has a copy.
        for group in &all {
            assert_eq!(commit(&mut connection, group, "t", &"x".repeat(4000)).await, ErrorCode::NONE);
        }
        for partition in 0..3 {
            let code = delete_records(&mut connection, partition).await;
            assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION, "it is sound");
        }
    });
    broker.stop(&sim);
    let disk = broker.machine.disk();
    let found = |path: &PathBuf| {
        let contents = disk.contents(path).expect("it is there");
        contents.windows(6).position(|bytes| bytes == b"findme").map(|at| (path.clone(), at as u64))
    };
    let segments: Vec<PathBuf> =
        disk.files().into_iter().filter(|path| path.to_string_lossy().contains(OFFSETS)).collect();
    let (path, at) = segments.iter().find_map(found).expect("commits are in a segment");
    let partition: i32 = path
        .parent()
        .and_then(|dir| dir.file_name())
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse().ok())
        .expect("a partition's directory bears its number");
    disk.flip_bit(&path, at * 8).expect("the bit is there");
    start(&sim, &mut broker, 2, MEMORY);
    sim.block_on(async move {
        let mut connection = connect(address).await;
        sleep(Duration::from_secs(1)).await;
        let (code, listed) = list(&mut connection).await;
        assert_eq!(code, ErrorCode::NONE, "one partition does not speak for all");
        assert!(!listed.is_empty() && listed.len() < groups.len(), "{listed:?}");
        for group in &groups {
            let code = commit(&mut connection, group, "t", "").await;
            let expected = match listed.iter().any(|known| **known == **group) {
                true => ErrorCode::NONE,
                false => ErrorCode::COORDINATOR_NOT_AVAILABLE,
            };
            assert_eq!(code, expected, "{group}");
        }
        for other in (0..3).filter(|index| *index != partition) {
            assert_eq!(delete_records(&mut connection, other).await, ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        assert_eq!(delete_records(&mut connection, partition).await, ErrorCode::NONE);
        sleep(Duration::from_secs(1)).await;
        for group in &groups {
            assert_eq!(commit(&mut connection, group, "t", "").await, ErrorCode::NONE, "{group}");
        }
        assert_eq!(list(&mut connection).await.1.len(), groups.len());
    });
    broker.machine.kill();
}
