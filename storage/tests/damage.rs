//! Damage stays with its partition, and so does being short of something: whatever is wrong with one log, or one bit of any
//! file, the others are served and written on, also after restarts.

mod world;

use bytes::Bytes;
use corelog_io::sim::{Process, Sim};
use corelog_io::{File, OpenOptions, Queue, fs, sleep, spawn};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, Log, LogConfig, ReadError, ShardStorage, StorageConfig,
    StorageError, paths,
};
use corelog_wire::records::{BatchBuilder, BatchOptions, split_batches};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use world::{DIR, batch, client, log_config, log_id, open};

/// Runs `work` in a process of one core until it is done.
fn run<F: Future<Output = ()> + 'static>(sim: &Sim, machine: &Process, work: F) {
    let done = Rc::new(RefCell::new(false));
    let work = Rc::new(RefCell::new(Some(work)));
    let flag = Rc::clone(&done);
    machine.start(1, move |_| {
        let work = work.borrow_mut().take();
        let flag = Rc::clone(&flag);
        async move {
            if let Some(work) = work {
                work.await;
            }
            *flag.borrow_mut() = true;
        }
    });
    for _ in 0..3_000_000 {
        if *done.borrow() {
            return;
        }
        assert!(sim.run_steps(1) > 0, "stuck");
    }
    panic!("it hangs");
}

async fn append(log: &Log, bytes: Bytes) -> Result<i64, AppendError> {
    let appended = log.append(client(bytes)).await?;
    appended.durable.await?;
    Ok(appended.base_offset)
}

/// The last byte of each batch's value, from the start of the log.
async fn read_all(log: &Log) -> Result<Vec<u8>, ReadError> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.high_watermark() {
        let read = log.read(offset, 100 << 10, true).await?;
        let whole = Bytes::from(read.parts.concat());
        for batch in split_batches(&whole) {
            let batch = batch.expect("whole batches");
            batch.verify_checksum().expect("sound batches");
            // The value's end, its headers' count behind it.
            found.push(batch.bytes()[batch.bytes().len() - 2]);
        }
        offset = read.next_offset;
    }
    Ok(found)
}

fn value(n: usize, size: usize) -> Bytes {
    batch(&[&vec![n as u8; size][..]], n as i64)
}

fn log_of(storage: &Rc<ShardStorage>, n: u8) -> Rc<Log> {
    storage.log(log_id(n), "orders", log_config())
}

fn files_of(machine: &Process, part: &str) -> Vec<PathBuf> {
    let mut files = machine.disk().files();
    files.retain(|file| file.to_string_lossy().contains(part));
    files
}

/// Several laps of the journal's ring, and more than the tail cache holds.
async fn fill(log: &Log, from: usize, n: usize) {
    for i in from..from + n {
        append(log, value(i, 20_000)).await.expect("a sound log takes appends");
    }
}

fn expected(n: usize) -> Vec<u8> {
    (0..n).map(|i| i as u8).collect()
}

/// A crash leaves what was put aside half written or half removed. A start that others may still refuse takes nothing away.
#[test]
fn what_was_not_put_aside_to_the_end_goes_when_a_start_has_come_to_its_end() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        append(&log_of(&storage, 1), value(0, 300)).await.unwrap();
        let dir = paths::refused_dir(Path::new(DIR)).join(paths::refused_log_dir(1, log_id(1)));
        fs::create_dir_all(&dir).await.unwrap();
        fs::write_atomic(&dir.join(paths::journal_file(1, 0, 0)), &[1; 100]).await.unwrap();
    });
    machine.kill();
    for is_settled in [false, true] {
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = log_of(&storage, 1);
            if is_settled {
                storage.settle_recovery();
            }
            assert_eq!(read_all(&log).await.unwrap(), expected(1));
            sleep(Duration::from_millis(200)).await;
        });
        machine.kill();
        assert_eq!(files_of(&machine, "/refused/").is_empty(), is_settled);
    }
}

