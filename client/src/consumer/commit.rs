//! Committing a consumer's positions, in order.
//!
//! One commit is under way at a time. What comes meanwhile is merged by partition into the next one, the newest offset winning, and
//! what is to be retried is put back only where nothing newer has come: so an older offset never lands after a newer one.

use super::Shared;
use super::buffer::{Buffer, Position};
use crate::core::Core;
use crate::driver::{self, Event};
use crate::error::{Error, Result};
use crate::groups::{self, Committer, NewOffset};
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use corelog_wire::{ErrorCode, Str};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What waits to be committed, what is under way, and who wants to know.
#[derive(Default)]
pub(super) struct Commits {
    next: BTreeMap<TopicPartition, Entry>,
    under_way: BTreeMap<TopicPartition, Entry>,
    waiters: Vec<Waiter>,
    sequence: u64,
    /// Nobody commits any more.
    ended: bool,
}

#[derive(Clone)]
struct Entry {
    new: NewOffset,
    /// Of the latest waiter that wanted this.
    sequence: u64,
    /// As whose it was committed: in a later generation the partition may be another member's.
    generation: i32,
}

struct Waiter {
    sequence: u64,
    begun: Instant,
    retries: bool,
    left: BTreeSet<TopicPartition>,
    failed: Option<Error>,
    /// Without one, polls tell of failures.
    answer: Option<oneshot::Sender<Result<()>>>,
}

pub(super) type Told = oneshot::Receiver<Result<()>>;

/// How a commit is to be made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Retried until `api_timeout`; the application says that it is done with this.
    Explicit,
    /// The same, with failures told by polls.
    Background,
    /// Of what is processed by the rule of polling, retried.
    Processed,
    /// The same, tried once.
    ProcessedOnce,
}

pub(super) fn offsets(positions: BTreeMap<TopicPartition, Position>) -> BTreeMap<TopicPartition, NewOffset> {
    let offset = |position: Position| NewOffset {
        offset: position.offset,
        leader_epoch: position.leader_epoch,
        metadata: String::new(),
    };
    positions.into_iter().map(|(at, position)| (at, offset(position))).collect()
}

impl Commits {
    /// Whether something is to be committed for it, or just being.
    pub(super) fn is_pending(&self, at: &TopicPartition) -> bool {
        self.next.contains_key(at) || self.under_way.contains_key(at)
    }

    /// Lets go of waiters that have gone and, in the background, of those that wait for less than this: so there are no more of them
    /// than callers and partitions. Their patience goes over, or a lasting failure would never be told.
    fn supersede(&mut self, offsets: &BTreeMap<TopicPartition, NewOffset>, manner: Manner) -> Instant {
        let mut begun = driver::now();
        self.waiters.retain_mut(|waiter| match &waiter.answer {
            Some(answer) => !answer.is_canceled(),
            None if manner == Manner::Background => {
                let before = waiter.left.len();
                waiter.left.retain(|at| !offsets.contains_key(at));
                if waiter.left.len() < before {
                    begun = begun.min(waiter.begun);
                }
                // One that failed in part has something to tell.
                !waiter.left.is_empty() || waiter.failed.is_some()
            }
            None => true,
        });
        begun
    }
}

impl Buffer {
    /// Queues a commit. What comes of it is told, unless in the background.
    pub(super) fn commit(&mut self, offsets: BTreeMap<TopicPartition, NewOffset>, manner: Manner) -> Told {
        let (tx, told) = oneshot::channel();
        if self.commits.ended || offsets.is_empty() {
            let _ = tx.send(if offsets.is_empty() { Ok(()) } else { Err(Error::Closed) });
            return told;
        }
        if matches!(manner, Manner::Explicit | Manner::Background) {
            self.confirm(&offsets);
        }
        let generation = self.committer.as_ref().map_or(-1, |committer| committer.generation);
        let begun = self.commits.supersede(&offsets, manner);
        let commits = &mut self.commits;
        commits.sequence += 1;
        let sequence = commits.sequence;
        commits.waiters.push(Waiter {
            sequence,
            begun,
            retries: manner != Manner::ProcessedOnce,
            left: offsets.keys().cloned().collect(),
            failed: None,
            answer: (manner != Manner::Background).then_some(tx),
        });
        commits.next.extend(offsets.into_iter().map(|(at, new)| (at, Entry { new, sequence, generation })));
        self.tell_driver();
        told
    }

