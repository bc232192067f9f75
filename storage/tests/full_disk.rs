//! On a disk without any space: what frees some works to the end, and so does a stop.

mod world;

use corelog_io::sim::{Process, Sim};
use corelog_io::{File, OpenOptions, fs, sleep, timeout};
use corelog_storage::{AppendBatch, BatchKind, Log, LogConfig, ShardStorage, StorageConfig};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use world::{DIR, append, batch, client, log_config, log_id, open, open_as, read_all, run};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log_of(storage: &Rc<ShardStorage>, n: u8) -> Rc<Log> {
    storage.log(log_id(n), "orders", log_config())
}

async fn fill(log: &Log, batches: usize) {
    for n in 0..batches {
        append(log, batch(&[&vec![n as u8; 20_000][..]], n as i64)).await;
    }
}

/// Leaves room for less than one more page.
fn leave_no_room(machine: &Process) {
    let disk = machine.disk();
    let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
    disk.set_capacity(used / 4096 * 4096);
}

#[test]
fn a_stop_ends_and_what_was_acknowledged_is_there_afterwards() {
    for begun in [true, false] {
        let sim = Sim::new(1);
        let machine = sim.process("broker");
        run(&sim, &machine, async {
            let storage = open().await;
            storage.settle_recovery();
            fill(&log_of(&storage, 1), 20).await;
        });
        machine.kill();
        if !begun {
            leave_no_room(&machine);
        }
        let disk = machine.clone();
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = log_of(&storage, 1);
            storage.settle_recovery();
            if begun {
                sleep(Duration::from_secs(1)).await;
                fill(&log, 20).await;
                leave_no_room(&disk);
            }
            timeout(LONG, storage.close()).await.expect("it ends").expect("nothing is lost by that");
        });
        machine.kill();
        machine.disk().set_capacity(1 << 40);
        run(&sim, &machine, async move {
            let storage = open().await;
            let held = read_all(&log_of(&storage, 1)).await;
            assert_eq!(held.len(), if begun { 40 } else { 20 });
        });
    }
}

#[test]
fn retention_frees_space_though_nothing_can_be_written() {
    // Sealed segments, the one that is written to, or both.
    for (segment_bytes, batches) in [(128 << 10, 30), (1 << 30, 30), (300 << 10, 50)] {
        let sim = Sim::new(2);
        let machine = sim.process("broker");
        let disk = machine.clone();
        run(&sim, &machine, async move {
            let config = LogConfig { segment_bytes, ..LogConfig::default() };
            let storage = open().await;
            let log = storage.log(log_id(1), "orders", config);
            storage.settle_recovery();
            fill(&log, batches).await;
            storage.close().await.expect("it closes");
            drop(storage);
            let storage = open().await;
            let log = storage.log(log_id(1), "orders", config);
            storage.settle_recovery();
            if segment_bytes < 1 << 30 {
                // In no segment.
                fill(&log, 2).await;
            }
            sleep(Duration::from_secs(1)).await;
            let before = log.size_bytes().await.expect("it can be looked at");
            leave_no_room(&disk);
            log.set_config(LogConfig { retention_bytes: 50_000, segment_ms: 1, ..config });
            let start = log.apply_retention(corelog_io::wall_clock_ms()).await.expect("it frees what it can");
            assert!(start > batches as i64 / 2, "{segment_bytes}: the log begins at {start}");
            let after = log.size_bytes().await.expect("it can be looked at");
            assert!(after < before / 2, "{segment_bytes}: {after} of {before} bytes are left");
        });
    }
}

#[test]
fn what_coordinators_write_leaves_room_for_what_frees_space() {
    let sim = Sim::new(3);
    let machine = sim.process("broker");
    let disk = machine.clone();
    run(&sim, &machine, async move {
        let storage = open().await;
        let (large, offsets) = (log_of(&storage, 1), log_of(&storage, 2));
        storage.settle_recovery();
        fill(&large, 100).await;
        leave_no_room(&disk);
        let mut refused = 0;
        for _ in 0..5000 {
            let bytes = batch(&[&[1; 3000]], 1);
            let commit = AppendBatch { kind: BatchKind::Coordinator, ..client(bytes) };
            match timeout(Duration::from_secs(5), offsets.append(commit)).await {
                Err(_) => break,
                Ok(Err(_)) => refused += 1,
                Ok(Ok(appended)) => {
                    if timeout(Duration::from_secs(5), appended.durable).await.is_err() {
                        break;
                    }
                }
            }
        }
        let before = large.high_watermark() - 1;
        let deleted = timeout(LONG, large.delete_records(before)).await.expect("it does not wait for space");
        assert_eq!(deleted.expect("it is done"), before);
        sleep(Duration::from_secs(5)).await;
        append(&large, batch(&[b"more"], 1)).await;
        assert!(refused > 0, "it was never full");
    });
}

