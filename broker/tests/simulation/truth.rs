//! What must hold, whatever happened: the clients tell it what they sent and were answered, and ask it about what
//! they are shown.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelog_wire::records::{BatchView, with_scratch};
use corelog_wire::{ErrorCode, Uuid};

use crate::plan::Faults;

/// A batch's name, in the key of its first record.
pub type Key = u64;
/// Topic and partition, both by number.
pub type Place = (usize, i32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent; nobody knows.
    Open,
    /// Acknowledged at this base offset.
    Acked(i64),
    /// Refused, or not there after all who sent it were gone: must never appear.
    Gone,
}

pub struct Sent {
    pub bytes: Bytes,
    pub records: i64,
    pub fate: Fate,
    /// Whose order it keeps, and its number there: a producer id, or a connection of a plain producer.
    pub sender: (u64, u64),
    /// The offset after everything in its partition that was acknowledged before it was first sent.
    pub after: i64,
}

#[derive(Default)]
pub struct PartitionTruth {
    pub batches: BTreeMap<Key, Sent>,
    /// What consumers were shown: base offset to batch.
    pub shown: BTreeMap<i64, Key>,
    /// The end of what was acknowledged.
    pub acked_end: i64,
    /// The highest high watermark that was told.
    pub high_watermark: i64,
    /// The log start offset that was told, and what was asked for.
    pub start_told: i64,
    pub start_asked: i64,
}

/// A commit of a group for a partition. Offsets name commits: each is used once.
struct Commit {
    began: u64,
    /// When it was acknowledged.
    acked: Option<u64>,
}

#[derive(Default)]
pub struct Truth {
    pub partitions: BTreeMap<Place, PartitionTruth>,
    pub topic_ids: BTreeMap<usize, Uuid>,
    faults: Option<Faults>,
    /// The broker has said that its storage is damaged.
    pub damage_found: bool,
    /// Errors of the storage are in order now: something of it was made to fail, or it is being stopped.
    pub storage_may_fail: bool,
    pub acknowledged: u64,
    pub duplicates_sent: u64,
    next_key: Key,
    next_sender: u64,
    /// Counts what happens to commits.
    moment: u64,
    commits: BTreeMap<(String, Place), BTreeMap<i64, Commit>>,
    producer_ids: BTreeSet<i64>,
    /// Assignments that leaders have sent, by group and generation.
    pub assignments: BTreeMap<(String, i32), Vec<BTreeMap<String, Bytes>>>,
    /// Whom each partition was given to, by group and generation.
    owners: BTreeMap<(String, i32, Place), String>,
    /// The last generation of each group whose members were given partitions.
    generations: BTreeMap<String, i32>,
}

impl Truth {
    pub fn new(faults: Faults) -> Truth {
        Truth { faults: Some(faults), ..Truth::default() }
    }

    pub fn next_key(&mut self) -> Key {
        self.next_key += 1;
        self.next_key
    }

    pub fn next_sender(&mut self) -> u64 {
        self.next_sender += 1;
        self.next_sender
    }

    pub fn partition(&mut self, place: Place) -> &mut PartitionTruth {
        self.partitions.entry(place).or_default()
    }

    /// The broker gave out `id`.
    pub fn producer_id(&mut self, id: i64) {
        assert!(self.producer_ids.insert(id), "producer id {id} is given out twice");
    }

    /// The broker says that `topic` has this id.
    pub fn topic_id(&mut self, topic: usize, id: Uuid) {
        let known = *self.topic_ids.entry(topic).or_insert(id);
        assert_eq!(known, id, "topic {topic} has another id");
    }

    pub fn sent(&mut self, place: Place, key: Key, bytes: Bytes, records: i64, sender: (u64, u64)) {
        let partition = self.partition(place);
        let after = partition.acked_end;
        partition.batches.insert(key, Sent { bytes, records, fate: Fate::Open, sender, after });
    }

