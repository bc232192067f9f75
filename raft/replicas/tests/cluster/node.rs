//! One process: a core's storage and its replicas, who serve clients, and an operator who changes the groups that it leads.

use crate::clients::{batch, below};
use crate::network::Node;
use crate::shared::{Reply, Request, Shared, State, node_of};
use crate::world::{self, log_id, open_as};
use corelog_io::{Queue, sleep, spawn, timeout};
use corelog_raft::config::{Bounds, Timing};
use corelog_raft::{Change, Membership, ReplicaId};
use corelog_replicas::{Led, Owner, Replica, Replicas, TransferLimits};
use corelog_storage::{
    AppendBatch, AppendError, BatchKind, CommitMode, Log, LogConfig, LogId, LogStart, NO_TERM, RaftIndex,
    ShardStorage,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Bytes of entries that a leader sends without an answer: little, so that a log that takes nothing is behind soon.
const FOLLOWER_BYTES: u64 = 32 << 10;

pub fn config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, commit: CommitMode::Quorum, ..LogConfig::default() }
}

fn bounds() -> Bounds {
    Bounds { follower_bytes: FOLLOWER_BYTES, append_bytes: FOLLOWER_BYTES / 2, ..Bounds::default() }
}

struct Broker {
    shared: Rc<Shared>,
    node: usize,
    storage: Rc<ShardStorage>,
    replicas: Rc<Replicas>,
    opened: RefCell<BTreeMap<u8, Rc<Replica>>>,
}

#[derive(Default)]
struct Keeper {
    broker: RefCell<Weak<Broker>>,
}

impl Owner for Keeper {
    fn led(&self, log: LogId, led: Led) {
        let Some(broker) = self.broker.borrow().upgrade() else { return };
        if led.leader != Some(broker.shared.replica_of(broker.node, log.partition as u8)) {
            return;
        }
        let mut leaders = broker.shared.leaders.borrow_mut();
        let first = *leaders.entry((log, led.term.0)).or_insert(broker.node);
        assert_eq!(first, broker.node, "{log}: two leaders of term {}", led.term);
    }

    fn stopped(&self, log: LogId) {
        let broker = self.broker.borrow().upgrade();
        assert!(broker.is_none_or(|broker| broker.shared.fails.get()), "{log} has stopped on a sound disk");
    }

    fn removed(&self, log: LogId) {
        let Some(broker) = self.broker.borrow().upgrade() else { return };
        assert!(broker.shared.plan.changes, "nobody removed {log}");
        spawn(Queue::Control, async move { broker.replace(log.partition as u8).await }).detach();
    }
}

pub async fn run(shared: Rc<Shared>, node: usize) {
    let storage = open_as(world::config(0, 1)).await;
    let wires = Rc::new(Node::new(shared.wires.clone(), node));
    let keeper = Rc::new(Keeper::default());
    let replicas =
        Replicas::new(storage.clone(), wires.clone(), keeper.clone(), (Timing::default(), bounds()));
    // So little that logs come in several parts.
    replicas.limit_transfers(TransferLimits { listed: 3, producers: 2, ..TransferLimits::default() });
    let broker = Rc::new(Broker { shared, node, storage, replicas, opened: RefCell::default() });
    *keeper.broker.borrow_mut() = Rc::downgrade(&broker);
    for group in broker.shared.groups() {
        broker.open(group).await;
    }
    broker.storage.settle_recovery();
    broker.replicas.start();
    wires.start(&broker.replicas);
    let serves = broker.clone();
    spawn(Queue::Produce, async move { serves.serve().await }).detach();
    broker.keep(&wires.held).await;
}

impl Broker {
    async fn open(&self, group: u8) {
        let log = self.storage.log(log_id(group), "topic", config());
        assert!(log.refused().is_none(), "{:?}", log.refused());
        let opening = self.shared.opening(self.node, group);
        let replica = self.replicas.open(log, opening).await.expect("the log can be opened");
        self.opened.borrow_mut().insert(group, replica);
    }

