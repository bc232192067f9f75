//! Finds a log's segments in its directory: once, when something older than the tail is first asked for.

use super::{Active, Sealed, Segments, SparseIndex};
use crate::error::StorageError;
use crate::files::FileCache;
use crate::format::checkpoint::ActiveSegmentState;
use crate::format::index_page::{ENTRIES_PER_PAGE, Footer, IndexPage};
use crate::format::segment_file::SegmentHeader;
use crate::format::{PAGE, Refused, page_floor};
use crate::ids::LogId;
use crate::paths::{self, SegmentFileKind};
use bytes::Bytes;
use corelog_io::{AlignedBuf, File, fs};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// What the log's state says of its segments.
pub struct Expected {
    pub log: LogId,
    pub active: Option<ActiveSegmentState>,
    /// Every offset below is in a segment.
    pub flushed_offset: i64,
    /// Where the log ended at the start, with what was in the journal alone.
    pub found_end: i64,
    /// Something was in the journal alone.
    pub found_more: bool,
    pub log_start_offset: i64,
}

/// The segments in `dir`. Removes what an interrupted flush left behind the active segment (the journal has it) and
/// what an interrupted deletion left below the log start offset.
pub async fn load(dir: &Path, files: &FileCache, expected: &Expected) -> Result<Segments, StorageError> {
    if !fs::exists(dir).await.map_err(StorageError::io("look for", dir))? {
        return match expected.flushed_offset > expected.log_start_offset {
            true => Err(StorageError::missing(dir, "the log's segments were in it")),
            false => Ok(Segments::default()),
        };
    }
    let mut data: BTreeMap<i64, u64> = BTreeMap::new();
    let mut indexes = Vec::new();
    for entry in fs::read_dir(dir).await.map_err(StorageError::io("list", dir))? {
        match entry.name.to_str().and_then(paths::parse_segment_name) {
            Some((base, SegmentFileKind::Data)) => drop(data.insert(base, entry.len)),
            Some((base, SegmentFileKind::Index)) => indexes.push(base),
            None => {}
        }
    }
    // A segment that was sealed, and deleted with all it held, since the checkpoint named it the active one.
    let is_deleted = |active: &&ActiveSegmentState| {
        expected.flushed_offset <= expected.log_start_offset && !data.contains_key(&active.base_offset)
    };
    let expected_active = expected.active.as_ref().filter(|active| !is_deleted(active));
    let beyond = match expected_active {
        Some(active) => active.base_offset + 1,
        None => expected.flushed_offset,
    };
    let leftovers = data.split_off(&beyond);
    // Every batch of a leftover is in the journal. Internal batches alone take no offset.
    let is_beyond =
        |base: i64| base > expected.found_end || (base == expected.found_end && !expected.found_more);
    if let Some((base, _)) = leftovers.last_key_value().filter(|(base, _)| is_beyond(**base)) {
        let path = dir.join(paths::segment_file(*base));
        let what = format!("it is the log's, and the log's state ends at offset {}", expected.found_end);
        return Err(StorageError::corrupt(&path, 0, what));
    }
    let active = match expected_active {
        None => None,
        Some(state) => {
            let path = dir.join(paths::segment_file(state.base_offset));
            match data.remove(&state.base_offset) {
                Some(len) if len >= state.position => {}
                Some(len) => {
                    let what =
                        format!("the file has {len} bytes, {} were written and synced", state.position);
                    return Err(StorageError::corrupt(&path, len, what));
                }
                None => return Err(StorageError::missing(&path, "it is the segment that was written to")),
            }
            Some(load_active(dir, files, expected.log, state).await?)
        }
    };
    let end = active.as_ref().map_or(expected.flushed_offset, |a| a.base_offset);
    let next_bases: Vec<i64> = data.keys().copied().skip(1).chain([end]).collect();
    let mut sealed = Vec::new();
    for ((base_offset, bytes), next) in data.into_iter().zip(next_bases) {
        if next <= expected.log_start_offset {
            remove(dir, files, base_offset, SegmentFileKind::Data).await?;
            remove(dir, files, base_offset, SegmentFileKind::Index).await?;
        } else {
            sealed.push(Sealed { base_offset, base_index: Cell::new(None), bytes, footer: Cell::new(None) });
        }
    }
    let segments = Segments { sealed, active };
    if expected.flushed_offset > expected.log_start_offset
        && segments.first_offset().is_none_or(|first| first > expected.log_start_offset)
    {
        let what = format!("no segment holds the log start offset {}", expected.log_start_offset);
        return Err(StorageError::corrupt(dir, 0, what));
    }
    // Last: of a log that is refused they stay.
    for (base, _) in leftovers {
        remove(dir, files, base, SegmentFileKind::Data).await?;
    }
    for base in indexes.into_iter().filter(|base| *base >= beyond) {
        remove(dir, files, base, SegmentFileKind::Index).await?;
    }
    Ok(segments)
}