#[test]
fn a_reserve_that_a_crash_left_without_its_space_is_made_whole() {
    let sim = Sim::new(4);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let reserve = Path::new(DIR).join("journal/reserve");
        drop(open().await);
        // Its name was durable, its space was not.
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = File::open(&reserve, options).await.expect("it opens");
        file.truncate(0).await.expect("it is cut");
        let storage = open().await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(fs::file_len(&reserve).await.expect("it is there"), 4 << 20);
        drop(storage);
    });
}

/// Each start begins a journal anew, and has more to write to segments than the reserve holds.
#[test]
fn restarts_on_a_full_disk_leave_room_for_a_deletion() {
    let config =
        || StorageConfig { reserve_bytes: 256 << 10, tail_cache_bytes: 4 << 20, ..world::config(0, 1) };
    for starts in [1, 2, 3, 5, 8, 12] {
        let sim = Sim::new(5);
        let machine = sim.process("broker");
        run(&sim, &machine, async move {
            let storage = open_as(config()).await;
            storage.settle_recovery();
            for _ in 0..3 {
                fill(&log_of(&storage, 1), 60).await;
                fill(&log_of(&storage, 2), 10).await;
            }
            sleep(Duration::from_secs(1)).await;
        });
        machine.kill();
        leave_no_room(&machine);
        for start in 0..starts {
            run(&sim, &machine, async move {
                let storage = open_as(config()).await;
                let (large, offsets) = (log_of(&storage, 1), log_of(&storage, 2));
                storage.settle_recovery();
                for _ in 0..20 {
                    let commit =
                        AppendBatch { kind: BatchKind::Coordinator, ..client(batch(&[&[1; 3000]], 1)) };
                    let _ = timeout(Duration::from_millis(300), offsets.append(commit)).await;
                }
                sleep(Duration::from_secs(5)).await;
                if start + 1 < starts {
                    return;
                }
                let before = large.high_watermark() - 1;
                let deleted = timeout(LONG, large.delete_records(before)).await;
                let deleted = deleted.unwrap_or_else(|_| panic!("{starts} starts: it waits for space"));
                assert_eq!(deleted.expect("it is done"), before);
                sleep(Duration::from_secs(10)).await;
                append(&large, batch(&[b"more"], 1)).await;
            });
            if start % 2 == 0 { machine.kill() } else { machine.crash() }
        }
    }
}

/// The disk is looked at the sooner the faster it fills: what is to be kept free of it is kept.
#[test]
fn a_disk_that_fills_between_two_looks_keeps_its_reserve() {
    let sim = Sim::new(7);
    let machine = sim.process("broker");
    let disk = machine.clone();
    run(&sim, &machine, async move {
        let keeps = 8 << 20;
        let config = StorageConfig {
            min_free_bytes: keeps,
            reserve_bytes: 1 << 20,
            tail_cache_bytes: 8 << 20,
            space_poll: Duration::from_secs(3600),
            ..world::config(0, 1)
        };
        disk.disk().set_capacity(40 << 20);
        let storage = open_as(config).await;
        let log = log_of(&storage, 1);
        storage.settle_recovery();
        let mut refused = 0;
        while refused < 100 {
            match log.append(client(batch(&[&[3; 20_000]], 1))).await {
                Ok(appended) => appended.durable.await.expect("it is durable"),
                Err(_) => {
                    refused += 1;
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let left = fs::space(Path::new(DIR)).await.expect("it can be asked for").available;
        assert!(left >= keeps - (1 << 20), "{left} bytes are left of {keeps} that are to be kept free");
        assert!(log.high_watermark() > 500, "{} batches were taken", log.high_watermark());
    });
}
