//! What one answer brought for one partition, and the records in it.

use super::buffer::Position;
use super::record::ConsumerRecord;
use crate::error::{Error, Result};
use crate::hashing::HashSet;
use crate::leaders::Isolation;
use crate::producer::RecordHeader;
use crate::topic_partition::TopicPartition;
use bytes::Bytes;
use corelog_wire::fetch::AbortedTransaction;
use corelog_wire::records::{
    BatchError, BatchHeader, BatchView, Compression, CompressionError, RecordIter, SplitBatches,
    split_batches, with_scratch,
};

pub(super) struct Chunk {
    batches: SplitBatches,
    /// Records before this were not asked for: batches come whole.
    from: i64,
    pub(super) len: usize,
    /// In order of their first offset, the next one last.
    aborted: Vec<AbortedTransaction>,
    /// Producers within an aborted transaction.
    aborting: HashSet<i64>,
    isolation: Isolation,
}

/// The records of one batch, and where the next batch begins.
pub(super) struct Parsed {
    pub(super) records: Vec<ConsumerRecord>,
    pub(super) next: Position,
}

impl Chunk {
    /// None if `bytes` has no whole batch.
    ///
    /// Returns where to fetch next as well: behind the last whole batch.
    pub(super) fn new(
        bytes: Bytes,
        from: i64,
        aborted: Option<Vec<AbortedTransaction>>,
        isolation: Isolation,
    ) -> Option<(Chunk, Position)> {
        let mut next = None;
        let mut rest = &bytes[..];
        // The header alone is read here. A batch that cannot be read is left for the one who polls to be told.
        while let Ok(header) = BatchHeader::parse(rest) {
            let Some(left) = rest.get(header.size()..) else { break };
            next = Some(behind_batch(&header, from));
            rest = left;
        }
        let unreadable = !rest.is_empty()
            && !matches!(BatchHeader::parse(rest), Ok(_) | Err(BatchError::Incomplete { .. }));
        let next = if unreadable { next.unwrap_or(Position::at(from)) } else { next? };
        let mut aborted = aborted.unwrap_or_default();
        aborted.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
        let len = bytes.len();
        let batches = split_batches(&bytes);
        Some((Chunk { batches, from, len, aborted, aborting: HashSet::default(), isolation }, next))
    }

    /// The next batch's records that were asked for; none at the end.
    pub(super) fn next_batch(
        &mut self,
        at: &TopicPartition,
        batch_bytes_max: usize,
    ) -> Result<Option<Parsed>> {
        let corrupt = |offset, source| Error::Corrupt {
            topic: at.topic.as_str().to_owned(),
            partition: at.partition,
            offset,
            source,
        };
        let batch = match self.batches.next() {
            None | Some(Err(BatchError::Incomplete { .. })) => return Ok(None),
            Some(Err(error)) => return Err(corrupt(self.from, error)),
            Some(Ok(batch)) => batch,
        };
        let header = *batch.header();
        let first = header.base_offset.max(self.from);
        let failed = |source| corrupt(first, source);
        batch.verify_checksum().map_err(failed)?;
        let next = behind_batch(&header, self.from);
        let mut records = Vec::new();
        let plain = plain(&batch, batch_bytes_max).map_err(|error| failed(error.into()))?;
        if self.is_wanted(&header, &plain).map_err(failed)? {
            records.reserve(usize::try_from(header.records_count).unwrap_or(0).min(plain.len() / 7));
            for record in RecordIter::new(&plain, header.records_count) {
                let record = record.map_err(failed)?;
                let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
                if offset < self.from {
                    continue;
                }
                let share = |part: &[u8]| plain.slice_ref(part);
                records.push(ConsumerRecord {
                    topic: at.topic.clone(),
                    partition: at.partition,
                    offset,
                    timestamp: header.timestamp_at(record.timestamp_delta),
                    timestamp_type: header.timestamp_type(),
                    key: record.key.map(share),
                    value: record.value.map(share),
                    headers: record
                        .headers()
                        .map(|header| RecordHeader { key: share(header.key), value: header.value.map(share) })
                        .collect(),
                    leader_epoch: next.leader_epoch,
                });
            }
        }
        self.from = next.offset;
        Ok(Some(Parsed { records, next }))
    }

    /// Whether an application sees the batch: not control batches, nor, if it reads committed records only, aborted ones.
    fn is_wanted(&mut self, header: &BatchHeader, plain: &[u8]) -> std::result::Result<bool, BatchError> {
        while self.aborted.last().is_some_and(|aborted| aborted.first_offset <= header.last_offset()) {
            let aborted = self.aborted.pop().expect("looked at above");
            self.aborting.insert(aborted.producer_id);
        }
        if header.is_control() {
            if let Some(marker) = RecordIter::new(plain, header.records_count).next() {
                // The key is a version and a type, two bytes each; type 0 is an abort.
                if marker?.key.and_then(|key| key.get(2..4)) == Some(&[0, 0]) {
                    self.aborting.remove(&header.producer_id);
                }
            }
            return Ok(false);
        }
        if header.is_transactional() && self.isolation == Isolation::ReadCommitted {
            return Ok(!self.aborting.contains(&header.producer_id));
        }
        Ok(!header.is_internal())
    }
}

