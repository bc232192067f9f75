//! What must hold, whatever happened.

use super::plan::{Commits, Plan};
use super::{Phase, Shared};
use bytes::Bytes;
use corelog_storage::{Appended, CommitMode, Log, RaftIndex, ReadError, StorageError};
use corelog_wire::records::{BatchHeader, BatchView, split_batches};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A batch's name; the key of its records, so that no two batches are alike.
pub type Key = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Submitted; nobody knows.
    Open,
    /// Acknowledged at this base offset.
    Acked(i64),
    /// Refused, or not there after a restart: must never appear.
    Gone,
}

pub struct Submitted {
    pub bytes: Bytes,
    pub records: i64,
    pub fate: Fate,
    /// Which task sent it, and its number there.
    pub sender: (u32, u64),
    /// An idempotent producer will send it again after a restart.
    pub retried: bool,
}

#[derive(Default)]
pub struct LogTruth {
    /// What is shown and not known to be durable may be gone after a crash.
    write_caching: bool,
    pub batches: BTreeMap<Key, Submitted>,
    by_crc: BTreeMap<u32, Vec<Key>>,
    /// What readers were shown: base offset to batch.
    pub shown: BTreeMap<i64, Key>,
    /// The log start offset is at least this.
    pub start_at_least: i64,
    /// What was ever asked to be deleted.
    pub start_at_most: i64,
    pub end_at_least: i64,
    /// Internal batches acknowledged.
    pub internal_acked: u64,
    /// State of idempotent producers, by id.
    pub producers: BTreeMap<i64, ProducerTruth>,
    pub commit: CommitMode,
    /// No more than this was ever said to be committed.
    pub commit_max: u64,
    /// What was appended since the start and not cut, by Raft index; of internal batches 0.
    placed: BTreeMap<u64, Key>,
    /// The leader's.
    pub term: i32,
    /// Cuts whose order is not fixed yet, and producers that send several batches.
    pub cutting: u32,
    pub sending: u32,
    /// Raft's term that is durable, and the last that was to be.
    pub hard_term: (i32, i32),
}

#[derive(Default)]
pub struct ProducerTruth {
    pub epoch: i16,
    pub next_sequence: i32,
    /// Sent and not acknowledged, in order.
    pub unresolved: Vec<Key>,
    /// Acknowledged, newest last, at most five, of this epoch.
    pub recent: Vec<Key>,
    /// Those of the epoch before.
    pub former: Vec<Key>,
    pub sent: u64,
}

pub struct Truth {
    pub logs: Vec<LogTruth>,
    pub next_key: Key,
    pub next_sender: u32,
    /// The greatest timestamp given so far, and whether lookups by time are checked.
    pub clock: i64,
}

impl Truth {
    pub fn new(plan: &Plan) -> Truth {
        let commit = match plan.commits {
            Commits::Alone | Commits::Changing => CommitMode::Alone,
            Commits::Quorum => CommitMode::Quorum,
        };
        let commit_max = if commit == CommitMode::Alone { u64::MAX } else { 0 };
        let write_caching = plan.write_caching;
        let log = || LogTruth { write_caching, commit, commit_max, ..LogTruth::default() };
        let logs = (0..plan.logs).map(|_| log()).collect();
        Truth { logs, next_key: 1, next_sender: 1, clock: 1_000 }
    }
}

impl LogTruth {
    pub fn submit(&mut self, key: Key, batch: Submitted) {
        let crc = BatchHeader::parse(&batch.bytes).expect("it is a batch").crc;
        self.by_crc.entry(crc).or_default().push(key);
        self.batches.insert(key, batch);
    }

    /// The batch's place is fixed.
    pub fn place(&mut self, key: Key, appended: &Appended) {
        let Some(index) = appended.index else { return };
        let after = self.placed.last_key_value().map_or(index.0, |(last, _)| last + 1);
        assert_eq!(index.0, after, "Raft indexes have no gaps");
        self.placed.insert(index.0, key);
    }

