//! `corectl log repair` on a data directory that the storage itself wrote, on a real disk: what is lost is found, what is
//! there is kept, and the storage serves it again.

use bytes::Bytes;
use corelog_io::{RunConfig, available_cpus, run_glommio};
use corelog_storage::format::PAGE;
use corelog_storage::format::group::{GROUP_HEADER, GroupHeader};
use corelog_storage::{
    AppendBatch, BatchKind, LogConfig, LogId, Recovered, ShardStorage, StorageConfig, StorageError,
    read_journals,
};
use corelog_wire::Uuid;
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer, split_batches};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

const LOGS: u8 = 3;
/// Batches of each log.
const BATCHES: usize = 40;

/// A data directory below the build's, removed at the end.
struct DataDir(PathBuf);

impl Drop for DataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What each log holds: offsets and batches.
type Held = BTreeMap<u8, Vec<(i64, Bytes)>>;

fn log_id(n: u8) -> LogId {
    LogId { topic: Uuid([n; 16]), partition: i32::from(n) }
}

fn config(dir: &Path) -> StorageConfig {
    StorageConfig {
        journal_file_bytes: 512 << 10,
        journal_files: 3,
        tail_cache_bytes: 2 << 20,
        group_bytes_max: 64 << 10,
        min_free_bytes: 0,
        files_open_max: 16,
        flush_concurrency: 4,
        ..StorageConfig::new(dir, 0, 1)
    }
}

fn batch(n: u8, at: usize) -> Bytes {
    let producer = Some(Producer { id: i64::from(n), epoch: 0, base_sequence: 2 * at as i32 });
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for value in [vec![n ^ at as u8; 10_000], b"second".to_vec()] {
        builder.append(at as i64, None, Some(&value), &[]).expect("it fits");
    }
    builder.build().expect("a batch")
}

async fn open(dir: &Path) -> Result<Rc<ShardStorage>, StorageError> {
    let found = read_journals(dir, 0, 1).await?;
    ShardStorage::open(config(dir), Recovered::merge([found])).await
}

fn log(storage: &Rc<ShardStorage>, n: u8) -> Rc<corelog_storage::Log> {
    let config = LogConfig { segment_bytes: 128 << 10, ..LogConfig::default() };
    storage.log(log_id(n), "orders", config)
}

fn on_a_core<T: Send + 'static, F: Future<Output = T> + 'static>(
    work: impl Fn() -> F + Clone + Send + 'static,
) -> T {
    let cpu = available_cpus().expect("the kernel says")[0];
    let handle = run_glommio(RunConfig::new(vec![cpu]), move |_| work()).expect("glommio runs");
    handle.join().expect("the core ends").remove(0)
}

async fn held(storage: &Rc<ShardStorage>) -> Held {
    let mut held = Held::new();
    for n in 1..=LOGS {
        let (log, mut offset) = (log(storage, n), 0);
        assert!(log.refused().is_none(), "{:?}", log.refused());
        while offset < log.high_watermark() {
            // Where it cannot be read the next batch is tried: each has two records.
            match log.read(offset, 1, true).await {
                Ok(read) => {
                    let batch =
                        split_batches(&Bytes::from(read.parts.concat())).next().expect("one").expect("whole");
                    held.entry(n).or_default().push((batch.header().base_offset, batch.into_bytes()));
                    offset = read.next_offset;
                }
                Err(_) => offset += 2,
            }
        }
    }
    held
}

impl DataDir {
    /// Three logs. `closes`: in good order, else some is in the journal alone.
    fn new(name: &str, closes: bool) -> (DataDir, Held) {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("it is made");
        let dir = DataDir(path.clone());
        let truth = on_a_core(move || {
            let path = path.clone();
            async move {
                let storage = open(&path).await.expect("it opens");
                storage.settle_recovery();
                for at in 0..BATCHES {
                    for n in 1..=LOGS {
                        let bytes = batch(n, at);
                        let append = AppendBatch { bytes, kind: BatchKind::Client, leader_epoch: 0 };
                        let appended = log(&storage, n).append(append).await.expect("it is taken");
                        appended.durable.await.expect("it is durable");
                    }
                }
                let truth = held(&storage).await;
                corelog_io::sleep(std::time::Duration::from_millis(300)).await;
                if closes {
                    storage.close().await.expect("it closes");
                }
                truth
            }
        });
        assert!(truth.values().all(|batches| batches.len() == BATCHES));
        (dir, truth)
    }

    fn repair(&self, line: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_corectl"))
            .args(["log", "repair", self.0.to_str().expect("it is UTF-8")])
            .args(line)
            .output()
            .expect("it runs");
        let said = String::from_utf8(output.stdout).expect("text")
            + &String::from_utf8(output.stderr).expect("text");
        (output.status.success(), said)
    }

