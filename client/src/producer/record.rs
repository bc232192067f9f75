//! `ProducerRecord`: what is to be written.

use bytes::Bytes;
use corelog_wire::Str;

/// A record to be written. Key and value are shared, not copied, until they are put into a batch.
///
/// ```
/// use corelog_client::ProducerRecord;
/// let order = ProducerRecord::to("orders").key("customer-7").value(r#"{"items": 3}"#).header("source", "web");
/// let tombstone = ProducerRecord::to("orders").key("customer-7");
/// # let _ = (order, tombstone);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    pub topic: Str,
    /// Chosen by the partitioner if it is not given.
    pub partition: Option<i32>,
    pub key: Option<Bytes>,
    /// None is a tombstone: on compacted topics it deletes the key.
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
    /// Milliseconds since 1970; the time of sending if it is not given.
    pub timestamp: Option<i64>,
}

/// A header of a record: a name, which may be there more than once, and a value that may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// By convention UTF-8.
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl ProducerRecord {
    pub fn to(topic: impl Into<Str>) -> ProducerRecord {
        ProducerRecord { topic: topic.into(), ..Default::default() }
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub fn header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(RecordHeader { key: key.into(), value: Some(value.into()) });
        self
    }

    pub fn timestamp(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// Bytes of key, value and headers.
    pub(super) fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| header.key.len() + len(&header.value));
        len(&self.key) + len(&self.value) + headers.sum::<usize>()
    }

    /// Bytes that it takes in a batch at most: lengths, deltas and counts at their longest.
    pub(super) fn size_max(&self) -> usize {
        const FIXED: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
        const PER_HEADER: usize = 5 + 5;
        FIXED + PER_HEADER * self.headers.len() + self.size()
    }
}