    /// Tells when what is queued now is committed, or given up.
    fn queued_commits(&mut self) -> Option<Told> {
        let Commits { next, under_way, .. } = &self.commits;
        let left: BTreeSet<TopicPartition> = next.keys().chain(under_way.keys()).cloned().collect();
        if left.is_empty() {
            return None;
        }
        let (tx, told) = oneshot::channel();
        self.commits.waiters.push(Waiter {
            sequence: 0,
            begun: driver::now(),
            retries: true,
            left,
            failed: None,
            answer: Some(tx),
        });
        Some(told)
    }

    /// What earlier polls gave, where it is not committed yet, nor about to be.
    pub(super) fn uncommitted(&self) -> BTreeMap<TopicPartition, NewOffset> {
        let mut new = self.processed();
        new.retain(|at, position| {
            let queued = self.commits.next.get(at).or(self.commits.under_way.get(at));
            let known = queued.map(|entry| entry.new.offset).or(self.committed.get(at).copied());
            known != Some(position.offset)
        });
        offsets(new)
    }

    /// These partitions go to other members: what is not committed by now is theirs to read again.
    pub(super) fn revoke_commits(&mut self, partitions: &BTreeSet<TopicPartition>, group: &str) {
        for at in partitions {
            let next = self.commits.next.remove(at);
            if self.commits.under_way.remove(at).or(next).is_some() {
                let reason = format!("{at} was taken away before its offset was committed");
                self.conclude(at, self.commits.sequence, Err(not_member(group, reason)));
            }
        }
    }

    /// What to commit now, and in whose name.
    fn take_commits(&mut self, group: &str) -> Option<(Committer, BTreeMap<TopicPartition, NewOffset>)> {
        let committer = match (&self.committer, &self.subscription) {
            (Some(committer), _) => Some(committer.clone()),
            (None, None) => Some(Committer::nobody()),
            (None, Some(_)) => None,
        };
        for (at, entry) in std::mem::take(&mut self.commits.next) {
            let reason = match &committer {
                None => "it has not joined, or was expelled; what it read since will be read again",
                Some(committer)
                    if committer.generation != entry.generation && !self.partitions.contains_key(&at) =>
                {
                    "the partition is no longer its own"
                }
                Some(_) => {
                    self.commits.under_way.insert(at, entry);
                    continue;
                }
            };
            self.conclude(&at, entry.sequence, Err(not_member(group, reason)));
        }
        let entries = self.commits.under_way.iter();
        let offsets: BTreeMap<_, _> = entries.map(|(at, entry)| (at.clone(), entry.new.clone())).collect();
        committer.filter(|_| !offsets.is_empty()).map(|committer| (committer, offsets))
    }

