//! One partition's log.
//!
//! ```text
//!  log start            flushed                     durable = committed         next (order fixed)
//!      │                   │                               │                        │
//!      ▼                   ▼                               ▼                        ▼
//!      [ segment ][ active segment ][ tail: journaled, durable ][ tail: under way ]
//!                        [ ......... tail cache: from memory .................... ]
//! ```
//!
//! With write caching (`LogConfig::write_caching`) what is under way is committed too: it is acknowledged and served, and
//! may be gone after a crash. Segments get what is durable in any case.
//!
//! Life: made by [`ShardStorage::log`](crate::ShardStorage::log), without any I/O; its directory is looked at when
//! something older than the tail is first asked for. Lives on one core. State changes happen between awaits; what
//! takes I/O and must not overlap (flush, retention, deletion) takes turns (`upkeep`).

mod append;
mod entries;
mod export;
mod flush;
mod follow;
mod greatest;
mod lookup;
mod membership;
mod quarantine;
mod read;
mod replay;
mod reset;
mod retention;
mod stats;
mod transfer;

pub use append::{AppendBatch, Appended, BatchKind};
pub use entries::Entry;
pub use follow::Accepted;
pub use lookup::TimestampOffset;
pub use read::Read;
pub use reset::LogStart;
pub use stats::{LogStats, Traffic};
pub use transfer::{SegmentInfo, SegmentList};

use crate::batch;
use crate::config::LogConfig;
use crate::error::{AppendError, StorageError};
use crate::format::checkpoint::{ActiveSegmentState, HardState, LogCheckpoint};
use crate::format::entry::{EntryHeader, EntryKind, entry_span};
use crate::format::log_sections::{Membership, Reset};
use crate::ids::{LogId, RaftIndex};
use crate::journal::{Durable, Effect};
use crate::paths;
use crate::producers::{Claim, ProducedBatch, Producers};
use crate::progress::Watch;
use crate::quarantine::Held;
use crate::recovery::RecoveredLog;
use crate::segment::Segments;
use crate::shard::Shard;
use crate::tail::{Tail, TailBatch};
use crate::terms::{EpochEnd, TermHistory};
use corelog_io::sync::{Semaphore, Source};
use corelog_wire::records::BatchHeader;
use read::Hints;
use std::cell::{Cell, Ref, RefCell};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

pub struct Log {
    id: LogId,
    me: Weak<Log>,
    shard: Rc<Shard>,
    /// The directory of its segments.
    dir: PathBuf,
    state: RefCell<State>,
    news: Source,
    /// Flush, retention, loading of segments, deletion: one at a time.
    upkeep: Semaphore,
    hints: RefCell<Hints>,
    /// The journal group that will settle this log's appends, so that one effect a group is enough.
    settled_by: Cell<u64>,
    watch: Watch,
    traffic: Cell<Traffic>,
}

/// What a log knows.
pub(crate) struct State {
    config: LogConfig,
    /// Where the next batch goes.
    next: End,
    /// What is on stable storage.
    durable: End,
    /// What may be served: on stable storage of a majority. While the log is alone it follows `durable`, or `next` with
    /// write caching.
    committed: End,
    commit_follows_durable: bool,
    /// What is in segments, synced.
    flushed: End,
    log_start_offset: i64,
    /// Of durable batches.
    terms: TermHistory,
    membership: Option<Membership>,
    /// The checkpoint, by number, that has it.
    membership_saved_by: u64,
    /// Where it began anew, if it did.
    reset: Option<Reset>,
    /// The base offset of a segment that was taken in and may not bear its name yet.
    incoming: Option<i64>,
    /// No checkpoint has that segment yet.
    is_installing: bool,
    producers: Producers,
    hard_state: HardState,
    tail: Tail,
    /// Before the segments are loaded: what the checkpoint says of the active one.
    active: Option<ActiveSegmentState>,
    segments: Option<Segments>,
    /// Where start-up found the log to end.
    found_end: End,
    /// Why the log is refused, if it is.
    refused: Option<Arc<str>>,
    /// Of a log that was refused when it was recovered: what former generations' journals have of it, until it is put
    /// aside.
    held: Option<Rc<Held>>,
    /// The generation that put aside what the journals have of it, if one did.
    put_aside: Option<u64>,
    /// It is refused, and nothing is known of it that was not put aside.
    all_aside: bool,
    deleted: bool,
}

/// An end of the log, in both of its countings, and the term of the last batch before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub offset: i64,
    pub index: RaftIndex,
    pub term: i32,
}

