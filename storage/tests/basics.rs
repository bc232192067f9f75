//! The log's behaviour piece by piece, in the simulated world.

mod world;

use bytes::Bytes;
use corelog_io::sim::Sim;
use corelog_io::sleep;
use corelog_storage::{AppendBatch, BatchKind, Log, LogConfig, ShardStorage, StorageConfig};
use std::rc::Rc;
use std::time::Duration;
use world::{append, batch, batches, client, log_config, log_id, open, read_all, run};

fn values(n: usize, size: usize) -> Vec<Bytes> {
    (0..n).map(|i| batch(&[&vec![i as u8; size][..], b"second"], i as i64)).collect()
}

async fn log_of(storage: &Rc<ShardStorage>, n: u8) -> Rc<Log> {
    storage.log(log_id(n), "orders", log_config())
}

#[test]
fn an_append_is_durable_visible_and_survives_a_power_loss() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        assert_eq!((log.log_end_offset(), log.high_watermark(), log.leader_epoch()), (0, 0, -1));
        let appended = log.append(client(batch(&[b"a", b"b"], 7))).await.unwrap();
        assert_eq!((appended.base_offset, appended.last_offset, appended.duplicate), (0, 1, false));
        assert_eq!((log.log_end_offset(), log.high_watermark()), (2, 0), "ordered, not durable");
        assert_eq!(log.read(0, 1000, true).await.unwrap().len, 0, "nothing is visible before it is durable");
        appended.durable.await.unwrap();
        assert_eq!(log.high_watermark(), 2);
        assert_eq!(append(&log, batch(&[b"c"], 8)).await, 2);
        assert_eq!(read_all(&log).await.iter().map(|(o, _)| *o).collect::<Vec<_>>(), [0, 2]);
    });
    machine.crash();
    run(&sim, &machine, async {
        let storage = open().await;
        assert_eq!(storage.unclaimed(), [log_id(1)]);
        let log = log_of(&storage, 1).await;
        storage.settle_recovery();
        assert_eq!((log.log_end_offset(), log.high_watermark()), (3, 3));
        let found = read_all(&log).await;
        assert_eq!(found.iter().map(|(o, _)| *o).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(append(&log, batch(&[b"d"], 9)).await, 3);
    });
}

#[test]
fn a_read_goes_on_from_a_segment_into_memory() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        for offset in 0..3 {
            assert_eq!(append(&log, batch(&[b"cold"], offset)).await, offset);
        }
        storage.close().await.unwrap();
    });
    machine.kill();
    run(&sim, &machine, async {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        storage.settle_recovery();
        for offset in 3..5 {
            assert_eq!(append(&log, batch(&[b"warm"], offset)).await, offset);
        }
        let read = log.read(0, 1 << 20, true).await.unwrap();
        assert_eq!(batches(&read).iter().map(|(o, _)| *o).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(storage.metrics().cold_read_bytes > 0);
    });
}

#[test]
fn with_write_caching_a_batch_is_served_at_once_and_segments_get_what_is_durable() {
    let sim = Sim::new(5);
    let machine = sim.process("broker");
    let disk = machine.disk();
    let caching = || LogConfig { write_caching: true, ..log_config() };
    run(&sim, &machine, async move {
        let storage = open().await;
        storage.settle_recovery();
        let log = storage.log(log_id(1), "orders", caching());
        assert_eq!(append(&log, batch(&[b"kept"], 1)).await, 0);
        storage.sync().await.unwrap();
        disk.set_extra_latency(Duration::from_secs(1));
        let appended = log.append(client(batch(&[b"a", b"b"], 7))).await.unwrap();
        assert!(appended.cached);
        assert_eq!((log.log_end_offset(), log.high_watermark()), (3, 3));
        assert_eq!(read_all(&log).await.iter().map(|(o, _)| *o).collect::<Vec<_>>(), [0, 1]);
        // The broker's own wait as ever.
        let own = AppendBatch { kind: BatchKind::Coordinator, ..client(batch(&[b"c"], 8)) };
        assert!(!log.append(own).await.unwrap().cached);
        // A flush under way takes nothing that could still be lost.
        log.set_config(log_config());
        assert_eq!(log.high_watermark(), 3, "turned off, what was served stays");
        let waits = log.append(client(batch(&[b"d"], 9))).await.unwrap();
        assert_eq!((waits.cached, log.high_watermark()), (false, 3));
    });
    machine.crash();
    machine.disk().set_extra_latency(Duration::ZERO);
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = storage.log(log_id(1), "orders", caching());
        storage.settle_recovery();
        let found = read_all(&log).await;
        assert_eq!(found[0].0, 0, "what was durable is there");
        assert!(found.len() <= 4);
        // All that was appended before a close is in segments.
        let end = log.log_end_offset();
        for (i, bytes) in values(40, 20_000).into_iter().enumerate() {
            let appended = log.append(client(bytes)).await.unwrap();
            assert_eq!(appended.base_offset, end + 2 * i as i64);
            drop(appended.durable);
        }
        storage.close().await.unwrap();
    });
    machine.kill();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        assert_eq!(storage.metrics().dirty_bytes, 0);
        assert!(read_all(&log).await.len() > 40);
    });
}

