//! What replication reads of a log and gives to it: entries by index, terms, a follower's append, resets.

mod world;

use bytes::Bytes;
use corelog_io::sim::{Process, Sim};
use corelog_io::{Queue, spawn};
use corelog_storage::{
    AppendBatch, BatchKind, CommitMode, EntriesError, Entry, FollowError, Log, LogConfig, LogStart, NO_TERM,
    RaftIndex, SegmentInfo, ShardStorage, TransferError,
};
use corelog_wire::records::{patch_base_offset, patch_leader_epoch};
use std::cell::RefCell;
use std::rc::Rc;
use world::{batch, internal, log_config, log_id, open, produced, read_all};

fn machine(seed: u64) -> (Sim, Process) {
    let sim = Sim::new(seed);
    let machine = sim.process("broker");
    (sim, machine)
}

/// Runs `work` in a process, which begins after a kill if it was not another that ended the last.
fn run(sim: &Sim, machine: &Process, work: impl Future<Output = ()> + 'static) {
    if machine.is_running() {
        machine.kill();
    }
    world::run(sim, machine, work);
}

fn opened(storage: &ShardStorage, n: u8) -> Rc<Log> {
    opened_with(storage, n, log_config())
}

/// A log whose leader says what is committed.
fn opened_with(storage: &ShardStorage, n: u8, config: LogConfig) -> Rc<Log> {
    let config = LogConfig { commit: CommitMode::Quorum, ..config };
    let log = storage.log(log_id(n), "topic", config);
    storage.settle_recovery();
    log
}

async fn append(log: &Log, bytes: Bytes, kind: BatchKind, leader_epoch: i32) {
    let appended = log.append(AppendBatch { bytes, kind, leader_epoch }).await.expect("it is taken");
    appended.durable.await.expect("it becomes durable");
}

/// Terms 1 (two records), 2 (an internal entry alone), 4 (an internal entry and `records` batches of one).
async fn write_terms(log: &Log, records: usize) {
    append(log, batch(&[b"a", b"b"], 1), BatchKind::Client, 1).await;
    append(log, internal(b"term 2"), BatchKind::Internal, 2).await;
    append(log, internal(b"term 4"), BatchKind::Internal, 4).await;
    for n in 0..records {
        append(log, batch(&[&vec![n as u8; 3000]], n as i64), BatchKind::Client, 4).await;
    }
}

async fn all_entries(log: &Log) -> Vec<Entry> {
    let (mut entries, mut at) = (Vec::new(), log.first_index());
    while at < log.next_index() {
        let read = log.entries(at, log.next_index(), 10_000).await.expect("they can be read");
        assert!(read.len() == 1 || read.iter().map(|e| e.bytes.len()).sum::<usize>() <= 10_000);
        at = read.last().expect("one at the least").index.next();
        entries.extend(read);
    }
    entries
}

fn entry(index: u64, term: i32, offset: i64, bytes: Bytes) -> Entry {
    let mut bytes = bytes.to_vec();
    patch_base_offset(&mut bytes, offset);
    patch_leader_epoch(&mut bytes, term);
    Entry { index: RaftIndex(index), term, bytes: bytes.into() }
}

/// An entry of one record.
fn record(index: u64, term: i32, offset: i64) -> Entry {
    entry(index, term, offset, batch(&[format!("{index} in {term}").as_bytes()], 5))
}

async fn follow(log: &Log, prev: (u64, i32), entries: &[Entry]) -> Result<usize, FollowError> {
    let accepted = log.append_entries((RaftIndex(prev.0), prev.1), entries).await?;
    accepted.durable.await.expect("they become durable");
    assert_eq!(accepted.next.0, prev.0 + entries.len() as u64);
    assert!(log.durable_index() >= accepted.next);
    Ok(accepted.appended)
}

