#![no_main]
//! Each format of `storage/src/format`, and the names of files: what is decoded can be encoded, and decodes to the same.
//!
//! The first byte chooses the format. The rest changes a sound sample (so that the fuzzer need not guess magic numbers);
//! with an odd second byte the checksums are made right again, so that it gets behind them.

use corelog_storage::format::PAGE;
use corelog_storage::format::checkpoint::{
    self, ActiveSegmentState, CHECKPOINT_HEADER, CheckpointHeader, CheckpointWriter, Committed, JournalEnd,
    LogCheckpoint,
};
use corelog_storage::format::entry::{ENTRY_HEADER, EntryHeader, EntryKind, HardState};
use corelog_storage::format::group::{GROUP_HEADER, GroupHeader};
use corelog_storage::format::index_page::{Footer, IndexEntry, IndexPage};
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::format::segment_file::SegmentHeader;
use corelog_storage::{LogId, RaftIndex, TermHistory, paths};
use corelog_wire::Uuid;
use libfuzzer_sys::fuzz_target;

const INDEX_ENTRY: IndexEntry =
    IndexEntry { relative_offset: 1, position: 4096, relative_index: 1, max_timestamp_before: -1 };
const FOOTER: Footer =
    Footer { end: 8192, next_offset: 501, next_index: RaftIndex(9), max_timestamp: -1, sealed_ms: 5 };

fuzz_target!(|data: &[u8]| {
    let Some((&[format, seal], change)) = data.split_first_chunk::<2>() else { return };
    let seal = seal & 1 == 1;
    match format % 8 {
        0 => journal_file(change, seal),
        1 => group(change, seal),
        2 => entry(change),
        3 => checkpoint(change, seal),
        4 => index_page(IndexPage::Entries(vec![INDEX_ENTRY; 3]), change, seal),
        5 => index_page(IndexPage::Footer(FOOTER), change, seal),
        6 => segment(change, seal),
        _ => names(change),
    }
});

/// `sample` with `change` laid over it, bit by bit; what is left of `change` follows, up to `len_max` bytes in all.
fn changed(mut sample: Vec<u8>, change: &[u8], len_max: usize) -> Vec<u8> {
    let (over, after) = change.split_at(change.len().min(sample.len()));
    for (byte, change) in sample.iter_mut().zip(over) {
        *byte ^= change;
    }
    sample.extend_from_slice(&after[..after.len().min(len_max - sample.len())]);
    sample
}

