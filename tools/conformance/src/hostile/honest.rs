//! Clients that do nothing wrong, and hold the broker to its word: a producer, a consumer, a group's member, somebody who makes
//! and deletes topics, and one who reads the metrics.

use super::world::{Client, Wait, World};
use crate::clock::now_ms;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use corelog_wire::messages::join_group_request::Protocol;
use corelog_wire::messages::leave_group_request::MemberIdentity;
use corelog_wire::messages::sync_group_request::Assignment;
use corelog_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FindCoordinatorRequest, HeartbeatRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use corelog_wire::messages::{offset_commit_request as commit, offset_fetch_request as committed};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer, split_batches, with_scratch};
use corelog_wire::{ErrorCode, Str};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const TOPIC: &str = "honest";
/// So many that with few open files their segments do not all stay open.
pub const PARTITIONS: i32 = 300;
const GROUP: &str = "honest";
const RECORDS_PER_BATCH: u64 = 20;
/// One batch in so many is this much larger, and too large for the room that small requests have of their own.
const LARGE_ONE_IN: u64 = 32;
const LARGE_TIMES: u64 = 10;
const VALUE_LEN: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);
const FETCH_WAIT_MS: i32 = 200;
const SCRAPE_PAUSE: Duration = Duration::from_millis(500);
const ADMIN_PAUSE: Duration = Duration::from_millis(300);
/// A member leaves and joins again after so many commits.
const COMMITS_PER_STAY: i64 = 100;
/// As Kafka's clients have it by default.
const SESSION_TIMEOUT_MS: i32 = 45_000;
const DECOMPRESSED_MAX: usize = 8 << 20;

/// Produces until the world is done. Every partition's values count up from 0; what was under way when the broker went down is sent again.
pub fn produce(world: &World) -> Result<()> {
    let mut client = Client::new(world, "the honest producer", Wait::Produce);
    let init = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() };
    let id = client.ask(1, &init, &[])?.0.producer_id;
    let mut next = [0u64; PARTITIONS as usize];
    let mut value = vec![b'h'; VALUE_LEN];
    for (batch, index) in (0..).zip((0..PARTITIONS).cycle()) {
        if world.is_done() {
            return Ok(());
        }
        let next = &mut next[index as usize];
        let producer = Some(Producer { id, epoch: 0, base_sequence: *next as i32 });
        let mut builder = BatchBuilder::new(BatchOptions { producer, ..Default::default() });
        let records = RECORDS_PER_BATCH * if batch % LARGE_ONE_IN == 0 { LARGE_TIMES } else { 1 };
        for _ in 0..records {
            value[..8].copy_from_slice(&next.to_be_bytes());
            builder.append(now_ms(), None, Some(&value), &[])?;
            *next += 1;
        }
        client.ask(9, &produce_request(TOPIC, vec![(index, builder.build()?)]), &[])?;
        world.produced.fetch_add(records as u32, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// With acks=all.
pub fn produce_request(topic: &'static str, batches: Vec<(i32, Bytes)>) -> ProduceRequest {
    let data = |(index, records)| PartitionProduceData { index, records: Some(records) };
    let topic = TopicProduceData {
        name: Str::from_static(topic),
        partition_data: batches.into_iter().map(data).collect(),
        ..Default::default()
    };
    ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data: vec![topic] }
}

/// Consumes until the world is done and all that was produced has been seen: each record once and in order.
pub fn consume(world: &World) -> Result<()> {
    let mut client = Client::new(world, "the honest consumer", Wait::Fetch);
    let mut next = [0i64; PARTITIONS as usize];
    let mut seen = 0;
    loop {
        let end = world.is_done().then(|| world.produced.load(Ordering::Relaxed));
        if end.is_some_and(|end| seen >= end) {
            return Ok(());
        }
        let offsets = (0..).zip(next.iter().copied());
        let request = FetchRequest {
            max_wait_ms: FETCH_WAIT_MS,
            min_bytes: 1,
            max_bytes: 4 << 20,
            topics: vec![fetch_topic(TOPIC, offsets, 1 << 20)],
            ..Default::default()
        };
        let response = client.ask(11, &request, &[])?.0;
        for answer in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let partition = answer.partition_index;
            let next = &mut next[partition as usize];
            for batch in answer.records.iter().flatten().flat_map(split_batches).map_while(Result::ok) {
                if batch.header().last_offset() < *next {
                    continue;
                }
                batch.verify_checksum()?;
                with_scratch(|scratch| {
                    for record in batch.records(scratch, DECOMPRESSED_MAX)? {
                        let value = record?.value.and_then(|value| value.first_chunk().copied());
                        let number = value.map(u64::from_be_bytes);
                        if number != Some(*next as u64) {
                            bail!("LOST or TWICE: {number:?} in partition {partition} where {next} is next");
                        }
                        *next += 1;
                        seen += 1;
                    }
                    Ok(())
                })?;
                let lag = Duration::from_millis((now_ms() - batch.header().max_timestamp).max(0) as u64);
                world
                    .waited(Wait::Fetch, Instant::now().checked_sub(lag).context("a time before the start")?);
            }
        }
        world.consumed.store(seen, Ordering::Relaxed);
    }
}

