//! What the targets share: numbers that are nearly right, batches, and a start on the files they made.

use corelog_storage::format::PAGE;
use corelog_storage::{
    LogConfig, LogId, RaftIndex, ShardStorage, StorageConfig, StorageError, read_journals,
};
use corelog_wire::Uuid;
use corelog_wire::records::{ATTRIBUTES_AT, BATCH_HEADER_LEN, BatchHeader, LOG_OVERHEAD, MAGIC_V2};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::path::Path;

pub const DIR: &str = "/data";
/// Bytes of one journal file, at the most.
pub const JOURNAL_FILE_BYTES: usize = 16 * PAGE;
/// The topic's name, for its directory.
pub const TOPIC: &str = "topic";

pub fn log_id(n: u8) -> LogId {
    LogId { topic: Uuid([n; 16]), partition: n.into() }
}

/// A number in relation to the one that would be right. Most inputs are right or nearly so; some are extreme.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Near(i8);

impl Near {
    pub fn to(self, right: u64) -> u64 {
        match self.0 {
            i8::MIN => 0,
            -127 => i64::MAX as u64,
            126 => i64::MIN as u64,
            i8::MAX => u64::MAX,
            by => right.wrapping_add_signed(i64::from(by) / 16),
        }
    }
}

/// A record batch; of zeros, a sound one with one record's place in the log.
#[derive(Arbitrary, Debug)]
pub struct Batch {
    base_offset: Near,
    length: Near,
    last_offset_delta: i8,
    attributes: i16,
    leader_epoch: Near,
    timestamp: Near,
    producer: Near,
    base_sequence: Near,
    records: Vec<u8>,
    crc: Near,
}

impl Batch {
    pub fn encode(&self, base_offset: u64) -> Vec<u8> {
        let mut batch = vec![0; BATCH_HEADER_LEN];
        batch.extend_from_slice(&self.records);
        let mut header = BatchHeader {
            base_offset: self.base_offset.to(base_offset) as i64,
            batch_length: self.length.to((batch.len() - LOG_OVERHEAD) as u64) as i32,
            partition_leader_epoch: self.leader_epoch.to(0) as i32,
            magic: MAGIC_V2,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta: match self.last_offset_delta {
                i8::MIN => i32::MIN,
                i8::MAX => i32::MAX,
                delta => delta.into(),
            },
            base_timestamp: 1,
            max_timestamp: self.timestamp.to(1) as i64,
            producer_id: self.producer.to(u64::MAX) as i64,
            producer_epoch: 0,
            base_sequence: self.base_sequence.to(0) as i32,
            records_count: i32::from(self.last_offset_delta) + 1,
        };
        header.write(batch.first_chunk_mut().expect("a header's bytes"));
        header.crc = self.crc.to(crc32c::crc32c(&batch[ATTRIBUTES_AT..]).into()) as u32;
        header.write(batch.first_chunk_mut().expect("a header's bytes"));
        batch
    }
}

fn config() -> StorageConfig {
    StorageConfig {
        journal_file_bytes: JOURNAL_FILE_BYTES as u64,
        journal_files: 2,
        tail_cache_bytes: 1 << 20,
        group_bytes_max: 16 << 10,
        min_free_bytes: 0,
        ..StorageConfig::new(DIR, 0, 1)
    }
}

/// A log that is served: where it ends.
pub type Served = (LogId, i64, RaftIndex);

/// Starts on what is in [`DIR`], reads every log, and stops. `Err`: it did not start, or could not stop cleanly.
pub async fn serve() -> Result<Vec<Served>, StorageError> {
    let recovered = read_journals(Path::new(DIR), 0, 1).await?;
    let storage = ShardStorage::open(config(), recovered).await?;
    let mut served = Vec::new();
    for id in storage.unclaimed() {
        let log = storage.log(id, TOPIC, LogConfig::default());
        let mut at = log.log_start_offset();
        while let Ok(read) = log.read(at, 1 << 20, true).await
            && read.next_offset != at
        {
            assert!(read.next_offset > at, "a read goes forward");
            at = read.next_offset;
        }
        let _ = (log.offset_for_timestamp(1).await, log.max_timestamp().await, log.size_bytes().await);
        // A log that nothing was ever appended to leaves no trace.
        if log.refused().is_none() && log.next_index() > RaftIndex(0) {
            served.push((id, log.log_end_offset(), log.next_index()));
        }
    }
    storage.settle_recovery();
    storage.close().await?;
    Ok(served)
}
