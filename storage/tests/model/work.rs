//! The workload: what producers, readers and administrators do to the logs.

use super::Shared;
use super::plan::Commits;
use super::quorum::{Outcome, decide, outcome};
use super::truth::{Fate, Key, Submitted};
use crate::world;
use bytes::Bytes;
use corelog_io::{Queue, random_u64, sleep, spawn};
use corelog_storage::{AppendBatch, AppendError, BatchKind, Log, LogConfig, ReadError, SequenceError};
use corelog_wire::records::{BatchBuilder, BatchOptions, Encoding, Producer, split_batches};
use std::rc::Rc;
use std::time::Duration;

pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

/// Works on all logs until told to stop.
pub async fn work(shared: &Rc<Shared>, logs: &[Rc<Log>]) {
    let mut tasks = Vec::new();
    for (n, log) in logs.iter().enumerate() {
        for _ in 0..2 {
            tasks.push(spawn(Queue::Produce, produce(Rc::clone(shared), n, Rc::clone(log))));
        }
        for id in 0..2 {
            tasks.push(spawn(Queue::Produce, produce_idempotent(Rc::clone(shared), n, Rc::clone(log), id)));
        }
        tasks.push(spawn(Queue::Fetch, consume(Rc::clone(shared), n, Rc::clone(log))));
        tasks.push(spawn(Queue::Control, decide(Rc::clone(shared), n, Rc::clone(log))));
        tasks.push(spawn(Queue::Control, administer(Rc::clone(shared), n, Rc::clone(log))));
    }
    for task in tasks {
        task.await;
    }
}

/// A batch with a name of its own, known to the truth as sent by `sender`.
fn submit(shared: &Shared, n: usize, sender: (u32, u64), producer: Option<Producer>) -> (Key, Bytes) {
    let plan = &shared.plan;
    let mut truth = shared.truth.borrow_mut();
    let key = truth.next_key;
    truth.next_key += 1;
    // Mostly ascending, sometimes far behind.
    truth.clock += below(20) as i64;
    let timestamp = if below(10) == 0 { truth.clock / 2 } else { truth.clock };
    let records = 1 + below(4);
    let encoding = if below(8) == 0 {
        Encoding::from(corelog_wire::records::Compression::Snappy)
    } else {
        Encoding::default()
    };
    let mut builder = BatchBuilder::new(BatchOptions { producer, encoding, ..BatchOptions::default() });
    let size = if below(4) == 0 { below(plan.value_bytes_max) } else { below(plan.value_bytes_max.min(300)) }
        / records;
    for i in 0..records {
        let value: Vec<u8> =
            (0..size).map(|at| (key as u8).wrapping_mul(31) ^ (at as u8) ^ (i as u8)).collect();
        builder.append(timestamp, Some(&key.to_be_bytes()), Some(&value), &[]).expect("the record fits");
    }
    let bytes = builder.build().expect("the batch can be built");
    let submitted = Submitted {
        bytes: bytes.clone(),
        records: records as i64,
        fate: Fate::Open,
        sender,
        retried: producer.is_some(),
    };
    truth.logs[n].submit(key, submitted);
    (key, bytes)
}

/// The batch as the leader of now appends it.
fn client(shared: &Shared, n: usize, bytes: Bytes) -> AppendBatch {
    AppendBatch { leader_epoch: shared.truth.borrow().logs[n].term, ..world::client(bytes) }
}

fn refused(shared: &Shared, n: usize, key: Key) {
    shared.truth.borrow_mut().logs[n].batches.get_mut(&key).expect("it was submitted").fate = Fate::Gone;
}

/// What an append's error means for the sender. `true`: it may go on.
fn go_on_after(shared: &Shared, error: &AppendError) -> bool {
    match error {
        AppendError::DiskFull { .. } => {
            assert_eq!(shared.plan.faults, super::Faults::FullDisk, "{error}");
            true
        }
        AppendError::TooLarge { .. } => true,
        AppendError::NoQuorum { .. } | AppendError::StaleLeaderEpoch { .. }
            if shared.plan.commits != Commits::Alone =>
        {
            true
        }
        AppendError::Storage(error) => {
            shared.tolerate(error);
            false
        }
        other => panic!("this must not happen: {other}"),
    }
}

