//! What is missing is not empty: files and directories that were there are found missing, nothing is removed for want of
//! a mention, and damage that a start has no need of is in nobody's way.

mod world;

use bytes::Bytes;
use corelog_io::fs;
use corelog_io::sim::{Process, Sim};
use corelog_storage::format::checkpoint::CheckpointHeader;
use corelog_storage::format::group::GroupHeader;
use corelog_storage::format::journal_file::JournalFileHeader;
use corelog_storage::{AppendError, Log, ShardStorage, StorageError, paths, topics_dir};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use world::{DIR, append, batch, client, config, log_config, log_id, open, open_all, read_all, run};

const LOGS: u8 = 3;

fn log_of(storage: &Rc<ShardStorage>, n: u8) -> Rc<Log> {
    storage.log(log_id(n), "orders", log_config())
}

fn journal_dir() -> PathBuf {
    paths::journal_dir(Path::new(DIR))
}

async fn start() -> Result<Rc<ShardStorage>, StorageError> {
    open_all(1, |_| config(0, 1), |_| 0).await.map(|mut storages| storages.remove(0))
}

/// Appends to all logs so much that several segments and journal files come to be, in two generations. `closes`: ends in
/// good order, else some is in the journal alone. What the logs hold.
fn fill(sim: &Sim, machine: &Process, closes: bool) -> Vec<Vec<(i64, Bytes)>> {
    let truth = Rc::new(RefCell::new(Vec::new()));
    for round in 0..2 {
        let truth = Rc::clone(&truth);
        run(sim, machine, async move {
            let storage = open().await;
            let logs: Vec<Rc<Log>> = (1..=LOGS).map(|n| log_of(&storage, n)).collect();
            storage.settle_recovery();
            for i in 0..60 {
                append(&logs[i % logs.len()], batch(&[&vec![i as u8; 20_000][..], b"x"], 7)).await;
            }
            // So that it was durable is proved.
            corelog_io::sleep(std::time::Duration::from_millis(200)).await;
            if closes || round == 0 {
                storage.close().await.expect("it closes");
            }
            let mut held = Vec::new();
            for log in &logs {
                held.push(read_all(log).await);
            }
            *truth.borrow_mut() = held;
        });
        machine.kill();
    }
    truth.take()
}

/// Files of records, with the names that lead to them.
fn segments(machine: &Process) -> BTreeSet<PathBuf> {
    let files = machine.disk().files().into_iter();
    files.filter(|file| file.extension().is_some_and(|extension| extension == "log")).collect()
}

/// Starts with what is left, touches every log. Nothing that is there may be taken for less: a log tells all it held, or
/// an error. How many logs are served whole; `None`: the start is refused.
fn judge(sim: &Sim, machine: &Process, truth: &[Vec<(i64, Bytes)>], what: &str) -> Option<usize> {
    let before = segments(machine);
    let served = Rc::new(RefCell::new(None));
    let (truth, told) = (truth.to_vec(), Rc::clone(&served));
    let name = what.to_owned();
    run(sim, machine, async move {
        let storage = match start().await {
            Ok(storage) => storage,
            Err(StorageError::Missing { .. } | StorageError::Corrupt { .. }) => return,
            Err(other) => panic!("{name}: {other}"),
        };
        let logs: Vec<Rc<Log>> = (1..=LOGS).map(|n| log_of(&storage, n)).collect();
        storage.settle_recovery();
        let mut whole = 0;
        for (log, held) in logs.iter().zip(&truth) {
            if log.refused().is_some() {
                log.append(client(batch(&[b"more"], 8))).await.err().expect("it takes nothing");
                continue;
            }
            let last = held.last().expect("it holds batches").0 + 2;
            assert_eq!((log.log_start_offset(), log.high_watermark()), (0, last), "{name}: {}", log.id());
            let mut all = true;
            for (offset, bytes) in held {
                match log.read(*offset, 1, true).await {
                    Ok(read) => {
                        assert_eq!(read.parts.concat(), bytes[..], "{name}: {} at {offset}", log.id())
                    }
                    Err(_) => all = false,
                }
            }
            whole += usize::from(all);
        }
        corelog_io::sleep(std::time::Duration::from_millis(300)).await;
        *told.borrow_mut() = Some(whole);
    });
    machine.kill();
    let after = segments(machine);
    let gone: Vec<_> = before.difference(&after).collect();
    assert!(gone.is_empty(), "{what}: {gone:?} are gone");
    served.take()
}

