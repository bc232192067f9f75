//! What a group has to do to its log, in order.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::planted::{Fault, planted};
use corelog_io::{Queue, sleep, spawn};
use corelog_raft::{Change, Entry, HardState, Leadership, Membership, RaftIndex, Role};
use corelog_storage::{AppendError, FollowError};

use crate::install::Install;
use crate::{Replica, Replicas, entries};

/// How long an append waits that finds the disk full.
pub const FULL_RETRY: Duration = Duration::from_millis(500);

pub enum Work {
    Append(Vec<Entry>),
    HardState(HardState),
    Membership(RaftIndex, Membership),
    Leadership(Leadership),
    Committed(RaftIndex),
    LeaveJoint,
    Install(Install),
    Removed,
}

pub fn bytes_of(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.bytes.len() as u64).sum()
}

impl Replica {
    /// Does what is in line: at once what need not wait, the rest in a task of its own.
    pub(crate) fn work(self: &Rc<Self>, replicas: &Rc<Replicas>) {
        if self.at_work.get() {
            return;
        }
        loop {
            let next = self.work.borrow_mut().pop_front();
            let Some(next) = next else { return };
            if let Work::Append(entries) = &next {
                self.waiting.set(self.waiting.get() - bytes_of(entries));
            }
            let Some(waits) = self.do_at_once(next, replicas) else { continue };
            self.at_work.set(true);
            let (replica, replicas) = (self.clone(), replicas.clone());
            spawn(Queue::Produce, async move {
                replica.do_waiting(waits, &replicas).await;
                if replica.behind.take() && !replica.is_closed() {
                    replica.catch_up(&replicas).await;
                }
                replica.at_work.set(false);
                if !replica.is_closed() {
                    replica.work(&replicas);
                    replica.give_room_back();
                }
            })
            .detach();
            return;
        }
    }

    /// Gives back what has to wait.
    fn do_at_once(self: &Rc<Self>, work: Work, replicas: &Rc<Replicas>) -> Option<Work> {
        match work {
            Work::Append(mut entries) => {
                // What was proposed here is in the log.
                entries.retain(|entry| !self.has_entry(entry));
                return (!entries.is_empty()).then_some(Work::Append(entries));
            }
            Work::Membership(from, membership) => {
                let from = corelog_storage::RaftIndex(from.0);
                if let Err(error) = self.log.set_membership(from, membership.encode()) {
                    self.fail(&error, replicas);
                }
            }
            Work::Leadership(leadership) => {
                if leadership.role != Role::Leader {
                    replicas.giving.forget(self.group);
                }
                self.follow(leadership, &*replicas.owner);
            }
            Work::Committed(end) => {
                self.log.advance_commit(corelog_storage::RaftIndex(end.0));
                self.settle(&*replicas.owner);
                self.forget_dropped(replicas);
            }
            Work::Removed => replicas.owner.removed(self.log.id()),
            Work::HardState(_) | Work::LeaveJoint | Work::Install(_) => return Some(work),
        }
        None
    }

    fn has_entry(&self, entry: &Entry) -> bool {
        self.has(corelog_storage::RaftIndex(entry.index.0), entry.term)
    }

    async fn do_waiting(self: &Rc<Self>, work: Work, replicas: &Rc<Replicas>) {
        match work {
            Work::Append(entries) => {
                self.appending.set(true);
                self.append(&entries, replicas).await;
                self.appending.set(false);
            }
            Work::HardState(hard_state) => self.save(hard_state, replicas).await,
            Work::LeaveJoint => {
                // Asked for again while it is due.
                if let Err(error) = self.change(&Change::LeaveJoint).await {
                    tracing::debug!(log = %self.log.id(), %error, "a change of replicas is not finished yet");
                }
            }
            Work::Install(install) => self.install(install, replicas).await,
            _ => unreachable!("it is done at once"),
        }
    }

    async fn append(&self, entries: &[Entry], replicas: &Rc<Replicas>) {
        loop {
            match self.try_append(entries).await {
                Ok(()) if planted(Fault::AnsweredBeforeSync) => {
                    let end = entries.last().map(|last| (last.index.next(), last.term));
                    let (end, term) = end.expect("there are entries");
                    return replicas.drive(|driver, now| driver.durable(now, self.group, end, term));
                }
                Ok(()) => return,
                Err(FollowError::Append(AppendError::DiskFull { .. })) if !self.is_closed() => {
                    self.give_all_room_back();
                    sleep(FULL_RETRY).await;
                }
                Err(error) => return self.fail(&error, replicas),
            }
        }
    }

    async fn try_append(&self, entries: &[Entry]) -> Result<(), FollowError> {
        let Some(at) = entries.iter().position(|entry| !self.has_entry(entry)) else { return Ok(()) };
        let entries = &entries[at..];
        let first = corelog_storage::RaftIndex(entries[0].index.0);
        let term_before = self.term_before(first);
        let offset = self.log.offset_at(first).unwrap_or_else(|| self.log.log_end_offset());
        let entries = entries::to_log(entries, offset);
        let prev = (first, term_before.unwrap_or(corelog_storage::NO_TERM));
        let accepted = self.log.append_entries(prev, &entries).await?;
        // What is durable the log's progress tells.
        drop(accepted.durable);
        Ok(())
    }

    async fn save(self: &Rc<Self>, hard_state: HardState, replicas: &Rc<Replicas>) {
        let kept = corelog_storage::HardState {
            term: hard_state.term.0,
            vote: hard_state.vote.map_or(-1, |vote| vote.0 as i64),
        };
        self.saved.set(Some(kept));
        let durable = match self.log.set_hard_state(kept).await {
            Ok(durable) => durable,
            Err(error) => return self.fail(&error, replicas),
        };
        let (replica, replicas) = (self.clone(), replicas.clone());
        spawn(Queue::Produce, async move {
            match durable.await {
                Ok(()) => {
                    replicas.drive(|driver, now| driver.hard_state_durable(now, replica.group, hard_state));
                }
                Err(error) => replica.fail(&error, &replicas),
            }
        })
        .detach();
    }

    /// The log does not take what the group has, or the group finds a rule broken: this replica stops here, and the others go on.
    pub(crate) fn fail(&self, error: &dyn std::fmt::Display, replicas: &Replicas) {
        if !self.is_closed() && !replicas.stopped.get() {
            tracing::error!(log = %self.log.id(), %error, "this replica has stopped");
            replicas.close(self.log.id());
            replicas.owner.stopped(self.log.id());
        }
    }
}
