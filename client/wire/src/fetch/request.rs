//! What a consumer or follower asks for.

use super::{FLEXIBLE, FetchResponse, TOPIC_IDS};
use crate::messages::{Message, Request};
use crate::reader::smallest;
use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, Uuid, Writer};

#[derive(Clone, Debug, PartialEq)]
pub struct FetchRequest {
    /// Versions 12+, tagged: the cluster that the client means to talk to.
    pub cluster_id: Option<Str>,
    /// Versions 0-14: −1 for a consumer.
    pub replica_id: i32,
    /// Versions 15+, tagged: in place of `replica_id`.
    pub replica_state: ReplicaState,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    /// Versions 3+.
    pub max_bytes: i32,
    /// Versions 4+: 1 for committed records only.
    pub isolation_level: i8,
    /// Versions 7+: 0 without a session (KIP-227).
    pub session_id: i32,
    /// Versions 7+: 0 opens a session, −1 does without or closes it.
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    /// Versions 7+: what an incremental request takes out of its session.
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// Versions 11+ (KIP-392).
    pub rack_id: Str,
}

impl Default for FetchRequest {
    fn default() -> Self {
        FetchRequest {
            cluster_id: None,
            replica_id: -1,
            replica_state: ReplicaState::default(),
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: i32::MAX,
            isolation_level: 0,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten_topics_data: Vec::new(),
            rack_id: Str::new(),
        }
    }
}

/// Which broker follows; both −1, and off the wire, for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    pub replica_id: i32,
    pub replica_epoch: i64,
}

