//! The owning shard's part of a fetch: a [`Watch`] follows the partitions of one fetch list that are this shard's, so
//! that a fetch looks only at those that have something to tell.
//!
//! A partition stays in line for the next read until a read has found it at its end, without an error: then only news
//! of it, or of where its client wants to go on, bring it back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use corelog_io::sync::{Following, Inbox, Mark};
use corelog_io::yield_if_needed;
use corelog_storage::{EpochEnd, LogId, ReadError};
use corelog_wire::ErrorCode;

use super::Host;
use crate::ids::ShardId;
use crate::partition::{Isolation, Partition};

/// A partition's number in its fetch list.
pub type Place = u32;

/// One partition to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub log: LogId,
    pub offset: i64,
    pub max_bytes: usize,
    /// Which its client takes for the leader's, -1 if it does not say (KIP-320).
    pub leader_epoch: i32,
    /// Epoch of the record before `offset` as the client knows it, -1 if it does not say (KIP-595).
    pub last_fetched_epoch: i32,
}

/// What is new of a partition in the list: how it is to be read from now on, or that it is not.
pub type Change = (Place, Option<Wanted>);

/// What was read of it.
#[derive(Debug, Clone)]
pub struct Got {
    pub place: Place,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// The client's log went another way: the epoch and end offset up to which both agree.
    pub diverging: Option<(i32, i64)>,
    pub parts: Vec<Bytes>,
    pub len: usize,
    /// From where the client goes on.
    pub records: u64,
    /// There is more that its client asks for, and no room for it in this answer.
    pub is_cut: bool,
    /// The size of its first batch, which would have been read, had there been room; else 0.
    pub lacking: usize,
}

/// What an owner may read.
#[derive(Debug, Clone, Copy)]
pub struct ReadRoom {
    pub bytes: usize,
    /// The first batch of the first partition that has one may be larger: up to this (KIP-74).
    pub first_batch: usize,
}

/// What of a partition has gone out to the client.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    pub place: Place,
    pub bytes: u64,
    pub records: u64,
}

impl Got {
    pub fn refused(place: Place, error: ErrorCode) -> Got {
        Got {
            place,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            parts: Vec::new(),
            len: 0,
            records: 0,
            is_cut: false,
            lacking: 0,
        }
    }

    /// Its records stay out of this answer.
    pub fn leave_out(&mut self) {
        self.is_cut |= self.len > 0;
        self.parts = Vec::new();
        self.len = 0;
        self.lacking = 0;
    }

    /// The end of what the client may see.
    fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable_offset,
        }
    }

    /// Whether a read at `offset` is in range.
    fn may_be_read_at(&self, offset: i64) -> bool {
        (self.log_start_offset..=self.high_watermark).contains(&offset)
    }

    /// Something that a client is to be told without waiting.
    pub fn is_telling(&self) -> bool {
        !self.error.is_ok() || self.diverging.is_some()
    }
}

/// The shard that a list belongs to, and its number there.
pub type ListId = (ShardId, u64);

/// The watches of a shard. One that is being read is away; its place is kept.
#[derive(Default)]
pub struct Watches(RefCell<BTreeMap<ListId, Option<Watch>>>);

impl Watches {
    fn take(&self, host: &Rc<dyn Host>, id: ListId) -> Watch {
        let known = self.0.borrow_mut().insert(id, None);
        known.flatten().unwrap_or_else(|| Watch::new(host, id))
    }

    fn put_back(&self, id: ListId, watch: Watch) {
        // Unless the list was given up meanwhile.
        if let Some(place) = self.0.borrow_mut().get_mut(&id) {
            *place = Some(watch);
        }
    }

    /// The list is no more; `given`: what its last answers held.
    pub fn remove(&self, id: ListId, given: &[Given]) {
        let watch = self.0.borrow_mut().remove(&id);
        if let Some(Some(watch)) = watch {
            watch.note_given(given);
        }
    }
}

struct Watch {
    entries: BTreeMap<Place, Entry>,
    /// What is to be read next.
    line: Inbox,
}

struct Entry {
    wanted: Wanted,
    mark: Mark,
    /// Once it has been looked up.
    partition: Option<(Weak<Partition>, Following)>,
}

/// Counts what was `given` in the last answer, takes `changes` over, then reads the list's partitions of this shard that
/// may have something to tell, as far as there is `room`. Without room no records are read, and it is only told where
/// there are some. If what was read is less than `enough`, nothing was cut off and nothing else is to be told, the first news from now on rings the list's bell.
///
/// The watch is taken when this is called, not when it is polled: calls of one list come in their order.
pub fn read(
    host: Rc<dyn Host>,
    id: ListId,
    given: Vec<Given>,
    changes: Vec<Change>,
    isolation: Isolation,
    room: Option<ReadRoom>,
    enough: usize,
) -> impl Future<Output = Vec<Got>> {
    let mut watch = host.fetching().watches.take(&host, id);
    async move {
        watch.note_given(&given);
        watch.change(changes);
        let got = watch.read(&host, isolation, room, enough).await;
        host.fetching().watches.put_back(id, watch);
        got
    }
}

impl Watch {
    fn new(host: &Rc<dyn Host>, id: ListId) -> Watch {
        let host = Rc::downgrade(host);
        let bell = move || {
            if let Some(host) = host.upgrade() {
                host.ring(id);
            }
        };
        Watch { entries: BTreeMap::new(), line: Inbox::new(bell) }
    }

