#![no_main]
//! What a start finds in a log's directory: segments and their indexes, of which some are as a broker writes them and
//! some are not. The checkpoint that names them is sound.
//!
//! Built from the input as in `recovery`. The log is read from its start on and searched by timestamp.

use corelog_io::fs;
use corelog_io::sim::Sim;
use corelog_storage::format::PAGE;
use corelog_storage::format::checkpoint::{
    ActiveSegmentState, CheckpointHeader, CheckpointWriter, Committed, LogCheckpoint,
};
use corelog_storage::format::index_page::{ENTRIES_PER_PAGE, Footer, IndexEntry, IndexPage};
use corelog_storage::format::segment_file::SegmentHeader;
use corelog_storage::{HardState, RaftIndex, TermHistory, paths};
use corelog_storage_fuzz::{Batch, DIR, Near, TOPIC, log_id, serve};
use corelog_wire::records::BatchHeader;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::path::{Path, PathBuf};

#[derive(Arbitrary, Debug)]
struct Log {
    log_start_offset: Near,
    next_offset: Near,
    sealed: Vec<Segment>,
    active: Option<Segment>,
    /// File, byte, what is changed in it.
    damage: Vec<(u8, u16, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Segment {
    base_offset: Near,
    base_index: Near,
    batches: Vec<Batch>,
    /// What follows the last batch.
    bytes: Vec<u8>,
    index: Option<Index>,
}

#[derive(Arbitrary, Debug)]
struct Index {
    entries: Vec<(Near, Near, Near)>,
    /// Entries that are as those of a segment with larger batches would be.
    full: bool,
    number: Near,
    footer: Option<(Near, Near, Near)>,
}

/// One segment's files, and where it ends.
struct Made {
    data: Vec<u8>,
    index: Option<Vec<u8>>,
    next_offset: u64,
    next_index: u64,
}

impl Segment {
    fn make(&self, base_offset: u64, base_index: u64) -> Made {
        let mut data = vec![0; PAGE];
        let header = SegmentHeader {
            log: log_id(0),
            base_offset: self.base_offset.to(base_offset) as i64,
            base_index: RaftIndex(self.base_index.to(base_index)),
            created_ms: 1,
        };
        header.encode(&mut data);
        let (mut next_offset, mut next_index) = (base_offset, base_index);
        let mut starts = Vec::new();
        for batch in &self.batches {
            let bytes = batch.encode(next_offset);
            starts.push((next_offset, next_index, data.len()));
            if let Ok(header) = BatchHeader::parse(&bytes) {
                next_offset = header.next_offset() as u64;
                next_index = next_index.wrapping_add(1);
            }
            data.extend_from_slice(&bytes);
        }
        data.extend_from_slice(&self.bytes);
        let index = self.index.as_ref().map(|index| {
            let mut pages = Vec::new();
            let mut put = |page: IndexPage, number: u64| {
                let at = pages.len();
                pages.resize(at + PAGE, 0);
                page.encode(base_offset as i64, number as u32, &mut pages[at..]);
            };
            let mut entries: Vec<IndexEntry> = (starts.iter().zip(&index.entries))
                .map(|(start, near)| IndexEntry {
                    relative_offset: near.0.to(start.0.wrapping_sub(base_offset)) as u32,
                    position: near.1.to(start.2 as u64) as u32,
                    relative_index: near.2.to(start.1.wrapping_sub(base_index)) as u32,
                    max_timestamp_before: 1,
                })
                .collect();
            if let (true, Some(last)) = (index.full, entries.last().copied()) {
                entries.resize(ENTRIES_PER_PAGE, last);
            }
            entries.truncate(ENTRIES_PER_PAGE);
            put(IndexPage::Entries(entries), index.number.to(0));
            if let Some((end, offset, index)) = index.footer {
                let footer = Footer {
                    end: end.to(data.len() as u64),
                    next_offset: offset.to(next_offset) as i64,
                    next_index: RaftIndex(index.to(next_index)),
                    max_timestamp: 1,
                    sealed_ms: 1,
                };
                put(IndexPage::Footer(footer), 1);
            }
            pages
        });
        Made { data, index, next_offset, next_index }
    }
}

impl Log {
    /// Paths and contents.
    fn encode(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = paths::log_dir(Path::new(DIR), log_id(0), TOPIC);
        let mut files = Vec::new();
        let (mut offset, mut index) = (0, 0);
        let mut active = None;
        for segment in self.sealed.iter().take(3).chain(&self.active) {
            let made = segment.make(offset, index);
            active = self.active.as_ref().filter(|active| std::ptr::eq(*active, segment)).map(|_| {
                ActiveSegmentState {
                    base_offset: offset as i64,
                    base_index: RaftIndex(index),
                    created_ms: 1,
                    position: made.data.len() as u64,
                    max_timestamp: 1,
                    last_page: Default::default(),
                }
            });
            files.push((dir.join(paths::segment_file(offset as i64)), made.data));
            if let Some(pages) = made.index {
                files.push((dir.join(paths::index_file(offset as i64)), pages));
            }
            (offset, index) = (made.next_offset, made.next_index);
        }
        for (file, at, change) in &self.damage {
            let count = files.len().max(1);
            if let Some((_, bytes)) = files.get_mut(usize::from(*file) % count) {
                let at = usize::from(*at) % bytes.len();
                bytes[at] ^= change;
            }
        }
        let log = LogCheckpoint {
            log: log_id(0),
            durable_through: 0,
            log_start_offset: self.log_start_offset.to(0) as i64,
            next_offset: self.next_offset.to(offset) as i64,
            next_index: RaftIndex(index),
            term: 0,
            hard_state: HardState::default(),
            flushed_offset: self.next_offset.to(offset) as i64,
            flushed_index: RaftIndex(index),
            active,
            terms: TermHistory::without_indexes(RaftIndex(index), 0, [(0, 0)]).expect("one epoch ascends"),
            membership: None,
            reset: None,
            incoming: None,
            producers: Vec::new(),
            committed: Committed {
                offset: self.next_offset.to(offset) as i64,
                index: RaftIndex(index),
                ..Committed::default()
            },
        };
        let mut checkpoint = CheckpointWriter::new(&[]);
        checkpoint.add(&log, std::iter::empty());
        let header = CheckpointHeader {
            generation: 1,
            shards: 1,
            complete: true,
            replay_from: 1,
            ..CheckpointHeader::default()
        };
        files.push((
            paths::journal_dir(Path::new(DIR)).join(paths::checkpoint_file(1, 0)),
            checkpoint.finish(header),
        ));
        files
    }
}

fuzz_target!(|log: Log| {
    let files = log.encode();
    let sim = Sim::new(1);
    sim.block_on(async move {
        for (path, bytes) in files {
            fs::create_dir_all(path.parent().expect("a file lies in a directory")).await.expect("it is made");
            fs::write_atomic(&path, &bytes).await.expect("the file is written");
        }
        if let Ok(first) = serve().await {
            assert_eq!(serve().await.expect("what was closed opens again"), first);
        }
    });
});
