//! Whole segments in place of entries that a leader keeps no more: what is asked of another core, and what it tells.
//!
//! A follower asks by itself, piece by piece ([`crate::Network::ask`]); whoever has the log answers, leading or not: all
//! that it gives is committed.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::{Instant, Queue, now, sleep_until, spawn};
use corelog_raft::{GroupId, Membership, ReplicaId, SnapshotOffer};
use corelog_storage::{LogId, LogStart, LogState, RaftIndex, SegmentList, StorageError};

use crate::found::{index, term};
use crate::{Replica, Replicas, group_of};

/// Bytes of one piece of a segment: what a log reads, and writes, at once.
pub const PIECE_BYTES: usize = 1 << 20;
/// Segments that are told of at once. A log may have more: who has taken these in asks for those behind.
pub const LISTED_MAX: usize = 16 << 10;
/// How long an answer is waited for, by who asks ([`crate::Network::ask`]). Whoever is gone is known to be sooner.
pub const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Pieces that would have to wait longer for their turn are refused.
const HELD_MAX: Duration = Duration::from_secs(3);
/// A follower that has asked for nothing in so long does not fetch any more: it is offered anew.
const STALLED: Duration = Duration::from_secs(10);
// A piece has time for its way, and who waits for it is not taken for gone.
const _: () = assert!(HELD_MAX.as_secs() < ANSWER_MAX.as_secs() && ANSWER_MAX.as_secs() < STALLED.as_secs());

/// What a core gives to followers elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct TransferLimits {
    /// Of segments, to all who fetch: so that disk and links have room for what clients wait for.
    pub bytes_per_second: u64,
    /// Segments that are told of at once; [`LISTED_MAX`] at the most.
    pub listed: usize,
    /// Producers that are told of at once; each has 180 bytes at the most.
    pub producers: usize,
}

