//! What a leader has to see to for its partitions, a shard's all in one task: that the metadata say who leads and who is in
//! sync, and that a group has the replicas that the metadata want.
//!
//! Nothing is remembered of what was done: what is differs from what should be, or it does not. What differs is looked at again
//! until it does not, so a report that was lost, a controller that was away and a change that came to nothing cost a pause.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::Notify;
use corelog_io::{Instant, now, sleep, timeout, yield_if_needed};
use corelog_raft::{Change as GroupChange, Membership, Progress};
use corelog_replicas::Replica;
use corelog_storage::LogId;

use crate::controller::image::PartitionImage;
use crate::controller::{Change, Image, Led, Terms};
use crate::ids::{BrokerId, ReplicaId};
use crate::partition::{Partition, Role};
use crate::shard::Shard;

/// How long it takes until what was not settled is looked at again.
const RETRY: Duration = Duration::from_millis(100);
/// How often all partitions are looked through, for followers that fall behind.
const LOOK: Duration = Duration::from_secs(1);
/// Who has not had for so long what was committed before is not in sync (Kafka's replica.lag.time.max.ms, less patient).
const LAG_MAX: Duration = Duration::from_secs(10);
/// A partition that is led by another than the preferred replica goes back to it when that has been in sync for so long.
const PREFERRED_AFTER: Duration = Duration::from_secs(10);
/// So many of a shard go back in one look.
const HANDED_OVER_MAX: usize = 16;
/// Partitions of one report: it fits a batch of the controller's log.
const REPORT_MAX: usize = 2_000;

/// Partitions that are to be looked at.
#[derive(Default)]
pub struct Steward {
    noted: RefCell<BTreeSet<LogId>>,
    news: Notify,
    behind: RefCell<BTreeMap<(LogId, ReplicaId), Behind>>,
    /// Partitions that the preferred replica could lead, and since when.
    astray: RefCell<BTreeMap<LogId, Instant>>,
    /// Partitions whose damaged replica is to begin anew: that is asked for.
    renewed: RefCell<BTreeSet<LogId>>,
}

/// A follower that lacks something.
#[derive(Clone, Copy)]
struct Behind {
    since: Instant,
    /// What was committed then.
    committed: u64,
}

impl Steward {
    /// Who leads the partition, or who should have replicas of it, may have changed.
    pub fn note(&self, id: LogId) {
        self.noted.borrow_mut().insert(id);
        self.news.notify_one();
    }

    /// False: it is asked for already.
    pub fn begin_renewal(&self, id: LogId) -> bool {
        self.renewed.borrow_mut().insert(id)
    }

    pub fn end_renewal(&self, id: LogId) {
        self.renewed.borrow_mut().remove(&id);
    }

    fn take(&self) -> BTreeSet<LogId> {
        self.noted.take()
    }

    /// How long ago a follower last had all that was committed when it was looked at before.
    fn lags(&self, id: LogId, progress: &Progress, committed: u64) -> bool {
        let mut behind = self.behind.borrow_mut();
        let key = (id, progress.replica);
        let Some(known) = behind.get_mut(&key) else {
            if progress.matched.0 < committed {
                behind.insert(key, Behind { since: now(), committed });
            }
            return false;
        };
        if progress.matched.0 >= committed {
            behind.remove(&key);
            return false;
        }
        if progress.matched.0 >= known.committed {
            *known = Behind { since: now(), committed };
        }
        known.since.elapsed() >= LAG_MAX
    }

    fn forget(&self, id: LogId) {
        let mut behind = self.behind.borrow_mut();
        let replicas = (id, ReplicaId(0))..=(id, ReplicaId(u64::MAX));
        let gone: Vec<_> = behind.range(replicas).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| _ = behind.remove(key));
        self.astray.borrow_mut().remove(&id);
    }
}

/// The task of a shard.
pub async fn run(shard: Rc<Shard>) {
    let mut looked = now();
    while !shard.is_stopping() {
        let _news = timeout(LOOK, shard.steward.news.notified()).await;
        if looked.elapsed() >= LOOK {
            looked = now();
            note_all(&shard).await;
            if shard.config().auto_leader_rebalance {
                lead_as_preferred(&shard).await;
            }
        }
        let noted = shard.steward.take();
        if noted.is_empty() {
            continue;
        }
        if !tend(&shard, noted).await {
            sleep(RETRY).await;
        }
    }
}