/// Appends plain batches, several under way at once; sometimes an internal one.
async fn produce(shared: Rc<Shared>, n: usize, log: Rc<Log>) {
    let sender = {
        let mut truth = shared.truth.borrow_mut();
        truth.next_sender += 1;
        truth.next_sender
    };
    let mut under_way = Vec::new();
    let mut number = 0;
    while !shared.stop.get() {
        sleep(shared.plan.pace.mul_f64(0.1 + below(20) as f64 / 10.0)).await;
        if below(16) == 0 {
            let batch =
                AppendBatch { kind: BatchKind::Internal, ..client(&shared, n, world::internal(&[7; 40])) };
            match log.append(batch).await {
                Ok(appended) => {
                    shared.truth.borrow_mut().logs[n].place(0, &appended);
                    if shared.plan.commits == Commits::Alone && appended.durable.await.is_ok() {
                        shared.truth.borrow_mut().logs[n].internal_acked += 1;
                    }
                }
                Err(error) if go_on_after(&shared, &error) => {}
                Err(_) => break,
            }
            continue;
        }
        number += 1;
        let (key, bytes) = submit(&shared, n, (sender, number), None);
        match log.append(client(&shared, n, bytes)).await {
            Ok(appended) => {
                shared.truth.borrow_mut().logs[n].place(key, &appended);
                let (shared, log) = (Rc::clone(&shared), Rc::clone(&log));
                under_way.push(spawn(Queue::Produce, async move {
                    if let Err(error) = appended.durable.await {
                        return shared.tolerate(&error);
                    }
                    let outcome = outcome(&shared, n, &log, key, appended.index, appended.last_offset).await;
                    if outcome == Outcome::Committed {
                        shared.truth.borrow_mut().logs[n].acked(key, appended.base_offset);
                    }
                }));
                if under_way.len() > 8 {
                    under_way.remove(0).await;
                }
            }
            Err(error) => {
                refused(&shared, n, key);
                if !go_on_after(&shared, &error) {
                    break;
                }
                sleep(shared.plan.pace * 50).await;
            }
        }
    }
    for append in under_way {
        append.await;
    }
}

/// Appends as an idempotent producer does: numbers its batches, sends what was not acknowledged again, in order.
async fn produce_idempotent(shared: Rc<Shared>, n: usize, log: Rc<Log>, id: i64) {
    // What was under way when the process died.
    let unresolved = {
        let mut truth = shared.truth.borrow_mut();
        truth.logs[n].producers.entry(id).or_default().unresolved.clone()
    };
    for key in unresolved {
        if !send_again(&shared, n, &log, id, key, false).await {
            return;
        }
    }
    if !catch_up(&shared, n, &log, id).await {
        return;
    }
    while !shared.stop.get() {
        sleep(shared.plan.pace.mul_f64(0.1 + below(20) as f64 / 10.0)).await;
        let recent = shared.truth.borrow().logs[n].producers[&id].recent.clone();
        if below(8) == 0 && !recent.is_empty() {
            // A retry of something acknowledged: changes nothing.
            let key = recent[below(recent.len() as u64) as usize];
            if !send_again(&shared, n, &log, id, key, true).await {
                return;
            }
            continue;
        }
        let mut keys = Vec::new();
        let mut waiting = Vec::new();
        // To a leader: a log that is cut between two of them has none.
        while shared.truth.borrow().logs[n].cutting > 0 && !shared.stop.get() {
            sleep(shared.plan.pace).await;
        }
        shared.truth.borrow_mut().logs[n].sending += 1;
        // A few at once, their order fixed one after the other.
        for _ in 0..1 + below(4) {
            let (producer, number) = {
                let mut truth = shared.truth.borrow_mut();
                let p = truth.logs[n].producers.get_mut(&id).expect("it was made");
                if keys.is_empty() && below(30) == 0 {
                    p.epoch += 1;
                    p.next_sequence = 0;
                    p.former = std::mem::take(&mut p.recent);
                }
                p.sent += 1;
                (Producer { id, epoch: p.epoch, base_sequence: p.next_sequence }, p.sent)
            };
            let (key, bytes) = submit(&shared, n, (u32::MAX - id as u32, number), Some(producer));
            {
                let mut truth = shared.truth.borrow_mut();
                let t = &mut truth.logs[n];
                let records = t.batches[&key].records as i32;
                let p = t.producers.get_mut(&id).expect("it was made");
                p.next_sequence += records;
                p.unresolved.push(key);
            }
            match log.append(client(&shared, n, bytes)).await {
                Ok(appended) => {
                    assert!(!appended.duplicate, "batch {key} is new");
                    shared.truth.borrow_mut().logs[n].place(key, &appended);
                    keys.push(key);
                    waiting.push(appended);
                }
                Err(error) if !matches!(error, AppendError::Storage(_)) && go_on_after(&shared, &error) => {
                    // Not sent after all: its numbers are free again.
                    let mut truth = shared.truth.borrow_mut();
                    let t = &mut truth.logs[n];
                    let records = t.batches[&key].records as i32;
                    t.batches.get_mut(&key).expect("it was submitted").fate = Fate::Gone;
                    let p = t.producers.get_mut(&id).expect("it was made");
                    p.next_sequence -= records;
                    p.unresolved.pop();
                    break;
                }
                Err(error) => {
                    if !go_on_after(&shared, &error) {
                        return;
                    }
                }
            }
        }
        shared.truth.borrow_mut().logs[n].sending -= 1;
        for (key, appended) in keys.into_iter().zip(waiting) {
            if let Err(error) = appended.durable.await {
                return shared.tolerate(&error);
            }
            match outcome(&shared, n, &log, key, appended.index, appended.last_offset).await {
                Outcome::Committed => resolved(&shared, n, id, key, appended.base_offset),
                Outcome::Cut => break,
                Outcome::Unknown => return,
            }
        }
        if !catch_up(&shared, n, &log, id).await {
            return;
        }
    }
}

