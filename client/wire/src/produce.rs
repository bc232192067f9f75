//! The envelope of Produce (API key 0), versions 0 to 13.
//!
//! Written by hand because it is the hottest message: record batches stay where the frame put them and are handed on as
//! slices. Versions 0 and 1 carry message format v0 and v1, from 3 on format v2 (see `records`); the envelope does not look.

use crate::messages::{Message, Request, Response};
use crate::reader::smallest;
use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, Uuid, Writer};
use bytes::Bytes;

pub use crate::leader_hint::{LeaderIdAndEpoch, NodeEndpoint};

/// Versions from this on are flexible.
const FLEXIBLE: i16 = 9;
/// From this on topics go by id alone (KIP-516).
const TOPIC_IDS: i16 = 13;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceRequest {
    /// Versions 3+.
    pub transactional_id: Option<Str>,
    /// 0: no answer at all; 1: the leader has it; −1: all in-sync replicas have it.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topic_data: Vec<TopicProduceData>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicProduceData {
    /// Versions 0-12.
    pub name: Str,
    /// Versions 13+.
    pub topic_id: Uuid,
    pub partition_data: Vec<PartitionProduceData>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartitionProduceData {
    pub index: i32,
    /// Record batches: a slice of the request's frame.
    pub records: Option<Bytes>,
}

impl Message for ProduceRequest {
    const NAME: &'static str = "ProduceRequest";
    const MIN_VERSION: i16 = 0;
    const MAX_VERSION: i16 = 13;
    const FIRST_FLEXIBLE: Option<i16> = Some(FLEXIBLE);

    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        r.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        let transactional_id =
            if version >= 3 { r.string_opt("ProduceRequest.transactional_id", flexible)? } else { None };
        let acks = r.i16("ProduceRequest.acks")?;
        let timeout_ms = r.i32("ProduceRequest.timeout_ms")?;
        // Topic: empty name, no partitions, no tags. Partition: index, null records, no tags.
        let topic_data =
            r.array("ProduceRequest.topic_data", flexible, const { smallest::<TopicProduceData>(3) }, |r| {
                TopicProduceData::read(r, version)
            })?;
        if flexible {
            r.skip_tags("ProduceRequest")?;
        }
        Ok(ProduceRequest { transactional_id, acks, timeout_ms, topic_data })
    }

    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        if version >= 3 {
            w.string_opt("ProduceRequest.transactional_id", flexible, self.transactional_id.as_deref())?;
        } else if self.transactional_id.is_some() {
            return Err(EncodeError::not_in_version("ProduceRequest.transactional_id", version));
        }
        w.i16(self.acks);
        w.i32(self.timeout_ms);
        w.array_len("ProduceRequest.topic_data", flexible, self.topic_data.len())?;
        for topic in &self.topic_data {
            topic.write(w, version)?;
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

impl Request for ProduceRequest {
    const API_KEY: ApiKey = ApiKey::Produce;
    type Response = ProduceResponse;
}

impl TopicProduceData {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let (name, topic_id) = if version >= TOPIC_IDS {
            (Str::new(), r.uuid("TopicProduceData.topic_id")?)
        } else {
            (r.string("TopicProduceData.name", flexible)?, Uuid::ZERO)
        };
        let partition_data = r.array(
            "TopicProduceData.partition_data",
            flexible,
            const { smallest::<PartitionProduceData>(6) },
            |r| {
                let index = r.i32("PartitionProduceData.index")?;
                let records = r.bytes_opt("PartitionProduceData.records", flexible)?;
                if flexible {
                    r.skip_tags("PartitionProduceData")?;
                }
                Ok(PartitionProduceData { index, records })
            },
        )?;
        if flexible {
            r.skip_tags("TopicProduceData")?;
        }
        Ok(TopicProduceData { name, topic_id, partition_data })
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        if version >= TOPIC_IDS {
            w.uuid(&self.topic_id);
        } else {
            w.string("TopicProduceData.name", flexible, &self.name)?;
        }
        w.array_len("TopicProduceData.partition_data", flexible, self.partition_data.len())?;
        for partition in &self.partition_data {
            w.i32(partition.index);
            match &partition.records {
                Some(records) => w.bytes("PartitionProduceData.records", flexible, records)?,
                None => w.null_bytes(flexible),
            }
            if flexible {
                w.uvarint(0);
            }
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProduceResponse {
    pub responses: Vec<TopicProduceResponse>,
    /// Versions 1+.
    pub throttle_time_ms: i32,
    /// Versions 10+, dropped from older ones: the leaders named in `current_leader`.
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicProduceResponse {
    /// Versions 0-12.
    pub name: Str,
    /// Versions 13+.
    pub topic_id: Uuid,
    pub partition_responses: Vec<PartitionProduceResponse>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PartitionProduceResponse {
    pub index: i32,
    pub error_code: i16,
    pub base_offset: i64,
    /// Versions 2+: −1 unless the topic's timestamps are those of the append.
    pub log_append_time_ms: i64,
    /// Versions 5+: −1 where unknown.
    pub log_start_offset: i64,
    /// Versions 8+: the records that had the batch refused.
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    /// Versions 8+.
    pub error_message: Option<Str>,
    /// Versions 10+, dropped from older ones.
    pub current_leader: LeaderIdAndEpoch,
}

impl Default for PartitionProduceResponse {
    fn default() -> Self {
        PartitionProduceResponse {
            index: 0,
            error_code: 0,
            base_offset: 0,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: LeaderIdAndEpoch::default(),
        }
    }
}

/// A refused record, by its place in the batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchIndexAndErrorMessage {
    pub batch_index: i32,
    pub batch_index_error_message: Option<Str>,
}

impl Message for ProduceResponse {
    const NAME: &'static str = "ProduceResponse";
    const MIN_VERSION: i16 = 0;
    const MAX_VERSION: i16 = 13;
    const FIRST_FLEXIBLE: Option<i16> = Some(FLEXIBLE);

    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        r.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        // Topic: empty name, no partitions, no tags.
        let responses = r.array(
            "ProduceResponse.responses",
            flexible,
            const { smallest::<TopicProduceResponse>(3) },
            |r| TopicProduceResponse::read(r, version),
        )?;
        let throttle_time_ms = if version >= 1 { r.i32("ProduceResponse.throttle_time_ms")? } else { 0 };
        let mut node_endpoints = Vec::new();
        if flexible {
            r.tags("ProduceResponse", |r, tag| match tag {
                0 if version >= 10 => {
                    node_endpoints = NodeEndpoint::read_all(r)?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(ProduceResponse { responses, throttle_time_ms, node_endpoints })
    }

    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        w.array_len("ProduceResponse.responses", flexible, self.responses.len())?;
        for topic in &self.responses {
            topic.write(w, version)?;
        }
        if version >= 1 {
            w.i32(self.throttle_time_ms);
        }
        if flexible {
            let endpoints = version >= 10 && !self.node_endpoints.is_empty();
            w.uvarint(endpoints.into());
            if endpoints {
                w.tagged(0, |w| NodeEndpoint::write_all(&self.node_endpoints, w))?;
            }
        }
        Ok(())
    }
}

impl Response for ProduceResponse {
    fn each_error(&self, visit: &mut dyn FnMut(i16)) {
        let partitions = self.responses.iter().flat_map(|topic| &topic.partition_responses);
        partitions.map(|partition| partition.error_code).filter(|code| *code != 0).for_each(visit);
    }

    const API_KEY: ApiKey = ApiKey::Produce;
}

impl TopicProduceResponse {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let (name, topic_id) = if version >= TOPIC_IDS {
            (Str::new(), r.uuid("TopicProduceResponse.topic_id")?)
        } else {
            (r.string("TopicProduceResponse.name", flexible)?, Uuid::ZERO)
        };
        // Version 0 has the smallest partitions: index, error, offset.
        let partition_responses = r.array(
            "TopicProduceResponse.partition_responses",
            flexible,
            const { smallest::<PartitionProduceResponse>(14) },
            |r| PartitionProduceResponse::read(r, version),
        )?;
        if flexible {
            r.skip_tags("TopicProduceResponse")?;
        }
        Ok(TopicProduceResponse { name, topic_id, partition_responses })
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        if version >= TOPIC_IDS {
            w.uuid(&self.topic_id);
        } else {
            w.string("TopicProduceResponse.name", flexible, &self.name)?;
        }
        w.array_len("TopicProduceResponse.partition_responses", flexible, self.partition_responses.len())?;
        for partition in &self.partition_responses {
            partition.write(w, version)?;
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

impl PartitionProduceResponse {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let mut partition = PartitionProduceResponse {
            index: r.i32("PartitionProduceResponse.index")?,
            error_code: r.i16("PartitionProduceResponse.error_code")?,
            base_offset: r.i64("PartitionProduceResponse.base_offset")?,
            ..Default::default()
        };
        if version >= 2 {
            partition.log_append_time_ms = r.i64("PartitionProduceResponse.log_append_time_ms")?;
        }
        if version >= 5 {
            partition.log_start_offset = r.i64("PartitionProduceResponse.log_start_offset")?;
        }
        if version >= 8 {
            // Index, null message, no tags.
            partition.record_errors = r.array(
                "PartitionProduceResponse.record_errors",
                flexible,
                const { smallest::<BatchIndexAndErrorMessage>(6) },
                |r| BatchIndexAndErrorMessage::read(r, flexible),
            )?;
            partition.error_message = r.string_opt("PartitionProduceResponse.error_message", flexible)?;
        }
        if flexible {
            r.tags("PartitionProduceResponse", |r, tag| match tag {
                0 if version >= 10 => {
                    partition.current_leader = LeaderIdAndEpoch::read(r)?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(partition)
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        w.i32(self.index);
        w.i16(self.error_code);
        w.i64(self.base_offset);
        if version >= 2 {
            w.i64(self.log_append_time_ms);
        }
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        if version >= 8 {
            w.array_len("PartitionProduceResponse.record_errors", flexible, self.record_errors.len())?;
            for error in &self.record_errors {
                error.write(w, flexible)?;
            }
            w.string_opt("PartitionProduceResponse.error_message", flexible, self.error_message.as_deref())?;
        }
        if flexible {
            let leader = version >= 10 && self.current_leader != LeaderIdAndEpoch::default();
            w.uvarint(leader.into());
            if leader {
                w.tagged(0, |w| {
                    self.current_leader.write(w);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl BatchIndexAndErrorMessage {
    fn read(r: &mut Reader, flexible: bool) -> Result<Self, DecodeError> {
        let batch_index = r.i32("BatchIndexAndErrorMessage.batch_index")?;
        let message = r.string_opt("BatchIndexAndErrorMessage.batch_index_error_message", flexible)?;
        if flexible {
            r.skip_tags("BatchIndexAndErrorMessage")?;
        }
        Ok(BatchIndexAndErrorMessage { batch_index, batch_index_error_message: message })
    }

    fn write(&self, w: &mut Writer, flexible: bool) -> Result<(), EncodeError> {
        w.i32(self.batch_index);
        let message = self.batch_index_error_message.as_deref();
        w.string_opt("BatchIndexAndErrorMessage.batch_index_error_message", flexible, message)?;
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_slices_of_the_frame() {
        let records = Bytes::from(vec![7; 5000]);
        let request = ProduceRequest {
            acks: -1,
            topic_data: vec![TopicProduceData {
                name: Str::from("t"),
                partition_data: vec![PartitionProduceData { index: 2, records: Some(records.clone()) }],
                ..Default::default()
            }],
            ..Default::default()
        };
        for version in 0..TOPIC_IDS {
            let mut w = Writer::new();
            request.encode(&mut w, version).unwrap();
            let parts = w.into_parts();
            assert_eq!(parts[1].as_ptr(), records.as_ptr(), "the producer's bytes are not copied");

            let frame = Bytes::from(parts.concat());
            let decoded = ProduceRequest::from_bytes(frame.clone(), version).unwrap();
            assert_eq!(decoded, request);
            let slice = decoded.topic_data[0].partition_data[0].records.as_ref().unwrap();
            assert!(frame.as_ptr_range().contains(&slice.as_ptr()), "the broker's records are not copied");
        }
    }

    #[test]
    fn hints_are_dropped_from_versions_without_them() {
        let mut response = ProduceResponse {
            responses: vec![TopicProduceResponse {
                partition_responses: vec![PartitionProduceResponse {
                    current_leader: LeaderIdAndEpoch { leader_id: 1, leader_epoch: 2 },
                    ..Default::default()
                }],
                ..Default::default()
            }],
            node_endpoints: vec![NodeEndpoint { node_id: 1, ..Default::default() }],
            throttle_time_ms: 0,
        };
        let recoded = ProduceResponse::from_bytes(response.to_bytes(10).unwrap(), 10).unwrap();
        assert_eq!(recoded, response);
        let recoded = ProduceResponse::from_bytes(response.to_bytes(9).unwrap(), 9).unwrap();
        response.responses[0].partition_responses[0].current_leader = LeaderIdAndEpoch::default();
        response.node_endpoints.clear();
        assert_eq!(recoded, response);
    }
}
