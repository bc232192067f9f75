//! One Raft group: what one replica says, and when it may.
//!
//! Values in, values out. Each input ends in an [`Output`] that grows until [`Group::take_output`]; what waits for
//! stable storage waits in [`Gate`]; what time does is in [`time`]; whether this replica may believe that it leads is
//! [`lease`]'s.

mod change;
mod gate;
mod hear;
mod lease;
mod open;
mod time;

use bytes::Bytes;

use crate::config::Timing;
use crate::core::{AppendOrder, Core, NotProposed, Progress, Role, Said, Violation};
use crate::ids::{RaftIndex, ReplicaId, Term, Tick};
use crate::log::{Entry, EntryKind, HardState};
use crate::membership::{Change, Membership};
use crate::message::*;
use crate::random::Random;

use gate::Gate;
use lease::Lease;
pub use open::OpenError;
use time::Clock;

/// Who leads, as this replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    pub term: Term,
    pub leader: Option<ReplicaId>,
}

/// What the shard has to do. `append` and `hard_state` go to stable storage, in this order; everything else here may be
/// done at once: what had to wait for stable storage has waited.
#[derive(Debug, Default)]
pub struct Output {
    /// In order, without gaps. Where the first is below the log's next index, the log is cut there before.
    pub append: Vec<Entry>,
    pub hard_state: Option<HardState>,
    pub messages: Vec<Message>,
    pub orders: Vec<AppendOrder>,
    /// All below is committed, on a majority's stable storage, though perhaps not yet on this replica's.
    pub committed: Option<RaftIndex>,
    pub leadership: Option<Leadership>,
    /// What holds for the entries from this index on, to be kept with the log.
    pub membership: Option<(RaftIndex, Membership)>,
    /// A joint configuration has done its work: [`Group::leave_joint`]. Not by itself, since whoever keeps a leader's log gives
    /// its entries their places.
    pub leave_joint: bool,
    /// Followers that need what the log no longer has: [`Group::offer_snapshot`] when there is something to fetch.
    pub snapshots_wanted: Vec<ReplicaId>,
    /// To be fetched from the leader, and [`Group::snapshot_installed`] told when it is in place. It is said again while the
    /// leader does not know that.
    pub install: Option<SnapshotOffer>,
    /// The group goes on without this replica.
    pub removed: bool,
}

impl Output {
    pub fn is_empty(&self) -> bool {
        self.append.is_empty()
            && self.hard_state.is_none()
            && self.messages.is_empty()
            && self.orders.is_empty()
            && self.committed.is_none()
            && self.leadership.is_none()
            && self.membership.is_none()
            && !self.leave_joint
            && self.snapshots_wanted.is_empty()
            && self.install.is_none()
            && !self.removed
    }
}

/// Why a proposal or a request was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this replica does not lead the group, or hands its leadership over just now")]
    NotLeading { leader: Option<ReplicaId> },
    #[error("another change of the group's replicas is under way; wait until it is through")]
    ChangeUnderWay,
    #[error("a group can't have these replicas: it keeps one voter at least, and each replica has one role")]
    BadMembership,
    #[error("replica {0} is no voter of the group")]
    NotAVoter(ReplicaId),
    #[error("the group has a leader that was heard lately")]
    HasLeader,
    #[error("this replica can't be elected now: it is no voter, or has yet to make its log durable")]
    NotElectable,
}

pub struct Group {
    id: ReplicaId,
    core: Core,
    gate: Gate,
    clock: Clock,
    lease: Lease,
    /// Each with the index from which it holds: the last one that is committed, then those that are not. The last is in
    /// force.
    memberships: Vec<(RaftIndex, Membership)>,
    leadership: Leadership,
    committed: RaftIndex,
    /// Of the heartbeat that is being answered.
    echo: HeartbeatAnswer,
    /// The append that is being heard wants no answer that the logs match.
    quiet: bool,
    resting: bool,
    /// Replicas that can't be reached, as the driver last said.
    away: Vec<ReplicaId>,
    /// When to ask the followers that were offered a snapshot what they have.
    offers: Vec<(ReplicaId, Tick)>,
    removed: bool,
    output: Output,
}

/// Where the bytes of new entries are.
enum Payloads<'a> {
    /// Of a leader's append.
    Received(&'a [Entry]),
    /// Proposed here.
    Own(EntryKind, Vec<Bytes>),
    None,
}

