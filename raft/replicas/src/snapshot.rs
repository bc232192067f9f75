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
use corelog_storage::{LogId, LogStart, SegmentList, StorageError};

use crate::found::{index, term};
use crate::{Replica, Replicas, group_of};

/// Bytes of one piece of a segment: what a log reads, and writes, at once.
const PIECE_BYTES: usize = 1 << 20;
/// What a core gives out by default, so that its disk and links have room for what clients wait for.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// A follower that has asked for nothing in so long does not fetch any more: it is offered anew.
const STALLED: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub log: LogId,
    /// Who asks.
    pub replica: ReplicaId,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// What there is to fetch.
    Segments,
    /// What the segment at this offset holds from this byte on.
    Piece { base_offset: i64, position: u64 },
    /// Nothing more: who asks has what entries can follow.
    Entries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// `state`: [`corelog_storage::Log::export_state`], of a membership that holds where the segments end.
    Segments {
        list: SegmentList,
        state: Bytes,
    },
    Piece(Bytes),
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
    bytes_per_second: Cell<u64>,
    next_piece: Cell<Instant>,
}

struct Offered {
    group: GroupId,
    to: ReplicaId,
    heard: Instant,
}

impl Giving {
    pub fn new() -> Giving {
        Giving {
            offered: RefCell::default(),
            bytes_per_second: Cell::new(BYTES_PER_SECOND),
            next_piece: Cell::new(now()),
        }
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

    /// When so many bytes may leave.
    fn turn_for(&self, bytes: usize) -> Instant {
        let at = self.next_piece.get().max(now());
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        self.next_piece.set(at + takes);
        at
    }
}

impl Replicas {
    /// How much of segments this core gives out in a second, to all who fetch.
    pub fn limit_transfers(&self, bytes_per_second: u64) {
        self.giving.bytes_per_second.set(bytes_per_second.max(1));
    }

    /// These followers need what the log keeps no more.
    pub(crate) fn offer(self: &Rc<Self>, replica: &Rc<Replica>, followers: Vec<ReplicaId>) {
        for to in followers.into_iter().filter(|&to| self.giving.begin(replica.group, to)) {
            let (replicas, replica) = (self.clone(), replica.clone());
            spawn(Queue::Background, async move {
                match replica.snapshot().await {
                    Ok(Some((offer, ..))) => {
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
        let told = match what {
            What::Segments => replica
                .snapshot()
                .await
                .map(|found| found.map_or(Told::Nothing, |(_, list, state)| Told::Segments { list, state })),
            What::Piece { base_offset, position } => {
                let piece = replica.log.segment_bytes(base_offset, position, PIECE_BYTES).await;
                if let Ok(Some(piece)) = &piece {
                    sleep_until(self.giving.turn_for(piece.len())).await;
                }
                piece.map(|piece| piece.map_or(Told::Nothing, Told::Piece))
            }
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
fn end_of(list: &SegmentList) -> (corelog_storage::RaftIndex, i32) {
    let last = list.segments.last().map(|last| (last.next_index, last.last_term));
    let LogStart { index, term, .. } = list.start;
    last.unwrap_or((index, term))
}

impl Replica {
    /// What can be fetched of this log, and the state beside it. `None`: nothing yet that entries could follow.
    async fn snapshot(&self) -> Result<Option<(SnapshotOffer, SegmentList, Bytes)>, StorageError> {
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
        Ok(Some((offer, list, self.log.export_state()?)))
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
