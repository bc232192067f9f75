//! Requests that name much, batches that are large: the work grows with their size, and no faster.

use std::mem::MaybeUninit;
use std::time::Duration;

use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, FindCoordinatorRequest, OffsetCommitRequest,
    OffsetDeleteRequest, create_partitions_request, offset_commit_request, offset_delete_request,
};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use corelog_wire::{ErrorCode, Request, Uuid};

use crate::connection::Connection;
use crate::world::World;

fn cpu_time_of_this_thread() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the buffer is a timespec, which the call fills: every Linux has the clock.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What `requests` take of the thread on which the world is, client and broker together. In step with their size it is a
/// fraction of this, with its square several times as much.
const CPU_TIME_MAX: Duration = Duration::from_millis(2500);

async fn answered_soon<R: Request>(connection: &mut Connection, request: &R, version: i16) -> R::Response {
    let before = cpu_time_of_this_thread();
    let response = connection.call(request, version).await.expect("an answer");
    let took = cpu_time_of_this_thread() - before;
    println!("{}: {took:?}", R::NAME);
    assert!(took < CPU_TIME_MAX, "{}: {took:?} of CPU time", R::NAME);
    response
}

fn large_broker() -> World {
    World::start(&[
        ("corelog.cores", "0"),
        ("corelog.memory", "1GiB"),
        ("corelog.journal.file.bytes", "64MiB"),
    ])
}

async fn create_topic(connection: &mut Connection, max_message_bytes: usize) -> Uuid {
    let topic = CreatableTopic {
        name: "t".into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: vec![CreatableTopicConfig {
            name: "max.message.bytes".into(),
            value: Some(max_message_bytes.to_string().into()),
        }],
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let created = connection.call(&request, 7).await.unwrap().topics.remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
    created.topic_id
}

#[test]
fn topics_that_are_named_twice() {
    const NAMES: usize = 60_000;
    large_broker().run(|client| async move {
        let mut connection = client.connect().await;
        let names = || (0..2 * NAMES).map(|n| format!("{}", n % NAMES).into());
        let topics = names().map(|name| CreatableTopic { name, num_partitions: 1, ..Default::default() });
        let request = CreateTopicsRequest { topics: topics.collect(), ..Default::default() };
        let response = answered_soon(&mut connection, &request, 7).await;
        assert_eq!(response.topics.len(), NAMES);
        let refused = ErrorCode::INVALID_REQUEST.0;
        assert!(response.topics.iter().all(|topic| topic.error_code == refused));

        let topics = names().map(|name| create_partitions_request::Topic { name, ..Default::default() });
        let request = CreatePartitionsRequest { topics: topics.collect(), ..Default::default() };
        let response = answered_soon(&mut connection, &request, 3).await;
        assert_eq!(response.results.len(), NAMES);
        assert!(response.results.iter().all(|topic| topic.error_code == refused));
    });
}

fn commit(topics: impl Iterator<Item = (String, usize)>) -> OffsetCommitRequest {
    let topics = topics.map(|(name, times)| {
        let partition = |offset| offset_commit_request::Partition {
            committed_offset: offset as i64,
            committed_leader_epoch: -1,
            committed_metadata: Some("".into()),
            ..Default::default()
        };
        offset_commit_request::Topic {
            name: name.into(),
            partitions: (0..times).map(partition).collect(),
            ..Default::default()
        }
    });
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: topics.collect(),
        ..Default::default()
    }
}

#[test]
fn topics_without_offsets() {
    const NAMES: usize = 100_000;
    large_broker().run(|client| async move {
        let mut connection = client.connect().await;
        create_topic(&mut connection, 1 << 20).await;
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert_eq!(connection.call(&find, 3).await.unwrap().error_code, 0);
        let known = std::iter::once(("t".to_owned(), 1));
        let request = commit(known.chain((0..NAMES).map(|n| (format!("unknown-{n}"), 1))));
        let response = answered_soon(&mut connection, &request, 8).await;
        assert_eq!(response.topics.len(), 1 + NAMES);

        let topics = (0..NAMES).map(|n| offset_delete_request::Topic {
            name: format!("unknown-{n}").into(),
            partitions: vec![offset_delete_request::Partition { partition_index: 0 }],
        });
        let request = OffsetDeleteRequest { group_id: "g".into(), topics: topics.collect() };
        let response = answered_soon(&mut connection, &request, 0).await;
        assert_eq!((response.error_code, response.topics.len()), (0, NAMES));
    });
}

#[test]
fn one_partition_committed_many_times_in_one_request() {
    const TIMES: usize = 120_000;
    large_broker().run(|client| async move {
        let mut connection = client.connect().await;
        create_topic(&mut connection, 1 << 20).await;
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert_eq!(connection.call(&find, 3).await.unwrap().error_code, 0);
        let request = commit(std::iter::once(("t".to_owned(), TIMES)));
        let response = answered_soon(&mut connection, &request, 8).await;
        let answers = &response.topics[0].partitions;
        assert!(answers.len() == TIMES && answers.iter().all(|answer| answer.error_code == 0));
    });
}

/// A request may be three sixteenths of a core's memory, and the answers to fetches have an eighth.
#[test]
fn a_batch_that_is_larger_than_the_room_for_fetches() {
    let world = World::start(&[
        ("corelog.cores", "0"),
        ("corelog.memory", "64MiB"),
        ("corelog.journal.file.bytes", "64MiB"),
    ]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        let topic_id = create_topic(&mut connection, 12 << 20).await;
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(corelog_io::wall_clock_ms(), None, Some(&vec![7; 10 << 20]), &[]).unwrap();
        let data = vec![PartitionProduceData { index: 0, records: Some(builder.build().unwrap()) }];
        let topic = TopicProduceData { topic_id, partition_data: data, ..Default::default() };
        let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
        let response = connection.call(&request, 13).await.unwrap();
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);

        let partition =
            FetchPartition { current_leader_epoch: -1, partition_max_bytes: 1 << 20, ..Default::default() };
        let topic = FetchTopic { topic_id, partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 50 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let answered = corelog_io::timeout(Duration::from_secs(10), connection.call(&request, 13)).await;
        let response = answered.expect("in time").unwrap();
        let records = response.responses[0].partitions[0].records.iter().flatten();
        assert!(records.map(|part| part.len()).sum::<usize>() > 10 << 20);
    });
}