async fn load_active(
    dir: &Path,
    files: &FileCache,
    log: LogId,
    state: &ActiveSegmentState,
) -> Result<Active, StorageError> {
    let path = dir.join(paths::segment_file(state.base_offset));
    let file = files.open(&path, false).await?;
    check_header(&file, &path, log, state.base_offset).await?;
    let last_page = settle_last_page(&file, &path, state).await?;
    let mut index = SparseIndex::default();
    let mut index_pages = 0;
    let path = dir.join(paths::index_file(state.base_offset));
    if fs::exists(&path).await.map_err(StorageError::io("look for", &path))? {
        let file = files.open(&path, false).await?;
        let bytes = read_pages(&file, &path).await?;
        // The index only helps to find batches, and what it leads to is checked: the first page that is not whole or
        // reaches beyond the synced part ends it.
        for page in bytes.chunks_exact(PAGE) {
            let Ok(IndexPage::Entries(entries)) = IndexPage::decode(state.base_offset, index_pages, page)
            else {
                break;
            };
            if entries.len() < ENTRIES_PER_PAGE
                || entries.iter().any(|e| u64::from(e.position) >= state.position)
            {
                break;
            }
            index.entries.extend(entries);
            index_pages += 1;
        }
    }
    Ok(Active {
        base_offset: state.base_offset,
        base_index: state.base_index,
        created_ms: state.created_ms,
        position: state.position,
        max_timestamp: state.max_timestamp,
        index: Rc::new(RefCell::new(index)),
        index_pages,
        last_page,
    })
}

/// The bytes of the segment's last page, which the file has when this returns. The flush that was under way when the
/// power failed wrote this page again, and may have left anything there; the checkpoint has what was in it.
pub(super) async fn settle_last_page(
    file: &File,
    path: &Path,
    state: &ActiveSegmentState,
) -> Result<Bytes, StorageError> {
    let at = page_floor(state.position);
    let filled = (state.position - at) as usize;
    if filled == 0 {
        return Ok(Bytes::new());
    }
    let read = file.read_at(at, PAGE).await;
    if state.last_page.is_empty() {
        // A checkpoint of a build that did not keep it.
        let page = read.map_err(StorageError::io("read", path))?;
        return match page.get(..filled) {
            Some(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            None => {
                let what =
                    format!("the file ends before byte {}, which was written and synced", state.position);
                Err(StorageError::corrupt(path, at + page.len() as u64, what))
            }
        };
    }
    if !read.is_ok_and(|page| page.starts_with(&state.last_page)) {
        tracing::info!(path = %path.display(), at, "the last page was not written whole: writing it again");
        let mut page = AlignedBuf::new(PAGE);
        page[..filled].copy_from_slice(&state.last_page);
        file.write_at(at, page.freeze(), true).await.map_err(StorageError::io("write", path))?;
    }
    Ok(state.last_page.clone())
}

/// The segment's first page must be what was written.
pub async fn check_header(
    file: &File,
    path: &Path,
    log: LogId,
    base_offset: i64,
) -> Result<SegmentHeader, StorageError> {
    let page = file.read_at(0, PAGE).await.map_err(StorageError::io("read", path))?;
    match SegmentHeader::decode(&page) {
        Ok(header) if header.log == log && header.base_offset == base_offset => Ok(header),
        Ok(header) => {
            let what = format!("it is segment {} of log {}", header.base_offset, header.log);
            Err(StorageError::corrupt(path, 0, what))
        }
        Err(refused @ Refused::Version { .. }) => {
            Err(StorageError::Version { path: path.into(), what: refused.to_string() })
        }
        Err(refused) => Err(StorageError::corrupt(path, 0, format!("it is no segment: {refused}"))),
    }
}

/// The index and the footer of a sealed segment; `None` if the index file is missing or damaged.
pub async fn load_sealed(
    dir: &Path,
    files: &FileCache,
    segment: &Sealed,
) -> Result<Option<(SparseIndex, Footer)>, StorageError> {
    let path = dir.join(paths::index_file(segment.base_offset));
    if !fs::exists(&path).await.map_err(StorageError::io("look for", &path))? {
        return Ok(None);
    }
    let file = files.open(&path, false).await?;
    let bytes = read_pages(&file, &path).await?;
    let mut index = SparseIndex::default();
    for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
        match IndexPage::decode(segment.base_offset, number as u32, page) {
            Ok(IndexPage::Entries(entries))
                if entries.iter().all(|e| u64::from(e.position) < segment.bytes) =>
            {
                index.entries.extend(entries)
            }
            Ok(IndexPage::Footer(footer)) if footer.end == segment.bytes => return Ok(Some((index, footer))),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// An index file's bytes. One GiB of batches has a hundred pages; what a foreign file has beyond is not looked at. Of one
/// that the disk does not give back nothing is known, as of one that is missing.
pub(super) async fn read_pages(file: &File, path: &Path) -> Result<Bytes, StorageError> {
    const PAGES_MAX: u64 = 1024;
    let len = file.len().await.map_err(StorageError::io("measure", path))?;
    let len = (len - len % PAGE as u64).min(PAGES_MAX * PAGE as u64);
    match file.read_at(0, len as usize).await {
        Err(error) if fs::is_unreadable(&error) => Ok(Bytes::new()),
        read => read.map_err(StorageError::io("read", path)),
    }
}

/// Removes one file of a segment; it may be missing.
pub async fn remove(
    dir: &Path,
    files: &FileCache,
    base_offset: i64,
    kind: SegmentFileKind,
) -> Result<(), StorageError> {
    let path = dir.join(match kind {
        SegmentFileKind::Data => paths::segment_file(base_offset),
        SegmentFileKind::Index => paths::index_file(base_offset),
    });
    files.remove(&path).await
}
