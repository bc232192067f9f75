//! Fetch: reads on their owners' cores the partitions that may have something to tell, and if that is less than
//! `min_bytes`, waits until an owner has news and reads again, until `max_wait_ms` have passed. Neither an idle consumer
//! nor an idle partition costs anything.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::Instant;
use corelog_io::sync::{Permit, Semaphore};
use corelog_wire::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use corelog_wire::records::{self, DownConvertLimits, LegacyFormat};
use corelog_wire::{ErrorCode, Reader, RequestHeader, frame};
use futures_util::future::{Either, join_all, select};

use super::brokers::LeaderHints;
use super::context::{Context, decode};
use crate::fetch::{self, Asked, GRANT_MIN, Got, Host, List, ListId, Plan, ReadRoom};
use crate::net::request::{CloseReason, Outcome};
use crate::partition::Isolation;
use crate::shard::Shard;

/// With something to read and no room for it a response waits at the least this long, whatever `max_wait_ms` says: an
/// answer without records would only be asked for again.
const ROOM_WAIT_MIN: Duration = Duration::from_secs(1);
/// Requests that name so many partitions take turns.
const MANY_PARTITIONS: usize = 1000;
/// What a fetch works with, for each partition that it names.
const PARTITION_BYTES: usize = 512;
/// No version takes less to name one.
const PARTITION_BYTES_MIN: usize = 16;
/// Grants from this many bytes on are dealt among the shards.
const DEALT_FROM: u64 = 1 << 20;
/// Below this version responses carry message format 0 or 1 (KIP-98).
const V2_BATCHES_FROM: i16 = 4;
/// Below this version responses carry message format 0.
const V1_MESSAGES_FROM: i16 = 2;
/// From this version on topics are named by id (KIP-516).
const TOPIC_IDS_FROM: i16 = 13;
/// First version whose answer says who leads the partitions that it refuses (KIP-951).
const LEADER_HINTS_FROM: i16 = 16;
/// Clients fetch with this id. Greater ones are of brokers, and none copies its log by Fetch here.
const CONSUMER_REPLICA_ID: i32 = -1;
/// What down-conversion may make of one partition's batches when it decompresses them.
const DOWN_CONVERT_BYTES_MAX: usize = 64 << 20;

pub async fn handle(mut context: Context, header: RequestHeader, mut reader: Reader) -> Outcome {
    let (version, correlation_id) = (header.api_version, header.correlation_id);
    // What it decodes to is there at once.
    let mut turn = Turn::new(&context.shard, reader.remaining() / PARTITION_BYTES_MIN);
    turn.enter().await;
    let request: FetchRequest = match decode(&mut reader, version) {
        Ok(request) => request,
        Err(reason) => return Outcome::Close(reason),
    };
    // A fetch may wait for as long as its client likes: it keeps nothing of the request's bytes.
    context.client_id = None;
    drop((header, reader));
    let named = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    turn.is_of(named);
    let (response, held) = fetch(&context, request, &mut turn).await;
    context.shard.metrics.errors(&response);
    match frame::response(&response, version, correlation_id) {
        Ok(frame) => Outcome::Answer { frame, held },
        Err(error) => Outcome::Close(CloseReason::Encode(error.to_string())),
    }
}

