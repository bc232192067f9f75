//! One replica: its log, what waits to be done to it, and who waits for what is committed.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use corelog_io::sync::{OneshotSender, oneshot};
use corelog_raft::{
    Change, GroupId, GroupTurn, Leadership, Membership, PeerId, Progress, ReplicaId, Role, Term,
};
use corelog_storage::{AppendBatch, AppendError, BatchKind, HardState, Log, RaftIndex, StorageError};

use crate::found::{index, term};
use crate::work::{Work, bytes_of};
use crate::{Opening, Owner, Replicas, entries};

pub struct Replica {
    pub(crate) replicas: Weak<Replicas>,
    pub(crate) group: GroupId,
    pub(crate) log: Rc<Log>,
    pub(crate) id: ReplicaId,
    pub(crate) founders: Membership,
    pub(crate) places: RefCell<Vec<(ReplicaId, PeerId)>>,
    /// The term and vote that the journal was given last.
    pub(crate) saved: Cell<Option<HardState>>,
    /// Where the log began when its group was told.
    first: Cell<RaftIndex>,
    /// Batches that its log took and the driver does not know yet.
    pub(crate) proposed: Cell<usize>,
    pub(crate) work: RefCell<VecDeque<Work>>,
    /// Bytes of entries in it.
    pub(crate) waiting: Cell<u64>,
    /// An append is under way.
    pub(crate) appending: Cell<bool>,
    /// What the memory of entries counts by that the log does not have yet, with the last of each.
    rooms: RefCell<VecDeque<Room>>,
    /// The group is closed since its log did not keep up.
    pub(crate) behind: Cell<bool>,
    pub(crate) at_work: Cell<bool>,
    led: Cell<Led>,
    /// In order. As many as batches wait for a majority, which the log bounds, and requests that ask for one again.
    waits: RefCell<VecDeque<Wait>>,
    /// How many were left when it was last looked who is still there.
    waited: Cell<usize>,
    closed: Cell<bool>,
}

/// Who leads, as this replica knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    pub term: Term,
    pub leader: Option<ReplicaId>,
    /// This replica leads, and has committed in its own term: it knows all that was committed before.
    pub serves: bool,
}

struct Room {
    last: (RaftIndex, Term),
    _room: Box<dyn Any>,
}

/// Someone who waits until a batch is committed.
struct Wait {
    index: RaftIndex,
    term: i32,
    told: OneshotSender<Result<(), NotCommitted>>,
}

/// What was appended is not committed, as far as this replica knows; it may be all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the partition is led by another broker now, or by none")]
pub struct NotCommitted;

impl Replica {
    pub(crate) fn new(replicas: Weak<Replicas>, group: GroupId, log: Rc<Log>, opening: Opening) -> Replica {
        Replica {
            replicas,
            group,
            saved: Cell::new(None),
            first: Cell::new(log.first_index()),
            log,
            id: opening.id,
            founders: opening.founders,
            places: RefCell::new(opening.places),
            proposed: Cell::new(0),
            work: RefCell::default(),
            waiting: Cell::new(0),
            appending: Cell::new(false),
            rooms: RefCell::default(),
            behind: Cell::new(false),
            at_work: Cell::new(false),
            led: Cell::new(Led { term: Term(0), leader: None, serves: false }),
            waits: RefCell::default(),
            waited: Cell::new(0),
            closed: Cell::new(false),
        }
    }

    pub fn log(&self) -> &Rc<Log> {
        &self.log
    }

    pub fn led(&self) -> Led {
        self.led.get()
    }

    /// Completes when the batch that was appended at `index`, in `term`, is committed.
    pub fn committed(
        &self,
        index: RaftIndex,
        term: i32,
    ) -> impl Future<Output = Result<(), NotCommitted>> + use<> {
        let (told, hears) = oneshot();
        if self.log.commit_index() > index {
            let _hears = told.send(self.outcome(index, term));
        } else if self.closed.get() || self.led.get().term.0 != term {
            let _hears = told.send(Err(NotCommitted));
        } else {
            let mut waits = self.waits.borrow_mut();
            waits.push_back(Wait { index, term, told });
            // Retries ask again for what is there: who has gone waits no more.
            if waits.len() > 2 * self.waited.get().max(32) {
                waits.retain(|wait| !wait.told.is_closed());
                self.waited.set(waits.len());
            }
        }
        async move { hears.await.unwrap_or(Err(NotCommitted)) }
    }

