//! What a quorum decides, piece by piece: what is served of a log, what waits, what is cut. The simulation has all of it at
//! once.

mod world;

use bytes::Bytes;
use corelog_io::sim::Sim;
use corelog_io::sleep;
use corelog_storage::{
    AppendBatch, AppendError, CommitMode, Log, LogConfig, RaftIndex, ReadError, ShardStorage,
};
use std::rc::Rc;
use std::time::Duration;
use world::{batch, client, log_config, log_id, open, produced, read_all, run};

fn quorum() -> LogConfig {
    LogConfig { commit: CommitMode::Quorum, ..log_config() }
}

/// Appends in `term`, durably; where.
async fn append(log: &Log, bytes: Bytes, term: i32) -> i64 {
    let batch = AppendBatch { leader_epoch: term, ..client(bytes) };
    let appended = log.append(batch).await.expect("it is taken");
    appended.durable.await.expect("it becomes durable");
    appended.base_offset
}

/// Ten batches of `size` bytes, at times 10, 20 and so on.
async fn fill(log: &Log, size: usize) {
    for i in 0..10_u8 {
        append(log, batch(&[&vec![i; size]], 10 + 10 * i64::from(i)), 1).await;
    }
}

async fn offsets(log: &Log) -> Vec<i64> {
    read_all(log).await.iter().map(|(offset, _)| *offset).collect()
}

async fn flushed(storage: &Rc<ShardStorage>) {
    storage.empty_journal().await.expect("the disk is sound");
}

#[test]
fn what_is_not_committed_is_nowhere_to_be_seen_in_memory_or_in_segments() {
    let sim = Sim::new(1);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let log = storage.log(log_id(1), "orders", quorum());
        fill(&log, 30_000).await;
        log.advance_commit(RaftIndex(4));
        append(&log, batch(&[b"later"], 500), 2).await;
        for in_segments in [false, true] {
            if in_segments {
                flushed(&storage).await;
            }
            assert_eq!(
                (log.high_watermark(), log.log_end_offset(), log.commit_index()),
                (4, 11, RaftIndex(4))
            );
            assert_eq!(offsets(&log).await, [0, 1, 2, 3]);
            assert!(matches!(log.read(5, 1, true).await, Err(ReadError::OffsetOutOfRange { .. })));
            let at = |time| log.offset_for_timestamp(time);
            assert_eq!(at(40).await.unwrap().map(|found| found.offset), Some(3));
            assert_eq!(at(41).await.unwrap(), None);
            let greatest = log.max_timestamp().await.unwrap().expect("there are records");
            assert_eq!((greatest.offset, greatest.timestamp), (3, 40));
            assert_eq!((log.epoch_end_offset(1).end_offset, log.epoch_end_offset(2).end_offset), (4, -1));
            assert!(log.delete_records(5).await.is_err());
        }
        // All of it is old, and too much.
        log.set_config(LogConfig { retention_bytes: 0, segment_ms: -1, ..quorum() });
        assert!(log.apply_retention(1 << 40).await.unwrap() <= 4, "what is not committed stays");
        assert_eq!(log.delete_records(-1).await.unwrap(), 4);
        log.advance_commit(RaftIndex(99));
        assert_eq!((log.high_watermark(), offsets(&log).await), (11, vec![4, 5, 6, 7, 8, 9, 10]));
    });
}

#[test]
fn without_a_quorum_a_log_takes_so_much_and_keeps_nothing_from_others() {
    let sim = Sim::new(2);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let mut config = world::config(0, 1);
        config.uncommitted_bytes_max = 3 << 20;
        let storage = world::open_as(config).await;
        storage.settle_recovery();
        let (lonely, neighbour) =
            (storage.log(log_id(1), "orders", quorum()), storage.log(log_id(2), "orders", log_config()));
        let large = batch(&[&[7; 100_000]], 1);
        let refused = loop {
            match lonely.append(client(large.clone())).await {
                Ok(appended) => appended.durable.await.unwrap(),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::NoQuorum { max: 3145728, .. }), "{refused}");
        assert!(refused.to_string().contains("wait for a majority"), "{refused}");
        assert_eq!((lonely.log_end_offset(), lonely.high_watermark()), (31, 0));
        // The journal and the memory have room for less than the lonely log holds.
        for _ in 0..60 {
            append(&neighbour, large.clone(), 0).await;
        }
        assert_eq!(neighbour.high_watermark(), 60);
        lonely.advance_commit(RaftIndex(1));
        append(&lonely, batch(&[b"room for one more"], 1), 0).await;
        lonely.advance_commit(lonely.next_index());
        assert_eq!(offsets(&lonely).await.len(), 32);
    });
}

