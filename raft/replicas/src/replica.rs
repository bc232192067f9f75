//! One replica: its log, what waits to be done to it, and who waits for what is committed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use corelog_io::sync::{OneshotSender, oneshot};
use corelog_raft::{Change, GroupId, GroupTurn, Leadership, ReplicaId, Role, Term};
use corelog_storage::{AppendBatch, AppendError, BatchKind, Log, RaftIndex};

use crate::found::{index, term};
use crate::work::Work;
use crate::{Owner, Replicas, entries, leads};

pub struct Replica {
    pub(crate) replicas: Weak<Replicas>,
    pub(crate) group: GroupId,
    pub(crate) log: Rc<Log>,
    /// Batches that its log took and the driver does not know yet.
    pub(crate) proposed: Cell<usize>,
    pub(crate) work: RefCell<VecDeque<Work>>,
    pub(crate) at_work: Cell<bool>,
    led: Cell<Led>,
    waits: RefCell<VecDeque<Wait>>,
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
    pub(crate) fn new(replicas: Weak<Replicas>, group: GroupId, log: Rc<Log>) -> Replica {
        Replica {
            replicas,
            group,
            log,
            proposed: Cell::new(0),
            work: RefCell::default(),
            at_work: Cell::new(false),
            led: Cell::new(Led { term: Term(0), leader: None, serves: false }),
            waits: RefCell::default(),
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
            self.waits.borrow_mut().push_back(Wait { index, term, told });
        }
        async move { hears.await.unwrap_or(Err(NotCommitted)) }
    }

    fn outcome(&self, index: RaftIndex, term: i32) -> Result<(), NotCommitted> {
        // What is not known any more was committed long ago, as what it was.
        let is_it = self.log.term_at(index).is_none_or(|found| found == term);
        if is_it { Ok(()) } else { Err(NotCommitted) }
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

    /// Puts what a turn gives the group to do in line.
    pub(crate) fn take(&self, turn: GroupTurn) {
        let mut work = self.work.borrow_mut();
        if let Some(violation) = turn.violation {
            tracing::error!(log = %self.log.id(), %violation, "this replica has stopped: a rule of replication is broken");
        }
        if !turn.append.is_empty() {
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
        let led = Led { term, leader, serves: leads(role) && before.serves && before.term == term };
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

    fn leads_in(&self, term: Term) -> bool {
        let Some(replicas) = self.replicas.upgrade() else { return false };
        let driver = replicas.driver.borrow();
        let leadership = driver.group(self.group).map(|group| group.leadership());
        leadership.is_some_and(|leadership| leads(leadership.role) && leadership.term == term)
    }

    fn give_up_waits(&self) {
        for wait in self.waits.take() {
            let _hears = wait.told.send(Err(NotCommitted));
        }
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.log.watch_progress(false);
        self.log.lead_by(None);
        self.work.borrow_mut().clear();
        self.give_up_waits();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