#[test]
fn the_term_of_every_entry_is_known_after_restarts_and_from_segments() {
    let (sim, machine) = machine(1);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened(&storage, 1);
        write_terms(&log, 3).await;
        assert_eq!((log.next_index(), log.durable_index()), (RaftIndex(6), RaftIndex(6)));
        check_terms(&log);
        // From the journal.
    });
    machine.crash();
    run(&sim, &machine, async {
        let storage = open().await;
        check_terms(&opened(&storage, 1));
        storage.close().await.expect("it closes");
    });
    run(&sim, &machine, async {
        // From the checkpoint.
        let log = opened(&*open().await, 1);
        check_terms(&log);
        log.advance_commit(log.next_index());
        assert_eq!(log.epoch_end_offset(2).epoch, 1, "Kafka is told of no epoch without records");
    });

    fn check_terms(log: &Log) {
        let terms: Vec<_> = (0..7).map(|index| log.term_at(RaftIndex(index))).collect();
        let expected = [Some(1), Some(2), Some(4), Some(4), Some(4), Some(4), None];
        assert_eq!(terms, expected);
        assert_eq!((log.first_index(), log.term_before_first()), (RaftIndex(0), NO_TERM));
    }
}

#[test]
fn entries_come_from_memory_and_from_segments_alike() {
    let (sim, machine) = machine(2);
    let kept = Rc::new(RefCell::new(Vec::new()));
    let out = Rc::clone(&kept);
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
        write_terms(&log, 60).await;
        let entries = all_entries(&log).await;
        assert_eq!(entries.len(), 63);
        for (n, entry) in entries.iter().enumerate() {
            assert_eq!((entry.index, Some(entry.term)), (RaftIndex(n as u64), log.term_at(entry.index)));
        }
        log.advance_commit(log.next_index());
        storage.close().await.expect("it closes");
        out.replace(entries);
    });
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
        let kept: Vec<Entry> = kept.take();
        assert_eq!(all_entries(&log).await, kept);
        // Anywhere, and with any limit.
        for from in (0..63).rev() {
            let read =
                log.entries(RaftIndex(from), RaftIndex(from + 5), 7_000).await.expect("they can be read");
            let expected = &kept[from as usize..][..read.len()];
            assert!(read == expected && (1..=5).contains(&read.len()), "from {from}");
            assert!(read.len() >= 2 || from < 4 || from == 62, "two fit into the limit");
        }
        let none = log.entries(RaftIndex(3), RaftIndex(3), 1).await.expect("nothing is asked for");
        assert!(none.is_empty());
        let error = log.entries(RaftIndex(63), RaftIndex(64), 1).await.expect_err("there is none");
        assert!(matches!(error, EntriesError::Beyond { next: RaftIndex(63), .. }), "{error}");
    });
}

#[test]
fn what_retention_took_is_compacted_and_the_term_before_it_stays() {
    let (sim, machine) = machine(3);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
        write_terms(&log, 60).await;
        log.advance_commit(log.next_index());
        storage.empty_journal().await.expect("it is written to segments");
        log.delete_records(30).await.expect("they go");
        log.apply_retention(0).await.expect("their segments too");
        let first = log.first_index();
        assert!((RaftIndex(10)..RaftIndex(32)).contains(&first), "{first}");
        assert_eq!(log.term_before_first(), 4);
        assert_eq!(log.term_at(first), Some(4));
        let error = log.entries(RaftIndex(0), RaftIndex(9), 1).await.expect_err("they are gone");
        assert!(matches!(error, EntriesError::Compacted { first: at, .. } if at == first), "{error}");
        assert_eq!(all_entries(&log).await.len() as u64, 63 - first.0);
    });
    machine.crash();
    run(&sim, &machine, async {
        // The checkpoint is from before.
        let log = opened(&*open().await, 1);
        let stale = log.first_index();
        let error = log.entries(stale, RaftIndex(63), 1).await.expect_err("they are gone");
        assert!(matches!(error, EntriesError::Compacted { .. }), "{error}");
        assert!(log.first_index() > stale && !all_entries(&log).await.is_empty());
    });
}

#[test]
fn damage_in_a_segment_refuses_this_log_alone() {
    let (sim, machine) = machine(4);
    run(&sim, &machine, async {
        let storage = open().await;
        for n in [1, 2] {
            let log = opened(&storage, n);
            write_terms(&log, 10).await;
            log.advance_commit(log.next_index());
        }
        storage.close().await.expect("it closes");
    });
    let disk = machine.disk();
    let is_segment = |f: &std::path::PathBuf| f.to_string_lossy().ends_with(".log");
    let of_log = |f: &std::path::PathBuf| f.to_string_lossy().contains(&log_id(1).topic.to_string());
    let segment = disk.files().into_iter().find(|f| is_segment(f) && of_log(f)).expect("it is there");
    disk.flip_bit(&segment, (4096 + 9000) * 8).expect("the bit is there");
    run(&sim, &machine, async {
        let storage = open().await;
        // Both are claimed before recovery is settled.
        let sound = storage.log(log_id(2), "topic", log_config());
        let damaged = opened(&storage, 1);
        let before = damaged.entries(RaftIndex(0), RaftIndex(13), 1 << 20).await.expect("up to the damage");
        let at = before.last().expect("some are whole").index.next();
        assert!(damaged.refused().is_none());
        let error = damaged.entries(at, RaftIndex(13), 1 << 20).await.expect_err("it is damaged");
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(damaged.refused().is_some());
        assert_eq!(all_entries(&sound).await.len(), 13);
    });
}

