//! What the machine can do without a broker: raw writes, loopback, and both together. A broker's figure is a share of these.

mod disk;
mod network;
mod sink;

use crate::report::terminal::{number, table};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

pub use sink::Sink;

#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    pub disk: Vec<disk::Writes>,
    /// One connection, both ends here.
    pub loopback_bytes_per_second: f64,
    pub sinks: Vec<Sink>,
}

/// Takes `each` for each of about a dozen measurements.
pub fn measure(directory: &Path, each: Duration) -> Result<Ceilings> {
    let mut writes = Vec::new();
    for (block, threads) in [(4 << 10, 1), (4 << 10, 4), (64 << 10, 4), (1 << 20, 4)] {
        for synced in [false, true] {
            writes.push(disk::write(directory, block, threads, synced, each)?);
        }
    }
    Ok(Ceilings {
        disk: writes,
        loopback_bytes_per_second: network::loopback(each)?,
        sinks: sink::best_of_each(directory, each)?,
    })
}

/// The best bare sinks, unsynced and synced.
pub fn sinks(directory: &Path, each: Duration) -> Result<Vec<Sink>> {
    sink::best_of_each(directory, each)
}

fn synced(synced: bool) -> String {
    if synced { "O_DIRECT, O_DSYNC" } else { "O_DIRECT" }.to_owned()
}

pub fn text(ceilings: &Ceilings) -> String {
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for writes in &ceilings.disk {
        rows.push(vec![
            format!("raw write, {}, {} at once", kib(writes.block), writes.threads),
            synced(writes.synced),
            number(writes.bytes_per_second / 1e6),
            number(writes.bytes_per_second / writes.block as f64),
            format!("{} us", number(writes.mean_us)),
        ]);
    }
    let loopback = ceilings.loopback_bytes_per_second / 1e6;
    rows.push(vec!["loopback TCP".into(), String::new(), number(loopback), String::new(), String::new()]);
    for sink in &ceilings.sinks {
        rows.push(vec![
            format!(
                "bare sink, {} frames, up to {} at once, {} connections",
                kib(sink::FRAME_LEN),
                sink.frames_at_once,
                sink.connections
            ),
            synced(sink.synced),
            number(sink.bytes_per_second / 1e6),
            number(sink.bytes_per_second / sink::FRAME_LEN as f64),
            String::new(),
        ]);
    }
    table(&["ceiling", "", "MB/s", "per second", "each"], rows)
}

/// A piece of memory as O_DIRECT wants it.
struct Aligned {
    memory: Vec<u8>,
    at: usize,
    len: usize,
}

const ALIGN: usize = 4096;

impl Aligned {
    fn new(len: usize) -> Aligned {
        let mut memory = vec![0; len + ALIGN];
        let at = memory.as_ptr().align_offset(ALIGN);
        // Disks may be quick with zeros.
        let mut word = 0x9e37_79b9_7f4a_7c15u64;
        for byte in memory.iter_mut() {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            *byte = word as u8;
        }
        Aligned { memory, at, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.at..self.at + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.at..self.at + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ceiling_is_measured() {
        // Not the system's temporary directory: that may be a file system without O_DIRECT.
        let program = std::env::current_exe().unwrap();
        let directory = program.with_file_name(format!("ceilings-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let ceilings = measure(&directory, Duration::from_millis(30)).unwrap();
        assert_eq!((ceilings.disk.len(), ceilings.sinks.len()), (8, 2));
        assert!(ceilings.disk.iter().all(|writes| writes.bytes_per_second > 0.0));
        assert!(ceilings.sinks.iter().all(|sink| sink.bytes_per_second > 0.0));
        assert!(ceilings.loopback_bytes_per_second > 0.0);
        std::fs::remove_dir(&directory).expect("nothing is left behind");
    }
}