impl Default for TransferLimits {
    fn default() -> TransferLimits {
        TransferLimits { bytes_per_second: 64 << 20, listed: LISTED_MAX, producers: 4 << 10 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub log: LogId,
    /// Who asks.
    pub replica: ReplicaId,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What there is to fetch for who has all below `from`.
    Segments { from: RaftIndex },
    /// What the segment at this offset holds from this byte on.
    Piece { base_offset: i64, position: u64 },
    /// What segments do not tell: producers with ids above this one.
    State { above: i64 },
    /// Nothing more: who asks has what entries can follow.
    Entries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Not more than [`LISTED_MAX`] segments. `state`: [`corelog_storage::Log::export_state`] without producers, of a membership
    /// that holds where all of the log's segments end.
    Segments {
        list: SegmentList,
        state: Bytes,
    },
    /// Not more than [`PIECE_BYTES`].
    Piece(Bytes),
    State(LogState),
    Noted,
    /// It is gone, or can't be had now.
    Nothing,
}

/// What comes of it; `None`: no answer did, in the time that the network gives it.
pub type Answer = Pin<Box<dyn Future<Output = Option<Told>>>>;

/// What this core gives to followers elsewhere.
pub(crate) struct Giving {
    /// Who was offered something, and when it last asked for it.
    offered: RefCell<Vec<Offered>>,
    limits: Cell<TransferLimits>,
    next_piece: Cell<Instant>,
}

struct Offered {
    group: GroupId,
    to: ReplicaId,
    heard: Instant,
}

impl Giving {
    pub fn new() -> Giving {
        Giving { offered: RefCell::default(), limits: Cell::default(), next_piece: Cell::new(now()) }
    }

    /// False: it was offered something already.
    fn begin(&self, group: GroupId, to: ReplicaId) -> bool {
        let mut offered = self.offered.borrow_mut();
        let is_new = !offered.iter().any(|one| (one.group, one.to) == (group, to));
        if is_new {
            offered.push(Offered { group, to, heard: now() });
        }
        is_new
    }

    fn end(&self, group: GroupId, to: ReplicaId) {
        self.offered.borrow_mut().retain(|one| (one.group, one.to) != (group, to));
    }

    /// The group is led from elsewhere: whoever leads it offers anew.
    pub fn forget(&self, group: GroupId) {
        self.offered.borrow_mut().retain(|one| one.group != group);
    }

    fn heard(&self, group: GroupId, from: ReplicaId) {
        let mut offered = self.offered.borrow_mut();
        let asks = offered.iter_mut().find(|one| (one.group, one.to) == (group, from));
        asks.into_iter().for_each(|one| one.heard = now());
    }

    fn take_stalled(&self) -> Vec<(GroupId, ReplicaId)> {
        let mut offered = self.offered.borrow_mut();
        let stalled = offered.extract_if(.., |one| one.heard.elapsed() >= STALLED);
        stalled.map(|one| (one.group, one.to)).collect()
    }

    /// What is read now would have to wait too long.
    fn is_busy(&self) -> bool {
        self.next_piece.get() > now() + HELD_MAX
    }

    /// When so many bytes may leave.
    fn turn_for(&self, bytes: usize) -> Instant {
        let at = self.next_piece.get().max(now());
        let takes = Duration::from_secs_f64(bytes as f64 / self.limits.get().bytes_per_second.max(1) as f64);
        self.next_piece.set(at + takes);
        at
    }
}

impl Replicas {
    pub fn limit_transfers(&self, limits: TransferLimits) {
        self.giving.limits.set(limits);
    }

    /// These followers need what the log keeps no more.
    pub(crate) fn offer(self: &Rc<Self>, replica: &Rc<Replica>, followers: Vec<ReplicaId>) {
        for to in followers.into_iter().filter(|&to| self.giving.begin(replica.group, to)) {
            let (replicas, replica) = (self.clone(), replica.clone());
            spawn(Queue::Background, async move {
                match replica.snapshot().await {
                    Ok(Some((offer, _))) => {
                        replicas.drive(|driver, now| driver.offer_snapshot(now, replica.group, to, &offer));
                    }
                    outcome => {
                        // It is wanted again with the follower's next word.
                        tracing::debug!(log = %replica.log.id(), %to, error = ?outcome.err(), "nothing to offer yet");
                        replicas.giving.end(replica.group, to);
                    }
                }
            })
            .detach();
        }
    }

    pub(crate) fn give_up_stalled(&self) {
        for (group, to) in self.giving.take_stalled() {
            self.drive(|driver, now| driver.snapshot_failed(now, group, to));
        }
    }

    /// What another core asks for; one thing at a time from each.
    pub async fn answer(self: Rc<Self>, ask: Ask) -> Told {
        let Ask { log, replica: from, what } = ask;
        let Some(replica) = self.replica(log) else { return Told::Nothing };
        self.giving.heard(replica.group, from);
        let limits = self.giving.limits.get();
        let told = match what {
            What::Segments { from } => replica.listed(from, limits.listed).await,
            What::Piece { .. } if self.giving.is_busy() => Ok(Told::Nothing),
            What::Piece { base_offset, position } => {
                let piece = replica.log.segment_bytes(base_offset, position, PIECE_BYTES).await;
                if let Ok(Some(piece)) = &piece {
                    sleep_until(self.giving.turn_for(piece.len())).await;
                }
                piece.map(|piece| piece.map_or(Told::Nothing, Told::Piece))
            }
            What::State { above } => replica.log.export_state(above, limits.producers).map(Told::State),
            What::Entries => {
                let group = group_of(log);
                self.giving.end(group, from);
                self.drive(|driver, now| driver.snapshot_unneeded(now, group, from));
                Ok(Told::Noted)
            }
        };
        told.unwrap_or_else(|error| {
            tracing::warn!(%log, %from, %error, "segments for a follower can't be read");
            Told::Nothing
        })
    }
}

/// Where what can be fetched ends.
fn end_of(list: &SegmentList) -> (RaftIndex, i32) {
    let last = list.segments.last().map(|last| (last.next_index, last.last_term));
    let LogStart { index, term, .. } = list.start;
    last.unwrap_or((index, term))
}

impl Replica {
    /// What there is to fetch for who has all below `from`, as far as it is told at once: the oldest.
    async fn listed(&self, from: RaftIndex, max: usize) -> Result<Told, StorageError> {
        let Some((_, mut list)) = self.snapshot().await? else { return Ok(Told::Nothing) };
        let state = self.log.export_state(i64::MAX, 0)?.bytes;
        list.segments.retain(|segment| segment.next_index > from);
        list.segments.truncate(max);
        Ok(Told::Segments { list, state })
    }

    /// What can be fetched of this log. `None`: nothing yet that entries could follow.
    async fn snapshot(&self) -> Result<Option<(SnapshotOffer, SegmentList)>, StorageError> {
        let mut list = self.log.segments().await?;
        if !self.suffices(&list) || self.leaves_much(&list).await? {
            self.log.seal().await?;
            list = self.log.segments().await?;
        }
        if !self.suffices(&list) {
            return Ok(None);
        }
        // As of the same moment: no change of replicas lies between where the segments end and what is committed.
        let (end, last_term) = end_of(&list);
        let kept = self.log.membership().map(|kept| Membership::decode(&kept.bytes));
        let Some(membership) = kept.unwrap_or_else(|| Some(self.founders.clone())) else {
            return Ok(None);
        };
        let offer = SnapshotOffer { end: index(end), term: term(last_term), membership };
        Ok(Some((offer, list)))
    }

    fn suffices(&self, list: &SegmentList) -> bool {
        let (end, _) = end_of(list);
        let membership = self.log.membership().map_or(end, |kept| kept.index);
        end >= self.log.first_index() && end >= membership
    }

    /// Entries go through journals, segments don't.
    async fn leaves_much(&self, list: &SegmentList) -> Result<bool, StorageError> {
        let whole: u64 = list.segments.iter().map(|segment| segment.bytes).sum();
        Ok(self.log.size_bytes().await?.saturating_sub(whole) > self.log.config().segment_bytes / 2)
    }
}
