//! The header of a journal group: the unit that is written and synced at once.

use super::fields::{get_u16, get_u32, get_u64, put};
use super::journal_file::FORMAT;
use super::{Refused, page_ceil};

/// Bytes of the header; entries follow; zeros fill the last page.
pub const GROUP_HEADER: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"CLJG");

/// One group's header. All of its fields are under `header_crc`, which this type computes and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// The start of the process that wrote it.
    pub generation: u64,
    /// A random number of the generation, known to nobody outside: bytes that a client made look like a group do not pass.
    pub salt: u64,
    /// Groups of a generation and shard are numbered from 1, without gaps.
    pub sequence: u64,
    /// Every group up to this one was on stable storage when this one was sealed. 0: none.
    pub durable_through: u64,
    pub shard: u32,
    /// Bytes of entries, without the padding of the last page.
    pub payload_len: u32,
    pub entries: u32,
    /// CRC-32C of every entry's header and of what the payload's own checksum leaves out, in order.
    pub entries_crc: u32,
}

impl GroupHeader {
    pub fn encode(&self) -> [u8; GROUP_HEADER] {
        let mut out = [0; GROUP_HEADER];
        put(&mut out, 0, MAGIC.to_le_bytes());
        put(&mut out, 4, FORMAT.newest.to_le_bytes());
        put(&mut out, 8, self.generation.to_le_bytes());
        put(&mut out, 16, self.salt.to_le_bytes());
        put(&mut out, 24, self.sequence.to_le_bytes());
        put(&mut out, 32, self.durable_through.to_le_bytes());
        put(&mut out, 40, self.shard.to_le_bytes());
        put(&mut out, 44, self.payload_len.to_le_bytes());
        put(&mut out, 48, self.entries.to_le_bytes());
        put(&mut out, 52, self.entries_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        put(&mut out, 60, crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<GroupHeader, Refused> {
        if bytes.len() < GROUP_HEADER || get_u32(bytes, 0) != MAGIC {
            return Err(Refused::Magic);
        }
        if crc32c::crc32c(&bytes[..60]) != get_u32(bytes, 60) {
            return Err(Refused::Checksum);
        }
        FORMAT.known(get_u16(bytes, 4))?;
        let sequence = get_u64(bytes, 24);
        if sequence == 0 || sequence == u64::MAX {
            return Err(Refused::Content("a journal group's number has none before or after it"));
        }
        Ok(GroupHeader {
            generation: get_u64(bytes, 8),
            salt: get_u64(bytes, 16),
            sequence,
            durable_through: get_u64(bytes, 32),
            shard: get_u32(bytes, 40),
            payload_len: get_u32(bytes, 44),
            entries: get_u32(bytes, 48),
            entries_crc: get_u32(bytes, 52),
        })
    }

    /// Bytes the group takes on disk.
    pub fn disk_len(&self) -> u64 {
        page_ceil(GROUP_HEADER as u64 + u64::from(self.payload_len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_seen() {
        let header = GroupHeader {
            generation: 3,
            salt: 0x0123_4567_89ab_cdef,
            sequence: 42,
            durable_through: 40,
            shard: 5,
            payload_len: 4032,
            entries: 2,
            entries_crc: 77,
        };
        let good = header.encode();
        assert_eq!(GroupHeader::decode(&good), Ok(header));
        assert_eq!(header.disk_len(), 4096);
        for bit in 0..GROUP_HEADER * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::decode(&bad).is_err(), "bit {bit}");
        }
        for sequence in [0, u64::MAX] {
            let bad = GroupHeader { sequence, ..header }.encode();
            assert!(matches!(GroupHeader::decode(&bad), Err(Refused::Content(_))), "group {sequence}");
        }
    }
}
