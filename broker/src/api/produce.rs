//! Produce, in two stages.
//!
//! *Begin* runs in the connection's reader: the request is decoded in place, each partition's batch is checked on
//! this core, and the batches are handed to the shards that own their partitions, where their order is fixed. Then
//! the connection reads on. *Finish* runs when the answer's turn comes: it awaits that the batches are where `acks` wants
//! them (`partition::Committed`).

use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::{wall_clock_ms, worked, yield_if_needed};
use corelog_storage::LogId;
use corelog_wire::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use corelog_wire::records::{
    NO_TIMESTAMP, ProduceError, ProduceRules, Validated, validate_if_short, validate_produce,
};
use corelog_wire::{ErrorCode, Reader, RequestHeader};

use super::brokers::LeaderHints;
use super::context::{Context, decode, encode};
use super::unbuilt::Unbuilt;
use crate::call::Reply;
use crate::controller::{TopicImage, is_internal};
use crate::ids::ShardId;
use crate::net::request::{Begun, CloseReason, Outcome};
use crate::partition::{Acks, Committed, Refusal, Route};
use crate::shard::Shard;

/// First version whose answer says who leads the partitions that it refuses (KIP-951).
const LEADER_HINTS_FROM: i16 = 10;
/// `acks` that wants all replicas in sync to have a batch.
const ALL: i16 = -1;
/// The client id of Kafka's own administration, which alone may write internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Where in the answer a batch is told of: its topic's place, and its partition's in there.
type Slot = (usize, usize);

/// A batch that was checked.
struct Batch {
    slot: Slot,
    log: LogId,
    bytes: Bytes,
    log_append_time_ms: i64,
}

/// What became of one batch.
struct Done {
    slot: Slot,
    result: Result<Stored, Refusal>,
}

/// Where a batch is.
struct Stored {
    base_offset: i64,
    log_start_offset: i64,
    log_append_time_ms: i64,
}

/// The first stage. Returns the second.
pub async fn begin(context: Context, header: RequestHeader, mut reader: Reader) -> Begun {
    let (key, version) = (header.api_key, header.api_version);
    let request: ProduceRequest = match decode(&mut reader, version) {
        Ok(request) => request,
        Err(reason) => return Begun::close(key, reason),
    };
    let acks = request.acks;
    let (mut response, batches) = check(&context, request).await;
    let dispatched = dispatch(&context.shard, batches, Acks::from_request(acks)).await;
    let (shard, listener) = (context.shard.clone(), context.connection.listener);
    let made_bytes = memory(&response);
    let begun = Begun::new(key, async move {
        for dispatched in dispatched {
            for done in dispatched.wait().await {
                settle(&mut response, done);
            }
        }
        if version >= LEADER_HINTS_FROM {
            hint(&shard, listener, &mut response);
        }
        shard.metrics.errors(&response);
        if acks != 0 {
            return encode(&response, version, header.correlation_id);
        }
        // There is no answer to put an error in: Kafka closes the connection, so that the client notices.
        let failed = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .find(|partition| partition.error_code != 0);
        match failed {
            None => Outcome::Silence,
            Some(partition) => Outcome::Close(CloseReason::SilentProduceFailed(
                ErrorCode(partition.error_code).message().into(),
            )),
        }
    });
    Begun { made_bytes, ..begun }
}

/// What an answer takes, its texts included.
fn memory(response: &ProduceResponse) -> usize {
    let error = |error: &BatchIndexAndErrorMessage| {
        size_of_val(error) + error.batch_index_error_message.as_ref().map_or(0, |text| text.len())
    };
    let partition = |answer: &PartitionProduceResponse| {
        size_of_val(answer)
            + answer.error_message.as_ref().map_or(0, |text| text.len())
            + answer.record_errors.iter().map(error).sum::<usize>()
    };
    let topic = |topic: &TopicProduceResponse| {
        size_of_val(topic) + topic.partition_responses.iter().map(partition).sum::<usize>()
    };
    response.responses.iter().map(topic).sum()
}

/// Batches by who owns their partitions, in the request's order.
type ByOwner = Vec<(ShardId, Vec<Batch>)>;

