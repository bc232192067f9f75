//! Segment files and their indexes.

use super::report::Report;
use crate::time;
use anyhow::{Context, Result};
use bytes::Bytes;
use corelog_storage::LogId;
use corelog_storage::format::PAGE;
use corelog_storage::format::index_page::{Footer, IndexEntry, IndexPage};
use corelog_storage::format::segment_file::{FIRST_BATCH, SegmentHeader};
use corelog_storage::paths;
use corelog_wire::records::{BATCH_HEADER_LEN, BatchHeader, BatchView, NO_TIMESTAMP};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Where a log goes on behind a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub next_offset: i64,
    pub next_index: u64,
}

/// What the index file says.
#[derive(Default)]
struct Index {
    /// By position of the batch.
    entries: BTreeMap<u64, IndexEntry>,
    footer: Option<Footer>,
}

/// Goes through a segment's batches. `log` is whose it should be; `synced` is where what is synced ends, of the segment that is
/// still written to. None if its header cannot be read.
pub fn dump(
    path: &Path,
    log: Option<LogId>,
    synced: Option<u64>,
    report: &mut Report,
) -> Result<Option<End>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let len = file.metadata()?.len();
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut page = vec![0; PAGE];
    let header = match file.read_exact(&mut page).ok().map(|()| SegmentHeader::decode(&page)) {
        Some(Ok(header)) => header,
        Some(Err(refused)) => {
            report.problem(path, 0, format!("it is no segment: {refused}"))?;
            return Ok(None);
        }
        None => {
            report.problem(path, 0, format!("it has {len} bytes, less than a segment's header"))?;
            return Ok(None);
        }
    };
    let text = format!(
        "segment {}: {} from offset {}, Raft index {}, begun {}",
        path.display(),
        header.log,
        header.base_offset,
        header.base_index,
        time::shown(header.created_ms)
    );
    let fields = json!({
        "path": path,
        "topic_id": header.log.topic.to_string(),
        "partition": header.log.partition,
        "base_offset": header.base_offset,
        "base_index": header.base_index.0,
        "created_ms": header.created_ms,
        "bytes": len,
    });
    report.heading(&text, "segment", fields)?;
    check_name(path, &header, log, report)?;
    let index = read_index(&path.with_extension("index"), header.base_offset, report)?;
    let scan = Scan { path, header, end: synced.unwrap_or(len).min(len), index };
    scan.run(&mut file, len, synced, report).map(Some)
}

fn check_name(path: &Path, header: &SegmentHeader, log: Option<LogId>, report: &mut Report) -> Result<()> {
    let named = path.file_name().and_then(|name| name.to_str()).and_then(paths::parse_segment_name);
    if let Some((base, _)) = named
        && base != header.base_offset
    {
        report.problem(
            path,
            0,
            format!("its header says that it begins at offset {}", header.base_offset),
        )?;
    }
    if let Some(log) = log
        && log != header.log
    {
        report.problem(path, 0, format!("its header says that it belongs to {}", header.log))?;
    }
    Ok(())
}

struct Scan<'a> {
    path: &'a Path,
    header: SegmentHeader,
    end: u64,
    index: Index,
}