#[test]
fn a_log_is_cut_behind_its_flushed_end_whatever_crash_comes_in_between() {
    for steps in (0..400).step_by(5) {
        let sim = Sim::new(steps);
        let machine = sim.process("broker");
        machine.disk().set_torn_unreadable(8);
        run(&sim, &machine, async {
            let storage = open().await;
            storage.settle_recovery();
            let log = storage.log(log_id(1), "orders", quorum());
            fill(&log, 30_000).await;
            log.advance_commit(RaftIndex(2));
            flushed(&storage).await;
        });
        machine.kill();
        machine.start(1, |_| async {
            let storage = open().await;
            let log = storage.log(log_id(1), "orders", quorum());
            storage.settle_recovery();
            assert_eq!(log.commit_index(), RaftIndex(2), "the checkpoint knows");
            let cut = log.truncate(RaftIndex(3), 2).await.expect("it is not committed");
            cut.await.expect("the disk is sound");
            for _ in 0..4 {
                append(&log, batch(&[&[99; 20_000]], 1), 2).await;
                flushed(&storage).await;
            }
            sleep(Duration::from_secs(1000)).await;
        });
        machine.crash_after(steps);
        sim.run_steps(steps + 1);
        if machine.is_running() {
            machine.crash();
        }
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = storage.log(log_id(1), "orders", quorum());
            assert!(log.refused().is_none(), "after {steps} steps: {:?}", log.refused());
            storage.settle_recovery();
            log.advance_commit(log.next_index());
            let found = read_all(&log).await;
            let values: Vec<u8> = found.iter().map(|(_, bytes)| bytes[bytes.len() - 2]).collect();
            let old: Vec<u8> = (0..10).collect();
            let replaced = [0, 1, 2, 99, 99, 99, 99];
            assert!(
                values == old || (values.len() >= 3 && replaced.starts_with(&values)),
                "after {steps} steps: {values:?}"
            );
            flushed(&storage).await;
            assert_eq!(read_all(&log).await, found);
        });
    }
}

#[test]
fn a_cut_of_a_producers_new_epoch_leaves_what_was_committed_of_the_old_known() {
    let sim = Sim::new(3);
    let machine = sim.process("broker");
    let retry = || produced(&[b"a"], 1, 7, 0, 0);
    run(&sim, &machine, async move {
        let storage = open().await;
        storage.settle_recovery();
        let log = storage.log(log_id(1), "orders", quorum());
        append(&log, retry(), 1).await;
        log.advance_commit(RaftIndex(1));
        append(&log, produced(&[b"b"], 1, 7, 1, 0), 1).await;
        let fenced = log.append(AppendBatch { leader_epoch: 1, ..client(retry()) }).await;
        assert!(matches!(fenced, Err(AppendError::Sequence(_))), "a newer epoch is in flight");
        flushed(&storage).await;
    });
    machine.crash();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = storage.log(log_id(1), "orders", quorum());
        storage.settle_recovery();
        assert_eq!(log.active_producers().iter().map(|p| p.epoch).collect::<Vec<_>>(), [0]);
        let fenced = log.append(AppendBatch { leader_epoch: 1, ..client(retry()) }).await;
        assert!(matches!(fenced, Err(AppendError::Sequence(_))), "what was in flight still is");
        log.truncate(RaftIndex(1), 2).await.unwrap().await.unwrap();
        let known = log.append(AppendBatch { leader_epoch: 2, ..client(retry()) }).await.unwrap();
        assert_eq!((known.duplicate, known.base_offset), (true, 0));
        assert_eq!(append(&log, produced(&[b"c"], 1, 7, 0, 1), 2).await, 1);
    });
}

#[test]
fn a_change_of_who_decides_keeps_what_is_committed() {
    let sim = Sim::new(4);
    let machine = sim.process("broker");
    run(&sim, &machine, async {
        let storage = open().await;
        storage.settle_recovery();
        let log = storage.log(log_id(1), "orders", log_config());
        append(&log, batch(&[b"alone"], 1), 1).await;
        let under_way =
            log.append(AppendBatch { leader_epoch: 1, ..client(batch(&[b"x"], 1)) }).await.unwrap();
        log.set_config(quorum());
        under_way.durable.await.unwrap();
        assert_eq!((log.high_watermark(), log.durable_index()), (1, RaftIndex(2)));
        let cut = log.truncate(RaftIndex(0), 2).await;
        assert!(matches!(cut, Err(AppendError::Invalid(_))), "what was committed alone stays");
        let cut = log.truncate(RaftIndex(1), 0).await;
        assert!(matches!(cut, Err(AppendError::StaleLeaderEpoch { .. })));
        // What is said to be committed is ahead of what is durable here, and kept.
        let next = log.append(AppendBatch { leader_epoch: 1, ..client(batch(&[b"y"], 1)) }).await.unwrap();
        log.advance_commit(RaftIndex(3));
        assert_eq!(log.high_watermark(), 2);
        assert!(log.truncate(RaftIndex(2), 2).await.is_err());
        next.durable.await.unwrap();
        assert_eq!(log.high_watermark(), 3);
        append(&log, batch(&[b"z"], 1), 1).await;
        assert_eq!(log.high_watermark(), 3);
        log.set_config(log_config());
        assert_eq!(log.high_watermark(), 4, "alone, what is durable is committed");
    });
}