#[test]
fn a_log_that_is_refused_at_the_start_neither_stops_its_shard_nor_loses_what_the_journal_has_of_it() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
        append(&sound, value(0, 300)).await.unwrap();
        append(&bad, value(0, 3000)).await.unwrap();
        append(&bad, value(1, 4000)).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    });
    machine.kill();
    // In the records of its second batch.
    let is_second = |bytes: &[u8]| bytes.windows(100).position(|w| w == [1; 100]).map(|at| at + 700);
    let flip = |file: &Path| {
        let contents = machine.disk().contents(file).unwrap();
        machine.disk().flip_bit(file, is_second(&contents).expect("it is there") as u64 * 8).unwrap();
    };
    flip(&files_of(&machine, ".journal")[0]);
    for round in 0..3 {
        run(&sim, &machine, async move {
            let storage = open().await;
            let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
            storage.settle_recovery();
            assert!(matches!(bad.refused(), Some(StorageError::LogRefused { .. })), "round {round}");
            fill(&sound, 1 + round * 200, 200).await;
            let metrics = storage.metrics();
            assert!(metrics.cached_bytes <= 1 << 20, "{metrics:?}");
            storage.close().await.unwrap();
        });
        machine.kill();
        // The former generations' journals are not kept for it.
        let journals = files_of(&machine, ".journal");
        let aside = journals.iter().filter(|file| file.to_string_lossy().contains("/refused/")).count();
        assert_eq!(aside, 1, "{journals:?}");
        assert!(journals.len() <= 3 + 1, "{journals:?}");
    }
    // Mended, it is served again, with all it had.
    let aside =
        files_of(&machine, "/refused/").into_iter().find(|f| f.to_string_lossy().ends_with("journal"));
    flip(&aside.expect("it was put aside"));
    for _ in 0..2 {
        run(&sim, &machine, async {
            let storage = open().await;
            let (sound, back) = (log_of(&storage, 1), log_of(&storage, 2));
            storage.settle_recovery();
            assert!(back.refused().is_none(), "{:?}", back.refused());
            let n = back.log_end_offset() as usize;
            assert_eq!(read_all(&back).await.unwrap(), expected(n));
            append(&back, value(n, 100)).await.unwrap();
            assert_eq!(read_all(&sound).await.unwrap(), expected(601));
            storage.close().await.unwrap();
        });
        machine.kill();
        assert_eq!(files_of(&machine, "/refused/"), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_segment_found_damaged_by_a_flush_refuses_its_log_and_the_others_go_on() {
    let sim = Sim::new(2);
    let machine = sim.process("broker");
    let disk = machine.disk();
    let whole = Rc::new(RefCell::new(0));
    let acknowledged = Rc::clone(&whole);
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
        append(&sound, value(0, 300)).await.unwrap();
        append(&bad, value(0, 3000)).await.unwrap();
        storage.close().await.unwrap();
    });
    machine.kill();
    let segment = files_of(&machine, ".log")
        .into_iter()
        .find(|f| f.to_string_lossy().ends_with("/2/00000000000000000000.log"));
    let segment = segment.expect("it has a segment");
    disk.flip_bit(&segment, 8 * 20).unwrap();
    run(&sim, &machine, async move {
        let storage = open().await;
        let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
        storage.settle_recovery();
        assert_eq!(append(&bad, value(1, 3000)).await.unwrap(), 1, "nobody has looked yet");
        *acknowledged.borrow_mut() = 2;
        fill(&sound, 1, 300).await;
        assert!(matches!(
            append(&bad, value(2, 10)).await,
            Err(AppendError::Storage(StorageError::LogRefused { .. }))
        ));
        assert!(bad.read(0, 1000, true).await.is_err());
        assert_eq!(read_all(&sound).await.unwrap(), expected(301));
    });
    // Whatever the end, what was acknowledged is kept; with the segment mended it is served.
    machine.crash();
    run(&sim, &machine, async {
        let storage = open().await;
        let (sound, _bad) = (log_of(&storage, 1), log_of(&storage, 2));
        storage.settle_recovery();
        fill(&sound, 301, 300).await;
        storage.close().await.unwrap();
    });
    machine.kill();
    disk.flip_bit(&segment, 8 * 20).unwrap();
    for round in 0..2 {
        run(&sim, &machine, async move {
            let storage = open().await;
            let (sound, back) = (log_of(&storage, 1), log_of(&storage, 2));
            storage.settle_recovery();
            assert_eq!(read_all(&back).await.unwrap(), expected(2 + round));
            append(&back, value(2 + round, 5)).await.unwrap();
            assert_eq!(read_all(&sound).await.unwrap(), expected(601));
            if round == 0 {
                storage.close().await.unwrap();
            }
        });
        machine.kill();
    }
    assert_eq!(files_of(&machine, "/refused/"), Vec::<PathBuf>::new());
    assert_eq!(*whole.borrow(), 2);
}

