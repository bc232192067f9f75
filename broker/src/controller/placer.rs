//! Where the replicas of new partitions go: evenly over brokers, and over racks where there are several.

use std::collections::BTreeMap;

use corelog_wire::ErrorCode;

use super::change::ChangeError;
use super::image::{Image, Load};
use crate::ids::BrokerId;

/// A broker that can be given replicas.
struct Candidate<'a> {
    id: BrokerId,
    rack: Option<&'a str>,
    load: Load,
}

/// Places partition after partition, and counts what it has placed.
pub struct Placer<'a> {
    candidates: Vec<Candidate<'a>>,
    /// Tells apart what is even otherwise: another one for each topic.
    seed: u64,
}

impl<'a> Placer<'a> {
    /// Over the brokers that are there.
    pub fn new(image: &'a Image, seed: u64) -> Placer<'a> {
        let candidates = image.brokers_there().filter(|broker| !image.is_draining(broker.id));
        let candidates = candidates.map(|broker| Candidate {
            id: broker.id,
            rack: broker.rack.as_deref(),
            load: image.load(broker.id),
        });
        Placer { candidates: candidates.collect(), seed }
    }

    /// Whether partitions can have this many replicas.
    pub fn check(&self, replication_factor: i32) -> Result<(), ChangeError> {
        let message = if replication_factor <= 0 {
            "Replication factor must be larger than 0, or -1 to use the default value.".into()
        } else if replication_factor as usize > self.candidates.len() {
            format!(
                "Unable to replicate the partition {replication_factor} time(s): The target replication factor of \
                 {replication_factor} cannot be reached because only {} broker(s) are registered.",
                self.candidates.len()
            )
        } else {
            return Ok(());
        };
        Err(ChangeError::new(ErrorCode::INVALID_REPLICATION_FACTOR, message))
    }

    /// The replicas of one more partition, its leader first. As many as [`Placer::check`] has allowed.
    pub fn place(&mut self, partition: i32, replication_factor: i32) -> Vec<BrokerId> {
        let (mut placed, mut racks) = (Vec::new(), BTreeMap::<Option<&str>, usize>::new());
        for _ in 0..replication_factor {
            let chance = |id: BrokerId| mixed(self.seed, partition, id);
            let is_free = |candidate: &&mut Candidate| !placed.contains(&candidate.id);
            let leads = placed.is_empty();
            let best = self.candidates.iter_mut().filter(is_free).min_by_key(|candidate| {
                let Load { replicas, leaders } = candidate.load;
                let in_rack = racks.get(&candidate.rack).copied().unwrap_or(0);
                (in_rack, if leads { leaders } else { 0 }, replicas, chance(candidate.id))
            });
            let best = best.expect("it was checked that there are so many brokers");
            best.load.replicas += 1;
            best.load.leaders += usize::from(leads);
            *racks.entry(best.rack).or_default() += 1;
            placed.push(best.id);
        }
        placed
    }

    /// What a request assigns by hand, as partitions are to be made by it: leaders first.
    pub fn check_assigned(&self, assigned: &[Vec<BrokerId>]) -> Result<(), ChangeError> {
        let wrong = |what: String| {
            Err(ChangeError::new(
                ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                format!("The manual partition assignment includes {what}."),
            ))
        };
        let mut before = None;
        for replicas in assigned {
            if replicas.is_empty() {
                return wrong("an empty replica list".into());
            }
            for (at, id) in replicas.iter().enumerate() {
                if replicas[..at].contains(id) {
                    return wrong(format!("the broker {} more than once", id.0));
                }
                if !self.candidates.iter().any(|candidate| candidate.id == *id) {
                    return wrong(format!("broker {}, but no such broker is registered", id.0));
                }
            }
            let (have, expected) = (replicas.len(), *before.get_or_insert(replicas.len()));
            if have != expected {
                return wrong(format!(
                    "a partition with {have} replica(s), but this is not consistent with previous partitions, which have \
                     {expected} replica(s)"
                ));
            }
        }
        Ok(())
    }
}

/// The same on each broker that decides.
fn mixed(seed: u64, partition: i32, broker: BrokerId) -> u64 {
    let mut mixed = seed ^ ((partition as u32 as u64) << 32 | broker.0 as u32 as u64);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::image::tests::brokers;
    use super::*;

    fn counts(
        placed: &[Vec<BrokerId>],
        of: impl Fn(&[BrokerId]) -> Vec<BrokerId>,
    ) -> BTreeMap<BrokerId, usize> {
        let mut counts = BTreeMap::new();
        placed.iter().flat_map(|replicas| of(replicas)).for_each(|id| *counts.entry(id).or_default() += 1);
        counts
    }

    fn spread(counts: &BTreeMap<BrokerId, usize>, brokers: usize) -> usize {
        let least = if counts.len() < brokers { 0 } else { *counts.values().min().expect("some") };
        counts.values().max().expect("some") - least
    }

    proptest! {
        #[test]
        fn leaders_and_replicas_are_even(
            (brokers_count, factor) in (1..8usize).prop_flat_map(|n| (Just(n), 1..=n)),
            partitions in 1..60i32,
            seed: u64,
        ) {
            let image = brokers(&vec![None; brokers_count]);
            let mut placer = Placer::new(&image, seed);
            placer.check(factor as i32).unwrap();
            let placed: Vec<_> = (0..partitions).map(|p| placer.place(p, factor as i32)).collect();
            for replicas in &placed {
                let distinct: std::collections::BTreeSet<_> = replicas.iter().collect();
                prop_assert_eq!(distinct.len(), factor);
            }
            prop_assert!(spread(&counts(&placed, |replicas| replicas[..1].to_vec()), brokers_count) <= 1);
            prop_assert!(spread(&counts(&placed, <[BrokerId]>::to_vec), brokers_count) <= 2);
        }

        #[test]
        fn replicas_are_in_as_many_racks_as_there_are(
            racks in prop::collection::vec(0..3u8, 3..9),
            partitions in 1..30i32,
            seed: u64,
        ) {
            let names: Vec<_> = racks.iter().map(|rack| Some(["a", "b", "c"][*rack as usize])).collect();
            let image = brokers(&names);
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            let mut placer = Placer::new(&image, seed);
            for partition in 0..partitions {
                let placed = placer.place(partition, 3);
                let used: std::collections::BTreeSet<_> =
                    placed.iter().map(|id| names[id.0 as usize - 1]).collect();
                prop_assert_eq!(used.len(), distinct.len().min(3));
            }
        }
    }

    #[test]
    fn partitions_go_where_there_are_few() {
        let mut image = brokers(&[None; 3]);
        image.count(&[BrokerId(1)], 5);
        image.count(&[BrokerId(2)], 3);
        let mut placer = Placer::new(&image, 7);
        assert_eq!([0, 1, 2].map(|partition| placer.place(partition, 1)[0].0), [3, 3, 3]);
    }

    #[test]
    fn what_is_assigned_by_hand_is_checked() {
        let image = brokers(&[None; 3]);
        let placer = Placer::new(&image, 0);
        let told = |assigned: &[&[i32]]| {
            let assigned: Vec<_> =
                assigned.iter().map(|ids| ids.iter().copied().map(BrokerId).collect()).collect();
            placer.check_assigned(&assigned).map_err(|error| error.message)
        };
        assert_eq!(told(&[&[1, 2], &[3, 1]]), Ok(()));
        let tail = |assigned: &[&[i32]]| {
            let message = told(assigned).expect_err("it is wrong");
            message.strip_prefix("The manual partition assignment includes ").expect("told").to_owned()
        };
        assert_eq!(tail(&[&[]]), "an empty replica list.");
        assert_eq!(tail(&[&[1, 1]]), "the broker 1 more than once.");
        assert_eq!(tail(&[&[4]]), "broker 4, but no such broker is registered.");
        assert!(tail(&[&[1], &[1, 2]]).starts_with("a partition with 2 replica(s), but"));
    }
}
