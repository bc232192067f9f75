//! What `/metrics` says of partitions, groups and errors, over two shards.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::admin::Scraper;
use corelog_io::sim::Sim;
use corelog_io::sleep;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::offset_commit_request::{Partition, Topic};
use corelog_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    OffsetCommitRequest, incremental_alter_configs_request as alter,
};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{Faults, Plan};
use crate::tailer::{Tailer, connect, create_topic, produce};

const PARTITIONS: i32 = 4;

fn with_broker<F: Future<Output = ()> + 'static>(
    test: impl FnOnce(SocketAddr, Rc<Scraper>) -> F,
) -> (Sim, Broker) {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    broker.start(
        &Plan { journal_file_bytes: 16 << 20, memory_bytes: 1 << 30, ..Plan::from_seed(1, Faults::Crashes) },
        2,
    );
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    sim.block_on(test(broker.address(), Rc::new(broker.scraper())));
    (sim, broker)
}

async fn lines(scraper: &Scraper) -> Vec<String> {
    let text: String = scraper.scrape().await.pieces().collect();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn expect(lines: &[String], wanted: &str) {
    let name = wanted.split(['{', ' ']).next().expect("a name");
    let of_it: Vec<&String> = lines.iter().filter(|line| line.starts_with(name)).collect();
    assert!(lines.iter().any(|line| line == wanted), "{wanted}: there is {of_it:#?}");
}

async fn commit(connection: &mut Connection, group: &str, offsets: &[(i32, i64)]) {
    let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
    assert_eq!(connection.call(&request, 3).await.expect("an answer").error_code, 0);
    let partitions = offsets.iter().map(|&(partition_index, committed_offset)| Partition {
        partition_index,
        committed_offset,
        committed_leader_epoch: -1,
        committed_metadata: Some("".into()),
        ..Default::default()
    });
    let topic = Topic { name: "tailed".into(), partitions: partitions.collect(), ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = connection.call(&request, 8).await.expect("an answer");
    assert!(answer.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
}

#[test]
fn traffic_lag_and_errors_are_told() {
    with_broker(|address, scraper| async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, PARTITIONS).await;
        produce(&mut connection, topic, 0..2, 10, 100).await;
        produce(&mut connection, topic, 0..1, 5, 100).await;
        commit(&mut connection, "g", &[(0, 4), (1, 10)]).await;
        let topics = vec![CreatableTopic {
            name: "no name".into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }];
        let request = CreateTopicsRequest { topics, timeout_ms: 1000, ..Default::default() };
        connection.call(&request, 7).await.expect("an answer");

        let told = lines(&scraper).await;
        let of = |name: &str, partition: i32, value: u64| {
            format!("corelog_partition_{name}{{topic=\"tailed\",partition=\"{partition}\"}} {value}")
        };
        for (partition, records) in [(0, 15), (1, 10), (2, 0)] {
            for name in ["produced_records_total", "log_end_offset", "high_watermark"] {
                expect(&told, &of(name, partition, records));
            }
            expect(&told, &of("log_start_offset", partition, 0));
            expect(&told, &of("fetched_records_total", partition, 0));
        }
        expect(&told, "corelog_group_lag{group=\"g\",topic=\"tailed\",partition=\"0\"} 11");
        expect(&told, "corelog_group_lag{group=\"g\",topic=\"tailed\",partition=\"1\"} 0");
        expect(&told, "corelog_group_committed_offset{group=\"g\",topic=\"tailed\",partition=\"0\"} 4");
        expect(&told, "corelog_group_lag_sum{group=\"g\"} 11");
        expect(&told, "corelog_group_state{group=\"g\",state=\"Empty\"} 1");
        expect(&told, "corelog_errors_total{api=\"CreateTopics\",error=\"INVALID_TOPIC_EXCEPTION\"} 1");
        expect(&told, "corelog_metrics_left_out{of=\"partitions\"} 0");

        // What was read, thrown away and read again because there was too little of it is counted once.
        let mut tailer = Tailer::new(connect(address).await, topic, PARTITIONS);
        tailer.fetch(0).await;
        tailer.min_bytes = 250;
        for _ in 0..3 {
            let id = tailer.send(30_000).await;
            produce(&mut connection, topic, 0..1, 1, 100).await;
            sleep(Duration::from_millis(50)).await;
            produce(&mut connection, topic, 0..1, 1, 100).await;
            tailer.receive(id).await;
        }
        tailer.min_bytes = 1;
        // It asks again.
        tailer.fetch(0).await;
        let told = lines(&scraper).await;
        expect(&told, &of("fetched_records_total", 0, 21));
        expect(&told, &of("fetched_records_total", 1, 10));
        // A consumer that goes has had what it was given last.
        produce(&mut connection, topic, 1..2, 7, 100).await;
        assert_eq!(tailer.fetch(2000).await.len(), 1);
        tailer.fetch(0).await;
        let told = lines(&scraper).await;
        expect(&told, &of("fetched_records_total", 1, 17));

        let topics = vec![State { name: Some("tailed".into()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() };
        assert_eq!(connection.call(&request, 6).await.expect("an answer").responses[0].error_code, 0);
        let told = lines(&scraper).await;
        assert!(
            !told.iter().any(|line| line.starts_with("corelog_partition_high_watermark{topic=\"tailed\""))
        );
    });
}

#[test]
fn limits_change_while_running() {
    with_broker(|address, scraper| async move {
        let mut connection = connect(address).await;
        create_topic(&mut connection, PARTITIONS).await;
        commit(&mut connection, "g", &[(0, 0)]).await;
        for (value, partitions, groups) in [("3", 3, 1), ("0", 0, 0)] {
            let configs =
                ["corelog.metrics.partitions.max", "corelog.metrics.group.partitions.max"].map(|name| {
                    alter::AlterableConfig {
                        name: name.into(),
                        value: Some(value.into()),
                        ..Default::default()
                    }
                });
            let resource = alter::AlterConfigsResource {
                resource_type: 4,
                configs: configs.to_vec(),
                ..Default::default()
            };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
            let answer = connection.call(&request, 1).await.expect("an answer");
            assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
            let told = lines(&scraper).await;
            let count = |name: &str| told.iter().filter(|line| line.starts_with(name)).count();
            assert_eq!(count("corelog_partition_high_watermark{"), partitions);
            assert_eq!(count("corelog_group_lag{"), groups);
            // The offsets topic has 3.
            let beyond = PARTITIONS as usize + 3 - partitions;
            expect(&told, &format!("corelog_metrics_left_out{{of=\"partitions\"}} {beyond}"));
        }
    });
}

#[test]
fn a_scrape_of_thousands_of_partitions_holds_no_core_up() {
    const MANY: i32 = 5000;
    let (sim, broker) = with_broker(|address, _| async move {
        let mut connection = connect(address).await;
        create_topic(&mut connection, MANY).await;
        let all: Vec<(i32, i64)> = (0..MANY).map(|partition| (partition, 0)).collect();
        commit(&mut connection, "g", &all).await;
    });
    broker.machine.forget_turns();
    let scraper = broker.scraper();
    let told = sim.block_on(async move { lines(&scraper).await });
    assert_eq!(told.iter().filter(|line| line.starts_with("corelog_group_lag{")).count(), MANY as usize);
    let turn = broker.machine.longest_turn().expect("the cores did something");
    assert!(turn.cost < Duration::from_micros(100), "{turn:?}");
}
