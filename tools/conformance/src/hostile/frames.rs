//! Frames that no client should send.

use crate::random::Random;
use corelog_wire::testing::{CASES, Gen, Role};
use corelog_wire::{ApiKey, RequestHeader, Str, Writer};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A hostile client waits no longer for an answer.
const PATIENCE: Duration = Duration::from_millis(20);

/// APIs that a random request may really call: those that change nothing, and those that fail without the right names. Others would make
/// topics and groups of random names without end, which is a matter of quotas and not of bytes.
const MAY_SUCCEED: [ApiKey; 14] = [
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::ApiVersions,
    ApiKey::OffsetFetch,
    ApiKey::Heartbeat,
    ApiKey::SyncGroup,
    ApiKey::LeaveGroup,
    ApiKey::DescribeGroups,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeLogDirs,
];

pub fn header(key: i16, version: i16) -> Vec<u8> {
    let mut w = Writer::new();
    let header = RequestHeader {
        api_key: key,
        api_version: version,
        correlation_id: 1,
        client_id: Some(Str::from_static("hostile")),
    };
    header.encode(&mut w).expect("it is small");
    w.into_bytes().to_vec()
}

pub fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as i32).to_be_bytes(), content].concat()
}

/// How many frames went out, and how many connections were needed for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub frames: u64,
    pub connections: u64,
}

/// Random requests of all kinds, most of them damaged, until the time is over.
pub fn random(address: SocketAddr, seed: u64, until: Instant) -> Sent {
    let mut random = Random::new(seed);
    let mut sent = Sent::default();
    let mut stream = None;
    while Instant::now() < until {
        let frame = random_frame(&mut random);
        if stream.is_none() {
            stream = connect(address);
            sent.connections += 1;
        }
        let Some(open) = &mut stream else { continue };
        sent.frames += 1;
        // Some hang up without waiting.
        if open.write_all(&frame).is_err() || random.below(8) == 0 || !answered(open) {
            stream = None;
        }
    }
    sent
}

fn random_frame(random: &mut Random) -> Vec<u8> {
    if random.below(10) == 0 {
        let len = random.log_uniform(1, 5000) as usize;
        let bytes = random.bytes(len);
        // With a length that is true, or with none.
        return if random.below(2) == 0 { framed(&bytes) } else { bytes };
    }
    let case = loop {
        let case = &CASES[random.below(CASES.len() as u64) as usize];
        if let Role::Request(key) = case.role {
            break (case, key);
        }
    };
    let (case, key) = case;
    let version = random.between(case.min_version as u64, case.max_version as u64) as i16;
    let body = (case.sample)(&mut Gen::new(random.bits()), version);
    let mut content = header(key.into(), version);
    let body_at = content.len();
    content.extend_from_slice(&body);
    let damage = if MAY_SUCCEED.contains(&key) { random.below(6) } else { 1 + random.below(4) };
    match damage {
        1 => content.truncate(body_at + random.below((content.len() - body_at).max(1) as u64) as usize),
        2 => {
            let at = random.below(content.len() as u64) as usize;
            content[at] ^= 1 << random.below(8);
            content.truncate(content.len() - 1);
        }
        3 => {
            // A length that is far too large, somewhere.
            let at = body_at + random.below((content.len() - body_at).max(1) as u64) as usize;
            content.truncate(at);
            content.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        }
        4 => {
            let at = body_at + random.below((content.len() - body_at).max(1) as u64) as usize;
            content.truncate(at);
            content.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
        _ => {}
    }
    let mut frame = framed(&content);
    if random.below(10) == 0 {
        let stated = content.len() as i64 + random.below(64) as i64 - 32;
        frame[..4].copy_from_slice(&(stated.max(0) as i32).to_be_bytes());
    }
    frame
}

/// Lengths that cannot be, and arrays of 2^31-1 elements or with lengths that do not end, in the oldest and newest version of every API.
pub fn impossible() -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for length in [-1, i32::MIN, i32::MAX, (100 << 20) + 1, 0, 1, 7] {
        frames.push([&length.to_be_bytes()[..], &[0; 64]].concat());
    }
    for case in CASES {
        let Role::Request(key) = case.role else { continue };
        for version in [case.min_version, case.max_version] {
            let sample = (case.sample)(&mut Gen::new(7), version);
            let front = header(key.into(), version);
            for at in 0..sample.len().min(40) {
                for length in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80; 12]] {
                    frames.push(framed(&[&front, &sample[..at], length].concat()));
                }
            }
        }
    }
    // Nested arrays that each claim as many elements as there are bytes.
    for (key, version) in [(3, 1), (0, 3), (1, 4), (19, 2), (8, 2), (11, 0), (2, 1)] {
        let mut content = header(key, version);
        for _ in 0..5000 {
            content.extend_from_slice(&60_000i32.to_be_bytes());
        }
        frames.push(framed(&content));
    }
    // One topic after the other with an empty name: as many as fit into a frame.
    let mut content = header(3, 1);
    content.extend_from_slice(&500_000i32.to_be_bytes());
    content.resize(content.len() + 1_000_000, 0);
    frames.push(framed(&content));
    frames
}

/// Sends every frame on a connection of its own, some hundreds at a time, and hangs up.
pub fn send_each(address: SocketAddr, frames: &[Vec<u8>]) -> Sent {
    let mut sent = Sent::default();
    for some in frames.chunks(200) {
        let mut open = Vec::new();
        for frame in some {
            let Some(mut stream) = connect(address) else { continue };
            sent.connections += 1;
            sent.frames += u64::from(stream.write_all(frame).is_ok());
            open.push(stream);
        }
        for stream in open.iter_mut().take(20) {
            answered(stream);
        }
    }
    sent
}

pub fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
    Some(stream)
}

/// Whether the connection is still good: takes some of an answer, if one comes.
fn answered(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64 << 10]) {
        Ok(read) => read > 0,
        Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
    }
}
