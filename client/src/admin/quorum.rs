//! The controller's group: who votes in it, who leads it, how far each is (KIP-595).

use super::{Admin, only};
use crate::core::{Core, Lane};
use crate::error::{Error, Result};
use corelog_wire::messages::DescribeQuorumRequest;
use corelog_wire::messages::describe_quorum_request::{PartitionData, TopicData};
use corelog_wire::messages::describe_quorum_response;
use std::rc::Rc;

/// The topic of the controller's log; it has one partition.
const CONTROLLER_TOPIC: &str = "__cluster_metadata";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The broker that leads it.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub high_watermark: i64,
    pub voters: Vec<QuorumReplica>,
    /// Who follows without a vote.
    pub observers: Vec<QuorumReplica>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    pub broker: i32,
    /// None where the leader does not know it.
    pub log_end_offset: Option<i64>,
    /// When it last had all that the leader had, in milliseconds since 1970.
    pub last_caught_up_ms: Option<i64>,
}

impl Admin {
    pub async fn describe_quorum(&self) -> Result<Quorum> {
        self.handle.call(async |core| quorum(&core).await).await
    }
}

async fn quorum(core: &Rc<Core>) -> Result<Quorum> {
    let what = "describe the controller's group";
    let partitions = vec![PartitionData { partition_index: 0 }];
    let topics = vec![TopicData { topic_name: CONTROLLER_TOPIC.into(), partitions }];
    let request = DescribeQuorumRequest { topics };
    core.retry(what, core.deadline(), async || {
        let response = core.any(Lane::SHARED).await?.call(&request).await?;
        Error::check_with(response.error_code, response.error_message.as_deref(), || what.into())?;
        let partitions = response.topics.into_iter().flat_map(|topic| topic.partitions).map(|told| {
            let message = told.error_message.as_deref();
            let checked = Error::check_with(told.error_code, message, || what.into());
            ((), checked.map(|()| described(told)))
        });
        only(partitions.collect(), || what.into())
    })
    .await
}

fn described(told: describe_quorum_response::PartitionData) -> Quorum {
    let known = |number: i64| Some(number).filter(|number| *number >= 0);
    let replica = |state: describe_quorum_response::ReplicaState| QuorumReplica {
        broker: state.replica_id,
        log_end_offset: known(state.log_end_offset),
        last_caught_up_ms: known(state.last_caught_up_timestamp),
    };
    Quorum {
        leader: Some(told.leader_id).filter(|id| *id >= 0),
        leader_epoch: told.leader_epoch,
        high_watermark: told.high_watermark,
        voters: told.current_voters.into_iter().map(replica).collect(),
        observers: told.observers.into_iter().map(replica).collect(),
    }
}
