//! When a batch may be acknowledged.

use std::cell::OnceCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use corelog_replicas::{NotCommitted, Replica, Replicas};
use corelog_storage::{Durable, LogId};
use corelog_wire::ErrorCode;

use super::Refusal;
use crate::ids::LeaderEpoch;

/// Who is to have a batch before its producer is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// The leader, on stable storage.
    Leader,
    /// As many as make it stay, whoever fails.
    All,
}

impl Acks {
    /// As requests have it. Who wants no answer waits for nothing: then it is all the same.
    pub fn from_request(acks: i16) -> Acks {
        if acks == -1 { Acks::All } else { Acks::Leader }
    }
}

/// Who decides what is committed.
pub enum Commits {
    /// There is one replica: what is on its stable storage is. What [`Acks`] ask for makes no difference.
    Alone,
    /// A group's majority.
    Group { replicas: Rc<Replicas>, replica: OnceCell<Rc<Replica>> },
}

impl Commits {
    /// Whether what is committed here is all that the partition's leader may tell.
    pub fn may_lead(&self, log: LogId) -> bool {
        match self {
            Commits::Alone => true,
            Commits::Group { replicas, .. } => replicas.may_lead(log),
        }
    }

    pub fn replica(&self) -> Option<&Rc<Replica>> {
        match self {
            Commits::Alone => None,
            Commits::Group { replica, .. } => replica.get(),
        }
    }

    pub fn set_replica(&self, opened: Rc<Replica>) {
        let Commits::Group { replica, .. } = self else { panic!("it has no group") };
        assert!(replica.set(opened).is_ok(), "a replica is opened once");
    }

    /// When a batch that its log has taken in `epoch` may be acknowledged.
    pub fn of(&self, appended: corelog_storage::Appended, epoch: LeaderEpoch, acks: Acks) -> Committed {
        match self {
            Commits::Alone if appended.cached => Committed::Now,
            Commits::Group { replica, .. } if acks == Acks::All => {
                let Some(replica) = replica.get() else {
                    return Committed::ByGroup(Box::pin(async { Err(NotCommitted) }));
                };
                match appended.index {
                    Some(index) => Committed::ByGroup(Box::pin(replica.committed(index, epoch.0))),
                    // A retry: what it repeats is somewhere before.
                    None => Committed::ByGroup(Box::pin(replica.all_committed())),
                }
            }
            _ => Committed::Durable(appended.durable),
        }
    }
}

/// Completes when a batch may be acknowledged. Where its topic has write caching and one replica, that is at once.
pub enum Committed {
    Now,
    Durable(Durable),
    ByGroup(Pin<Box<dyn Future<Output = Result<(), NotCommitted>>>>),
}

impl Future for Committed {
    type Output = Result<(), Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Committed::Now => Poll::Ready(Ok(())),
            Committed::Durable(durable) => Pin::new(durable).poll(cx).map_err(|error| Refusal {
                code: ErrorCode::KAFKA_STORAGE_ERROR,
                message: error.to_string(),
            }),
            // It may be committed all the same: who asks again learns it from the next leader.
            Committed::ByGroup(outcome) => outcome.as_mut().poll(cx).map_err(|error| Refusal {
                code: ErrorCode::NOT_LEADER_OR_FOLLOWER,
                message: error.to_string(),
            }),
        }
    }
}