async fn note_all(shard: &Rc<Shard>) {
    for partition in shard.partitions.all_opened() {
        yield_if_needed().await;
        // Damage is met when somebody reads it, long after the start perhaps.
        if partition.check_sound().is_err()
            && let Some(replica) = partition.replica_id()
        {
            shard.renew_replica(partition.id(), replica);
        }
        if partition.has_group() && partition.leadership().role == Role::Leader {
            shard.steward.note(partition.id());
        }
    }
}

/// Hands partitions back to the replicas that are preferred to lead them, a few at a time.
async fn lead_as_preferred(shard: &Shard) {
    let (Some(member), image) = (&shard.member, shard.image()) else { return };
    let due = {
        let astray = shard.steward.astray.borrow();
        // Who is to be empty does not wait.
        let after = if shard.config().drain { Duration::ZERO } else { PREFERRED_AFTER };
        let due = astray.iter().filter(|(_, since)| since.elapsed() >= after);
        due.map(|(id, _)| *id).take(HANDED_OVER_MAX).collect::<Vec<_>>()
    };
    for id in due {
        yield_if_needed().await;
        let preferred = found(&image, id).and_then(|found| found.wanted().next());
        if let Some((to, broker)) = preferred
            && let Err(error) = member.replicas.transfer(id, to)
        {
            tracing::debug!(log = %id, broker = broker.0, %error, "not handed over to the preferred replica");
        }
        // Should it come to nothing, it is tried again after a while.
        shard.steward.astray.borrow_mut().remove(&id);
    }
}

/// Sees to these partitions. False: something is not as it should be, and was noted again.
async fn tend(shard: &Rc<Shard>, noted: BTreeSet<LogId>) -> bool {
    let (image, mut reports, mut settled) = (shard.image(), Vec::new(), true);
    for id in noted {
        yield_if_needed().await;
        let led = shard.partitions.opened(id).filter(|led| led.leadership().role == Role::Leader);
        let (Some(partition), Some(found)) = (led, found(&image, id)) else {
            shard.steward.forget(id);
            continue;
        };
        let Some(replica) = partition.replica() else { continue };
        if let Some(change) = next_change(found, replica) {
            settled = false;
            if let Err(error) = replica.change(&change).await {
                tracing::debug!(log = %id, %error, ?change, "the group's replicas do not change yet");
            }
        }
        note_astray(shard, found, id);
        if let Some(report) = report(shard, &image, found, &partition, replica) {
            reports.push(report);
        }
    }
    for report in reports.chunks(REPORT_MAX) {
        settled = false;
        for led in report {
            shard.steward.note(LogId { topic: led.topic, partition: led.partition });
        }
        if let Err(error) = shard.change(Change::Leaders(report.to_vec()), Terms::MAKE).await {
            tracing::debug!(%error, partitions = report.len(), "the controller does not take who leads yet");
        }
    }
    settled
}

/// Whether the preferred replica could lead a partition that is led here.
fn note_astray(shard: &Shard, found: &PartitionImage, id: LogId) {
    let preferred = found.wanted().next().map(|(_, broker)| broker);
    let could =
        preferred.is_some_and(|preferred| preferred != shard.broker() && found.isr.contains(&preferred));
    let mut astray = shard.steward.astray.borrow_mut();
    if could {
        astray.entry(id).or_insert_with(now);
    } else {
        astray.remove(&id);
    }
}

fn found(image: &Image, id: LogId) -> Option<&PartitionImage> {
    image.topic_by_id(id.topic)?.partition(id.partition)
}

/// What the metadata are to say of a partition that is led here; `None`: they do.
fn report(
    shard: &Shard,
    image: &Image,
    found: &PartitionImage,
    partition: &Partition,
    replica: &Replica,
) -> Option<Led> {
    let (id, epoch) = (partition.id(), partition.leadership().epoch);
    let followers = replica.followers();
    let committed = replica.log().commit_index().0;
    let is_in_sync = |replica: ReplicaId, broker: BrokerId| {
        if broker == shard.broker() {
            return true;
        }
        let is_there = image.brokers.get(&broker).is_some_and(|broker| !broker.fenced);
        let progress = followers.iter().find(|progress| progress.replica == replica);
        is_there && progress.is_some_and(|progress| !shard.steward.lags(id, progress, committed))
    };
    let isr: Vec<BrokerId> = found
        .replicas_with_ids()
        .filter(|(replica, broker)| is_in_sync(*replica, *broker))
        .map(|(_, broker)| broker)
        .collect();
    let settled = is_settled(found, replica);
    let is_told = (!found.is_moving() || !settled)
        && found.leader == Some(shard.broker())
        && found.leader_epoch == epoch
        && *found.isr == isr[..];
    let led = Led { topic: id.topic, partition: id.partition, leader: shard.broker(), epoch, isr, settled };
    (!is_told).then_some(led)
}

