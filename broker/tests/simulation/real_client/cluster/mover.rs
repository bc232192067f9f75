//! An operator who moves replicas, elects leaders, and makes and deletes topics, through whichever broker.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::{sleep, timeout};
use corelog_wire::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::{
    AlterPartitionReassignmentsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    ElectLeadersRequest, create_partitions_request, delete_topics_request,
};

use crate::connection::Connection;
use crate::real_client::apps::App;
use crate::real_client::plan::topic_name;
use crate::shared::below;

const ANSWER_MAX: Duration = Duration::from_secs(5);
const TIMEOUT_MS: i32 = 3_000;
/// A topic that comes and goes.
const PASSING: &str = "passing";

pub async fn operate(app: Rc<App>, brokers: Vec<SocketAddr>) {
    while !app.is_calm() && !app.stopped() {
        let address = brokers[below(brokers.len() as u64) as usize];
        let gives_up = || app.is_calm() || app.stopped();
        let opened = timeout(ANSWER_MAX, Connection::open(address, "operator", gives_up)).await;
        let Ok(Some(mut connection)) = opened else { continue };
        while !gives_up() && below(10) > 0 {
            if timeout(ANSWER_MAX, step(&app, &mut connection)).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(below(800))).await;
        }
    }
}

/// What comes of it the end shows.
async fn step(app: &App, connection: &mut Connection) {
    match below(8) {
        0 => drop(connection.call(&elect(), 2).await),
        1 => drop(connection.call(&create(app), 7).await),
        2 => drop(connection.call(&delete(), 6).await),
        3 => drop(connection.call(&add_partitions(), 3).await),
        _ => drop(connection.call(&reassign(app), 0).await),
    }
}

fn elect() -> ElectLeadersRequest {
    ElectLeadersRequest { timeout_ms: TIMEOUT_MS, ..Default::default() }
}

fn create(app: &App) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: PASSING.into(),
        num_partitions: 1 + below(3) as i32,
        replication_factor: 1 + below(app.plan().brokers as u64) as i16,
        ..Default::default()
    };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() }
}

fn delete() -> DeleteTopicsRequest {
    let topic = delete_topics_request::State { name: Some(PASSING.into()), ..Default::default() };
    DeleteTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() }
}

fn add_partitions() -> CreatePartitionsRequest {
    let topic = create_partitions_request::Topic {
        name: PASSING.into(),
        count: 2 + below(4) as i32,
        ..Default::default()
    };
    CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() }
}

/// Somewhere else, or where they were.
fn reassign(app: &App) -> AlterPartitionReassignmentsRequest {
    let number = below(app.plan().topics.len() as u64 + 2) as usize;
    let (name, count) = match app.plan().topics.get(number) {
        Some(count) => (topic_name(number), *count),
        None if below(2) == 0 => ("__consumer_offsets".into(), 3),
        None => (PASSING.into(), 3),
    };
    let mut brokers: Vec<i32> = (1..=app.plan().brokers as i32).collect();
    let replicas = (0..1 + below(brokers.len() as u64))
        .map(|_| brokers.remove(below(brokers.len() as u64) as usize))
        .collect();
    let partition = ReassignablePartition {
        partition_index: below(count as u64) as i32,
        replicas: (below(4) > 0).then_some(replicas),
    };
    let topic = ReassignableTopic { name: name.into(), partitions: vec![partition] };
    AlterPartitionReassignmentsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() }
}
