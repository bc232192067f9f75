//! A consumer that tails one topic in a fetch session (KIP-227), and what it needs around it; for worlds without faults.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use corelog_io::wall_clock_ms;
use corelog_wire::Uuid;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use corelog_wire::messages::CreateTopicsRequest;
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};

use crate::connection::Connection;

pub const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;

pub async fn connect(address: SocketAddr) -> Connection {
    Connection::open(address, "tailer", || false).await.expect("the broker is there")
}

pub async fn create_topic(connection: &mut Connection, partitions: i32) -> Uuid {
    create_topic_with(connection, partitions, &[]).await
}

pub async fn create_topic_with(
    connection: &mut Connection,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Uuid {
    let config =
        |&(name, value): &(&str, &str)| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    let topics = vec![CreatableTopic {
        name: "tailed".into(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    }];
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let created = connection.call(&request, 7).await.expect("an answer").topics.remove(0);
    assert_eq!(created.error_code, 0, "the topic is created");
    created.topic_id
}

/// One batch for each of `partitions`.
pub fn batches(
    topic_id: Uuid,
    partitions: impl Iterator<Item = i32>,
    records: usize,
    record_bytes: usize,
) -> ProduceRequest {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..records {
        builder.append(wall_clock_ms(), None, Some(&vec![7; record_bytes]), &[]).expect("the record fits");
    }
    let batch = builder.build().expect("the batch can be built");
    let data = partitions.map(|index| PartitionProduceData { index, records: Some(batch.clone()) });
    let topic = TopicProduceData { topic_id, partition_data: data.collect(), ..Default::default() };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// Sends one batch to each of `partitions` and awaits that they are durable.
pub async fn produce(
    connection: &mut Connection,
    topic_id: Uuid,
    partitions: impl Iterator<Item = i32>,
    records: usize,
    record_bytes: usize,
) {
    let request = batches(topic_id, partitions, records, record_bytes);
    let response = connection.call(&request, PRODUCE_VERSION).await.expect("an answer");
    let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    answers.for_each(|answer| assert_eq!(answer.error_code, 0, "produce"));
}

pub struct Tailer {
    pub connection: Connection,
    pub topic: Uuid,
    pub max_bytes: i32,
    pub min_bytes: i32,
    pub positions: BTreeMap<i32, i64>,
    session: (i32, i32),
    /// Whose position the broker has not been told.
    moved: Vec<i32>,
}

impl Tailer {
    /// From the start of each partition.
    pub fn new(connection: Connection, topic: Uuid, partitions: i32) -> Tailer {
        Tailer {
            connection,
            topic,
            max_bytes: 50 << 20,
            min_bytes: 1,
            positions: (0..partitions).map(|partition| (partition, 0)).collect(),
            session: (0, 0),
            moved: (0..partitions).collect(),
        }
    }

    /// Fetches once; what was told of each partition, in the answer's order.
    pub async fn fetch(&mut self, max_wait_ms: i32) -> Vec<PartitionData> {
        let id = self.send(max_wait_ms).await;
        self.receive(id).await
    }

    pub async fn send(&mut self, max_wait_ms: i32) -> i32 {
        let moved = std::mem::take(&mut self.moved);
        let partitions = moved.into_iter().map(|partition| FetchPartition {
            partition,
            current_leader_epoch: 0,
            fetch_offset: self.positions[&partition],
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic =
            FetchTopic { topic_id: self.topic, partitions: partitions.collect(), ..Default::default() };
        let (session_id, session_epoch) = self.session;
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            session_id,
            session_epoch,
            topics: if topic.partitions.is_empty() { Vec::new() } else { vec![topic] },
            ..Default::default()
        };
        self.connection.send(&request, FETCH_VERSION).await.expect("the request is sent")
    }

    pub async fn receive(&mut self, id: i32) -> Vec<PartitionData> {
        let response: FetchResponse = self.connection.receive(FETCH_VERSION, id).await.expect("an answer");
        assert_eq!(response.error_code, 0, "fetch");
        self.session = (response.session_id, self.session.1 + 1);
        let told: Vec<PartitionData> =
            response.responses.into_iter().flat_map(|topic| topic.partitions).collect();
        for partition in &told {
            if partition.records.iter().flatten().map(Bytes::len).sum::<usize>() > 0 {
                self.go_to(partition.partition_index, partition.high_watermark);
            }
        }
        told
    }

    pub fn go_to(&mut self, partition: i32, offset: i64) {
        self.positions.insert(partition, offset);
        self.moved.push(partition);
    }
}