    /// The log was cut at `from`: what was there.
    pub fn cut(&mut self, from: RaftIndex) -> Vec<Key> {
        self.placed.split_off(&from.0).into_values().collect()
    }

    /// Where the batch is, if it was appended since the start.
    pub fn index_of(&self, key: Key) -> Option<RaftIndex> {
        self.placed.iter().rev().find(|(_, placed)| **placed == key).map(|(index, _)| RaftIndex(*index))
    }

    pub fn is_at(&self, index: RaftIndex, key: Key) -> bool {
        self.placed.get(&index.0) == Some(&key)
    }

    /// What the quorum says is committed, in one mode and the other.
    pub fn change_mode(&mut self, commit: CommitMode, committed: RaftIndex) {
        self.commit = commit;
        self.commit_max = if commit == CommitMode::Alone { u64::MAX } else { committed.0 };
    }

    /// A new process has found the log.
    pub fn found(&mut self, log: &Log) {
        self.placed.clear();
        (self.cutting, self.sending) = (0, 0);
        assert!(log.commit_index().0 <= self.commit_max, "what nobody said to be committed is");
        assert!(log.log_start_offset() <= log.high_watermark(), "what was deleted was committed");
        let term = log.hard_state().term;
        let (durable, tried) = self.hard_term;
        assert!((durable..=tried).contains(&term), "Raft's term is {term}, not {durable} to {tried}");
        self.hard_term = (term, term);
    }

    pub fn acked(&mut self, key: Key, base_offset: i64) {
        let batch = self.batches.get_mut(&key).expect("it was submitted");
        match batch.fate {
            Fate::Acked(before) => {
                assert_eq!(before, base_offset, "batch {key} is acknowledged at another offset")
            }
            Fate::Gone => panic!("batch {key} was gone and is acknowledged"),
            Fate::Open => batch.fate = Fate::Acked(base_offset),
        }
        self.end_at_least = self.end_at_least.max(base_offset + batch.records);
    }

    /// A reader was shown `view`.
    pub fn show(&mut self, view: &BatchView) -> Key {
        let base_offset = view.header().base_offset;
        view.verify_checksum().expect("what is served has the right checksum");
        if let Some(key) = self.shown.get(&base_offset) {
            let before = &self.batches[key].bytes;
            assert_eq!(
                view.bytes()[16..],
                before[16..],
                "offset {base_offset} was shown with another batch before"
            );
            return *key;
        }
        // All but base offset and leader epoch is as it was sent.
        let sent = |key: &Key| {
            let sent = &self.batches[key].bytes;
            view.bytes()[8..12] == sent[8..12] && view.bytes()[16..] == sent[16..]
        };
        let keys = self.by_crc.get(&view.header().crc);
        let key = keys.and_then(|keys| keys.iter().copied().find(sent));
        let key = key.unwrap_or_else(|| panic!("what is at {base_offset} was never sent"));
        let batch = &self.batches[&key];
        match batch.fate {
            Fate::Gone => panic!("batch {key} at {base_offset} was refused or lost, and is there"),
            Fate::Acked(at) => assert_eq!(at, base_offset, "batch {key} is not where it was acknowledged"),
            Fate::Open if self.write_caching => return key,
            Fate::Open => {}
        }
        self.shown.insert(base_offset, key);
        self.end_at_least = self.end_at_least.max(base_offset + batch.records);
        key
    }
}

/// Checks every log from start to end. `false`: the process cannot go on, for a fault of the plan.
pub async fn check_all(shared: &Rc<Shared>, logs: &[Rc<Log>]) -> bool {
    for (n, log) in logs.iter().enumerate() {
        match check(shared, n, log).await {
            Ok(()) => {}
            Err(error) => {
                shared.tolerate(&error);
                shared.phase.set(Phase::Done);
                return false;
            }
        }
    }
    true
}

