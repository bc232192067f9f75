//! Which brokers are there: who decides on the metadata looks at its links, fences who is silent, and lets them back in.
//!
//! A fenced broker is not told to clients and is given no partitions. Whether it leads is its groups' matter: they have elected
//! another by then.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::{Instant, now, sleep};

use crate::controller::{BrokerImage, Change, Image, Terms};
use crate::ids::{BrokerId, ShardId};
use crate::peer::{Incarnation, PeerId};
use crate::shard::Shard;

const LOOK: Duration = Duration::from_millis(200);
/// Who is not connected for so long is fenced. Links notice silence within a second; connecting again takes another.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// When each broker was last connected, or this one began to look.
#[derive(Default)]
struct Seen {
    last: BTreeMap<BrokerId, Instant>,
}

/// The task of shard 0.
pub async fn run(shard: Rc<Shard>) {
    let mut seen = Seen::default();
    while !shard.is_stopping() {
        sleep(LOOK).await;
        let (Some(member), Ok(controller)) = (&shard.member, shard.controller()) else { continue };
        if !controller.decides() {
            // What it knew of others is old when it decides again.
            seen.last.clear();
            continue;
        }
        let connected = |id| member.links.stands_with(PeerId { broker: id, shard: ShardId(0) });
        for change in seen.look(&shard.image(), shard.broker(), now(), connected) {
            if let Err(error) = shard.change(change, Terms::new(false, Some(1_000))).await {
                tracing::debug!(%error, "whether a broker is there is not in the metadata yet");
            }
        }
    }
}

impl Seen {
    fn look(
        &mut self,
        image: &Image,
        own: BrokerId,
        now: Instant,
        connected: impl Fn(BrokerId) -> Option<Incarnation>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        self.last.retain(|id, _| image.brokers.contains_key(id));
        for broker in image.brokers.values() {
            let is_there = broker.id == own || connected(broker.id) == Some(Incarnation(broker.incarnation));
            let last = self.last.entry(broker.id).or_insert(now);
            if is_there {
                *last = now;
            }
            let BrokerImage { id, epoch, fenced, .. } = *broker;
            if !is_there && !fenced && now.since(*last) >= SILENT_MAX {
                tracing::warn!(broker = id.0, "a broker is silent: it is fenced");
                changes.push(Change::Fence { broker: id, epoch });
            }
            if is_there && fenced && !broker.endpoints.is_empty() {
                tracing::info!(broker = id.0, "a broker that was silent is there again");
                changes.push(Change::Unfence { broker: id, epoch });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Delta;
    use crate::controller::image::tests::brokers;

    fn told(changes: &[Change]) -> Vec<(i32, bool)> {
        let told = changes.iter().map(|change| match change {
            Change::Fence { broker, .. } => (broker.0, true),
            Change::Unfence { broker, .. } => (broker.0, false),
            _ => panic!("another change"),
        });
        told.collect()
    }

    #[test]
    fn who_is_silent_for_long_is_fenced_and_comes_back_as_who_it_was() {
        let (mut image, mut seen, own) = (brokers(&[None; 3]), Seen::default(), BrokerId(1));
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let all = |_| Some(Incarnation(0));
        let not_3 = |id: BrokerId| (id.0 != 3).then_some(Incarnation(0));
        assert!(seen.look(&image, own, at(1_000), all).is_empty());
        assert!(seen.look(&image, own, at(3_900), not_3).is_empty());
        assert_eq!(told(&seen.look(&image, own, at(4_100), not_3)), [(3, true)]);
        let fenced = BrokerImage { fenced: true, ..image.brokers[&BrokerId(3)].clone() };
        image.apply(&fenced.record(), &mut Delta::default()).expect("it fits");
        assert!(seen.look(&image, own, at(5_000), not_3).is_empty(), "it is fenced");
        // Another life of it registers first.
        let other = |id: BrokerId| Some(Incarnation(u64::from(id.0 == 3)));
        assert!(seen.look(&image, own, at(5_100), other).is_empty());
        assert_eq!(told(&seen.look(&image, own, at(5_200), all)), [(3, false)]);
    }
}