/// Partitions with the offsets to fetch from.
pub fn fetch_topic(
    name: &'static str,
    offsets: impl Iterator<Item = (i32, i64)>,
    bytes_max: i32,
) -> FetchTopic {
    let partition = |(partition, fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: bytes_max,
        ..Default::default()
    };
    FetchTopic {
        topic: Str::from_static(name),
        partitions: offsets.map(partition).collect(),
        ..Default::default()
    }
}

/// Joins, sends heartbeats, commits, looks whether what was committed is there, leaves after a while, and joins again.
pub fn member(world: &World) -> Result<()> {
    let mut client = Client::new(world, "the honest member", Wait::Group);
    let group_id = Str::from_static(GROUP);
    // The first look for a coordinator makes the topic that coordinators keep.
    let request = FindCoordinatorRequest { key: group_id.clone(), ..Default::default() };
    client.ask(1, &request, &[])?;
    let mut offset = 0;
    while !world.is_done() {
        let Some((generation_id, member_id)) = join(&mut client, &group_id)? else { continue };
        for _ in 0..COMMITS_PER_STAY {
            let beat = HeartbeatRequest {
                group_id: group_id.clone(),
                generation_id,
                member_id: member_id.clone(),
                ..Default::default()
            };
            client.ask(3, &beat, &[])?;
            offset += 1;
            let partition = commit::Partition { committed_offset: offset, ..Default::default() };
            let topic =
                commit::Topic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() };
            let request = OffsetCommitRequest {
                group_id: group_id.clone(),
                generation_id_or_member_epoch: generation_id,
                member_id: member_id.clone(),
                topics: vec![topic],
                ..Default::default()
            };
            client.ask(7, &request, &[])?;
            let topic = committed::Topic { name: TOPIC.into(), partition_indexes: vec![0] };
            let request = OffsetFetchRequest {
                group_id: group_id.clone(),
                topics: Some(vec![topic]),
                ..Default::default()
            };
            let answer = client.ask(5, &request, &[])?.0;
            let found = answer.topics[0].partitions[0].committed_offset;
            ensure!(found == offset, "LOST: offset {offset} was committed, and {found} is there");
            if world.is_done() {
                break;
            }
            std::thread::sleep(5 * PAUSE);
        }
        let member = MemberIdentity { member_id, ..Default::default() };
        let request =
            LeaveGroupRequest { group_id: group_id.clone(), members: vec![member], ..Default::default() };
        // What was asked again may have been done the first time.
        client.ask(4, &request, &[ErrorCode::UNKNOWN_MEMBER_ID])?;
    }
    Ok(())
}

/// As `join_group_request` of a consumer.
pub fn join_request(group_id: &Str, member_id: &Str, metadata: Bytes) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group_id.clone(),
        session_timeout_ms: SESSION_TIMEOUT_MS,
        rebalance_timeout_ms: SESSION_TIMEOUT_MS,
        member_id: member_id.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata }],
        ..Default::default()
    }
}