async fn fetch(
    context: &Context,
    mut request: FetchRequest,
    turn: &mut Turn,
) -> (FetchResponse, Option<Permit>) {
    let shard = &context.shard;
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let replica = request.replica_id.max(request.replica_state.replica_id);
    let isolation = Isolation::from_level(request.isolation_level);
    let asked = match isolation {
        _ if replica > CONSUMER_REPLICA_ID => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        None => Err(ErrorCode::INVALID_REQUEST),
        Some(isolation) => Ok(isolation),
    };
    let now = corelog_io::now();
    let mut limits = Limits {
        max_bytes: (request.max_bytes.max(0) as usize).min(shard.config().fetch_bytes_max),
        min_bytes: request.min_bytes.max(0) as usize,
        begun: now,
        deadline: now + Duration::from_millis(request.max_wait_ms.max(0) as u64),
    };
    if asked.is_err() {
        request.session_epoch = fetch::EPOCH_FINAL;
    }
    let client: Rc<dyn Any> = context.connection.clone();
    let mut plan = match shard.fetching.sessions.begin(&request, by_id, &client, now) {
        Ok(plan) => plan,
        Err(code) => return (FetchResponse { error_code: code.0, ..Default::default() }, None),
    };
    if let Some(wait_max) = plan.wait_max {
        limits.deadline = limits.deadline.min(now + wait_max);
    }
    drop(request);
    context.room.give_back();
    let (got, held) = match asked {
        // In each partition: before version 7 there is no error for the whole.
        Err(code) => (plan.list.iter().map(|(place, _)| Got::refused(place, code)).collect(), None),
        Ok(isolation) => gather(shard, &mut plan.list, isolation, limits, turn).await,
    };
    let isolation = asked.unwrap_or(Isolation::ReadUncommitted);
    let response = respond(context, &mut plan, got, isolation).await;
    plan.finish();
    (response, held)
}

/// What a request that names thousands of partitions works with is many times its bytes: such requests take turns by it, while
/// they do not wait for news.
struct Turn {
    line: Semaphore,
    bytes: u64,
    held: Option<Permit>,
}

impl Turn {
    /// Of a fetch that names so many at the most.
    fn new(shard: &Shard, named: usize) -> Turn {
        Turn { line: shard.fetching.large.clone(), bytes: Turn::bytes(named), held: None }
    }

    fn bytes(named: usize) -> u64 {
        if named < MANY_PARTITIONS { 0 } else { (named * PARTITION_BYTES) as u64 }
    }

    /// It names so many.
    fn is_of(&mut self, named: usize) {
        self.bytes = Turn::bytes(named);
        if let Some(held) = &mut self.held {
            held.release(held.count().saturating_sub(self.bytes));
        }
    }

    async fn enter(&mut self) {
        if self.bytes > 0 {
            self.held = Some(self.line.acquire(self.bytes).await);
        }
    }

    fn leave(&mut self) {
        self.held = None;
    }
}

#[derive(Clone, Copy)]
struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    begun: Instant,
    deadline: Instant,
}

/// Reads until there is enough, an error to tell, or no time left. In the list's order; of what was looked at.
///
/// What is read holds room of the shard's fetch budget ([`fetch::FetchRoom`]) until it is sent. Without room it is still found out whether there
/// is something to read: who polls and has nothing to get waits for no one, and who waits for room holds none.
async fn gather(
    shard: &Rc<Shard>,
    list: &mut List,
    isolation: Isolation,
    limits: Limits,
    turn: &mut Turn,
) -> (Vec<Got>, Option<Permit>) {
    let host: Rc<dyn Host> = shard.clone();
    let (id, bell) = list.at_home(&host);
    let room = &shard.fetching.room;
    let wait_for_room_until = limits.deadline.max(limits.begun + ROOM_WAIT_MIN);
    let mut now = limits.begun;
    let mut got: Vec<Got> = Vec::new();
    // What there was waited for.
    let mut granted: Option<Permit> = None;
    loop {
        let may_wait = now < limits.deadline && !shard.is_stopping();
        let news = bell.listen();
        shard.with_router(|router| list.resolve(router));
        let held = granted.take().or_else(|| room.grant(limits.max_bytes));
        let most = held.as_ref().map(|held| held.count().min(limits.max_bytes as u64));
        // A first batch may be larger than what is asked for (KIP-74), and none is read that there is no room for: hundreds
        // that read one to find that out would hold them all at once.
        let first_batch = held.as_ref().map_or(0, |held| room.batch_bytes_max(held));
        let enough = if may_wait { limits.min_bytes } else { 0 };
        let new = ask_owners(shard, list, id, isolation, most, first_batch, enough).await;
        let read: usize = new.iter().map(|got| got.len).sum();
        got = merge(list, new, got);
        let total = keep_to(most.unwrap_or(0) as usize, list, &mut got);
        let first = got.iter().find(|got| got.len > 0 || got.lacking > 0);
        let mut lacking = first.map(|got| got.lacking as u64).filter(|lacking| *lacking > 0);
        if held.is_none() && got.iter().any(|got| got.is_cut) {
            lacking = Some(GRANT_MIN);
        }
        // Waiting brings no more of what the limits, or this broker's own grant, have cut off.
        let is_cut = total > 0 && got.iter().any(|got| got.is_cut);
        let enough = read >= limits.min_bytes || is_cut || got.iter().any(Got::is_telling) || list.is_empty();
        match lacking {
            None if enough || !may_wait => {
                let held = held.map(|mut held| {
                    held.release(held.count().saturating_sub(total as u64));
                    held
                });
                return (got, held.filter(|_| total > 0));
            }
            // All of it is read again.
            _ => got.iter_mut().for_each(Got::leave_out),
        }
        drop(held);
        let stopping = std::pin::pin!(shard.stopping());
        match lacking {
            None => {
                // A shard that stops does not wait for consumers that wait.
                let late = std::pin::pin!(corelog_io::sleep_until(limits.deadline));
                turn.leave();
                select(news, select(late, stopping)).await;
                turn.enter().await;
            }
            Some(bytes) => {
                // In its turn: what it has found out is as much as it works with.
                let late = std::pin::pin!(corelog_io::sleep_until(wait_for_room_until));
                match select(std::pin::pin!(room.wait(bytes)), select(late, stopping)).await {
                    Either::Left((room, _)) => granted = Some(room),
                    // There is none: what could be said without records is the answer.
                    Either::Right(_) => return (got, None),
                }
            }
        }
        now = corelog_io::now();
    }
}

