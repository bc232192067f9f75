//! Files whose checksums match and whose content cannot be: a broken build's, or somebody's. They are refused with what
//! is wrong, and nothing panics.

mod world;

use bytes::Bytes;
use corelog_io::fs;
use corelog_io::sim::Sim;
use corelog_storage::format::PAGE;
use corelog_storage::format::checkpoint::{CheckpointHeader, CheckpointWriter, Committed, LogCheckpoint};
use corelog_storage::format::entry::{EntryHeader, EntryKind, entry_span, unprotected};
use corelog_storage::format::group::GroupHeader;
use corelog_storage::format::index_page::{ENTRIES_PER_PAGE, Footer, IndexEntry, IndexPage};
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::format::segment_file::SegmentHeader;
use corelog_storage::{HardState, RaftIndex, TermHistory, paths, read_journals};
use corelog_wire::records::{ATTRIBUTES_AT, BatchHeader};
use std::path::Path;
use world::{DIR, batch, log_config, log_id, open};

/// Generation 1's journal: one group with these entries.
fn journal(entries: &[(EntryHeader, Bytes)]) -> Vec<u8> {
    let (mut payload, mut entries_crc) = (Vec::new(), 0);
    for (header, bytes) in entries {
        let from = payload.len();
        payload.extend_from_slice(&header.encode());
        payload.extend_from_slice(bytes);
        payload.resize(from + entry_span(bytes.len()), 0);
        entries_crc = crc32c::crc32c_append(entries_crc, &header.encode());
        entries_crc = crc32c::crc32c_append(entries_crc, unprotected(bytes));
    }
    let group = GroupHeader {
        generation: 1,
        salt: 7,
        sequence: 1,
        durable_through: 0,
        shard: 0,
        payload_len: payload.len() as u32,
        entries: entries.len() as u32,
        entries_crc,
    };
    let mut file = vec![0; PAGE];
    JournalFileHeader { generation: 1, shard: 0, salt: 7, first_sequence: 1 }.encode(&mut file);
    file.extend_from_slice(&group.encode());
    file.extend_from_slice(&payload);
    file.resize(file.len().next_multiple_of(PAGE), 0);
    file
}

fn append(index: u64, base_offset: i64, bytes: Bytes) -> (EntryHeader, Bytes) {
    let entry = EntryHeader {
        log: log_id(1),
        kind: EntryKind::Append,
        index: RaftIndex(index),
        base_offset,
        term: 0,
        len: bytes.len() as u32,
    };
    (entry, bytes)
}

fn truncate(index: u64, base_offset: i64) -> (EntryHeader, Bytes) {
    let (append, _) = append(index, base_offset, Bytes::new());
    (EntryHeader { kind: EntryKind::Truncate, ..append }, Bytes::new())
}

/// A batch of one record that begins at `base_offset`, its header changed and its checksum right.
fn batch_at(base_offset: i64, change: impl Fn(&mut BatchHeader)) -> Bytes {
    let mut bytes = batch(&[b"value"], 1).to_vec();
    let mut header = BatchHeader::parse(&bytes).expect("a batch");
    header.base_offset = base_offset;
    header.partition_leader_epoch = 0;
    change(&mut header);
    header.write(bytes.first_chunk_mut().expect("a header's bytes"));
    header.crc = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    header.write(bytes.first_chunk_mut().expect("a header's bytes"));
    bytes.into()
}

async fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    let path = Path::new(DIR).join(path);
    fs::create_dir_all(path.parent().expect("a file lies in a directory")).await.expect("it is made");
    fs::write_atomic(&path, bytes).await.expect("it is written");
}

/// A log of one record a batch, of which `flushed` are in segments.
fn state(flushed: u64, next: u64) -> LogCheckpoint {
    LogCheckpoint {
        log: log_id(1),
        durable_through: 1,
        log_start_offset: 0,
        next_offset: next as i64,
        next_index: RaftIndex(next),
        term: 0,
        hard_state: HardState::default(),
        flushed_offset: flushed as i64,
        flushed_index: RaftIndex(flushed),
        active: None,
        terms: TermHistory::without_indexes(RaftIndex(next), 0, [(0, 0)]).expect("one epoch ascends"),
        membership: None,
        reset: None,
        incoming: None,
        producers: Vec::new(),
        committed: Committed { offset: next as i64, index: RaftIndex(next), ..Committed::default() },
    }
}

/// Generation 1's checkpoint; replay begins with the journal's first group, as another log's would need it.
fn checkpoint(log: &LogCheckpoint) -> Vec<u8> {
    let mut writer = CheckpointWriter::new(&[]);
    writer.add(log, std::iter::empty());
    writer.finish(CheckpointHeader {
        generation: 1,
        shards: 1,
        complete: true,
        replay_from: 1,
        ..CheckpointHeader::default()
    })
}

/// What the log says that is recovered from this journal; `None`: it is not refused.
fn refusal(entries: &[(EntryHeader, Bytes)]) -> Option<String> {
    refusal_with(entries, None)
}

