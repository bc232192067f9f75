//! What a broker that was killed finds, and has to go through before it serves.

use crate::compare::subject::Running;
use crate::host::cache::{self, PageCache};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Found {
    /// Corelog: batches that were in a journal and not in a segment yet. Kafka: segments that were not known to be on disk, which it
    /// checks from their beginning.
    pub to_recover: u64,
    /// Of the broker's files, what is in memory.
    pub in_memory: u64,
    /// In the whole machine.
    pub dirty: u64,
}

/// In the last moment before the kill.
pub struct Before {
    page_cache: PageCache,
    /// What only a living broker tells.
    in_journal: Option<u64>,
}

impl Before {
    pub fn now(running: &Running) -> Result<Before> {
        let page_cache = PageCache::now();
        let in_journal = match running.kind.is_corelog() {
            true => Some(metric(running.broker()?.admin, "corelog_dirty_bytes")?),
            false => None,
        };
        Ok(Before { page_cache, in_journal })
    }

    /// After the kill.
    pub fn found(self, running: &Running) -> Result<Found> {
        let data = running.directory.join("data");
        let to_recover = match self.in_journal {
            Some(bytes) => bytes,
            None => unflushed(&data).with_context(|| format!("Kafka's logs in {}", data.display()))?,
        };
        Ok(Found { to_recover, in_memory: cache::resident(&data)?, dirty: self.page_cache.dirty })
    }
}

/// The sum of a metric of the broker's, over all cores.
fn metric(admin: SocketAddr, name: &str) -> Result<u64> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&admin, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("reading http://{admin}/metrics"))?;
    sum(&text, name).with_context(|| format!("http://{admin}/metrics has no {name}"))
}

fn sum(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with('{') || rest.starts_with(' ');
        is_it.then(|| rest.rsplit(' ').next()?.trim().parse::<f64>().ok())?
    };
    let values: Vec<f64> = text.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

/// Bytes of the segments that Kafka goes through after an unclean end: in each log, from the one that has the recovery point on.
fn unflushed(data: &Path) -> Result<u64> {
    let points = recovery_points(&fs::read_to_string(data.join("recovery-point-offset-checkpoint"))?);
    let mut bytes = 0;
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // The controller's own log is not among them.
        if !path.is_dir() || name.starts_with("__cluster_metadata") {
            continue;
        }
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(base) = name.strip_suffix(".log").and_then(|base| base.parse::<u64>().ok()) {
                segments.insert(base, entry.metadata()?.len());
            }
        }
        bytes += from(&segments, points.get(&name).copied().unwrap_or(0));
    }
    Ok(bytes)
}

/// Sizes of segments by their base offset, from the one on that the offset is in.
fn from(segments: &BTreeMap<u64, u64>, offset: u64) -> u64 {
    let first = segments.range(..=offset).next_back().map_or(0, |(base, _)| *base);
    segments.range(first..).map(|(_, len)| len).sum()
}

/// By `topic-partition`: a version, a count, and lines of topic, partition and offset.
fn recovery_points(text: &str) -> HashMap<String, u64> {
    let point = |line: &str| {
        let mut fields = line.split_whitespace();
        let (topic, partition, offset) = (fields.next()?, fields.next()?, fields.next()?);
        Some((format!("{topic}-{partition}"), offset.parse().ok()?))
    };
    text.lines().skip(2).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_goes_through_what_it_does_not_know_to_be_on_disk() {
        let program = std::env::current_exe().unwrap();
        let data = program.with_file_name(format!("recovery-{}", std::process::id()));
        let write = |path: &str, len: usize| {
            let path = data.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; len]).unwrap();
        };
        // Known up to the middle of the second segment; never flushed; whole.
        write("a-b-0/00000000000000000000.log", 1000);
        write("a-b-0/00000000000000000050.log", 300);
        write("a-b-0/00000000000000000080.log", 20);
        write("a-b-0/00000000000000000080.index", 9999);
        write("a-b-1/00000000000000000000.log", 7);
        write("a-b-2/00000000000000000000.log", 500);
        write("a-b-2/00000000000000000040.log", 0);
        write("__cluster_metadata-0/00000000000000000000.log", 4000);
        fs::write(data.join("recovery-point-offset-checkpoint"), "0\n2\na-b 0 79\na-b 2 40\n").unwrap();
        assert_eq!(unflushed(&data).unwrap(), 320 + 7);
        fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn a_metric_is_summed_over_cores() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE corelog_dirty_bytes gauge\ncorelog_dirty_bytes{core=\"0\"} 120\ncorelog_dirty_bytes{core=\"1\"} 3\ncorelog_dirty_bytes_other 7\n";
        assert_eq!(sum(text, "corelog_dirty_bytes"), Some(123));
        assert_eq!(sum(text, "corelog_nothing"), None);
    }
}