/// Has the owners read what may have news, up to `most` bytes of it; nothing, where there is no room. Beside it what is
/// refused without asking them.
async fn ask_owners(
    shard: &Rc<Shard>,
    list: &mut List,
    id: ListId,
    isolation: Isolation,
    most: Option<u64>,
    first_batch: usize,
    enough: usize,
) -> Vec<Got> {
    let all = list.shares().map(|share| share.bytes).sum();
    let reads = list.shares().map(|part| {
        let (owner, changes) = (part.owner, std::mem::take(&mut part.changes));
        let given = std::mem::take(&mut part.given);
        let most = most.map(|most| ReadRoom { bytes: share(most, part.bytes, all), first_batch });
        async move {
            let read =
                shard.on(owner, move |shard| fetch::read(shard, id, given, changes, isolation, most, enough));
            (owner, read.await)
        }
    });
    let reads = join_all(reads).await;
    let mut got = list.refusals();
    for (owner, read) in reads {
        match read {
            Ok(read) => got.extend(read),
            Err(_) => got.extend(list.gone(owner)),
        }
    }
    got
}

/// In the list's order. What was looked at `before` and is not among the `new` has not changed.
fn merge(list: &List, mut new: Vec<Got>, mut before: Vec<Got>) -> Vec<Got> {
    new.append(&mut before);
    new.sort_by_key(|got| list.get(got.place).turn);
    new.dedup_by_key(|got| got.place);
    new
}

/// Small limits were given to each shard whole, and to each a first batch of any size. The answer keeps to the limits in the
/// list's order, and only its own first batch may exceed them (KIP-74). The bytes it comes to.
fn keep_to(most: usize, list: &List, got: &mut [Got]) -> usize {
    let mut total = 0;
    for got in got.iter_mut().filter(|got| got.len > 0) {
        if total > 0 && (total + got.len > most || got.len > list.get(got.place).bytes_max()) {
            got.leave_out();
        }
        total += got.len;
    }
    total
}

/// How much of `grant` an owner may read of which `own` of `all` bytes are asked. Large grants are dealt among the
/// owners: what several read for the same room is read in vain. Small ones are each owner's whole, so that an answer
/// is filled in the request's order (KIP-74).
fn share(grant: u64, own: u64, all: u64) -> usize {
    if grant < DEALT_FROM || all <= grant {
        return grant as usize;
    }
    (u128::from(grant) * u128::from(own) / u128::from(all)) as usize
}

