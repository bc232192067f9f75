//! The consensus core: raft-rs, named nowhere else.
//!
//! It decides who leads and which logs match; it never sees a batch. Entries go through it as index, term and kind, so
//! what a follower lacks is a range here, whose bytes are read when there is room to send them. Its own clock, its
//! heartbeats and its flow control are not used: time, leases and windows are [`crate::group`]'s and
//! [`crate::driver`]'s. Of `raft::RawNode` nothing is used either: it reads each committed entry back from the log, and
//! ties what may be said to a count of hand-overs rather than to what is durable.
//!
//! raft-rs panics where its caller breaks a rule. What a peer could make it do so with is checked before
//! ([`Core::check`]) and is a [`Violation`] of that group alone.
//!
//! raft-rs counts entries from 1 and names the last one; a log here counts from 0 and names the end. So its last index is
//! our end, and its `index` of an append is our start.

mod change;
mod check;
mod convert;
mod store;

use raft::eraftpb::{Entry as RaftEntry, EntryType, Message as RaftMessage, MessageType};
use raft::{Config, ProgressState, Raft, StateRole};

use crate::ids::{RaftIndex, ReplicaId, Term};
use crate::log::{HardState, Log};
use crate::membership::{Change, Membership};
use crate::message::{AppendAnswer, Body, Message, Outcome, SnapshotOffer};
use crate::terms::Terms;

use store::Store;

/// Messages in flight to one follower, as raft-rs counts them. The bound that counts is in bytes, and the driver's.
const INFLIGHT_MESSAGES_MAX: usize = 32;
/// What raft-rs takes for the size of the entries of one message: it sees none of their bytes, so this bounds their
/// number, to about 250.
const MESSAGE_SIZE_MAX: u64 = 4096;
/// No index comes near it: sums of indexes don't overflow.
const INDEX_MAX: u64 = 1 << 62;
/// Nor does a term, short of two billion elections.
pub(crate) const TERM_MAX: Term = Term(i32::MAX - 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    /// Asks whether it could win an election, or stands for one.
    Candidate,
    Leader,
}

/// A rule of Raft that was broken: by a peer, or by a log that forgot. The group stops with this as its evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("replica {from} sent {what}, which no replica of this group may")]
    Malformed { from: ReplicaId, what: &'static str },
    #[error(
        "leader {from} of term {term} would replace entry {index}, which is committed here up to {committed}"
    )]
    CommittedReplaced { from: ReplicaId, term: Term, index: RaftIndex, committed: RaftIndex },
    #[error(
        "leader {from} of term {term} holds this replica to have {committed} entries; it has {next}: the log lost some"
    )]
    Forgotten { from: ReplicaId, term: Term, committed: RaftIndex, next: RaftIndex },
    #[error("the membership change in entry {index} can't follow the membership before it")]
    Membership { index: RaftIndex },
}

/// What a follower is to be sent: entries from `start` below `end`, perhaps none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOrder {
    pub to: ReplicaId,
    pub term: Term,
    pub start: RaftIndex,
    pub term_before: Term,
    pub end: RaftIndex,
    pub committed: RaftIndex,
    /// It is no question whether the logs match.
    pub quiet: bool,
}

/// What the core has to say after an input.
pub(crate) enum Said {
    Append(AppendOrder),
    Message(Message),
}

/// One follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub replica: ReplicaId,
    /// It has all below this, durably.
    pub matched: RaftIndex,
    pub committed: RaftIndex,
    /// It waits for a snapshot.
    pub snapshot: bool,
}

#[derive(Debug)]
pub(crate) enum NotProposed {
    NotLeading,
    /// Another change is under way; or there is no joint configuration to leave.
    ChangeUnderWay,
    /// The change itself can't be.
    Refused,
}

pub(crate) struct Core {
    raft: Raft<Store>,
    id: ReplicaId,
}

impl Core {
    pub fn open(id: ReplicaId, log: &impl Log, terms: Terms) -> Result<Core, raft::Error> {
        let config = Config {
            id: id.0,
            // Its clock is never ticked; these only have to be valid.
            election_tick: 2,
            heartbeat_tick: 1,
            max_size_per_msg: MESSAGE_SIZE_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let store = Store::new(log, terms);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Ok(Core { raft: Raft::new(&config, store, &logger)?, id })
    }

    pub fn role(&self) -> Role {
        match self.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    pub fn term(&self) -> Term {
        convert::term(self.raft.term)
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        convert::replica(self.raft.leader_id)
    }

    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term(), vote: convert::replica(self.raft.vote) }
    }

