//! Who works with a broker: all the clients of a plan, and the topics that they begin with.

use std::rc::Rc;

use corelog_io::{Queue, spawn};
use corelog_wire::ErrorCode;
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::metadata_request::Topic;
use corelog_wire::messages::{CreateTopicsRequest, MetadataRequest};

use crate::plan::Plan;
use crate::shared::{Shared, topic_name};
use crate::{committer, consumer, guests, member, passing, producer};

/// Clients that finish when told to.
pub fn workers(plan: &Plan) -> usize {
    let members = plan.members + plan.committers + plan.passing + plan.large;
    (plan.producers + plan.idempotent_producers + plan.consumers + members) as usize
        + usize::from(deletes(plan))
}

fn deletes(plan: &Plan) -> bool {
    plan.seed.is_multiple_of(3)
}

/// The clients' machine: makes the topics, then everybody works.
pub async fn work(shared: Rc<Shared>) {
    create_topics(&shared).await;
    let plan = shared.plan.clone();
    fn begin<F: Future<Output = ()> + 'static>(
        shared: &Shared,
        name: &str,
        client: impl FnOnce(Rc<Shared>) -> F,
    ) {
        let shared = shared.client(name);
        let client = client(shared.clone());
        spawn(Queue::Control, async move {
            client.await;
            shared.pulse.end();
            shared.finished.set(shared.finished.get() + 1);
        })
        .detach();
    }
    for _ in 0..plan.producers {
        begin(&shared, "plain producer", producer::plain);
    }
    for _ in 0..plan.idempotent_producers {
        begin(&shared, "idempotent producer", producer::idempotent);
    }
    for _ in 0..plan.consumers {
        begin(&shared, "consumer", consumer::wander);
    }
    for n in 0..plan.committers {
        begin(&shared, "committer", move |shared| committer::solo(shared, format!("solo-{n}")));
    }
    for _ in 0..plan.members {
        begin(&shared, "member", member::member);
    }
    for n in 0..plan.passing {
        begin(&shared, "passing topic", move |shared| passing::pass(shared, n));
    }
    for _ in 0..plan.large {
        begin(&shared, "large requests", guests::large);
    }
    if deletes(&plan) {
        begin(&shared, "deleter", consumer::delete_records);
    }
    for number in 0..2 {
        // They wait for as long as there is no news.
        spawn(Queue::Control, consumer::follow(shared.guest(), number)).detach();
    }
}

/// Makes the topics, and learns their ids.
async fn create_topics(shared: &Shared) {
    let topics = shared.plan.topics.clone();
    while shared.truth.borrow().topic_ids.len() < topics.len() {
        let Some(mut connection) = shared.connect_to_finish("admin").await else { return };
        let request = CreateTopicsRequest {
            topics: topics
                .iter()
                .enumerate()
                .map(|(topic, partitions)| CreatableTopic {
                    name: topic_name(topic),
                    num_partitions: *partitions,
                    replication_factor: 1,
                    configs: vec![CreatableTopicConfig {
                        name: "segment.ms".into(),
                        value: Some(shared.plan.segment_ms.to_string().as_str().into()),
                    }],
                    ..Default::default()
                })
                .collect(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let Ok(response) = connection.call(&request, 7).await else { continue };
        for (topic, created) in response.topics.iter().enumerate() {
            match ErrorCode(created.error_code) {
                ErrorCode::NONE => shared.truth.borrow_mut().topic_id(topic, created.topic_id),
                // By a request whose answer was lost.
                ErrorCode::TOPIC_ALREADY_EXISTS => {}
                code => shared.expect_explained(code, "CreateTopics"),
            }
        }
        let request = MetadataRequest {
            topics: Some(
                (0..topics.len())
                    .map(|topic| Topic { name: Some(topic_name(topic)), ..Default::default() })
                    .collect(),
            ),
            ..Default::default()
        };
        let Ok(response) = connection.call(&request, 12).await else { continue };
        for described in response.topics {
            let topic = (0..topics.len()).find(|topic| Some(topic_name(*topic)) == described.name);
            let topic = topic.expect("a topic that was asked for");
            if described.error_code == 0 {
                assert_eq!(described.partitions.len() as i32, topics[topic], "partitions of topic {topic}");
                shared.truth.borrow_mut().topic_id(topic, described.topic_id);
            }
        }
        shared.pause().await;
    }
}
