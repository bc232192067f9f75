//! The attacks, a row each: who comes, what they say, and what they never do.

use super::crowd::{Crowd, Reads, Turn};
use super::frames::{self, framed, header};
use super::honest::{self, fetch_topic, join_request, produce_request};
use bytes::Bytes;
use corelog_wire::fetch::FetchRequest;
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic};
use corelog_wire::messages::offset_commit_request::{self as commit, OffsetCommitRequest};
use corelog_wire::messages::{
    ApiVersionsRequest, JoinGroupRequest, JoinGroupResponse, Message, Request, SyncGroupRequest,
};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use corelog_wire::{ErrorCode, Reader, Str, frame};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What slow readers ask for.
pub const BULK: &str = "bulk";
pub const BULK_PARTITIONS: i32 = 4;
/// Where the largest requests go; kept small.
pub const SINK: &str = "sink";
pub const SINK_PARTITIONS: i32 = 8;
/// Of one batch for it.
pub const SINK_BATCH_BYTES: usize = 8 << 20;
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const RANDOM_THREADS: u64 = 2;

/// What an attack is made on.
pub struct Target {
    pub address: SocketAddr,
    /// The largest frame that the broker takes.
    pub frame_bytes_max: usize,
    /// How many connections a crowd may take that leaves some to others.
    pub connections: usize,
    /// The limit of open files of the broker, if it is low.
    pub open_files: Option<usize>,
    /// The attack's own.
    pub number: u64,
    pub seed: u64,
    pub until: Instant,
}

pub struct Attack {
    pub name: &'static str,
    pub way: Way,
    /// Takes all connections that a broker with few open files has.
    pub takes_all: bool,
}

pub enum Way {
    Frames(fn(&Target) -> String),
    Crowd(fn(&Target) -> Crowd),
}

const fn crowd(name: &'static str, crowd: fn(&Target) -> Crowd) -> Attack {
    Attack { name, way: Way::Crowd(crowd), takes_all: false }
}

const fn of_frames(name: &'static str, frames: fn(&Target) -> String) -> Attack {
    Attack { name, way: Way::Frames(frames), takes_all: false }
}