fn behind_batch(header: &BatchHeader, from: i64) -> Position {
    Position {
        offset: header.next_offset().max(from),
        leader_epoch: Some(header.partition_leader_epoch).filter(|epoch| *epoch >= 0),
    }
}

/// The batch's records, uncompressed: shared with the answer if they came so.
fn plain(batch: &BatchView, limit: usize) -> std::result::Result<Bytes, CompressionError> {
    let header = batch.header();
    let payload = batch.payload();
    let codec = header.compression().ok_or(CompressionError::UnknownCodec((header.attributes & 7) as u8))?;
    if codec == Compression::None {
        return Ok(batch.bytes().slice_ref(payload));
    }
    let mut plain = Vec::new();
    with_scratch(|scratch| scratch.codecs.decompress(codec, payload, limit, &mut plain))?;
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::records::{BatchBuilder, BatchOptions, Header, Producer};

    fn batch(options: BatchOptions, keys: &[&[u8]]) -> Bytes {
        let mut builder = BatchBuilder::new(options);
        for key in keys {
            builder.append(7, Some(key), None, &[Header { key: b"h", value: Some(b"x") }]).unwrap();
        }
        builder.build().unwrap()
    }

    fn offsets(chunk: &mut Chunk) -> Vec<i64> {
        let at = TopicPartition::new("t", 0);
        let mut offsets = Vec::new();
        while let Some(parsed) = chunk.next_batch(&at, 1 << 20).unwrap() {
            offsets.extend(parsed.records.iter().map(|record| record.offset));
        }
        offsets
    }

    #[test]
    fn batches_come_whole_and_are_trimmed() {
        let encoding = Compression::Zstd.into();
        let first =
            batch(BatchOptions { base_offset: 10, encoding, ..Default::default() }, &[b"a", b"b", b"c"]);
        let second = batch(BatchOptions { base_offset: 20, ..Default::default() }, &[b"d"]);
        let all = Bytes::from([&first[..], &second[..]].concat());
        for cut in 0..second.len() {
            let part = all.slice(..first.len() + cut);
            let (mut chunk, next) = Chunk::new(part, 11, None, Isolation::ReadUncommitted).unwrap();
            assert_eq!(next.offset, 13);
            assert_eq!(offsets(&mut chunk), [11, 12]);
        }
        let (mut chunk, next) = Chunk::new(all.clone(), 12, None, Isolation::ReadUncommitted).unwrap();
        assert_eq!((next.offset, offsets(&mut chunk)), (21, vec![12, 20]));
        assert!(Chunk::new(all.slice(..first.len() - 1), 11, None, Isolation::ReadUncommitted).is_none());
    }

    #[test]
    fn corrupt_batches_are_told_with_their_offset() {
        let mut bytes = batch(BatchOptions { base_offset: 10, ..Default::default() }, &[b"a"]).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let (mut chunk, _) = Chunk::new(bytes.into(), 10, None, Isolation::ReadUncommitted).unwrap();
        let error = chunk.next_batch(&TopicPartition::new("t", 0), 1 << 20).err().unwrap();
        assert!(
            matches!(error, Error::Corrupt { offset: 10, source: BatchError::Checksum { .. }, .. }),
            "{error}"
        );
    }

    #[test]
    fn aborted_transactions_are_skipped_up_to_their_marker() {
        let of = |id, base_offset, control| BatchOptions {
            base_offset,
            producer: Some(Producer { id, epoch: 0, base_sequence: 0 }),
            transactional: true,
            control,
            ..Default::default()
        };
        let all = [
            batch(of(1, 0, false), &[b"a"]),
            batch(of(2, 1, false), &[b"b"]),
            batch(of(1, 2, true), &[&[0, 0, 0, 0]]),
            batch(of(1, 3, false), &[b"c"]),
            batch(of(2, 4, true), &[&[0, 0, 0, 1]]),
        ];
        let all = Bytes::from(all.concat());
        let aborted = Some(vec![AbortedTransaction { producer_id: 1, first_offset: 0 }]);
        let (mut chunk, next) =
            Chunk::new(all.clone(), 0, aborted.clone(), Isolation::ReadCommitted).unwrap();
        assert_eq!((next.offset, offsets(&mut chunk)), (5, vec![1, 3]));
        let (mut chunk, _) = Chunk::new(all, 0, aborted, Isolation::ReadUncommitted).unwrap();
        assert_eq!(offsets(&mut chunk), [0, 1, 3]);
    }
}