async fn check(shared: &Shared, n: usize, log: &Log) -> Result<(), StorageError> {
    let start = log.log_start_offset();
    let end = log.high_watermark();
    {
        let truth = shared.truth.borrow();
        let t = &truth.logs[n];
        assert!(
            start >= t.start_at_least,
            "log {n}: deleted records are back: {start} < {}",
            t.start_at_least
        );
        if !shared.plan.retention {
            assert!(
                start <= t.start_at_most,
                "log {n} starts at {start}, deleted was below {}",
                t.start_at_most
            );
        }
        assert!(end >= t.end_at_least, "log {n} ends at {end}, there was {}", t.end_at_least);
        assert_eq!(end, log.log_end_offset(), "log {n}: all that is recovered is served");
        let internal_and_shown = t.internal_acked;
        assert!(log.next_index().0 >= internal_and_shown, "log {n}: internal batches are gone");
    }
    let mut found: BTreeMap<i64, Key> = BTreeMap::new();
    let mut timestamps: Vec<(i64, i64)> = Vec::new();
    let mut at = start;
    while at < end {
        let read = match log.read(at, 50_000, true).await {
            Ok(read) => read,
            Err(ReadError::Storage(error)) => return Err(error),
            Err(error) => panic!("log {n} in [{start}, {end}]: {error}"),
        };
        let bytes = Bytes::from(read.parts.concat());
        assert!(!bytes.is_empty(), "log {n}: nothing at {at}, the log ends at {end}");
        for view in split_batches(&bytes) {
            let view = view.expect("only whole batches are served");
            let header = *view.header();
            assert!(
                header.base_offset <= at && header.next_offset() > at,
                "log {n}: a gap at {at}: {header:?}"
            );
            timestamps.push((header.base_offset, header.max_timestamp));
            let key = shared.truth.borrow_mut().logs[n].show(&view);
            found.insert(header.base_offset, key);
            at = header.next_offset();
        }
        assert_eq!(at, read.next_offset, "log {n}");
    }
    {
        let mut truth = shared.truth.borrow_mut();
        let t = &mut truth.logs[n];
        let keys: BTreeSet<Key> = found.values().copied().collect();
        assert_eq!(keys.len(), found.len(), "log {n}: a batch is there twice");
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (offset, key) in &found {
            let (sender, number) = t.batches[key].sender;
            let before = last.insert(sender, number);
            assert!(
                before.is_none_or(|b| b < number),
                "log {n}: sender {sender} is out of order at {offset}"
            );
        }
        for (key, batch) in &mut t.batches {
            match batch.fate {
                Fate::Acked(offset) if offset + batch.records > start => {
                    assert_eq!(
                        found.get(&offset),
                        Some(key),
                        "log {n}: acknowledged batch {key} at {offset} is lost"
                    );
                }
                Fate::Open if !keys.contains(key) && !batch.retried => batch.fate = Fate::Gone,
                _ => {}
            }
        }
        for (offset, key) in &found {
            let batch = t.batches.get_mut(key).expect("it was submitted");
            if batch.fate == Fate::Open && !batch.retried {
                batch.fate = Fate::Acked(*offset);
            }
        }
        t.start_at_least = t.start_at_least.max(start);
    }
    check_times(shared, n, log, &timestamps).await
}

/// Lookups by timestamp against what was read. Every record of a batch bears the batch's timestamp.
async fn check_times(
    shared: &Shared,
    n: usize,
    log: &Log,
    batches: &[(i64, i64)],
) -> Result<(), StorageError> {
    let start = log.log_start_offset();
    let greatest = batches.iter().map(|(_, ts)| *ts).max();
    let lookups = [0, shared.truth.borrow().clock / 2, greatest.unwrap_or(0), greatest.unwrap_or(0) + 1];
    for timestamp in lookups {
        let expected =
            batches.iter().find(|(_, ts)| *ts >= timestamp).map(|(offset, _)| (*offset).max(start));
        let found = log.offset_for_timestamp(timestamp).await?.map(|t| t.offset);
        assert_eq!(found, expected, "log {n}: the first record at or after {timestamp}");
    }
    let found = log.max_timestamp().await?.map(|t| t.timestamp);
    assert_eq!(found, greatest, "log {n}: the greatest timestamp");
    Ok(())
}
