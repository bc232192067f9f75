//! When a batch may be acknowledged.

use std::cell::{Cell, OnceCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use corelog_replicas::{NotCommitted, Replica, Replicas};
use corelog_storage::{Durable, LogId};
use corelog_wire::ErrorCode;

use super::Refusal;
use crate::ids::{LeaderEpoch, ReplicaId};

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

/// Who decides what is committed: the one replica that there is, with what is on its stable storage, which makes no difference
/// between [`Acks`]; or a group's majority.
#[derive(Default)]
pub struct Commits {
    /// Unset: there is no group.
    replicas: OnceCell<Rc<Replicas>>,
    /// Which replica of the group it is.
    id: Cell<Option<ReplicaId>>,
    /// Set when it is open.
    replica: OnceCell<Rc<Replica>>,
}

impl Commits {
    pub fn in_group(replicas: Rc<Replicas>, id: ReplicaId) -> Commits {
        Commits { replicas: replicas.into(), id: Cell::new(Some(id)), replica: OnceCell::new() }
    }

    /// From now on a group decides.
    pub fn join_group(&self, replicas: Rc<Replicas>, id: ReplicaId) {
        self.id.set(Some(id));
        assert!(self.replicas.set(replicas).is_ok(), "it had none");
    }

    pub fn has_group(&self) -> bool {
        self.replicas.get().is_some()
    }

    pub fn id(&self) -> Option<ReplicaId> {
        self.id.get()
    }

    /// Whether what is committed here is all that the partition's leader may tell.
    pub fn may_lead(&self, log: LogId) -> bool {
        self.replicas.get().is_none_or(|replicas| replicas.may_lead(log))
    }

    pub fn replica(&self) -> Option<&Rc<Replica>> {
        self.replica.get()
    }

    pub fn set_replica(&self, opened: Rc<Replica>) {
        assert!(self.replica.set(opened).is_ok(), "a replica is opened once");
    }

    /// When a batch that its log has taken in `epoch` may be acknowledged.
    pub fn of(&self, appended: corelog_storage::Appended, epoch: LeaderEpoch, acks: Acks) -> Committed {
        if !self.has_group() && appended.cached {
            return Committed::Now;
        }
        if !self.has_group() || acks == Acks::Leader {
            return Committed::Durable(appended.durable);
        }
        let Some(replica) = self.replica() else {
            return Committed::ByGroup(Box::pin(async { Err(NotCommitted) }));
        };
        match appended.index {
            Some(index) => Committed::ByGroup(Box::pin(replica.committed(index, epoch.0))),
            // A retry: what it repeats is somewhere before.
            None => Committed::ByGroup(Box::pin(replica.all_committed())),
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
