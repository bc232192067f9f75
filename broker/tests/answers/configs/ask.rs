//! Requests that the cases make, one line each, each on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::describe_configs_request::Resource;
use corelog_wire::messages::describe_configs_response::ResourceResult;
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::list_offsets_request;
use corelog_wire::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
};
use corelog_wire::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use corelog_wire::records::{BatchBuilder, BatchHeader, BatchOptions, Encoding, Producer};
use corelog_wire::{ErrorCode, Request};

use crate::world::World;

pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const EARLIEST: i64 = -2;

impl World {
    pub fn ask<R: Request + 'static>(&self, version: i16, request: R) -> R::Response
    where
        R::Response: 'static,
    {
        self.run(move |client| async move {
            let mut connection = client.connect().await;
            connection.call(&request, version).await.unwrap_or_else(|error| panic!("{}: {error}", R::NAME))
        })
    }

    /// Virtual time passes, and the broker works.
    pub fn wait(&self, time: Duration) {
        self.run(move |_| corelog_io::sleep(time));
    }

    pub fn now_ms(&self) -> i64 {
        self.run(|_| async { corelog_io::wall_clock_ms() })
    }

    pub fn create(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> ErrorCode {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: topic.into(),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..Default::default()
        };
        let response = self.ask(7, CreateTopicsRequest { topics: vec![topic], ..Default::default() });
        ErrorCode(response.topics[0].error_code)
    }

    /// Sets a config, or with `None` deletes it.
    pub fn alter(&self, kind: i8, resource: &str, name: &str, value: Option<&str>) -> ErrorCode {
        let config = AlterableConfig {
            name: name.into(),
            config_operation: if value.is_some() { SET } else { DELETE },
            value: value.map(Into::into),
        };
        let resource = AlterConfigsResource {
            resource_type: kind,
            resource_name: resource.into(),
            configs: vec![config],
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        ErrorCode(self.ask(1, request).responses[0].error_code)
    }

    /// All configs of a resource, with their documentation.
    pub fn describe(&self, kind: i8, resource: &str) -> Vec<ResourceResult> {
        let resource =
            Resource { resource_type: kind, resource_name: resource.into(), configuration_keys: None };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: false,
            include_documentation: true,
        };
        self.ask(4, request).results.remove(0).configs
    }

    pub fn produce(&self, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let data = PartitionProduceData { index: partition, records: Some(batch) };
        let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 1000, topic_data: vec![topic], transactional_id: None };
        self.ask(9, request).responses.remove(0).partition_responses.remove(0)
    }

    /// The log start offset of a partition.
    pub fn earliest(&self, topic: &str, partition: i32) -> i64 {
        let partition = list_offsets_request::Partition {
            partition_index: partition,
            timestamp: EARLIEST,
            ..Default::default()
        };
        let topic = list_offsets_request::Topic { name: topic.into(), partitions: vec![partition] };
        let response = self.ask(7, ListOffsetsRequest { topics: vec![topic], ..Default::default() });
        response.topics[0].partitions[0].offset
    }

    pub fn fetch(&self, topic: &str, offset: i64, session_epoch: i32) -> FetchResponse {
        let partition =
            FetchPartition { fetch_offset: offset, partition_max_bytes: i32::MAX, ..Default::default() };
        let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest {
            max_bytes: i32::MAX,
            session_id: 0,
            session_epoch,
            topics: vec![topic],
            ..Default::default()
        };
        self.ask(11, request)
    }

    /// The header of the batch at `offset`, as it is kept.
    pub fn kept(&self, topic: &str, offset: i64) -> BatchHeader {
        let mut response = self.fetch(topic, offset, -1);
        let records = response.responses.remove(0).partitions.remove(0).records.expect("a batch is there");
        BatchHeader::parse(&records.concat()).expect("a batch is there")
    }
}

/// A batch of one record without a key.
pub fn batch(timestamp: i64, value: &[u8], producer: Option<Producer>, encoding: Encoding) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { producer, encoding, ..BatchOptions::default() });
    builder.append(timestamp, None, Some(value), &[]).expect("it is small");
    builder.build().expect("it has a record")
}

pub fn plain(timestamp: i64, bytes: usize) -> Bytes {
    batch(timestamp, &vec![7; bytes], None, Encoding::default())
}
