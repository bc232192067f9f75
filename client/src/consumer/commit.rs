//! Committing a consumer's positions.

use super::Shared;
use super::buffer::Position;
use crate::core::Core;
use crate::driver::{self, Event};
use crate::error::{Error, Result};
use crate::groups::{self, Committer, NewOffset};
use crate::topic_partition::TopicPartition;
use corelog_wire::{ErrorCode, Str};
use futures_util::future::{Either, select};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

pub(super) fn offsets(positions: BTreeMap<TopicPartition, Position>) -> BTreeMap<TopicPartition, NewOffset> {
    let offset = |position: Position| NewOffset {
        offset: position.offset,
        leader_epoch: position.leader_epoch,
        metadata: String::new(),
    };
    positions.into_iter().map(|(at, position)| (at, offset(position))).collect()
}

/// Commits what earlier polls gave, where it is not committed yet.
pub(super) async fn processed(core: &Rc<Core>, shared: &Arc<Shared>, group: &Str) -> Result<()> {
    let mut new = shared.lock().processed();
    {
        let committed = &shared.lock().committed;
        new.retain(|at, position| committed.get(at) != Some(&position.offset));
    }
    commit(core, shared, group, offsets(new)).await
}

pub(super) async fn commit(
    core: &Rc<Core>,
    shared: &Arc<Shared>,
    group: &Str,
    offsets: BTreeMap<TopicPartition, NewOffset>,
) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let committer = {
        let buffer = shared.lock();
        match (&buffer.committer, &buffer.subscription) {
            (Some(committer), _) => committer.clone(),
            (None, None) => Committer::nobody(),
            (None, Some(_)) => {
                let reason =
                    "it has not joined, or was expelled; what it read since will be read again".into();
                return Err(Error::NotMember { group: String::from(group.clone()), reason });
            }
        }
    };
    let outcomes = groups::commit(core, group, &committer, &offsets).await?;
    let mut failed = Ok(());
    let mut buffer = shared.lock();
    for (at, outcome) in outcomes {
        match outcome {
            Ok(()) => {
                if let (true, Some(offset)) = (buffer.partitions.contains_key(&at), offsets.get(&at)) {
                    buffer.committed.insert(at, offset.offset);
                }
            }
            Err(error) => failed = Err(not_member(group, error)),
        }
    }
    failed
}

fn not_member(group: &str, error: Error) -> Error {
    match error.code() {
        Some(
            ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID,
        ) => Error::NotMember { group: group.to_owned(), reason: error.to_string() },
        _ => error,
    }
}

/// Commits at intervals until the consumer is closed.
pub(super) async fn automatically(core: Rc<Core>, shared: Arc<Shared>, news: Event, group: Str) {
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
        match processed(&core, &shared, &group).await {
            Err(Error::NotMember { .. }) | Ok(()) => {}
            Err(error) if error.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS) => {}
            Err(error) if error.is_retriable() => {}
            Err(error) => shared.lock().fail(error),
        }
    }
}