#[test]
fn what_turns_over_many_times_is_read_back_from_memory_and_segments_alike() {
    let sim = Sim::new(2);
    let machine = sim.process("broker");
    const N: usize = 400;
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let log = log_of(&storage, 1).await;
        for (i, bytes) in values(N, 20_000).into_iter().enumerate() {
            assert_eq!(append(&log, bytes).await, 2 * i as i64);
        }
        check(&log, N).await;
        let metrics = storage.metrics();
        assert!(metrics.flushed_bytes > 6 << 20 && metrics.checkpoints > 10, "{metrics:?}");
        assert!(metrics.cold_read_bytes > 6 << 20 && metrics.tail_read_bytes > 200 << 10, "{metrics:?}");
        assert!(metrics.cached_bytes <= 1 << 20, "{metrics:?}");
    });
    machine.crash();
    run(&sim, &machine, async {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        storage.settle_recovery();
        check(&log, N).await;
        sleep(Duration::from_secs(1)).await;
        check(&log, N).await;
        storage.close().await.unwrap();
    });
    machine.kill();
    let journals = machine.disk().files().iter().filter(|f| f.to_string_lossy().ends_with("journal")).count();
    assert!(journals <= 3, "former generations are gone");
    run(&sim, &machine, async {
        let storage = open().await;
        let log = log_of(&storage, 1).await;
        check(&log, N).await;
        assert_eq!(storage.metrics().dirty_bytes, 0, "a clean end leaves nothing to replay");
    });

    async fn check(log: &Log, n: usize) {
        let found = read_all(log).await;
        assert_eq!(found.len(), n);
        for ((i, (offset, bytes)), expected) in found.into_iter().enumerate().zip(values(n, 20_000)) {
            assert_eq!(offset, 2 * i as i64);
            assert_eq!(bytes[16..], expected[16..], "batch {i}");
        }
    }
}

#[test]
fn the_greatest_timestamp_is_found_when_a_greater_one_was_deleted_and_nothing_is_in_memory() {
    let sim = Sim::new(4);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let log = log_of(&storage, 1).await;
        for timestamp in [100, 50, 70, 60] {
            append(&log, batch(&[b"value"], timestamp)).await;
        }
        storage.close().await.expect("it closes");
    });
    machine.kill();
    run(&sim, &machine, async {
        let log = log_of(&open().await, 1).await;
        log.delete_records(1).await.expect("the first record is deleted");
        let found = log.max_timestamp().await.expect("it can be looked for").expect("there is one");
        assert_eq!((found.offset, found.timestamp), (2, 70));
    });
}

/// A batch's checksum begins behind its base offset, length, leader epoch and magic: damage there must be found by
/// what else the log knows.
#[test]
fn no_flipped_bit_of_a_batch_header_is_served() {
    const N: usize = 100;
    /// Up to the checksum, and with it.
    const HEADER_BITS: u64 = 21 * 8;
    let sim = Sim::new(3);
    let machine = sim.process("broker");
    let disk = machine.disk();
    run(&sim, &machine, async move {
        let storage = open().await;
        storage.settle_recovery();
        let log = log_of(&storage, 1).await;
        for bytes in values(N, 20_000) {
            append(&log, bytes).await;
        }
        let truth = read_all(&log).await;
        let files: Vec<_> =
            disk.files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "log")).collect();
        let mut struck = 0;
        for file in &files {
            let contents = disk.contents(file).expect("it is there");
            for (offset, bytes) in &truth {
                let Some(at) = contents.windows(61).position(|w| w == &bytes[..61]) else { continue };
                for bit in 0..HEADER_BITS {
                    disk.flip_bit(file, at as u64 * 8 + bit).expect("the bit is there");
                    match log.read(*offset, 1, true).await {
                        Ok(read) => {
                            assert_eq!(batches(&read), [(*offset, bytes.clone())], "bit {bit} at {offset}")
                        }
                        Err(_) => struck += 1,
                    }
                    disk.flip_bit(file, at as u64 * 8 + bit).expect("the bit is there");
                }
            }
        }
        assert!(
            struck > 10 * HEADER_BITS,
            "{struck} damaged batches were refused: too few were read from segments"
        );
        assert_eq!(read_all(&log).await, truth);
    });
}

