//! `corectl log` on a data directory made here, sound and damaged.

use corelog_storage::format::checkpoint::{
    ActiveSegmentState, CheckpointHeader, CheckpointWriter, Committed, JournalEnd, LogCheckpoint,
};
use corelog_storage::format::entry::{EntryHeader, EntryKind, unprotected};
use corelog_storage::format::group::{GROUP_HEADER, GroupHeader};
use corelog_storage::format::index_page::{Footer, IndexEntry, IndexPage};
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::format::segment_file::SegmentHeader;
use corelog_storage::format::{PAGE, page_ceil};
use corelog_storage::{HardState, LogId, RaftIndex, TermHistory};
use corelog_wire::Uuid;
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LOG: LogId = LogId { topic: Uuid([9; 16]), partition: 3 };
/// Records of each batch.
const RECORDS: i64 = 10;

fn batch(number: i64) -> Vec<u8> {
    let options = BatchOptions {
        base_offset: number * RECORDS,
        leader_epoch: 0,
        encoding: if number % 2 == 0 { Compression::None } else { Compression::Zstd }.into(),
        ..Default::default()
    };
    let mut builder = BatchBuilder::new(options);
    for at in 0..RECORDS {
        builder.append(1000 + number, Some(b"key"), Some(format!("value {at}").as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap().to_vec()
}

/// A data directory: batches 0 to 3 in a sealed segment, 4 and 5 in the active one, 6 and 7 in the journal alone.
struct DataDir(PathBuf);

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl DataDir {
    fn new(name: &str) -> DataDir {
        let path = std::env::temp_dir().join(format!("corectl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("journal")).unwrap();
        let dir = path.join(format!("topics/orders~{}/3", LOG.topic));
        fs::create_dir_all(&dir).unwrap();
        let (sealed, positions) = segment(0, 0..4);
        fs::write(dir.join("00000000000000000000.log"), &sealed).unwrap();
        fs::write(dir.join("00000000000000000000.index"), index(&sealed, positions[2])).unwrap();
        let (mut active, _) = segment(40, 4..6);
        let position = active.len() as u64;
        // Space that is reserved, and the leftovers of a flush that was never synced.
        active.extend([0; 100]);
        active.extend(b"leftovers");
        fs::write(dir.join("00000000000000000040.log"), active).unwrap();
        fs::write(path.join("journal/00000001-0.checkpoint"), checkpoint(position)).unwrap();
        fs::write(path.join("journal/00000001-0-0.journal"), journal(1, 5..8)).unwrap();
        // Of a former generation: batch 8 was still being written when its process was killed, and never counted.
        fs::write(path.join("journal/00000000-0-0.journal"), journal(0, 6..9)).unwrap();
        DataDir(path)
    }

    fn segment(&self, base: i64) -> PathBuf {
        self.0.join(format!("topics/orders~{}/3/{base:020}.log", LOG.topic))
    }

    fn damage(&self, path: &Path, at: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Whether all is well, and what is said.
    fn corectl(&self, line: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_corectl")).arg("log").args(line).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), said)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

fn segment(base_offset: i64, numbers: std::ops::Range<i64>) -> (Vec<u8>, Vec<usize>) {
    let base_index = RaftIndex(numbers.start as u64);
    let mut bytes = vec![0; PAGE];
    SegmentHeader { log: LOG, base_offset, base_index, created_ms: 5 }.encode(&mut bytes);
    let mut positions = Vec::new();
    for number in numbers {
        positions.push(bytes.len());
        bytes.extend(batch(number));
    }
    (bytes, positions)
}

fn index(segment: &[u8], third: usize) -> Vec<u8> {
    let entry = IndexEntry {
        relative_offset: 20,
        position: third as u32,
        relative_index: 2,
        max_timestamp_before: 1001,
    };
    let footer = Footer {
        end: segment.len() as u64,
        next_offset: 40,
        next_index: RaftIndex(4),
        max_timestamp: 1003,
        sealed_ms: 6,
    };
    let mut bytes = vec![0; 2 * PAGE];
    IndexPage::Entries(vec![entry]).encode(0, 0, &mut bytes[..PAGE]);
    IndexPage::Footer(footer).encode(0, 1, &mut bytes[PAGE..]);
    bytes
}

fn checkpoint(position: u64) -> Vec<u8> {
    let active = ActiveSegmentState {
        base_offset: 40,
        base_index: RaftIndex(4),
        created_ms: 5,
        position,
        max_timestamp: 1005,
        last_page: Default::default(),
    };
    let log = LogCheckpoint {
        log: LOG,
        durable_through: 2,
        log_start_offset: 0,
        next_offset: 70,
        next_index: RaftIndex(7),
        term: 0,
        hard_state: HardState::default(),
        flushed_offset: 60,
        flushed_index: RaftIndex(6),
        active: Some(active),
        terms: TermHistory::without_indexes(RaftIndex(7), 0, [(0, 0)]).unwrap(),
        membership: None,
        reset: None,
        incoming: None,
        producers: Vec::new(),
        committed: Committed { offset: 70, index: RaftIndex(7), ..Committed::default() },
    };
    let mut writer = CheckpointWriter::new(&[JournalEnd { generation: 0, shard: 0, sequence: 1 }]);
    writer.add(&log, std::iter::empty());
    writer.finish(CheckpointHeader {
        generation: 1,
        shard: 0,
        shards: 1,
        complete: true,
        replay_from: 1,
        durable_through: 2,
        ..Default::default()
    })
}

/// A group for each batch, and half a group.
fn journal(generation: u64, numbers: std::ops::Range<i64>) -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    JournalFileHeader { generation, shard: 0, salt: 77, first_sequence: 1 }.encode(&mut bytes);
    for (at, number) in numbers.enumerate() {
        let batch = batch(number);
        let entry = EntryHeader {
            log: LOG,
            kind: EntryKind::Append,
            index: RaftIndex(number as u64),
            base_offset: number * RECORDS,
            term: 0,
            len: batch.len() as u32,
        };
        let mut payload = entry.encode().to_vec();
        payload.extend(&batch);
        payload.resize(entry.span(), 0);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&entry.encode()), unprotected(&batch));
        let header = GroupHeader {
            generation,
            salt: 77,
            sequence: at as u64 + 1,
            durable_through: at as u64,
            shard: 0,
            payload_len: payload.len() as u32,
            entries: 1,
            entries_crc: crc,
        };
        let end = bytes.len() + page_ceil((GROUP_HEADER + payload.len()) as u64) as usize;
        bytes.extend(header.encode());
        bytes.extend(payload);
        bytes.resize(end, 0);
    }
    let torn = bytes[PAGE..PAGE + 64].to_vec();
    bytes.extend(torn);
    bytes.resize(bytes.len() + PAGE, 0);
    bytes
}

#[test]
fn a_sound_directory_is_shown_and_nothing_is_wrong() {
    let dir = DataDir::new("sound");
    let (ok, listed) = dir.corectl(&["list", dir.path(), "--json"]);
    assert!(ok, "{listed}");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["topic"], &listed[0]["partition"]), (&"orders".into(), &3.into()));
    assert_eq!((&listed[0]["next_offset"], &listed[0]["segments"]), (&80.into(), &2.into()));

    let (ok, said) = dir.corectl(&["dump", dir.path(), "--deep"]);
    assert!(ok && said.starts_with("8 batches, 80 records,"), "{said}");
    let (ok, said) = dir.corectl(&["dump", dir.path(), "-t", "orders", "-p", "3", "-r"]);
    assert!(ok, "{said}");
    for number in 0..8 {
        assert!(said.contains(&format!("offsets {}-{}", number * RECORDS, number * RECORDS + 9)), "{said}");
    }
    assert_eq!(said.matches("\"key\" \"value 7\"").count(), 8, "{said}");
    assert!(said.contains("journal: not in segments yet"));
    let id = LOG.topic.to_string();
    let (ok, said) = dir.corectl(&["dump", dir.path(), "-t", &id, "--from", "35", "--until", "41", "--json"]);
    assert!(ok);
    let batches: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["kind"] == "batch")
        .collect();
    let offsets: Vec<i64> = batches.iter().map(|batch| batch["base_offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [30, 40]);

    let files = [
        dir.segment(0),
        dir.segment(0).with_extension("index"),
        dir.0.join("journal/00000001-0-0.journal"),
        dir.0.join("journal/00000001-0.checkpoint"),
    ];
    for file in files {
        let (ok, said) = dir.corectl(&["dump", file.to_str().unwrap()]);
        assert!(ok && said.lines().count() > 2, "{said}");
    }
}

#[test]
fn damage_is_found_and_the_rest_is_shown() {
    for (name, at, expected) in [
        ("segment header", 40, "it is no segment"),
        ("batch", PAGE + 100, "checksum"),
        ("batch offset", PAGE + 7, "a batch begins at offset 1, expected 0"),
        ("batch length", PAGE + 8, "runs past the end"),
        ("batch magic", PAGE + 16, "no batch begins here"),
    ] {
        let dir = DataDir::new("damaged");
        dir.damage(&dir.segment(0), at);
        let (ok, said) = dir.corectl(&["dump", dir.path()]);
        assert!(!ok && said.contains(expected) && said.contains("PROBLEM"), "{name}: {said}");
        assert!(said.contains("00000000000000000000.log at byte"), "it says where: {said}");
        // The segment that is sound, and the journal, were looked at.
        let batches: u32 = said.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(batches >= 4, "{said}");
    }
    let dir = DataDir::new("index");
    let index = dir.segment(0).with_extension("index");
    dir.damage(&index, 40);
    let (ok, said) = dir.corectl(&["dump", dir.path()]);
    assert!(!ok && said.contains("the index page is refused"), "{said}");
    let dir = DataDir::new("gap");
    fs::remove_file(dir.segment(0)).unwrap();
    fs::rename(dir.segment(40), dir.segment(41)).unwrap();
    let (ok, said) = dir.corectl(&["dump", dir.segment(41).to_str().unwrap()]);
    assert!(!ok && said.contains("its header says that it begins at offset 40"), "{said}");
}

#[test]
fn a_torn_journal_ends_where_it_is_torn() {
    let dir = DataDir::new("torn");
    let journal = dir.0.join("journal/00000001-0-0.journal");
    // The last whole group's entry header.
    dir.damage(&journal, 3 * PAGE + GROUP_HEADER + 30);
    let (ok, said) = dir.corectl(&["dump", dir.path(), "-t", "orders"]);
    assert!(ok && said.contains("offsets 60-69") && !said.contains("offsets 70-79"), "{said}");
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let dir = DataDir::new("refused");
    for (line, expected) in [
        (["list", "/nonexistent"], "no data directory"),
        (["dump", "/nonexistent"], "cannot look at"),
        (["dump", "/dev/null"], "is no .log"),
    ] {
        let (ok, said) = dir.corectl(&line);
        assert!(!ok && said.contains(expected), "{said}");
    }
    let (ok, said) = dir.corectl(&["dump", dir.path(), "-t", "absent"]);
    assert!(!ok && said.contains("corectl log list"), "{said}");
    let (ok, said) = dir.corectl(&["dump", dir.path(), "-t", "orders", "-p", "0"]);
    assert!(!ok && said.contains("nothing in these partitions"), "{said}");
}
