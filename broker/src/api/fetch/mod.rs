//! Fetch: reads every partition once on its owner's core, and if that is less than `min_bytes`, waits to be woken
//! by those partitions and reads again, until `max_wait_ms` have passed. An idle consumer costs nothing.

mod read;
mod session;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::Instant;
use corelog_io::sync::Permit;
use corelog_wire::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use corelog_wire::records::{self, DownConvertLimits, LegacyFormat};
use corelog_wire::{ErrorCode, Message, Reader, RequestHeader, frame};
use futures_util::future::{join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

pub use read::RemoteWaits;
use read::{Got, Wanted};
pub use session::Sessions;
use session::{Asked, Plan};

use super::{Context, READ_COMMITTED, decode, is_isolation_level};
use crate::net::connection::{CloseReason, Outcome};
use crate::partition;
use crate::shard::{Shard, ShardId};

/// A response takes at least this much of the shard's fetch budget before it reads.
const GRANT_MIN: u64 = 64 * 1024;
/// Grants from this many bytes on are dealt among the shards.
const DEALT_FROM: u64 = 1 << 20;
/// Below this version responses carry message format 0 or 1 (KIP-98).
const V2_BATCHES_FROM: i16 = 4;
/// Below this version responses carry message format 0.
const V1_MESSAGES_FROM: i16 = 2;
/// From this version on topics are named by id (KIP-516).
const TOPIC_IDS_FROM: i16 = 13;
/// Clients fetch with this id. Greater ones are of brokers, and none copies its log by Fetch here.
const CONSUMER_REPLICA_ID: i32 = -1;
/// What down-conversion may make of one partition's batches when it decompresses them.
const DOWN_CONVERT_BYTES_MAX: usize = 64 << 20;

pub async fn handle(context: Context, header: RequestHeader, mut reader: Reader) -> Outcome {
    let version = header.api_version;
    let request: FetchRequest = match decode(&mut reader, version) {
        Ok(request) => request,
        Err(error) => {
            return Outcome::Close(CloseReason::Malformed {
                api: FetchRequest::NAME,
                version,
                error: error.to_string(),
            });
        }
    };
    let (response, held) = fetch(&context, request).await;
    match frame::response(&response, version, header.correlation_id) {
        Ok(frame) => Outcome::Answer { frame, held },
        Err(error) => Outcome::Close(CloseReason::Encode(error.to_string())),
    }
}

async fn fetch(context: &Context, request: FetchRequest) -> (FetchResponse, Option<Permit>) {
    let shard = &context.shard;
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let replica = request.replica_id.max(request.replica_state.replica_id);
    let isolation = request.isolation_level;
    let refusal = if replica > CONSUMER_REPLICA_ID {
        Some(ErrorCode::NOT_LEADER_OR_FOLLOWER)
    } else if !is_isolation_level(isolation) {
        Some(ErrorCode::INVALID_REQUEST)
    } else {
        None
    };
    let limits = Limits {
        max_bytes: (request.max_bytes.max(0) as usize).min(shard.config().fetch_bytes_max),
        min_bytes: request.min_bytes.max(0) as usize,
        deadline: corelog_io::now() + Duration::from_millis(request.max_wait_ms.max(0) as u64),
    };
    let mut plan = match shard.sessions.begin(request, by_id, corelog_io::now()) {
        Ok(plan) => plan,
        Err(code) => return (FetchResponse { error_code: code.0, ..Default::default() }, None),
    };
    let (got, held) = match refusal {
        // In each partition: before version 7 there is no error for the whole.
        Some(code) => ((0..plan.asked.len()).map(|place| Got::refused(place, code)).collect(), None),
        None => gather(shard, &plan.asked, by_id, limits).await,
    };
    let response = respond(context, &mut plan, got, isolation == READ_COMMITTED);
    (response, held)
}

#[derive(Clone, Copy)]
struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    deadline: Instant,
}

/// Reads until there is enough, an error to tell, or no time left. One `Got` for each of `asked`, in its order.
async fn gather(
    shard: &Rc<Shard>,
    asked: &[Asked],
    by_id: bool,
    limits: Limits,
) -> (Vec<Got>, Option<Permit>) {
    loop {
        let (wanted, mut got) = resolve(shard, asked, by_id);
        let most = shard.fetch_budget.available() / 4;
        let grant = (limits.max_bytes as u64).min(most.max(GRANT_MIN)).min(shard.fetch_budget.total());
        let mut held = shard.fetch_budget.acquire(grant).await;
        let all = wanted.iter().map(|(_, list)| bytes_asked(list)).sum();
        let reads = wanted.iter().map(|(owner, list)| {
            let (list, share) = (list.clone(), share(grant, bytes_asked(list), all));
            shard.on(*owner, move |shard| read::read(shard, list, share))
        });
        for (read, (_, list)) in join_all(reads).await.into_iter().zip(&wanted) {
            match read {
                Ok(read) => got.extend(read),
                Err(_) => {
                    got.extend(list.iter().map(|w| Got::refused(w.place, ErrorCode::NOT_LEADER_OR_FOLLOWER)))
                }
            }
        }
        // Small limits were given to each shard whole, and to each a first batch of any size. The answer keeps to the
        // limits in the request's order, and only its own first batch may exceed them (KIP-74).
        got.sort_unstable_by_key(|got| got.place);
        let mut total = 0;
        for got in &mut got {
            let partition_max = asked[got.place].max_bytes.max(0) as usize;
            if total > 0 && (total + got.len > grant as usize || got.len > partition_max) {
                got.parts.clear();
                got.len = 0;
            }
            total += got.len;
        }
        let telling = got.iter().any(|got| !got.error.is_ok() || got.diverging.is_some());
        let enough = total >= limits.min_bytes || telling || asked.is_empty();
        if enough || corelog_io::now() >= limits.deadline || shard.is_stopping() {
            held.release(held.count().saturating_sub(total as u64));
            return (got, (total > 0).then_some(held));
        }
        drop(held);
        // A shard that stops does not wait for consumers that wait.
        let news = std::pin::pin!(wait(shard, &wanted, &got, limits.deadline));
        select(news, std::pin::pin!(shard.stopping())).await;
    }
}

