//! The replicas of the controller's group follow the brokers that are registered: few vote, the others learn.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::sleep;
use corelog_io::sync::QueueSender;
use corelog_raft::config::REPLICAS_MAX;
use corelog_raft::{Change, Membership, PeerId, Progress, ReplicaId};

use super::CONTROLLER_SHARD;
use super::image::Image;
use super::member::{Group, Member};
use super::task::Submitted;
use crate::identity::Founder;
use crate::ids::BrokerId;
use crate::peer;
use crate::replication::raft_peer;
use crate::shard::Shard;

/// Between two looks at whether the group is as it should be.
const PAUSE: Duration = Duration::from_millis(200);
/// Who lacks no more of the log than so many batches has caught up with it.
const BEHIND_MAX: u64 = 64;

/// Keeps the group as the image says it should be, while this broker leads it.
pub(super) async fn run(shard: Rc<Shard>, member: Rc<Member>, queue: QueueSender<Submitted>) {
    let mut places = Vec::new();
    while !shard.is_stopping() {
        let image = shard.image();
        let now = places_of(&image, &member.group.founders);
        if now != places {
            places = now;
            let Group { replica, replicas, .. } = &member.group;
            replicas.set_places(replica.log().id(), places.clone());
        }
        if member.lags() {
            // A read that failed is tried again, whether or not more comes.
            let _ = queue.try_send(Submitted::News);
        }
        if member.leads().is_some() {
            if image.brokers.is_empty() {
                // Its founders are not written down yet.
                let _ = queue.try_send(Submitted::News);
            }
            reconcile(&image, &member.group).await;
        }
        sleep(PAUSE).await;
    }
}

/// Where the group's replicas are.
fn places_of(image: &Image, founders: &[Founder]) -> Vec<(ReplicaId, PeerId)> {
    let place = |broker| raft_peer(peer::PeerId { broker, shard: CONTROLLER_SHARD });
    let registered = image.brokers.values().filter_map(|it| Some((it.controller_replica?, place(it.id))));
    let mut places: Vec<_> = registered.collect();
    for founder in founders.iter().filter(|founder| !image.brokers.contains_key(&BrokerId(founder.node_id))) {
        places.push((founder.replica, place(BrokerId(founder.node_id))));
    }
    places
}

async fn reconcile(image: &Image, group: &Group) {
    let Group { replica, replicas, .. } = group;
    let (log, Some(membership)) = (replica.log(), replica.membership()) else { return };
    let followers = replica.followers();
    let end = log.next_index().0;
    let has_all = |follower: &Progress| !follower.snapshot && follower.matched.0 + BEHIND_MAX >= end;
    let caught_up = |id: ReplicaId| {
        id == replica.id() || followers.iter().any(|follower| follower.replica == id && has_all(follower))
    };
    let Some(target) = next_membership(image, &membership, caught_up) else { return };
    if !target.voters.contains(&replica.id()) {
        // It may not lead a group of which it is not.
        if let Some(next) = target.voters.iter().find(|voter| caught_up(**voter)) {
            let handed_over = replicas.transfer(log.id(), *next);
            tracing::info!(?handed_over, to = next.0, "the controller's group is to be led by another");
        }
        return;
    }
    let Membership { voters, learners, .. } = target;
    tracing::info!(?voters, ?learners, "the controller's group changes");
    if let Err(error) = replica.change(&Change::To { voters, learners }).await {
        tracing::debug!(%error, "the controller's group is not changed yet");
    }
}