    pub fn acked(&mut self, place: Place, key: Key, base_offset: i64) {
        self.acknowledged += 1;
        let partition = self.partition(place);
        let batch = partition.batches.get_mut(&key).expect("it was sent");
        match batch.fate {
            Fate::Acked(before) => {
                assert_eq!(before, base_offset, "{place:?}: batch {key} is acknowledged at another offset")
            }
            Fate::Gone => panic!("{place:?}: batch {key} was refused and is acknowledged"),
            Fate::Open => batch.fate = Fate::Acked(base_offset),
        }
        assert!(
            base_offset >= batch.after,
            "{place:?}: batch {key} is at {base_offset}, before what was acknowledged when it was sent ({})",
            batch.after
        );
        let end = base_offset + batch.records;
        partition.acked_end = partition.acked_end.max(end);
    }

    /// A consumer was shown `view`.
    pub fn show(&mut self, place: Place, view: &BatchView) -> Key {
        let base_offset = view.header().base_offset;
        view.verify_checksum().expect("what is served has the right checksum");
        let key = key_of(view);
        let partition = self.partition(place);
        let batch = partition
            .batches
            .get(&key)
            .unwrap_or_else(|| panic!("{place:?}: batch {key} at {base_offset} was never sent here"));
        // The broker writes base offset and leader epoch; the rest is the producer's.
        assert_eq!(view.bytes()[8..12], batch.bytes[8..12], "{place:?}: batch {key}: length");
        assert_eq!(view.bytes()[12..16], [0; 4], "{place:?}: batch {key}: leader epoch");
        assert_eq!(view.bytes()[16..], batch.bytes[16..], "{place:?}: batch {key}: bytes");
        match batch.fate {
            Fate::Gone => panic!("{place:?}: batch {key} at {base_offset} was refused or lost, and is there"),
            Fate::Acked(at) => {
                assert_eq!(at, base_offset, "{place:?}: batch {key} is not where it was acknowledged")
            }
            Fate::Open => {}
        }
        assert!(
            base_offset >= batch.after,
            "{place:?}: batch {key} at {base_offset} overtook what was acknowledged"
        );
        if let Some(before) = partition.shown.insert(base_offset, key) {
            assert_eq!(before, key, "{place:?}: offset {base_offset} was shown with another batch before");
        }
        key
    }