#[test]
fn a_follower_takes_what_the_leader_has_and_skips_what_is_there() {
    let (sim, machine) = machine(5);
    run(&sim, &machine, async {
        let storage = open().await;
        let (leader, follower) = (opened(&storage, 1), opened(&storage, 2));
        write_terms(&leader, 20).await;
        let entries = all_entries(&leader).await;
        assert_eq!(follow(&follower, (0, NO_TERM), &entries[..10]).await.expect("they fit"), 10);
        assert_eq!(follow(&follower, (4, 4), &entries[4..15]).await.expect("five are new"), 5);
        assert_eq!(follow(&follower, (3, 4), &entries[3..9]).await.expect("none is new"), 0);
        assert_eq!(follow(&follower, (15, 4), &[]).await.expect("it is where the leader says"), 0);
        assert_eq!(follow(&follower, (15, 4), &entries[15..]).await.expect("the rest"), 8);
        assert_eq!(all_entries(&follower).await, entries);
        follower.advance_commit(follower.next_index());
        leader.advance_commit(leader.next_index());
        assert_eq!(read_all(&follower).await, read_all(&leader).await);
        assert_eq!(follower.leader_epoch(), 4);
    });
}

#[test]
fn a_conflicting_suffix_is_cut_and_what_is_committed_never() {
    let (sim, machine) = machine(6);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened(&storage, 1);
        let old: Vec<Entry> = (0..6).map(|n| record(n, 1, n as i64)).collect();
        follow(&log, (0, NO_TERM), &old).await.expect("they fit");
        log.advance_commit(RaftIndex(3));
        let new = [record(3, 2, 3), record(4, 3, 4)];
        assert_eq!(follow(&log, (3, 1), &new).await.expect("it replaces three"), 2);
        assert_eq!((log.next_index(), log.log_end_offset()), (RaftIndex(5), 5));
        assert_eq!(all_entries(&log).await, [&old[..3], &new].concat());
        let error = follow(&log, (2, 1), &[record(2, 3, 2)]).await.expect_err("it is committed");
        assert!(matches!(error, FollowError::Committed { committed: RaftIndex(3), known: 1, .. }), "{error}");
        for prev in [(5, 2), (7, 3), (4, 3)] {
            let error = follow(&log, prev, &[]).await.expect_err("another came before, or none");
            assert!(matches!(error, FollowError::Gap { next: RaftIndex(5), .. }), "{prev:?}: {error}");
        }
        assert_eq!(log.next_index(), RaftIndex(5), "nothing was changed");
    });
    machine.crash();
    run(&sim, &machine, async {
        let log = opened(&*open().await, 1);
        let terms: Vec<_> = (0..6).map(|index| log.term_at(RaftIndex(index))).collect();
        assert_eq!(terms, [Some(1), Some(1), Some(1), Some(2), Some(3), None]);
    });
}

