//! What a broker answers: record batches by reference.

use super::{FLEXIBLE, LeaderIdAndEpoch, NodeEndpoint, TOPIC_IDS};
use crate::messages::{Message, Response};
use crate::reader::smallest;
use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, Uuid, Writer};
use bytes::Bytes;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchResponse {
    /// Versions 1+.
    pub throttle_time_ms: i32,
    /// Versions 7+, dropped from older ones.
    pub error_code: i16,
    /// Versions 7+: 0 without a session.
    pub session_id: i32,
    pub responses: Vec<FetchableTopicResponse>,
    /// Versions 16+, dropped from older ones: the leaders named in `current_leader`.
    pub node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchableTopicResponse {
    /// Versions 0-12.
    pub topic: Str,
    /// Versions 13+.
    pub topic_id: Uuid,
    pub partitions: Vec<PartitionData>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PartitionData {
    pub partition_index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    /// Versions 4+: −1 where unknown.
    pub last_stable_offset: i64,
    /// Versions 5+: −1 where unknown.
    pub log_start_offset: i64,
    /// Versions 12+, tagged: where the follower's log diverges.
    pub diverging_epoch: EpochEndOffset,
    /// Versions 12+, tagged; dropped from older ones.
    pub current_leader: LeaderIdAndEpoch,
    /// Versions 12+, tagged: the snapshot that a follower of the controller's log needs.
    pub snapshot_id: SnapshotId,
    /// Versions 4+: null for readers of uncommitted records.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// Versions 11+: the broker to read from instead (KIP-392), or −1.
    pub preferred_read_replica: i32,
    /// Whole record batches, in parts that are concatenated on the wire and not copied if they have some size. Decoding gives one
    /// part, or none for an empty set. Kafka's brokers answer an empty set, not null, where there is nothing.
    pub records: Option<Vec<Bytes>>,
}

impl Default for PartitionData {
    fn default() -> Self {
        PartitionData {
            partition_index: 0,
            error_code: 0,
            high_watermark: 0,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: EpochEndOffset::default(),
            current_leader: LeaderIdAndEpoch::default(),
            snapshot_id: SnapshotId::default(),
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Some(Vec::new()),
        }
    }
}

/// Both −1, and off the wire, where there is no divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOffset {
    pub epoch: i32,
    pub end_offset: i64,
}

impl Default for EpochEndOffset {
    fn default() -> Self {
        EpochEndOffset { epoch: -1, end_offset: -1 }
    }
}

/// Both −1, and off the wire, where none is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    pub end_offset: i64,
    pub epoch: i32,
}

impl Default for SnapshotId {
    fn default() -> Self {
        SnapshotId { end_offset: -1, epoch: -1 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl Message for FetchResponse {
    const NAME: &'static str = "FetchResponse";
    const MIN_VERSION: i16 = 0;
    const MAX_VERSION: i16 = 18;
    const FIRST_FLEXIBLE: Option<i16> = Some(FLEXIBLE);

    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        r.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        let mut response = FetchResponse::default();
        if version >= 1 {
            response.throttle_time_ms = r.i32("FetchResponse.throttle_time_ms")?;
        }
        if version >= 7 {
            response.error_code = r.i16("FetchResponse.error_code")?;
            response.session_id = r.i32("FetchResponse.session_id")?;
        }
        // Topic: empty name, no partitions, no tags.
        response.responses = r.array(
            "FetchResponse.responses",
            flexible,
            const { smallest::<FetchableTopicResponse>(3) },
            |r| FetchableTopicResponse::read(r, version),
        )?;
        if flexible {
            r.tags("FetchResponse", |r, tag| match tag {
                0 if version >= 16 => {
                    response.node_endpoints = NodeEndpoint::read_all(r)?;
                    Ok(true)
                }
                _ => Ok(false),
            })?;
        }
        Ok(response)
    }

    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        if version >= 1 {
            w.i32(self.throttle_time_ms);
        }
        if version >= 7 {
            w.i16(self.error_code);
            w.i32(self.session_id);
        } else if self.session_id != 0 {
            return Err(EncodeError::not_in_version("FetchResponse.session_id", version));
        }
        w.array_len("FetchResponse.responses", flexible, self.responses.len())?;
        for topic in &self.responses {
            topic.write(w, version)?;
        }
        if flexible {
            let endpoints = version >= 16 && !self.node_endpoints.is_empty();
            w.uvarint(endpoints.into());
            if endpoints {
                w.tagged(0, |w| NodeEndpoint::write_all(&self.node_endpoints, w))?;
            }
        }
        Ok(())
    }
}

impl Response for FetchResponse {
    fn each_error(&self, visit: &mut dyn FnMut(i16)) {
        let partitions = self.responses.iter().flat_map(|topic| &topic.partitions);
        let codes = partitions.map(|partition| partition.error_code);
        std::iter::once(self.error_code).chain(codes).filter(|code| *code != 0).for_each(visit);
    }

