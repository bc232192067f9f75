//! The first page of a segment file; record batches follow, exactly as they go over the wire.

use super::fields::{get, get_i32, get_i64, get_u16, get_u32, get_u64, put};
use super::{Format, PAGE, Refused};
use crate::ids::{LogId, RaftIndex, Uuid};

const MAGIC: u64 = u64::from_le_bytes(*b"CLSEGMNT");

pub const FORMAT: Format = Format { name: "segments", oldest: 1, newest: 1 };

/// Where the first batch of a segment lies, in bytes from the start of the file.
pub const FIRST_BATCH: u64 = PAGE as u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub log: LogId,
    pub base_offset: i64,
    /// Raft index of the first batch.
    pub base_index: RaftIndex,
    /// Wall clock when the segment was begun, milliseconds since the Unix epoch.
    pub created_ms: i64,
}

impl SegmentHeader {
    /// Fills the first page of `page`, which is zeroed.
    pub fn encode(&self, page: &mut [u8]) {
        put(page, 0, MAGIC.to_le_bytes());
        put(page, 8, FORMAT.newest.to_le_bytes());
        put(page, 12, self.log.partition.to_le_bytes());
        put(page, 16, self.log.topic.0);
        put(page, 32, self.base_offset.to_le_bytes());
        put(page, 40, self.base_index.0.to_le_bytes());
        put(page, 48, self.created_ms.to_le_bytes());
        let crc = crc32c::crc32c(&page[..PAGE - 4]);
        put(page, PAGE - 4, crc.to_le_bytes());
    }

    pub fn decode(page: &[u8]) -> Result<SegmentHeader, Refused> {
        if page.len() < PAGE || get_u64(page, 0) != MAGIC {
            return Err(Refused::Magic);
        }
        if crc32c::crc32c(&page[..PAGE - 4]) != get_u32(page, PAGE - 4) {
            return Err(Refused::Checksum);
        }
        FORMAT.known(get_u16(page, 8))?;
        Ok(SegmentHeader {
            log: LogId { topic: Uuid(get(page, 16)), partition: get_i32(page, 12) },
            base_offset: get_i64(page, 32),
            base_index: RaftIndex(get_u64(page, 40)),
            created_ms: get_i64(page, 48),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let header = SegmentHeader {
            log: LogId { topic: Uuid([1; 16]), partition: 12 },
            base_offset: 1 << 50,
            base_index: RaftIndex(u64::MAX),
            created_ms: -1,
        };
        let mut page = vec![0; PAGE];
        header.encode(&mut page);
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
        page[33] ^= 4;
        assert_eq!(SegmentHeader::decode(&page), Err(Refused::Checksum));
    }
}