/// Generation and member id; none where the broker's end came between two steps that it need not remember, and where there is
/// no memory for another member.
fn join(client: &mut Client, group_id: &Str) -> Result<Option<(i32, Str)>> {
    // Where groups of others use all the memory that groups have, newcomers are refused, and this is one.
    let full = ErrorCode::GROUP_MAX_SIZE_REACHED;
    let forgotten =
        [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::ILLEGAL_GENERATION, ErrorCode::REBALANCE_IN_PROGRESS, full];
    let life = client.world.life();
    let request = join_request(group_id, &Str::new(), Bytes::new());
    let (given, _, _) = client.ask(5, &request, &[ErrorCode::MEMBER_ID_REQUIRED, full])?;
    let request = join_request(group_id, &given.member_id, Bytes::new());
    let (joined, mut error, _) = client.ask(5, &request, &forgotten)?;
    if error == full {
        client.world.left_out.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
        return Ok(None);
    }
    if error == ErrorCode::NONE {
        let assignment =
            Assignment { member_id: joined.member_id.clone(), assignment: Bytes::from_static(b"all") };
        let request = SyncGroupRequest {
            group_id: group_id.clone(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            assignments: vec![assignment],
            ..Default::default()
        };
        error = client.ask(3, &request, &forgotten)?.1;
    }
    ensure!(
        error == ErrorCode::NONE || client.world.life() != life,
        "the honest member cannot join: {error}"
    );
    Ok((error == ErrorCode::NONE).then_some((joined.generation_id, joined.member_id)))
}

/// Makes and deletes one topic after the other, each time over a new connection where there may be one.
pub fn administrator(world: &World) -> Result<()> {
    let mut client = Client::new(world, "the honest administrator", Wait::Admin);
    for number in 0.. {
        if !world.is_full() {
            client.hang_up();
        }
        let name = Str::from(format!("come-and-go-{number}"));
        let request = create_request(&[(name.clone(), 3, &[])]);
        let (_, error, again) = client.ask(4, &request, &[ErrorCode::TOPIC_ALREADY_EXISTS])?;
        ensure!(error == ErrorCode::NONE || again, "{name} was there before it was made");
        let request =
            DeleteTopicsRequest { topic_names: vec![name.clone()], timeout_ms: 30_000, ..Default::default() };
        let (_, error, again) = client.ask(4, &request, &[ErrorCode::UNKNOWN_TOPIC_OR_PARTITION])?;
        ensure!(error == ErrorCode::NONE || again, "LOST: {name} was made, and is not there");
        if world.is_done() {
            break;
        }
        std::thread::sleep(ADMIN_PAUSE);
    }
    let all = client.ask(1, &MetadataRequest { topics: None, ..Default::default() }, &[])?.0;
    let left = all
        .topics
        .iter()
        .find(|topic| topic.name.as_ref().is_some_and(|name| name.starts_with("come-and-go")));
    ensure!(left.is_none(), "{left:?} was deleted, and is there");
    Ok(())
}

/// Name, partitions, and configs.
pub type Topic<'a> = (Str, i32, &'a [(&'static str, String)]);

pub fn create_request(topics: &[Topic]) -> CreateTopicsRequest {
    let topic = |(name, partitions, configs): &Topic| CreatableTopic {
        name: name.clone(),
        num_partitions: *partitions,
        replication_factor: 1,
        configs: configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: Str::from_static(name),
                value: Some(value.clone().into()),
            })
            .collect(),
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: topics.iter().map(topic).collect(),
        timeout_ms: 30_000,
        validate_only: false,
    }
}

/// Reads /metrics now and then.
pub fn scraper(world: &World) -> Result<()> {
    while !world.is_done() {
        let scraped = world.until_served(Wait::Metrics, Instant::now(), || {
            let mut stream = TcpStream::connect(world.admin())?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: corelog\r\nConnection: close\r\n\r\n")?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text)?;
            // A broker that is killed meanwhile ends it anywhere.
            let begins = String::from_utf8_lossy(&text[..text.len().min(80)]);
            ensure!(begins.starts_with("HTTP/1.1 200"), "the answer begins with {begins:?}");
            Ok(Some(()))
        });
        scraped.context("the honest scraper")?;
        std::thread::sleep(SCRAPE_PAUSE);
    }
    Ok(())
}
