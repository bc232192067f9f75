//! What is sound in one segment file.

use anyhow::{Context, Result};
use corelog_storage::RaftIndex;
use corelog_storage::format::PAGE;
use corelog_storage::format::index_page::{Footer, IndexPage};
use corelog_storage::format::segment_file::{FIRST_BATCH, SegmentHeader};
use corelog_storage::rebuild::{StateBuilder, is_sound};
use corelog_wire::records::{BATCH_HEADER_LEN, BatchHeader};
use std::path::Path;

pub struct Scanned {
    /// None: it is damaged.
    pub header: Option<SegmentHeader>,
    /// Raft index of the first batch.
    pub base_index: u64,
    pub batches: u64,
    /// Behind the last sound batch.
    pub next_offset: i64,
    pub end: u64,
    pub max_timestamp: i64,
    /// Batches that are left out before that, and damaged bytes in place of batches: each may stand for several.
    pub holes: Vec<Hole>,
    /// Bytes behind the end that are not zeros.
    pub tail: Vec<u8>,
    /// What its index says, if it is sealed.
    pub footer: Option<Footer>,
    /// It was left where the journal has all of the rest, and more is damaged here.
    pub is_cut: bool,
}

pub struct Hole {
    pub position: u64,
    pub from_offset: i64,
    pub to_offset: i64,
}

/// Goes through a segment that begins at offset `base`; its sound batches go to `state`. `base_index`: of its first batch,
/// should its header not tell. `journal`: up to where the journal has all batches from an offset on.
pub fn scan(
    path: &Path,
    base: i64,
    base_index: u64,
    state: &mut StateBuilder,
    now_ms: i64,
    journal: impl Fn(i64) -> Result<i64>,
) -> Result<Scanned> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = SegmentHeader::decode(&bytes).ok();
    let mut scanned = Scanned {
        header,
        base_index: header.map_or(base_index, |header| header.base_index.0),
        batches: 0,
        next_offset: base,
        end: FIRST_BATCH,
        max_timestamp: -1,
        holes: Vec::new(),
        tail: Vec::new(),
        footer: footer(path, base),
        is_cut: false,
    };
    let mut at = FIRST_BATCH as usize;
    while let Some((position, header)) = next_sound(&bytes, at, scanned.next_offset) {
        if position != at || header.base_offset != scanned.next_offset {
            let reached = journal(scanned.next_offset)?;
            if reached > scanned.next_offset && reached >= end_of(&bytes, position, &header) {
                scanned.is_cut = true;
                break;
            }
            scanned.holes.push(Hole {
                position: at as u64,
                from_offset: scanned.next_offset,
                to_offset: header.base_offset,
            });
        }
        let before = scanned.batches + scanned.holes.len() as u64;
        state.note(&header, RaftIndex(scanned.base_index + before), now_ms);
        scanned.batches += 1;
        if !header.is_internal() {
            scanned.max_timestamp = scanned.max_timestamp.max(header.max_timestamp);
        }
        scanned.next_offset = header.next_offset();
        at = position + header.size();
        scanned.end = at as u64;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    scanned.tail = rest[..used].to_vec();
    Ok(scanned)
}

/// Where the batches that are left from the one at `position` on lead.
fn end_of(bytes: &[u8], mut position: usize, header: &BatchHeader) -> i64 {
    let (mut end, mut size) = (header.next_offset(), header.size());
    while let Some((next, header)) = next_sound(bytes, position + size, end) {
        (position, end, size) = (next, header.next_offset(), header.size());
    }
    end
}

/// The first sound batch from byte `from` on that begins at `offset` or later, as batches behind a hole do.
fn next_sound(bytes: &[u8], from: usize, offset: i64) -> Option<(usize, BatchHeader)> {
    /// No segment has more offsets.
    const SPAN: i64 = 1 << 32;
    let at = |position: usize| {
        let head = bytes.get(position..position + BATCH_HEADER_LEN)?;
        let base = i64::from_be_bytes(*head.first_chunk()?);
        if base < offset || base - offset > SPAN {
            return None;
        }
        let header = BatchHeader::parse(head).ok()?;
        let batch = bytes.get(position..position.checked_add(header.size())?)?;
        (is_sound(batch) && header.next_offset() >= base).then_some((position, header))
    };
    if let Some(found) = at(from).filter(|(_, header)| header.base_offset == offset) {
        return Some(found);
    }
    // Where nothing was written there is nothing to look for.
    let last = bytes.iter().rposition(|byte| *byte != 0)?;
    (from..=last).find_map(at)
}

fn footer(path: &Path, base: i64) -> Option<Footer> {
    let bytes = std::fs::read(path.with_extension("index")).ok()?;
    let pages = bytes.chunks_exact(PAGE).enumerate();
    pages.into_iter().find_map(|(number, page)| match IndexPage::decode(base, number as u32, page) {
        Ok(IndexPage::Footer(footer)) => Some(footer),
        _ => None,
    })
}