fn put_crc(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    let crc = crc32c::crc32c(&bytes[covered]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A page whose last bytes are its checksum.
fn page(encode: impl Fn(&mut [u8]), change: &[u8], seal: bool) -> Vec<u8> {
    let mut sample = vec![0; PAGE];
    encode(&mut sample);
    let mut page = changed(sample, change, PAGE);
    if seal {
        put_crc(&mut page, 0..PAGE - 4, PAGE - 4);
    }
    page
}

fn journal_file(change: &[u8], seal: bool) {
    let sample = JournalFileHeader { generation: 1, shard: 0, salt: 2, first_sequence: 1 };
    let page = page(|page| sample.encode(page), change, seal);
    if let Ok(header) = JournalFileHeader::decode(&page) {
        let mut again = vec![0; PAGE];
        header.encode(&mut again);
        assert_eq!(JournalFileHeader::decode(&again), Ok(header));
    }
    // A file cut short.
    let _ = JournalFileHeader::decode(change);
}

fn group(change: &[u8], seal: bool) {
    let sample = GroupHeader {
        generation: 1,
        salt: 2,
        sequence: 3,
        durable_through: 2,
        shard: 0,
        payload_len: 48,
        entries: 1,
        entries_crc: 4,
    };
    let mut bytes = changed(sample.encode().to_vec(), change, GROUP_HEADER);
    if seal {
        put_crc(&mut bytes, 0..60, 60);
    }
    if let Ok(header) = GroupHeader::decode(&bytes) {
        assert_eq!(GroupHeader::decode(&header.encode()), Ok(header));
        assert!(header.disk_len() >= (GROUP_HEADER + header.payload_len as usize) as u64);
        assert_eq!(header.disk_len() % PAGE as u64, 0);
    }
    let _ = GroupHeader::decode(change);
}

fn entry(change: &[u8]) {
    let log = LogId { topic: Uuid([1; 16]), partition: 2 };
    let sample =
        EntryHeader { log, kind: EntryKind::Append, index: RaftIndex(3), base_offset: 4, term: 5, len: 61 };
    for bytes in [&changed(sample.encode().to_vec(), change, usize::MAX)[..], change] {
        if let Ok(header) = EntryHeader::decode(bytes) {
            assert_eq!(EntryHeader::decode(&header.encode()), Ok(header));
            assert!(header.span() >= ENTRY_HEADER + header.len as usize);
        }
    }
}

fn checkpoint(change: &[u8], seal: bool) {
    let mut writer = CheckpointWriter::new(&[JournalEnd { generation: 1, shard: 0, sequence: 2 }]);
    for active in [
        None,
        Some(ActiveSegmentState {
            base_offset: 3,
            base_index: RaftIndex(3),
            created_ms: 4,
            position: 8192,
            max_timestamp: -1,
            last_page: Default::default(),
        }),
    ] {
        let log = LogCheckpoint {
            log: LogId { topic: Uuid([1; 16]), partition: i32::from(active.is_some()) },
            durable_through: 5,
            log_start_offset: 1,
            next_offset: 9,
            next_index: RaftIndex(9),
            term: 1,
            hard_state: HardState { term: 1, vote: -1 },
            flushed_offset: 6,
            flushed_index: RaftIndex(6),
            active,
            terms: TermHistory::without_indexes(RaftIndex(9), 1, [(1, 0)]).expect("one epoch ascends"),
            membership: None,
            reset: None,
            incoming: None,
            producers: Vec::new(),
            committed: Committed { offset: 9, index: RaftIndex(9), term: 1, ..Committed::default() },
        };
        writer.add(&log, std::iter::empty());
    }
    let header = CheckpointHeader { generation: 2, shards: 1, replay_from: 1, ..CheckpointHeader::default() };
    let mut bytes = changed(writer.finish(header), change, 1 << 16);
    if seal {
        let ends = u32::from_le_bytes(bytes[60..64].try_into().expect("four bytes")) as usize % 8;
        let body_at = (CHECKPOINT_HEADER + ends * 24).min(bytes.len());
        let body_len = (bytes.len() - body_at) as u64;
        bytes[40..48].copy_from_slice(&body_len.to_le_bytes());
        bytes[60..64].copy_from_slice(&(ends as u32).to_le_bytes());
        put_crc(&mut bytes, CHECKPOINT_HEADER..body_at, 64);
        let whole = bytes.len();
        put_crc(&mut bytes, body_at..whole, 56);
        put_crc(&mut bytes, 0..76, 76);
    }
    if let Ok((header, logs)) = checkpoint::decode(&bytes) {
        let ends = header.decode_ends(&bytes).expect("they were checked");
        let mut writer = CheckpointWriter::new(&ends);
        for log in &logs {
            let producers: Vec<_> = log.producers.iter().map(|(id, entry)| (*id, entry)).collect();
            writer.add(log, producers.into_iter());
        }
        let (_, again) = checkpoint::decode(&writer.finish(header)).expect("what was decoded can be encoded");
        assert_eq!(again, logs);
    }
    let _ = checkpoint::decode(change);
}

fn index_page(sample: IndexPage, change: &[u8], seal: bool) {
    let bytes = page(|page| sample.encode(500, 3, page), change, seal);
    if let Ok(decoded) = IndexPage::decode(500, 3, &bytes) {
        let mut again = vec![0; PAGE];
        decoded.encode(500, 3, &mut again);
        assert_eq!(IndexPage::decode(500, 3, &again), Ok(decoded));
    }
    let _ = IndexPage::decode(500, 3, change);
}

fn segment(change: &[u8], seal: bool) {
    let log = LogId { topic: Uuid([1; 16]), partition: 2 };
    let sample = SegmentHeader { log, base_offset: 3, base_index: RaftIndex(4), created_ms: 5 };
    let page = page(|page| sample.encode(page), change, seal);
    if let Ok(header) = SegmentHeader::decode(&page) {
        let mut again = vec![0; PAGE];
        header.encode(&mut again);
        assert_eq!(SegmentHeader::decode(&again), Ok(header));
    }
    let _ = SegmentHeader::decode(change);
}

fn names(name: &[u8]) {
    let Ok(name) = str::from_utf8(name) else { return };
    let _ = (paths::JournalName::parse(name), paths::topic_of_dir(name));
    if let Some((base_offset, kind)) = paths::parse_segment_name(name) {
        assert_eq!(
            name,
            match kind {
                paths::SegmentFileKind::Data => paths::segment_file(base_offset),
                paths::SegmentFileKind::Index => paths::index_file(base_offset),
            }
        );
    }
}