#[test]
fn entries_that_are_not_sound_are_refused_one_by_one() {
    let (sim, machine) = machine(7);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened(&storage, 1);
        follow(&log, (0, NO_TERM), &[record(0, 3, 0)]).await.expect("it fits");
        let good = record(1, 3, 1);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.bytes.to_vec();
            change(&mut bytes);
            Entry { bytes: bytes.into(), ..good.clone() }
        };
        let bad = [
            Entry { index: RaftIndex(2), ..good.clone() },
            Entry { term: 4, ..good.clone() },
            record(1, 2, 1),
            entry(1, -1, 1, batch(&[b"x"], 1)),
            record(1, 3, 0),
            record(1, 3, 2),
            record(1, 3, -1),
            with(&|bytes| bytes.truncate(60)),
            with(&|bytes| bytes.clear()),
            with(&|bytes| bytes.push(0)),
            with(&|bytes| bytes[30] ^= 1),
            with(&|bytes| bytes[16] = 1),
            with(&|bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())),
        ];
        for (n, bad) in bad.iter().enumerate() {
            let error = follow(&log, (1, 3), std::slice::from_ref(bad)).await.expect_err("it is refused");
            assert!(matches!(error, FollowError::Invalid { index: RaftIndex(1), .. }), "{n}: {error}");
        }
        let error = follow(&log, (1, 3), &[good.clone(), record(3, 3, 2)]).await.expect_err("a gap");
        assert!(matches!(error, FollowError::Invalid { index: RaftIndex(2), .. }), "{error}");
        assert_eq!(log.next_index(), RaftIndex(1), "what can be seen without the log is seen first");
        assert_eq!(follow(&log, (1, 3), &[good]).await.expect("it is sound"), 1);
    });
}

/// Any bytes at all: an error or a batch, and the log goes on.
#[test]
fn no_bytes_make_it_panic() {
    let (sim, machine) = machine(8);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened(&storage, 1);
        let good = entry(0, 0, 0, produced(&[b"x", b"y"], 1, 7, 0, 0));
        for byte in 0..good.bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = good.bytes.to_vec();
                bytes[byte] ^= change;
                // What the checksum does not cover is all there is to change.
                let crc = crc32c::crc32c(&bytes[21..]);
                bytes[17..21].copy_from_slice(&crc.to_be_bytes());
                let entry = Entry { bytes: bytes.into(), ..good.clone() };
                if let Ok(taken) = follow(&log, (0, NO_TERM), &[entry]).await {
                    assert_eq!(taken, 1);
                    let cut = log.truncate(RaftIndex(0), i32::MAX).await.expect("it was not committed");
                    cut.await.expect("it becomes durable");
                }
            }
        }
        assert_eq!(follow(&log, (0, NO_TERM), &[good]).await.expect("it is sound"), 1);
    });
}

#[test]
fn producers_are_noted_as_the_leader_took_them() {
    let (sim, machine) = machine(9);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened(&storage, 1);
        // The leader has forgotten what came before, and took sequence 40 for a beginning.
        let first = produced(&[b"x"], 1, 7, 0, 40);
        let entries = [entry(0, 1, 0, first.clone()), entry(1, 1, 1, produced(&[b"y"], 1, 7, 0, 77))];
        follow(&log, (0, NO_TERM), &entries).await.expect("claims are noted, not judged");
        log.advance_commit(log.next_index());
        let again = AppendBatch { bytes: first, kind: BatchKind::Client, leader_epoch: 2 };
        let again = log.append(again).await.expect("it is known");
        assert!(again.duplicate && again.base_offset == 0);
    });
}

#[test]
fn the_shard_tells_which_registered_logs_moved() {
    let (sim, machine) = machine(10);
    run(&sim, &machine, async {
        let storage = open().await;
        let logs: Vec<_> = (1..4).map(|n| opened(&storage, n)).collect();
        logs[0].watch_progress(true);
        logs[2].watch_progress(true);
        let tasks: Vec<_> = logs
            .iter()
            .map(|log| {
                let log = Rc::clone(log);
                spawn(Queue::Produce, async move { write_terms(&log, 1).await })
            })
            .collect();
        let (mut ends, mut wakes) = ([RaftIndex(0); 4], 0);
        while ends[1] < RaftIndex(4) || ends[3] < RaftIndex(4) {
            wakes += 1;
            for id in storage.progress().moved().await {
                let n = id.partition as usize;
                let end = logs[n - 1].durable_index();
                assert!(n != 2 && end > ends[n], "log {n} moved from {} to {end}", ends[n]);
                ends[n] = end;
            }
        }
        let groups = storage.metrics().journal_groups;
        assert!(wakes <= groups && groups < 12, "{wakes} wakes for {groups} groups of 12 appends");
        for task in tasks {
            task.await;
        }
        assert_eq!(storage.progress().take(), []);
    });
}