impl Log {
    /// `recovered`: what start-up found of it. No I/O.
    pub(crate) fn new(
        shard: Rc<Shard>,
        id: LogId,
        name: &str,
        config: LogConfig,
        recovered: RecoveredLog,
    ) -> Rc<Log> {
        let found = recovered.dir.clone();
        let dir = found.unwrap_or_else(|| paths::log_dir(&shard.config.data_dir, id, name));
        let state = State::recover(id, config, recovered, &shard);
        Rc::new_cyclic(|me| Log {
            id,
            me: me.clone(),
            shard,
            dir,
            state: RefCell::new(state),
            news: Source::default(),
            upkeep: Semaphore::new(1),
            hints: RefCell::default(),
            settled_by: Cell::new(0),
            watch: Watch::default(),
            traffic: Cell::default(),
        })
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    /// The offset after the last record that may be served.
    pub fn high_watermark(&self) -> i64 {
        self.state.borrow().committed.offset
    }

    /// The first offset that is kept.
    pub fn log_start_offset(&self) -> i64 {
        self.state.borrow().log_start_offset
    }

    /// The offset the next record will get.
    pub fn log_end_offset(&self) -> i64 {
        self.state.borrow().next.offset
    }

    /// The Raft index the next batch will get.
    pub fn next_index(&self) -> RaftIndex {
        self.state.borrow().next.index
    }

    /// The leader epoch of the last batch, -1 if there is none.
    pub fn leader_epoch(&self) -> i32 {
        let state = self.state.borrow();
        if state.next.index == RaftIndex(0) { -1 } else { state.next.term }
    }

    /// Tells when the high watermark or the log start offset moves, and when the log is deleted.
    pub fn news(&self) -> &Source {
        &self.news
    }

    /// Whether [`Progress`](crate::Progress) names the log when its durable end has moved.
    pub fn watch_progress(&self, on: bool) {
        self.watch.is_on.set(on);
    }

    pub fn is_deleted(&self) -> bool {
        self.state.borrow().deleted
    }

    pub fn config(&self) -> LogConfig {
        self.state.borrow().config
    }

    /// Takes effect with the next roll, the next look at retention, the next append.
    pub fn set_config(&self, config: LogConfig) {
        self.state.borrow_mut().config = config;
        self.settle_commit(None);
    }

    /// The epoch of the leader that appended the record at `offset`, or that was there when the log ended at it; -1
    /// if there is none yet.
    pub fn epoch_at(&self, offset: i64) -> i32 {
        self.state.borrow().terms.epoch_at(offset).unwrap_or(-1)
    }

    /// OffsetForLeaderEpoch's answer (KIP-320).
    pub fn epoch_end_offset(&self, epoch: i32) -> EpochEnd {
        let state = self.state.borrow();
        state.terms.end_offset(epoch, state.committed.offset)
    }

    /// Ids of the producers known, each with its epoch, last sequence number and the wall clock of its last append
    /// (milliseconds since the Unix epoch). Of durable batches (DescribeProducers).
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        let state = self.state.borrow();
        let describe = |(producer_id, e): (i64, &crate::producers::ProducerEntry)| ActiveProducer {
            producer_id,
            epoch: e.epoch,
            last_sequence: e.batches.back().map_or(-1, |b| b.last_sequence),
            last_timestamp: e.batches.back().map_or(-1, |b| b.timestamp),
        };
        state.producers.entries().map(describe).collect()
    }

    /// Raft's durable state.
    pub fn hard_state(&self) -> HardState {
        self.state.borrow().hard_state
    }

    /// Journals Raft's term and vote.
    pub async fn set_hard_state(&self, hard_state: HardState) -> Result<(), StorageError> {
        let entry = EntryHeader {
            log: self.id,
            kind: EntryKind::HardState,
            index: RaftIndex(hard_state.commit),
            base_offset: hard_state.vote,
            term: hard_state.term,
            len: 0,
        };
        self.journal(entry, Effect::HardState(hard_state)).await?.await
    }

    /// Whether what is durable may be served at once (the default: a group of one), or only what
    /// [`Log::advance_commit`] says.
    pub fn set_commit_follows_durable(&self, follows: bool) {
        self.state.borrow_mut().commit_follows_durable = follows;
        self.settle_commit(None);
    }

    /// Every batch below `index` is committed. Does not pass what is durable here.
    pub fn advance_commit(&self, index: RaftIndex) {
        self.settle_commit(Some(index));
    }