/// Checks every batch of the request. What is refused is in the answer already. A request may be 100 MB: the core goes on
/// with other things between its batches, and while one is checked that takes long.
async fn check(context: &Context, request: ProduceRequest) -> (ProduceResponse, ByOwner) {
    let view = context.shard.view();
    let image = &view.image;
    // A batch may not become more than a request could be.
    let decompressed_bytes_max = context.shard.receive_budget.frame_bytes_max();
    let mut batches = ByOwner::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let acks_known = matches!(request.acks, -1..=1);
    let topic_data = request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty());
    for (topic_index, data) in topic_data.enumerate() {
        let by_id = context.api_version >= 13;
        let topic = if by_id { image.topic_by_id(data.topic_id) } else { image.topic(&data.name) };
        let target = match topic {
            _ if !acks_known => Err(ErrorCode::INVALID_REQUIRED_ACKS),
            None if by_id => Err(ErrorCode::UNKNOWN_TOPIC_ID),
            None => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            Some(topic) => {
                let rules = view.config(topic).produce_rules(context.api_version, wall_clock_ms());
                Ok((topic, ProduceRules { decompressed_bytes_max, ..rules }))
            }
        };
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for PartitionProduceData { index, records } in data.partition_data {
            yield_if_needed().await;
            let admitted = match &target {
                Err(code) => Err((*code).into()),
                Ok((topic, rules)) => {
                    let records = records.unwrap_or_default();
                    let checked = match validate_if_short(&records, rules) {
                        Some(checked) => {
                            worked(records.len());
                            checked
                        }
                        None => validate_long(records, *rules).await,
                    };
                    admit(context, topic, index, request.acks, checked)
                }
            };
            let mut answer = not_stored(index);
            match admitted {
                Ok((route, checked)) => {
                    let slot = (topic_index, partitions.len());
                    add(&mut batches, slot, route, checked);
                }
                Err(Refused { why, record_errors }) => {
                    tell(&mut answer, why);
                    answer.record_errors = record_errors;
                }
            }
            partitions.push(answer);
        }
        responses.push(TopicProduceResponse {
            name: topic.map_or(data.name, |topic| topic.name.clone()),
            topic_id: data.topic_id,
            partition_responses: partitions,
        });
    }
    (ProduceResponse { responses, ..Default::default() }, batches)
}

fn not_stored(partition: i32) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index: partition,
        base_offset: -1,
        log_append_time_ms: NO_TIMESTAMP,
        log_start_offset: -1,
        ..Default::default()
    }
}

/// Puts a checked batch with its owner's others.
fn add(
    batches: &mut ByOwner,
    slot: Slot,
    route: Route,
    Validated { batch, log_append_time_ms, .. }: Validated,
) {
    let log_append_time_ms = log_append_time_ms.unwrap_or(NO_TIMESTAMP);
    let batch = Batch { slot, log: route.log, bytes: batch, log_append_time_ms };
    match batches.iter_mut().find(|(owner, _)| *owner == route.owner) {
        Some((_, list)) => list.push(batch),
        None => batches.push((route.owner, vec![batch])),
    }
}

/// Boxed: it is rare, and would make what is moved for every request larger.
fn validate_long(
    records: Bytes,
    rules: ProduceRules,
) -> Pin<Box<dyn Future<Output = Result<Validated, ProduceError>>>> {
    Box::pin(corelog_io::compute(move || validate_produce(&records, &rules)))
}

/// Why a batch is not handed to its partition.
struct Refused {
    why: Refusal,
    record_errors: Vec<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Refused {
        Refused { why: code.into(), record_errors: Vec::new() }
    }
}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Refused {
        Refused { why, record_errors: Vec::new() }
    }
}

impl From<ProduceError> for Refused {
    fn from(error: ProduceError) -> Refused {
        let record_errors = error.record_errors().iter().map(|record| BatchIndexAndErrorMessage {
            batch_index: record.batch_index,
            batch_index_error_message: Some(record.message.as_str().into()),
        });
        Refused {
            why: Refusal { code: ErrorCode(error.error_code()), message: error.to_string() },
            record_errors: record_errors.collect(),
        }
    }
}

/// Where a batch goes, if this client may write there and the batch is right.
fn admit(
    context: &Context,
    topic: &TopicImage,
    partition: i32,
    acks: i16,
    checked: Result<Validated, ProduceError>,
) -> Result<(Route, Validated), Refused> {
    let route = context.shard.with_router(|router| router.route_in(topic, partition))?;
    if is_internal(&topic.name) && context.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(ErrorCode::INVALID_TOPIC_EXCEPTION.into());
    }
    let checked = checked?;
    check_replicas(context, topic, partition, acks, checked.batch.len())?;
    if checked.header.is_transactional() {
        Unbuilt::Transactions.tell(context);
        let message = Unbuilt::Transactions.message().into();
        let why = Refusal { code: ErrorCode::INVALID_TXN_STATE, message };
        return Err(Refused { why, record_errors: Vec::new() });
    }
    context.shard.metrics.produced(checked.header.records_count as u64, checked.batch.len() as u64);
    Ok((route, checked))
}

/// Whether all replicas can take a batch, and as many are in sync as the topic wants for `acks=all`; of a topic that wants more than
/// it has, all of them.
fn check_replicas(
    context: &Context,
    topic: &TopicImage,
    partition: i32,
    acks: i16,
    batch_bytes: usize,
) -> Result<(), Refusal> {
    let Some(found) = topic.partition(partition).filter(|found| found.has_group) else { return Ok(()) };
    let image = context.shard.image();
    for id in found.replicas.iter() {
        let most = image.brokers.get(id).and_then(|broker| broker.batch_bytes_max);
        if let Some(most) = most.filter(|most| *most < batch_bytes) {
            let message = format!(
                "a batch of {batch_bytes} bytes: broker {}, which has a replica of the partition, takes {most} at the most, by \
                 what memory it was given (corelog.memory)",
                id.0
            );
            return Err(Refusal { code: ErrorCode::MESSAGE_TOO_LARGE, message });
        }
    }
    let wanted = context.shard.view().config(topic).min_insync_replicas.min(found.replicas.len());
    if acks == ALL && found.isr.len() < wanted { Err(ErrorCode::NOT_ENOUGH_REPLICAS.into()) } else { Ok(()) }
}

