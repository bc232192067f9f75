//! What brokers hold, as their shards know it: a look inside, from outside their time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::mpsc;

use corelog_broker::server::Control;
use corelog_io::{Queue, spawn};
use corelog_storage::{Entry, Log, LogId};
use corelog_wire::Uuid;

use crate::broker::Broker;
use crate::real_client::story::Story;

pub const CONTROLLER: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// What a shard knows.
#[derive(Clone, Debug)]
pub struct ShardView {
    pub broker: i32,
    /// The metadata, all of them.
    pub image: String,
    pub fenced: BTreeSet<i32>,
    pub brokers: BTreeSet<i32>,
    pub partitions: BTreeMap<LogId, PartitionView>,
    pub logs: BTreeMap<LogId, LogView>,
}

/// What the metadata say of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionView {
    pub leader: i32,
    pub epoch: i32,
    pub replicas: BTreeSet<i32>,
    pub isr: BTreeSet<i32>,
    pub replica_ids: BTreeSet<u64>,
    pub is_moving: bool,
}

#[derive(Clone, Debug)]
pub struct LogView {
    pub next: u64,
    pub committed: u64,
    pub refused: Option<String>,
    /// In which epoch it leads.
    pub leads: Option<i32>,
    /// Of the controller's log: it is the one that decides.
    pub leads_controller: bool,
    /// Those that vote in its group, and those that learn.
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
}

/// Entries of a log that are committed, by index.
pub type Committed = BTreeMap<u64, Entry>;

impl Story {
    /// What all shards of a broker know; `None`: one is not there.
    pub fn views(&self, at: usize) -> Option<Vec<ShardView>> {
        let broker = &self.brokers[at];
        let (out, views) = mpsc::channel();
        for control in &broker.controls {
            let out = out.clone();
            let asked = control.ask(Control::Look(Box::new(move |shard| {
                let image = shard.image();
                let number = |id: Option<corelog_broker::peer::BrokerId>| id.map_or(-1, |id| id.0);
                let numbers = |ids: &[corelog_broker::peer::BrokerId]| ids.iter().map(|id| id.0).collect();
                let mut partitions = BTreeMap::new();
                for topic in image.topics() {
                    for (partition, found) in (0..).zip(&topic.partitions) {
                        let view = PartitionView {
                            leader: number(found.leader),
                            epoch: found.leader_epoch.0,
                            replicas: numbers(&found.replicas),
                            isr: numbers(&found.isr),
                            replica_ids: found.replica_ids.iter().map(|id| id.0).collect(),
                            is_moving: found.is_moving(),
                        };
                        partitions.insert(LogId { topic: topic.id, partition }, view);
                    }
                }
                let log_view = |log: &Rc<Log>| {
                    let leads = shard.partitions.opened(log.id()).and_then(|one| one.coordinators());
                    let replica = shard.member.as_ref().and_then(|member| member.replicas.replica(log.id()));
                    let serves = replica.as_ref().is_some_and(|replica| replica.led().serves);
                    let membership = replica.and_then(|replica| replica.membership()).unwrap_or_default();
                    let ids = |ids: &[corelog_raft::ReplicaId]| ids.iter().map(|id| id.0).collect();
                    let both = [&membership.voters[..], &membership.outgoing].concat();
                    let view = LogView {
                        leads_controller: log.id().topic == CONTROLLER && serves,
                        voters: ids(&both),
                        learners: ids(&membership.learners),
                        next: log.next_index().0,
                        committed: log.commit_index().0,
                        refused: log.refused().map(|error| error.to_string()),
                        leads: leads.map(|(_, epoch)| epoch.0),
                    };
                    (log.id(), view)
                };
                let _ = out.send(ShardView {
                    broker: shard.identity.node_id,
                    image: format!("{image:?}"),
                    fenced: image.brokers.values().filter(|one| one.fenced).map(|one| one.id.0).collect(),
                    brokers: image.brokers.keys().map(|id| id.0).collect(),
                    partitions,
                    logs: shard.storage.logs().iter().map(log_view).collect(),
                });
            })));
            if !asked {
                return None;
            }
        }
        self.gather(broker, &views, broker.controls.len())
    }

    /// What a broker's logs have, as far as it is committed.
    pub fn committed(&self, at: usize, logs: usize) -> BTreeMap<LogId, Committed> {
        let broker = &self.brokers[at];
        let (out, found) = mpsc::channel();
        for control in &broker.controls {
            let out = out.clone();
            let asked = control.ask(Control::Look(Box::new(move |shard| {
                for log in shard.storage.logs() {
                    let out = out.clone();
                    spawn(Queue::Background, async move {
                        let _ = out.send((log.id(), committed_of(&log).await));
                    })
                    .detach();
                }
            })));
            assert!(asked, "broker {} does not hear", at + 1);
        }
        let all = self.gather(broker, &found, logs).expect("its logs can be read");
        all.into_iter().collect()
    }

    fn gather<T>(&self, broker: &Broker, from: &mpsc::Receiver<T>, count: usize) -> Option<Vec<T>> {
        let until = self.sim.elapsed() + std::time::Duration::from_secs(20);
        let mut all = Vec::new();
        while all.len() < count {
            match from.try_recv() {
                Ok(one) => all.push(one),
                Err(_) if !broker.machine.is_running() || self.sim.elapsed() > until => return None,
                Err(_) => drop(self.sim.run_steps(20)),
            }
        }
        Some(all)
    }
}

async fn committed_of(log: &Log) -> Committed {
    let mut entries = Committed::new();
    let (mut at, end) = (log.first_index(), log.commit_index());
    while at < end {
        let some = log.entries(at, end, 100_000).await;
        for entry in some.unwrap_or_else(|error| panic!("{}: {error}", log.id())) {
            at = entry.index.next();
            entries.insert(entry.index.0, entry);
        }
    }
    entries
}
