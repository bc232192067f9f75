//! Produce, in two stages.
//!
//! *Begin* runs in the connection's reader: the request is decoded in place, each partition's batch is checked on
//! this core, and the batches are handed to the shards that own their partitions, where their order is fixed. Then
//! the connection reads on. *Finish* runs when the answer's turn comes: it awaits that the batches are durable.
//! acks=1 waits for the same: on one broker "the leader has it" and "a majority has it" are one statement, and
//! Corelog does not acknowledge what a power cut can take, unless the topic asks for it (`write.caching`).

use std::rc::Rc;

use corelog_io::{wall_clock_ms, worked, yield_if_needed};
use corelog_storage::{AppendBatch, AppendError, BatchKind, Durable, LogId, SequenceError, StorageError};
use corelog_wire::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use corelog_wire::records::{NO_TIMESTAMP, ProduceError, ProduceRules, validate_if_short, validate_produce};
use corelog_wire::{ErrorCode, Message, Reader, RequestHeader};

use super::unbuilt::Unbuilt;
use super::{Begun, Context, decode, encode};
use crate::call::Reply;
use crate::controller::{TopicImage, is_internal};
use crate::net::connection::{CloseReason, Outcome};
use crate::shard::{Shard, ShardId};

/// The client id of Kafka's own administration, which alone may write internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Batches for one shard, each with its place in the answer.
struct Batch {
    place: (usize, usize),
    log: LogId,
    append: AppendBatch,
    log_append_time_ms: i64,
}

/// What became of one batch.
struct Done {
    place: (usize, usize),
    log_append_time_ms: i64,
    result: Result<Offsets, (ErrorCode, String)>,
}

struct Offsets {
    base_offset: i64,
    log_start_offset: i64,
}

