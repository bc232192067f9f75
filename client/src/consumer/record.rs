//! `ConsumerRecord`: what was read.

use crate::producer::RecordHeader;
use bytes::Bytes;
use corelog_wire::Str;
use corelog_wire::records::TimestampType;

/// A record as it was read.
///
/// Key, value and headers share the memory of the batch or the answer that they came in: copy what is kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    pub topic: Str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970; negative if the producer gave none.
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
    /// Of the leader that wrote it, where known.
    pub leader_epoch: Option<i32>,
}

impl ConsumerRecord {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| header.key.len() + len(&header.value));
        len(&self.key) + len(&self.value) + headers.sum::<usize>()
    }
}