    /// Takes the batches from Raft index `from` on off the end, durably: another leader's history replaces them.
    /// Committed batches are never cut.
    pub async fn truncate(&self, from: RaftIndex, term: i32) -> Result<(), AppendError> {
        let _turn = self.shard.admit(entry_span(0), 0, || Ok::<_, StorageError>(())).await?;
        let durable = {
            let mut state = self.state.borrow_mut();
            state.check_writable(self.id)?;
            if from < state.committed.index {
                let committed = state.committed.index;
                return Err(AppendError::Invalid(format!(
                    "truncation to Raft index {from}, below the commit index {committed}"
                )));
            }
            if from >= state.next.index {
                return Ok(());
            }
            let base_offset = state.cut_back(from);
            let entry = EntryHeader {
                log: self.id,
                kind: EntryKind::Truncate,
                index: from,
                base_offset,
                term,
                len: 0,
            };
            let pushed = self.shard.journal.push(&entry, &[], &[]);
            self.shard.journal.on_durable(self.me.clone(), Effect::Truncated);
            Durable::new(pushed.completion)
        };
        Ok(durable.await?)
    }

    /// Journals an entry without payload.
    async fn journal(&self, entry: EntryHeader, effect: Effect) -> Result<Durable, StorageError> {
        let _turn = self.shard.admit(entry_span(0), 0, || Ok::<_, StorageError>(())).await?;
        self.state.borrow().check_writable(self.id)?;
        let pushed = self.shard.journal.push(&entry, &[], &[]);
        self.shard.journal.on_durable(self.me.clone(), effect);
        Ok(Durable::new(pushed.completion))
    }

    /// Journal group `sequence` is durable, and with it what `effect` says. `now_ms`: the wall clock.
    pub(crate) fn settle(&self, sequence: u64, effect: Effect, now_ms: i64) {
        match effect {
            Effect::Appended => {
                self.state.borrow_mut().settle_appends(sequence, now_ms, &self.shard);
                self.settle_commit(None);
                self.shard.progress.note(self.id, &self.watch);
            }
            Effect::Reset => self.shard.progress.note(self.id, &self.watch),
            Effect::LogStart(offset) => {
                self.state.borrow_mut().move_log_start(offset);
                self.news.tell();
            }
            Effect::HardState(hard_state) => self.state.borrow_mut().hard_state = hard_state,
            Effect::Truncated => {}
        }
    }

    pub(super) fn settle_commit(&self, index: Option<RaftIndex>) {
        let moved = {
            let mut state = self.state.borrow_mut();
            let before = state.committed.index;
            match index {
                None if state.commit_follows_durable => {
                    let end = if state.config.write_caching { state.next } else { state.durable };
                    // Behind it for a while when write caching was on until now.
                    if end.index > before {
                        state.committed = end;
                    }
                }
                None => {}
                Some(index) if index <= before => {}
                Some(index) if index >= state.durable.index => state.committed = state.durable,
                Some(index) => {
                    let batch = state.tail.at_index(index).expect("what is not committed is in the tail");
                    let offset = batch.base_offset;
                    let term = state.durable.term;
                    state.committed = End { offset, index, term };
                }
            }
            state.committed.index != before
        };
        if moved {
            self.news.tell();
        }
    }

    /// Its state for the checkpoint; `None` for a log that has none there.
    pub(crate) fn checkpoint(&self, durable_through: u64) -> Option<(LogCheckpoint, Ref<'_, Producers>)> {
        let state = self.state.borrow();
        if state.deleted || state.is_untouched() || state.is_elsewhere() {
            return None;
        }
        Some((state.checkpoint(self.id, durable_through), Ref::map(state, |s| &s.producers)))
    }

    pub(crate) fn is_clean_through(&self, sequence: u64) -> bool {
        let state = self.state.borrow();
        state.held.is_none() && state.tail.is_clean_through(sequence)
    }

    pub(crate) fn evict_through(&self, sequence: u64) {
        self.state.borrow_mut().tail.evict_through(sequence);
    }

    /// The journal group of the oldest batch that is in no segment.
    pub(crate) fn first_dirty_sequence(&self) -> Option<u64> {
        let state = self.state.borrow();
        if state.held.is_some() { Some(0) } else { state.tail.first_dirty_sequence() }
    }

    /// The same, without batches that a former generation's journal holds.
    pub(crate) fn first_dirty_own_sequence(&self) -> Option<u64> {
        self.state.borrow().tail.first_dirty_own_sequence()
    }