/// Puts the answer together: for a session only what is new to the client.
async fn respond(context: &Context, plan: &mut Plan, got: Vec<Got>, isolation: Isolation) -> FetchResponse {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut records_bytes = 0;
    let mut hints = LeaderHints::new(&context.shard, context.connection.listener);
    for got in got {
        let (place, len, records) = (got.place, got.len, got.records);
        let asked = plan.list.get_mut(place);
        let news = (got.high_watermark, got.log_start_offset);
        if plan.incremental && !got.is_telling() && len == 0 && asked.told == Some(news) {
            continue;
        }
        asked.told = Some(news);
        records_bytes += len;
        let mut partition = answer(context, asked, got, isolation).await;
        if context.api_version >= LEADER_HINTS_FROM {
            partition.current_leader =
                hints.beside(partition.error_code, &asked.topic, asked.topic_id, asked.partition);
        }
        match topics.last_mut() {
            Some(last) if last.topic == asked.topic && last.topic_id == asked.topic_id => {
                last.partitions.push(partition);
            }
            _ => topics.push(FetchableTopicResponse {
                topic: asked.topic.clone(),
                topic_id: asked.topic_id,
                partitions: vec![partition],
            }),
        }
        if len > 0 {
            plan.list.note_given(place, len, records);
            // So that a small `max_bytes` reaches all in turn.
            plan.list.put_last(place);
        }
    }
    context.shard.metrics.fetched(records_bytes as u64);
    let node_endpoints = hints.endpoints;
    FetchResponse { session_id: plan.session_id, responses: topics, node_endpoints, ..Default::default() }
}

async fn answer(context: &Context, asked: &Asked, got: Got, isolation: Isolation) -> PartitionData {
    let mut error = got.error;
    let mut records = got.parts;
    if context.api_version < V2_BATCHES_FROM && !records.is_empty() {
        let (version, from_offset, bytes_max) = (context.api_version, asked.fetch_offset, asked.bytes_max());
        let converted = move || down_convert(&records, version, from_offset, bytes_max);
        match corelog_io::compute(converted).await {
            Ok(converted) => records = converted,
            Err(reason) => {
                tracing::debug!(topic = %asked.topic, partition = asked.partition, %reason, "down-conversion");
                error = ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT;
                records = Vec::new();
            }
        }
    }
    PartitionData {
        partition_index: asked.partition,
        error_code: error.0,
        high_watermark: got.high_watermark,
        last_stable_offset: got.last_stable_offset,
        log_start_offset: got.log_start_offset,
        diverging_epoch: got
            .diverging
            .map_or_else(Default::default, |(epoch, end_offset)| EpochEndOffset { epoch, end_offset }),
        // None are aborted; who reads what is not committed is not told of any.
        aborted_transactions: (isolation == Isolation::ReadCommitted).then(Vec::new),
        records: Some(records),
        ..Default::default()
    }
}

/// For clients of before Kafka 0.11: messages of format 0 or 1.
fn down_convert(
    parts: &[Bytes],
    version: i16,
    from_offset: i64,
    max_bytes: usize,
) -> Result<Vec<Bytes>, String> {
    let format = if version < V1_MESSAGES_FROM { LegacyFormat::V0 } else { LegacyFormat::V1 };
    let limits = DownConvertLimits { bytes_max: max_bytes, decompressed_bytes_max: DOWN_CONVERT_BYTES_MAX };
    let batches = Bytes::from(parts.concat());
    records::down_convert(&batches, format, from_offset, limits)
        .map(|converted| vec![converted.records])
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_grants_are_dealt_and_small_ones_are_not() {
        const MIB: u64 = 1 << 20;
        for (grant, own, all, expected) in [
            (16 * MIB, 25 * MIB, 100 * MIB, 4 * MIB),
            // There is room for all that is asked.
            (16 * MIB, 4 * MIB, 16 * MIB, 16 * MIB),
            (MIB - 1, 25 * MIB, 100 * MIB, MIB - 1),
            (16 * MIB, 0, 100 * MIB, 0),
            (u64::MAX, u64::MAX / 2, u64::MAX, u64::MAX),
        ] {
            assert_eq!(share(grant, own, all), expected as usize, "{grant} {own} of {all}");
        }
    }
}