#[test]
fn a_disk_that_fails_for_one_logs_segments_costs_this_log_alone() {
    let sim = Sim::new(3);
    let machine = sim.process("broker");
    let disk = machine.disk();
    const EIO: i32 = 5;
    run(&sim, &machine, async move {
        let storage = open().await;
        storage.settle_recovery();
        let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
        append(&bad, value(0, 3000)).await.unwrap();
        disk.fail_until_cleared(corelog_io::sim::DiskOp::Write, "/2/0", EIO);
        fill(&sound, 0, 300).await;
        assert!(bad.refused().is_some());
        assert_eq!(read_all(&sound).await.unwrap(), expected(300));
        disk.clear_faults();
        storage.close().await.unwrap();
    });
    machine.kill();
    run(&sim, &machine, async {
        let storage = open().await;
        let back = log_of(&storage, 2);
        storage.settle_recovery();
        assert_eq!(read_all(&back).await.unwrap(), expected(1));
    });
}

/// What every flipped bit and each missing or unreadable piece of a file leaves: all logs but one, written on.
#[test]
fn any_flipped_bit_of_any_file_costs_one_log_at_the_most() {
    const LOGS: u8 = 4;
    for seed in 0..60u64 {
        let sim = Sim::new(seed);
        let machine = sim.process("broker");
        let closes = seed % 3 == 0;
        run(&sim, &machine, async move {
            let storage = open().await;
            storage.settle_recovery();
            for i in 0..30 {
                for n in 1..=LOGS {
                    append(&log_of(&storage, n), value(i, 2000 * usize::from(n))).await.unwrap();
                }
            }
            match closes {
                true => storage.close().await.unwrap(),
                false => sleep(Duration::from_millis(200)).await,
            }
        });
        machine.kill();
        let disk = machine.disk();
        let files = disk.files();
        // Each file in turn, and all kinds of places in it.
        let file = files[(seed as usize * 7) % files.len()].clone();
        let contents = disk.contents(&file).unwrap();
        let written: Vec<usize> = (0..contents.len()).filter(|at| contents[*at] != 0).collect();
        if written.is_empty() {
            continue;
        }
        let picks = [0, 9, 40, written.len() / 3, written.len() / 2, written.len() - 1];
        let at = written[picks[seed as usize % picks.len()].min(written.len() - 1)];
        disk.flip_bit(&file, at as u64 * 8 + seed % 8).unwrap();
        for round in 0..2 {
            let name = format!("seed {seed}, byte {at} of {}, round {round}", file.display());
            run(&sim, &machine, async move {
                let storage = world::open_all(1, |_| world::config(0, 1), |_| 0).await;
                let storage = storage.unwrap_or_else(|error| panic!("{name}: {error}")).remove(0);
                let logs: Vec<_> = (1..=LOGS).map(|n| log_of(&storage, n)).collect();
                storage.settle_recovery();
                let mut lost = 0;
                for log in &logs {
                    let whole = async {
                        let found = read_all(log).await.map_err(|e| e.to_string())?;
                        append(log, value(found.len(), 100)).await.map_err(|e| e.to_string())?;
                        Ok::<_, String>(found)
                    };
                    match whole.await {
                        Ok(found) => assert_eq!(found, expected(30 + round), "{name}"),
                        Err(_) => lost += 1,
                    }
                }
                assert!(lost <= 1, "{name}: {lost} logs are not served");
                if round == 0 {
                    // A lap of the journal.
                    for _ in 0..60 {
                        for log in &logs {
                            let _ = log
                                .append(AppendBatch {
                                    kind: BatchKind::Internal,
                                    ..client(world::internal(&[1; 4000]))
                                })
                                .await;
                        }
                    }
                    storage.close().await.unwrap_or_else(|error| panic!("{name}: {error}"));
                }
            });
            machine.kill();
        }
    }
}