    fn outcome(&self, index: RaftIndex, term: i32) -> Result<(), NotCommitted> {
        // What is not known any more was committed long ago, as what it was.
        let is_it = self.log.term_at(index).is_none_or(|found| found == term);
        if is_it { Ok(()) } else { Err(NotCommitted) }
    }

    /// Completes when all that the log has now is committed: what a retry repeats, too.
    pub fn all_committed(&self) -> impl Future<Output = Result<(), NotCommitted>> + use<> {
        let last = self.log.next_index().0.checked_sub(1).map(RaftIndex);
        let known = last.and_then(|last| Some((last, self.log.term_at(last)?)));
        // Of what is not known any more all is committed.
        let waits = known.map(|(last, term)| self.committed(last, term));
        async move {
            match waits {
                Some(waits) => waits.await,
                None => Ok(()),
            }
        }
    }

    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// In force here, committed or not.
    pub fn membership(&self) -> Option<Membership> {
        self.of_group(|group| group.membership().clone())
    }

    /// What the others have, as far as their leader knows; of another replica nothing.
    pub fn followers(&self) -> Vec<Progress> {
        self.of_group(|group| group.followers().collect()).unwrap_or_default()
    }

    fn of_group<T>(&self, of: impl FnOnce(&corelog_raft::Group) -> T) -> Option<T> {
        let replicas = self.replicas.upgrade()?;
        let driver = replicas.driver.borrow();
        driver.group(self.group).map(of)
    }

    /// Changes the group's replicas, as its leader. The change is in force when this returns, and holds when it is committed.
    pub async fn change(&self, change: &Change) -> Result<RaftIndex, AppendError> {
        let batch = AppendBatch {
            bytes: entries::change_batch(change),
            kind: BatchKind::Internal,
            leader_epoch: self.led.get().term.0,
        };
        let appended = self.log.append(batch).await?;
        Ok(appended.index.expect("it is no retry"))
    }

    /// The end of what is durable, and the term of its last entry.
    pub(crate) fn durable_end(&self) -> (corelog_raft::RaftIndex, Term) {
        let end = self.log.durable_index();
        let last = end.0.checked_sub(1).map(RaftIndex);
        let known = last.and_then(|last| self.log.term_at(last));
        (index(end), term(known.unwrap_or_else(|| self.log.term_before_first())))
    }

    pub(crate) fn peer_of(&self, replica: ReplicaId) -> Option<PeerId> {
        self.places.borrow().iter().find(|&&(id, _)| id == replica).map(|&(_, peer)| peer)
    }

    /// Completes when all that the log was given is on stable storage, and the group's last term and vote.
    pub(crate) async fn sync(&self) -> Result<(), StorageError> {
        let saved = self.saved.get().unwrap_or_else(|| self.log.hard_state());
        self.log.set_hard_state(saved).await?.await
    }

    /// The group is to know where its log begins now.
    pub(crate) fn forget_dropped(&self, replicas: &Replicas) {
        let first = self.log.first_index();
        if self.first.get() == first {
            return;
        }
        let (end, last) = self.durable_end();
        replicas.drive(|driver, now| {
            driver.durable(now, self.group, end, last);
            let knows = driver.group(self.group).is_some_and(|group| group.applied() >= index(first));
            if knows {
                driver.drop_below(self.group, index(first));
                self.first.set(first);
            }
        });
    }

    pub(crate) fn put(self: &Rc<Self>, work: Work, replicas: &Rc<Replicas>) {
        if !self.closed.get() {
            self.work.borrow_mut().push_back(work);
            self.work(replicas);
        }
    }