#[test]
fn a_membership_is_kept_and_what_says_it_goes_only_when_it_is_saved() {
    let (sim, machine) = machine(11);
    run(&sim, &machine, async {
        let storage = open().await;
        let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
        write_terms(&log, 60).await;
        log.advance_commit(log.next_index());
        storage.empty_journal().await.expect("it is written to segments");
        assert!(log.set_membership(RaftIndex(2), vec![0; 17 << 10].into()).is_err());
        assert_eq!(log.membership(), None);
        log.set_membership(RaftIndex(2), Bytes::from_static(b"1,2,3")).expect("it is short");
        log.delete_records(60).await.expect("they go");
        log.apply_retention(0).await.expect("it is looked at");
        assert_eq!(log.first_index(), RaftIndex(0), "a crash would take the only word of it");
        storage.empty_journal().await.expect("a checkpoint is written");
        log.apply_retention(0).await.expect("it is looked at");
        assert!(log.first_index() > RaftIndex(2));
    });
    machine.crash();
    run(&sim, &machine, async {
        let membership = opened(&*open().await, 1).membership().expect("it was saved");
        // Nothing that was committed said otherwise.
        assert_eq!((membership.index, &membership.bytes[..]), (RaftIndex(63), &b"1,2,3"[..]));
    });
}

#[test]
fn a_log_begins_anew_wherever_it_is_told_to() {
    for (seed, start) in [(12, (1000, 9, 500)), (13, (3, 1, 2)), (14, (0, NO_TERM, 0))] {
        let (sim, machine) = machine(seed);
        let start = LogStart { index: RaftIndex(start.0), term: start.1, offset: start.2 };
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
            write_terms(&log, 30).await;
            log.advance_commit(log.next_index());
            storage.empty_journal().await.expect("it is written to segments");
            write_terms_on(&log, 20).await;
            log.reset(start).await.expect("it begins anew");
            check_empty(&log, start);
            let first = record(start.index.0, 10, start.offset);
            follow(&log, (start.index.0, start.term), &[first]).await.expect("it follows the start");
            storage.empty_journal().await.expect("it is written to segments");
            log.reset(start).await.expect("once more");
            follow(&log, (start.index.0, start.term), &[record(start.index.0, 11, start.offset)])
                .await
                .expect("it follows the start");
        });
        machine.crash();
        for _ in 0..2 {
            run(&sim, &machine, async move {
                let storage = open().await;
                let log = opened(&storage, 1);
                assert_eq!((log.first_index(), log.term_before_first()), (start.index, start.term));
                assert_eq!(log.log_start_offset(), start.offset);
                assert_eq!(all_entries(&log).await, [record(start.index.0, 11, start.offset)]);
                log.advance_commit(log.next_index());
                storage.close().await.expect("it closes");
            });
        }
    }

    async fn write_terms_on(log: &Log, records: usize) {
        for n in 0..records {
            append(log, batch(&[&vec![n as u8; 3000]], n as i64), BatchKind::Client, 5).await;
        }
    }

    fn check_empty(log: &Log, start: LogStart) {
        let ends = [log.first_index(), log.next_index(), log.durable_index(), log.commit_index()];
        assert_eq!(ends, [start.index; 4]);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (start.offset, start.offset));
        assert!(log.active_producers().is_empty());
    }
}

#[test]
fn a_start_that_cannot_be_is_refused() {
    let (sim, machine) = machine(15);
    run(&sim, &machine, async {
        let log = opened(&*open().await, 1);
        let good = LogStart { index: RaftIndex(5), term: 1, offset: 3 };
        for bad in [
            LogStart { index: RaftIndex(u64::MAX), ..good },
            LogStart { term: -2, ..good },
            LogStart { offset: -1, ..good },
            LogStart { offset: i64::MAX, ..good },
        ] {
            assert!(log.reset(bad).await.is_err(), "{bad:?}");
        }
        log.reset(good).await.expect("it begins there");
    });
}

