//! Batches in memory, by topic and partition. The oldest go when there are too many bytes.

use bytes::{Buf, Bytes};
use corelog_wire::Str;
use corelog_wire::records::BatchHeader;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Logs {
    inner: Mutex<Inner>,
    /// Told when something was appended.
    appended: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    topics: HashMap<Str, Vec<Log>>,
    made: HashMap<Str, Instant>,
    /// Of all logs, the order of appending: topic and partition.
    order: VecDeque<(Str, usize)>,
    bytes: usize,
}

#[derive(Default)]
struct Log {
    batches: VecDeque<(i64, Bytes)>,
    end: i64,
}

/// Of one partition.
pub struct Range {
    pub start: i64,
    pub end: i64,
}

impl Logs {
    pub fn new(bytes_max: usize) -> Logs {
        Logs { bytes_max, ..Default::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was not there yet.
    pub fn create(&self, topic: Str, partitions: usize) -> bool {
        let mut inner = self.lock();
        let is_new = !inner.topics.contains_key(&topic);
        if is_new {
            inner.made.insert(topic.clone(), Instant::now());
            inner.topics.insert(topic, (0..partitions).map(|_| Log::default()).collect());
        }
        is_new
    }

    pub fn delete(&self, topic: &str) -> bool {
        let mut inner = self.lock();
        let Some(logs) = inner.topics.remove(topic) else { return false };
        inner.made.remove(topic);
        inner.order.retain(|(of, _)| of.as_str() != topic);
        inner.bytes -= logs.iter().flat_map(|log| &log.batches).map(|(_, batch)| batch.len()).sum::<usize>();
        true
    }

    pub fn topics(&self) -> Vec<Str> {
        self.lock().topics.keys().cloned().collect()
    }

    /// How long ago it was made.
    pub fn age(&self, topic: &str) -> Option<Duration> {
        self.lock().made.get(topic).map(Instant::elapsed)
    }

    pub fn partitions(&self, topic: &str) -> Option<usize> {
        self.lock().topics.get(topic).map(Vec::len)
    }

    pub fn range(&self, topic: &str, partition: i32) -> Option<Range> {
        let inner = self.lock();
        let log = inner.topics.get(topic)?.get(usize::try_from(partition).ok()?)?;
        Some(Range { start: log.start(), end: log.end })
    }

    /// Appends batches; returns the first one's offset. None if there is no such partition, or these are no batches.
    pub fn append(&self, topic: &Str, partition: i32, mut records: Bytes) -> Option<i64> {
        let at = usize::try_from(partition).ok()?;
        let mut inner = self.lock();
        let mut base = None;
        while !records.is_empty() {
            let header = BatchHeader::parse(&records).ok()?;
            if header.size() > records.len() {
                return None;
            }
            let batch = records.split_to(header.size());
            let log = inner.topics.get_mut(topic)?.get_mut(at)?;
            base.get_or_insert(log.end);
            inner.bytes += batch.len();
            let log = inner.topics.get_mut(topic)?.get_mut(at)?;
            log.batches.push_back((log.end, batch));
            log.end += i64::from(header.last_offset_delta) + 1;
            inner.order.push_back((topic.clone(), at));
        }
        while inner.bytes > self.bytes_max {
            let Some((topic, at)) = inner.order.pop_front() else { break };
            let oldest = inner.topics.get_mut(&topic).and_then(|logs| logs[at].batches.pop_front());
            inner.bytes -= oldest.map_or(0, |(_, batch)| batch.len());
        }
        drop(inner);
        self.appended.notify_all();
        base
    }

    /// Reads until there are `min` bytes, or the time is over. The parts of each partition asked for, in the order of asking.
    pub fn read(&self, asks: &[Ask], (min, max): (usize, usize), wait: Duration) -> Vec<Found> {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        loop {
            let mut left = max;
            let found: Vec<Found> = asks.iter().map(|ask| inner.read(ask, &mut left)).collect();
            let bytes = max - left;
            let now = Instant::now();
            if bytes >= min
                || now >= until
                || found.iter().any(|found| !matches!(found, Found::Batches { .. }))
            {
                return found;
            }
            let waited = self.appended.wait_timeout(inner, until - now);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

pub struct Ask {
    pub topic: Str,
    pub partition: i32,
    pub offset: i64,
    pub bytes_max: usize,
}

pub enum Found {
    Batches { end: i64, parts: Vec<Bytes> },
    OutOfRange,
    UnknownPartition,
}

impl Inner {
    fn read(&self, ask: &Ask, left: &mut usize) -> Found {
        let partition = usize::try_from(ask.partition).ok();
        let log = self.topics.get(&ask.topic).and_then(|logs| logs.get(partition?));
        let Some(log) = log else { return Found::UnknownPartition };
        if ask.offset < log.start() || ask.offset > log.end {
            return Found::OutOfRange;
        }
        let first = log.batches.partition_point(|(base, _)| *base <= ask.offset).saturating_sub(1);
        let (mut parts, mut bytes) = (Vec::new(), 0);
        if ask.offset < log.end {
            for (base, batch) in log.batches.range(first..) {
                if bytes + batch.len() > ask.bytes_max.min(*left) && bytes > 0 || *left == 0 {
                    break;
                }
                bytes += batch.len();
                // The offset is not under the checksum: only it has to be made anew.
                parts.push(Bytes::copy_from_slice(&base.to_be_bytes()));
                let mut rest = batch.clone();
                rest.advance(8);
                parts.push(rest);
            }
        }
        *left = left.saturating_sub(bytes);
        Found::Batches { end: log.end, parts }
    }
}

impl Log {
    fn start(&self) -> i64 {
        self.batches.front().map_or(self.end, |(base, _)| *base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::records::{BatchBuilder, BatchOptions};

    fn batch(records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..records {
            builder.append(0, None, Some(&[7; 100]), &[]).unwrap();
        }
        builder.build().unwrap()
    }

    fn ask(offset: i64) -> [Ask; 1] {
        [Ask { topic: "t".into(), partition: 0, offset, bytes_max: 1 << 20 }]
    }

    #[test]
    fn offsets_follow_and_the_oldest_go() {
        let logs = Logs::new(3 * batch(5).len());
        assert!(logs.create("t".into(), 1) && !logs.create("t".into(), 1));
        for turn in 0..10 {
            assert_eq!(logs.append(&"t".into(), 0, batch(5)), Some(turn * 5));
        }
        let range = logs.range("t", 0).unwrap();
        assert_eq!((range.start, range.end), (35, 50));
        let found = logs.read(&ask(42), (1, 1 << 20), Duration::ZERO);
        let [Found::Batches { end: 50, parts }] = found.as_slice() else { panic!("there are two batches") };
        assert_eq!(BatchHeader::parse(&parts.concat()).unwrap().base_offset, 40);
        assert_eq!(parts.len(), 4);
        assert!(matches!(logs.read(&ask(34), (1, 1), Duration::ZERO)[..], [Found::OutOfRange]));
        assert!(logs.delete("t") && logs.lock().bytes == 0);
    }
}