    pub fn committed(&self) -> RaftIndex {
        RaftIndex(self.raft.raft_log.committed)
    }

    pub fn applied(&self) -> RaftIndex {
        RaftIndex(self.raft.raft_log.applied)
    }

    pub fn persisted(&self) -> RaftIndex {
        RaftIndex(self.raft.raft_log.persisted)
    }

    pub fn terms(&self) -> &Terms {
        &self.raft.store().terms
    }

    pub fn membership(&self) -> Membership {
        convert::membership(&self.raft.prs().conf().to_conf_state())
    }

    /// In the membership that holds, or named in a change that is under way.
    pub fn membership_will_have(&self, replica: ReplicaId) -> bool {
        self.raft.has_pending_conf() || self.raft.prs().get(replica.0).is_some()
    }

    /// A voter, as far as its log goes.
    pub fn can_be_elected(&self) -> bool {
        self.raft.promotable()
    }

    /// The leader has committed an entry of its own term: it knows all that ever was committed.
    pub fn committed_in_term(&self) -> bool {
        self.raft.commit_to_current_term()
    }

    pub fn followers(&self) -> impl Iterator<Item = Progress> {
        let others = self.raft.prs().iter().filter(|&(&id, _)| id != self.id.0);
        others.map(|(&id, progress)| Progress {
            replica: ReplicaId(id),
            matched: RaftIndex(progress.matched),
            committed: RaftIndex(progress.committed_index),
            snapshot: progress.state == ProgressState::Snapshot,
        })
    }

    /// A message that passed [`Core::check`].
    pub fn step(&mut self, message: &Message) {
        if self.answers_stranger(message) {
            return;
        }
        // Whether a leader was heard too lately to vote for another is decided before a vote comes here.
        self.raft.election_elapsed = self.raft.election_timeout();
        if self.is_stale_mismatch(message) {
            return;
        }
        self.note_snapshot_done(message);
        self.end_snapshot(message);
        match &message.body {
            Body::Append(append) if self.is_mismatch(message.term, append) => {
                self.refuse_append(message.from, message.term, append);
            }
            _ => self.step_raft(convert::to_raft(message, self.terms())),
        }
    }

    fn step_raft(&mut self, message: RaftMessage) {
        // Errors are of proposals, which don't come this way.
        let _ = self.raft.step(message);
    }

    fn answers_stranger(&self, message: &Message) -> bool {
        let is_answer =
            matches!(message.body, Body::AppendAnswer(_) | Body::VoteAnswer(_) | Body::HeartbeatAnswer(_));
        is_answer && self.raft.prs().get(message.from.0).is_none()
    }

    /// raft-rs 0.7 lets a late refusal push a follower's next index to or below what the follower is known to have
    /// (mended after 0.7.0, not released). A refusal at or below that is always late: a replica that forgot comes back
    /// under another id.
    fn is_stale_mismatch(&mut self, message: &Message) -> bool {
        let Body::AppendAnswer(answer) = &message.body else { return false };
        let Outcome::Mismatch { start, .. } = answer.outcome else { return false };
        if message.term != self.term() || self.role() != Role::Leader {
            return false;
        }
        let Some(progress) = self.raft.mut_prs().get_mut(message.from.0) else { return false };
        progress.recent_active = true;
        guard::is_on() && start.0 <= progress.matched
    }

    /// A follower that was to fetch state and has it committed needs no more of it, whether its answer came through or not.
    fn note_snapshot_done(&mut self, message: &Message) {
        let Body::HeartbeatAnswer(answer) = &message.body else { return };
        if message.term != self.term() || self.role() != Role::Leader {
            return;
        }
        let Some(progress) = self.raft.mut_prs().get_mut(message.from.0) else { return };
        if progress.state == ProgressState::Snapshot && progress.pending_snapshot <= answer.committed.0 {
            progress.become_probe();
        }
    }

