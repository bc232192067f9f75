//! This broker's part in the group of the controller's log, where there are several brokers.

use std::cell::Cell;
use std::rc::Rc;

use corelog_io::sync::{Event, Semaphore};
use corelog_replicas::{Replica, Replicas};
use corelog_wire::ErrorCode;

use super::change::ChangeError;
use super::image::Image;
use super::task::CHANGES_WAITING_MAX;
use crate::identity::Founder;
use crate::ids::{BrokerId, LeaderEpoch, ReplicaId};
use crate::peer::RUNNING_MAX;
use crate::replication::Carrier;

/// Half of what a callee serves at once of one caller.
const CHANGES_TOLD_MAX: u64 = RUNNING_MAX / 2;

/// What the controller of one of several brokers needs of it. All of it is shard 0's.
#[derive(Clone)]
pub struct Group {
    /// Of the controller's log.
    pub replica: Rc<Replica>,
    pub replicas: Rc<Replicas>,
    pub carrier: Rc<Carrier>,
    /// Of the cluster: the first that leads writes them down.
    pub founders: Vec<Founder>,
}

pub struct Member {
    pub group: Group,
    /// Up to here (exclusive) the shards have what the log says.
    applied: Cell<i64>,
    /// That has moved, or the group is led otherwise.
    pub news: Event,
    /// Changes that are on their way to the leader, or wait for one.
    pub asked: Semaphore,
    /// Those that the leader has been told of. It serves as many calls again of this shard, of other kinds: what its group has to
    /// fetch to go on must not stand behind changes that wait for the group.
    pub told: Semaphore,
}

/// Who leads the group, as far as this broker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    This,
    Other(BrokerId),
    Unknown,
}

impl Member {
    pub fn new(group: Group) -> Member {
        let asked = Semaphore::new(CHANGES_WAITING_MAX as u64);
        let told = Semaphore::new(CHANGES_TOLD_MAX);
        Member { group, applied: Cell::new(0), news: Event::new(), asked, told }
    }

    /// In which epoch this broker may decide: it has all that was committed before, and no other leads.
    pub fn leads(&self) -> Option<LeaderEpoch> {
        let Group { replica, replicas, .. } = &self.group;
        let led = replica.led();
        (led.serves && replicas.may_lead(replica.log().id())).then_some(LeaderEpoch(led.epoch()))
    }

    pub fn leader(&self, image: &Image) -> Leader {
        let replica = &self.group.replica;
        match replica.led().leader {
            Some(leader) if leader == replica.id() => Leader::This,
            Some(leader) => self.broker_of(leader, image).map_or(Leader::Unknown, Leader::Other),
            None => Leader::Unknown,
        }
    }

    fn broker_of(&self, replica: ReplicaId, image: &Image) -> Option<BrokerId> {
        let registered = image.brokers.values().find(|broker| broker.controller_replica == Some(replica));
        let founders = || self.group.founders.iter().find(|founder| founder.replica == replica);
        registered.map(|broker| broker.id).or_else(|| Some(BrokerId(founders()?.node_id)))
    }

    pub fn set_applied(&self, end: i64) {
        if self.applied.replace(end) != end {
            self.news.notify_all();
        }
    }

    /// Whether more of the log is committed than the shards have.
    pub fn lags(&self) -> bool {
        self.applied.get() < self.group.replica.log().high_watermark()
    }

    /// Completes when the shards have what is before `end`.
    pub async fn applied(&self, end: i64) {
        while self.applied.get() < end {
            let news = self.news.listen();
            if self.applied.get() < end {
                news.await;
            }
        }
    }
}

/// Another broker decides, or none: nothing was done.
pub fn not_controller() -> ChangeError {
    ChangeError::new(
        ErrorCode::NOT_CONTROLLER,
        "no broker leads the controller's group that this one can reach: fewer than a majority of its voters are \
         there, or one is being elected",
    )
}