    pub(crate) fn dirty_bytes(&self) -> u64 {
        let state = self.state.borrow();
        state.tail.dirty_bytes() + state.held.as_ref().map_or(0, |held| held.bytes())
    }

    pub(crate) fn expire_producers(&self, now_ms: i64) {
        self.state.borrow_mut().producers.expire(now_ms, self.shard.config.producer_id_expiration_ms);
    }
}

/// One line of DescribeProducers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    pub producer_id: i64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp: i64,
}

impl State {
    fn check_writable(&self, id: LogId) -> Result<(), StorageError> {
        if self.deleted {
            return Err(StorageError::LogDeleted(id));
        }
        match &self.refused {
            Some(evidence) => Err(StorageError::LogRefused { log: id, evidence: evidence.clone() }),
            None => Ok(()),
        }
    }

    /// Nothing was ever written to it.
    fn is_untouched(&self) -> bool {
        self.next.index == RaftIndex(0)
            && self.log_start_offset == 0
            && self.hard_state == HardState::default()
            && self.membership.is_none()
            && self.reset.is_none()
    }

    fn checkpoint(&self, log: LogId, durable_through: u64) -> LogCheckpoint {
        LogCheckpoint {
            log,
            durable_through,
            log_start_offset: self.log_start_offset,
            next_offset: self.durable.offset,
            next_index: self.durable.index,
            term: self.durable.term,
            hard_state: self.hard_state,
            flushed_offset: self.flushed.offset,
            flushed_index: self.flushed.index,
            active: self.active_state(),
            terms: self.terms.clone(),
            membership: self.membership.clone(),
            reset: self.reset,
            incoming: self.incoming,
            producers: Vec::new(),
        }
    }

    /// What the checkpoint says of the active segment.
    fn active_state(&self) -> Option<ActiveSegmentState> {
        match &self.segments {
            Some(segments) => segments.active.as_ref().map(|a| a.state()),
            None => self.active.clone(),
        }
    }

    /// Batches of the groups up to `sequence` are durable.
    fn settle_appends(&mut self, sequence: u64, now_ms: i64, shard: &Shard) {
        while let Some(batch) = self.tail.at_index(self.durable.index)
            && batch.sequence <= sequence
        {
            let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
            self.terms.note(header.partition_leader_epoch, batch.index, header.base_offset);
            if let Some(claim) = batch::claim(&header) {
                let produced = produced(&claim, &header);
                self.producers.durable(&claim, produced, now_ms, shard.config.producer_ids_max);
            }
            self.durable = end_after(batch, &header);
        }
    }

    fn move_log_start(&mut self, offset: i64) {
        if offset > self.log_start_offset {
            self.log_start_offset = offset;
            self.terms.start_at(offset);
            self.producers.forget_beginning();
        }
    }

    /// Takes the batches from `from` on off the end; the log end offset that leaves.
    fn cut_back(&mut self, from: RaftIndex) -> i64 {
        let first_cut = self.tail.at_index(from).expect("what is not committed is in the tail");
        let offset = first_cut.base_offset;
        let term = match from.0.checked_sub(1).and_then(|i| self.tail.at_index(RaftIndex(i))) {
            Some(last) => {
                BatchHeader::parse(&last.bytes).expect("the tail holds batches").partition_leader_epoch
            }
            None => self.flushed.term,
        };
        self.tail.cut_back(from);
        let end = End { offset, index: from, term };
        self.next = end;
        if self.durable.index > from {
            self.durable = end;
        }
        self.terms.cut_back(from, offset);
        self.producers.cut_back(offset);
        // What stays and is still under way counts again.
        let now_ms = corelog_io::wall_clock_ms();
        let mut index = self.durable.index;
        while let Some(batch) = self.tail.at_index(index) {
            let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
            if let Some(claim) = batch::claim(&header) {
                self.producers.assign(&claim, produced(&claim, &header), now_ms);
            }
            index = index.next();
        }
        offset
    }
}

/// The end of the log that `batch` leaves.
fn end_after(batch: &TailBatch, header: &BatchHeader) -> End {
    End { offset: batch.next_offset, index: batch.index.next(), term: header.partition_leader_epoch }
}

pub(crate) fn produced(claim: &Claim, header: &BatchHeader) -> ProducedBatch {
    ProducedBatch {
        first_sequence: claim.first_sequence,
        last_sequence: claim.last_sequence(),
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp,
    }
}