/// The flush under way when the power fails writes the segment's last page again, whose batches the journal has let go.
#[test]
fn a_page_that_is_lost_with_the_power_takes_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let machine = sim.process("broker");
        let disk = machine.disk();
        disk.set_torn_unreadable(1);
        let kept = Rc::new(RefCell::new(0));
        for _ in 0..3 {
            let counted = Rc::clone(&kept);
            let done = Rc::new(RefCell::new(false));
            let flag = Rc::clone(&done);
            machine.start(1, move |_| {
                let (counted, flag) = (Rc::clone(&counted), Rc::clone(&flag));
                async move {
                    let storage = open().await;
                    // One segment, whose last page each flush writes again.
                    let log = storage.log(log_id(1), "orders", LogConfig::default());
                    storage.settle_recovery();
                    let found = read_all(&log).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                    assert!(
                        found.len() >= *counted.borrow(),
                        "seed {seed}: {} of {}",
                        found.len(),
                        counted.borrow()
                    );
                    assert_eq!(found, expected(found.len()), "seed {seed}");
                    *counted.borrow_mut() = found.len();
                    *flag.borrow_mut() = true;
                    loop {
                        let n = *counted.borrow();
                        append(&log, value(n, 1 + n * 37 % 9000)).await.unwrap();
                        *counted.borrow_mut() = n + 1;
                    }
                }
            });
            while !*done.borrow() {
                assert!(sim.run_steps(1) > 0, "stuck");
            }
            // In the middle of a flush: the segment has just been written, and is not synced.
            let segment = || {
                let path = files_of(&machine, ".log").into_iter().next();
                path.map_or(0, |path| crc32c::crc32c(&disk.contents(&path).unwrap()))
            };
            for _ in 0..4 + seed % 3 {
                let before = segment();
                while segment() == before {
                    assert!(sim.run_steps(4) > 0, "stuck");
                }
            }
            machine.crash();
        }
        assert!(*kept.borrow() > 50, "seed {seed}: {}", kept.borrow());
    }
}

#[test]
fn a_restart_on_a_full_disk_serves_what_is_there_and_takes_appends_when_there_is_room() {
    let sim = Sim::new(4);
    let machine = sim.process("broker");
    let disk = machine.disk();
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let log = log_of(&storage, 1);
        fill(&log, 0, 30).await;
        sleep(Duration::from_millis(200)).await;
    });
    machine.kill();
    let fill_up = |machine: &Process| {
        let disk = machine.disk();
        let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
        // Pages are what counts, and some bytes more are of no use to anybody.
        disk.set_capacity(used / 4096 * 4096);
    };
    for seed in 0..2 {
        fill_up(&machine);
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = log_of(&storage, 1);
            storage.settle_recovery();
            assert_eq!(read_all(&log).await.unwrap(), expected(30));
            assert!(matches!(append(&log, value(30, 10)).await, Err(AppendError::DiskFull { .. })), "{seed}");
            assert_eq!(read_all(&log).await.unwrap(), expected(30));
        });
        machine.kill();
    }
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = log_of(&storage, 1);
        storage.settle_recovery();
        assert!(append(&log, value(30, 10)).await.is_err());
        disk.set_capacity(1 << 40);
        sleep(Duration::from_secs(3)).await;
        fill(&log, 30, 100).await;
        assert_eq!(read_all(&log).await.unwrap(), expected(130));
        storage.close().await.unwrap();
    });
}

#[test]
fn deleting_records_and_logs_frees_a_disk_on_which_nothing_is_left() {
    for restarts in [false, true] {
        let sim = Sim::new(5);
        let machine = sim.process("broker");
        let disk = machine.disk();
        run(&sim, &machine, async move {
            let mut storage = open().await;
            let (large, gone) = (log_of(&storage, 1), log_of(&storage, 3));
            storage.settle_recovery();
            for i in 0..150 {
                append(&large, value(i, 20_000)).await.unwrap();
                append(&gone, value(i, 20_000)).await.unwrap();
            }
            if restarts {
                storage.close().await.unwrap();
            }
            let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
            disk.set_capacity(used / 4096 * 4096);
            if restarts {
                storage = open().await;
            }
            let (large, other) = (log_of(&storage, 1), log_of(&storage, 2));
            let _ = log_of(&storage, 3);
            storage.settle_recovery();
            let end = large.high_watermark();
            assert_eq!(large.delete_records(end - 1).await.unwrap(), end - 1);
            storage.delete(log_id(3)).await.unwrap();
            sleep(Duration::from_secs(3)).await;
            append(&other, value(0, 100)).await.expect("there is space again");
            disk.set_capacity(1 << 40);
        });
        machine.kill();
    }
}