    /// A follower that has all below the log's start needs no snapshot, even if it is offered a later one.
    fn end_snapshot(&mut self, message: &Message) {
        let Body::AppendAnswer(AppendAnswer { outcome: Outcome::Matched { end }, .. }) = message.body else {
            return;
        };
        let reaches = message.term == self.term() && end >= self.terms().first();
        let Some(progress) = self.raft.mut_prs().get_mut(message.from.0) else { return };
        if reaches && progress.state == ProgressState::Snapshot {
            progress.snapshot_failure();
            progress.become_probe();
        }
    }

    /// raft-rs looks for where the logs may match entry by entry; the runs of terms tell it at once.
    fn refuse_append(&mut self, from: ReplicaId, term: Term, append: &crate::message::Append) {
        let mut heartbeat = convert::message(MessageType::MsgHeartbeat, from, self.id, term);
        heartbeat.commit = 0;
        self.step_raft(heartbeat);
        self.raft.msgs.retain(|message| message.get_msg_type() != MessageType::MsgHeartbeatResponse);
        let (hint, hint_term) = self.terms().may_match(append.start, append.term_before);
        let mut refusal = convert::message(MessageType::MsgAppendResponse, self.id, from, self.term());
        refusal.index = append.start.0;
        refusal.reject = true;
        refusal.reject_hint = hint.0;
        refusal.log_term = hint_term.0 as u64;
        refusal.commit = self.raft.raft_log.committed;
        self.raft.msgs.push(refusal);
    }

    /// Appends for a leader. The entries' bytes stay with the caller.
    pub fn propose(&mut self, count: usize) -> Result<(), NotProposed> {
        self.append(&mut vec![RaftEntry::default(); count])
    }

    /// Whether this replica leads, and hands its leadership to nobody.
    pub fn takes_proposals(&self) -> bool {
        let leads = self.raft.state == StateRole::Leader && self.raft.prs().get(self.id.0).is_some();
        leads && self.raft.lead_transferee.is_none()
    }

    fn append(&mut self, entries: &mut [RaftEntry]) -> Result<(), NotProposed> {
        if !self.takes_proposals() {
            return Err(NotProposed::NotLeading);
        }
        // It refuses for a bound on uncommitted bytes, of which it sees none.
        assert!(self.raft.append_entry(entries));
        self.raft.bcast_append();
        Ok(())
    }

    pub fn apply(&mut self, end: RaftIndex) {
        self.raft.commit_apply(end.0);
    }

    /// All below `end` is durable, and so is the hard state.
    pub fn set_persisted(&mut self, end: RaftIndex) {
        if let Some(term) = self.terms().before(end) {
            self.raft.on_persist_entries(end.0, term.0 as u64);
        }
    }

    /// Stands for election; `forced`: at a leader's own word, so without asking first whether it could win.
    pub fn campaign(&mut self, forced: bool) {
        let kind = if forced { MessageType::MsgTimeoutNow } else { MessageType::MsgHup };
        let mut message = RaftMessage::default();
        message.set_msg_type(kind);
        self.step_raft(message);
    }