    /// What came of one try, made in this generation; returns whether there is something to try again.
    fn tried(
        &mut self,
        at: &TopicPartition,
        offset: i64,
        generation: i32,
        group: &str,
        outcome: Result<()>,
    ) -> bool {
        let has_rejoined =
            self.committer.as_ref().is_some_and(|committer| committer.generation != generation);
        let stays = self.closed.is_none() && self.subscription.is_some();
        let (is_joining, is_member) = (self.is_joining, self.committer.is_some());
        let is_retriable = |code: ErrorCode| match code {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => false,
            ErrorCode::ILLEGAL_GENERATION => has_rejoined || (is_joining && is_member && stays),
            // Soon it will be a member of the next generation, unless it leaves.
            ErrorCode::REBALANCE_IN_PROGRESS => has_rejoined || stays,
            code => code.is_retriable(),
        };
        // One that was taken away meanwhile is concluded.
        let Some(entry) = self.commits.under_way.remove(at) else { return false };
        match outcome {
            Ok(()) => {
                if self.partitions.contains_key(at) {
                    self.committed.insert(at.clone(), offset);
                }
                self.conclude(at, entry.sequence, Ok(()));
                false
            }
            Err(error) if error.code().map_or(error.is_retriable(), is_retriable) => {
                self.conclude_unretried(at, &error);
                let wanted = self.commits.waiters.iter().any(|waiter| waiter.left.contains(at));
                if wanted {
                    self.commits.next.entry(at.clone()).or_insert(entry);
                } else {
                    self.tell_driver();
                }
                wanted
            }
            Err(error) => {
                let code = error.code();
                if !has_rejoined
                    && matches!(code, Some(ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID))
                    && !planted(Fault::ExpelledGoesOn)
                {
                    // The group goes on without it.
                    self.committer = None;
                }
                self.conclude(at, entry.sequence, Err(expelled(group, error)));
                false
            }
        }
    }

    fn conclude(&mut self, at: &TopicPartition, sequence: u64, outcome: Result<()>) {
        for waiter in self.commits.waiters.iter_mut().filter(|waiter| waiter.sequence <= sequence) {
            if waiter.left.remove(at)
                && let Err(error) = &outcome
            {
                waiter.failed = Some(error.clone());
            }
        }
        self.tell_concluded();
        self.tell_driver();
    }

    fn conclude_unretried(&mut self, at: &TopicPartition, error: &Error) {
        for waiter in self.commits.waiters.iter_mut().filter(|waiter| !waiter.retries) {
            if waiter.left.remove(at) {
                waiter.failed = Some(error.clone());
            }
        }
        self.tell_concluded();
    }

    fn tell_concluded(&mut self) {
        let (done, left) =
            std::mem::take(&mut self.commits.waiters).into_iter().partition(|waiter| waiter.left.is_empty());
        self.commits.waiters = left;
        let done: Vec<Waiter> = done;
        for waiter in done {
            let outcome = waiter.failed.map_or(Ok(()), Err);
            match (waiter.answer, outcome) {
                // Whoever asked may have lost interest.
                (Some(answer), outcome) => drop(answer.send(outcome)),
                (None, Err(error)) => self.fail(error),
                (None, Ok(())) => {}
            }
        }
    }

    /// Lets go of waiters whose time is over or who have gone, and of what nobody else waits for; returns when to come again.
    fn expire_commits(&mut self, group: &str, limit: Duration, last: Option<&Error>) -> Option<Instant> {
        let now = driver::now();
        for waiter in &mut self.commits.waiters {
            let is_gone = waiter.answer.as_ref().is_some_and(oneshot::Sender::is_canceled);
            if is_gone || now >= waiter.begun + limit {
                waiter.left.clear();
                waiter.failed = Some(Error::Timeout {
                    what: format!("commit offsets of group {group:?}"),
                    after: limit,
                    last: last.cloned().map(Box::new),
                });
            }
        }
        self.tell_concluded();
        let Commits { next, waiters, .. } = &mut self.commits;
        let before = next.len();
        next.retain(|at, _| waiters.iter().any(|waiter| waiter.left.contains(at)));
        let (is_less, until) = (next.len() < before, waiters.iter().map(|waiter| waiter.begun + limit).min());
        if is_less {
            self.tell_driver();
        }
        until
    }

    fn end_commits(&mut self) {
        self.commits.ended = true;
        for waiter in &mut self.commits.waiters {
            waiter.left.clear();
            waiter.failed = Some(Error::Closed);
        }
        self.tell_concluded();
    }
}

