//! Changes of metadata in a broker with many partitions and fetch sessions.

use std::net::SocketAddr;

use corelog_wire::Uuid;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::{CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest};

use crate::connection::Connection;
use crate::tailer;

/// "crowd" is what the others do beside their change.
pub const CASES: [&str; 3] = ["crowd", "change-config", "change-topic"];

/// Each is read in a session of its own.
const TOPICS: usize = 1_000;
const PARTITIONS: i32 = 50;
const FETCH_VERSION: i16 = 17;
const CONFIG_OF_TOPIC: i8 = 2;

struct Session {
    id: i32,
    epoch: i32,
}

pub struct Crowd {
    admin: Connection,
    reader: Connection,
    sessions: Vec<Session>,
}

impl Crowd {
    pub async fn new(address: SocketAddr) -> Crowd {
        let (admin, reader) = (tailer::connect(address).await, tailer::connect(address).await);
        let mut crowd = Crowd { admin, reader, sessions: Vec::new() };
        for number in 0..TOPICS {
            let topic = crowd.create(format!("read-{number}")).await;
            crowd.begin(topic).await;
        }
        crowd.fetch_all().await;
        crowd
    }

    /// Changes something, as the case has it; then each session fetches once.
    pub async fn round(&mut self, case: &str, round: u64) {
        match case {
            "crowd" => {}
            "change-config" => self.set_retention(round).await,
            "change-topic" => {
                self.create(format!("passing-{round}")).await;
                self.delete(format!("passing-{round}")).await;
            }
            other => panic!("no such case: {other}"),
        }
        self.fetch_all().await;
    }

    async fn create(&mut self, name: String) -> Uuid {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let created = self.admin.call(&request, 7).await.expect("an answer").topics.remove(0);
        assert_eq!(created.error_code, 0, "the topic is created");
        created.topic_id
    }

    async fn delete(&mut self, name: String) {
        let topics = vec![State { name: Some(name.into()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let deleted = self.admin.call(&request, 6).await.expect("an answer").responses.remove(0);
        assert_eq!(deleted.error_code, 0, "the topic is deleted");
    }

    async fn set_retention(&mut self, round: u64) {
        let config = AlterableConfig {
            name: "retention.ms".into(),
            value: Some((3_600_000 + round).to_string().into()),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: CONFIG_OF_TOPIC,
            resource_name: format!("read-{}", round as usize % TOPICS).into(),
            configs: vec![config],
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let altered = self.admin.call(&request, 1).await.expect("an answer").responses.remove(0);
        assert_eq!(altered.error_code, 0, "the config is set");
    }

    async fn begin(&mut self, topic_id: Uuid) {
        let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
            partition,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic = FetchTopic { topic_id, partitions: partitions.collect(), ..Default::default() };
        let request = FetchRequest { topics: vec![topic], ..Default::default() };
        let id = self.fetch(request).await;
        assert_ne!(id, 0, "there is room for the session");
        self.sessions.push(Session { id, epoch: 1 });
    }

    async fn fetch_all(&mut self) {
        for number in 0..self.sessions.len() {
            let Session { id, epoch } = &mut self.sessions[number];
            let request = FetchRequest { session_id: *id, session_epoch: *epoch, ..Default::default() };
            *epoch += 1;
            self.fetch(request).await;
        }
    }

    /// The answer's session.
    async fn fetch(&mut self, request: FetchRequest) -> i32 {
        let request = FetchRequest { min_bytes: 0, max_bytes: 50 << 20, ..request };
        let answer = self.reader.call(&request, FETCH_VERSION).await.expect("an answer");
        assert_eq!(answer.error_code, 0, "fetch");
        answer.session_id
    }
}
