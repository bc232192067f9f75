//! Cuts a log's segments back to where the log ends. All that is done here can be done again: a crash in the middle leaves
//! segments that end where they should, or reach beyond.

use super::load::{check_header, read_pages, remove, settle_last_page};
use super::{Active, BatchStart, INTERVAL, IndexCache, Scanner, Sealed, Segments, SparseIndex};
use crate::batch;
use crate::error::StorageError;
use crate::files::FileCache;
use crate::format::checkpoint::ActiveSegmentState;
use crate::format::index_page::{ENTRIES_PER_PAGE, IndexEntry, IndexPage};
use crate::format::segment_file::SegmentHeader;
use crate::format::{PAGE, page_floor};
use crate::ids::{LogId, RaftIndex};
use crate::paths::{self, SegmentFileKind};
use bytes::Bytes;
use corelog_io::{File, fs, yield_if_needed};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

/// Where the segments are to end.
pub struct Cut {
    pub log: LogId,
    pub offset: i64,
    pub index: RaftIndex,
    pub log_start_offset: i64,
    /// No segment that begins here or later was ever flushed to the end.
    pub reached_offset: i64,
    /// What is known of the active one, its last page above all: a flush that failed, or a crash ended, may have spoiled it.
    pub active: Option<ActiveSegmentState>,
}

/// The segments of `dir`, which end where `to` says. The one that the cut goes through is the active one.
pub async fn cut(
    dir: &Path,
    files: &FileCache,
    indexes: &IndexCache,
    to: &Cut,
) -> Result<Segments, StorageError> {
    let lost = |what: &str| Err(StorageError::missing(dir, what));
    let has_records = to.offset > to.log_start_offset;
    if !fs::exists(dir).await.map_err(StorageError::io("look for", dir))? {
        return if has_records { lost("the log's segments were in it") } else { Ok(Segments::default()) };
    }
    let (mut data, mut index_files) = list(dir).await?;
    while let Some((base, _)) = data.last_key_value()
        && is_behind(dir, files, to, *base).await?
    {
        let base = *base;
        remove(dir, files, base, SegmentFileKind::Data).await?;
        data.remove(&base);
    }
    index_files.retain(|base| !data.contains_key(base));
    for base in index_files {
        indexes.forget(to.log, base);
        remove(dir, files, base, SegmentFileKind::Index).await?;
    }
    // What is removed must not be back when the log has grown beyond.
    fs::sync_dir(dir).await.map_err(StorageError::io("sync", dir))?;
    let active = match data.pop_last() {
        Some((base, len)) => {
            indexes.forget(to.log, base);
            Some(cut_through(dir, files, to, base, len).await?)
        }
        None if has_records => return lost("no segment holds the records before the log's end"),
        None => None,
    };
    let sealed = data.into_iter().map(|(base_offset, bytes)| Sealed {
        base_offset,
        base_index: Cell::new(None),
        bytes,
        footer: Cell::new(None),
    });
    Ok(Segments { sealed: sealed.collect(), active })
}

/// Segments with their lengths, and those that have an index.
async fn list(dir: &Path) -> Result<(BTreeMap<i64, u64>, BTreeSet<i64>), StorageError> {
    let (mut data, mut indexes) = (BTreeMap::new(), BTreeSet::new());
    for entry in fs::read_dir(dir).await.map_err(StorageError::io("list", dir))? {
        match entry.name.to_str().and_then(paths::parse_segment_name) {
            Some((base, SegmentFileKind::Data)) => drop(data.insert(base, entry.len)),
            Some((base, SegmentFileKind::Index)) => drop(indexes.insert(base)),
            None => {}
        }
    }
    Ok((data, indexes))
}

