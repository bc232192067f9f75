//! Append: fixes a batch's order and hands it to the journal.

use super::commit::uncommitted;
use super::{End, Log, State, end_after, produced};
use crate::batch;
use crate::config::CommitMode;
use crate::error::AppendError;
use crate::format::entry::{EntryHeader, EntryKind, entry_span};
use crate::ids::RaftIndex;
use crate::journal::{Completion, Durable, Effect};
use crate::producers::{Claim, Verdict};
use crate::tail::TailBatch;
use bytes::Bytes;
use corelog_wire::records::BatchHeader;
use std::rc::Rc;

/// Who a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// A Kafka client: producer state is checked, a nearly full disk refuses it.
    Client,
    /// The broker's own coordinators, whose records are ordinary ones: on a full disk they are taken for a while.
    Coordinator,
    /// The broker's controller, who can delete topics: taken as long as anything is.
    Controller,
    /// Raft's own: attribute bit 15 is set, no Kafka offset is taken, nobody is served it.
    Internal,
}

/// What to append.
#[derive(Clone, Debug)]
pub struct AppendBatch {
    /// One whole v2 batch, validated (its CRC above all). Base offset and leader epoch are set on append.
    pub bytes: Bytes,
    pub kind: BatchKind,
    /// The leader's epoch; it never goes back.
    pub leader_epoch: i32,
}

/// A batch whose order is fixed.
#[must_use = "the append is acknowledged when `durable` completes"]
pub struct Appended {
    /// First offset of the batch; of an internal batch, the offset the next record will get.
    pub base_offset: i64,
    /// Last offset of the batch.
    pub last_offset: i64,
    pub log_start_offset: i64,
    /// The greatest timestamp of the batch, as stored.
    pub max_timestamp: i64,
    /// A retry of an idempotent producer: it was appended before, at these offsets.
    pub duplicate: bool,
    /// What its index is, or was; `None` of a retry.
    pub index: Option<RaftIndex>,
    pub durable: Durable,
    /// Committed already, by write caching: a client need not wait for `durable`.
    pub cached: bool,
}

/// A batch whose header bears its place in the log.
pub(super) struct Placed<'a> {
    pub header: &'a BatchHeader,
    pub claim: Option<Claim>,
    /// Its bytes, in two pieces.
    pub head: &'a [u8],
    pub rest: &'a [u8],
}