/// Sends what was cut again, in order. `false`: the process cannot go on.
async fn catch_up(shared: &Rc<Shared>, n: usize, log: &Log, id: i64) -> bool {
    let (unresolved, former) = {
        let p = &shared.truth.borrow().logs[n].producers[&id];
        (p.unresolved.clone(), p.former.last().copied())
    };
    if let Some(key) = former.filter(|_| !unresolved.is_empty() || below(8) == 0)
        && !retry_former(shared, n, log, key).await
    {
        return false;
    }
    for key in unresolved {
        if !send_again(shared, n, log, id, key, false).await {
            return false;
        }
    }
    true
}

/// A retry of what was acknowledged in an epoch before: fenced off, or known.
async fn retry_former(shared: &Shared, n: usize, log: &Log, key: Key) -> bool {
    let (bytes, fate) = {
        let batch = &shared.truth.borrow().logs[n].batches[&key];
        (batch.bytes.clone(), batch.fate)
    };
    match log.append(client(shared, n, bytes)).await {
        Ok(appended) => {
            assert!(
                appended.duplicate,
                "batch {key} was acknowledged, and is taken again after an epoch was cut"
            );
            assert_eq!(fate, Fate::Acked(appended.base_offset));
            true
        }
        Err(AppendError::Sequence(SequenceError::StaleEpoch { .. })) => true,
        Err(error) => go_on_after(shared, &error),
    }
}