    /// Does what a turn gives the group to do.
    pub(crate) fn take(self: &Rc<Self>, mut turn: GroupTurn, replicas: &Rc<Replicas>) {
        if let Some(violation) = &turn.violation {
            return self.fail(violation, replicas);
        }
        replicas.offer(self, std::mem::take(&mut turn.snapshots_wanted));
        turn.install.take().into_iter().for_each(|offer| replicas.install_later(self, offer));
        self.line_up(turn);
        self.work(replicas);
        if self.waiting.get() > replicas.waiting_max {
            tracing::warn!(log = %self.log.id(), "the log takes entries too slowly: its replica leaves the group until they are in");
            self.leave(replicas);
            self.behind.set(true);
        }
    }

    /// In the order that it has to be done in.
    fn line_up(&self, turn: GroupTurn) {
        let mut work = self.work.borrow_mut();
        if !turn.append.is_empty() {
            self.waiting.set(self.waiting.get() + bytes_of(&turn.append));
            work.push_back(Work::Append(turn.append));
        }
        work.extend(turn.hard_state.map(Work::HardState));
        work.extend(turn.membership.map(|(from, membership)| Work::Membership(from, membership)));
        work.extend(turn.leadership.map(Work::Leadership));
        work.extend(turn.committed.map(Work::Committed));
        if turn.leave_joint {
            work.push_back(Work::LeaveJoint);
        }
        if turn.removed {
            work.push_back(Work::Removed);
        }
    }

    pub(crate) fn follow(&self, leadership: Leadership, owner: &dyn Owner) {
        let Leadership { term, leader, role } = leadership;
        let before = self.led.get();
        let led = Led { term, leader, serves: role == Role::Leader && before.serves && before.term == term };
        if before == led {
            return;
        }
        self.led.set(led);
        if role != Role::Leader || before.term != term {
            self.give_up_waits();
        }
        owner.led(self.log.id(), led);
    }

    /// What is committed may have moved.
    pub(crate) fn settle(&self, owner: &dyn Owner) {
        let committed = self.log.commit_index();
        let next = || self.waits.borrow_mut().pop_front_if(|wait| wait.index < committed);
        while let Some(wait) = next() {
            let outcome = self.outcome(wait.index, wait.term);
            let _hears = wait.told.send(outcome);
        }
        let led = self.led.get();
        let leads = self.leads_in(led.term);
        let last = committed.0.checked_sub(1).map(RaftIndex);
        let in_own_term = last.and_then(|last| self.log.term_at(last)) == Some(led.term.0);
        if leads && !led.serves && in_own_term {
            let led = Led { serves: true, ..led };
            self.led.set(led);
            owner.led(self.log.id(), led);
        }
    }

    pub(crate) fn leads_in(&self, term: Term) -> bool {
        let leadership = self.of_group(|group| group.leadership());
        leadership.is_some_and(|leadership| leadership.role == Role::Leader && leadership.term == term)
    }

    fn give_up_waits(&self) {
        for wait in self.waits.take() {
            let _hears = wait.told.send(Err(NotCommitted));
        }
    }

    /// Whether it is the first.
    pub(crate) fn keep_room<R: 'static>(&self, last: (RaftIndex, Term), room: R) -> bool {
        let mut rooms = self.rooms.borrow_mut();
        rooms.push_back(Room { last, _room: Box::new(room) });
        rooms.len() == 1
    }

    /// The room of entries that the log has, or that nobody has.
    pub(crate) fn give_room_back(&self) {
        let waits = |work: &Work| matches!(work, Work::Append(_));
        if !self.appending.get() && !self.work.borrow().iter().any(waits) {
            return self.give_all_room_back();
        }
        let is_in_log = |room: &mut Room| self.has(room.last.0, room.last.1);
        let next = || self.rooms.borrow_mut().pop_front_if(is_in_log);
        while let Some(room) = next() {
            drop(room);
        }
    }

    pub(crate) fn give_all_room_back(&self) {
        let rooms = self.rooms.take();
        drop(rooms);
    }

    /// What is gone was committed.
    pub(crate) fn has(&self, index: RaftIndex, term: Term) -> bool {
        index < self.log.first_index() || self.log.term_at(index) == Some(term.0)
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.log.watch_progress(false);
        self.log.lead_by(None);
        self.clear_work();
        self.give_all_room_back();
        self.give_up_waits();
    }

    pub(crate) fn clear_work(&self) {
        self.work.borrow_mut().clear();
        self.waiting.set(0);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