/// Commits what earlier polls gave, where it is not committed yet.
pub(super) async fn processed(shared: &Shared, news: &Event, manner: Manner) -> Result<()> {
    let told = {
        let mut buffer = shared.lock();
        let uncommitted = buffer.uncommitted();
        buffer.commit(uncommitted, manner)
    };
    news.notify();
    told.await.unwrap_or(Err(Error::Closed))
}

/// Before partitions are given up: commits what is processed, if commits are automatic, and waits for all commits that were asked for.
pub(super) async fn last(shared: &Shared, news: &Event) -> Result<()> {
    let mut outcome = match shared.config.auto_commit {
        Some(_) => processed(shared, news, Manner::Processed).await,
        None => Ok(()),
    };
    loop {
        let queued = shared.lock().queued_commits();
        let Some(told) = queued else { return outcome };
        outcome = outcome.and(told.await.unwrap_or(Err(Error::Closed)));
    }
}

struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.lock().end_commits();
    }
}

/// Makes the commits; runs until it is dropped.
pub(super) async fn run(core: Rc<Core>, shared: Arc<Shared>, news: Event, group: Str) {
    let _guard = EndOnDrop(shared.clone());
    let limit = core.config.api_timeout;
    let (mut failures, mut last) = (0, None);
    loop {
        let told = news.listen();
        let taken = {
            let mut buffer = shared.lock();
            buffer.expire_commits(&group, limit, last.as_ref());
            buffer.take_commits(&group)
        };
        let Some((committer, offsets)) = taken else {
            (failures, last) = (0, None);
            told.await;
            continue;
        };
        let outcome = {
            let mut attempt = pin!(groups::commit_once(&core, &group, &committer, &offsets));
            loop {
                let until = shared.lock().expire_commits(&group, limit, last.as_ref());
                let attempt = attempt.as_mut();
                match until {
                    None => break attempt.await,
                    Some(until) => {
                        if let Some(outcome) = driver::timeout_at(until, attempt).await {
                            break outcome;
                        }
                    }
                }
            }
        };
        let mut outcomes = match outcome {
            Ok(outcomes) => outcomes.into_iter().collect(),
            Err(error) => {
                offsets.keys().map(|at| (at.clone(), Err(error.clone()))).collect::<BTreeMap<_, _>>()
            }
        };
        last = outcomes.values().find_map(|outcome| outcome.as_ref().err().cloned());
        let mut again = false;
        {
            let mut buffer = shared.lock();
            for (at, new) in offsets {
                let silent = || Err(Error::broker(ErrorCode::UNKNOWN_SERVER_ERROR, format!("commit {at}")));
                let outcome = outcomes.remove(&at).unwrap_or_else(silent);
                again |= buffer.tried(&at, new.offset, committer.generation, &group, outcome);
            }
        }
        if again {
            if last.as_ref().is_some_and(Error::wants_metadata) {
                core.refresh_soon();
            }
            driver::sleep(core.backoff(failures)).await;
            failures += 1;
        } else {
            failures = 0;
        }
    }
}

fn not_member(group: &str, reason: impl Into<String>) -> Error {
    Error::NotMember { group: group.to_owned(), reason: reason.into() }
}

fn expelled(group: &str, error: Error) -> Error {
    match error.code() {
        Some(
            ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID,
        ) => not_member(group, error.to_string()),
        _ => error,
    }
}

/// It was made in a generation that is over, or just ending.
fn is_rebalance(error: &Error) -> bool {
    match error.code() {
        Some(ErrorCode::REBALANCE_IN_PROGRESS) => true,
        Some(ErrorCode::ILLEGAL_GENERATION) => !planted(Fault::FormerGenerationIsAFailure),
        _ => false,
    }
}