    /// Checks a partition that was read from its start to its end. `last`: nothing that was sent is still under way,
    /// so what is not there never will be.
    pub fn check(&mut self, place: Place, found: &BTreeMap<i64, Key>, start: i64, end: i64, last: bool) {
        let partition = self.partition(place);
        assert!(
            end >= partition.acked_end && end >= partition.high_watermark,
            "{place:?} ends at {end}; acknowledged up to {}, high watermark {} was told",
            partition.acked_end,
            partition.high_watermark
        );
        assert!(
            start >= partition.start_told && start <= partition.start_asked,
            "{place:?} starts at {start}"
        );
        let keys: BTreeSet<Key> = found.values().copied().collect();
        assert_eq!(keys.len(), found.len(), "{place:?}: a batch is there twice");
        let mut before: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, key) in found {
            let (sender, number) = partition.batches[key].sender;
            let previous = before.insert(sender, number);
            assert!(
                previous.is_none_or(|previous| previous < number),
                "{place:?}: sender {sender} is out of order at {offset}: batch {key} ({:?}) is number {number}, after {previous:?}",
                partition.batches[key].fate
            );
        }
        for (key, batch) in &mut partition.batches {
            match batch.fate {
                Fate::Acked(offset) if offset + batch.records > start => assert_eq!(
                    found.get(&offset),
                    Some(key),
                    "{place:?}: acknowledged batch {key} at {offset} is lost"
                ),
                Fate::Open if last && !keys.contains(key) => batch.fate = Fate::Gone,
                _ => {}
            }
        }
        for (offset, key) in &partition.shown {
            let there = found.get(offset) == Some(key);
            assert!(
                there || offset + partition.batches[key].records <= start,
                "{place:?}: what was shown at {offset} is lost"
            );
        }
        for (offset, key) in found {
            let batch = partition.batches.get_mut(key).expect("it was sent");
            if last && batch.fate == Fate::Open {
                batch.fate = Fate::Acked(*offset);
            }
        }
    }

    // ---- groups

    /// The member was given these partitions: in one generation they are nobody else's.
    pub fn owns(&mut self, group: &str, generation: i32, member: &str, places: &[Place]) {
        for place in places {
            let owner = self.owners.entry((group.to_owned(), generation, *place));
            let owner = owner.or_insert_with(|| member.to_owned());
            assert_eq!(owner, member, "{group}, generation {generation}: {place:?} has two owners");
        }
        let newest = self.generations.entry(group.to_owned()).or_insert(generation);
        *newest = generation.max(*newest);
    }

    /// The last generation that is known to have begun; -1: none.
    pub fn generation(&self, group: &str) -> i32 {
        self.generations.get(group).copied().unwrap_or(-1)
    }

    // ---- errors

    /// An answer's error. True if what the plan does to the broker explains it, and the client should try again.
    pub fn explains(&mut self, code: i16) -> bool {
        let code = ErrorCode(code);
        let of_storage = [ErrorCode::KAFKA_STORAGE_ERROR, ErrorCode::COORDINATOR_NOT_AVAILABLE];
        if code == ErrorCode::NOT_LEADER_OR_FOLLOWER {
            // A shard that ends.
            return true;
        }
        if code == ErrorCode::REQUEST_TIMED_OUT {
            // A change of metadata that goes on.
            return matches!(self.faults, Some(Faults::Stalls | Faults::LastingErrors));
        }
        if !of_storage.contains(&code) || !self.storage_may_fail {
            return false;
        }
        if self.faults == Some(Faults::BitFlips) {
            self.damage_found = true;
        }
        true
    }

    // ---- commits

    /// A commit is about to be sent; the offset that names it.
    pub fn committing(&mut self, group: &str, place: Place) -> i64 {
        self.moment += 1;
        let began = self.moment;
        let commits = self.commits.entry((group.to_owned(), place)).or_default();
        let offset = commits.len() as i64 + 1;
        commits.insert(offset, Commit { began, acked: None });
        offset
    }

    pub fn committed(&mut self, group: &str, place: Place, offset: i64) {
        self.moment += 1;
        let commits = self.commits.get_mut(&(group.to_owned(), place)).expect("it was begun");
        commits.get_mut(&offset).expect("it was begun").acked = Some(self.moment);
    }

    /// The commit was refused: it never took effect.
    pub fn commit_refused(&mut self, group: &str, place: Place, offset: i64) {
        let commits = self.commits.get_mut(&(group.to_owned(), place)).expect("it was begun");
        commits.get_mut(&offset).expect("it was begun").began = u64::MAX;
    }

    /// A moment to hand to [`Truth::check_committed`] after the answer.
    pub fn asking(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// The broker, asked at `asked`, says that `offset` is committed (-1: none).
    pub fn check_committed(&self, group: &str, place: Place, offset: i64, asked: u64) {
        let Some(commits) = self.commits.get(&(group.to_owned(), place)) else {
            assert_eq!(offset, -1, "{group} {place:?}: nothing was committed");
            return;
        };
        let acked = |commit: &Commit| commit.acked.filter(|at| *at < asked);
        if offset == -1 {
            let lost = commits.iter().find(|(_, commit)| acked(commit).is_some());
            assert!(lost.is_none(), "{group} {place:?}: commit {:?} is lost", lost.map(|(offset, _)| offset));
            return;
        }
        let told =
            commits.get(&offset).unwrap_or_else(|| panic!("{group} {place:?}: {offset} was never committed"));
        assert_ne!(told.began, u64::MAX, "{group} {place:?}: commit {offset} was refused, and is there");
        if let Some(told_acked) = told.acked {
            let later = commits.iter().find(|(_, later)| {
                later.began != u64::MAX && later.began > told_acked && acked(later).is_some()
            });
            assert!(
                later.is_none(),
                "{group} {place:?}: commit {offset} is told, {:?} came after it",
                later.map(|(offset, _)| offset)
            );
        }
    }

    pub fn groups(&self) -> Vec<(String, Place)> {
        self.commits.keys().cloned().collect()
    }
}

/// The name in a batch's first record.
fn key_of(view: &BatchView) -> Key {
    with_scratch(|scratch| {
        let mut records = view.records(scratch, 16 << 20).expect("records can be read");
        let record = records.next().expect("there is a record").expect("it is sound");
        Key::from_be_bytes(record.key.expect("it has a key").try_into().expect("eight bytes"))
    })
}
