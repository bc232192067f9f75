//! Fetch sessions over two shards: what wakes a fetch that waits, and what an answer tells.

use std::net::SocketAddr;
use std::time::Duration;

use corelog_io::sim::{DiskOp, Sim};
use corelog_io::{now, sleep};
use corelog_wire::ErrorCode;
use corelog_wire::fetch::PartitionData;
use corelog_wire::messages::delete_records_request::{Partition, Topic};
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::{DeleteRecordsRequest, DeleteTopicsRequest};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{Faults, Plan};
use crate::tailer::{Tailer, connect, create_topic, create_topic_with, produce};

const PARTITIONS: i32 = 8;
const LONG_MS: i32 = 30_000;

/// Runs `test` against a broker of two cores, in several worlds.
fn with_broker<F: Future<Output = ()> + 'static>(test: impl Fn(Connection, Tailer) -> F + Copy + 'static) {
    for seed in 1..=5 {
        let sim = Sim::new(seed);
        let mut broker = Broker::new(&sim);
        broker.start(&Plan::from_seed(seed, Faults::Crashes), 2);
        assert_eq!(broker.await_ready(&sim), Start::Ready);
        let address: SocketAddr = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let topic = create_topic(&mut connection, PARTITIONS).await;
            let mut tailer = Tailer::new(connect(address).await, topic, PARTITIONS);
            assert_eq!(tailer.fetch(0).await.len(), PARTITIONS as usize, "a full answer");
            test(connection, tailer).await;
        });
        broker.stop(&sim);
    }
}

fn numbers(told: &[PartitionData]) -> Vec<i32> {
    told.iter().map(|partition| partition.partition_index).collect()
}

#[test]
fn news_of_any_shard_wakes_and_is_told_alone() {
    with_broker(|mut connection, mut tailer| async move {
        for partition in [0, 1, 5, 0, 1, 1] {
            let id = tailer.send(LONG_MS).await;
            sleep(Duration::from_millis(50)).await;
            let began = now();
            produce(&mut connection, tailer.topic, [partition].into_iter(), 1, 10).await;
            assert_eq!(numbers(&tailer.receive(id).await), [partition]);
            assert!(now() - began < Duration::from_secs(1));
        }
        // Nothing new: nothing is told, and the whole time is waited.
        let began = now();
        assert_eq!(tailer.fetch(500).await.len(), 0);
        assert!(now() - began >= Duration::from_millis(500));
    });
}

#[test]
fn what_was_not_taken_is_served_again() {
    with_broker(|mut connection, mut tailer| async move {
        produce(&mut connection, tailer.topic, 2..4, 1, 10).await;
        assert_eq!(tailer.fetch(LONG_MS).await.len(), 2);
        // As if the answer had been thrown away.
        tailer.go_to(2, 0);
        assert_eq!(numbers(&tailer.fetch(LONG_MS).await), [2]);
        tailer.go_to(3, 0);
        tailer.go_to(2, 0);
        assert_eq!(tailer.fetch(LONG_MS).await.len(), 2);
        assert_eq!(tailer.fetch(0).await.len(), 0);
    });
}

#[test]
fn a_small_budget_reaches_all_in_turn() {
    with_broker(|mut connection, mut tailer| async move {
        for _ in 0..3 {
            produce(&mut connection, tailer.topic, 0..PARTITIONS, 1, 10).await;
        }
        tailer.max_bytes = 1;
        let mut served = Vec::new();
        for _ in 0..PARTITIONS {
            let told = tailer.fetch(LONG_MS).await;
            let full = |p: &&PartitionData| p.records.iter().flatten().any(|part| !part.is_empty());
            let with_records: Vec<i32> = told.iter().filter(full).map(|p| p.partition_index).collect();
            assert_eq!(with_records.len(), 1, "one batch, whatever its size");
            served.extend(with_records);
        }
        served.sort_unstable();
        assert_eq!(served, (0..PARTITIONS).collect::<Vec<_>>());
    });
}

