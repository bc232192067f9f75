//! Requests: what they are received in, and what they become.

use bytes::Bytes;
use corelog_wire::messages::{ApiVersionsRequest, OffsetFetchRequest, offset_fetch_request};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression};

use super::*;

/// ApiVersions, which names the client's software.
fn hello(size: usize) -> Vec<u8> {
    let request =
        ApiVersionsRequest { client_software_name: "name".into(), client_software_version: "1".into() };
    padded(framed(&request, 3), size)
}

/// Not even where the next request has begun, whose bytes come into the memory of the one before.
#[test]
fn nothing_is_kept_of_a_request_that_was_answered() {
    broker().run(|client| async move {
        let mut streams = Vec::new();
        let since = Since::now().await;
        for _ in 0..20 {
            let stream = open(client).await;
            let mut request = padded(framed(&ApiVersionsRequest::default(), 0), MIB);
            request.extend_from_slice(&hello(MIB)[..10]);
            send(&stream, request).await;
            answer(&stream).await.expect("an answer");
            streams.push(stream);
        }
        since.holds_at_most(MIB);
    });
}

#[test]
fn nothing_is_kept_of_the_request_that_named_the_software() {
    broker().run(|client| async move {
        let mut streams = Vec::new();
        let since = Since::now().await;
        for _ in 0..20 {
            let stream = open(client).await;
            send(&stream, hello(MIB)).await;
            answer(&stream).await.expect("an answer");
            streams.push(stream);
        }
        since.holds_at_most(MIB);
    });
}

/// A number takes four bytes, and its place in the answer a hundred.
#[test]
fn a_request_that_names_more_than_there_can_be_is_refused() {
    broker().run(|client| async move {
        let topic =
            offset_fetch_request::Topic { name: "t".into(), partition_indexes: (0..400_000).collect() };
        let request =
            OffsetFetchRequest { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
        let bytes = Bytes::from(framed(&request, 7));
        drop(request);
        let stream = open(client).await;
        let since = Since::now().await;
        send(&stream, bytes).await;
        assert!(answer(&stream).await.is_none(), "the connection is closed");
        since.held_at_most(8 * MIB);
    });
}

/// No partition's batch may become more than a request could be.
#[test]
fn a_small_batch_does_not_become_a_large_one() {
    broker().run(|client| async move {
        let mut connection = client.connect().await;
        let topic_id = create_topic(&mut connection, 1, &[]).await;
        let options = BatchOptions { encoding: Compression::Gzip.into(), ..Default::default() };
        let batch = {
            let mut builder = BatchBuilder::new(options);
            let value = vec![0; MIB];
            for _ in 0..40 {
                builder
                    .append(corelog_io::wall_clock_ms(), None, Some(&value), &[])
                    .expect("the record fits");
            }
            builder.build().expect("the batch can be built")
        };
        assert!(batch.len() < MIB);
        let data = vec![PartitionProduceData { index: 0, records: Some(batch) }];
        let topic = TopicProduceData { topic_id, partition_data: data, ..Default::default() };
        let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
        let since = Since::now().await;
        let response = connection.call(&request, 13).await.expect("an answer");
        assert_eq!(response.responses[0].partition_responses[0].error_code, 10, "MESSAGE_TOO_LARGE");
        since.held_at_most(40 * MIB);
    });
}
