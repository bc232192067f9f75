//! One partition's log.
//!
//! ```text
//!  log start            flushed                     durable             next (order fixed)
//!      │                   │                           │                        │
//!      ▼                   ▼                           ▼                        ▼
//!      [ segment ][ active segment ][ tail: journaled, durable ][ tail: under way ]
//!                        [ ......... tail cache: from memory .................... ]
//!                                   committed
//! ```
//!
//! **What is committed is served, and stays.** Reads, lookups by time, the ends of epochs, DeleteRecords and retention know
//! nothing beyond; what is below is never cut. Who says so is set when the log is opened, before anything of it is flushed
//! (`LogConfig::commit`):
//! - *Alone*: it is what is durable. With write caching (`LogConfig::write_caching`) what is under way is committed too: it is
//!   acknowledged and served, and may be gone after a crash. At a start all that is found is committed.
//! - *Quorum*: it is what [`Log::advance_commit`] said, as far as it is durable here (with write caching: has its place). At
//!   a start it is what the checkpoint knows of, and what the log start offset proves.
//!
//! A change while the log is open keeps what is committed. From Alone to Quorum it goes on from there; from Quorum to Alone
//! all that is durable is committed at once.
//!
//! **What is durable is flushed**, committed or not, so that a log without a quorum keeps neither memory nor journal files
//! from others. What may wait for a quorum is bounded (`StorageConfig::uncommitted_bytes_max`): appends beyond are refused.
//! Of each such batch its end, term and size stay in memory and go into checkpoints ([`crate::uncommitted`]).
//!
//! **A cut** ([`Log::truncate`]) takes back what is not committed, in segments too: see `log/cut.rs`.
//!
//! **Producers** settle with what is committed and durable; what is in flight beside it is known in the order of the log
//! ([`crate::producers`]), and a cut forgets what it takes.
//!
//! Life: made by [`ShardStorage::log`](crate::ShardStorage::log), without any I/O; its directory is looked at when
//! something older than the tail is first asked for. Lives on one core. State changes happen between awaits; what
//! takes I/O and must not overlap (flush, retention, deletion) takes turns (`upkeep`).

mod append;
mod commit;
mod cut;
mod entries;
mod export;
mod flush;
mod follow;
mod greatest;
mod lead;
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
pub use export::LogState;
pub use follow::Accepted;
pub use lead::{Leads, NotTaken};
pub use lookup::TimestampOffset;
pub use read::Read;
pub use reset::LogStart;
pub use stats::{LogStats, Traffic};
pub use transfer::{SegmentInfo, SegmentList};

use crate::batch;
use crate::config::LogConfig;
use crate::error::StorageError;
use crate::format::checkpoint::{ActiveSegmentState, Committed, LogCheckpoint};
use crate::format::entry::{EntryHeader, EntryKind, HardState};
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
use crate::uncommitted::Uncommitted;
use corelog_io::sync::{Semaphore, Source};
use corelog_wire::records::BatchHeader;
use cut::Uncut;
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
    /// Without one, whoever appends is the leader.
    leads: RefCell<Option<Rc<dyn Leads>>>,
    traffic: Cell<Traffic>,
}

/// What a log knows.
pub(crate) struct State {
    config: LogConfig,
    /// Where the next batch goes.
    next: End,
    /// What is on stable storage.
    durable: End,
    /// What may be served.
    committed: End,
    /// While a quorum decides: the batches from `committed` to `next`.
    uncommitted: Uncommitted,
    /// While a quorum decides: what it is known to have. May be ahead of what is durable here.
    commit_target: RaftIndex,
    /// What is in segments, synced.
    flushed: End,
    /// Flushes have tried to write batches up to here.
    reach: RaftIndex,
    /// The log was cut, its segments are not yet.
    uncut: Option<Uncut>,
    /// The segments were cut, and no checkpoint says so yet: which cut it was.
    unsaved_cut: Option<u64>,
    /// It was cut once, by this process or a former.
    is_cut: bool,
    /// How often it was cut, and its segments.
    cuts: u64,
    /// Those that may not be durable: which journal group says so, and where it was cut.
    new_cuts: Vec<(u64, RaftIndex)>,
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
    /// Start-up found something of it, or it was cut: a checkpoint says what it is, even if it holds nothing.
    is_known: bool,
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
            leads: RefCell::default(),
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
    /// (milliseconds since the Unix epoch). Of committed batches (DescribeProducers).
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