    /// The group goes on without this replica: its data goes, and another may come in its place.
    async fn replace(&self, group: u8) {
        let Some(replica) = self.opened.borrow_mut().remove(&group) else { return };
        self.replicas.close(log_id(group));
        let begin = LogStart { index: RaftIndex(0), term: NO_TERM, offset: 0 };
        if let Err(error) = replica.log().reset(begin).await {
            assert!(self.shared.fails.get(), "the disk is sound: {error}");
            return;
        }
        self.shared.replace(self.node, group);
        self.open(group).await;
    }

    async fn keep(self: &Rc<Self>, held: &Cell<u64>) {
        let taken = Cell::new(0);
        loop {
            sleep(Duration::from_millis(5)).await;
            if below(100) == 0
                && let Err(error) = self.storage.empty_journal().await
            {
                assert!(self.shared.fails.get(), "the disk is sound: {error}");
            }
            let waiting = self.replicas.waiting_bytes();
            let most = u64::from(self.shared.plan.groups) * 5 * FOLLOWER_BYTES;
            assert!(waiting <= most, "{waiting} bytes wait for logs");
            // On a full disk they count no more.
            let counts = waiting <= held.get() || self.shared.fails.get();
            assert!(counts, "{waiting} bytes wait for logs, {} count", held.get());
            self.shared.held.borrow_mut().insert(self.node, held.get());
            let segments = self.replicas.taken().segments;
            self.shared
                .segments_taken
                .set(self.shared.segments_taken.get() + segments - taken.replace(segments));
            let opened: Vec<_> =
                self.opened.borrow().iter().map(|(&group, of)| (group, of.clone())).collect();
            for (group, replica) in opened {
                self.note(group, &replica);
                if self.shared.plan.retains && below(100) == 0 {
                    retain(replica.log()).await;
                }
                if below(40) == 0 {
                    let (broker, replica) = (self.clone(), replica.clone());
                    spawn(Queue::Control, async move { broker.operate(group, &replica).await }).detach();
                }
            }
        }
    }

    fn note(&self, group: u8, replica: &Replica) {
        let log = replica.log();
        let (committed, next, serves) = (log.commit_index(), log.next_index(), replica.led().serves);
        let state = State { committed, next, serves };
        self.shared.states.borrow_mut().insert((self.node, group), state);
        if self.leads(replica)
            && committed == next
            && let Some(membership) = replica.membership()
        {
            self.shared.memberships.borrow_mut().insert(group, membership);
        }
    }

    fn leads(&self, replica: &Replica) -> bool {
        replica.led().serves && self.replicas.may_lead(replica.log().id())
    }

    async fn serve(self: &Rc<Self>) {
        // What was sent to a former process is lost with it.
        self.shared.requests.borrow_mut().remove(&self.node);
        loop {
            sleep(Duration::from_millis(1)).await;
            let requests = self.shared.requests.borrow_mut().remove(&self.node);
            for request in requests.into_iter().flatten() {
                let broker = self.clone();
                spawn(Queue::Produce, async move {
                    let reply = broker.produce(&request).await;
                    broker.shared.replies.borrow_mut().insert(request.number, reply);
                })
                .detach();
            }
        }
    }

    async fn produce(&self, request: &Request) -> Reply {
        let replica = self.opened.borrow().get(&request.group).cloned();
        let Some(replica) = replica.filter(|replica| self.leads(replica)) else { return Reply::Elsewhere };
        let log = replica.log();
        self.check_serves(request.group, log);
        let term = replica.led().term.0;
        let appended = log
            .append(AppendBatch { bytes: batch(request), kind: BatchKind::Client, leader_epoch: term })
            .await;
        let appended = match appended {
            Ok(appended) => appended,
            Err(AppendError::Sequence(error)) => return Reply::OutOfOrder(error.to_string()),
            Err(
                AppendError::NotTaken(_)
                | AppendError::StaleLeaderEpoch { .. }
                | AppendError::NoQuorum { .. },
            ) => return Reply::Elsewhere,
            Err(error) => {
                assert!(self.shared.fails.get(), "the disk is sound: {error}");
                return Reply::Elsewhere;
            }
        };
        let waits = Duration::from_secs(20);
        let committed = match appended.index {
            Some(index) => timeout(waits, replica.committed(index, term)).await,
            None => timeout(waits, replica.all_committed()).await,
        };
        match committed {
            Ok(Ok(())) => Reply::At(appended.base_offset),
            _ => Reply::Elsewhere,
        }
    }