/// The power fails at any step of a reset: what is there then is the old log, whole, or the new one.
#[test]
fn a_crash_in_a_reset_leaves_the_old_log_or_the_new() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..60 {
        let (sim, machine) = machine(100 + seed);
        run(&sim, &machine, async {
            let storage = open().await;
            let log = opened_with(&storage, 1, LogConfig { segment_bytes: 20_000, ..log_config() });
            write_terms(&log, 20).await;
            log.advance_commit(log.next_index());
            storage.empty_journal().await.expect("it is written to segments");
            append(&log, batch(&[b"in the journal alone"], 1), BatchKind::Client, 4).await;
        });
        machine.kill();
        machine.start(1, |_| async {
            let storage = open().await;
            let log = opened(&storage, 1);
            log.reset(LogStart { index: RaftIndex(10), term: 2, offset: 5 }).await.expect("it begins anew");
            follow(&log, (10, 2), &[record(10, 3, 5)]).await.expect("it follows");
            log.advance_commit(log.next_index());
            storage.empty_journal().await.expect("it is written to segments");
            std::future::pending::<()>().await;
        });
        machine.crash_after(seed * 7);
        sim.run_steps(seed * 7 + 1);
        if machine.is_running() {
            machine.crash();
        }
        let begins = Rc::new(std::cell::Cell::new(0));
        let found = Rc::clone(&begins);
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = opened(&storage, 1);
            assert!(log.refused().is_none(), "{:?}", log.refused());
            found.set(log.first_index().0);
            let entries = all_entries(&log).await;
            match log.first_index().0 {
                0 => assert_eq!(entries.len(), 24),
                10 => assert!(entries.is_empty() || entries == [record(10, 3, 5)]),
                other => panic!("it begins at {other}"),
            }
            log.advance_commit(log.next_index());
            storage.close().await.expect("it closes");
        });
        if begins.get() == 0 { old += 1 } else { new += 1 }
    }
    assert!(old > 5 && new > 5, "{old} old, {new} new");
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 20_000, ..log_config() }
}

/// A log of several sealed segments.
async fn write_segments(storage: &Rc<ShardStorage>) -> Rc<Log> {
    let log = opened_with(storage, 1, small_segments());
    append(&log, produced(&[b"x"], 1, 7, 3, 0), BatchKind::Client, 1).await;
    write_terms(&log, 40).await;
    log.set_membership(RaftIndex(3), Bytes::from_static(b"1,2,3")).expect("it is short");
    log.advance_commit(log.next_index());
    storage.empty_journal().await.expect("it is written to segments");
    log
}

/// A segment's file, in pieces.
async fn pieces_of(log: &Log, segment: &SegmentInfo) -> Vec<(u64, Bytes)> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < segment.bytes {
        let piece = log.segment_bytes(segment.base_offset, at, 8192).await.expect("it is read");
        let piece = piece.expect("it is there");
        let len = piece.len() as u64;
        pieces.push((at, piece));
        at += len;
    }
    let rest = log.segment_bytes(segment.base_offset, at, 8192).await.expect("it is read");
    assert_eq!(rest, Some(Bytes::new()));
    pieces
}

/// What the sender gives: its segments in pieces, its state, its entries.
#[derive(Clone, Default)]
struct Given {
    segments: Vec<(SegmentInfo, Vec<(u64, Bytes)>)>,
    state: Bytes,
    entries: Vec<Entry>,
}

async fn give(log: &Log) -> Given {
    let mut given =
        Given { state: log.export_state(-1, usize::MAX).expect("it is sound").bytes, ..Given::default() };
    let list = log.segments().await.expect("they are listed");
    assert_eq!(list.segments.first().map(start_of), Some(list.start));
    for segment in list.segments {
        given.segments.push((segment, pieces_of(log, &segment).await));
    }
    given.entries = all_entries(log).await;
    given
}

/// Runs the sender in a world of its own.
fn given(work: impl AsyncFn(&Rc<ShardStorage>, &Log) + 'static) -> Given {
    let given = Rc::new(std::cell::RefCell::new(Given::default()));
    let out = Rc::clone(&given);
    let (sim, machine) = machine(50);
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = write_segments(&storage).await;
        work(&storage, &log).await;
        *out.borrow_mut() = give(&log).await;
    });
    given.take()
}

async fn receive(log: &Log, segment: &SegmentInfo, pieces: &[(u64, Bytes)]) -> Result<(), TransferError> {
    let from = log.received(segment).await?;
    let mut at = from;
    for (position, piece) in pieces.iter().skip_while(|(position, _)| *position < from) {
        at = log.receive(segment, *position, piece).await?;
    }
    assert_eq!(at, segment.bytes);
    Ok(())
}

async fn take_in(storage: &ShardStorage, log: &Log, given: &Given) {
    for (segment, pieces) in &given.segments {
        if segment.base_index >= log.next_index() {
            receive(log, segment, pieces).await.expect("the pieces follow each other");
            log.install(storage, segment).await.expect("it is sound");
        }
    }
}

