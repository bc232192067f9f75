//! What a broker says that is to become one of a cluster, and what it is answered ([`super::CallKind::Join`]).
//!
//! The answer to one directory is always the same: it may be lost, and the directory asks again.

use bytes::Bytes;
use corelog_wire::coordinator_records::{value_from_bytes, value_to_bytes};
use corelog_wire::{Message, Uuid, broker_calls};

use crate::config::Endpoint;
use crate::identity::{FOUNDERS_MAX, is_cluster_id};
use crate::ids::{BrokerId, ReplicaId};

/// Why not: the longest text that is told on.
const TEXT_BYTES_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub directory: Uuid,
    /// None: any.
    pub node_id: Option<i32>,
    pub peer: Endpoint,
    pub shards: usize,
    pub rack: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAnswer {
    Joined {
        cluster_id: String,
        node_id: i32,
        /// Its replica of the controller's log.
        replica: ReplicaId,
        /// How many replicas its group began with.
        founders: u32,
    },
    /// Who leads the controller's group is there.
    Ask(Endpoint),
    /// For now: it is to ask again.
    NotNow(String),
    /// For ever, under its config.
    Refused(String),
}

impl JoinRequest {
    pub fn encode(&self) -> Bytes {
        let call = broker_calls::JoinCall {
            directory: self.directory,
            node_id: self.node_id.unwrap_or(-1),
            peer: self.peer.to_string().as_str().into(),
            shards: self.shards as i32,
            rack: self.rack.as_deref().map(Into::into),
        };
        value_to_bytes(&call, broker_calls::JoinCall::MAX_VERSION).expect("it is short")
    }

    pub fn decode(bytes: Bytes) -> Result<JoinRequest, String> {
        let call: broker_calls::JoinCall = value_from_bytes(bytes).map_err(|error| error.to_string())?;
        if call.directory.is_zero() {
            return Err("a broker without a directory wants to join".into());
        }
        let shards = u16::try_from(call.shards).ok().filter(|shards| *shards > 0);
        Ok(JoinRequest {
            directory: call.directory,
            node_id: BrokerId::known(call.node_id).map(|id| id.0),
            peer: Endpoint::parse(&call.peer)?,
            shards: shards.ok_or("a broker with as many shards as none has wants to join")?.into(),
            rack: call.rack.map(|rack| rack.to_string()),
        })
    }
}

impl JoinAnswer {
    pub fn encode(&self) -> Bytes {
        let mut answer = broker_calls::JoinAnswer::default();
        let (outcome, text) = match self {
            JoinAnswer::Joined { cluster_id, node_id, replica, founders } => {
                answer.cluster_id = cluster_id.as_str().into();
                answer.node_id = *node_id;
                answer.replica_id = replica.0 as i64;
                answer.founders = *founders as i32;
                (0, String::new())
            }
            JoinAnswer::Ask(leader) => (1, leader.to_string()),
            JoinAnswer::NotNow(why) => (2, why.clone()),
            JoinAnswer::Refused(why) => (3, why.clone()),
        };
        answer.outcome = outcome;
        answer.text = text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into();
        value_to_bytes(&answer, broker_calls::JoinAnswer::MAX_VERSION).expect("it is short")
    }

    pub fn decode(bytes: Bytes) -> Result<JoinAnswer, String> {
        let answer: broker_calls::JoinAnswer = value_from_bytes(bytes).map_err(|error| error.to_string())?;
        // It goes to the log.
        let text = || {
            let start = &answer.text[..answer.text.floor_char_boundary(TEXT_BYTES_MAX)];
            start.chars().flat_map(char::escape_debug).collect()
        };
        Ok(match answer.outcome {
            0 if is_cluster_id(&answer.cluster_id)
                && answer.node_id >= 0
                && (1..=FOUNDERS_MAX as i32).contains(&answer.founders)
                && answer.replica_id > i64::from(answer.founders) =>
            {
                JoinAnswer::Joined {
                    cluster_id: answer.cluster_id.to_string(),
                    node_id: answer.node_id,
                    replica: ReplicaId(answer.replica_id as u64),
                    founders: answer.founders as u32,
                }
            }
            1 => JoinAnswer::Ask(Endpoint::parse(&answer.text)?),
            2 => JoinAnswer::NotNow(text()),
            3 => JoinAnswer::Refused(text()),
            _ => return Err("an answer to joining that this build does not know".into()),
        })
    }
}