    /// Before what is new of them is taken over: it is of the partitions as they were.
    fn note_given(&self, given: &[Given]) {
        for Given { place, bytes, records } in given {
            let partition = self.entries.get(place).and_then(|entry| entry.partition.as_ref());
            if let Some(partition) = partition.and_then(|(partition, _)| partition.upgrade()) {
                partition.note_given(*bytes, *records);
            }
        }
    }

    fn change(&mut self, changes: Vec<Change>) {
        for (place, wanted) in changes {
            let Some(wanted) = wanted else {
                self.entries.remove(&place);
                continue;
            };
            let entry = self.entries.entry(place).or_insert_with(|| Entry {
                wanted,
                mark: self.line.mark(place),
                partition: None,
            });
            if entry.wanted.log != wanted.log {
                entry.partition = None;
            }
            entry.wanted = wanted;
            entry.mark.put();
        }
    }

    async fn read(
        &mut self,
        host: &Rc<dyn Host>,
        isolation: Isolation,
        room: Option<ReadRoom>,
        enough: usize,
    ) -> Vec<Got> {
        let ReadRoom { bytes: mut budget, mut first_batch } =
            room.unwrap_or(ReadRoom { bytes: 0, first_batch: 0 });
        self.line.arm();
        let line = self.line.take();
        let mut got = Vec::with_capacity(line.len());
        let (mut len, mut settled) = (0, false);
        let mut served = Vec::new();
        for place in line {
            let Some(entry) = self.entries.get_mut(&place).filter(|entry| entry.mark.take()) else {
                continue;
            };
            let read = entry.read(host, place, isolation, budget, first_batch).await;
            budget = budget.saturating_sub(read.len);
            len += read.len;
            if read.len > 0 {
                first_batch = 0;
            }
            if read.lacking > 0 {
                // Its turn is first: all is read again when there is room for it.
                (budget, first_batch) = (0, 0);
            }
            settled |= read.is_telling() || read.is_cut;
            if read.len > 0 {
                served.push(place);
            } else if read.is_telling() || read.end(isolation) != entry.wanted.offset {
                entry.mark.put();
                // What is left is too little for a batch: thousands more need not be read to find that again.
                if !read.is_telling() && budget < entry.wanted.max_bytes {
                    budget = 0;
                }
            }
            got.push(read);
            // Thousands of partitions may be read from memory, which waits for nothing.
            yield_if_needed().await;
        }
        // Behind those that got nothing, so that a small budget reaches all in turn. What was served is known to have
        // arrived when the client goes on from there.
        for place in served {
            self.entries[&place].mark.put();
        }
        if len >= enough || settled {
            self.line.disarm();
        }
        got
    }
}

impl Entry {
    /// The partition, if its client may read it here.
    fn partition(&mut self, host: &Rc<dyn Host>) -> Result<Rc<Partition>, ErrorCode> {
        let known = self.partition.as_ref().and_then(|(partition, _)| partition.upgrade());
        let partition = match known.filter(|partition| !partition.is_deleted()) {
            Some(partition) => partition,
            None => {
                let partition = host.partition(self.wanted.log)?;
                self.partition = Some((Rc::downgrade(&partition), partition.news().follow(&self.mark)));
                partition
            }
        };
        partition.check_leader(self.wanted.leader_epoch)?;
        Ok(partition)
    }

    async fn read(
        &mut self,
        host: &Rc<dyn Host>,
        place: Place,
        isolation: Isolation,
        budget: usize,
        first_batch: usize,
    ) -> Got {
        let partition = match self.partition(host) {
            Ok(partition) => partition,
            Err(error) => return Got::refused(place, error),
        };
        let wanted = &self.wanted;
        let mut got = Got {
            high_watermark: partition.high_watermark(),
            last_stable_offset: partition.last_stable_offset(),
            log_start_offset: partition.log_start_offset(),
            ..Got::refused(place, ErrorCode::NONE)
        };
        if wanted.last_fetched_epoch >= 0 {
            match partition.diverging(wanted.last_fetched_epoch, wanted.offset) {
                Ok(None) => {}
                Ok(Some(EpochEnd { epoch, end_offset })) => {
                    got.diverging = Some((epoch, end_offset));
                    return got;
                }
                Err(code) => return Got::refused(place, code),
            }
        }
        let max_bytes = wanted.max_bytes.min(budget);
        let is_limited = budget < wanted.max_bytes;
        // The cheap answers first: nothing is there, or nothing may be given.
        if wanted.offset == got.end(isolation) {
            return got;
        }
        if max_bytes == 0 && first_batch == 0 && got.may_be_read_at(wanted.offset) {
            return Got { is_cut: is_limited, ..got };
        }
        match partition.read(wanted.offset, max_bytes, first_batch).await {
            Ok(read) => {
                let lacking = if first_batch > 0 { read.lacking } else { 0 };
                Got {
                    high_watermark: read.high_watermark,
                    last_stable_offset: read.last_stable_offset,
                    log_start_offset: read.log_start_offset,
                    is_cut: (is_limited || lacking > 0) && read.next_offset < read.high_watermark,
                    lacking,
                    parts: read.parts,
                    len: read.len,
                    records: u64::try_from(read.next_offset - wanted.offset).unwrap_or(0),
                    ..got
                }
            }
            Err(ReadError::OffsetOutOfRange { .. }) => Got::refused(place, ErrorCode::OFFSET_OUT_OF_RANGE),
            Err(error) => Got::refused(place, host.clone().read_failed(wanted.log, error)),
        }
    }
}