pub const ATTACKS: &[Attack] = &[
    of_frames("random frames", random_frames),
    of_frames("impossible frames", |target| {
        let sent = frames::send_each(target.address, &frames::impossible());
        format!("{} lengths and arrays that cannot be", sent.frames)
    }),
    // Frames that do not end, or hardly.
    crowd("frames begun", |target| Crowd {
        clients: 2000,
        says: once(padded(&any_request(), target.frame_bytes_max).slice(..14)),
        ..Crowd::default()
    }),
    crowd("frames in part", |target| {
        let frame = padded(&any_request(), target.frame_bytes_max);
        let most = frame.len() / 10 * 9;
        Crowd {
            clients: 150,
            says: Box::new(move |turn| match turn.nth as usize {
                0 => frame.slice(..most),
                nth => frame.slice((most + nth) % frame.len()..).slice(..1),
            }),
            every: Duration::from_secs(3),
            ..Crowd::default()
        }
    }),
    crowd("frames slowly", |target| {
        let frame = padded(&any_request(), target.frame_bytes_max);
        let step = 8 << 10;
        Crowd {
            clients: 40,
            says: Box::new(move |turn| {
                let at = turn.nth as usize * step % frame.len();
                frame.slice(at..frame.len().min(at + step))
            }),
            ..Crowd::default()
        }
    }),
    crowd("bytes slowly", |_| {
        let frame = padded(&any_request(), 4000);
        Crowd {
            clients: 300,
            says: Box::new(move |turn| frame.slice(turn.nth as usize % frame.len()..).slice(..1)),
            every: Duration::from_millis(50),
            ..Crowd::default()
        }
    }),
    // As much as is allowed.
    crowd("largest frames", |target| Crowd {
        clients: 20,
        says: always(padded(&any_request(), target.frame_bytes_max)),
        reads: Reads::Answer,
        ..Crowd::default()
    }),
    crowd("largest produces", |target| Crowd {
        clients: 3,
        says: always(largest_produce(target.frame_bytes_max)),
        reads: Reads::Answer,
        every: Duration::from_secs(1),
        ..Crowd::default()
    }),
    // Each of these bytes costs many more where it is looked at.
    crowd("largest fetches", |target| {
        let partitions = (target.frame_bytes_max - 200) / FETCH_PARTITION_BYTES;
        Crowd { clients: 8, says: always(fetch_all(partitions, -1)), reads: Reads::All, ..Crowd::default() }
    }),
    crowd("largest metadata", |target| {
        let topic = |_| Topic { name: Some("x".into()), ..Topic::default() };
        let topics = (0..(target.frame_bytes_max - 200) / 3).map(topic).collect();
        let request = MetadataRequest { topics: Some(topics), ..Default::default() };
        Crowd { clients: 8, says: always(said(1, &request)), reads: Reads::All, ..Crowd::default() }
    }),
    crowd("all come again", |_| Crowd {
        clients: 400,
        says: always(padded(&any_request(), 1 << 20)),
        reads: Reads::Answer,
        stays: Duration::from_secs(3),
        ..Crowd::default()
    }),
    crowd("connects", |_| Crowd { clients: 20, stays: Duration::ZERO, resets: true, ..Crowd::default() }),
    crowd("cheap requests", |_| {
        let topics = Some(vec![Topic { name: Some(BULK.into()), ..Topic::default() }]);
        let metadata = said(1, &MetadataRequest { topics, ..Default::default() });
        let pair = [said(0, &ApiVersionsRequest::default()), metadata].concat();
        Crowd { clients: 20, says: always(pair.repeat(250).into()), reads: Reads::All, ..Crowd::default() }
    }),
    // Who does not read.
    crowd("never read", |_| Crowd {
        clients: 100,
        says: once(greedy_fetches()),
        stays: Duration::from_secs(10),
        ..Crowd::default()
    }),
    crowd("read bytes", |_| Crowd {
        clients: 200,
        says: once(greedy_fetches()),
        reads: Reads::Byte,
        ..Crowd::default()
    }),
    // Who holds on to what is there.
    crowd("idle", |_| Crowd { clients: 10_000, reads: Reads::All, ..Crowd::default() }),
    Attack {
        takes_all: true,
        ..crowd("all descriptors", |target| Crowd {
            clients: target.open_files.unwrap_or(10_000) + 200,
            reads: Reads::All,
            returns: false,
            ..Crowd::default()
        })
    },
    crowd("waiting members", |target| {
        let number = target.number;
        Crowd {
            clients: 5000,
            says: Box::new(move |turn| wait_in_group(turn, format!("waiting-{number}-{}", turn.client / 50))),
            reads: Reads::Answer,
            ..Crowd::default()
        }
    }),
    crowd("large members", |target| {
        let number = target.number;
        Crowd {
            clients: 100,
            says: Box::new(move |turn| grow_group(turn, format!("large-{number}-{}", turn.client / 10))),
            reads: Reads::Answer,
            every: Duration::from_millis(500),
            ..Crowd::default()
        }
    }),
    crowd("large commits", |target| {
        let number = target.number;
        Crowd {
            clients: 10,
            says: Box::new(move |turn| {
                large_commit(format!("commits-{number}-{}-{}-{}", turn.client, turn.visit, turn.nth))
            }),
            reads: Reads::Answer,
            every: Duration::from_millis(500),
            ..Crowd::default()
        }
    }),
    crowd("fetch sessions", |_| Crowd {
        clients: 200,
        says: always(fetch_all(5000, 0)),
        reads: Reads::Answer,
        every: Duration::from_millis(500),
        stays: Duration::from_secs(1),
        resets: true,
        ..Crowd::default()
    }),
];

fn random_frames(target: &Target) -> String {
    let (address, until) = (target.address, target.until);
    let mut frames = 0;
    let mut connections = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RANDOM_THREADS)
            .map(|thread| {
                let seed = target.seed ^ thread << 40;
                scope.spawn(move || frames::random(address, seed, until))
            })
            .collect();
        for thread in threads {
            let sent = thread.join().unwrap_or_default();
            frames += sent.frames;
            connections += sent.connections;
        }
    });
    format!("{frames} frames on {connections} connections")
}

/// Said first, and nothing after it.
fn once(what: Bytes) -> Box<dyn Fn(&mut Turn) -> Bytes + Sync> {
    Box::new(move |turn| if turn.nth == 0 { what.clone() } else { Bytes::new() })
}

fn always(what: Bytes) -> Box<dyn Fn(&mut Turn) -> Bytes + Sync> {
    Box::new(move |_| what.clone())
}

fn said<R: Request>(version: i16, request: &R) -> Bytes {
    let parts = frame::request(request, version, 1, Some(&Str::from_static("hostile")));
    parts.expect("it can be said").concat().into()
}

/// The answer to it.
fn heard<R: Message>(answer: &Bytes, version: i16) -> Option<R> {
    let mut r = Reader::new(answer.clone());
    r.i32("correlation id").ok()?;
    R::decode(&mut r, version).ok()
}

fn any_request() -> Bytes {
    framed(&header(18, 0)).into()
}