impl Log {
    /// Fixes the batch's order. The returned [`Appended::durable`] completes when it is on stable storage, and the
    /// high watermark has passed it by then, unless a quorum decides. With write caching it passes a client's batch at once.
    ///
    /// Calls are admitted in the order of their first poll; they wait while the journal and the tail cache are full.
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let header = self.check(&batch)?;
        let span = entry_span(batch.bytes.len());
        let cached = if batch.kind == BatchKind::Controller { 0 } else { span };
        let _turn = self.shard.admit(span, cached, || self.check_space(batch.kind)).await?;
        let appended = self.place(&batch, &header)?;
        if appended.cached && self.state.borrow_mut().advance() {
            self.news.tell();
        }
        Ok(appended)
    }

    /// Refuses what no log can take.
    fn check(&self, batch: &AppendBatch) -> Result<BatchHeader, AppendError> {
        let invalid = |what: String| AppendError::Invalid(what);
        let header = BatchHeader::parse(&batch.bytes).map_err(|e| invalid(e.to_string()))?;
        if header.size() != batch.bytes.len() {
            let (stated, given) = (header.size(), batch.bytes.len());
            return Err(invalid(format!("the batch states a size of {stated} bytes, {given} were given")));
        }
        let internal = batch.kind == BatchKind::Internal;
        if header.is_internal() != internal {
            return Err(invalid("attribute bit 15 marks internal batches and no others".into()));
        }
        let least = if internal { -1 } else { 0 };
        if header.last_offset_delta < least || (internal && header.last_offset_delta != -1) {
            return Err(invalid(format!("a last offset delta of {}", header.last_offset_delta)));
        }
        let max = self.shard.journal.payload_max();
        if batch.bytes.len() > max {
            return Err(AppendError::TooLarge { size: batch.bytes.len(), max });
        }
        Ok(header)
    }

    /// Whether a batch of this kind is taken, as full as the disk is.
    pub(super) fn check_space(&self, kind: BatchKind) -> Result<(), AppendError> {
        let shard = &self.shard;
        match kind {
            BatchKind::Client => shard.space.check(),
            BatchKind::Coordinator if shard.space.is_used_up() && !shard.has_room_to_spare() => {
                shard.space.check()
            }
            _ => Ok(()),
        }
    }

    /// Everything from here on happens without an await: the order is that of admission.
    fn place(&self, batch: &AppendBatch, header: &BatchHeader) -> Result<Appended, AppendError> {
        let state = &mut *self.state.borrow_mut();
        state.check_writable(self.id)?;
        state.check_appendable()?;
        let quorum = state.config.commit == CommitMode::Quorum;
        let cached = state.config.write_caching && batch.kind == BatchKind::Client && !quorum;
        if batch.leader_epoch < state.next.term {
            let (given, current) = (batch.leader_epoch, state.next.term);
            return Err(AppendError::StaleLeaderEpoch { given, current });
        }
        let claim = batch::claim(header).filter(|_| batch.kind == BatchKind::Client);
        if let Some(claim) = &claim
            && let Verdict::Duplicate(known) = state.producers.check(claim)?
        {
            return Ok(Appended {
                base_offset: known.base_offset,
                last_offset: known.last_offset,
                log_start_offset: state.log_start_offset,
                max_timestamp: known.timestamp,
                duplicate: true,
                index: None,
                durable: self.durable_at(state, known.base_offset),
                cached,
            });
        }
        if quorum && batch.kind != BatchKind::Internal {
            self.check_uncommitted(state, batch.bytes.len())?;
        }
        let End { offset: base_offset, index, .. } = state.next;
        let Some(last_offset) = base_offset.checked_add(i64::from(header.last_offset_delta)) else {
            return Err(AppendError::Invalid("the log has no offsets left".into()));
        };
        let header = BatchHeader { base_offset, partition_leader_epoch: batch.leader_epoch, ..*header };
        let (head, rest) = batch::patched(&batch.bytes, base_offset, batch.leader_epoch);
        let completion = self.put(state, Placed { header: &header, claim, head: &head, rest });
        if batch.kind != BatchKind::Internal {
            self.note_append(batch.bytes.len(), header.records_count);
        }
        Ok(Appended {
            base_offset,
            last_offset,
            log_start_offset: state.log_start_offset,
            max_timestamp: header.max_timestamp,
            duplicate: false,
            index: Some(index),
            durable: Durable::new(completion),
            cached,
        })
    }

    /// Puts a batch at the log's end, where its header says it is, into the journal and the tail.
    pub(super) fn put(&self, state: &mut State, placed: Placed) -> Rc<Completion> {
        let Placed { header, claim, head, rest } = placed;
        let End { index, .. } = state.next;
        let entry = EntryHeader {
            log: self.id,
            kind: EntryKind::Append,
            index,
            base_offset: header.base_offset,
            term: header.partition_leader_epoch,
            len: (head.len() + rest.len()) as u32,
        };
        let pushed = self.shard.journal.push(&entry, head, rest);
        if self.settled_by.replace(pushed.sequence) != pushed.sequence {
            self.shard.journal.on_durable(self.me.clone(), Effect::Appended);
        }
        if let Some(claim) = &claim {
            state.producers.assign(index, claim, produced(claim, header), corelog_io::wall_clock_ms());
        }
        let tail_batch = TailBatch {
            index,
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            max_timestamp: batch::timestamp(header),
            sequence: pushed.sequence,
            bytes: pushed.payload,
        };
        if state.config.commit == CommitMode::Quorum {
            state.uncommitted.push(uncommitted(header));
        }
        state.next = end_after(&tail_batch, header);
        state.tail.push(tail_batch);
        self.shard.counters.note_append(entry.len as usize);
        pushed.completion
    }

    /// Completes when the batch at `base_offset`, appended before, is durable.
    fn durable_at(&self, state: &State, base_offset: i64) -> Durable {
        if base_offset < state.durable.offset {
            return Durable::already();
        }
        match state.tail.since(base_offset).next() {
            Some(batch) => self.shard.journal.durable(batch.sequence),
            None => Durable::already(),
        }
    }
}
