//! What the other replicas of a log do: they confirm what it has, or another leader replaces it.

use super::Shared;
use super::plan::Commits;
use super::truth::{Fate, Key};
use super::work::below;
use corelog_io::{Queue, sleep, spawn};
use corelog_storage::{AppendError, CommitMode, HardState, Log, LogConfig, RaftIndex, StorageError};
use std::rc::Rc;

/// A start: some of what was never committed is replaced, then all that is left is confirmed.
pub async fn elect(shared: &Rc<Shared>, n: usize, log: &Rc<Log>) -> Result<(), StorageError> {
    let commit_max = {
        let t = &mut shared.truth.borrow_mut().logs[n];
        t.found(log);
        if t.commit == CommitMode::Alone {
            return Ok(());
        }
        // With write caching what was committed may be gone.
        t.commit_max = t.commit_max.min(log.next_index().0);
        t.commit_max
    };
    if below(2) == 0 {
        let from = RaftIndex(commit_max + below(log.next_index().0 - commit_max + 1));
        cut(shared, n, log, from).await?;
    }
    let end = log.next_index();
    log.advance_commit(end);
    assert_eq!(log.commit_index(), end, "what is found is durable");
    shared.truth.borrow_mut().logs[n].commit_max = end.0;
    Ok(())
}

/// Cuts the log at `from`, durably.
async fn cut(shared: &Rc<Shared>, n: usize, log: &Rc<Log>, from: RaftIndex) -> Result<(), StorageError> {
    let term = {
        let t = &mut shared.truth.borrow_mut().logs[n];
        if t.sending > 0 {
            return Ok(());
        }
        t.cutting += 1;
        t.term += 1;
        t.term
    };
    let outcome = log.truncate(from, term).await;
    shared.truth.borrow_mut().logs[n].cutting -= 1;
    let durable = match outcome {
        Ok(durable) => durable,
        Err(AppendError::Storage(error)) => return Err(error),
        Err(AppendError::Invalid(_)) if shared.plan.commits == Commits::Changing => return Ok(()),
        Err(error) => panic!("this must not happen: {error}"),
    };
    let keys = shared.truth.borrow_mut().logs[n].cut(from);
    durable.await?;
    let t = &mut shared.truth.borrow_mut().logs[n];
    for key in keys.iter().filter(|key| **key != 0) {
        let batch = t.batches.get_mut(key).expect("it was submitted");
        if batch.fate == Fate::Open && !batch.retried {
            batch.fate = Fate::Gone;
        }
    }
    Ok(())
}

/// Confirms and replaces, and changes who decides.
pub async fn decide(shared: Rc<Shared>, n: usize, log: Rc<Log>) {
    while !shared.stop.get() {
        sleep(shared.plan.pace * (1 + below(4) as u32)).await;
        if shared.plan.commits == Commits::Changing && below(40) == 0 {
            change_mode(&shared, n, &log);
        }
        if shared.truth.borrow().logs[n].commit == CommitMode::Alone {
            continue;
        }
        let (committed, next) = (log.commit_index().0, log.next_index().0);
        match below(20) {
            0 => {
                let lowest = committed.max(shared.truth.borrow().logs[n].commit_max);
                let from = RaftIndex(lowest + below(next.saturating_sub(lowest) + 1));
                let (shared, log) = (Rc::clone(&shared), Rc::clone(&log));
                // Nobody waits for it to be durable before the log grows again.
                let cutting = spawn(Queue::Produce, async move {
                    cut(&shared, n, &log, from).await.map_err(|e| shared.tolerate(&e))
                });
                if below(2) == 0 && cutting.await.is_err() {
                    return;
                }
            }
            1 if committed > 0 && next > committed => {
                // Nothing but an error comes of it.
                let refused = log.truncate(RaftIndex(below(committed)), i32::MAX).await;
                assert!(refused.is_err(), "what is committed is never cut");
            }
            2 => set_term(&shared, n, &log).await,
            3..10 => {}
            _ => {
                let to = committed + below(next - committed + 1);
                let t = &mut shared.truth.borrow_mut().logs[n];
                t.commit_max = t.commit_max.max(to);
                log.advance_commit(RaftIndex(to));
            }
        }
    }
}

fn change_mode(shared: &Shared, n: usize, log: &Log) {
    let commit = match shared.truth.borrow().logs[n].commit {
        CommitMode::Alone => CommitMode::Quorum,
        CommitMode::Quorum => CommitMode::Alone,
    };
    let before = log.commit_index();
    log.set_config(LogConfig { commit, ..log.config() });
    let committed = log.commit_index();
    assert!(committed >= before, "what was committed stays so");
    shared.truth.borrow_mut().logs[n].change_mode(commit, committed);
}

async fn set_term(shared: &Shared, n: usize, log: &Log) {
    let term = {
        let hard_term = &mut shared.truth.borrow_mut().logs[n].hard_term;
        hard_term.1 += 1;
        hard_term.1
    };
    let saved = match log.set_hard_state(HardState { term, vote: i64::from(term) }).await {
        Ok(durable) => durable.await,
        Err(error) => Err(error),
    };
    match saved {
        Ok(()) => shared.truth.borrow_mut().logs[n].hard_term.0 = term,
        Err(error) => shared.tolerate(&error),
    }
}

/// What became of a batch that was appended.
#[derive(PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Cut,
    /// The process ends before anybody knows.
    Unknown,
}

/// Waits for it. The batch is durable, or was; `index`: `None` of a retry.
pub async fn outcome(
    shared: &Shared,
    n: usize,
    log: &Log,
    key: Key,
    index: Option<RaftIndex>,
    last_offset: i64,
) -> Outcome {
    let index = index.or_else(|| shared.truth.borrow().logs[n].index_of(key));
    let Some(index) = index else {
        assert!(log.high_watermark() > last_offset, "batch {key} was there at the start");
        return Outcome::Committed;
    };
    loop {
        if !shared.truth.borrow().logs[n].is_at(index, key) {
            return Outcome::Cut;
        }
        if log.commit_index() > index {
            assert!(log.high_watermark() > last_offset, "committed, and not visible");
            return Outcome::Committed;
        }
        let alone = shared.truth.borrow().logs[n].commit == CommitMode::Alone;
        assert!(!alone, "acknowledged before it is visible");
        if shared.stop.get() {
            return Outcome::Unknown;
        }
        sleep(shared.plan.pace).await;
    }
}
