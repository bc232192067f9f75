//! The bare sink: receives frames, writes them to disk, answers each with eight bytes. As much of a broker as no broker can do without.
//!
//! It writes together what has come together, as a broker may: one that writes each frame for itself waits for the disk once a frame, and
//! is passed by brokers that do not.

use super::Aligned;
use super::disk::Ring;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

pub const FRAME_LEN: usize = 64 << 10;
/// Frames without an answer, of each connection, at least; as many as go into two writes.
const WINDOW_MIN: usize = 8;
const ANSWER_LEN: usize = 8;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sink {
    pub connections: usize,
    /// So many are written at once, if they are there.
    pub frames_at_once: usize,
    /// Whether frames are on stable storage when they are answered.
    pub synced: bool,
    pub bytes_per_second: f64,
}

/// Unsynced and synced, each with the connections and depth that are best.
pub fn best_of_each(directory: &Path, each: Duration) -> Result<Vec<Sink>> {
    let best = |synced: bool| -> Result<Sink> {
        let mut tried = Vec::new();
        for (connections, frames_at_once) in [(1, 1), (2, 1), (4, 1), (1, 16), (2, 16), (4, 16)] {
            tried.push(run(directory, connections, frames_at_once, synced, each)?);
        }
        let best = tried.into_iter().max_by(|a, b| a.bytes_per_second.total_cmp(&b.bytes_per_second));
        best.context("some were tried")
    };
    Ok(vec![best(false)?, best(true)?])
}

fn run(
    directory: &Path,
    connections: usize,
    frames_at_once: usize,
    synced: bool,
    long: Duration,
) -> Result<Sink> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut serving = Vec::new();
    let mut senders = Vec::new();
    for at in 0..connections {
        let ring = Ring::create(directory, &format!("sink-{at}"), synced)?;
        senders.push(TcpStream::connect(address)?);
        let (stream, _) = listener.accept()?;
        serving.push(thread::spawn(move || serve(stream, ring, frames_at_once)));
    }
    let started = Instant::now();
    let until = started + long;
    let window = WINDOW_MIN.max(2 * frames_at_once);
    let sending: Vec<_> =
        senders.into_iter().map(|sender| thread::spawn(move || send(sender, window, until))).collect();
    let mut frames = 0;
    for thread in sending {
        frames += thread.join().expect("it does not panic")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    for thread in serving {
        thread.join().expect("it does not panic")?;
    }
    let bytes_per_second = frames as f64 * FRAME_LEN as f64 / seconds;
    Ok(Sink { connections, frames_at_once, synced, bytes_per_second })
}

fn serve(mut stream: TcpStream, mut ring: Ring, frames_at_once: usize) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut memory = Aligned::new(FRAME_LEN * frames_at_once);
    let answers = vec![0; ANSWER_LEN * frames_at_once];
    loop {
        let mut frames = 0;
        while frames == 0 || frames < frames_at_once && arrived(&stream) >= FRAME_LEN {
            let frame = &mut memory.bytes_mut()[frames * FRAME_LEN..][..FRAME_LEN];
            if stream.read_exact(frame).is_err() {
                // The sender has gone, after all its answers.
                return Ok(());
            }
            frames += 1;
        }
        ring.write(&memory.bytes()[..frames * FRAME_LEN])?;
        stream.write_all(&answers[..frames * ANSWER_LEN])?;
    }
}

/// Bytes that can be read without waiting.
fn arrived(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel fills in `bytes`, which lives as long as the call.
    unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &mut bytes) };
    bytes.max(0) as usize
}

/// Returns how many frames were answered.
fn send(mut stream: TcpStream, window: usize, until: Instant) -> Result<u64> {
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
        if open == window {
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
