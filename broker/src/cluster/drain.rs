//! Before a broker stops, others are to lead what it leads: then nobody waits for an election.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::{now, sleep, yield_if_needed};
use corelog_replicas::Replica;

use super::Member;
use crate::ids::ReplicaId;
use crate::partition::Role;
use crate::shard::Shard;

/// What is led after that is left to elections.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// Hands over all groups that this shard leads. Returns when it leads none, or none that anybody would take.
pub async fn hand_over(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let until = now() + HAND_OVER_MAX;
    let mut begun = 0;
    loop {
        let mut led = 0;
        for partition in shard.partitions.all_opened() {
            yield_if_needed().await;
            let leads = partition.leadership().role == Role::Leader;
            if let Some(replica) = partition.replica().filter(|_| leads) {
                led += usize::from(begin(member, replica));
            }
        }
        if let Some(group) = shard.controller().ok().and_then(|controller| controller.group()) {
            let leads = group.replica.led().serves;
            led += usize::from(leads && begin(member, &group.replica));
        }
        begun = begun.max(led);
        if led == 0 || now() >= until {
            if begun > 0 {
                tracing::info!(groups = begun, left = led, "handed over what this shard led");
            }
            return;
        }
        sleep(LOOK).await;
    }
}

/// Whether there is somebody who takes it. One that is under way goes on.
fn begin(member: &Member, replica: &Replica) -> bool {
    let Some(to) = successor(replica) else { return false };
    let log = replica.log().id();
    if let Err(error) = member.replicas.transfer(log, to) {
        tracing::trace!(%log, %error, "not handed over yet");
    }
    true
}

/// The follower that lacks least.
fn successor(replica: &Replica) -> Option<ReplicaId> {
    let voters = replica.membership()?.voters;
    let followers = replica.followers().into_iter();
    let can = followers.filter(|one| voters.contains(&one.replica) && !one.snapshot && one.matched.0 > 0);
    can.max_by_key(|one| one.matched).map(|one| one.replica)
}
