//! Errors of the disk that pass, and errors of what nobody needs: neither takes a record nor stops a shard.

mod world;

use corelog_io::sim::{DiskOp, Sim};
use corelog_io::{Queue, sleep, spawn};
use corelog_storage::{Log, ShardStorage, StorageError};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use world::{append, batch, client, config, log_config, log_id, open, open_all, read_all, run};

const EIO: i32 = 5;

fn log_of(storage: &Rc<ShardStorage>, n: u8) -> Rc<Log> {
    storage.log(log_id(n), "orders", log_config())
}

async fn fill(log: &Log, batches: usize) {
    for n in 0..batches {
        append(log, batch(&[&vec![n as u8; 20_000][..]], n as i64)).await;
    }
}

async fn start() -> Result<Rc<ShardStorage>, StorageError> {
    open_all(1, |_| config(0, 1), |_| 0).await.map(|mut storages| storages.remove(0))
}

/// A disk that gives nothing back for a while is no disk on which nothing was written.
#[test]
fn a_start_while_the_disk_cannot_be_read_takes_no_record_for_unwritten() {
    for (generations, lasts_ms) in [(1, 20), (1, 1000), (1, 1_000_000), (2, 20), (2, 1_000_000)] {
        let sim = Sim::new(1);
        let machine = sim.process("broker");
        let disk = machine.disk();
        for generation in 0..generations {
            run(&sim, &machine, async move {
                let storage = open().await;
                let log = log_of(&storage, 1);
                storage.settle_recovery();
                fill(&log, 10).await;
                match generation + 1 < generations {
                    true => storage.close().await.expect("it closes"),
                    // So that it was durable is proved.
                    false => sleep(Duration::from_millis(200)).await,
                }
            });
            machine.kill();
        }
        disk.fail_until_cleared(DiskOp::Read, ".journal", EIO);
        run(&sim, &machine, async move {
            spawn(Queue::Control, async move {
                sleep(Duration::from_millis(lasts_ms)).await;
                disk.clear_faults();
            })
            .detach();
            if let Ok(storage) = start().await {
                let log = log_of(&storage, 1);
                storage.settle_recovery();
                sleep(Duration::from_secs(1)).await;
                assert_eq!(log.high_watermark(), 10 * generations, "{generations}, {lasts_ms} ms");
            }
        });
        machine.kill();
        machine.disk().clear_faults();
        run(&sim, &machine, async move {
            let log = log_of(&open().await, 1);
            assert_eq!(read_all(&log).await.len(), 10 * generations as usize, "{generations}, {lasts_ms} ms");
        });
    }
}

#[test]
fn a_damaged_log_that_is_deleted_while_it_is_flushed_does_not_stop_its_shard() {
    let met = Rc::new(Cell::new(0));
    for step in 0..60 {
        let sim = Sim::new(2);
        let machine = sim.process("broker");
        let disk = machine.disk();
        run(&sim, &machine, async {
            let storage = open().await;
            storage.settle_recovery();
            for n in 1..=2 {
                fill(&log_of(&storage, n), 1).await;
            }
            storage.close().await.expect("it closes");
        });
        machine.kill();
        let is_bad =
            |file: &std::path::PathBuf| file.to_string_lossy().ends_with("/2/00000000000000000000.log");
        let segment = disk.files().into_iter().find(is_bad).expect("it has a segment");
        disk.flip_bit(&segment, 8 * 20).expect("the bit is there");
        let counted = Rc::clone(&met);
        run(&sim, &machine, async move {
            let storage = open().await;
            let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
            storage.settle_recovery();
            sleep(Duration::from_secs(1)).await;
            append(&bad, batch(&[b"value"], 1)).await;
            disk.set_extra_latency(Duration::from_millis(5));
            let filling = Rc::clone(&sound);
            let filling = spawn(Queue::Produce, async move {
                for n in 0..40 {
                    let bytes = batch(&[&vec![n as u8; 20_000][..]], n);
                    let appended = filling.append(client(bytes)).await?;
                    appended.durable.await?;
                }
                Ok::<_, corelog_storage::AppendError>(())
            });
            sleep(Duration::from_millis(8 * step)).await;
            counted.set(counted.get() + u32::from(bad.refused().is_none()));
            storage.delete(log_id(2)).await.expect("its files go");
            filling.await.unwrap_or_else(|error| panic!("step {step}: {error}"));
            disk.set_extra_latency(Duration::ZERO);
            fill(&sound, 1).await;
        });
    }
    assert!((5..55).contains(&met.get()), "in {} runs it was deleted before its damage was found", met.get());
}

