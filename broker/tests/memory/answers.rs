//! Answers: those that one request asks for many times, and those that nobody reads.

use std::time::Duration;

use bytes::Bytes;
use corelog_io::sleep;
use corelog_wire::messages::{
    DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest, JoinGroupRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, describe_configs_request, join_group_request, metadata_request,
    offset_commit_request, offset_fetch_request,
};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::*;

async fn find_coordinator(connection: &mut Connection) {
    let request = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    assert_eq!(connection.call(&request, 3).await.expect("an answer").error_code, 0);
}

#[test]
fn a_config_resource_that_is_named_often_is_described_once() {
    broker().run(|client| async move {
        let mut connection = client.connect().await;
        let broker = describe_configs_request::Resource {
            resource_type: 4,
            resource_name: "1".into(),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![broker; 500],
            include_synonyms: true,
            include_documentation: true,
        };
        let since = Since::now().await;
        let answer = connection.call(&request, 4).await.expect("an answer");
        since.held_at_most(4 * MIB);
        assert_eq!(answer.results.len(), 1);
        assert!(answer.results[0].configs.len() > 100);
    });
}

#[test]
fn a_topic_that_is_named_often_by_its_id_is_described_once() {
    broker().run(|client| async move {
        let mut connection = client.connect().await;
        let topic_id = create_topic(&mut connection, 400, &[]).await;
        let named = |n: i32| metadata_request::Topic { name: Some(n.to_string().into()), topic_id };
        let request = MetadataRequest { topics: Some((0..500).map(named).collect()), ..Default::default() };
        let since = Since::now().await;
        let answer = connection.call(&request, 12).await.expect("an answer");
        since.held_at_most(4 * MIB);
        assert_eq!(answer.topics.len(), 1);
        assert_eq!(answer.topics[0].partitions.len(), 400);
    });
}

#[test]
fn a_group_that_is_named_often_is_described_once() {
    broker().run(|client| async move {
        let mut connection = client.connect().await;
        create_topic(&mut connection, 400, &[]).await;
        find_coordinator(&mut connection).await;
        let partitions = (0..400).map(|partition_index| offset_commit_request::Partition {
            partition_index,
            committed_leader_epoch: -1,
            committed_metadata: Some("".into()),
            ..Default::default()
        });
        let topic = offset_commit_request::Topic {
            name: "t".into(),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let commit = OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let committed = connection.call(&commit, 8).await.expect("an answer");
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let protocol =
            join_group_request::Protocol { name: "range".into(), metadata: Bytes::from(vec![7; 300 * KIB]) };
        let join = JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let joined = connection.call(&join, 3).await.expect("an answer");
        assert_eq!(joined.error_code, 0);
        drop(joined);

        let describe = DescribeGroupsRequest { groups: vec!["g".into(); 100], ..Default::default() };
        let since = Since::now().await;
        let answer = connection.call(&describe, 5).await.expect("an answer");
        since.held_at_most(4 * MIB);
        assert_eq!(answer.groups.len(), 1);
        assert_eq!(answer.groups[0].members.len(), 1);
        drop(answer);

        let group = offset_fetch_request::Group { group_id: "g".into(), topics: None, ..Default::default() };
        let fetch = OffsetFetchRequest { groups: vec![group; 1000], ..Default::default() };
        let since = Since::now().await;
        let answer = connection.call(&fetch, 8).await.expect("an answer");
        since.held_at_most(4 * MIB);
        assert_eq!(answer.groups.len(), 1);
        assert_eq!(answer.groups[0].topics[0].partitions.len(), 400);
    });
}

/// What a produce names and is not there takes some bytes in the request, and hundreds in the answer.
#[test]
fn who_does_not_read_the_answers_of_produce_gets_few_made() {
    broker().run(|client| async move {
        let partitions = (0..10_000).map(|index| PartitionProduceData { index, records: None });
        let topic = TopicProduceData {
            name: "none".into(),
            partition_data: partitions.collect(),
            ..Default::default()
        };
        let request = Bytes::from(framed(
            &ProduceRequest { acks: 1, topic_data: vec![topic], ..Default::default() },
            12,
        ));
        assert!(request.len() < 64 * KIB);
        let stream = open(client).await;
        let since = Since::now().await;
        let writer = stream.clone();
        let sending = async move {
            for _ in 0..60 {
                let _ = writer.send(vec![request.clone().into()]).await;
            }
        };
        let _ = corelog_io::timeout(Duration::from_secs(20), sending).await;
        since.held_at_most(12 * MIB);
    });
}

/// The request's room is given back before its answer is sent.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    broker().run(|client| async move {
        let topics = (0..40).map(|n: u8| metadata_request::Topic {
            name: Some(String::from_utf8(vec![b'a' + n % 26; 25_000 + usize::from(n)]).expect("text").into()),
            ..Default::default()
        });
        let request = MetadataRequest { topics: Some(topics.collect()), ..Default::default() };
        let bytes = Bytes::from(framed(&request, 12));
        drop(request);
        let since = Since::now().await;
        let mut streams = Vec::new();
        for _ in 0..60 {
            let stream = open(client).await;
            send(&stream, bytes.clone()).await;
            streams.push(stream);
        }
        sleep(Duration::from_secs(1)).await;
        // What is in the simulated sockets is no memory of the broker's.
        since.holds_at_most(8 * MIB + 60 * 600 * KIB);
        // And who reads is answered soon.
        let asked = async {
            loop {
                let stream = open(client).await;
                send(&stream, bytes.clone()).await;
                match answer(&stream).await {
                    Some(answer) => return answer.len(),
                    // As any client: it tries again.
                    None => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let read = corelog_io::timeout(Duration::from_secs(20), asked).await.expect("in time");
        assert!(read > 1_000_000);
    });
}