#[test]
fn without_its_journal_directory_a_start_is_refused_and_no_segment_goes() {
    for closes in [true, false] {
        for leave_empty in [true, false] {
            let sim = Sim::new(1);
            let machine = sim.process("broker");
            let truth = fill(&sim, &machine, closes);
            run(&sim, &machine, async move {
                fs::remove_dir_all(&journal_dir()).await.expect("it is removed");
                if leave_empty {
                    fs::create_dir_all(&journal_dir()).await.expect("it is made");
                }
                let error = start().await.err().expect("the start is refused");
                assert!(matches!(error, StorageError::Missing { .. }), "{error}");
                assert!(error.to_string().contains("corectl log repair"), "{error}");
            });
            machine.kill();
            assert_eq!(judge(&sim, &machine, &truth, "journal/"), None);
        }
    }
}

/// Not even what was never flushed: then there is no segment to tell of it.
#[test]
fn the_journal_is_missed_though_nothing_was_ever_flushed() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        append(&log_of(&storage, 1), batch(&[b"value"], 7)).await;
    });
    machine.kill();
    assert!(segments(&machine).is_empty());
    run(&sim, &machine, async {
        fs::remove_dir_all(&journal_dir()).await.expect("it is removed");
        assert!(matches!(start().await, Err(StorageError::Missing { .. })));
    });
}

#[test]
fn a_log_that_nothing_knows_is_refused_whenever_it_is_touched_and_its_segments_stay() {
    for settles_first in [false, true] {
        let sim = Sim::new(2);
        let machine = sim.process("broker");
        run(&sim, &machine, async {
            let storage = open().await;
            append(&log_of(&storage, 2), batch(&[b"value"], 7)).await;
        });
        machine.kill();
        let dir = paths::log_dir(Path::new(DIR), log_id(1), "orders");
        let segment = dir.join(paths::segment_file(0));
        let kept = segment.clone();
        run(&sim, &machine, async move {
            fs::create_dir_all(&dir).await.expect("it is made");
            fs::write_atomic(&segment, b"records of a log that the state does not know")
                .await
                .expect("it is written");
            fs::sync_dir(&topics_dir(Path::new(DIR))).await.expect("it is synced");
            let storage = open().await;
            let other = log_of(&storage, 2);
            if settles_first {
                storage.settle_recovery();
            }
            let log = log_of(&storage, 1);
            let refused = log.refused().expect("it is refused").to_string();
            assert!(
                refused.contains("corectl log repair") && refused.contains("/topics/orders~"),
                "{refused}"
            );
            let appended = log.append(client(batch(&[b"new"], 8))).await;
            assert!(matches!(appended, Err(AppendError::Storage(StorageError::LogRefused { .. }))));
            assert!(log.read(0, 100, true).await.is_err() && log.delete_records(-1).await.is_err());
            let _ = log.apply_retention(i64::MAX).await;
            // The others are served, and the former journals are let go.
            storage.settle_recovery();
            assert_eq!(append(&other, batch(&[b"value"], 9)).await, 1);
            storage.close().await.expect("it closes");
        });
        machine.kill();
        assert!(machine.disk().contents(&kept).is_ok(), "the segment stays");
        let journals =
            machine.disk().files().iter().filter(|f| f.to_string_lossy().ends_with("0.journal")).count();
        assert_eq!(journals, 1, "former generations are gone");
    }
}

/// Every file in turn is missing, or empty.
#[test]
fn no_missing_file_is_taken_for_an_empty_log() {
    for closes in [true, false] {
        let world = || {
            let sim = Sim::new(3);
            let machine = sim.process("broker");
            let truth = fill(&sim, &machine, closes);
            (sim, machine, truth)
        };
        let files = world().1.disk().files();
        // Nothing durable tells of the journal file that was begun last.
        let disk = world().1.disk();
        let begun = |file: &&PathBuf| {
            let contents = disk.contents(file).expect("it is there");
            JournalFileHeader::decode(&contents).map_or(0, |header| header.first_sequence)
        };
        let journals = files.iter().filter(|file| file.to_string_lossy().ends_with(".journal"));
        let newest = journals.max_by_key(begun).cloned();
        assert!(files.len() > 15, "{files:?}");
        let mut refused_starts = 0;
        for file in &files {
            for empties in [false, true] {
                if Some(file) == newest.as_ref() && !closes {
                    continue;
                }
                let (sim, machine, truth) = world();
                let path = file.clone();
                run(&sim, &machine, async move {
                    match empties {
                        true => fs::write_atomic(&path, b"").await.expect("it is written"),
                        false => {
                            fs::remove_file(&path).await.expect("it is removed");
                            fs::sync_dir(path.parent().expect("it lies in a directory"))
                                .await
                                .expect("synced");
                        }
                    }
                });
                machine.kill();
                let what = format!("{} {}", file.display(), if empties { "empty" } else { "missing" });
                let served = judge(&sim, &machine, &truth, &what);
                refused_starts += usize::from(served.is_none());
                match file.extension().and_then(|extension| extension.to_str()) {
                    Some("index") => assert_eq!(served, Some(usize::from(LOGS)), "{what}"),
                    Some("log") => {
                        assert!(served.is_some_and(|n| n >= usize::from(LOGS) - 1), "{what}: {served:?}")
                    }
                    _ => {}
                }
            }
        }
        assert!(refused_starts > 0);
    }
}

