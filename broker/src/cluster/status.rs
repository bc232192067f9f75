//! What a broker says of itself to whoever asks ([`super::CallKind::Status`]): before it belongs to a cluster, and afterwards.

use bytes::Bytes;
use corelog_wire::broker_calls::BrokerStatus;
use corelog_wire::broker_calls::broker_status::ClusterFounder;
use corelog_wire::coordinator_records::{value_from_bytes, value_to_bytes};
use corelog_wire::{Message, Uuid};

use crate::config::Endpoint;
use crate::identity::{Belongs, FOUNDERS_MAX, Founder, Identity, check_founders, is_cluster_id};
use crate::ids::{BrokerId, ReplicaId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub directory: Uuid,
    /// What it has, or wants; none: any.
    pub node_id: Option<i32>,
    /// As its config has them.
    pub seeds: Vec<Endpoint>,
    pub standing: Standing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to no cluster, and has heard of none.
    Empty,
    /// It belongs to no cluster, and has heard of one.
    Wary,
    Member {
        cluster_id: String,
        /// As far as it knows them: who joined does not.
        founders: Vec<Founder>,
    },
}

/// What a broker that belongs to a cluster answers, from the moment that it can be asked.
pub fn answer(identity: &Identity, seeds: &[Endpoint]) -> Bytes {
    let founders = match &identity.belongs {
        Belongs::Founder(founders) => founders.clone(),
        Belongs::Alone | Belongs::Joined { .. } => Vec::new(),
    };
    let status = Status {
        directory: identity.directory,
        node_id: Some(identity.node_id),
        seeds: seeds.to_vec(),
        standing: Standing::Member { cluster_id: identity.cluster_id.clone(), founders },
    };
    status.encode()
}

impl Status {
    pub fn encode(&self) -> Bytes {
        let (standing, cluster_id, founders) = match &self.standing {
            Standing::Empty => (0, None, [].as_slice()),
            Standing::Wary => (1, None, [].as_slice()),
            Standing::Member { cluster_id, founders } => (2, Some(cluster_id), founders.as_slice()),
        };
        let founder = |founder: &Founder| ClusterFounder {
            node_id: founder.node_id,
            directory: founder.directory,
            replica_id: founder.replica.0 as i64,
            peer: founder.peer.to_string().as_str().into(),
        };
        let status = BrokerStatus {
            directory: self.directory,
            node_id: self.node_id.unwrap_or(-1),
            seeds: self.seeds.iter().map(|seed| seed.to_string().as_str().into()).collect(),
            standing,
            cluster_id: cluster_id.map(|id| id.as_str().into()),
            founders: founders.iter().map(founder).collect(),
        };
        value_to_bytes(&status, BrokerStatus::MAX_VERSION).expect("it is short")
    }

    /// Of what another broker said.
    pub fn decode(bytes: Bytes) -> Result<Status, String> {
        let status: BrokerStatus = value_from_bytes(bytes).map_err(|error| error.to_string())?;
        if status.directory.is_zero() {
            return Err("a status without a directory".into());
        }
        if status.seeds.len() > FOUNDERS_MAX {
            return Err(format!("a status with {} seeds", status.seeds.len()));
        }
        let standing = match (status.standing, status.cluster_id) {
            (0, None) => Standing::Empty,
            (1, None) => Standing::Wary,
            (2, Some(id)) if is_cluster_id(&id) => {
                let founders: Vec<Founder> =
                    status.founders.into_iter().map(founder).collect::<Result<_, String>>()?;
                if !founders.is_empty() {
                    check_founders(&founders)?;
                }
                Standing::Member { cluster_id: id.to_string(), founders }
            }
            _ => return Err("a status that this build does not know".into()),
        };
        Ok(Status {
            directory: status.directory,
            node_id: BrokerId::known(status.node_id).map(|id| id.0),
            seeds: status.seeds.iter().map(|seed| Endpoint::parse(seed)).collect::<Result<_, _>>()?,
            standing,
        })
    }
}

fn founder(founder: ClusterFounder) -> Result<Founder, String> {
    Ok(Founder {
        node_id: founder.node_id,
        directory: founder.directory,
        replica: ReplicaId(founder.replica_id as u64),
        peer: Endpoint::parse(&founder.peer)?,
    })
}
