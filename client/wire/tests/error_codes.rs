//! Every error code of a response is found, however deep it lies.

use corelog_wire::Response;
use corelog_wire::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use corelog_wire::messages::metadata_response::{MetadataResponse, Partition, Topic};
use corelog_wire::messages::{ApiVersionsResponse, HeartbeatResponse};
use corelog_wire::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};

fn errors(response: &impl Response) -> Vec<i16> {
    let mut found = Vec::new();
    response.each_error(&mut |code| found.push(code));
    found
}

#[test]
fn each_is_visited_and_no_error_is_none() {
    assert_eq!(errors(&HeartbeatResponse::default()), []);
    assert_eq!(errors(&HeartbeatResponse { error_code: 27, ..Default::default() }), [27]);
    assert_eq!(errors(&ApiVersionsResponse { error_code: 35, ..Default::default() }), [35]);

    let partition = |error_code| Partition { error_code, ..Default::default() };
    let topic = |error_code, partitions| Topic { error_code, partitions, ..Default::default() };
    let metadata = MetadataResponse {
        topics: vec![topic(3, vec![]), topic(0, vec![partition(5), partition(0), partition(9)])],
        ..Default::default()
    };
    assert_eq!(errors(&metadata), [3, 5, 9]);

    let partition = |error_code| PartitionProduceResponse { error_code, ..Default::default() };
    let topic =
        TopicProduceResponse { partition_responses: vec![partition(0), partition(10)], ..Default::default() };
    assert_eq!(errors(&ProduceResponse { responses: vec![topic], ..Default::default() }), [10]);

    let partitions = [1, 0].map(|error_code| PartitionData { error_code, ..Default::default() });
    let topic = FetchableTopicResponse { partitions: partitions.to_vec(), ..Default::default() };
    let fetch = FetchResponse { error_code: 70, responses: vec![topic], ..Default::default() };
    assert_eq!(errors(&fetch), [70, 1]);
}