    const API_KEY: ApiKey = ApiKey::Fetch;
}

impl FetchableTopicResponse {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let (topic, topic_id) = if version >= TOPIC_IDS {
            (Str::new(), r.uuid("FetchableTopicResponse.topic_id")?)
        } else {
            (r.string("FetchableTopicResponse.topic", flexible)?, Uuid::ZERO)
        };
        // Version 0 has the smallest partitions: index, error, high watermark, length of records. Each takes memory for a list of
        // one part as well.
        let partitions = r.array(
            "FetchableTopicResponse.partitions",
            flexible,
            const { smallest::<(PartitionData, Bytes)>(18) },
            |r| PartitionData::read(r, version),
        )?;
        if flexible {
            r.skip_tags("FetchableTopicResponse")?;
        }
        Ok(FetchableTopicResponse { topic, topic_id, partitions })
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        if version >= TOPIC_IDS {
            w.uuid(&self.topic_id);
        } else {
            w.string("FetchableTopicResponse.topic", flexible, &self.topic)?;
        }
        w.array_len("FetchableTopicResponse.partitions", flexible, self.partitions.len())?;
        for partition in &self.partitions {
            partition.write(w, version)?;
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

impl PartitionData {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let mut it = PartitionData {
            partition_index: r.i32("PartitionData.partition_index")?,
            error_code: r.i16("PartitionData.error_code")?,
            high_watermark: r.i64("PartitionData.high_watermark")?,
            ..Default::default()
        };
        if version >= 4 {
            it.last_stable_offset = r.i64("PartitionData.last_stable_offset")?;
        }
        if version >= 5 {
            it.log_start_offset = r.i64("PartitionData.log_start_offset")?;
        }
        if version >= 4 {
            it.aborted_transactions = r.array_opt(
                "PartitionData.aborted_transactions",
                flexible,
                const { smallest::<AbortedTransaction>(16) },
                |r| AbortedTransaction::read(r, flexible),
            )?;
        }
        if version >= 11 {
            it.preferred_read_replica = r.i32("PartitionData.preferred_read_replica")?;
        }
        let records = r.bytes_opt("PartitionData.records", flexible)?;
        it.records = records.map(|records| if records.is_empty() { Vec::new() } else { vec![records] });
        if flexible {
            r.tags("PartitionData", |r, tag| {
                match tag {
                    0 => it.diverging_epoch = EpochEndOffset::read(r)?,
                    1 => it.current_leader = LeaderIdAndEpoch::read(r)?,
                    2 => it.snapshot_id = SnapshotId::read(r)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
        }
        Ok(it)
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        w.i32(self.partition_index);
        w.i16(self.error_code);
        w.i64(self.high_watermark);
        if version >= 4 {
            w.i64(self.last_stable_offset);
        }
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        if version >= 4 {
            match &self.aborted_transactions {
                None => w.null_bytes(flexible),
                Some(aborted) => {
                    w.array_len("PartitionData.aborted_transactions", flexible, aborted.len())?;
                    aborted.iter().for_each(|transaction| transaction.write(w, flexible));
                }
            }
        }
        if version >= 11 {
            w.i32(self.preferred_read_replica);
        } else if self.preferred_read_replica != -1 {
            return Err(EncodeError::not_in_version("PartitionData.preferred_read_replica", version));
        }
        match &self.records {
            None => w.null_bytes(flexible),
            Some(parts) => {
                w.array_len("PartitionData.records", flexible, parts.iter().map(Bytes::len).sum())?;
                parts.iter().for_each(|part| w.raw_bytes(part));
            }
        }
        let diverging_epoch = self.diverging_epoch != EpochEndOffset::default();
        let snapshot_id = self.snapshot_id != SnapshotId::default();
        if flexible {
            let current_leader = self.current_leader != LeaderIdAndEpoch::default();
            w.uvarint(u32::from(diverging_epoch) + u32::from(current_leader) + u32::from(snapshot_id));
            if diverging_epoch {
                w.tagged(0, |w| {
                    self.diverging_epoch.write(w);
                    Ok(())
                })?;
            }
            if current_leader {
                w.tagged(1, |w| {
                    self.current_leader.write(w);
                    Ok(())
                })?;
            }
            if snapshot_id {
                w.tagged(2, |w| {
                    self.snapshot_id.write(w);
                    Ok(())
                })?;
            }
        } else if diverging_epoch {
            return Err(EncodeError::not_in_version("PartitionData.diverging_epoch", version));
        } else if snapshot_id {
            return Err(EncodeError::not_in_version("PartitionData.snapshot_id", version));
        }
        Ok(())
    }
}

impl EpochEndOffset {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let epoch = r.i32("EpochEndOffset.epoch")?;
        let end_offset = r.i64("EpochEndOffset.end_offset")?;
        r.skip_tags("EpochEndOffset")?;
        Ok(EpochEndOffset { epoch, end_offset })
    }

    fn write(&self, w: &mut Writer) {
        w.i32(self.epoch);
        w.i64(self.end_offset);
        w.uvarint(0);
    }
}

impl SnapshotId {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let end_offset = r.i64("SnapshotId.end_offset")?;
        let epoch = r.i32("SnapshotId.epoch")?;
        r.skip_tags("SnapshotId")?;
        Ok(SnapshotId { end_offset, epoch })
    }

    fn write(&self, w: &mut Writer) {
        w.i64(self.end_offset);
        w.i32(self.epoch);
        w.uvarint(0);
    }
}

impl AbortedTransaction {
    fn read(r: &mut Reader, flexible: bool) -> Result<Self, DecodeError> {
        let producer_id = r.i64("AbortedTransaction.producer_id")?;
        let first_offset = r.i64("AbortedTransaction.first_offset")?;
        if flexible {
            r.skip_tags("AbortedTransaction")?;
        }
        Ok(AbortedTransaction { producer_id, first_offset })
    }

    fn write(&self, w: &mut Writer, flexible: bool) {
        w.i64(self.producer_id);
        w.i64(self.first_offset);
        if flexible {
            w.uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    #[test]
    fn records_leave_by_reference() {
        let parts = vec![Bytes::from(vec![1; 4096]), Bytes::from(vec![2; 2000])];
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                partitions: vec![PartitionData { records: Some(parts.clone()), ..Default::default() }; 2],
                ..Default::default()
            }],
            ..Default::default()
        };
        for version in FetchResponse::VERSIONS {
            let frame = frame::response(&response, version, 5).unwrap();
            for (part, at) in [(0, 1), (1, 2), (0, 4), (1, 5)] {
                assert_eq!(frame[at].as_ptr(), parts[part].as_ptr(), "version {version} copied part {part}");
            }
            let bytes = Bytes::from(frame.concat());
            assert_eq!(bytes.len() - 4, i32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
            let (header, decoded) =
                frame::decode_response::<FetchResponse>(bytes.slice(4..), version).unwrap();
            assert_eq!(header.correlation_id, 5);
            let records = decoded.responses[0].partitions[1].records.as_ref().unwrap();
            assert_eq!(records.concat(), parts.concat());
        }
    }

    #[test]
    fn what_matters_is_not_dropped_from_old_versions() {
        let response = |partition| FetchResponse {
            responses: vec![FetchableTopicResponse { partitions: vec![partition], ..Default::default() }],
            ..Default::default()
        };
        let moved = response(PartitionData { preferred_read_replica: 2, ..Default::default() });
        assert!(moved.to_bytes(11).is_ok());
        let error = moved.to_bytes(10).unwrap_err();
        assert_eq!(
            error,
            EncodeError::NotInVersion { field: "PartitionData.preferred_read_replica", version: 10 }
        );

        let diverging_epoch = EpochEndOffset { epoch: 1, end_offset: 2 };
        let diverged = response(PartitionData { diverging_epoch, ..Default::default() });
        assert!(diverged.to_bytes(12).is_ok() && diverged.to_bytes(11).is_err());
    }
}
