//! A producer and a consumer that do nothing wrong, and say how they are served.

use crate::clock::now_ms;
use crate::connection::Connection;
use anyhow::{Context, Result, bail, ensure};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, split_batches, with_scratch};
use corelog_wire::{ErrorCode, Str};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const TOPIC: &str = "honest";
pub const PARTITIONS: i32 = 4;
const RECORDS_PER_BATCH: u64 = 20;
const VALUE_LEN: usize = 500;
const PAUSE: Duration = Duration::from_millis(3);
const DECOMPRESSED_MAX: usize = 8 << 20;

/// The worst since it was last taken.
#[derive(Default)]
pub struct Watch {
    produce_us_max: AtomicU32,
    lag_ms_max: AtomicU32,
    pub produced: AtomicU32,
    pub consumed: AtomicU32,
    pub done: AtomicBool,
}

/// How the two were served for a time.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub produce_ms_max: f64,
    pub lag_ms_max: u32,
}

impl Watch {
    pub fn take(&self) -> Service {
        Service {
            produce_ms_max: f64::from(self.produce_us_max.swap(0, Ordering::Relaxed)) / 1e3,
            lag_ms_max: self.lag_ms_max.swap(0, Ordering::Relaxed),
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Produces until the watch is done. Every partition's values count up from 0.
pub fn produce(address: SocketAddr, watch: &Watch) -> Result<()> {
    let mut connection = Connection::connect(address)?;
    let mut next = [0u64; PARTITIONS as usize];
    let mut value = vec![b'h'; VALUE_LEN];
    for index in (0..PARTITIONS).cycle() {
        if watch.is_done() {
            return Ok(());
        }
        let next = &mut next[index as usize];
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..RECORDS_PER_BATCH {
            value[..8].copy_from_slice(&next.to_be_bytes());
            builder.append(now_ms(), None, Some(&value), &[])?;
            *next += 1;
        }
        let data = PartitionProduceData { index, records: Some(builder.build()?) };
        let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 10_000, topic_data: vec![topic] };
        let asked = Instant::now();
        let response = connection.call(9, &request).context("the honest producer")?;
        let took = asked.elapsed().as_micros() as u32;
        watch.produce_us_max.fetch_max(took, Ordering::Relaxed);
        let answer = &response.responses[0].partition_responses[0];
        ensure!(answer.error_code == 0, "the honest producer: {}", ErrorCode(answer.error_code));
        watch.produced.fetch_add(RECORDS_PER_BATCH as u32, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Consumes until the watch is done and all that was produced has been seen.
pub fn consume(address: SocketAddr, watch: &Watch) -> Result<()> {
    let mut connection = Connection::connect(address)?;
    let mut next = [0i64; PARTITIONS as usize];
    loop {
        let end = watch.is_done().then(|| watch.produced.load(Ordering::Relaxed));
        if end.is_some_and(|end| next.iter().sum::<i64>() >= i64::from(end)) {
            return Ok(());
        }
        let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
            partition,
            fetch_offset: next[partition as usize],
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic = FetchTopic {
            topic: Str::from_static(TOPIC),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let request = FetchRequest {
            max_wait_ms: 200,
            min_bytes: 1,
            max_bytes: 4 << 20,
            topics: vec![topic],
            ..Default::default()
        };
        let response = connection.call(11, &request).context("the honest consumer")?;
        ensure!(response.error_code == 0, "the honest consumer: {}", ErrorCode(response.error_code));
        for answer in response.responses.iter().flat_map(|topic| &topic.partitions) {
            ensure!(answer.error_code == 0, "the honest consumer: {}", ErrorCode(answer.error_code));
            let next = &mut next[answer.partition_index as usize];
            for batch in answer.records.iter().flatten().flat_map(split_batches).map_while(Result::ok) {
                if batch.header().last_offset() < *next {
                    continue;
                }
                batch.verify_checksum()?;
                with_scratch(|scratch| {
                    for record in batch.records(scratch, DECOMPRESSED_MAX)? {
                        let record = record?;
                        let number = record
                            .value
                            .and_then(|value| value.first_chunk())
                            .map(|n| u64::from_be_bytes(*n));
                        if number != Some(*next as u64) {
                            bail!(
                                "the honest consumer: {number:?} in partition {} where {next} is next",
                                answer.partition_index
                            );
                        }
                        *next += 1;
                        watch.consumed.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })?;
                let lag = now_ms() - batch.header().max_timestamp;
                watch.lag_ms_max.fetch_max(lag.clamp(0, i64::from(u32::MAX)) as u32, Ordering::Relaxed);
            }
        }
    }
}