impl Group {
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership
    }

    /// In force here: the last in the log.
    pub fn membership(&self) -> &Membership {
        &self.memberships.last().expect("there always is one").1
    }

    pub fn committed(&self) -> RaftIndex {
        self.core.committed()
    }

    /// Below this all is committed and durable here, and its changes are in force.
    pub fn applied(&self) -> RaftIndex {
        self.core.applied()
    }

    pub fn next_index(&self) -> RaftIndex {
        self.core.terms().next()
    }

    pub fn is_resting(&self) -> bool {
        self.resting
    }

    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// The followers, of a leader.
    pub fn followers(&self) -> impl Iterator<Item = Progress> {
        self.core.followers()
    }

    /// Appends to the group's log as one list, one entry a batch, and says where it begins. Followers and this replica's
    /// own log make it durable at the same time.
    pub fn propose(&mut self, now: Tick, batches: Vec<Bytes>) -> Result<RaftIndex, Refused> {
        self.clock.now = now;
        let start = self.next_index();
        self.core.propose(batches.len()).map_err(|why| self.refused(why))?;
        self.wake();
        self.absorb_own(Payloads::Own(EntryKind::Batch, batches));
        Ok(start)
    }

    /// Whether a proposal of now would be taken, in this term and at this index.
    pub fn would_take(&self, term: Term, index: RaftIndex) -> bool {
        self.core.takes_proposals() && self.core.term() == term && self.next_index() == index
    }

    fn refused(&self, why: NotProposed) -> Refused {
        match why {
            NotProposed::NotLeading => Refused::NotLeading { leader: self.core.leader() },
            NotProposed::ChangeUnderWay => Refused::ChangeUnderWay,
            NotProposed::Refused => Refused::BadMembership,
        }
    }

    /// The log is durable below `end`, and its last entry there is of `term`. To be told of the log as the outputs taken
    /// so far made it.
    pub fn durable(&mut self, now: Tick, end: RaftIndex, term: Term) -> Result<(), Violation> {
        self.clock.now = now;
        if self.core.terms().before(end) == Some(term) {
            self.gate.durable(end);
        }
        self.absorb(Payloads::None)
    }

    pub fn hard_state_durable(&mut self, now: Tick, saved: HardState) -> Result<(), Violation> {
        self.clock.now = now;
        self.gate.hard_state_durable(saved);
        self.absorb(Payloads::None)
    }

    /// Retention took the entries below `first`, all of them below [`Group::applied`] and known to the log as committed:
    /// the output that says so was taken.
    pub fn drop_below(&mut self, first: RaftIndex) {
        self.core.drop_below(first);
    }

    /// There is state for this follower to fetch, and it is told so. If it does not have it in time it shows up in
    /// [`Output::snapshots_wanted`] again.
    pub fn offer_snapshot(&mut self, now: Tick, to: ReplicaId, offer: &SnapshotOffer) {
        self.clock.now = now;
        self.core.offer_snapshot(to, offer);
        self.offers.retain(|&(replica, _)| replica != to);
        self.offers.push((to, now.after(self.clock.timing.snapshot)));
        self.absorb_own(Payloads::None);
    }

    pub fn snapshot_failed(&mut self, now: Tick, follower: ReplicaId) {
        self.clock.now = now;
        self.core.snapshot_failed(follower);
        self.absorb_own(Payloads::None);
    }

    /// The follower of an offer has what entries can follow: it is asked where.
    pub fn snapshot_unneeded(&mut self, now: Tick, follower: ReplicaId) {
        self.clock.now = now;
        self.wake();
        self.core.snapshot_unneeded(follower);
        self.absorb_own(Payloads::None);
    }

    /// The offer's state is in place and durable, and the log begins anew at its end. To be told when all outputs are taken.
    /// False: it came too late and is of no use; [`Group::needs_snapshot`] says so before the log is touched.
    pub fn snapshot_installed(&mut self, now: Tick, offer: &SnapshotOffer) -> bool {
        self.clock.now = now;
        if !self.core.install(offer) {
            return false;
        }
        self.gate.begin_anew(offer.end);
        self.memberships = vec![(offer.end, offer.membership.clone())];
        self.output.membership = Some((offer.end, offer.membership.clone()));
        self.absorb_own(Payloads::None);
        true
    }

    pub fn needs_snapshot(&self, offer: &SnapshotOffer) -> bool {
        self.core.needs(offer) && self.leadership.role == Role::Follower
    }

    /// What was sent to this replica may be lost.
    pub fn unreachable(&mut self, now: Tick, replica: ReplicaId) {
        self.clock.now = now;
        self.core.unreachable(replica);
        self.absorb_own(Payloads::None);
    }

    pub fn take_output(&mut self) -> Output {
        self.gate.handed_over();
        std::mem::take(&mut self.output)
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// After an input of this replica's own side, which can't break a rule.
    fn absorb_own(&mut self, payloads: Payloads<'_>) {
        self.absorb(payloads).expect("this replica keeps the rules");
    }

    /// Takes what the core made of the last input, and does what follows from it.
    fn absorb(&mut self, mut payloads: Payloads<'_>) -> Result<(), Violation> {
        loop {
            self.take_entries(std::mem::replace(&mut payloads, Payloads::None))?;
            self.note_leadership();
            self.note_hard_state();
            for said in self.core.take_said() {
                if self.quiet && is_match(&said) {
                    continue;
                }
                let said = self.complete(said);
                self.gate.say(said, self.core.hard_state());
            }
            self.gate.release(&mut self.output);
            if !self.advance() {
                break;
            }
        }
        self.output.snapshots_wanted.append(&mut self.core.take_wanted_snapshots());
        let committed = self.core.committed();
        if committed > self.committed {
            self.committed = committed;
            self.output.committed = Some(committed);
        }
        self.end_joint();
        Ok(())
    }

    fn take_entries(&mut self, payloads: Payloads<'_>) -> Result<(), Violation> {
        let appended = self.core.take_appended();
        let Some(&(first, _)) = appended.first() else { return Ok(()) };
        self.gate.append(first, self.core.terms().next());
        // What nobody took yet and is replaced already never reaches the log.
        self.output.append.retain(|entry| entry.index < first);
        self.cut_memberships(first);
        let mut own = match &payloads {
            Payloads::Own(kind, batches) => batches.iter().map(|bytes| (*kind, bytes.clone())).collect(),
            _ => Vec::new(),
        }
        .into_iter();
        for (index, term) in appended {
            let (kind, bytes) = match payloads {
                Payloads::Received(entries) if !entries.is_empty() => {
                    let entry = &entries[(index.0 - entries[0].index.0) as usize];
                    (entry.kind, entry.bytes.clone())
                }
                _ => own.next().unwrap_or((EntryKind::TermStart, Bytes::new())),
            };
            if kind == EntryKind::Membership {
                self.begin_change(index, &bytes)?;
            }
            self.output.append.push(Entry { index, term, kind, bytes });
        }
        Ok(())
    }

    fn note_hard_state(&mut self) {
        let hard_state = self.core.hard_state();
        if self.gate.must_save(hard_state) {
            self.output.hard_state = Some(hard_state);
        }
    }

    fn note_leadership(&mut self) {
        let leadership =
            Leadership { role: self.core.role(), term: self.core.term(), leader: self.core.leader() };
        let before = std::mem::replace(&mut self.leadership, leadership);
        if before == leadership {
            return;
        }
        self.output.leadership = Some(leadership);
        let changed = (before.role, before.term) != (leadership.role, leadership.term);
        if changed {
            self.resting = false;
            self.lease.clear();
            self.offers.clear();
            self.clock.role_changed(leadership.role);
            if before.term != leadership.term {
                self.clock.leader_sent = Tick(0);
            }
        }
    }

    /// Gives the core's words what only the group knows.
    fn complete(&mut self, said: Said) -> Said {
        let Said::Message(mut message) = said else { return said };
        let now = self.clock.now;
        match &mut message.body {
            Body::HeartbeatAnswer(answer) => {
                let all_said = self.all_is_said() && self.echo.committed == self.next_index();
                answer.sent = self.echo.sent;
                answer.rest = self.echo.rest && all_said;
                self.resting = answer.rest;
            }
            Body::TimeoutNow { sent } => *sent = now,
            _ => {}
        }
        Said::Message(message)
    }

    /// Tells the core what is durable and committed. True: there may be more to take from it.
    fn advance(&mut self) -> bool {
        let before = (self.core.persisted(), self.core.committed(), self.core.applied());
        if let Some(durable) = self.gate.persisted() {
            self.core.set_persisted(durable);
        }
        let end = self.core.committed().min(self.core.persisted());
        if end > self.core.applied() {
            self.core.apply(end);
        }
        // Durable here or not: whoever keeps it knows it before the log can say that the entry is committed.
        let committed = self.core.committed();
        while self.memberships.get(1).is_some_and(|&(from, _)| from <= committed) {
            let belonged = self.memberships.remove(0).1.contains(self.id);
            let (from, membership) = self.memberships[0].clone();
            // A new replica goes through the changes from before it was one.
            if belonged && !membership.contains(self.id) {
                self.removed = true;
                self.output.removed = true;
            }
            self.output.membership = Some((from, membership));
            self.core.keep_changes(from);
        }
        before != (self.core.persisted(), self.core.committed(), self.core.applied())
    }
}

fn is_match(said: &Said) -> bool {
    let Said::Message(Message { body: Body::AppendAnswer(answer), .. }) = said else { return false };
    matches!(answer.outcome, Outcome::Matched { .. })
}

#[cfg(test)]
mod tests;