#[test]
fn a_small_budget_is_not_spent_on_reading_what_it_has_no_room_for() {
    let sim = Sim::new(7);
    let mut broker = Broker::new(&sim);
    broker.start(&Plan::from_seed(7, Faults::Crashes), 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let address: SocketAddr = broker.address();
    let partitions = 20;
    let topic = sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, partitions).await;
        produce(&mut connection, topic, 0..partitions, 3, 10).await;
        topic
    });
    // All of it goes to segments, and none of it is in memory after.
    broker.stop(&sim);
    broker.start(&Plan::from_seed(7, Faults::Crashes), 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let disk = broker.machine.disk();
    sim.block_on(async move {
        let mut tailer = Tailer::new(connect(address).await, topic, partitions);
        // Looks at the directories, which reads the segments' first pages.
        tailer.max_bytes = 0;
        assert_eq!(tailer.fetch(0).await.len(), partitions as usize);
        tailer.max_bytes = 1;
        // The first partition's batch, and what shows that the next has no room; then one of them, too far.
        disk.fail_nth(DiskOp::Read, "/topics/", 8, std::io::ErrorKind::Other);
        let told = tailer.fetch(0).await;
        assert!(told.iter().all(|partition| partition.error_code == 0), "all partitions were read");
    });
    broker.stop(&sim);
}

#[test]
fn with_write_caching_records_are_acknowledged_and_served_before_the_disk_has_them() {
    let sim = Sim::new(3);
    let mut broker = Broker::new(&sim);
    broker.start(&Plan::from_seed(3, Faults::Crashes), 2);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let address: SocketAddr = broker.address();
    let disk = broker.machine.disk();
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic_with(&mut connection, PARTITIONS, &[("write.caching", "true")]).await;
        let mut tailer = Tailer::new(connect(address).await, topic, PARTITIONS);
        assert_eq!(tailer.fetch(0).await.len(), PARTITIONS as usize, "a full answer");
        disk.set_extra_latency(Duration::from_secs(20));
        for partition in 0..PARTITIONS {
            let id = tailer.send(LONG_MS).await;
            let began = now();
            produce(&mut connection, topic, [partition].into_iter(), 1, 10).await;
            assert_eq!(numbers(&tailer.receive(id).await), [partition]);
            assert!(now() - began < Duration::from_secs(1));
        }
        disk.set_extra_latency(Duration::ZERO);
    });
    broker.stop(&sim);
}

#[test]
fn a_moved_log_start_is_told() {
    with_broker(|mut connection, mut tailer| async move {
        produce(&mut connection, tailer.topic, 0..PARTITIONS, 1, 10).await;
        let mut caught_up = 0;
        while caught_up < PARTITIONS as usize {
            caught_up += tailer.fetch(LONG_MS).await.len();
        }
        assert_eq!(tailer.fetch(0).await.len(), 0);
        let partitions = vec![Partition { partition_index: 3, offset: 1 }];
        let topics = vec![Topic { name: "tailed".into(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: 30_000 };
        connection.call(&request, 2).await.expect("an answer");
        let told = tailer.fetch(0).await;
        assert_eq!(numbers(&told), [3]);
        assert_eq!((told[0].high_watermark, told[0].log_start_offset), (1, 1));
        assert_eq!(tailer.fetch(0).await.len(), 0);
    });
}

#[test]
fn a_fetch_that_waits_learns_that_its_topic_is_deleted() {
    with_broker(|mut connection, mut tailer| async move {
        produce(&mut connection, tailer.topic, 0..1, 1, 10).await;
        assert_eq!(numbers(&tailer.fetch(LONG_MS).await), [0]);
        let id = tailer.send(LONG_MS).await;
        sleep(Duration::from_millis(50)).await;
        let began = now();
        let topics = vec![State { name: None, topic_id: tailer.topic }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let deleted = connection.call(&request, 6).await.expect("an answer");
        assert_eq!(deleted.responses[0].error_code, 0);
        let told = tailer.receive(id).await;
        assert!(now() - began < Duration::from_secs(1));
        let gone = [ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
        assert!(told.iter().any(|partition| gone.contains(&ErrorCode(partition.error_code))), "{told:?}");
        // From now on of each partition, for as long as it is asked for; a topic of the same name is another.
        create_topic(&mut connection, PARTITIONS).await;
        for _ in 0..2 {
            let told = tailer.fetch(LONG_MS).await;
            assert_eq!(told.len(), PARTITIONS as usize);
            assert!(
                told.iter().all(|partition| ErrorCode(partition.error_code) == ErrorCode::UNKNOWN_TOPIC_ID)
            );
        }
    });
}