    /// What the storage serves; `None`: it refuses to open.
    fn served(&self) -> Option<Held> {
        let path = self.0.clone();
        on_a_core(move || {
            let path = path.clone();
            async move {
                let storage = open(&path).await.ok()?;
                (1..=LOGS).for_each(|n| drop(log(&storage, n)));
                storage.settle_recovery();
                Some(held(&storage).await)
            }
        })
    }

    /// Whether retries are known for what they are, and what follows is taken; then it closes.
    fn goes_on(&self, end: usize) {
        let path = self.0.clone();
        on_a_core(move || {
            let path = path.clone();
            async move {
                let storage = open(&path).await.expect("it opens");
                (1..=LOGS).for_each(|n| drop(log(&storage, n)));
                storage.settle_recovery();
                for n in 1..=LOGS {
                    let append =
                        |at| AppendBatch { bytes: batch(n, at), kind: BatchKind::Client, leader_epoch: 0 };
                    let log = log(&storage, n);
                    assert!(log.append(append(end - 1)).await.expect("it is known").duplicate);
                    let appended = log.append(append(end)).await.expect("it is taken");
                    assert_eq!(appended.base_offset, 2 * end as i64);
                    appended.durable.await.expect("it is durable");
                }
                storage.close().await.expect("it closes");
            }
        });
        let served = self.served().expect("it opens");
        assert!(served.values().all(|batches| batches.len() == end + 1));
    }

    fn files(&self, below: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.0.join(below)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("it can be listed") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => drop(files.insert(path.clone(), fs::read(&path).expect("it can be read"))),
                }
            }
        }
        files
    }

    fn flip(&self, file: &Path, at: usize) {
        let mut bytes = fs::read(file).expect("it is there");
        bytes[at] ^= 1;
        fs::write(file, bytes).expect("it is written");
    }

    fn checkpoints(&self) -> Vec<PathBuf> {
        let files = self.files("journal").into_keys();
        files.filter(|path| path.to_string_lossy().contains(".checkpoint")).collect()
    }

    fn named(&self, below: &str, end: &str) -> Vec<PathBuf> {
        self.files(below).into_keys().filter(|path| path.to_string_lossy().ends_with(end)).collect()
    }
}

#[test]
fn without_its_journal_all_that_is_in_segments_is_served_again() {
    let (dir, truth) = DataDir::new("journal-gone", true);
    fs::remove_dir_all(dir.0.join("journal")).expect("it is removed");
    assert!(dir.served().is_none(), "it is refused");
    let before = dir.files("");
    let (ok, said) = dir.repair(&[]);
    assert!(ok && said.contains("nothing was changed") && said.contains("no checkpoint knows it"), "{said}");
    assert_eq!(said.matches(&format!("offsets 0 to {}", 2 * BATCHES)).count(), 3, "{said}");
    assert!(said.contains("topic orders") && said.contains("put back with 4 partitions"), "{said}");
    let mut after = dir.files("");
    after.remove(&dir.0.join(".lock"));
    assert!(before == after, "a dry run changes nothing");
    let (ok, said) = dir.repair(&["--execute"]);
    assert!(ok && said.contains("repaired"), "{said}");
    assert_eq!(dir.served().expect("it opens"), truth);
    dir.goes_on(BATCHES);
}

#[test]
fn a_damaged_checkpoint_costs_nothing() {
    for closes in [true, false] {
        let (dir, truth) = DataDir::new(&format!("flipped-{closes}"), closes);
        let checkpoints = dir.checkpoints();
        // Two bits, of every copy: one alone might be mended.
        checkpoints
            .iter()
            .for_each(|checkpoint| [100, 101].into_iter().for_each(|at| dir.flip(checkpoint, at)));
        let damaged = fs::read(&checkpoints[0]).expect("it is there");
        assert!(dir.served().is_none(), "it is refused");
        let (ok, said) = dir.repair(&["--execute"]);
        assert!(ok && said.contains("it is no checkpoint") && !said.contains("CANNOT"), "{said}");
        assert_eq!(dir.served().expect("it opens"), truth);
        dir.goes_on(BATCHES);
        let aside = dir
            .named("", ".checkpoint")
            .into_iter()
            .find(|path| path.to_string_lossy().contains("before-repair-"));
        assert_eq!(fs::read(aside.expect("it went aside")).expect("it is there"), damaged);
    }
}

#[test]
fn damage_in_the_journal_and_in_segments_costs_what_is_damaged() {
    let (dir, truth) = DataDir::new("both", false);
    let segments = dir.named("topics", ".log");
    // The second batch of a sealed segment: its first segment has more after it.
    let sealed =
        segments.iter().find(|path| path.ends_with("1/00000000000000000000.log")).expect("a segment");
    dir.flip(sealed, 4096 + 10_200);
    dir.checkpoints().into_iter().for_each(|checkpoint| fs::remove_file(checkpoint).expect("it is removed"));
    let (ok, said) = dir.repair(&[]);
    assert!(ok && said.contains("fetches of these fail"), "{said}");
    let (ok, said) = dir.repair(&["--execute"]);
    assert!(ok, "{said}");
    let served = dir.served().expect("it opens");
    let mut expected = truth.clone();
    let lost = expected.get_mut(&1).expect("a log").remove(1);
    assert_eq!(lost.0, 2);
    assert_eq!(served, expected);
}