#[test]
fn a_process_without_descriptors_waits_for_one_and_its_journal_does_not_fail() {
    let sim = Sim::new(6);
    let machine = sim.process("broker");
    const LOGS: u8 = 60;
    for round in 0..2 {
        machine.set_descriptor_limit(30);
        run(&sim, &machine, async move {
            let config = StorageConfig { files_open_max: 64, flush_concurrency: 32, ..world::config(0, 1) };
            let storage = world::open_as(config).await;
            let logs: Vec<_> = (1..=LOGS).map(|n| log_of(&storage, n)).collect();
            storage.settle_recovery();
            for i in 0..20 {
                for log in &logs {
                    append(log, value(i + 20 * round, 500)).await.unwrap();
                }
            }
            // Something else takes all there is, until it gives it back.
            let taken = Rc::new(RefCell::new(Vec::new()));
            let taker = Rc::clone(&taken);
            let taking = spawn(Queue::Control, async move {
                for n in 0.. {
                    let path = format!("{DIR}/other-{n}");
                    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
                    let file = File::open(Path::new(&path), options).await.expect("it waits");
                    taker.borrow_mut().push(file);
                }
            });
            let producer = {
                let log = Rc::clone(&logs[0]);
                spawn(Queue::Produce, async move { fill(&log, 20 + 20 * round, 60).await })
            };
            sleep(Duration::from_secs(2)).await;
            drop(taking);
            taken.borrow_mut().clear();
            producer.await;
            for log in &logs[1..] {
                assert_eq!(read_all(log).await.unwrap(), expected(20 + 20 * round));
            }
        });
        machine.kill();
        if round == 0 {
            // The first log's count differs from the others' from here on.
            run(&sim, &machine, async {
                let storage = open().await;
                assert_eq!(storage.unclaimed().len(), usize::from(LOGS));
                drop(storage.delete(log_id(1)));
            });
            machine.kill();
        }
    }
}

#[test]
fn a_sync_after_the_journal_has_failed_tells_so() {
    let sim = Sim::new(7);
    let machine = sim.process("broker");
    let disk = machine.disk();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = log_of(&storage, 1);
        append(&log, value(0, 10)).await.unwrap();
        disk.fail_until_cleared(corelog_io::sim::DiskOp::Write, ".journal", 5);
        assert!(append(&log, value(1, 10)).await.is_err());
        assert!(matches!(storage.sync().await, Err(StorageError::JournalFailed { .. })));
    });
}

/// A batch with one record for each timestamp.
fn timed(timestamps: &[i64]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for timestamp in timestamps {
        builder.append(*timestamp, None, Some(b"value"), &[]).expect("the record fits");
    }
    builder.build().expect("the batch can be built")
}

#[test]
fn the_greatest_timestamp_of_what_is_left_of_a_batch() {
    // What is appended, from where on it is kept, and offset and timestamp that are right.
    type Case = (&'static [&'static [i64]], i64, Option<(i64, i64)>);
    let cases: [Case; 7] = [
        (&[&[900, 100, 300], &[400, 200]], 1, Some((3, 400))),
        (&[&[900, 100, 300], &[200, 250]], 1, Some((2, 300))),
        (&[&[900, 100, 300], &[200, 300]], 1, Some((2, 300))),
        (&[&[900, 100, 300], &[200, 300]], 3, Some((4, 300))),
        (&[&[900, 100, 300], &[900]], 0, Some((0, 900))),
        (&[&[900, 100, 300]], 3, None),
        (&[&[5], &[900, 100, 900, 7]], 2, Some((3, 900))),
    ];
    for in_segments in [false, true] {
        let sim = Sim::new(8);
        let machine = sim.process("broker");
        run(&sim, &machine, async move {
            let storage = open().await;
            storage.settle_recovery();
            for (n, (batches, ..)) in cases.iter().enumerate() {
                for timestamps in *batches {
                    append(&log_of(&storage, n as u8 + 1), timed(timestamps)).await.unwrap();
                }
            }
            storage.close().await.unwrap();
        });
        machine.kill();
        run(&sim, &machine, async move {
            let storage = open().await;
            for (n, (batches, start, right)) in cases.iter().enumerate() {
                // Once more as they were, in memory.
                let n = n as u8 + 1 + if in_segments { 0 } else { 100 };
                let log = log_of(&storage, n);
                if !in_segments {
                    for timestamps in *batches {
                        append(&log, timed(timestamps)).await.unwrap();
                    }
                }
                log.delete_records(*start).await.unwrap();
                let found = log.max_timestamp().await.unwrap().map(|found| (found.offset, found.timestamp));
                assert_eq!(found, *right, "case {n}");
            }
        });
    }
}