impl Scan<'_> {
    fn run(
        mut self,
        file: &mut impl Read,
        len: u64,
        synced: Option<u64>,
        report: &mut Report,
    ) -> Result<End> {
        let mut position = FIRST_BATCH;
        let mut next = End { next_offset: self.header.base_offset, next_index: self.header.base_index.0 };
        let mut max_timestamp = NO_TIMESTAMP;
        while position < self.end {
            let Some(batch) = self.next_batch(file, position, synced.is_some(), report)? else { break };
            let header = *batch.header();
            if header.base_offset != next.next_offset {
                let what =
                    format!("a batch begins at offset {}, expected {}", header.base_offset, next.next_offset);
                report.problem(self.path, position, what)?;
            }
            if let Some(entry) = self.index.entries.remove(&position) {
                self.check_entry(&entry, next, max_timestamp, report)?;
            }
            report.batch(self.path, position, next.next_index, &batch)?;
            if !header.is_internal() {
                max_timestamp = max_timestamp.max(header.max_timestamp);
            }
            next = End { next_offset: header.next_offset(), next_index: next.next_index + 1 };
            position += header.size() as u64;
        }
        if len > position && self.index.footer.is_none() {
            let bytes = len - position;
            let text = format!("{position:>10}  {bytes} bytes that nothing was synced to");
            report.line(&text, "unused", json!({"position": position, "bytes": bytes}))?;
        }
        self.check_index(position, next, max_timestamp, report)?;
        Ok(next)
    }

    /// None at the end, or where nothing more can be read.
    fn next_batch(
        &self,
        file: &mut impl Read,
        position: u64,
        end_is_known: bool,
        report: &mut Report,
    ) -> Result<Option<BatchView>> {
        let left = self.end - position;
        let mut bytes = vec![0; BATCH_HEADER_LEN.min(left as usize)];
        file.read_exact(&mut bytes)?;
        // Space is reserved ahead of what is written; where what is written ends, only the checkpoint knows.
        if !end_is_known && self.index.footer.is_none() && bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = match BatchHeader::parse(&bytes) {
            Ok(header) => header,
            Err(error) => {
                report.problem(self.path, position, format!("no batch begins here: {error}"))?;
                return Ok(None);
            }
        };
        if header.size() as u64 > left {
            let what = format!("a batch of {} bytes runs past the end, {left} are left", header.size());
            report.problem(self.path, position, what)?;
            return Ok(None);
        }
        let read = bytes.len();
        bytes.resize(header.size(), 0);
        file.read_exact(&mut bytes[read..])?;
        match BatchView::parse(&Bytes::from(bytes)) {
            Ok(batch) => Ok(Some(batch)),
            Err(error) => {
                report.problem(self.path, position, error.to_string())?;
                Ok(None)
            }
        }
    }

    fn check_entry(
        &self,
        entry: &IndexEntry,
        at: End,
        max_timestamp: i64,
        report: &mut Report,
    ) -> Result<()> {
        let offset = self.header.base_offset + i64::from(entry.relative_offset);
        let index = self.header.base_index.0 + u64::from(entry.relative_index);
        if (offset, index, entry.max_timestamp_before) != (at.next_offset, at.next_index, max_timestamp) {
            let what = format!(
                "the index has offset {offset}, Raft index {index} and timestamps up to {} before it; the segment has {}, {} and {max_timestamp}",
                entry.max_timestamp_before, at.next_offset, at.next_index
            );
            report.problem(self.path, entry.position.into(), what)?;
        }
        Ok(())
    }

    fn check_index(&self, end: u64, next: End, max_timestamp: i64, report: &mut Report) -> Result<()> {
        let path = self.path.with_extension("index");
        // Behind what is synced an index may be ahead of its segment.
        for position in self.index.entries.range(..end).map(|(position, _)| position) {
            report.problem(
                &path,
                0,
                format!("it names byte {position} of the segment, where no batch begins"),
            )?;
        }
        let Some(footer) = self.index.footer else { return Ok(()) };
        let said = (footer.end, footer.next_offset, footer.next_index.0, footer.max_timestamp);
        let found = (end, next.next_offset, next.next_index, max_timestamp);
        if said != found {
            let what = format!(
                "its footer says that the segment ends at byte {}, offset {}, Raft index {}, timestamp {}; the segment says {}, {}, {}, {}",
                said.0, said.1, said.2, said.3, found.0, found.1, found.2, found.3
            );
            report.problem(&path, 0, what)?;
        }
        Ok(())
    }
}

/// A missing index is no damage: it is made anew when it is needed.
fn read_index(path: &Path, base_offset: i64, report: &mut Report) -> Result<Index> {
    let mut index = Index::default();
    let Ok(bytes) = std::fs::read(path) else { return Ok(index) };
    for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
        match IndexPage::decode(base_offset, number as u32, page) {
            Ok(IndexPage::Entries(entries)) => {
                index.entries.extend(entries.into_iter().map(|entry| (u64::from(entry.position), entry)));
            }
            Ok(IndexPage::Footer(footer)) => index.footer = Some(footer),
            // Reserved, and not written yet.
            Err(_) if page.iter().all(|byte| *byte == 0) => break,
            Err(refused) => {
                report.problem(
                    path,
                    (number * PAGE) as u64,
                    format!("the index page is refused: {refused}"),
                )?;
                break;
            }
        }
    }
    Ok(index)
}

/// An index file by itself.
pub fn dump_index(path: &Path, report: &mut Report) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let base = path.file_name().and_then(|name| name.to_str()).and_then(paths::parse_segment_name);
    let (base_offset, _) = base.with_context(|| format!("{} is not named as an index is", path.display()))?;
    report.heading(
        &format!("index {}", path.display()),
        "index",
        json!({"path": path, "base_offset": base_offset}),
    )?;
    let index = read_index(path, base_offset, report)?;
    for (position, entry) in &index.entries {
        let offset = base_offset + i64::from(entry.relative_offset);
        let before = entry.max_timestamp_before;
        let text = format!(
            "{position:>10}  offset {offset:<12} index +{:<8} timestamps before it up to {}",
            entry.relative_index,
            time::shown(before)
        );
        let fields = json!({
            "position": position,
            "offset": offset,
            "relative_index": entry.relative_index,
            "max_timestamp_before": before,
        });
        report.line(&text, "index_entry", fields)?;
    }
    if let Some(footer) = index.footer {
        let text = format!(
            "sealed {}: {} bytes, up to offset {}, Raft index {}, timestamp {}",
            time::shown(footer.sealed_ms),
            footer.end,
            footer.next_offset,
            footer.next_index,
            time::shown(footer.max_timestamp)
        );
        let fields = json!({
            "end": footer.end,
            "next_offset": footer.next_offset,
            "next_index": footer.next_index.0,
            "max_timestamp": footer.max_timestamp,
            "sealed_ms": footer.sealed_ms,
        });
        report.line(&text, "footer", fields)?;
    }
    if bytes.len() % PAGE != 0 {
        report.problem(path, bytes.len() as u64, "it does not end with a page")?;
    }
    Ok(())
}