    /// Journals Raft's term and vote. Their order is fixed when this returns; durable when what it returns completes.
    pub async fn set_hard_state(&self, hard_state: HardState) -> Result<Durable, StorageError> {
        let payload = hard_state.encode();
        let entry = EntryHeader {
            log: self.id,
            kind: EntryKind::HardState,
            index: RaftIndex(0),
            base_offset: 0,
            term: 0,
            len: payload.len() as u32,
        };
        self.journal(entry, &payload, Effect::HardState(hard_state)).await
    }

    /// Journals an entry that is no batch.
    async fn journal(
        &self,
        entry: EntryHeader,
        payload: &[u8],
        effect: Effect,
    ) -> Result<Durable, StorageError> {
        let _turn = self.shard.admit(entry.span(), 0, || Ok::<_, StorageError>(())).await?;
        self.state.borrow().check_writable(self.id)?;
        let pushed = self.shard.journal.push(&entry, payload, &[]);
        self.shard.journal.on_durable(self.me.clone(), effect);
        Ok(Durable::new(pushed.completion))
    }

    /// Journal group `sequence` is durable, and with it what `effect` says. `now_ms`: the wall clock.
    pub(crate) fn settle(&self, sequence: u64, effect: Effect, now_ms: i64) {
        match effect {
            Effect::Appended => {
                self.state.borrow_mut().settle_appends(sequence);
                self.settle_commit(now_ms);
                self.shard.progress.note(self.id, &self.watch);
            }
            Effect::Reset => self.shard.progress.note(self.id, &self.watch),
            Effect::LogStart(offset) => {
                self.state.borrow_mut().move_log_start(offset);
                self.news.tell();
            }
            Effect::HardState(hard_state) => self.state.borrow_mut().hard_state = hard_state,
            Effect::Truncated => self.cut_is_durable(),
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
            && !self.is_known
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
            membership: self.membership_below(self.committed_index_durable()),
            reset: self.reset,
            incoming: self.incoming,
            producers: Vec::new(),
            committed: self.committed_state(durable_through),
        }
    }

    /// The owner sets a membership before it says that the entry behind it is committed: so the one that is set holds up to
    /// there, and a start need not look for another before.
    fn membership_below(&self, committed: RaftIndex) -> Option<Membership> {
        let membership = self.membership.clone()?;
        Some(Membership { index: membership.index.max(committed), ..membership })
    }

    fn committed_index_durable(&self) -> RaftIndex {
        self.committed.index.min(self.durable.index)
    }

    /// What the checkpoint says of what is committed: of what is durable, whatever is served.
    fn committed_state(&self, durable_through: u64) -> Committed {
        let End { offset, index, term } = match self.committed.index <= self.durable.index {
            true => self.committed,
            false => self.durable,
        };
        let rest = (self.durable.index.0 - index.0) as usize;
        Committed {
            offset,
            index,
            term,
            rest: self.uncommitted.iter().take(rest).copied().collect(),
            in_flight: self.producers.in_flight_below(self.durable.index).copied().collect(),
            cut_pending: self.uncut.is_some(),
            cuts: self.new_cuts.iter().filter(|(group, _)| *group > durable_through).copied().collect(),
            is_cut: self.is_cut,
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
    fn settle_appends(&mut self, sequence: u64) {
        while let Some(batch) = self.tail.at_index(self.durable.index)
            && batch.sequence <= sequence
        {
            let term = batch::leader_epoch(&batch.bytes);
            self.terms.note(term, batch.index, batch.base_offset);
            self.durable = End { offset: batch.next_offset, index: batch.index.next(), term };
        }
    }

    fn move_log_start(&mut self, offset: i64) {
        if offset > self.log_start_offset {
            self.log_start_offset = offset;
            self.terms.start_at(offset);
            self.producers.forget_beginning();
        }
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
