//! Topics that change while sessions fetch them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sim::DiskOp;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_partitions_request;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use corelog_wire::{ErrorCode, Uuid};

use crate::connection::Connection;
use crate::world::World;

const NAMED: i16 = 12;
const BY_ID: i16 = 13;

async fn create(connection: &mut Connection, name: &str, partitions: i32) -> Uuid {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    let answer = connection.call(&request, 7).await.unwrap();
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    answer.topics[0].topic_id
}

async fn delete(connection: &mut Connection, name: &str) {
    let topics = vec![State { name: Some(name.into()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    assert_eq!(connection.call(&request, 6).await.unwrap().responses[0].error_code, 0);
}

async fn grow(connection: &mut Connection, name: &str, count: i32) {
    let topic = create_partitions_request::Topic { name: name.into(), count, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
    assert_eq!(connection.call(&request, 3).await.unwrap().results[0].error_code, 0);
}

async fn produce(connection: &mut Connection, name: &str, partition: i32) {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(1, None, Some(b"value"), &[]).unwrap();
    let records: Option<Bytes> = Some(batch.build().unwrap());
    let partition_data = vec![PartitionProduceData { index: partition, records }];
    let topic = TopicProduceData { name: name.into(), partition_data, ..Default::default() };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() };
    let answer = connection.call(&request, 9).await.unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

/// A client's session, and what it is told.
struct Session {
    connection: Connection,
    version: i16,
    id: i32,
    epoch: i32,
}

/// By partition: the code, and whether there are records.
type Told = BTreeMap<i32, (ErrorCode, bool)>;

impl Session {
    /// Begins one on the partitions of a topic, by its name or its id.
    async fn begin(
        mut connection: Connection,
        topic: (&str, Uuid),
        version: i16,
        partitions: &[i32],
    ) -> Session {
        let partitions = partitions.iter().map(|partition| FetchPartition {
            partition: *partition,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic = match version {
            NAMED => {
                FetchTopic { topic: topic.0.into(), partitions: partitions.collect(), ..Default::default() }
            }
            _ => FetchTopic { topic_id: topic.1, partitions: partitions.collect(), ..Default::default() },
        };
        let request = FetchRequest { topics: vec![topic], ..fetch(0, 0, 0) };
        let answer = connection.call(&request, version).await.unwrap();
        assert_ne!(answer.session_id, 0);
        Session { connection, version, id: answer.session_id, epoch: 0 }
    }

    async fn next(&mut self, max_wait_ms: i32) -> Told {
        self.epoch += 1;
        let request = fetch(self.id, self.epoch, max_wait_ms);
        let answer = self.connection.call(&request, self.version).await.unwrap();
        assert_eq!((answer.error_code, answer.session_id), (0, self.id));
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let told = partitions.map(|it| {
            let has_records = it.records.iter().flatten().any(|part| !part.is_empty());
            (it.partition_index, (ErrorCode(it.error_code), has_records))
        });
        told.collect()
    }
}

fn fetch(session_id: i32, session_epoch: i32, max_wait_ms: i32) -> FetchRequest {
    FetchRequest {
        session_id,
        session_epoch,
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 20,
        ..Default::default()
    }
}

const RECORDS: (ErrorCode, bool) = (ErrorCode::NONE, true);
const NO_SUCH: (ErrorCode, bool) = (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false);
const NO_SUCH_ID: (ErrorCode, bool) = (ErrorCode::UNKNOWN_TOPIC_ID, false);

#[test]
fn a_session_finds_what_has_changed_of_its_topics() {
    World::start(&[]).run(|client| async move {
        let mut admin = client.connect().await;
        let id = create(&mut admin, "t", 2).await;
        let mut named = Session::begin(client.connect().await, ("t", id), NAMED, &[0, 1, 2, 3]).await;
        let mut by_id = Session::begin(client.connect().await, ("t", id), BY_ID, &[0, 1, 2, 3]).await;
        for session in [&mut named, &mut by_id] {
            assert_eq!(session.next(60_000).await, [(2, NO_SUCH), (3, NO_SUCH)].into());
        }
        grow(&mut admin, "t", 3).await;
        produce(&mut admin, "t", 2).await;
        for session in [&mut named, &mut by_id] {
            assert_eq!(session.next(60_000).await, [(2, RECORDS), (3, NO_SUCH)].into());
        }
        // Another of its name.
        delete(&mut admin, "t").await;
        let all = |told| (0..4).map(|partition| (partition, told)).collect::<Told>();
        assert_eq!((named.next(0).await, by_id.next(0).await), (all(NO_SUCH), all(NO_SUCH_ID)));
        create(&mut admin, "t", 4).await;
        produce(&mut admin, "t", 3).await;
        assert_eq!(by_id.next(0).await, all(NO_SUCH_ID));
        let told = named.next(60_000).await;
        assert_eq!(told.get(&3), Some(&RECORDS));
        assert!(told.values().all(|(code, _)| code.is_ok()), "{told:?}");
    });
}

/// Between two fetches a topic goes and another of its name comes; then more changes than are remembered.
#[test]
fn a_session_finds_what_has_changed_since_long_ago() {
    World::start(&[]).run(|client| async move {
        let mut admin = client.connect().await;
        let id = create(&mut admin, "t", 2).await;
        let mut named = Session::begin(client.connect().await, ("t", id), NAMED, &[0, 1]).await;
        let mut by_id = Session::begin(client.connect().await, ("t", id), BY_ID, &[0, 1]).await;
        delete(&mut admin, "t").await;
        create(&mut admin, "t", 2).await;
        produce(&mut admin, "t", 1).await;
        assert_eq!(named.next(60_000).await.get(&1), Some(&RECORDS));
        delete(&mut admin, "t").await;
        create(&mut admin, "t", 2).await;
        produce(&mut admin, "t", 0).await;
        for _ in 0..3 {
            create(&mut admin, "other", 1).await;
            for step in 1..15 {
                grow(&mut admin, "other", 60 * step).await;
            }
            delete(&mut admin, "other").await;
        }
        assert_eq!(named.next(60_000).await.get(&0), Some(&RECORDS));
        assert_eq!(by_id.next(0).await, [(0, NO_SUCH_ID), (1, NO_SUCH_ID)].into());
    });
}

/// Who waits is told that its topic is gone, by whatever it named it.
#[test]
fn who_waits_hears_that_its_topic_is_gone() {
    for (version, gone) in [(NAMED, NO_SUCH), (BY_ID, NO_SUCH_ID)] {
        World::start(&[]).run(move |client| async move {
            let mut admin = client.connect().await;
            let id = create(&mut admin, "t", 4).await;
            let mut session = Session::begin(client.connect().await, ("t", id), version, &[0, 1, 2, 3]).await;
            let begun = corelog_io::now();
            let waiting = async {
                let told = session.next(60_000).await;
                assert!(!told.is_empty());
                // One core may know before another.
                let either = [gone.0, NO_SUCH.0];
                assert!(told.values().all(|(code, _)| either.contains(code)), "{told:?}");
                session.next(0).await
            };
            let deleting = async {
                corelog_io::sleep(Duration::from_secs(1)).await;
                delete(&mut admin, "t").await;
            };
            let (told, ()) = futures_util::future::join(waiting, deleting).await;
            assert_eq!(told, (0..4).map(|partition| (partition, gone)).collect::<Told>());
            assert!((corelog_io::now() - begun).as_secs() < 5);
        });
    }
}

/// The files go with their topic, and a read under way may fail for that.
#[test]
fn who_reads_while_a_topic_goes_is_told_that_it_is_gone() {
    const EIO: i32 = 5;
    let mut world = World::start(&[]);
    world.run(|client| async move {
        let mut admin = client.connect().await;
        create(&mut admin, "t", 1).await;
        produce(&mut admin, "t", 0).await;
    });
    // What was appended is in memory no more.
    world.restart(&[]);
    let disk = world.machine.disk();
    disk.set_extra_latency(Duration::from_secs(3));
    disk.fail_until_cleared(DiskOp::Read, "/topics/", EIO);
    let told = world.run(|client| async move {
        let (mut reader, mut admin) = (client.connect().await, client.connect().await);
        let partitions = vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }];
        let topics = vec![FetchTopic { topic: "t".into(), partitions, ..Default::default() }];
        let request = FetchRequest { topics, ..fetch(0, -1, 0) };
        let reading = async {
            corelog_io::sleep(Duration::from_secs(2)).await;
            reader.call(&request, NAMED).await.unwrap()
        };
        let (answer, ()) = futures_util::future::join(reading, delete(&mut admin, "t")).await;
        ErrorCode(answer.responses[0].partitions[0].error_code)
    });
    assert_eq!(told, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}
