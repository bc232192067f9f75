//! The first page of a journal file.

use super::fields::{get_u16, get_u32, get_u64, put};
use super::{Format, PAGE, Refused};

const MAGIC: u64 = u64::from_le_bytes(*b"CLJOURNL");

/// Of journals: files' first pages, groups and entries. A group is read when its file's first page has told that it can be:
/// what a client has written could look like a group of any version. Version 2: entries with Raft's state have it as payload
/// (none is in a journal of version 1), and a log can begin anew.
pub const FORMAT: Format = Format { name: "journals", oldest: 1, newest: 2 };

/// Says whose groups follow, and from which on: groups with a smaller sequence are left over from the file's former use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFileHeader {
    pub generation: u64,
    pub shard: u32,
    pub salt: u64,
    pub first_sequence: u64,
}

impl JournalFileHeader {
    /// Fills the first page of `page`, which is zeroed.
    pub fn encode(&self, page: &mut [u8]) {
        put(page, 0, MAGIC.to_le_bytes());
        put(page, 8, FORMAT.newest.to_le_bytes());
        put(page, 12, self.shard.to_le_bytes());
        put(page, 16, self.generation.to_le_bytes());
        put(page, 24, self.salt.to_le_bytes());
        put(page, 32, self.first_sequence.to_le_bytes());
        let crc = crc32c::crc32c(&page[..PAGE - 4]);
        put(page, PAGE - 4, crc.to_le_bytes());
    }

    pub fn decode(page: &[u8]) -> Result<JournalFileHeader, Refused> {
        if page.len() < PAGE || get_u64(page, 0) != MAGIC {
            return Err(Refused::Magic);
        }
        if crc32c::crc32c(&page[..PAGE - 4]) != get_u32(page, PAGE - 4) {
            return Err(Refused::Checksum);
        }
        FORMAT.known(get_u16(page, 8))?;
        let first_sequence = get_u64(page, 32);
        if first_sequence == 0 {
            return Err(Refused::Content("the journal file begins with group 0, groups are numbered from 1"));
        }
        Ok(JournalFileHeader {
            shard: get_u32(page, 12),
            generation: get_u64(page, 16),
            salt: get_u64(page, 24),
            first_sequence,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_versions() {
        let header = JournalFileHeader { generation: 9, shard: 2, salt: 11, first_sequence: 1000 };
        let mut page = vec![0; PAGE];
        header.encode(&mut page);
        assert_eq!(JournalFileHeader::decode(&page), Ok(header));
        page[100] = 1;
        assert_eq!(JournalFileHeader::decode(&page), Err(Refused::Checksum));
        page[100] = 0;
        page[8] = 3;
        let crc = crc32c::crc32c(&page[..PAGE - 4]);
        put(&mut page, PAGE - 4, crc.to_le_bytes());
        assert_eq!(JournalFileHeader::decode(&page), Err(Refused::Version { format: FORMAT, found: 3 }));
        assert_eq!(JournalFileHeader::decode(&[0; PAGE]), Err(Refused::Magic));
    }

    #[test]
    fn a_file_does_not_begin_with_group_0() {
        let mut page = vec![0; PAGE];
        JournalFileHeader { generation: 9, shard: 2, salt: 11, first_sequence: 0 }.encode(&mut page);
        assert!(matches!(JournalFileHeader::decode(&page), Err(Refused::Content(_))));
    }
}