    pub fn step_down(&mut self) {
        let term = self.raft.term;
        self.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Whether a majority was heard since the last question; a leader that wasn't steps down.
    pub fn check_quorum(&mut self) {
        let mut message = RaftMessage::default();
        message.set_msg_type(MessageType::MsgCheckQuorum);
        self.step_raft(message);
    }

    pub fn transfer(&mut self, to: ReplicaId) {
        let mut message = RaftMessage::default();
        message.set_msg_type(MessageType::MsgTransferLeader);
        message.from = to.0;
        self.step_raft(message);
    }

    /// What was sent to it last may be lost: its end is asked for anew.
    pub fn unreachable(&mut self, replica: ReplicaId) {
        let mut message = RaftMessage::default();
        message.set_msg_type(MessageType::MsgUnreachable);
        message.from = replica.0;
        self.step_raft(message);
    }

    /// Followers that need entries which are kept no more.
    pub fn take_wanted_snapshots(&mut self) -> Vec<ReplicaId> {
        self.raft.mut_store().take_wanted()
    }

    pub fn offer_snapshot(&mut self, to: ReplicaId, offer: &SnapshotOffer) {
        if self.raft.state != StateRole::Leader || self.raft.prs().get(to.0).is_none() {
            return;
        }
        self.raft.mut_store().set_offer(to, offer);
        self.raft.send_append(to.0);
        self.raft.mut_store().clear_offer();
    }

    pub fn snapshot_failed(&mut self, replica: ReplicaId) {
        let mut message = RaftMessage::default();
        message.set_msg_type(MessageType::MsgSnapStatus);
        message.from = replica.0;
        message.reject = true;
        self.step_raft(message);
    }

    /// The follower has what entries can follow: it is asked where, as at the beginning of a term.
    pub fn snapshot_unneeded(&mut self, replica: ReplicaId) {
        self.snapshot_failed(replica);
        let next = self.raft.raft_log.last_index() + 1;
        if let Some(progress) = self.raft.mut_prs().get_mut(replica.0)
            && progress.state == ProgressState::Probe
        {
            progress.next_idx = next;
        }
    }

    /// Whether what the offer has must be fetched: it is not already here.
    pub fn needs(&self, offer: &SnapshotOffer) -> bool {
        offer.end > self.committed() && self.terms().before(offer.end) != Some(offer.term)
    }

    /// Where the log has the offer's last entry it has all of it, and knows by the offer that it is committed.
    pub fn commit_offered(&mut self, offer: &SnapshotOffer) {
        if self.terms().before(offer.end) == Some(offer.term) {
            self.raft.raft_log.commit_to(offer.end.0);
        }
    }

    /// The offer's state is in place and durable: the log begins after it. False: it came too late, and nothing changed.
    pub fn install(&mut self, offer: &SnapshotOffer) -> bool {
        if self.raft.state != StateRole::Follower || !self.needs(offer) {
            return false;
        }
        let mut message =
            convert::message(MessageType::MsgSnapshot, ReplicaId(self.raft.leader_id), self.id, self.term());
        // raft-rs takes no snapshot of a group without this replica; one that joined after the snapshot is in none.
        let named = SnapshotOffer { membership: Membership::of_voters(&[self.id]), ..offer.clone() };
        message.set_snapshot(store::snapshot(&named));
        self.step_raft(message);
        if self.raft.raft_log.unstable_snapshot().is_none() {
            return false;
        }
        self.return_to(&offer.membership);
        self.raft.mut_store().begin_after(offer);
        self.raft.raft_log.stable_snap(offer.end.0);
        self.raft.on_persist_snap(offer.end.0);
        self.raft.commit_apply(offer.end.0);
        true
    }

    /// The entries below are kept no more.
    pub fn drop_below(&mut self, first: RaftIndex) {
        assert!(first <= self.applied(), "entries up to {first} dropped, {} applied", self.applied());
        self.raft.mut_store().terms.drop_below(first);
    }

    /// Entries that came in with the last input: the first index and term of each, in order.
    pub fn take_appended(&mut self) -> Vec<(RaftIndex, Term)> {
        let log = &mut self.raft.raft_log;
        let Some(last) = log.unstable_entries().last() else { return Vec::new() };
        let (last_index, last_term) = (last.index, last.term);
        let entries = std::mem::take(&mut log.unstable.entries);
        let appended: Vec<_> = entries.iter().map(convert::index_and_term).collect();
        let changes = entries.iter().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal);
        let changes: Vec<_> = changes.map(|entry| convert::index_and_term(entry).0).collect();
        log.store.put(&appended, &changes);
        log.unstable.entries = entries;
        log.stable_entries(last_index, last_term);
        appended
    }

    pub fn take_said(&mut self) -> Vec<Said> {
        let mut said: Vec<_> =
            std::mem::take(&mut self.raft.msgs).into_iter().filter_map(convert::from_raft).collect();
        for said in &mut said {
            if let Said::Append(order) = said {
                let progress = self.raft.prs().get(order.to.0);
                order.quiet = progress.is_some_and(|progress| progress.state == ProgressState::Replicate);
            }
        }
        said
    }

    /// What a group at rest can do without.
    pub fn shrink(&mut self) {
        self.raft.maybe_free_inflight_buffers();
    }

    #[cfg(test)]
    pub fn next_of(&self, replica: ReplicaId) -> (u64, u64) {
        let progress = self.raft.prs().get(replica.0).unwrap();
        (progress.next_idx, progress.matched)
    }
}

/// The guard of [`Core::is_stale_mismatch`], which a test takes away to show what it is for.
mod guard {
    #[cfg(test)]
    thread_local! {
        pub static OFF: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[cfg(test)]
    pub fn is_on() -> bool {
        !OFF.get()
    }

    #[cfg(not(test))]
    pub fn is_on() -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