#[test]
fn the_greatest_timestamp_counts_what_is_committed_and_reads_little() {
    let sim = Sim::new(9);
    let machine = sim.process("broker");
    let disk = machine.disk();
    run(&sim, &machine, async move {
        let storage = open().await;
        storage.settle_recovery();
        let log = storage.log(log_id(1), "orders", LogConfig { segment_bytes: 64 << 10, ..log_config() });
        fill(&log, 0, 200).await;
        let before = storage.metrics().cold_read_bytes;
        disk.set_extra_latency(Duration::from_secs(1));
        let under_way = log.append(client(timed(&[1_000_000]))).await.unwrap();
        disk.set_extra_latency(Duration::ZERO);
        let found = log.max_timestamp().await.unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp), (199, 199));
        assert_eq!(storage.metrics().cold_read_bytes, before);
        under_way.durable.await.unwrap();
        assert_eq!(log.max_timestamp().await.unwrap().unwrap().offset, 200);
    });
}

#[test]
fn retention_goes_on_past_a_segment_of_which_nothing_is_known() {
    for by_size in [true, false] {
        let sim = Sim::new(10);
        let machine = sim.process("broker");
        run(&sim, &machine, async {
            let storage = open().await;
            storage.settle_recovery();
            fill(&log_of(&storage, 1), 0, 60).await;
            storage.close().await.unwrap();
        });
        machine.kill();
        // Its oldest and its third: a batch of each, and the index, from which the rest would be known.
        let disk = machine.disk();
        let segments = files_of(&machine, ".log");
        for segment in [&segments[0], &segments[2]] {
            disk.flip_bit(segment, 8 * 4700).unwrap();
            disk.remove(&segment.with_extension("index")).unwrap();
        }
        let oldest = segments[0].clone();
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = log_of(&storage, 1);
            storage.settle_recovery();
            log.set_config(match by_size {
                true => LogConfig { retention_bytes: 500_000, ..log_config() },
                false => LogConfig { retention_ms: 1_000, ..log_config() },
            });
            // Timestamps are 0 to 59.
            let start = log.apply_retention(1_040).await.unwrap();
            assert!((20..41).contains(&start), "by size: {by_size}, the log begins at {start}");
            assert_eq!(log.read(start, 100, true).await.unwrap().next_offset, start + 1);
        });
        assert!(!disk.files().contains(&oldest), "by size: {by_size}");
    }
}

/// What was put aside is removed once it is of no use: a power cut in the middle of that makes no damage of it.
#[test]
fn a_log_that_is_back_is_served_whatever_is_left_of_what_was_put_aside() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let machine = sim.process("broker");
        let disk = machine.disk();
        run(&sim, &machine, async move {
            let storage = open().await;
            storage.settle_recovery();
            let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
            fill(&bad, 0, 2).await;
            disk.fail_until_cleared(corelog_io::sim::DiskOp::Write, "/2/0", 5);
            fill(&sound, 0, 40).await;
            assert!(bad.refused().is_some());
            disk.clear_faults();
        });
        machine.kill();
        assert!(!files_of(&machine, "/refused/").is_empty());
        run(&sim, &machine, async move {
            let storage = open().await;
            let back = log_of(&storage, 2);
            let _ = log_of(&storage, 1);
            storage.settle_recovery();
            append(&back, value(2, 10)).await.unwrap();
            storage.close().await.unwrap();
        });
        machine.crash();
        run(&sim, &machine, async move {
            let storage = open().await;
            let back = log_of(&storage, 2);
            let found = read_all(&back).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(found, expected(3), "seed {seed}");
        });
    }
}