/// A producer that appends all the time, one batch after the other, while the flusher works.
#[test]
fn a_busy_log_is_flushed_in_large_pieces_and_each_flush_ends() {
    const BATCH: usize = 4 << 10;
    const N: usize = 4000;
    let sim = Sim::new(3);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let large =
            StorageConfig { journal_file_bytes: 4 << 20, tail_cache_bytes: 16 << 20, ..world::config(0, 1) };
        let storage = world::open_as(large).await;
        let log = storage.log(log_id(1), "orders", LogConfig::default());
        for batch in values(N, BATCH) {
            append(&log, batch).await;
        }
        let metrics = storage.metrics();
        assert!(metrics.flushed_bytes > 2 * (4 << 20), "{metrics:?}");
        let each = metrics.flushed_bytes / metrics.segment_writes;
        assert!(each > 512 << 10, "{each} bytes a write: {metrics:?}");
    });
}

/// A shard that may have 16 MiB in no segment yet, and its logs.
async fn open_with_much_to_recover(logs: u8) -> (Rc<ShardStorage>, Vec<Rc<Log>>) {
    let storage = world::open_as(StorageConfig {
        journal_file_bytes: 16 << 20,
        tail_cache_bytes: 16 << 20,
        group_bytes_max: 1 << 20,
        ..world::config(0, 1)
    })
    .await;
    let logs = (1..=logs).map(|n| storage.log(log_id(n), "orders", LogConfig::default())).collect();
    (storage, logs)
}

async fn append_without_end(log: Rc<Log>) {
    let batch = values(1, 60_000).remove(0);
    while let Ok(appended) = log.append(client(batch.clone())).await {
        let _ = appended.durable.await;
    }
}

#[test]
fn what_was_recovered_is_in_segments_as_soon_as_the_disk_takes_it() {
    const RECOVERED: u64 = 12 << 20;
    let sim = Sim::new(6);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let (storage, logs) = open_with_much_to_recover(16).await;
        storage.settle_recovery();
        for batch in values(RECOVERED as usize / 60_000, 60_000) {
            append(&logs[storage.metrics().appended_batches as usize % logs.len()], batch).await;
        }
    });
    machine.kill();
    run(&sim, &machine, async {
        let (storage, _logs) = open_with_much_to_recover(16).await;
        assert!(storage.metrics().dirty_bytes > RECOVERED / 2, "{:?}", storage.metrics());
        storage.settle_recovery();
        // At the slowest pace of segment writes it would take 190.
        sleep(Duration::from_millis(60)).await;
        assert_eq!(storage.metrics().dirty_bytes, 0);
    });
}

/// What was recovered counts as any other memory: there is no room for more until it is in segments.
#[test]
fn kills_in_the_middle_of_recovery_do_not_pile_up_what_is_to_be_recovered() {
    let sim = Sim::new(7);
    let machine = sim.process("broker");
    for round in 0..10 {
        machine.disk().set_extra_latency(Duration::ZERO);
        let disk = machine.disk();
        run(&sim, &machine, async move {
            let (storage, logs) = open_with_much_to_recover(100).await;
            let metrics = storage.metrics();
            assert!(metrics.dirty_bytes <= 20 << 20, "round {round}: {metrics:?}");
            storage.settle_recovery();
            disk.set_extra_latency(Duration::from_millis(10));
            for log in logs {
                corelog_io::spawn(corelog_io::Queue::Produce, append_without_end(log)).detach();
            }
            sleep(Duration::from_millis(600)).await;
        });
        machine.kill();
    }
}