/// Whether all of the segment is behind the cut.
async fn is_behind(dir: &Path, files: &FileCache, to: &Cut, base: i64) -> Result<bool, StorageError> {
    if base != to.offset {
        return Ok(base > to.offset);
    }
    // Internal batches take no offsets: some may be before the cut.
    let path = dir.join(paths::segment_file(base));
    let file = files.open(&path, false).await?;
    match check_header(&file, &path, to.log, base).await {
        Ok(header) => Ok(header.base_index >= to.index),
        // What a flush began that a crash ended may have none that can be read.
        Err(_) if base >= to.reached_offset && to.active.as_ref().is_none_or(|a| a.base_offset < base) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Cuts the segment of `base` and `len` bytes, which begins before the cut.
async fn cut_through(
    dir: &Path,
    files: &FileCache,
    to: &Cut,
    base: i64,
    len: u64,
) -> Result<Active, StorageError> {
    let path = dir.join(paths::segment_file(base));
    let file = files.open(&path, false).await?;
    let header = check_header(&file, &path, to.log, base).await?;
    let mut end = len;
    if let Some(active) = to.active.as_ref().filter(|a| a.base_offset == base) {
        if len > page_floor(active.position) {
            settle_last_page(&file, &path, active).await?;
        }
        // What a crash left behind it may not be readable.
        end = len.min(active.position);
    }
    let index_path = dir.join(paths::index_file(base));
    let known = index_entries(&index_path, files, base, end).await?;
    let (position, index, kept, max_timestamp) = match place(&file, &path, end, &header, to, known).await {
        // The index may lead astray: it may be of what was there before.
        Err(StorageError::Corrupt { .. }) => place(&file, &path, end, &header, to, Vec::new()).await?,
        found => found?,
    };
    let index_pages = (kept / ENTRIES_PER_PAGE) as u32;
    end_file(&index_path, files, u64::from(index_pages) * PAGE as u64).await?;
    end_file(&path, files, position).await?;
    let at = page_floor(position);
    let page = file.read_at(at, PAGE).await.map_err(StorageError::io("read", &path))?;
    let Some(last_page) = page.get(..(position - at) as usize) else {
        let what = format!("the file ends before byte {position}, where a batch was found to end");
        return Err(StorageError::corrupt(&path, at + page.len() as u64, what));
    };
    Ok(Active {
        base_offset: base,
        base_index: header.base_index,
        created_ms: header.created_ms,
        position,
        max_timestamp,
        index: Rc::new(RefCell::new(index)),
        index_pages,
        last_page: Bytes::copy_from_slice(last_page),
    })
}

/// The entries that an index file has, of a segment of `len` bytes: up to what is not whole, or a footer.
async fn index_entries(
    path: &Path,
    files: &FileCache,
    base: i64,
    len: u64,
) -> Result<Vec<IndexEntry>, StorageError> {
    let mut known = Vec::new();
    if !fs::exists(path).await.map_err(StorageError::io("look for", path))? {
        return Ok(known);
    }
    let file = files.open(path, false).await?;
    for (number, page) in read_pages(&file, path).await?.chunks_exact(PAGE).enumerate() {
        let Ok(IndexPage::Entries(entries)) = IndexPage::decode(base, number as u32, page) else { break };
        known.extend(entries);
        if !known.len().is_multiple_of(ENTRIES_PER_PAGE) {
            break;
        }
    }
    known.retain(|entry| u64::from(entry.position) < len);
    Ok(known)
}

/// Where the segment of `len` bytes is to end, its index up to there, how many entries of it are of `known`, and the greatest
/// timestamp.
async fn place(
    file: &File,
    path: &Path,
    len: u64,
    segment: &SegmentHeader,
    to: &Cut,
    mut known: Vec<IndexEntry>,
) -> Result<(u64, SparseIndex, usize, i64), StorageError> {
    let (base_offset, base_index) = (segment.base_offset, segment.base_index);
    known.truncate(known.partition_point(|e| base_index.0 + u64::from(e.relative_index) < to.index.0));
    let kept = known.len();
    let first = (BatchStart::of_segment(base_offset), base_index, -1);
    let (start, mut index, mut max_timestamp) = known.last().map_or(first, |entry| {
        let offset = base_offset + i64::from(entry.relative_offset);
        let start = BatchStart { position: u64::from(entry.position), offset, number: entry.relative_index };
        (start, RaftIndex(base_index.0 + u64::from(entry.relative_index)), entry.max_timestamp_before)
    });
    let mut sparse = SparseIndex { entries: known };
    let mut scanner = Scanner::new(file.clone(), path.to_path_buf(), start, len, INTERVAL);
    while index < to.index {
        let at = scanner.at().position;
        let Some(header) = scanner.peek().await? else {
            let what = format!("the segment ends before Raft index {}, which was in it", to.index);
            return Err(scanner.corrupt(at, what));
        };
        sparse.note((base_offset, base_index), header.base_offset, index, at, max_timestamp);
        max_timestamp = max_timestamp.max(batch::timestamp(&header));
        scanner.skip(&header);
        index = index.next();
        yield_if_needed().await;
    }
    let BatchStart { position, offset, .. } = scanner.at();
    if offset != to.offset {
        let what = format!("Raft index {} is at offset {offset}, expected {}", to.index, to.offset);
        return Err(scanner.corrupt(position, what));
    }
    Ok((position, sparse, kept, max_timestamp))
}

/// Makes the file at `path` no longer than `len` bytes, durably; it may be missing.
async fn end_file(path: &Path, files: &FileCache, len: u64) -> Result<(), StorageError> {
    if !fs::exists(path).await.map_err(StorageError::io("look for", path))? {
        return Ok(());
    }
    let file = files.open(path, false).await?;
    if file.len().await.map_err(StorageError::io("measure", path))? > len {
        file.truncate(len).await.map_err(StorageError::io("truncate", path))?;
        file.sync_data().await.map_err(StorageError::io("sync", path))?;
    }
    Ok(())
}
