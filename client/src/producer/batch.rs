//! One batch on its way: open, sealed, built, in flight; and its place in the producer's sequence.

use super::delivery::{BatchOutcome, Delivery};
use super::record::{ProducerRecord, RecordHeader};
use crate::driver;
use crate::topic_partition::TopicPartition;
use bytes::{Bytes, BytesMut};
use corelog_wire::records::{
    ATTRIBUTES_AT, BASE_SEQUENCE_AT, BATCH_HEADER_LEN, BatchBuilder, BatchOptions, BuildError, CRC_AT,
    Header, PRODUCER_EPOCH_AT, PRODUCER_ID_AT, Producer,
};
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Batch {
    /// In order of opening, over all partitions.
    pub(super) number: u64,
    pub(super) outcome: Arc<BatchOutcome>,
    pub(super) body: Body,
    pub(super) records: i32,
    /// Counted in the producer's buffer.
    pub(super) bytes: usize,
    pub(super) opened: Instant,
    pub(super) in_flight: bool,
    /// Whether a broker may have it, or get it yet, though no request for it is under way: one was not answered.
    pub(super) doubtful: bool,
    /// Whether it was sent under this stamp. Until then the stamp is a guess.
    pub(super) numbered: bool,
    /// Its time is over and its records were told; it is here until its request is settled.
    pub(super) given_up: bool,
    pub(super) stamp: Option<Producer>,
}

pub(super) enum Body {
    Open(BatchBuilder),
    Sealed(BatchBuilder),
    /// With the sender, which builds it.
    Taken,
    Built(Bytes),
}

impl Batch {
    pub(super) fn open(number: u64, partition: TopicPartition, options: BatchOptions, room: usize) -> Batch {
        Batch {
            number,
            outcome: BatchOutcome::new(partition),
            body: Body::Open(BatchBuilder::with_capacity(options, room)),
            records: 0,
            bytes: 0,
            opened: driver::now(),
            in_flight: false,
            doubtful: false,
            numbered: false,
            given_up: false,
            stamp: options.producer,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.body, Body::Open(_))
    }

    pub(super) fn seal(&mut self) {
        self.body = match std::mem::replace(&mut self.body, Body::Taken) {
            Body::Open(builder) => Body::Sealed(builder),
            other => other,
        };
    }

    /// Adds a record to an open batch; returns the bytes that it took.
    pub(super) fn append(
        &mut self,
        record: &ProducerRecord,
        timestamp: i64,
    ) -> Result<(Delivery, usize), BuildError> {
        let Body::Open(builder) = &mut self.body else { unreachable!("only open batches are appended to") };
        let before = builder.uncompressed_len() - if self.records == 0 { BATCH_HEADER_LEN } else { 0 };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        match record.headers.as_slice() {
            [] => builder.append(timestamp, key, value, &[])?,
            headers => {
                let headers: Vec<Header> = headers.iter().map(view).collect();
                builder.append(timestamp, key, value, &headers)?;
            }
        }
        let taken = builder.uncompressed_len() - before;
        self.bytes += taken;
        self.records += 1;
        Ok((self.outcome.delivery(self.records as u32 - 1, timestamp), taken))
    }
}

fn view(header: &RecordHeader) -> Header<'_> {
    Header { key: &header.key, value: header.value.as_deref() }
}

/// The bytes of a batch that begins with `stamp`, whatever it was built with.
pub(super) fn stamped(batch: Bytes, stamp: Option<Producer>) -> Bytes {
    let Some(Producer { id, epoch, base_sequence }) = stamp else { return batch };
    let mut stamp = [0; BASE_SEQUENCE_AT + 4 - PRODUCER_ID_AT];
    let mut put =
        |at: usize, bytes: &[u8]| stamp[at - PRODUCER_ID_AT..][..bytes.len()].copy_from_slice(bytes);
    put(PRODUCER_ID_AT, &id.to_be_bytes());
    put(PRODUCER_EPOCH_AT, &epoch.to_be_bytes());
    put(BASE_SEQUENCE_AT, &base_sequence.to_be_bytes());
    let range = PRODUCER_ID_AT..BASE_SEQUENCE_AT + 4;
    if batch[range.clone()] == stamp {
        return batch;
    }
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    batch[range].copy_from_slice(&stamp);
    let checksum = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::records::{BatchView, Compression};

    #[test]
    fn a_stamp_replaces_another_and_the_checksum_follows() {
        let partition = TopicPartition::new("t", 0);
        let first = Producer { id: 7, epoch: 1, base_sequence: 40 };
        let options =
            BatchOptions { encoding: Compression::Lz4.into(), producer: Some(first), ..Default::default() };
        let mut batch = Batch::open(0, partition, options, 0);
        let record = ProducerRecord::to("t").key("k").value("v").header("h", "x");
        let (_, taken) = batch.append(&record, 5).unwrap();
        assert_eq!(taken, batch.bytes);
        assert!(taken > BATCH_HEADER_LEN && taken <= BATCH_HEADER_LEN + record.size_max());
        batch.seal();
        let Body::Sealed(builder) = batch.body else { panic!("it is sealed") };
        let built = builder.build().unwrap();
        assert_eq!(stamped(built.clone(), Some(first)), built);
        let second = Producer { id: 8, epoch: 0, base_sequence: 0 };
        for bytes in
            [stamped(built.clone(), Some(second)), stamped(Bytes::from(built.to_vec()), Some(second))]
        {
            let view = BatchView::parse(&bytes).unwrap();
            view.verify_checksum().unwrap();
            let header = view.header();
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (8, 0, 0));
        }
    }
}