/// As [`refusal`], beside a checkpoint that has seen the whole journal.
fn refusal_with(entries: &[(EntryHeader, Bytes)], state: Option<LogCheckpoint>) -> Option<String> {
    let file = journal(entries);
    Sim::new(1).block_on(async move {
        if let Some(state) = state {
            let path = paths::journal_dir(Path::new(DIR)).join(paths::checkpoint_file(1, 0));
            write(path, &checkpoint(&state)).await;
            if state.flushed_offset > 0 {
                let dir = paths::log_dir(Path::new(DIR), log_id(1), "topic");
                fs::create_dir_all(&dir).await.expect("it is made");
            }
        }
        write(paths::journal_dir(Path::new(DIR)).join(paths::journal_file(1, 0, 0)), &file).await;
        let storage = open().await;
        let log = storage.log(log_id(1), "topic", log_config());
        log.refused().map(|error| error.to_string())
    })
}

#[test]
fn a_journal_that_fits_together_is_taken() {
    let sound = |offset| batch_at(offset, |_| ());
    let entries = [append(0, 0, sound(0)), append(1, 1, sound(1)), truncate(1, 1), append(1, 1, sound(1))];
    assert_eq!(refusal(&entries), None);
}

/// What was truncated is still in the journal, before what replaced it. A part of that is in a segment already.
#[test]
fn what_was_taken_back_need_not_fit_the_segments() {
    let sound = |offset| batch_at(offset, |_| ());
    for records in [1, 2] {
        let old = batch_at(1, |header| header.last_offset_delta = records - 1);
        let after = 1 + i64::from(records);
        let entries = [
            append(0, 0, sound(0)),
            append(1, 1, old),
            append(2, after, sound(after)),
            truncate(2, after),
            truncate(1, 1),
            append(1, 1, sound(1)),
            append(2, 2, sound(2)),
        ];
        for flushed in 0..=3 {
            let said = refusal_with(&entries, Some(state(flushed, 3)));
            assert_eq!(said, None, "{records} records, {flushed} flushed");
        }
    }
}

#[test]
fn a_truncation_of_what_is_committed_is_refused() {
    let sound = |offset| batch_at(offset, |_| ());
    let entries = [append(0, 0, sound(0)), append(1, 1, sound(1)), truncate(0, 0)];
    let seen_nothing = LogCheckpoint { durable_through: 0, ..state(1, 2) };
    let said = refusal_with(&entries, Some(seen_nothing)).expect("it is refused");
    assert!(said.contains("takes back what is committed"), "{said}");
}

#[test]
fn a_truncation_to_where_no_batch_begins_is_refused() {
    let sound = |offset| batch_at(offset, |_| ());
    for offset in [0, 7, -1] {
        let entries = [
            append(0, 0, sound(0)),
            append(1, 1, sound(1)),
            truncate(1, offset),
            append(1, offset, sound(offset)),
        ];
        let said = refusal(&entries).expect("it is refused");
        assert!(said.contains("does not end where a batch begins"), "{said}");
    }
}

#[test]
fn a_batch_that_ends_before_it_begins_is_refused() {
    for delta in [-1, -2, i32::MIN] {
        let bad = batch_at(0, |header| header.last_offset_delta = delta);
        let said = refusal(&[append(0, 0, bad)]).expect("it is refused");
        assert!(said.contains("holds no batch"), "{said}");
    }
}

#[test]
fn the_last_generation_there_can_be_is_refused() {
    Sim::new(1).block_on(async {
        let name = paths::journal_file(u64::MAX, 0, 0);
        write(paths::journal_dir(Path::new(DIR)).join(name), &[]).await;
        let error = read_journals(Path::new(DIR), 0, 1).await.expect_err("no generation can follow");
        assert!(error.to_string().contains("none can follow"), "{error}");
    });
}

/// An index is made anew when it leads out of its segment.
#[test]
fn an_index_that_leads_out_of_its_segment_is_not_followed() {
    Sim::new(1).block_on(async {
        let mut data = vec![0; PAGE];
        let header =
            SegmentHeader { log: log_id(1), base_offset: 0, base_index: RaftIndex(0), created_ms: 1 };
        header.encode(&mut data);
        data.extend_from_slice(&batch_at(0, |_| ()));
        let beyond = IndexEntry {
            relative_offset: 0,
            position: data.len() as u32 + 1,
            relative_index: 0,
            max_timestamp_before: -1,
        };
        let footer = Footer {
            end: data.len() as u64,
            next_offset: 1,
            next_index: RaftIndex(1),
            max_timestamp: 1,
            sealed_ms: 1,
        };
        let mut index = vec![0; 2 * PAGE];
        IndexPage::Entries(vec![beyond; ENTRIES_PER_PAGE]).encode(0, 0, &mut index[..PAGE]);
        IndexPage::Footer(footer).encode(0, 1, &mut index[PAGE..]);
        let checkpoint = checkpoint(&state(1, 1));
        let dir = paths::log_dir(Path::new(DIR), log_id(1), "topic");
        write(dir.join(paths::segment_file(0)), &data).await;
        write(dir.join(paths::index_file(0)), &index).await;
        write(paths::journal_dir(Path::new(DIR)).join(paths::checkpoint_file(1, 0)), &checkpoint).await;
        write(paths::journal_dir(Path::new(DIR)).join(paths::journal_file(1, 0, 0)), &journal(&[])).await;
        let storage = open().await;
        let log = storage.log(log_id(1), "topic", log_config());
        let read = log.read(0, 1 << 20, true).await.expect("the batch is found");
        assert_eq!(read.next_offset, 1);
    });
}