/// Whether the group has the replicas that are wanted, and that is committed.
fn is_settled(found: &PartitionImage, replica: &Replica) -> bool {
    let Some(membership) = replica.membership() else { return false };
    let is_held = replica
        .log()
        .membership()
        .is_some_and(|held| Membership::decode(&held.bytes).is_some_and(|held| held == membership));
    let mut voters = membership.voters.clone();
    let mut wanted: Vec<ReplicaId> = found.wanted().map(|(id, _)| id).collect();
    voters.sort_unstable();
    wanted.sort_unstable();
    is_held && voters == wanted && membership.outgoing.is_empty() && membership.learners.is_empty()
}

/// The next change on the way from the replicas that a group has to those that the metadata want.
fn next_change(found: &PartitionImage, replica: &Replica) -> Option<GroupChange> {
    let membership = replica.membership()?;
    let wanted: Vec<ReplicaId> = found.wanted().map(|(id, _)| id).collect();
    let committed = replica.log().commit_index().0;
    let has_all = |wanted: &ReplicaId| {
        let followers = replica.followers();
        *wanted == replica.id()
            || followers.iter().any(|one| one.replica == *wanted && one.matched.0 >= committed)
    };
    step(&membership, wanted, has_all)
}

/// New ones learn before they vote, and who goes goes when they do.
fn step(
    membership: &Membership,
    mut wanted: Vec<ReplicaId>,
    has_all: impl Fn(&ReplicaId) -> bool,
) -> Option<GroupChange> {
    let Membership { voters, outgoing, learners, .. } = membership;
    if !outgoing.is_empty() {
        // A change is under way.
        return None;
    }
    wanted.sort_unstable();
    let mut sorted = voters.clone();
    sorted.sort_unstable();
    if sorted == wanted && learners.is_empty() {
        return None;
    }
    let new: Vec<ReplicaId> = wanted.iter().copied().filter(|id| !voters.contains(id)).collect();
    if new.iter().all(|id| learners.contains(id) && has_all(id)) {
        return Some(GroupChange::To { voters: wanted, learners: Vec::new() });
    }
    let mut learning = learners.clone();
    learning.sort_unstable();
    (learning != new).then(|| GroupChange::To { voters: voters.clone(), learners: new })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn next(voters: &[u64], learners: &[u64], wanted: &[u64], caught_up: &[u64]) -> Option<GroupChange> {
        let membership = Membership { voters: ids(voters), learners: ids(learners), ..Membership::default() };
        step(&membership, ids(wanted), |id| caught_up.contains(&id.0))
    }

    fn to(voters: &[u64], learners: &[u64]) -> Option<GroupChange> {
        Some(GroupChange::To { voters: ids(voters), learners: ids(learners) })
    }

    #[test]
    fn who_comes_learns_first_and_who_goes_goes_last() {
        assert_eq!(next(&[1, 2, 3], &[], &[3, 2, 1], &[1, 2, 3]), None);
        assert_eq!(next(&[1], &[], &[1, 256, 257], &[1]), to(&[1], &[256, 257]));
        assert_eq!(next(&[1], &[256, 257], &[1, 256, 257], &[1, 256]), None, "one has not all yet");
        assert_eq!(next(&[1], &[256, 257], &[1, 256, 257], &[1, 256, 257]), to(&[1, 256, 257], &[]));
        assert_eq!(next(&[1, 2, 3], &[], &[1, 2, 512], &[]), to(&[1, 2, 3], &[512]));
        assert_eq!(next(&[1, 2, 3], &[512], &[1, 2, 512], &[512]), to(&[1, 2, 512], &[]));
        assert_eq!(next(&[1, 2, 3], &[], &[1], &[]), to(&[1], &[]));
        assert_eq!(
            next(&[1, 2, 3], &[512], &[1, 2, 3], &[]),
            to(&[1, 2, 3], &[]),
            "it was thought better of"
        );
        let joint = Membership { voters: ids(&[1, 2]), outgoing: ids(&[1]), ..Membership::default() };
        assert_eq!(step(&joint, ids(&[1, 2]), |_| true), None);
    }
}