/// The first stage. Returns the second.
pub async fn begin(context: Context, header: RequestHeader, mut reader: Reader) -> Begun {
    let (key, version) = (header.api_key, header.api_version);
    let request: ProduceRequest = match decode(&mut reader, version) {
        Ok(request) => request,
        Err(error) => {
            let (api, error) = (ProduceRequest::NAME, error.to_string());
            return Begun::close(key, CloseReason::Malformed { api, version, error });
        }
    };
    let acks = request.acks;
    let (mut response, batches) = check(&context, request).await;
    let pending = dispatch(&context.shard, batches).await;
    let shard = context.shard.clone();
    let made_bytes = memory(&response);
    let begun = Begun::new(key, async move {
        for pending in pending {
            for done in pending.wait().await {
                settle(&mut response, done);
            }
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

/// Checks every batch of the request. What is refused is in the answer already. A request may be 100 MB: the core goes on
/// with other things between its batches, and while one is checked that takes long.
async fn check(context: &Context, request: ProduceRequest) -> (ProduceResponse, Vec<Batch>) {
    let image = context.shard.image();
    // A batch may not become more than a request could be.
    let decompressed_bytes_max = context.shard.receive_budget.frame_bytes_max();
    let mut batches = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    let acks_known = matches!(request.acks, -1..=1);
    let topic_data = request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty());
    for (topic_index, data) in topic_data.enumerate() {
        let by_id = context.api_version >= 13;
        let topic = if by_id { image.topic_by_id(data.topic_id) } else { image.topic(&data.name) };
        let rules = topic.map(|topic| ProduceRules {
            decompressed_bytes_max,
            ..topic.config.produce_rules(context.api_version, wall_clock_ms())
        });
        let mut partitions = Vec::with_capacity(data.partition_data.len());
        for (partition_index, partition) in data.partition_data.into_iter().enumerate() {
            let mut answer = PartitionProduceResponse {
                index: partition.index,
                base_offset: -1,
                log_append_time_ms: NO_TIMESTAMP,
                log_start_offset: -1,
                ..Default::default()
            };
            yield_if_needed().await;
            let refusal = if !acks_known {
                Some(refused(ErrorCode::INVALID_REQUIRED_ACKS))
            } else {
                match topic.zip(rules.as_ref()) {
                    None if by_id => Some(refused(ErrorCode::UNKNOWN_TOPIC_ID)),
                    None => Some(refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
                    Some((topic, rules)) => match check_one(context, topic, rules, partition).await {
                        Ok(mut batch) => {
                            batch.place = (topic_index, partition_index);
                            batches.push(batch);
                            None
                        }
                        Err(refusal) => Some(refusal),
                    },
                }
            };
            if let Some(refusal) = refusal {
                answer.error_code = refusal.code.0;
                answer.error_message = refusal.message.map(Into::into);
                answer.record_errors = refusal.record_errors;
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

struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    record_errors: Vec<BatchIndexAndErrorMessage>,
}

fn refused(code: ErrorCode) -> Refusal {
    Refusal { code, message: None, record_errors: Vec::new() }
}

async fn check_one(
    context: &Context,
    topic: &TopicImage,
    rules: &ProduceRules,
    partition: PartitionProduceData,
) -> Result<Batch, Refusal> {
    if partition.index < 0 || partition.index as usize >= topic.partitions.len() {
        return Err(refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }
    if is_internal(&topic.name) && context.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(refused(ErrorCode::INVALID_TOPIC_EXCEPTION));
    }
    let records = partition.records.unwrap_or_default();
    let checked = match validate_if_short(&records, rules) {
        Some(checked) => {
            worked(records.len());
            checked
        }
        None => {
            let rules = *rules;
            // Boxed: it is rare, and would make what is moved for every batch larger.
            Box::pin(corelog_io::compute(move || validate_produce(&records, &rules))).await
        }
    };
    let checked = checked.map_err(|error: ProduceError| Refusal {
        code: ErrorCode(error.error_code()),
        message: Some(error.to_string()),
        record_errors: error
            .record_errors()
            .iter()
            .map(|record| BatchIndexAndErrorMessage {
                batch_index: record.batch_index,
                batch_index_error_message: Some(record.message.as_str().into()),
            })
            .collect(),
    })?;
    if checked.header.is_transactional() {
        Unbuilt::Transactions.tell(context);
        return Err(Refusal {
            message: Some(Unbuilt::Transactions.message().into()),
            ..refused(ErrorCode::INVALID_TXN_STATE)
        });
    }
    context.shard.metrics.produced(checked.header.records_count as u64, checked.batch.len() as u64);
    Ok(Batch {
        place: (0, 0),
        log: LogId { topic: topic.id, partition: partition.index },
        log_append_time_ms: checked.log_append_time_ms.unwrap_or(NO_TIMESTAMP),
        append: AppendBatch {
            bytes: checked.batch,
            kind: BatchKind::Client,
            leader_epoch: topic.partitions[partition.index as usize].leader_epoch,
        },
    })
}

/// The second stage of one shard's batches.
enum Pending {
    /// In order on this shard; what may be owed is their durability.
    Here(Vec<Ordered>),
    There {
        reply: Option<Reply<Vec<Done>>>,
        places: Vec<(usize, usize)>,
    },
}

struct Ordered {
    place: (usize, usize),
    log_append_time_ms: i64,
    /// Without a [`Durable`]: it is not to be waited for.
    result: Result<(Offsets, Option<Durable>), (ErrorCode, String)>,
}

/// Hands batches to their owners. Their order among the requests of this connection is fixed on return.
async fn dispatch(shard: &Rc<Shard>, batches: Vec<Batch>) -> Vec<Pending> {
    let mut by_owner: Vec<(ShardId, Vec<Batch>)> = Vec::new();
    for batch in batches {
        let owner = shard.owner(batch.log);
        match by_owner.iter_mut().find(|(shard, _)| *shard == owner) {
            Some((_, list)) => list.push(batch),
            None => by_owner.push((owner, vec![batch])),
        }
    }
    let mut pending = Vec::with_capacity(by_owner.len());
    for (owner, batches) in by_owner {
        if owner == shard.id {
            pending.push(Pending::Here(append(shard, batches).await));
            continue;
        }
        let places = batches.iter().map(|batch| batch.place).collect();
        let sent = shard
            .send_call(owner, |shard| async move {
                let ordered = append(&shard, batches).await;
                finish(ordered).await
            })
            .await;
        pending.push(Pending::There { reply: sent.ok(), places });
    }
    pending
}

impl Pending {
    async fn wait(self) -> Vec<Done> {
        match self {
            Pending::Here(ordered) => finish(ordered).await,
            Pending::There { reply, places } => {
                let done = match reply {
                    Some(reply) => reply.wait().await.ok(),
                    None => None,
                };
                done.unwrap_or_else(|| {
                    let gone = (ErrorCode::NOT_LEADER_OR_FOLLOWER, "the broker is shutting down".to_string());
                    places
                        .into_iter()
                        .map(|place| Done {
                            place,
                            log_append_time_ms: NO_TIMESTAMP,
                            result: Err(gone.clone()),
                        })
                        .collect()
                })
            }
        }
    }
}

/// On the owning shard: gives each batch its place in its log. A full journal makes appends wait in line one by one;
/// the turn has the whole request wait, or a later request of the same connection would come in between its batches.
async fn append(shard: &Rc<Shard>, batches: Vec<Batch>) -> Vec<Ordered> {
    let _turn = shard.append_turn.acquire(1).await;
    let mut ordered = Vec::with_capacity(batches.len());
    for batch in batches {
        yield_if_needed().await;
        let mut log_append_time_ms = batch.log_append_time_ms;
        let result = match shard.log(batch.log) {
            None => Err((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, String::new())),
            Some(log) => match log.append(batch.append).await {
                Ok(appended) => {
                    // The time that a retried batch was given at first.
                    if appended.duplicate && log_append_time_ms != NO_TIMESTAMP {
                        log_append_time_ms = appended.max_timestamp;
                    }
                    let offsets = Offsets {
                        base_offset: appended.base_offset,
                        log_start_offset: appended.log_start_offset,
                    };
                    Ok((offsets, (!appended.cached).then_some(appended.durable)))
                }
                Err(error) => {
                    let (code, message) = append_error(&error);
                    tracing::debug!(log = %batch.log, %message, "append refused");
                    Err((code, message))
                }
            },
        };
        ordered.push(Ordered { place: batch.place, log_append_time_ms, result });
    }
    ordered
}

/// On the owning shard: awaits that they are durable.
async fn finish(ordered: Vec<Ordered>) -> Vec<Done> {
    let mut done = Vec::with_capacity(ordered.len());
    for batch in ordered {
        let result = match batch.result {
            Err(error) => Err(error),
            Ok((offsets, None)) => Ok(offsets),
            Ok((offsets, Some(durable))) => match durable.await {
                Ok(()) => Ok(offsets),
                Err(error) => Err((ErrorCode::KAFKA_STORAGE_ERROR, error.to_string())),
            },
        };
        done.push(Done { place: batch.place, log_append_time_ms: batch.log_append_time_ms, result });
    }
    done
}

fn settle(response: &mut ProduceResponse, done: Done) {
    let (topic, partition) = done.place;
    let answer = &mut response.responses[topic].partition_responses[partition];
    match done.result {
        Ok(offsets) => {
            answer.base_offset = offsets.base_offset;
            answer.log_start_offset = offsets.log_start_offset;
            answer.log_append_time_ms = done.log_append_time_ms;
        }
        Err((code, message)) => {
            answer.error_code = code.0;
            answer.error_message = (!message.is_empty()).then(|| message.into());
        }
    }
}

/// The one place where the log's refusals become Kafka's.
pub fn append_error(error: &AppendError) -> (ErrorCode, String) {
    let code = match error {
        AppendError::Sequence(SequenceError::OutOfOrder { .. }) => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        AppendError::Sequence(SequenceError::StaleEpoch { .. }) => ErrorCode::INVALID_PRODUCER_EPOCH,
        AppendError::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        AppendError::Invalid(_) => ErrorCode::CORRUPT_MESSAGE,
        AppendError::StaleLeaderEpoch { .. } => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        AppendError::NoQuorum { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::Storage(StorageError::LogDeleted(_)) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        AppendError::DiskFull { .. } | AppendError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    };
    (code, error.to_string())
}
