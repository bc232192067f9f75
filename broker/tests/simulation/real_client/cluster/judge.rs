//! What must be true of a cluster when nothing has struck it for a while.

use std::collections::{BTreeMap, BTreeSet};

use corelog_storage::LogId;

use super::view::{CONTROLLER, Committed, PartitionView, ShardView};
use crate::real_client::story::Story;

const SETTLED_MAX: std::time::Duration = std::time::Duration::from_secs(40);
/// A broker's own, beside those of clients and of other brokers.
const DESCRIPTORS_MAX: usize = 400;

impl Story {
    /// Waits until the cluster is as it should be. `is_quiet`: nobody writes.
    pub fn settle_cluster(&mut self, is_quiet: bool) {
        self.note("the cluster is to settle");
        self.run_until_none(SETTLED_MAX, |story| {
            let mut missing = Vec::new();
            let mut views = Vec::new();
            for at in 0..story.brokers.len() {
                match story.views(at) {
                    Some(of) => views.push(of),
                    None => missing.push(format!("broker {} does not answer", at + 1)),
                }
            }
            if missing.is_empty() {
                missing_of(&views, is_quiet, &mut missing);
            }
            missing
        });
    }

    /// All replicas are alike, to the byte.
    pub fn judge_cluster(&mut self) {
        let views: Vec<Vec<ShardView>> =
            (0..self.brokers.len()).map(|at| self.views(at).expect("it runs")).collect();
        let count = |of: &Vec<ShardView>| of.iter().map(|shard| shard.logs.len()).sum();
        let logs: Vec<BTreeMap<LogId, Committed>> =
            views.iter().enumerate().map(|(at, of)| self.committed(at, count(of))).collect();
        let mut first: BTreeMap<(LogId, u64), usize> = BTreeMap::new();
        for (at, of) in logs.iter().enumerate() {
            for (id, entries) in of {
                for (index, entry) in entries {
                    let before = *first.entry((*id, *index)).or_insert(at);
                    assert_eq!(
                        &logs[before][id][index],
                        entry,
                        "{id}: entry {index} is not the same on brokers {} and {}",
                        before + 1,
                        at + 1
                    );
                }
            }
        }
        for (at, broker) in self.brokers.iter().enumerate() {
            let open = broker.machine.descriptors();
            assert!(open < DESCRIPTORS_MAX, "broker {} has {open} descriptors open", at + 1);
        }
    }
}

fn missing_of(views: &[Vec<ShardView>], is_quiet: bool, missing: &mut Vec<String>) {
    let all = || views.iter().flatten();
    let first = &views[0][0];
    if let Some(other) = all().find(|other| other.image != first.image) {
        let (one, two) = difference(&first.image, &other.image);
        missing.push(format!("brokers {} and {} know {one} and {two}", first.broker, other.broker));
        return;
    }
    if !first.fenced.is_empty() {
        missing.push(format!("fenced: {:?}", first.fenced));
    }
    if first.brokers.len() != views.len() {
        missing.push(format!("brokers are {:?}", first.brokers));
    }
    for (id, partition) in &first.partitions {
        missing_of_partition(*id, partition, views, missing);
        let ends: BTreeSet<_> =
            all().filter_map(|shard| shard.logs.get(id)).map(|log| (log.committed, log.next)).collect();
        if is_quiet && (ends.len() > 1 || ends.iter().any(|(committed, next)| committed != next)) {
            missing.push(format!("{id} is committed and ends at {ends:?}"));
        }
    }
    let controllers = all().filter_map(|shard| shard.logs.iter().find(|(id, _)| id.topic == CONTROLLER));
    for (_, log) in controllers.filter(|(_, log)| log.leads_controller) {
        if log.voters.len() + log.learners.len() != views.len() || log.voters.len() < views.len().min(5) {
            missing.push(format!("of the controller vote {:?}, learn {:?}", log.voters, log.learners));
        }
    }
    for of in views {
        let has: BTreeSet<LogId> = of.iter().flat_map(|shard| shard.logs.keys().copied()).collect();
        let broker = of[0].broker;
        let wanted = |id: &LogId| first.partitions.get(id).is_some_and(|it| it.replicas.contains(&broker));
        for id in has.iter().filter(|id| id.topic != CONTROLLER && !wanted(id)) {
            missing.push(format!("broker {broker} has a log {id} that it should not have"));
        }
        for id in first.partitions.keys().filter(|id| wanted(id) && !has.contains(id)) {
            missing.push(format!("broker {broker} has no log {id}"));
        }
    }
}

fn missing_of_partition(
    id: LogId,
    partition: &PartitionView,
    views: &[Vec<ShardView>],
    missing: &mut Vec<String>,
) {
    let shards = || views.iter().flatten();
    let of = || shards().filter_map(|shard| Some((shard.broker, shard.logs.get(&id)?)));
    if partition.is_moving {
        missing.push(format!("{id} is moving"));
    }
    if partition.leader < 0 || partition.isr != partition.replicas {
        missing.push(format!("{id} is {partition:?}"));
    }
    let leads: Vec<(i32, i32)> = of().filter_map(|(broker, log)| Some((broker, log.leads?))).collect();
    if leads != [(partition.leader, partition.epoch)] {
        missing.push(format!("{id} is led by {leads:?}, told {} in {}", partition.leader, partition.epoch));
    }
    let voters = of().filter(|(_, log)| log.leads.is_some()).map(|(_, log)| (&log.voters, &log.learners));
    for (voters, learners) in voters.filter(|(voters, _)| !voters.is_empty()) {
        if *voters != partition.replica_ids || !learners.is_empty() {
            missing.push(format!(
                "of {id} vote {voters:?}, learn {learners:?}, told {:?}",
                partition.replica_ids
            ));
        }
    }
    for (broker, why) in of().filter_map(|(broker, log)| Some((broker, log.refused.as_ref()?))) {
        missing.push(format!("{id} is refused on broker {broker}: {why}"));
    }
}

/// Where two texts part.
fn difference<'a>(one: &'a str, two: &'a str) -> (&'a str, &'a str) {
    let at = one.bytes().zip(two.bytes()).take_while(|(one, two)| one == two).count();
    let part = |text: &'a str| &text[at.saturating_sub(200)..(at + 100).min(text.len())];
    (part(one), part(two))
}
