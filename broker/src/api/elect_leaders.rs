//! ElectLeaders (KIP-183, KIP-460): partitions are to be led by the replicas that are preferred.
//!
//! A group elects whom it likes; so the leader that there is hands its group over. Where there is none the group's majority is
//! away, and no request can make up for that: an unclean election would lose what was acknowledged.

use std::time::Duration;

use corelog_io::{now, sleep, yield_if_needed};
use corelog_storage::LogId;
use corelog_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use corelog_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::{Context, told};
use crate::audit;
use crate::cluster::handover;
use crate::controller::image::PartitionImage;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// How often it is looked whether a partition is led as it should be.
const LOOK: Duration = Duration::from_millis(20);
/// For so long leaders are asked, however short the request's time is.
const ASK_MIN: Duration = Duration::from_secs(1);

pub async fn handle(context: Context, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if ![PREFERRED, UNCLEAN].contains(&request.election_type) {
        return ElectLeadersResponse { error_code: ErrorCode::INVALID_REQUEST.0, ..Default::default() };
    }
    let is_for_all = request.topic_partitions.is_none();
    let named = named(&context, request).await;
    let details =
        audit::list(named.partitions.iter().map(|(topic, partition)| format!("{topic}-{partition}")));
    let change = context.change("elect leaders", "", if is_for_all { "all".into() } else { details });
    let begun = now();
    let until = begun + Duration::from_millis(named.timeout_ms);
    let mut asked = Vec::with_capacity(named.partitions.len());
    for (topic, partition) in named.partitions {
        let outcome = match named.election_type {
            // Each call to a leader that does not answer takes its time.
            PREFERRED if now() > until.max(begun + ASK_MIN) => Err(ErrorCode::REQUEST_TIMED_OUT),
            PREFERRED => begin(&context, &topic, partition).await,
            _ => unclean(&context, &topic, partition),
        };
        // Who asks for all is told what was done.
        if !(is_for_all && outcome == Err(ErrorCode::ELECTION_NOT_NEEDED)) {
            asked.push((topic, partition, outcome));
        }
    }
    let (mut results, mut failed) = (Vec::<ReplicaElectionResult>::new(), ErrorCode::NONE);
    for (topic, partition_id, outcome) in asked {
        let outcome = match outcome {
            Ok(()) => await_leader(&context, &topic, partition_id, until).await,
            refused => refused,
        };
        let mut result = PartitionResult { partition_id, ..Default::default() };
        if let Err(code) = outcome {
            failed = code;
            (result.error_code, result.error_message) = (code.0, told(code.message().into()));
        }
        match results.last_mut().filter(|last| last.topic == topic) {
            Some(last) => last.partition_result.push(result),
            None => results.push(ReplicaElectionResult { topic, partition_result: vec![result] }),
        }
    }
    change.done_with_code(failed);
    ElectLeadersResponse { replica_election_results: results, ..Default::default() }
}

struct Named {
    election_type: i8,
    timeout_ms: u64,
    partitions: Vec<(Str, i32)>,
}

/// All, where none are named.
async fn named(context: &Context, request: ElectLeadersRequest) -> Named {
    let mut partitions = Vec::new();
    match request.topic_partitions {
        Some(topics) => {
            for topic in topics {
                partitions
                    .extend(topic.partitions.into_iter().map(|partition| (topic.topic.clone(), partition)));
            }
        }
        None => {
            for topic in context.shard.image().topics() {
                yield_if_needed().await;
                partitions.extend((0..topic.partition_count()).map(|at| (topic.name.clone(), at)));
            }
        }
    }
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    Named { election_type: request.election_type, timeout_ms, partitions }
}

fn found(context: &Context, topic: &str, partition: i32) -> Result<(LogId, PartitionImage), ErrorCode> {
    let image = context.shard.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    let found = topic.partition(partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    Ok((LogId { topic: topic.id, partition }, found.clone()))
}

fn unclean(context: &Context, topic: &str, partition: i32) -> Result<(), ErrorCode> {
    match found(context, topic, partition)?.1.leader {
        Some(_) => Err(ErrorCode::ELECTION_NOT_NEEDED),
        None => Err(ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE),
    }
}

/// Has the leader hand over.
async fn begin(context: &Context, topic: &str, partition: i32) -> Result<(), ErrorCode> {
    let (log, found) = found(context, topic, partition)?;
    let (Some((to, preferred)), Some(leader)) = (found.wanted().next(), found.leader) else {
        return Err(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
    };
    if leader == preferred {
        return Err(ErrorCode::ELECTION_NOT_NEEDED);
    }
    let image = context.shard.image();
    let is_there = image.brokers.get(&preferred).is_some_and(|broker| !broker.fenced);
    if !is_there || !found.isr.contains(&preferred) {
        return Err(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE);
    }
    let shard = &context.shard;
    handover::ask(shard, leader, log, to).await.map_err(|_| ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE)
}

async fn await_leader(
    context: &Context,
    topic: &str,
    partition: i32,
    until: corelog_io::Instant,
) -> Result<(), ErrorCode> {
    loop {
        let (_, found) = found(context, topic, partition)?;
        if found.leader.is_some() && found.leader == found.wanted().next().map(|(_, broker)| broker) {
            return Ok(());
        }
        if now() >= until || context.shard.is_stopping() {
            return Err(ErrorCode::REQUEST_TIMED_OUT);
        }
        sleep(LOOK).await;
    }
}
