//! What a change of metadata costs a broker with many partitions and fetch sessions, their next fetches included. To make the
//! crowd takes longer than all that is counted, so one run makes it once and goes through all cases; callgrind puts down a
//! count of its own for each.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use corelog_wire::Uuid;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::{CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest};

use crate::connection::Connection;
use crate::{Case, tailer};

/// In the order of [`SIZES`], and in each as [`run`] has them.
pub const CASES: &[Case] = &[
    Case {
        name: "config-100",
        what: "AlterConfigs: one topic, among 5,000 partitions and 100 fetch sessions",
        instructions: 179_564,
    },
    Case {
        name: "topic-100",
        what: "CreateTopics, DeleteTopics: one of 50 partitions, among the same",
        instructions: 727_245,
    },
];

/// Fetch sessions; each reads a topic of its own. A second size would tell what a change costs for each that is there.
pub const SIZES: [usize; 1] = [100];
/// Of each topic, of which a session reads so many.
const PARTITIONS: i32 = 50;
const READ: i32 = 2;
/// Topics that one request creates.
const TOGETHER: usize = 100;
const ROUNDS: usize = 10;
const FETCH_VERSION: i16 = 17;
const CONFIG_OF_TOPIC: i8 = 2;

/// Callgrind writes down what it has counted, and begins anew, whenever this has run.
pub const COUNT_ENDS: &str = "*crowd::count_ends*";

#[inline(never)]
fn count_ends() {
    std::hint::black_box(());
}

/// What a round of each case costs, by the counts that a run left in files, from number 1: of the set-up, of rounds without a
/// change, and of each case's rounds.
pub fn per_round(file: impl Fn(usize) -> PathBuf) -> Vec<u64> {
    let idle = count(&file(2));
    let cases = (0..CASES.len() / SIZES.len()).map(|case| count(&file(3 + case)));
    // What the sessions' next fetches cost more is a part of it.
    cases.map(|count| count.saturating_sub(idle) / ROUNDS as u64).collect()
}

fn count(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).expect("callgrind has written it");
    let line = text.lines().find_map(|line| line.strip_prefix("summary:"));
    line.and_then(|count| count.trim().parse().ok()).expect("callgrind tells a sum")
}

pub async fn run(address: SocketAddr, sessions: usize) {
    let mut crowd = Crowd::new(address, sessions).await;
    crowd.fetch_all().await;
    count_ends();
    for _ in 0..ROUNDS {
        crowd.fetch_all().await;
    }
    count_ends();
    for round in 0..ROUNDS {
        crowd.set_retention(round).await;
        crowd.fetch_all().await;
    }
    count_ends();
    for round in 0..ROUNDS {
        let name = format!("passing-{round}");
        crowd.create(std::slice::from_ref(&name)).await;
        crowd.delete(name).await;
        crowd.fetch_all().await;
    }
    count_ends();
}

struct Session {
    id: i32,
    epoch: i32,
}

struct Crowd {
    admin: Connection,
    reader: Connection,
    sessions: Vec<Session>,
}

impl Crowd {
    async fn new(address: SocketAddr, sessions: usize) -> Crowd {
        let (admin, reader) = (tailer::connect(address).await, tailer::connect(address).await);
        let mut crowd = Crowd { admin, reader, sessions: Vec::new() };
        let names: Vec<String> = (0..sessions).map(|number| format!("read-{number}")).collect();
        for names in names.chunks(TOGETHER) {
            for topic in crowd.create(names).await {
                crowd.begin(topic).await;
            }
        }
        crowd
    }

    async fn create(&mut self, names: &[String]) -> Vec<Uuid> {
        let topic = |name: &String| CreatableTopic {
            name: name.as_str().into(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let topics = names.iter().map(topic).collect();
        let request = CreateTopicsRequest { topics, timeout_ms: 60_000, ..Default::default() };
        let created = self.admin.call(&request, 7).await.expect("an answer").topics;
        created.iter().for_each(|topic| assert_eq!(topic.error_code, 0, "the topic is created"));
        created.iter().map(|topic| topic.topic_id).collect()
    }

    async fn delete(&mut self, name: String) {
        let topics = vec![State { name: Some(name.into()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 60_000, ..Default::default() };
        let deleted = self.admin.call(&request, 6).await.expect("an answer").responses.remove(0);
        assert_eq!(deleted.error_code, 0, "the topic is deleted");
    }

    async fn set_retention(&mut self, round: usize) {
        let config = AlterableConfig {
            name: "retention.ms".into(),
            value: Some((3_600_000 + round).to_string().into()),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: CONFIG_OF_TOPIC,
            resource_name: format!("read-{round}").into(),
            configs: vec![config],
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let altered = self.admin.call(&request, 1).await.expect("an answer").responses.remove(0);
        assert_eq!(altered.error_code, 0, "the config is set");
    }

    async fn begin(&mut self, topic_id: Uuid) {
        let partitions = (0..READ).map(|partition| FetchPartition {
            partition,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic = FetchTopic { topic_id, partitions: partitions.collect(), ..Default::default() };
        let request = FetchRequest { session_epoch: 0, topics: vec![topic], ..Default::default() };
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
