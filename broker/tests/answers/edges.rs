//! Values at the edges, each with the answer that Kafka gives.

use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DescribeTopicPartitionsRequest, ListOffsetsRequest,
    MetadataRequest, create_partitions_request, describe_topic_partitions_request, list_offsets_request,
    metadata_request,
};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::connection::Connection;
use crate::world::World;

async fn create(connection: &mut Connection, name: &str, partitions: i32) -> ErrorCode {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
    let response = connection.call(&request, 7).await.unwrap();
    ErrorCode(response.topics[0].error_code)
}

#[test]
fn a_cursor_at_the_last_partition_there_could_be() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        assert_eq!(create(&mut connection, "t", 2).await, ErrorCode::NONE);
        for partition_index in [1, 2, 3, i32::MAX] {
            let request = DescribeTopicPartitionsRequest {
                topics: vec![describe_topic_partitions_request::TopicRequest { name: "t".into() }],
                response_partition_limit: i32::MAX,
                cursor: Some(describe_topic_partitions_request::Cursor {
                    topic_name: "t".into(),
                    partition_index,
                }),
            };
            let response = connection.call(&request, 0).await.unwrap();
            let found: Vec<i32> =
                response.topics[0].partitions.iter().map(|partition| partition.partition_index).collect();
            assert_eq!(found, (partition_index..2).collect::<Vec<_>>());
            assert!(response.next_cursor.is_none());
        }
    });
}

#[test]
fn fewer_partitions_than_there_could_be() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        assert_eq!(create(&mut connection, "t", 2).await, ErrorCode::NONE);
        for assignments in [None, Some(vec![Default::default()])] {
            let request = CreatePartitionsRequest {
                topics: vec![create_partitions_request::Topic {
                    name: "t".into(),
                    count: i32::MIN,
                    assignments,
                }],
                ..Default::default()
            };
            let response = connection.call(&request, 3).await.unwrap();
            assert_ne!(response.results[0].error_code, 0);
        }
    });
}

#[test]
fn a_topic_without_a_name_before_there_were_ids() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        let named = metadata_request::Topic { name: Some("t".into()), ..Default::default() };
        let nameless = metadata_request::Topic { name: None, topic_id: Uuid([7; 16]) };
        for version in [10, 11] {
            let topics = Some(vec![named.clone(), nameless.clone()]);
            let request = MetadataRequest { topics, ..Default::default() };
            let response = connection.call(&request, version).await.unwrap();
            let found: Vec<(Option<Str>, ErrorCode)> =
                response.topics.into_iter().map(|topic| (topic.name, ErrorCode(topic.error_code))).collect();
            let refused = ErrorCode::INVALID_REQUEST;
            assert_eq!(found, [(Some("t".into()), refused), (Some("".into()), refused)]);
        }
        let request = MetadataRequest { topics: Some(vec![nameless]), ..Default::default() };
        let response = connection.call(&request, 12).await.unwrap();
        assert_eq!(ErrorCode(response.topics[0].error_code), ErrorCode::UNKNOWN_TOPIC_ID);
    });
}

#[test]
fn the_controllers_log_is_no_topic_to_create() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        let refused = ErrorCode::INVALID_REQUEST;
        assert_eq!(create(&mut connection, "__cluster_metadata", 1).await, refused);
        // Nor by auto-creation.
        let topic = metadata_request::Topic { name: Some("__cluster_metadata".into()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let response = connection.call(&request, 12).await.unwrap();
        assert_ne!(response.topics[0].error_code, 0);
        let request = MetadataRequest { topics: None, ..Default::default() };
        assert!(connection.call(&request, 12).await.unwrap().topics.is_empty());
    });
}

#[test]
fn a_partition_named_twice_in_list_offsets() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        assert_eq!(create(&mut connection, "t", 3).await, ErrorCode::NONE);
        let partition = |partition_index, timestamp| list_offsets_request::Partition {
            partition_index,
            timestamp,
            ..Default::default()
        };
        for version in [0, 1, 11] {
            let topic = |partitions| list_offsets_request::Topic { name: "t".into(), partitions };
            let topics = vec![
                topic(vec![partition(0, -1), partition(1, -1), partition(0, -2)]),
                topic(vec![partition(2, -1), partition(0, -1)]),
            ];
            let request = ListOffsetsRequest { topics, ..Default::default() };
            let response = connection.call(&request, version).await.unwrap();
            let found: Vec<Vec<(i32, ErrorCode)>> = response
                .topics
                .iter()
                .map(|topic| {
                    let partitions = topic.partitions.iter();
                    partitions.map(|found| (found.partition_index, ErrorCode(found.error_code))).collect()
                })
                .collect();
            let (good, bad) = (ErrorCode::NONE, ErrorCode::INVALID_REQUEST);
            assert_eq!(found, [vec![(0, bad), (1, good)], vec![(2, good)]], "version {version}");
        }
    });
}

/// Names and values of an error message's length and more: the message is cut, not the connection.
#[test]
fn names_of_the_greatest_length() {
    let world = World::start(&[]);
    world.run(|client| async move {
        let mut connection = client.connect().await;
        let long = "n".repeat(i16::MAX as usize);
        for version in [4, 7] {
            let topic = CreatableTopic {
                name: long.as_str().into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            };
            let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
            let response = connection.call(&request, version).await.unwrap();
            let answer = &response.topics[0];
            assert_eq!(ErrorCode(answer.error_code), ErrorCode::INVALID_TOPIC_EXCEPTION);
            assert_eq!(answer.name.len(), long.len());
            let message = answer.error_message.as_deref().unwrap();
            assert!(message.len() < 3000 && message.starts_with("Topic name is invalid: the length of 'nnn"));
        }
    });
}