/// The second stage of one shard's batches.
enum Dispatched {
    /// In order on this shard.
    Here(Vec<Ordered>),
    There {
        reply: Option<Reply<Vec<Done>>>,
        slots: Vec<Slot>,
    },
}

/// A batch that is in order in its partition, or was refused there.
struct Ordered {
    slot: Slot,
    result: Result<(Stored, Committed), Refusal>,
}

/// Hands batches to their owners. Their order among the requests of this connection is fixed on return.
async fn dispatch(shard: &Rc<Shard>, by_owner: ByOwner, acks: Acks) -> Vec<Dispatched> {
    let mut dispatched = Vec::with_capacity(by_owner.len());
    for (owner, batches) in by_owner {
        if owner == shard.id {
            dispatched.push(Dispatched::Here(append(shard, batches, acks).await));
            continue;
        }
        let slots = batches.iter().map(|batch| batch.slot).collect();
        let sent = shard
            .send_call(owner, move |shard| async move {
                let ordered = append(&shard, batches, acks).await;
                finish(ordered).await
            })
            .await;
        dispatched.push(Dispatched::There { reply: sent.ok(), slots });
    }
    dispatched
}

impl Dispatched {
    async fn wait(self) -> Vec<Done> {
        match self {
            Dispatched::Here(ordered) => finish(ordered).await,
            Dispatched::There { reply, slots } => {
                let done = match reply {
                    Some(reply) => reply.wait().await.ok(),
                    None => None,
                };
                done.unwrap_or_else(|| {
                    let (code, message) = (ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker is shutting down");
                    let gone = Refusal { code, message: message.into() };
                    slots.into_iter().map(|slot| Done { slot, result: Err(gone.clone()) }).collect()
                })
            }
        }
    }
}

/// On the owning shard: gives each batch its place in its log. A full journal makes appends wait in line one by one;
/// the turn has the whole request wait, or a later request of the same connection would come in between its batches.
async fn append(shard: &Rc<Shard>, batches: Vec<Batch>, acks: Acks) -> Vec<Ordered> {
    let _turn = shard.append_turn.acquire(1).await;
    let mut ordered = Vec::with_capacity(batches.len());
    for Batch { slot, log, bytes, log_append_time_ms } in batches {
        yield_if_needed().await;
        let result = match shard.partitions.get(log) {
            Ok(partition) => partition.append(bytes, acks).await,
            Err(code) => Err(code.into()),
        };
        let result = match result {
            Ok(appended) => {
                let log_append_time_ms = match appended.duplicate_of {
                    // The time that a retried batch was given at first.
                    Some(first) if log_append_time_ms != NO_TIMESTAMP => first,
                    _ => log_append_time_ms,
                };
                let (base_offset, log_start_offset) = (appended.base_offset, appended.log_start_offset);
                Ok((Stored { base_offset, log_start_offset, log_append_time_ms }, appended.committed))
            }
            Err(refusal) => {
                tracing::debug!(%log, message = refusal.message, "append refused");
                Err(refusal)
            }
        };
        ordered.push(Ordered { slot, result });
    }
    ordered
}

/// On the owning shard: awaits that they are committed.
async fn finish(ordered: Vec<Ordered>) -> Vec<Done> {
    let mut done = Vec::with_capacity(ordered.len());
    for Ordered { slot, result } in ordered {
        let result = match result {
            Ok((stored, committed)) => committed.await.map(|()| stored),
            Err(refusal) => Err(refusal),
        };
        done.push(Done { slot, result });
    }
    done
}

fn settle(response: &mut ProduceResponse, Done { slot: (topic, partition), result }: Done) {
    let answer = &mut response.responses[topic].partition_responses[partition];
    match result {
        Ok(stored) => {
            answer.base_offset = stored.base_offset;
            answer.log_start_offset = stored.log_start_offset;
            answer.log_append_time_ms = stored.log_append_time_ms;
        }
        Err(refusal) => tell(answer, refusal),
    }
}

fn tell(answer: &mut PartitionProduceResponse, Refusal { code, message }: Refusal) {
    answer.error_code = code.0;
    answer.error_message = (!message.is_empty()).then(|| message.into());
}

/// Says who leads the partitions that are refused.
fn hint(shard: &Shard, listener: usize, response: &mut ProduceResponse) {
    let mut hints = LeaderHints::new(shard, listener);
    for topic in &mut response.responses {
        for answer in topic.partition_responses.iter_mut().filter(|answer| answer.error_code != 0) {
            answer.current_leader =
                hints.beside(answer.error_code, &topic.name, topic.topic_id, answer.index);
        }
    }
    response.node_endpoints = hints.endpoints;
}
