//! Moves replicas so that all brokers have as much to do, a few at a time, while this broker decides on the metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use corelog_io::{Instant, now, sleep};

use crate::controller::{Image, Terms, next_moves};
use crate::ids::BrokerId;
use crate::shard::Shard;

const LOOK: Duration = Duration::from_secs(2);

/// The task of shard 0.
pub async fn run(shard: Rc<Shard>) {
    let mut fenced = Fenced::default();
    while !shard.is_stopping() {
        sleep(LOOK).await;
        let Ok(controller) = shard.controller() else { continue };
        if !controller.decides() {
            fenced.since.clear();
            continue;
        }
        let (image, config) = (shard.image(), shard.config());
        let gone_after = config.balance_gone_after_ms.map(Duration::from_millis);
        let gone = fenced.look(&image, now(), gone_after);
        for change in next_moves(&image, &gone, config.balance_moves_max) {
            if let Err(error) = shard.change(change, Terms::new(false, Some(5_000))).await {
                tracing::debug!(%error, "a replica is not moved yet");
            }
        }
    }
}

/// Since when brokers are silent, as far as this one has seen.
#[derive(Default)]
struct Fenced {
    since: BTreeMap<BrokerId, Instant>,
}

impl Fenced {
    /// Those that are gone for good.
    fn look(&mut self, image: &Image, now: Instant, gone_after: Option<Duration>) -> BTreeSet<BrokerId> {
        let is_fenced = |id: &BrokerId| image.brokers.get(id).is_some_and(|broker| broker.fenced);
        self.since.retain(|id, _| is_fenced(id));
        for broker in image.brokers.values().filter(|broker| broker.fenced) {
            self.since.entry(broker.id).or_insert(now);
        }
        let Some(gone_after) = gone_after else { return BTreeSet::new() };
        let gone = self.since.iter().filter(|(_, since)| now.since(**since) >= gone_after);
        gone.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::image::tests::brokers;
    use crate::controller::{BrokerImage, Delta};

    #[test]
    fn who_is_silent_for_long_is_gone_until_it_is_heard() {
        let (mut image, mut fenced) = (brokers(&[None; 2]), Fenced::default());
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let set = |image: &mut Image, is_fenced| {
            let broker = BrokerImage { fenced: is_fenced, ..image.brokers[&BrokerId(2)].clone() };
            image.apply(&broker.record(), &mut Delta::default()).expect("it fits");
        };
        let after = Some(Duration::from_secs(10));
        set(&mut image, true);
        assert!(fenced.look(&image, at(1), after).is_empty());
        assert_eq!(fenced.look(&image, at(11), after), [BrokerId(2)].into());
        assert!(fenced.look(&image, at(12), None).is_empty(), "none is ever given up");
        set(&mut image, false);
        assert!(fenced.look(&image, at(13), after).is_empty());
        set(&mut image, true);
        assert!(fenced.look(&image, at(14), after).is_empty());
    }
}