fn bytes_asked(list: &[Wanted]) -> u64 {
    list.iter().map(|wanted| wanted.max_bytes as u64).sum()
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

/// Partitions to read by owner, beginning with a random one so that a small budget starves none; and what can be
/// answered at once.
fn resolve(shard: &Rc<Shard>, asked: &[Asked], by_id: bool) -> (Vec<(ShardId, Vec<Wanted>)>, Vec<Got>) {
    let mut wanted: Vec<(ShardId, Vec<Wanted>)> = Vec::new();
    let mut got = Vec::with_capacity(asked.len());
    for (place, asked) in asked.iter().enumerate() {
        let route = if by_id {
            partition::route_by_id(shard, asked.topic_id, asked.partition)
        } else {
            partition::route(shard, &asked.topic, asked.partition)
        };
        let checked = route.and_then(|route| {
            // As Kafka does, any negative epoch is taken for "does not say" here, and here alone.
            let epoch = asked.current_leader_epoch.max(-1);
            partition::check_epoch(epoch, route.leader_epoch).map(|()| route)
        });
        match checked {
            Err(code) => got.push(Got::refused(place, code)),
            Ok(route) => {
                let one = Wanted {
                    place,
                    log: route.log,
                    offset: asked.fetch_offset,
                    max_bytes: asked.max_bytes.max(0) as usize,
                    last_fetched_epoch: asked.last_fetched_epoch,
                };
                match wanted.iter_mut().find(|(owner, _)| *owner == route.owner) {
                    Some((_, list)) => list.push(one),
                    None => wanted.push((route.owner, vec![one])),
                }
            }
        }
    }
    if wanted.len() > 1 {
        let start = corelog_io::random_u64() as usize % wanted.len();
        wanted.rotate_left(start);
    }
    (wanted, got)
}

/// Waits for news of any partition on any shard. Waits that are still out when one has come are called back.
async fn wait(shard: &Rc<Shard>, wanted: &[(ShardId, Vec<Wanted>)], got: &[Got], deadline: Instant) {
    let waits = FuturesUnordered::new();
    for (owner, list) in wanted {
        let owner = *owner;
        let seen: read::Seen =
            list.iter().map(|wanted| (wanted.log, got[wanted.place].high_watermark)).collect();
        waits.push(async move {
            if owner == shard.id {
                return read::wait(shard.clone(), seen, deadline).await;
            }
            let key = (shard.id, shard.next_wait_id());
            let cancel = CancelWait { shard, owner, key };
            let _ = shard
                .on(owner, move |shard| async move {
                    shard.remote_waits.wait(shard.clone(), key, seen, deadline).await;
                })
                .await;
            std::mem::forget(cancel);
        });
    }
    let mut waits = waits;
    if waits.next().await.is_none() {
        // Nothing can come: all partitions were refused, which is answered at once, or none was asked for.
        corelog_io::sleep_until(deadline).await;
    }
}

/// Calls a wait back when the fetch no longer needs it.
struct CancelWait<'a> {
    shard: &'a Rc<Shard>,
    owner: ShardId,
    key: (ShardId, u64),
}

impl Drop for CancelWait<'_> {
    fn drop(&mut self) {
        let key = self.key;
        self.shard.post(self.owner, move |shard| shard.remote_waits.cancel(key));
    }
}

/// Puts the answer together: for a session only what is new to the client.
fn respond(context: &Context, plan: &mut Plan, got: Vec<Got>, read_committed: bool) -> FetchResponse {
    let mut served = vec![false; plan.asked.len()];
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut records_bytes = 0;
    for got in got {
        let asked = &mut plan.asked[got.place];
        let news = (got.high_watermark, got.log_start_offset);
        let silent = got.error.is_ok() && got.diverging.is_none() && got.len == 0;
        if plan.incremental && silent && asked.told == Some(news) {
            continue;
        }
        asked.told = Some(news);
        served[got.place] = got.len > 0;
        records_bytes += got.len;
        let partition = answer(context, asked, got, read_committed);
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
    }
    if plan.session_id != 0 && records_bytes > 0 {
        plan.rotate(&served);
    }
    context.shard.metrics.fetched(records_bytes as u64);
    FetchResponse { session_id: plan.session_id, responses: topics, ..Default::default() }
}

fn answer(context: &Context, asked: &Asked, got: Got, read_committed: bool) -> PartitionData {
    let mut error = got.error;
    let mut records = got.parts;
    if context.api_version < V2_BATCHES_FROM && !records.is_empty() {
        let most = asked.max_bytes.max(0) as usize;
        match down_convert(&records, context.api_version, asked.fetch_offset, most) {
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
        aborted_transactions: read_committed.then(Vec::new),
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
