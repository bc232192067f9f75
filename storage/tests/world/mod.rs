//! What the storage's tests share: small configurations, batches, starting a shard's storage.
#![allow(dead_code)]

use bytes::Bytes;
use corelog_io::sim::{Process, Sim};
use corelog_storage::{
    AppendBatch, BatchKind, Log, LogConfig, LogId, Read, Recovered, ShardStorage, StorageConfig,
    StorageError, read_journals,
};
use corelog_wire::Uuid;
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer, internal_batch, split_batches};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

pub const DIR: &str = "/data";

/// Small files, so that few appends turn everything over.
pub fn config(shard: usize, shards: usize) -> StorageConfig {
    StorageConfig {
        journal_file_bytes: 256 << 10,
        journal_files: 3,
        tail_cache_bytes: 1 << 20,
        group_bytes_max: 64 << 10,
        min_free_bytes: 1 << 20,
        files_open_max: 16,
        flush_concurrency: 4,
        marker_delay: Duration::from_millis(20),
        ..StorageConfig::new(DIR, shard, shards)
    }
}

pub fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 128 << 10, ..LogConfig::default() }
}

pub fn log_id(n: u8) -> LogId {
    LogId { topic: Uuid([n; 16]), partition: i32::from(n) }
}

/// Reads all journals and opens one storage for each shard, on this core.
pub async fn open_all(
    shards: usize,
    config: impl Fn(usize) -> StorageConfig,
    owner: impl Fn(LogId) -> usize,
) -> Result<Vec<Rc<ShardStorage>>, StorageError> {
    let mut parts: Vec<Vec<Recovered>> = (0..shards).map(|_| Vec::new()).collect();
    for reader in 0..shards {
        let found = read_journals(Path::new(DIR), reader, shards).await?;
        for (shard, part) in found.split(shards, &owner).into_iter().enumerate() {
            parts[shard].push(part);
        }
    }
    let mut storages = Vec::new();
    for (shard, parts) in parts.into_iter().enumerate() {
        storages.push(ShardStorage::open(config(shard), Recovered::merge(parts)).await?);
    }
    Ok(storages)
}

/// One shard with the small configuration.
pub async fn open() -> Rc<ShardStorage> {
    open_as(config(0, 1)).await
}

/// One shard.
pub async fn open_as(config: StorageConfig) -> Rc<ShardStorage> {
    open_all(1, |_| config.clone(), |_| 0).await.expect("the storage opens").remove(0)
}

/// A batch with one record for each value, all at `timestamp`.
pub fn batch(values: &[&[u8]], timestamp: i64) -> Bytes {
    build(values, timestamp, None)
}

pub fn produced(values: &[&[u8]], timestamp: i64, id: i64, epoch: i16, base_sequence: i32) -> Bytes {
    build(values, timestamp, Some(Producer { id, epoch, base_sequence }))
}

fn build(values: &[&[u8]], timestamp: i64, producer: Option<Producer>) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for value in values {
        builder.append(timestamp, None, Some(value), &[]).expect("the record fits");
    }
    builder.build().expect("the batch can be built")
}

pub fn internal(payload: &[u8]) -> Bytes {
    internal_batch(0, 0, 0, payload)
}

pub fn client(bytes: Bytes) -> AppendBatch {
    AppendBatch { bytes, kind: BatchKind::Client, leader_epoch: 0 }
}

/// Runs `work` in a process of one core, then ends it.
pub fn run<F: Future<Output = ()> + 'static>(sim: &Sim, machine: &Process, work: F) {
    let done = Rc::new(RefCell::new(false));
    let work = Rc::new(RefCell::new(Some(work)));
    let flag = Rc::clone(&done);
    machine.start(1, move |_| {
        let work = work.borrow_mut().take();
        let flag = Rc::clone(&flag);
        async move {
            if let Some(work) = work {
                work.await;
            }
            *flag.borrow_mut() = true;
        }
    });
    while !*done.borrow() {
        assert!(sim.run_steps(1) > 0, "stuck");
    }
}

pub async fn append(log: &Log, bytes: Bytes) -> i64 {
    let appended = log.append(client(bytes)).await.expect("it is taken");
    appended.durable.await.expect("it becomes durable");
    appended.base_offset
}

pub async fn read_all(log: &Log) -> Vec<(i64, Bytes)> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.high_watermark() {
        let read = log.read(offset, 100 << 10, true).await.expect("it can be read");
        assert!(read.len > 0, "there is something at {offset}");
        found.extend(batches(&read));
        offset = read.next_offset;
    }
    found
}

/// Base offset and bytes of each batch.
pub fn batches(read: &Read) -> Vec<(i64, Bytes)> {
    let whole = Bytes::from(read.parts.concat());
    assert_eq!(whole.len(), read.len);
    split_batches(&whole)
        .map(|b| b.expect("whole batches"))
        .map(|b| {
            b.verify_checksum().expect("sound batches");
            (b.header().base_offset, b.into_bytes())
        })
        .collect()
}
