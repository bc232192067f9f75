//! The bare sink: receives frames, writes each to disk, answers with eight bytes. As much of a broker as no broker can do without.

use super::Aligned;
use super::disk::Ring;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub const FRAME_LEN: usize = 64 << 10;
/// Frames without an answer, of each connection.
const WINDOW: usize = 8;
const ANSWER_LEN: usize = 8;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sink {
    pub connections: usize,
    /// Whether frames are on stable storage when they are answered.
    pub synced: bool,
    pub bytes_per_second: f64,
}

/// Unsynced and synced, each with the number of connections that is best.
pub fn best_of_each(directory: &Path, each: Duration) -> Result<Vec<Sink>> {
    let best = |synced: bool| -> Result<Sink> {
        let mut tried = Vec::new();
        for connections in [1, 2, 4] {
            tried.push(run(directory, connections, synced, each)?);
        }
        let best = tried.into_iter().max_by(|a, b| a.bytes_per_second.total_cmp(&b.bytes_per_second));
        best.context("some were tried")
    };
    Ok(vec![best(false)?, best(true)?])
}

fn run(directory: &Path, connections: usize, synced: bool, long: Duration) -> Result<Sink> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut serving = Vec::new();
    let mut senders = Vec::new();
    for at in 0..connections {
        let ring = Ring::create(directory, &format!("sink-{at}"), synced)?;
        senders.push(TcpStream::connect(address)?);
        let (stream, _) = listener.accept()?;
        serving.push(thread::spawn(move || serve(stream, ring)));
    }
    let started = Instant::now();
    let until = started + long;
    let sending: Vec<_> =
        senders.into_iter().map(|sender| thread::spawn(move || send(sender, until))).collect();
    let mut frames = 0;
    for thread in sending {
        frames += thread.join().expect("it does not panic")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    for thread in serving {
        thread.join().expect("it does not panic")?;
    }
    Ok(Sink { connections, synced, bytes_per_second: frames as f64 * FRAME_LEN as f64 / seconds })
}

fn serve(mut stream: TcpStream, mut ring: Ring) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut frame = Aligned::new(FRAME_LEN);
    loop {
        if stream.read_exact(frame.bytes_mut()).is_err() {
            // The sender has gone.
            return Ok(());
        }
        ring.write(frame.bytes())?;
        stream.write_all(&[0; ANSWER_LEN])?;
    }
}

/// Returns how many frames were answered.
fn send(mut stream: TcpStream, until: Instant) -> Result<u64> {
    stream.set_nodelay(true)?;
    let frame = Aligned::new(FRAME_LEN);
    let mut answer = [0; ANSWER_LEN];
    let (mut answered, mut open) = (0, 0);
    loop {
        stream.write_all(frame.bytes())?;
        open += 1;
        if Instant::now() >= until {
            break;
        }
        if open == WINDOW {
            stream.read_exact(&mut answer)?;
            (answered, open) = (answered + 1, open - 1);
        }
    }
    for _ in 0..open {
        stream.read_exact(&mut answer)?;
        answered += 1;
    }
    Ok(answered)
}