/// Sends a batch again. `known`: it was acknowledged, so it must be a duplicate. `false`: the process cannot go on.
async fn send_again(shared: &Rc<Shared>, n: usize, log: &Log, id: i64, key: Key, known: bool) -> bool {
    let bytes = shared.truth.borrow().logs[n].batches[&key].bytes.clone();
    loop {
        match log.append(client(shared, n, bytes.clone())).await {
            Ok(appended) => {
                assert!(appended.duplicate || !known, "batch {key} was acknowledged and is appended again");
                shared.truth.borrow_mut().logs[n].place(key, &appended);
                if let Err(error) = appended.durable.await {
                    shared.tolerate(&error);
                    return false;
                }
                match outcome(shared, n, log, key, appended.index, appended.last_offset).await {
                    Outcome::Committed => {
                        resolved(shared, n, id, key, appended.base_offset);
                        return true;
                    }
                    Outcome::Cut => {}
                    Outcome::Unknown => return false,
                }
            }
            Err(error) => {
                if !go_on_after(shared, &error) || shared.stop.get() {
                    return false;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn resolved(shared: &Shared, n: usize, id: i64, key: Key, base_offset: i64) {
    let mut truth = shared.truth.borrow_mut();
    let t = &mut truth.logs[n];
    t.acked(key, base_offset);
    let p = t.producers.get_mut(&id).expect("it was made");
    p.unresolved.retain(|k| *k != key);
    if !p.recent.contains(&key) {
        p.recent.push(key);
        if p.recent.len() > 5 {
            p.recent.remove(0);
        }
    }
}

/// Reads here and there, and goes on from there for a while.
async fn consume(shared: Rc<Shared>, n: usize, log: Rc<Log>) {
    while !shared.stop.get() {
        sleep(shared.plan.pace * (1 + below(4) as u32)).await;
        let (start, end) = (log.log_start_offset(), log.high_watermark());
        let mut at = start + below((end - start) as u64 + 1) as i64;
        let max_bytes = [100, 1_000, 10_000, 50_000][below(4) as usize];
        let at_least_one = below(3) > 0;
        for _ in 0..1 + below(4) {
            match log.read(at, max_bytes, at_least_one).await {
                Ok(read) => {
                    let bytes = Bytes::from(read.parts.concat());
                    assert!(
                        bytes.len() <= max_bytes || split_batches(&bytes).count() == 1,
                        "more than asked for"
                    );
                    assert!(
                        !at_least_one || !bytes.is_empty() || at == read.high_watermark,
                        "nothing at {at}"
                    );
                    for view in split_batches(&bytes) {
                        let view = view.expect("only whole batches are served");
                        let header = view.header();
                        assert!(header.base_offset <= at && at < header.next_offset(), "a gap at {at}");
                        shared.truth.borrow_mut().logs[n].show(&view);
                        at = header.next_offset();
                    }
                    assert!(at <= read.high_watermark && (at == read.next_offset || bytes.is_empty()));
                }
                Err(ReadError::OffsetOutOfRange { log_start_offset, .. }) => {
                    assert!(at < log_start_offset, "it was deleted meanwhile");
                    break;
                }
                Err(ReadError::Storage(error)) => {
                    shared.tolerate(&error);
                    return;
                }
            }
        }
    }
}

/// Deletes records, applies retention, changes settings.
async fn administer(shared: Rc<Shared>, n: usize, log: Rc<Log>) {
    let plan = shared.plan.clone();
    while !shared.stop.get() {
        sleep(plan.pace * (5 + below(40) as u32)).await;
        match below(6) {
            0 => {
                let (start, end) = (log.log_start_offset(), log.high_watermark());
                let before = start + below((end - start) as u64 / 2 + 1) as i64;
                {
                    let t = &mut shared.truth.borrow_mut().logs[n];
                    t.start_at_most = t.start_at_most.max(before);
                }
                match log.delete_records(before).await {
                    Ok(start) => {
                        assert!(start >= before);
                        let t = &mut shared.truth.borrow_mut().logs[n];
                        t.start_at_least = t.start_at_least.max(before);
                    }
                    Err(ReadError::Storage(error)) => return shared.tolerate(&error),
                    Err(error) => panic!("this must not happen: {error}"),
                }
            }
            1 => {
                let segment_bytes = plan.segment_bytes >> below(3);
                let segment_ms = if below(4) == 0 { 1 + below(50) as i64 } else { i64::MAX };
                let retention_bytes = if below(2) == 0 { below(1 << 20) as i64 } else { -1 };
                log.set_config(LogConfig { segment_bytes, segment_ms, retention_bytes, ..shared.config(n) });
            }
            2 => {
                let _ = log.size_bytes().await.map_err(|error| shared.tolerate(&error));
            }
            _ => match log.apply_retention(2_000).await {
                Ok(start) => {
                    let t = &mut shared.truth.borrow_mut().logs[n];
                    t.start_at_least = t.start_at_least.max(start);
                }
                Err(error) => return shared.tolerate(&error),
            },
        }
    }
}