#[test]
fn a_directory_in_use_is_refused_and_an_interrupted_repair_is_finished() {
    let (dir, truth) = DataDir::new("in-use", true);
    let lock = File::create(dir.0.join(".lock")).expect("it is made");
    lock.lock().expect("it is locked");
    for line in [&[][..], &["--execute"]] {
        let (ok, said) = dir.repair(line);
        assert!(!ok && said.contains("stop it first"), "{said}");
    }
    drop(lock);
    let (ok, said) = dir.repair(&["--execute"]);
    assert!(ok, "{said}");
    // Between the two renames.
    fs::rename(dir.0.join("journal"), dir.0.join("journal.repaired")).expect("it is renamed");
    assert!(dir.served().is_none());
    let (ok, said) = dir.repair(&[]);
    assert!(ok && said.contains("was interrupted"), "{said}");
    assert!(dir.repair(&["--execute"]).0);
    assert_eq!(dir.served().expect("it opens"), truth);
}

/// Positions of the whole groups with entries in a journal file.
fn groups(journal: &[u8]) -> Vec<usize> {
    let headers = journal.chunks(PAGE).enumerate().skip(1);
    let headers = headers.filter_map(|(page, bytes)| Some((page * PAGE, GroupHeader::decode(bytes).ok()?)));
    headers.filter(|(_, header)| header.entries > 0).map(|(at, _)| at).collect()
}

#[test]
fn a_journal_file_whose_header_is_damaged_keeps_its_records() {
    for number in 0..3 {
        let (dir, truth) = DataDir::new(&format!("header-{number}"), false);
        let journals = dir.named("journal", ".journal");
        let Some(journal) =
            journals.get(number).filter(|path| !groups(&fs::read(path).expect("it is there")).is_empty())
        else {
            assert!(number > 1, "two files at the least were written to");
            continue;
        };
        // Two bits: one alone would be mended.
        [20, 33].into_iter().for_each(|at| dir.flip(journal, at));
        let (ok, said) = dir.repair(&["--execute"]);
        assert!(ok && !said.contains("CANNOT"), "{said}");
        assert_eq!(dir.served().expect("it opens"), truth, "file {number}");
        dir.goes_on(BATCHES);
    }
}

#[test]
fn a_damaged_group_of_the_journal_is_told_where_nothing_else_tells_of_its_records() {
    let (dir, truth) = DataDir::new("group", false);
    let last = |path: &PathBuf| {
        let bytes = fs::read(path).expect("it is there");
        let sequence = |at: &usize| GroupHeader::decode(&bytes[*at..]).expect("it is whole").sequence;
        groups(&bytes).into_iter().map(|at| (sequence(&at), at, path.clone())).max()
    };
    let (_, at, journal) =
        dir.named("journal", ".journal").iter().filter_map(last).max().expect("there are groups");
    // The log's id, twice.
    [3, 9].into_iter().for_each(|byte| dir.flip(&journal, at + GROUP_HEADER + byte));
    assert!(dir.served().is_none(), "it is refused");
    for line in [&[][..], &["--execute"]] {
        let (ok, said) = dir.repair(line);
        assert!(ok && said.contains("CANNOT BE KEPT"), "{said}");
        assert!(said.contains("journal") && said.contains(&format!("byte {at}")), "{said}");
    }
    let served = dir.served().expect("it opens");
    let (kept, all): (usize, usize) =
        (served.values().map(Vec::len).sum(), truth.values().map(Vec::len).sum());
    assert!(kept < all && kept > all - 4, "{kept} of {all}");
}

#[test]
fn what_a_power_cut_left_of_a_flush_is_taken_from_the_journal() {
    let (dir, truth) = DataDir::new("torn-flush", false);
    dir.checkpoints().into_iter().for_each(|checkpoint| fs::remove_file(checkpoint).expect("it is removed"));
    // The segment that was written to, as if it had not been synced yet: a page in its middle is missing.
    let of_log = |path: &&PathBuf| path.to_string_lossy().contains("/3/");
    let segments = dir.named("topics", ".log");
    let active = segments.iter().rfind(of_log).expect("it has segments");
    let mut bytes = fs::read(active).expect("it is there");
    let page = bytes.len() / PAGE / 2 * PAGE;
    bytes[page..page + PAGE].fill(0);
    fs::write(active, bytes).expect("it is written");
    let (ok, said) = dir.repair(&["--execute"]);
    assert!(ok && !said.contains("CANNOT"), "{said}");
    assert_eq!(dir.served().expect("it opens"), truth);
    dir.goes_on(BATCHES);
}
