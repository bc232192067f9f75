//! Connections by the thousand that hold on to what they get.

use super::frames::{connect, framed};
use super::honest::PARTITIONS;
use anyhow::{Result, bail};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::{Str, frame};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const OPENING_THREADS: usize = 4;
/// What a half-open connection announces: as much as the broker takes by default (`socket.request.max.bytes`).
pub const ANNOUNCED: i32 = 100 << 20;
const FETCHES_PER_SLOW_READER: usize = 30;
pub const BULK_TOPIC: &str = "bulk";

/// Opens `count` connections and sends each of them `first`.
pub fn open(address: SocketAddr, count: usize, first: &[u8]) -> Result<Vec<TcpStream>> {
    let mut all = Vec::with_capacity(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..OPENING_THREADS)
            .map(|thread| {
                let share = count / OPENING_THREADS + usize::from(thread < count % OPENING_THREADS);
                scope.spawn(move || {
                    let mut open = Vec::with_capacity(share);
                    while open.len() < share {
                        let Some(mut stream) = connect(address) else {
                            return Err(open.len());
                        };
                        if stream.write_all(first).is_ok() {
                            open.push(stream);
                        }
                    }
                    Ok(open)
                })
            })
            .collect();
        for thread in threads {
            match thread.join().unwrap_or(Err(0)) {
                Ok(open) => all.extend(open),
                Err(reached) => bail!(
                    "no further connection after {reached} of {count} on one of {OPENING_THREADS} threads"
                ),
            }
        }
        Ok(all)
    })
}

/// The beginning of a frame of [`ANNOUNCED`] bytes.
pub fn half_open_frame() -> Vec<u8> {
    let mut bytes = ANNOUNCED.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 1, 0, 1]);
    bytes
}

/// Many fetches at once, each of as much as there is.
pub fn greedy_fetches() -> Result<Vec<u8>> {
    let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
        partition,
        fetch_offset: 0,
        partition_max_bytes: 50 << 20,
        ..Default::default()
    });
    let topic = FetchTopic {
        topic: Str::from_static(BULK_TOPIC),
        partitions: partitions.collect(),
        ..Default::default()
    };
    let request = FetchRequest { max_bytes: 50 << 20, topics: vec![topic], ..Default::default() };
    let mut bytes = Vec::new();
    for id in 0..FETCHES_PER_SLOW_READER {
        frame::request(&request, 11, id as i32, None)?.iter().for_each(|part| bytes.extend_from_slice(part));
    }
    Ok(bytes)
}

/// Reads a little from each, again and again.
pub fn sip(streams: &mut [TcpStream], until: Instant) {
    let mut cup = [0; 100];
    for stream in streams.iter() {
        let _ = stream.set_nonblocking(true);
    }
    while Instant::now() < until {
        for stream in &mut *streams {
            let _ = stream.read(&mut cup);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A good request, one byte at a time to each. Returns how many of the connections are still open.
pub fn drip(streams: &mut [TcpStream], until: Instant) -> usize {
    let frame = framed(&[super::frames::header(3, 1), vec![0; 4000]].concat());
    let mut at = 0;
    while Instant::now() < until {
        for stream in &mut *streams {
            let _ = stream.write_all(&frame[at % frame.len()..][..1]);
        }
        at += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    streams.iter_mut().filter_map(|stream| stream.write_all(&[0]).ok()).count()
}
