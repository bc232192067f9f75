//! What a log tells of itself without I/O, for metrics.

use super::{End, Log};

/// What went into a log and out of it since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_in: u64,
    pub records_in: u64,
    pub bytes_out: u64,
    pub records_out: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStats {
    pub log_start_offset: i64,
    pub high_watermark: i64,
    pub log_end_offset: i64,
    /// Of segments and of what is in none yet; `None` until the log's directory has been looked at.
    pub size_bytes: Option<u64>,
    pub traffic: Traffic,
}

impl LogStats {
    /// Of a log that nothing was ever written to.
    pub const EMPTY: LogStats = LogStats {
        log_start_offset: 0,
        high_watermark: 0,
        log_end_offset: 0,
        size_bytes: Some(0),
        traffic: Traffic { bytes_in: 0, records_in: 0, bytes_out: 0, records_out: 0 },
    };
}

impl Log {
    pub fn stats(&self) -> LogStats {
        let state = self.state.borrow();
        let in_segments = match &state.segments {
            Some(segments) => Some(segments.bytes()),
            None => (state.flushed == End::default()).then_some(0),
        };
        LogStats {
            log_start_offset: state.log_start_offset,
            high_watermark: state.committed.offset,
            log_end_offset: state.next.offset,
            size_bytes: in_segments.map(|bytes| bytes + state.tail.dirty_bytes()),
            traffic: self.traffic.get(),
        }
    }

    pub(super) fn note_append(&self, bytes: usize, records: i32) {
        let mut traffic = self.traffic.get();
        traffic.bytes_in += bytes as u64;
        traffic.records_in += u64::try_from(records).unwrap_or(0);
        self.traffic.set(traffic);
    }

    /// Batches that were read have been given to a client.
    pub fn note_given(&self, bytes: u64, records: u64) {
        let mut traffic = self.traffic.get();
        traffic.bytes_out += bytes;
        traffic.records_out += records;
        self.traffic.set(traffic);
    }
}