fn start_of(segment: &SegmentInfo) -> LogStart {
    LogStart { index: segment.base_index, term: segment.term_before, offset: segment.base_offset }
}

#[test]
fn whole_segments_carry_a_log_to_another_place() {
    let given = given(async |_, _| {});
    assert!(given.segments.len() >= 4, "{}", given.segments.len());
    let (sim, machine) = machine(51);
    let first = given.clone();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, small_segments());
        take_in(&storage, &log, &first).await;
        log.import_state(&storage, &first.state).await.expect("it is the log's");
        let end = first.segments.last().expect("there are some").0;
        assert_eq!((log.next_index(), log.log_end_offset()), (end.next_index, end.next_offset));
        assert_eq!((log.durable_index(), log.commit_index()), (end.next_index, end.next_index));
        assert_eq!(all_entries(&log).await, first.entries[..end.next_index.0 as usize]);
        // The rest comes as entries.
        let rest = &first.entries[end.next_index.0 as usize..];
        let term = log.term_at(RaftIndex(end.next_index.0 - 1)).expect("it is kept");
        follow(&log, (end.next_index.0, term), rest).await.expect("they follow");
    });
    machine.crash();
    for _ in 0..2 {
        let given = given.clone();
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = opened_with(&storage, 1, small_segments());
            assert_eq!(all_entries(&log).await, given.entries);
            let terms: Vec<_> = (0..5).map(|index| log.term_at(RaftIndex(index))).collect();
            assert_eq!(terms, [Some(1), Some(1), Some(2), Some(4), Some(4)]);
            assert!(log.membership().is_some_and(|kept| kept.index >= RaftIndex(3)));
            log.advance_commit(log.next_index());
            let producer = log.active_producers().remove(0);
            assert_eq!((producer.producer_id, producer.epoch, producer.last_sequence), (7, 3, 0));
            assert_eq!(read_all(&log).await.len(), 42);
            storage.close().await.expect("it closes");
        });
    }
}

#[test]
fn producers_are_told_of_in_parts() {
    let (sim, machine) = machine(54);
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened(&storage, 1);
        for producer in 0..10 {
            append(&log, produced(&[b"x"], 1, producer * 3, 0, 0), BatchKind::Client, 1).await;
        }
        log.advance_commit(log.next_index());
        let (mut parts, mut above) = (Vec::new(), Some(-1));
        while let Some(from) = above {
            let part = log.export_state(from, 4).expect("it is sound");
            above = part.more_above;
            parts.push(part);
        }
        let ends: Vec<_> = parts.iter().map(|part| part.more_above).collect();
        assert_eq!(ends, [Some(9), Some(21), None]);
        let start = LogStart { index: log.next_index(), term: 1, offset: log.log_end_offset() };
        log.reset(start).await.expect("it begins there");
        let known = || log.active_producers().iter().map(|p| p.producer_id).collect::<Vec<_>>();
        assert_eq!(known(), []);
        for part in parts {
            log.import_state(&storage, &part.bytes).await.expect("it is the log's");
        }
        assert_eq!(known(), (0..10).map(|producer| producer * 3).collect::<Vec<_>>());
    });
}

#[test]
fn a_log_whose_beginning_is_gone_is_taken_in_from_where_it_begins() {
    let given = given(async |storage, log| {
        log.delete_records(20).await.expect("they go");
        log.apply_retention(0).await.expect("their segments too");
        storage.sync().await.expect("it is durable");
    });
    let first = given.segments[0].0;
    assert!(first.base_index > RaftIndex(3) && first.term_before == 4);
    let (sim, machine) = machine(52);
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, small_segments());
        write_terms(&log, 3).await;
        log.advance_commit(log.next_index());
        let error = {
            receive(&log, &first, &given.segments[0].1).await.expect("it is received");
            log.install(&storage, &first).await.expect_err("it does not follow")
        };
        assert!(matches!(error, TransferError::Elsewhere { .. }), "{error}");
        log.reset(start_of(&first)).await.expect("it begins there");
        take_in(&storage, &log, &given).await;
        log.import_state(&storage, &given.state).await.expect("it is the log's");
        assert_eq!((log.first_index(), log.term_before_first()), (first.base_index, 4));
        let known: Vec<_> = log.active_producers().iter().map(|p| p.producer_id).collect();
        assert_eq!(known, [7], "its batch is in none of the segments");
        let end = log.next_index().0 - first.base_index.0;
        assert_eq!(all_entries(&log).await, given.entries[..end as usize]);
    });
}