    /// Who serves knows all that was acknowledged before.
    fn check_serves(&self, group: u8, log: &Log) {
        let acknowledged = self.shared.acknowledged.borrow();
        let last = acknowledged.get(&group).and_then(|all| all.iter().map(|one| one.offset).max());
        let reads = log.high_watermark();
        assert!(
            last.is_none_or(|last| last < reads),
            "group {group} serves up to {reads}, {last:?} was acknowledged"
        );
    }

    async fn operate(&self, group: u8, replica: &Replica) {
        let Some(membership) = replica.membership().filter(|now| self.leads(replica) && !now.is_joint())
        else {
            return;
        };
        let dice = if self.shared.settling.get() { 0 } else { below(8) };
        if dice == 1 {
            let to = membership.voters[below(membership.voters.len() as u64) as usize];
            let _ = self.replicas.transfer(replica.log().id(), to);
        } else if self.shared.plan.changes
            && let Some(change) = self.next_change(group, replica, &membership, dice > 3)
            && replica.change(&change).await.is_ok()
        {
            self.shared.changed.set(self.shared.changed.get() + 1);
        }
    }

    /// Dead replicas go; others are added, caught up, promoted; and where there are enough, any may go.
    fn next_change(&self, group: u8, replica: &Replica, now: &Membership, bold: bool) -> Option<Change> {
        let to = |voters: Vec<ReplicaId>, learners: Vec<ReplicaId>| Some(Change::To { voters, learners });
        let is_live = |id: &&ReplicaId| self.shared.is_live(**id, group);
        let voters: Vec<_> = now.voters.iter().filter(is_live).copied().collect();
        let learners: Vec<_> = now.learners.iter().filter(is_live).copied().collect();
        if voters.is_empty() {
            return None;
        }
        if voters.len() + learners.len() < now.replicas().len() {
            return to(voters, learners);
        }
        let committed = replica.log().commit_index().0;
        let has_all = |id: &&ReplicaId| {
            replica.followers().iter().any(|of| of.replica == **id && of.matched.0 + 20 >= committed)
        };
        let ready = learners.iter().find(has_all).copied();
        if let Some(ready) = ready.filter(|_| voters.len() < 3 || bold) {
            let rest = learners.iter().filter(|&&id| id != ready).copied().collect();
            let mut voters = voters;
            if voters.len() >= 3 && below(2) == 0 {
                // In its place, in one step.
                voters.remove(below(voters.len() as u64) as usize);
            }
            voters.push(ready);
            return to(voters, rest);
        }
        if voters.len() > 3 && bold {
            let mut voters = voters;
            voters.remove(below(voters.len() as u64) as usize);
            return to(voters, learners);
        }
        let absent = (0..self.shared.plan.nodes)
            .map(|node| self.shared.replica_of(node, group))
            .find(|id| !now.contains(*id) && !self.is_dead(*id, group));
        match absent {
            Some(id) if learners.is_empty() && (voters.len() < 3 || bold) => to(voters, vec![id]),
            _ => None,
        }
    }

    fn is_dead(&self, id: ReplicaId, group: u8) -> bool {
        self.shared.replica_of(node_of(id), group) != id
    }
}

/// DeleteRecords, up to somewhere.
async fn retain(log: &Log) {
    let kept = log.high_watermark() - log.log_start_offset();
    let before = log.log_start_offset() + below(kept as u64 + 1) as i64;
    // What a transfer takes from under it is not there.
    let _gone = log.delete_records(before).await;
}