#[test]
fn damage_below_the_replay_point_is_in_nobodys_way() {
    let mut struck = [0, 0];
    for closes in [true, false] {
        let sim = Sim::new(4);
        let machine = sim.process("broker");
        let truth = fill(&sim, &machine, closes);
        let disk = machine.disk();
        let newest = |ending: &str| {
            let files = disk.files().into_iter();
            files.filter(|file| file.to_string_lossy().ends_with(ending)).max().expect("there is one")
        };
        let checkpoint = disk.contents(&newest(".checkpoint")).expect("it is there");
        let replay_from = CheckpointHeader::decode(&checkpoint).expect("it is sound").replay_from;
        let groups = |file: &Path| -> Vec<(usize, u64)> {
            let contents = disk.contents(file).expect("it is there");
            let first = JournalFileHeader::decode(&contents).map_or(u64::MAX, |header| header.first_sequence);
            let pages = contents.chunks_exact(4096).enumerate();
            let found =
                pages.filter_map(|(at, page)| Some((at * 4096, GroupHeader::decode(page).ok()?.sequence)));
            found.filter(|(_, sequence)| *sequence >= first).collect()
        };
        let generation = newest(".checkpoint").file_name().expect("a name").to_string_lossy()[..8].to_owned();
        for file in disk.files().iter().filter(|file| file.to_string_lossy().ends_with(".journal")) {
            if !file.to_string_lossy().contains(&generation) {
                continue;
            }
            let groups = groups(file);
            let follows = groups.iter().any(|(_, sequence)| *sequence >= replay_from);
            for (at, _) in groups.iter().filter(|(_, sequence)| *sequence < replay_from).take(8) {
                // A group's header, then what is in it. More than one bit: one alone might be mended.
                for byte in [20, 200] {
                    let strike = || {
                        for byte in [byte, byte + 1, byte + 3] {
                            disk.flip_bit(file, (at + byte) as u64 * 8).expect("the bit is there");
                        }
                    };
                    strike();
                    let (held, told) = (truth.clone(), Rc::new(RefCell::new(false)));
                    let done = Rc::clone(&told);
                    run(&sim, &machine, async move {
                        let storage = start().await.expect("the start has no need of it");
                        for (n, held) in (1..).zip(&held) {
                            assert_eq!(read_all(&log_of(&storage, n)).await, *held);
                        }
                        *done.borrow_mut() = true;
                    });
                    assert!(told.take());
                    machine.kill();
                    // What the start began goes again: the next is to read the same.
                    forget_generations_above(&sim, &machine, &generation);
                    strike();
                    struck[usize::from(follows)] += 1;
                }
            }
        }
    }
    assert!(struck.iter().all(|struck| *struck > 0), "{struck:?}");
}

fn forget_generations_above(sim: &Sim, machine: &Process, generation: &str) {
    let files = machine.disk().files().into_iter();
    let above = files.filter(|file| {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        file.starts_with(journal_dir()) && name.as_str() > generation && !name.starts_with(generation)
    });
    let above: Vec<PathBuf> = above.filter(|file| !file.ends_with("reserve")).collect();
    run(sim, machine, async move {
        for file in above {
            fs::remove_file(&file).await.expect("it is removed");
        }
        fs::sync_dir(&journal_dir()).await.expect("it is synced");
    });
    machine.kill();
}

/// A leftover of a flush that was cut short is removed; a segment from beyond the log's end is proof that the journal
/// has lost something.
#[test]
fn a_segment_from_beyond_the_end_is_not_removed() {
    let sim = Sim::new(5);
    let machine = sim.process("broker");
    let truth = fill(&sim, &machine, true);
    let end = truth[0].last().expect("it holds batches").0 + 2;
    let path = paths::log_dir(Path::new(DIR), log_id(1), "orders").join(paths::segment_file(end));
    let kept = path.clone();
    run(&sim, &machine, async move {
        fs::write_atomic(&path, b"records").await.expect("it is written");
        let log = log_of(&open().await, 1);
        let error = log.read(0, 100, true).await.expect_err("the log is damaged");
        assert!(error.to_string().contains("ends at offset"), "{error}");
    });
    machine.kill();
    assert!(machine.disk().contents(&kept).is_ok());
}