/// What the group is to be next; `None`: it is as it should be, or cannot be changed now.
fn next_membership(
    image: &Image,
    now: &Membership,
    caught_up: impl Fn(ReplicaId) -> bool,
) -> Option<Membership> {
    let mut registered: Vec<(ReplicaId, bool)> = image
        .brokers
        .values()
        .filter_map(|broker| Some((broker.controller_replica?, broker.fenced)))
        .collect();
    if registered.is_empty() || now.is_joint() {
        return None;
    }
    // Founders have the lowest ids, and who joined later a higher one.
    registered.sort_unstable();
    registered.truncate(REPLICAS_MAX - 1);
    let votes = if registered.len() >= 5 { 5 } else { registered.len().min(3) };
    let is_ready = |(id, fenced): &(ReplicaId, bool)| {
        now.voters.contains(id) || (now.learners.contains(id) && !fenced && caught_up(*id))
    };
    let wanted = &registered[..votes];
    let mut voters: Vec<ReplicaId> = wanted.iter().filter(|one| is_ready(one)).map(|(id, _)| *id).collect();
    if voters.len() < votes {
        // Nobody goes before who comes in its place is there.
        voters.extend(now.voters.iter().filter(|id| !wanted.iter().any(|(wanted, _)| wanted == *id)));
    }
    voters.sort_unstable();
    let learners = registered.iter().map(|(id, _)| *id).filter(|id| !voters.contains(id)).collect();
    let next = Membership { voters, learners, ..Membership::default() };
    let mut known = now.clone();
    known.voters.sort_unstable();
    known.learners.sort_unstable();
    (next != known).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::image::tests::brokers;
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<ReplicaId> {
        numbers.iter().copied().map(ReplicaId).collect()
    }

    /// Brokers with these replicas; those of them that are fenced.
    fn image(replicas: &[u64], fenced: &[u64]) -> Image {
        let mut image = brokers(&vec![None; replicas.len()]);
        for (broker, replica) in Arc::make_mut(&mut image.brokers).values_mut().zip(replicas) {
            (broker.controller_replica, broker.fenced) =
                (Some(ReplicaId(*replica)), fenced.contains(replica));
        }
        image
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        Membership { voters: ids(voters), learners: ids(learners), ..Membership::default() }
    }

    /// All steps, until the group is as it should be.
    fn steps(image: &Image, mut now: Membership, caught_up: &[u64]) -> Vec<(Vec<u64>, Vec<u64>)> {
        let mut steps = Vec::new();
        while let Some(next) = next_membership(image, &now, |id| caught_up.contains(&id.0)) {
            let numbers = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect();
            steps.push((numbers(&next.voters), numbers(&next.learners)));
            assert!(steps.len() < 9, "{steps:?}");
            now = next;
        }
        steps
    }

    #[test]
    fn the_first_brokers_vote_and_the_others_learn() {
        let all = [1, 2, 3, 300, 400, 500];
        let founded = || membership(&[1, 2, 3], &[]);
        assert!(steps(&image(&all[..3], &[]), founded(), &all).is_empty());
        let four = steps(&image(&all[..4], &[]), founded(), &all);
        assert_eq!(four, [(vec![1, 2, 3], vec![300])]);
        let six = steps(&image(&all, &[]), founded(), &all);
        let expected = [(vec![1, 2, 3], vec![300, 400, 500]), (vec![1, 2, 3, 300, 400], vec![500])];
        assert_eq!(six, expected);
        // From one.
        let grown = steps(&image(&[1, 300, 400], &[]), membership(&[1], &[]), &all);
        assert_eq!(grown, [(vec![1], vec![300, 400]), (vec![1, 300, 400], vec![])]);
        // Who has not caught up, or is gone, does not vote.
        let slow = steps(&image(&[1, 300, 400], &[400]), membership(&[1], &[]), &[1, 400]);
        assert_eq!(slow, [(vec![1], vec![300, 400])]);
    }

    #[test]
    fn a_replica_goes_when_another_is_in_its_place() {
        // Broker 3 was wiped, and joined anew.
        let wiped = image(&[1, 2, 300], &[]);
        let now = || membership(&[1, 2, 3], &[]);
        assert_eq!(steps(&wiped, now(), &[1, 2]), [(vec![1, 2, 3], vec![300])]);
        let expected = [(vec![1, 2, 3], vec![300]), (vec![1, 2, 300], vec![])];
        assert_eq!(steps(&wiped, now(), &[1, 2, 300]), expected);
        // It was unregistered.
        assert_eq!(steps(&image(&[1, 2], &[]), now(), &[1, 2]), [(vec![1, 2], vec![])]);
        let joint = Membership { outgoing: ids(&[1, 2]), ..now() };
        assert!(steps(&wiped, joint, &[1, 2, 300]).is_empty());
        assert!(steps(&Image::default(), now(), &[1, 2, 3]).is_empty());
    }
}
