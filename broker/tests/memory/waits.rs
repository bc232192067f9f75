//! Requests that wait for what others do, for as long as their clients like.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{Queue, sleep, spawn};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, JoinGroupRequest, SyncGroupRequest, join_group_request,
    sync_group_request,
};

use super::*;

/// Outside of sessions too, and where a session has not been answered yet.
#[test]
fn lists_of_fetches_that_wait_are_bounded() {
    for session_epoch in [-1, 0] {
        broker().run(move |client| async move {
            let mut connection = client.connect().await;
            let topic_id = create_topic(&mut connection, 400, &[]).await;
            let partitions = (0..400).map(|partition| FetchPartition {
                partition,
                current_leader_epoch: -1,
                partition_max_bytes: MIB as i32,
                ..Default::default()
            });
            let topic = FetchTopic { topic_id, partitions: partitions.collect(), ..Default::default() };
            let request = FetchRequest {
                max_wait_ms: i32::MAX,
                min_bytes: 1,
                max_bytes: MIB as i32,
                session_epoch,
                topics: vec![topic],
                ..Default::default()
            };
            let bytes = Bytes::from(framed(&request, 13));
            let since = Since::now().await;
            let mut streams = Vec::new();
            for _ in 0..100 {
                let stream = open(client).await;
                send(&stream, bytes.clone()).await;
                streams.push(stream);
            }
            sleep(Duration::from_secs(1)).await;
            since.holds_at_most(8 * MIB);
        });
    }
}

/// Of an assignment that no leader brings nothing is kept while its sender waits for the leader's.
#[test]
fn a_member_that_waits_for_its_assignment_keeps_nothing_of_its_request() {
    const MEMBERS: usize = 10;
    broker().run(|client| async move {
        let mut connection = client.connect().await;
        let request = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert_eq!(connection.call(&request, 3).await.expect("an answer").error_code, 0);
        let join = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: i32::MAX,
            protocol_type: "consumer".into(),
            protocols: vec![join_group_request::Protocol { name: "range".into(), metadata: Bytes::new() }],
            ..Default::default()
        };
        let mut members = Vec::new();
        for _ in 0..MEMBERS {
            let mut member = client.connect().await;
            let id = member.send(&join, 3).await.expect("it is sent");
            members.push((member, id));
        }
        let mut ids = Vec::new();
        for (member, id) in &mut members {
            let joined: corelog_wire::messages::JoinGroupResponse =
                member.receive(3, *id).await.expect("an answer");
            assert_eq!(joined.error_code, 0);
            ids.push((joined.member_id.clone() != joined.leader, joined.member_id, joined.generation_id));
        }
        assert_eq!(ids.iter().filter(|(follows, ..)| *follows).count(), MEMBERS - 1, "one generation");
        let since = Since::now().await;
        for ((member, _), (follows, member_id, generation_id)) in members.iter_mut().zip(ids) {
            if !follows {
                continue;
            }
            let assignment =
                sync_group_request::Assignment { member_id: "m".into(), assignment: vec![7; MIB].into() };
            let sync = SyncGroupRequest {
                group_id: "g".into(),
                generation_id,
                member_id,
                assignments: vec![assignment],
                ..Default::default()
            };
            member.send(&sync, 3).await.expect("it is sent");
        }
        sleep(Duration::from_secs(2)).await;
        since.holds_at_most(MIB);
    });
}

/// What a fetch works with is many times what names its partitions, and other cores let it wait in the midst of it.
#[test]
fn fetches_of_thousands_of_partitions_take_turns() {
    let broker = World::start(&[("corelog.cores", "0-1"), ("corelog.memory", "128MiB")]);
    broker.run(|client| async move {
        let topic_id = create_topic(&mut client.connect().await, 300, &[]).await;
        let partitions = (0..5000).map(|partition| FetchPartition {
            partition,
            current_leader_epoch: -1,
            ..Default::default()
        });
        let topic = FetchTopic { topic_id, partitions: partitions.collect(), ..Default::default() };
        let request = FetchRequest { topics: vec![topic], max_bytes: 1, ..Default::default() };
        let bytes = Bytes::from(framed(&request, 13));
        drop(request);
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(Rc::new(open(client).await));
        }
        let since = Since::now().await;
        let asked = streams.iter().map(|stream| {
            let (stream, bytes) = (stream.clone(), bytes.clone());
            spawn(Queue::Produce, async move {
                send(&stream, bytes).await;
                // Who reads late may find its answer given up.
                let _ = answer(&stream).await;
            })
        });
        for asked in asked.collect::<Vec<_>>() {
            asked.await;
        }
        since.held_at_most(28 * MIB);
    });
}

/// What thousands of topics to be made decode to is many times their bytes, and each of them waits for the controller.
#[test]
fn what_requests_decode_to_is_bounded_together() {
    broker().run(|client| async move {
        let topic = |number: u32| CreatableTopic {
            name: number.to_string().into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let topics = (0..2000).map(topic).collect();
        let request = CreateTopicsRequest { topics, validate_only: true, ..Default::default() };
        let bytes = Bytes::from(framed(&request, 4));
        drop(request);
        let mut asking = Vec::new();
        let since = Since::now().await;
        for _ in 0..20 {
            let bytes = bytes.clone();
            asking.push(spawn(Queue::Produce, async move {
                let stream = open(client).await;
                send(&stream, bytes).await;
                let _ = answer(&stream).await;
            }));
        }
        for asked in asking {
            asked.await;
        }
        since.held_at_most(64 * MIB);
    });
}
