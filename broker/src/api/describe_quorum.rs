//! DescribeQuorum (KIP-595, KIP-836): who votes in the controller's group, and how far each is. Its leader knows, and is asked by
//! whichever broker the client came to.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_raft::Progress;
use corelog_wire::messages::Message as _;
use corelog_wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use corelog_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use corelog_wire::{ErrorCode, Reader, Uuid};
use futures_util::FutureExt;

use super::context::Context;
use crate::cluster::CallKind;
use crate::controller::{CONTROLLER_SHARD, CONTROLLER_TOPIC_NAME, Group, Image, Leader};
use crate::ids::{BrokerId, ReplicaId};
use crate::peer::{Callee, Frame, PeerId};
use crate::shard::Shard;

/// The version in which brokers tell each other.
const TOLD_VERSION: i16 = 2;
const CALL_MAX: Duration = Duration::from_secs(2);
/// What the port for brokers is called here.
const PEER_LISTENER: &str = "PEER";

pub async fn handle(context: Context, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let is_the_one = |topic: &corelog_wire::messages::describe_quorum_request::TopicData| {
        &*topic.topic_name == CONTROLLER_TOPIC_NAME
            && topic.partitions.iter().all(|partition| partition.partition_index == 0)
    };
    if !request.topics.iter().all(is_the_one) {
        let topics = request.topics.into_iter().map(|topic| TopicData {
            topic_name: topic.topic_name,
            partitions: (topic.partitions.into_iter())
                .map(|asked| PartitionData {
                    partition_index: asked.partition_index,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                    ..Default::default()
                })
                .collect(),
        });
        return DescribeQuorumResponse { topics: topics.collect(), ..Default::default() };
    }
    let asked = context.shard.on(CONTROLLER_SHARD, |shard| async move { ask(&shard).await }).await;
    asked.unwrap_or_else(|_gone| refused(ErrorCode::BROKER_NOT_AVAILABLE, "the broker is shutting down"))
}

fn refused(code: ErrorCode, message: &str) -> DescribeQuorumResponse {
    DescribeQuorumResponse { error_code: code.0, error_message: Some(message.into()), ..Default::default() }
}

/// From now on other brokers may ask this one, on shard 0.
pub fn serve(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let shard = Rc::downgrade(shard);
    member.carrier.serve(CallKind::Quorum, move |_| {
        let shard = shard.upgrade();
        async move {
            let shard = shard.ok_or("this broker is shutting down")?;
            let known = known(&shard).ok_or("this broker does not lead the controller's group")?;
            let bytes = known.to_bytes(TOLD_VERSION).map_err(|error| error.to_string())?;
            Ok(Frame::from(bytes))
        }
        .boxed_local()
    });
}

/// On shard 0.
async fn ask(shard: &Rc<Shard>) -> DescribeQuorumResponse {
    if let Some(known) = known(shard) {
        return known;
    }
    let leader = shard.controller().ok().map(|controller| controller.leader(&shard.image()));
    let (Some(Leader::Other(leader)), Some(member)) = (leader, &shard.member) else {
        return refused(ErrorCode::NOT_LEADER_OR_FOLLOWER, "nobody is known to lead the controller's group");
    };
    let callee = Callee::Peer(PeerId { broker: leader, shard: CONTROLLER_SHARD });
    let called = member.carrier.call(callee, CallKind::Quorum, Frame::from(Bytes::new()), CALL_MAX).await;
    let told = called.map_err(|error| error.to_string()).and_then(|answer| {
        let mut reader = Reader::new(answer.head.clone());
        DescribeQuorumResponse::decode(&mut reader, TOLD_VERSION).map_err(|error| error.to_string())
    });
    told.unwrap_or_else(|error: String| refused(ErrorCode::NOT_LEADER_OR_FOLLOWER, &error))
}

/// What this broker knows as the leader; or as the only one that there is.
fn known(shard: &Shard) -> Option<DescribeQuorumResponse> {
    let (image, controller) = (shard.image(), shard.controller().ok().filter(|it| it.decides())?);
    let now_ms = corelog_io::wall_clock_ms();
    let (epoch, end, voters, observers) = match controller.group() {
        None => {
            let own = state(shard.broker(), shard.identity.directory, image.end_offset, now_ms);
            (0, image.end_offset, vec![own], Vec::new())
        }
        Some(group) => {
            let (voters, observers) = states(shard, &image, group, now_ms)?;
            let end = group.replica.log().high_watermark();
            (group.replica.led().epoch(), end, voters, observers)
        }
    };
    let partition = PartitionData {
        partition_index: 0,
        leader_id: shard.broker().0,
        leader_epoch: epoch,
        high_watermark: end,
        current_voters: voters,
        observers,
        ..Default::default()
    };
    let topics = vec![TopicData { topic_name: CONTROLLER_TOPIC_NAME.into(), partitions: vec![partition] }];
    let nodes = image.brokers.values().filter_map(|broker| {
        let peer = broker.peer.as_ref()?;
        let listener = Listener { name: PEER_LISTENER.into(), host: peer.host.clone(), port: peer.port };
        Some(Node { node_id: broker.id.0, listeners: vec![listener] })
    });
    Some(DescribeQuorumResponse { topics, nodes: nodes.collect(), ..Default::default() })
}

fn state(broker: BrokerId, directory: Uuid, log_end_offset: i64, caught_up_ms: i64) -> ReplicaState {
    ReplicaState {
        replica_id: broker.0,
        replica_directory_id: directory,
        log_end_offset,
        last_fetch_timestamp: caught_up_ms,
        last_caught_up_timestamp: caught_up_ms,
    }
}

/// Voters, and who learns. Offsets are of what is committed, as far as a replica has it: replication counts entries.
fn states(
    shard: &Shard,
    image: &Image,
    group: &Group,
    now_ms: i64,
) -> Option<(Vec<ReplicaState>, Vec<ReplicaState>)> {
    let replica = &group.replica;
    let (membership, followers) = (replica.membership()?, replica.followers());
    let (committed, end) = (replica.log().commit_index().0, replica.log().high_watermark());
    let of = |id: &ReplicaId| {
        let broker = image.brokers.values().find(|broker| broker.controller_replica == Some(*id))?;
        let progress = followers.iter().find(|progress| progress.replica == *id);
        let lacks = |progress: &Progress| committed.saturating_sub(progress.matched.0);
        let lacking = if broker.id == shard.broker() { Some(0) } else { progress.map(lacks) };
        let is_whole = lacking == Some(0);
        let has = lacking.map_or(-1, |lacking| (end - lacking as i64).max(0));
        Some(state(broker.id, broker.directory, has, if is_whole { now_ms } else { -1 }))
    };
    let voters = membership.voters.iter().filter_map(of).collect();
    let observers = membership.learners.iter().filter_map(of).collect();
    Some((voters, observers))
}