/// Commits at intervals until the consumer is closed.
pub(super) async fn automatically(shared: Arc<Shared>, news: Event) {
    let Some(interval) = shared.config.auto_commit else { return };
    loop {
        let mut due = pin!(driver::sleep(interval));
        loop {
            let told = news.listen();
            if shared.lock().closed.is_some() {
                return;
            }
            match select(due.as_mut(), told).await {
                Either::Left(_) => break,
                Either::Right(_) => {}
            }
        }
        // Membership is the group task's affair, and what can be retried is, at the next interval.
        match processed(&shared, &news, Manner::ProcessedOnce).await {
            Err(Error::NotMember { .. }) | Ok(()) => {}
            Err(error) if is_rebalance(&error) || error.is_retriable() => {}
            Err(error) => shared.lock().fail(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use corelog_wire::testing::Random;

    use super::super::buffer::Start;
    use super::*;

    fn partitions() -> impl Iterator<Item = TopicPartition> {
        (0..3).map(|partition| TopicPartition::new("t", partition))
    }

    fn buffer() -> Buffer {
        let mut buffer = Buffer::new();
        buffer.assign(partitions().map(|at| (at, Some(Start::At(Position::at(0))))).collect());
        buffer
    }

    #[test]
    fn whatever_fails_offsets_land_in_order_and_everybody_is_told() {
        for seed in 0..300 {
            let (mut dice, mut buffer) = (Random(seed), buffer());
            let (mut landed, mut asked) = (BTreeMap::new(), BTreeMap::new());
            let mut told = Vec::new();
            for step in 0..80 {
                let is_over = step >= 60;
                if !is_over && dice.below(2) == 0 {
                    let some: Vec<_> = partitions().filter(|_| dice.below(2) == 0).collect();
                    let manner = match dice.below(3) {
                        0 => Manner::Background,
                        1 => Manner::ProcessedOnce,
                        _ => Manner::Explicit,
                    };
                    asked.extend(some.iter().map(|at| (at.clone(), step)));
                    let tx = buffer.commit(some.into_iter().map(|at| (at, step.into())).collect(), manner);
                    if manner != Manner::Background {
                        told.push(tx);
                    }
                }
                if buffer.commits.under_way.is_empty() {
                    let _ = buffer.take_commits("g");
                } else if is_over || dice.below(2) == 0 {
                    for (at, entry) in buffer.commits.under_way.clone() {
                        let fails = !is_over && dice.below(2) == 0;
                        // It may have landed all the same.
                        if !fails || dice.below(2) == 0 {
                            let before = landed.insert(at.clone(), entry.new.offset);
                            assert!(before <= Some(entry.new.offset), "seed {seed}: {at} went back");
                        }
                        let outcome = match fails {
                            true => Err(Error::broker(ErrorCode::COORDINATOR_NOT_AVAILABLE, "commit")),
                            false => Ok(()),
                        };
                        buffer.tried(&at, entry.new.offset, -1, "g", outcome);
                        buffer.expire_commits("g", Duration::from_secs(60), None);
                    }
                }
            }
            let heard = told.iter_mut().all(|told| matches!(told.try_recv(), Ok(Some(_))));
            assert!(heard && buffer.commits.waiters.is_empty(), "seed {seed}");
            assert!(buffer.commits.next.is_empty() && buffer.commits.under_way.is_empty(), "seed {seed}");
            // Those tried once may be given up: what is known to be committed is true of all that landed with an answer.
            assert!(buffer.committed.iter().all(|(at, offset)| *offset <= asked[at]), "seed {seed}");
        }
    }

    #[test]
    fn there_are_no_more_waiters_in_the_background_than_partitions() {
        let mut buffer = buffer();
        for offset in 0..1000 {
            let at = partitions().nth(offset % 3).unwrap();
            drop(buffer.commit([(at, (offset as i64).into())].into(), Manner::Background));
        }
        assert!(buffer.commits.waiters.len() <= 3);
        // Callers that go away leave nothing either.
        for offset in 0..1000 {
            drop(buffer.commit([(TopicPartition::new("t", 0), offset.into())].into(), Manner::Explicit));
        }
        assert!(buffer.commits.waiters.len() <= 4);
    }
}
