//! Loopback TCP: one connection, one thread at each end.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CHUNK_LEN: usize = 64 << 10;

/// Bytes a second.
pub fn loopback(long: Duration) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let receiving = thread::spawn(move || -> Result<u64> {
        let mut buffer = vec![0; CHUNK_LEN];
        let mut bytes = 0;
        loop {
            match receiver.read(&mut buffer)? {
                0 => return Ok(bytes),
                read => bytes += read as u64,
            }
        }
    });
    let started = Instant::now();
    let chunk = vec![7; CHUNK_LEN];
    while started.elapsed() < long {
        sender.write_all(&chunk)?;
    }
    drop(sender);
    let bytes = receiving.join().expect("it does not panic")?;
    Ok(bytes as f64 / started.elapsed().as_secs_f64())
}
