//! Reads a partition, and holds what is there against what its producers know.

use super::producer::{Producer, Sequence};
use crate::connection::Connection;
use crate::record::{Identity, Target};
use anyhow::{Context, Result, bail};
use corelog_wire::ErrorCode;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::records::{split_batches, with_scratch};
use std::collections::HashMap;

const FETCH_VERSION: i16 = 11;
const FETCH_BYTES: i32 = 8 << 20;
const DECOMPRESSED_MAX: usize = 16 << 20;

/// How far a partition has been read, and what was seen last of each producer.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    pub next_offset: i64,
    pub bytes: u64,
    /// The number of the next record that is expected of each producer.
    next: HashMap<u32, u64>,
}

impl Progress {
    /// Reads on to the high watermark, and checks that every acknowledged record is there, in order, once, at the offset that was
    /// acknowledged, and whole.
    pub fn advance(
        &mut self,
        connection: &mut Connection,
        target: &Target,
        partition: u32,
        producers: &[Producer],
    ) -> Result<()> {
        let (name, index) = target.locate(partition);
        let at = || format!("{name} {index}");
        loop {
            let asked = FetchPartition {
                partition: index,
                fetch_offset: self.next_offset,
                partition_max_bytes: FETCH_BYTES,
                ..Default::default()
            };
            let topic = FetchTopic { topic: name.clone(), partitions: vec![asked], ..Default::default() };
            let request = FetchRequest { max_bytes: FETCH_BYTES, topics: vec![topic], ..Default::default() };
            let response = connection.call(FETCH_VERSION, &request).with_context(at)?;
            let answer = response.responses.first().and_then(|topic| topic.partitions.first());
            let answer = answer.with_context(|| format!("{}: an empty answer", at()))?;
            if answer.error_code != 0 {
                bail!(
                    "{} from {}, high watermark {}: {}",
                    at(),
                    self.next_offset,
                    answer.high_watermark,
                    ErrorCode(answer.error_code)
                );
            }
            if self.next_offset >= answer.high_watermark {
                break;
            }
            let before = self.next_offset;
            for part in answer.records.iter().flatten() {
                for batch in split_batches(part) {
                    let batch = match batch {
                        Err(corelog_wire::records::BatchError::Incomplete { .. }) => break,
                        batch => batch.with_context(at)?,
                    };
                    self.take(&batch, target, partition, producers).with_context(at)?;
                    self.bytes += batch.bytes().len() as u64;
                }
            }
            if self.next_offset == before {
                bail!(
                    "{}: nothing comes from {before} although the high watermark is {}",
                    at(),
                    answer.high_watermark
                );
            }
        }
        for producer in producers {
            let sequence = &producer.sequences[partition as usize];
            let seen = self.next.get(&producer.id).copied().unwrap_or(0);
            if let Some(number) = first_lost(sequence, seen..sequence.acknowledged) {
                bail!("{}: LOST: record {number} of producer {} was acknowledged", at(), producer.id);
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        batch: &corelog_wire::records::BatchView,
        target: &Target,
        partition: u32,
        producers: &[Producer],
    ) -> Result<()> {
        let header = *batch.header();
        batch.verify_checksum()?;
        // The first fetch of a round may begin within a batch that was read before.
        if header.last_offset() < self.next_offset {
            return Ok(());
        }
        if header.base_offset != self.next_offset {
            bail!("offset {} where {} is next", header.base_offset, self.next_offset);
        }
        with_scratch(|scratch| {
            for (i, record) in batch.records(scratch, DECOMPRESSED_MAX)?.enumerate() {
                let record = record?;
                let offset = header.base_offset + i64::from(record.offset_delta);
                let identity =
                    target.pool.read(record.value.unwrap_or_default()).map_err(anyhow::Error::msg)?;
                self.see(identity, offset, i == 0, partition, producers)?;
            }
            anyhow::Ok(())
        })?;
        self.next_offset = header.next_offset();
        Ok(())
    }

    fn see(
        &mut self,
        it: Identity,
        offset: i64,
        first: bool,
        partition: u32,
        producers: &[Producer],
    ) -> Result<()> {
        let Some(producer) = producers.iter().find(|producer| producer.id == it.producer) else {
            bail!("offset {offset}: {it:?} is of nobody");
        };
        if it.partition != partition {
            bail!("offset {offset}: {it:?} is in the wrong partition");
        }
        let sequence = &producer.sequences[partition as usize];
        let expected = self.next.entry(it.producer).or_default();
        if it.number < *expected {
            bail!("offset {offset}: TWICE or out of order: {it:?} after {}", *expected - 1);
        }
        if let Some(number) = first_lost(sequence, *expected..it.number) {
            bail!("offset {offset}: LOST or out of order: {it:?} where {number} is next");
        }
        if it.number >= sequence.next {
            bail!("offset {offset}: {it:?} was never sent");
        }
        *expected = it.number + 1;
        if let (true, Some(acknowledged)) = (first, sequence.base_offsets.get(&it.number))
            && *acknowledged != offset
        {
            bail!("offset {offset}: {it:?} was acknowledged at {acknowledged}");
        }
        Ok(())
    }
}

/// The first of these numbers that is not among the unsure ones.
fn first_lost(sequence: &Sequence, mut numbers: std::ops::Range<u64>) -> Option<u64> {
    while numbers.start < numbers.end {
        // Ranges are in order; a producer has few.
        match sequence.unsure.iter().find(|unsure| unsure.contains(&numbers.start)) {
            Some(unsure) => numbers.start = unsure.end,
            None => return Some(numbers.start),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unsure_records_may_be_missing() {
        let sequence = Sequence { unsure: vec![5..8, 8..9, 20..22], ..Default::default() };
        for (numbers, lost) in [
            (5..9, None),
            (6..8, None),
            (5..5, None),
            (4..9, Some(4)),
            (5..10, Some(9)),
            (20..23, Some(22)),
            (0..1, Some(0)),
        ] {
            assert_eq!(first_lost(&sequence, numbers.clone()), lost, "{numbers:?}");
        }
    }
}