#[test]
fn what_is_received_is_verified_and_resumed() {
    let given = given(async |_, _| {});
    let (sim, machine) = machine(53);
    let (segment, pieces) = given.segments[0].clone();
    let sent = pieces.clone();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, small_segments());
        assert_eq!(log.received(&segment).await.expect("it is looked for"), 0);
        for (position, piece) in
            [(4096, &sent[0].1[..]), (0, &sent[0].1[..100]), (0, &[][..]), (0, &[0; 2 << 20])]
        {
            let error = log.receive(&segment, position, piece).await.expect_err("another is expected");
            assert!(matches!(error, TransferError::Piece { expected: 0, .. }), "{error}");
        }
        log.receive(&segment, 0, &sent[0].1).await.expect("it is the first");
        let error = log.install(&storage, &segment).await.expect_err("there is more to come");
        assert!(matches!(error, TransferError::Damaged { .. }), "{error}");
        assert_eq!(log.received(&segment).await.expect("it is looked for"), 0, "it has to come again");
        // Any byte, but the fields that the header page's checksum and the batches' own cover are enough.
        for at in [10, 60, 4096, 4096 + 7, 4096 + 13, 4096 + 30, segment.bytes as usize - 1] {
            let mut all: Vec<u8> = sent.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
            all[at] ^= 1;
            for (n, piece) in all.chunks(8192).enumerate() {
                log.receive(&segment, n as u64 * 8192, piece).await.expect("they follow each other");
            }
            let error = log.install(&storage, &segment).await.expect_err("it is damaged");
            assert!(matches!(error, TransferError::Damaged { .. }), "byte {at}: {error}");
            assert_eq!((log.next_index(), log.received(&segment).await.ok()), (RaftIndex(0), Some(0)));
        }
        log.receive(&segment, 0, &sent[0].1).await.expect("it is the first");
        storage.sync().await.expect("it is durable");
    });
    machine.kill();
    run(&sim, &machine, async move {
        let storage = open().await;
        let log = opened_with(&storage, 1, small_segments());
        assert_eq!(log.received(&segment).await.expect("it is looked for"), 8192);
        receive(&log, &segment, &pieces).await.expect("it goes on where it was");
        log.install(&storage, &segment).await.expect("it is sound");
        assert_eq!(log.next_index(), segment.next_index);
        for bad in [&b"nothing of ours"[..], &[]] {
            let error = log.import_state(&storage, bad).await.expect_err("it is no state");
            assert!(matches!(error, TransferError::Damaged { .. }), "{error}");
        }
    });
}

/// The power fails at any step of a transfer: what was installed stays, what was not is no obstacle.
#[test]
fn a_crash_in_a_transfer_leaves_whole_segments() {
    let given = Rc::new(given(async |_, _| {}));
    let mut found = std::collections::BTreeSet::new();
    for seed in 0..80 {
        let (sim, machine) = machine(200 + seed);
        let sent = Rc::clone(&given);
        machine.start(1, move |_| {
            let sent = Rc::clone(&sent);
            async move {
                let storage = open().await;
                let log = opened_with(&storage, 1, small_segments());
                take_in(&storage, &log, &sent).await;
                std::future::pending::<()>().await;
            }
        });
        machine.crash_after(seed * 17);
        sim.run_steps(seed * 17 + 1);
        if machine.is_running() {
            machine.crash();
        }
        let end = Rc::new(std::cell::Cell::new(0));
        let (sent, out) = (Rc::clone(&given), Rc::clone(&end));
        run(&sim, &machine, async move {
            let storage = open().await;
            let log = opened_with(&storage, 1, small_segments());
            assert!(log.refused().is_none(), "{:?}", log.refused());
            out.set(log.next_index().0);
            assert_eq!(all_entries(&log).await, sent.entries[..log.next_index().0 as usize]);
            take_in(&storage, &log, &sent).await;
            let end = log.next_index().0 as usize;
            assert_eq!(all_entries(&log).await, sent.entries[..end]);
            assert_eq!(end as u64, sent.segments.last().expect("there are some").0.next_index.0);
        });
        found.insert(end.get());
    }
    assert!(found.len() >= 4, "the crashes were at {found:?}");
}