#[test]
fn files_that_cannot_be_removed_stop_no_shard() {
    for aside in [false, true] {
        let sim = Sim::new(3);
        let machine = sim.process("broker");
        let disk = machine.disk();
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = log_of(&storage, 1);
            storage.settle_recovery();
            fill(&log, 10).await;
            if aside {
                disk.fail_until_cleared(DiskOp::Write, "/1/0", EIO);
                fill(&log_of(&storage, 2), 40).await;
                disk.clear_faults();
                assert!(log.refused().is_some());
                storage.close().await.expect("it closes");
            }
        });
        machine.kill();
        let disk = machine.disk();
        run(&sim, &machine, async move {
            let storage = open().await;
            let (log, other) = (log_of(&storage, 1), log_of(&storage, 2));
            assert!(log.refused().is_none(), "the disk is well again");
            let part = if aside { "/refused" } else { "/00000001-0" };
            disk.fail_until_cleared(DiskOp::Metadata, part, EIO);
            storage.settle_recovery();
            fill(&other, 60).await;
            disk.clear_faults();
            fill(&other, 60).await;
            assert_eq!(read_all(&log).await.len(), 10);
            storage.close().await.expect("it closes");
        });
        machine.kill();
        let left = machine.disk().files();
        let is_former = |file: &std::path::PathBuf| {
            let name = file.to_string_lossy();
            name.contains("/00000001-0") || name.contains("/refused/")
        };
        assert!(!left.iter().any(is_former), "they go when they can: {left:?}");
    }
}

/// What is put aside of a log is all that the next start knows of it.
#[test]
fn records_whose_deletion_was_told_do_not_come_back_with_a_log_that_was_refused_meanwhile() {
    let told = Rc::new(Cell::new(0));
    for step in 0..60 {
        let sim = Sim::new(4);
        let machine = sim.process("broker");
        let disk = machine.disk();
        let (counted, deleted) = (Rc::clone(&told), Rc::new(Cell::new(false)));
        let is_deleted = Rc::clone(&deleted);
        run(&sim, &machine, async move {
            let storage = open().await;
            let (sound, bad) = (log_of(&storage, 1), log_of(&storage, 2));
            storage.settle_recovery();
            sleep(Duration::from_secs(1)).await;
            fill(&bad, 2).await;
            disk.fail_until_cleared(DiskOp::Metadata, "/2/0", EIO);
            disk.set_extra_latency(Duration::from_millis(5));
            let filling = spawn(Queue::Produce, async move { fill(&sound, 20).await });
            sleep(Duration::from_millis(10 * step)).await;
            if bad.delete_records(1).await.is_ok() {
                is_deleted.set(true);
                counted.set(counted.get() + 1);
            }
            filling.await;
            disk.set_extra_latency(Duration::ZERO);
            sleep(Duration::from_secs(2)).await;
            assert!(bad.refused().is_some());
        });
        machine.kill();
        machine.disk().clear_faults();
        run(&sim, &machine, async move {
            let storage = open().await;
            let back = log_of(&storage, 2);
            assert!(back.refused().is_none());
            if deleted.get() {
                assert_eq!(back.log_start_offset(), 1, "step {step}");
            }
            assert_eq!(back.high_watermark(), 2);
        });
    }
    assert!((5..60).contains(&told.get()), "{} deletions were told", told.get());
}
