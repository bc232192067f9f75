//! Pages of a segment's index file: full pages of entries, and one footer when the segment is sealed.

use super::fields::{get_i64, get_u16, get_u32, get_u64, put};
use super::{Format, PAGE, Refused};
use crate::ids::RaftIndex;

const MAGIC: u32 = u32::from_le_bytes(*b"CLIX");

pub const FORMAT: Format = Format { name: "segment indexes", oldest: 1, newest: 1 };
const HEADER: usize = 32;
const ENTRY: usize = 24;

/// Entries of one page.
pub const ENTRIES_PER_PAGE: usize = (PAGE - HEADER - 4) / ENTRY;

const KIND_ENTRIES: u16 = 1;
const KIND_FOOTER: u16 = 2;

/// One point of the sparse index: a batch begins here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The batch's base offset less the segment's.
    pub relative_offset: u32,
    /// Where the batch begins in the segment file, in bytes.
    pub position: u32,
    /// The batch's Raft index less the segment's first.
    pub relative_index: u32,
    /// The greatest timestamp of all batches of the segment *before* this one; -1 if there is none.
    pub max_timestamp_before: i64,
}

/// What is known of a sealed segment without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Bytes of the segment file.
    pub end: u64,
    /// Offset after the last record.
    pub next_offset: i64,
    /// Raft index after the last batch.
    pub next_index: RaftIndex,
    /// Greatest timestamp of the segment's records, -1 if none has one.
    pub max_timestamp: i64,
    /// Wall clock when it was sealed, milliseconds since the Unix epoch.
    pub sealed_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexPage {
    Entries(Vec<IndexEntry>),
    Footer(Footer),
}

impl IndexPage {
    /// Fills `page` (zeroed, one page long). `number` counts pages from 0, `base_offset` is the segment's.
    pub fn encode(&self, base_offset: i64, number: u32, page: &mut [u8]) {
        put(page, 0, MAGIC.to_le_bytes());
        put(page, 4, FORMAT.newest.to_le_bytes());
        put(page, 12, number.to_le_bytes());
        put(page, 16, base_offset.to_le_bytes());
        match self {
            IndexPage::Entries(entries) => {
                assert!(entries.len() <= ENTRIES_PER_PAGE, "an index page holds {ENTRIES_PER_PAGE} entries");
                put(page, 6, KIND_ENTRIES.to_le_bytes());
                put(page, 8, (entries.len() as u16).to_le_bytes());
                for (slot, e) in page[HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
                    put(slot, 0, e.relative_offset.to_le_bytes());
                    put(slot, 4, e.position.to_le_bytes());
                    put(slot, 8, e.relative_index.to_le_bytes());
                    put(slot, 16, e.max_timestamp_before.to_le_bytes());
                }
            }
            IndexPage::Footer(f) => {
                put(page, 6, KIND_FOOTER.to_le_bytes());
                put(page, HEADER, f.end.to_le_bytes());
                put(page, HEADER + 8, f.next_offset.to_le_bytes());
                put(page, HEADER + 16, f.next_index.0.to_le_bytes());
                put(page, HEADER + 24, f.max_timestamp.to_le_bytes());
                put(page, HEADER + 32, f.sealed_ms.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&page[..PAGE - 4]);
        put(page, PAGE - 4, crc.to_le_bytes());
    }

    /// Refuses a page that is damaged or is not page `number` of the segment that begins at `base_offset`.
    pub fn decode(base_offset: i64, number: u32, page: &[u8]) -> Result<IndexPage, Refused> {
        if page.len() < PAGE || get_u32(page, 0) != MAGIC {
            return Err(Refused::Magic);
        }
        if crc32c::crc32c(&page[..PAGE - 4]) != get_u32(page, PAGE - 4) {
            return Err(Refused::Checksum);
        }
        FORMAT.known(get_u16(page, 4))?;
        if get_u32(page, 12) != number || get_i64(page, 16) != base_offset {
            return Err(Refused::Content("the index page belongs elsewhere"));
        }
        match get_u16(page, 6) {
            KIND_ENTRIES => {
                let count = usize::from(get_u16(page, 8));
                if count > ENTRIES_PER_PAGE {
                    return Err(Refused::Content("an index page claims more entries than fit"));
                }
                let entries = page[HEADER..].chunks_exact(ENTRY).take(count).map(|slot| IndexEntry {
                    relative_offset: get_u32(slot, 0),
                    position: get_u32(slot, 4),
                    relative_index: get_u32(slot, 8),
                    max_timestamp_before: get_i64(slot, 16),
                });
                Ok(IndexPage::Entries(entries.collect()))
            }
            KIND_FOOTER => Ok(IndexPage::Footer(Footer {
                end: get_u64(page, HEADER),
                next_offset: get_i64(page, HEADER + 8),
                next_index: RaftIndex(get_u64(page, HEADER + 16)),
                max_timestamp: get_i64(page, HEADER + 24),
                sealed_ms: get_i64(page, HEADER + 32),
            })),
            _ => Err(Refused::Content("an index page is of an unknown kind")),
        }
    }
}

const _: () =
    assert!(HEADER + ENTRIES_PER_PAGE * ENTRY + 4 <= PAGE, "a full page leaves room for its checksum");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_know_their_place() {
        let entries: Vec<_> = (0..ENTRIES_PER_PAGE as u32)
            .map(|i| IndexEntry {
                relative_offset: i * 10,
                position: 4096 + i * 32768,
                relative_index: i,
                max_timestamp_before: i64::from(i) - 1,
            })
            .collect();
        let full = IndexPage::Entries(entries);
        let mut page = vec![0; PAGE];
        full.encode(500, 3, &mut page);
        assert_eq!(IndexPage::decode(500, 3, &page), Ok(full));
        assert!(IndexPage::decode(500, 2, &page).is_err());
        assert!(IndexPage::decode(501, 3, &page).is_err());
        page[40] ^= 1;
        assert_eq!(IndexPage::decode(500, 3, &page), Err(Refused::Checksum));
    }

    #[test]
    fn footer_round_trip() {
        let footer = IndexPage::Footer(Footer {
            end: 1 << 30,
            next_offset: 77,
            next_index: RaftIndex(80),
            max_timestamp: -1,
            sealed_ms: 5,
        });
        let mut page = vec![0; PAGE];
        footer.encode(0, 0, &mut page);
        assert_eq!(IndexPage::decode(0, 0, &page), Ok(footer));
    }
}