impl Default for ReplicaState {
    fn default() -> Self {
        ReplicaState { replica_id: -1, replica_epoch: -1 }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchTopic {
    /// Versions 0-12.
    pub topic: Str,
    /// Versions 13+.
    pub topic_id: Uuid,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    pub partition: i32,
    /// Versions 9+: −1 where unknown.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// Versions 12+: −1 where unknown; otherwise the leader checks for divergence.
    pub last_fetched_epoch: i32,
    /// Versions 5+: a follower's; −1 for a consumer.
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
    /// Versions 17+, tagged: a follower's.
    pub replica_directory_id: Uuid,
    /// Versions 18+, tagged: a follower's; `i64::MAX` where it does not say.
    pub high_watermark: i64,
}

impl Default for FetchPartition {
    fn default() -> Self {
        FetchPartition {
            partition: 0,
            current_leader_epoch: -1,
            fetch_offset: 0,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: 0,
            replica_directory_id: Uuid::ZERO,
            high_watermark: i64::MAX,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForgottenTopic {
    /// Versions 7-12.
    pub topic: Str,
    /// Versions 13+.
    pub topic_id: Uuid,
    pub partitions: Vec<i32>,
}

impl Message for FetchRequest {
    const NAME: &'static str = "FetchRequest";
    const MIN_VERSION: i16 = 0;
    const MAX_VERSION: i16 = 18;
    const FIRST_FLEXIBLE: Option<i16> = Some(FLEXIBLE);

    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        r.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        let mut request = FetchRequest::default();
        if version <= 14 {
            request.replica_id = r.i32("FetchRequest.replica_id")?;
        }
        request.max_wait_ms = r.i32("FetchRequest.max_wait_ms")?;
        request.min_bytes = r.i32("FetchRequest.min_bytes")?;
        if version >= 3 {
            request.max_bytes = r.i32("FetchRequest.max_bytes")?;
        }
        if version >= 4 {
            request.isolation_level = r.i8("FetchRequest.isolation_level")?;
        }
        if version >= 7 {
            request.session_id = r.i32("FetchRequest.session_id")?;
            request.session_epoch = r.i32("FetchRequest.session_epoch")?;
        }
        // Both kinds of topic: empty name, no partitions, no tags.
        request.topics =
            r.array("FetchRequest.topics", flexible, const { smallest::<FetchTopic>(3) }, |r| {
                FetchTopic::read(r, version)
            })?;
        if version >= 7 {
            request.forgotten_topics_data = r.array(
                "FetchRequest.forgotten_topics_data",
                flexible,
                const { smallest::<ForgottenTopic>(3) },
                |r| ForgottenTopic::read(r, version),
            )?;
        }
        if version >= 11 {
            request.rack_id = r.string("FetchRequest.rack_id", flexible)?;
        }
        if flexible {
            r.tags("FetchRequest", |r, tag| {
                match tag {
                    0 => request.cluster_id = r.string_opt("FetchRequest.cluster_id", true)?,
                    1 if version >= 15 => request.replica_state = ReplicaState::read(r)?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
        }
        Ok(request)
    }

    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.check_version(Self::NAME, version, Self::VERSIONS)?;
        let flexible = version >= FLEXIBLE;
        let replica_state = self.replica_state != ReplicaState::default();
        if version <= 14 {
            w.i32(self.replica_id);
            if replica_state {
                return Err(EncodeError::not_in_version("FetchRequest.replica_state", version));
            }
        } else if self.replica_id != -1 {
            return Err(EncodeError::not_in_version("FetchRequest.replica_id", version));
        }
        w.i32(self.max_wait_ms);
        w.i32(self.min_bytes);
        if version >= 3 {
            w.i32(self.max_bytes);
        }
        if version >= 4 {
            w.i8(self.isolation_level);
        }
        if version >= 7 {
            w.i32(self.session_id);
            w.i32(self.session_epoch);
        }
        w.array_len("FetchRequest.topics", flexible, self.topics.len())?;
        for topic in &self.topics {
            topic.write(w, version)?;
        }
        if version >= 7 {
            w.array_len("FetchRequest.forgotten_topics_data", flexible, self.forgotten_topics_data.len())?;
            for topic in &self.forgotten_topics_data {
                topic.write(w, version)?;
            }
        } else if !self.forgotten_topics_data.is_empty() {
            return Err(EncodeError::not_in_version("FetchRequest.forgotten_topics_data", version));
        }
        if version >= 11 {
            w.string("FetchRequest.rack_id", flexible, &self.rack_id)?;
        }
        if flexible {
            w.uvarint(u32::from(self.cluster_id.is_some()) + u32::from(replica_state));
            if let Some(cluster_id) = &self.cluster_id {
                w.tagged(0, |w| w.string("FetchRequest.cluster_id", true, cluster_id))?;
            }
            if replica_state {
                w.tagged(1, |w| {
                    self.replica_state.write(w);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl Request for FetchRequest {
    const API_KEY: ApiKey = ApiKey::Fetch;
    type Response = FetchResponse;
}

impl ReplicaState {
    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let replica_id = r.i32("ReplicaState.replica_id")?;
        let replica_epoch = r.i64("ReplicaState.replica_epoch")?;
        r.skip_tags("ReplicaState")?;
        Ok(ReplicaState { replica_id, replica_epoch })
    }

    fn write(&self, w: &mut Writer) {
        w.i32(self.replica_id);
        w.i64(self.replica_epoch);
        w.uvarint(0);
    }
}

impl FetchTopic {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let (topic, topic_id) = if version >= TOPIC_IDS {
            (Str::new(), r.uuid("FetchTopic.topic_id")?)
        } else {
            (r.string("FetchTopic.topic", flexible)?, Uuid::ZERO)
        };
        // Version 0 has the smallest partitions: index, offset, size.
        let partitions =
            r.array("FetchTopic.partitions", flexible, const { smallest::<FetchPartition>(16) }, |r| {
                FetchPartition::read(r, version)
            })?;
        if flexible {
            r.skip_tags("FetchTopic")?;
        }
        Ok(FetchTopic { topic, topic_id, partitions })
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        if version >= TOPIC_IDS {
            w.uuid(&self.topic_id);
        } else {
            w.string("FetchTopic.topic", flexible, &self.topic)?;
        }
        w.array_len("FetchTopic.partitions", flexible, self.partitions.len())?;
        for partition in &self.partitions {
            partition.write(w, version)?;
        }
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

impl FetchPartition {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut it = FetchPartition { partition: r.i32("FetchPartition.partition")?, ..Default::default() };
        if version >= 9 {
            it.current_leader_epoch = r.i32("FetchPartition.current_leader_epoch")?;
        }
        it.fetch_offset = r.i64("FetchPartition.fetch_offset")?;
        if version >= 12 {
            it.last_fetched_epoch = r.i32("FetchPartition.last_fetched_epoch")?;
        }
        if version >= 5 {
            it.log_start_offset = r.i64("FetchPartition.log_start_offset")?;
        }
        it.partition_max_bytes = r.i32("FetchPartition.partition_max_bytes")?;
        if version >= FLEXIBLE {
            r.tags("FetchPartition", |r, tag| {
                match tag {
                    0 if version >= 17 => {
                        it.replica_directory_id = r.uuid("FetchPartition.replica_directory_id")?
                    }
                    1 if version >= 18 => it.high_watermark = r.i64("FetchPartition.high_watermark")?,
                    _ => return Ok(false),
                }
                Ok(true)
            })?;
        }
        Ok(it)
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        w.i32(self.partition);
        if version >= 9 {
            w.i32(self.current_leader_epoch);
        }
        w.i64(self.fetch_offset);
        if version >= 12 {
            w.i32(self.last_fetched_epoch);
        } else if self.last_fetched_epoch != -1 {
            return Err(EncodeError::not_in_version("FetchPartition.last_fetched_epoch", version));
        }
        if version >= 5 {
            w.i64(self.log_start_offset);
        }
        w.i32(self.partition_max_bytes);
        if version >= FLEXIBLE {
            let directory = version >= 17 && !self.replica_directory_id.is_zero();
            let high_watermark = version >= 18 && self.high_watermark != i64::MAX;
            w.uvarint(u32::from(directory) + u32::from(high_watermark));
            if directory {
                w.tagged(0, |w| {
                    w.uuid(&self.replica_directory_id);
                    Ok(())
                })?;
            }
            if high_watermark {
                w.tagged(1, |w| {
                    w.i64(self.high_watermark);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl ForgottenTopic {
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let flexible = version >= FLEXIBLE;
        let (topic, topic_id) = if version >= TOPIC_IDS {
            (Str::new(), r.uuid("ForgottenTopic.topic_id")?)
        } else {
            (r.string("ForgottenTopic.topic", flexible)?, Uuid::ZERO)
        };
        let partitions =
            r.array("ForgottenTopic.partitions", flexible, 4, |r| r.i32("ForgottenTopic.partitions"))?;
        if flexible {
            r.skip_tags("ForgottenTopic")?;
        }
        Ok(ForgottenTopic { topic, topic_id, partitions })
    }

    fn write(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let flexible = version >= FLEXIBLE;
        if version >= TOPIC_IDS {
            w.uuid(&self.topic_id);
        } else {
            w.string("ForgottenTopic.topic", flexible, &self.topic)?;
        }
        w.array_len("ForgottenTopic.partitions", flexible, self.partitions.len())?;
        self.partitions.iter().for_each(|partition| w.i32(*partition));
        if flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}