/// The request in a frame of this size, its length included: what follows a request is let pass.
fn padded(request: &[u8], size: usize) -> Bytes {
    let mut frame = ((size - 4) as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&request[4..]);
    frame.resize(size, 0);
    frame.into()
}

/// As many as a connection may have under way and more, each of as much as there is.
fn greedy_fetches() -> Bytes {
    let topic = fetch_topic(BULK, (0..BULK_PARTITIONS).map(|partition| (partition, 0)), 50 << 20);
    let request = FetchRequest { max_bytes: 50 << 20, topics: vec![topic], ..Default::default() };
    said(11, &request).repeat(30).into()
}

/// In version 11.
const FETCH_PARTITION_BYTES: usize = 28;

/// Of partitions of which most are not there. An epoch of 0 begins a session.
fn fetch_all(partitions: usize, session_epoch: i32) -> Bytes {
    let topic = fetch_topic(honest::TOPIC, (0..partitions as i32).map(|partition| (partition, 0)), 1);
    let request = FetchRequest { session_epoch, max_bytes: 1, topics: vec![topic], ..Default::default() };
    said(11, &request)
}

/// One record of `len` bytes.
pub fn batch(len: usize) -> Bytes {
    let value = vec![b'b'; len];
    let mut builder = BatchBuilder::with_capacity(BatchOptions::default(), len + 100);
    builder.append(crate::clock::now_ms(), None, Some(&value), &[]).expect("a record");
    builder.build().expect("a batch")
}

/// A Produce request of the largest size, in batches of a size that the sink takes.
fn largest_produce(size: usize) -> Bytes {
    // Around each batch, and for the whole.
    let (each, front) = (200, 200);
    let batches = (size - front).div_ceil(SINK_BATCH_BYTES).min(SINK_PARTITIONS as usize);
    let len = ((size - front) / batches).min(SINK_BATCH_BYTES) - each;
    let records = batch(len);
    let batches = (0..batches as i32).map(|partition| (partition, records.clone())).collect();
    padded(&said(9, &produce_request(SINK, batches)), size)
}

/// With time-outs that keep what waits for vanished members for as long as an attack lasts, and not longer.
fn join(group: &Str, member: &Str, metadata: Bytes) -> Bytes {
    let timeout_ms = 10_000;
    let request = JoinGroupRequest {
        session_timeout_ms: timeout_ms,
        rebalance_timeout_ms: timeout_ms,
        ..join_request(group, member, metadata)
    };
    said(JOIN_VERSION, &request)
}

/// Joins and syncs, and leads no group: all others in it wait until the broker's patience with their leader ends.
fn wait_in_group(turn: &mut Turn, group: String) -> Bytes {
    const SYNCING: &str = "syncing";
    let group = Str::from(group);
    let joins = |member: &Str| join(&group, member, Bytes::from_static(b"none"));
    let joined = match &*turn.note {
        note if note.as_str() == SYNCING => None,
        _ => heard::<JoinGroupResponse>(&turn.answer, JOIN_VERSION),
    };
    *turn.note = Str::new();
    match joined {
        Some(joined) if joined.error_code == ErrorCode::MEMBER_ID_REQUIRED.0 => joins(&joined.member_id),
        Some(joined) if joined.error_code == 0 && joined.leader == joined.member_id => Bytes::new(),
        Some(joined) if joined.error_code == 0 => {
            *turn.note = Str::from_static(SYNCING);
            let request = SyncGroupRequest {
                group_id: group.clone(),
                generation_id: joined.generation_id,
                member_id: joined.member_id,
                ..Default::default()
            };
            said(SYNC_VERSION, &request)
        }
        _ => joins(&Str::new()),
    }
}

/// Joins with next to nothing, and gives the id back with a lot.
fn grow_group(turn: &mut Turn, group: String) -> Bytes {
    let joined = heard::<JoinGroupResponse>(&turn.answer, JOIN_VERSION);
    let given = joined.filter(|joined| joined.error_code == ErrorCode::MEMBER_ID_REQUIRED.0);
    let (member, bytes) = given.map_or((Str::new(), 10), |joined| (joined.member_id, 400 << 10));
    join(&group.into(), &member, vec![b'm'; bytes].into())
}

/// With as much beside each offset as is taken by default.
fn large_commit(group: String) -> Bytes {
    let partition = |partition_index| commit::Partition {
        partition_index,
        committed_metadata: Some("m".repeat(4096).into()),
        ..Default::default()
    };
    let topic = commit::Topic {
        name: honest::TOPIC.into(),
        partitions: (0..50).map(partition).collect(),
        ..Default::default()
    };
    said(7, &OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() })
}
