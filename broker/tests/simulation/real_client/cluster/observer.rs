//! Asks every broker where partitions end: who answers says that it leads them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::{sleep, timeout};
use corelog_wire::messages::list_offsets_request::{Partition, Topic};
use corelog_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::connection::Connection;
use crate::real_client::apps::App;
use crate::real_client::plan::topic_name;
use crate::shared::below;

const ANSWER_MAX: Duration = Duration::from_secs(3);
const LATEST: i64 = -1;

pub async fn observe(app: Rc<App>, broker: usize, address: SocketAddr) {
    while !app.stopped() {
        let opened = timeout(ANSWER_MAX, Connection::open(address, "observer", || app.stopped())).await;
        let Ok(Some(mut connection)) = opened else { continue };
        while !app.stopped() {
            let floors = app.truth().ends_known();
            let request = request(&app);
            let Ok(Ok(answer)) = timeout(ANSWER_MAX, connection.call(&request, 7)).await else { break };
            note(&app, broker, &floors, answer);
            sleep(Duration::from_millis(20 + below(200))).await;
        }
    }
}

fn request(app: &App) -> ListOffsetsRequest {
    let topic = |(topic, partitions): (usize, &i32)| Topic {
        name: topic_name(topic).into(),
        partitions: (0..*partitions)
            .map(|partition_index| Partition {
                partition_index,
                current_leader_epoch: -1,
                timestamp: LATEST,
                ..Default::default()
            })
            .collect(),
    };
    let topics = app.plan().topics.iter().enumerate().map(topic).collect();
    ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }
}

fn note(app: &App, broker: usize, floors: &BTreeMap<(String, i32), i64>, answer: ListOffsetsResponse) {
    for topic in answer.topics {
        for found in topic.partitions.iter().filter(|found| found.error_code == 0) {
            let at = (topic.name.to_string(), found.partition_index);
            let floor = floors.get(&at).copied().unwrap_or_default();
            app.truth().ends_at(at, floor, found.offset, broker, found.leader_epoch);
        }
    }
}
