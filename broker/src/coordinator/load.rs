//! Reads a coordinator's log from its start to its end.

use bytes::Bytes;
use corelog_wire::records::{BatchView, split_batches, with_scratch};

use super::log::{CoordinatorLog, LogRead};
use super::machine::RawRecord;

/// Bytes read at a time.
const LOAD_BYTES: usize = 1 << 20;
/// The most bytes that one batch may decompress to. Our own are not compressed.
const BATCH_PLAIN_BYTES_MAX: usize = 64 << 20;
/// The core is yielded after this many records.
const RECORDS_A_TURN: usize = 1_000;

/// How much there was.
pub struct Loaded {
    pub records: usize,
    /// The offset behind it.
    pub end: i64,
}

/// Hands every record of the log to `take`, in their order, some at a time.
pub async fn replay_log<L: CoordinatorLog>(
    log: &L,
    mut take: impl FnMut(&[RawRecord]) -> Result<(), String>,
) -> Result<Loaded, String> {
    let mut offset = log.start_offset();
    let mut count = 0;
    loop {
        let LogRead { batches, next_offset } =
            log.read(offset, LOAD_BYTES).await.map_err(|failed| format!("at offset {offset}: {failed}"))?;
        if batches.is_empty() {
            return Ok(Loaded { records: count, end: offset });
        }
        for batch in split_batches(&batches) {
            let batch = batch.map_err(|error| error.to_string())?;
            let at = |error: String| format!("batch at offset {}: {error}", batch.header().base_offset);
            corelog_io::worked(batch.bytes().len());
            let records = records_of(&batch, offset).map_err(at)?;
            for turn in records.chunks(RECORDS_A_TURN) {
                take(turn).map_err(at)?;
                count += turn.len();
                corelog_io::yield_if_needed().await;
            }
        }
        offset = next_offset;
    }
}

/// The records of a batch from offset `from` on.
fn records_of(batch: &BatchView, from: i64) -> Result<Vec<RawRecord>, String> {
    batch.verify_checksum().map_err(|error| error.to_string())?;
    let mut owned = Vec::new();
    if batch.header().is_control() || batch.header().is_internal() {
        return Ok(owned);
    }
    with_scratch(|scratch| {
        let records = batch.records(scratch, BATCH_PLAIN_BYTES_MAX).map_err(|error| error.to_string())?;
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            if batch.header().base_offset + i64::from(record.offset_delta) >= from
                && let Some(key) = record.key
            {
                let value = record.value.map(Bytes::copy_from_slice);
                owned.push(RawRecord { key: Bytes::copy_from_slice(key), value });
            }
        }
        Ok(owned)
    })
}
