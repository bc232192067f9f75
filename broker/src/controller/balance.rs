//! Which replicas are to move so that all brokers have as much to do: a pure function of the image, a few moves at a time.
//!
//! In this order: what is on brokers that are gone for good, or are to be empty, gets replicas elsewhere; internal topics get as many replicas as they
//! should have, now that there are brokers for them; replicas become even over brokers; then preferred leaders do, which moves no
//! data. Two brokers that differ by one are even.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::image::{Image, Load, PartitionImage, TopicImage};
use super::is_internal;
use crate::ids::BrokerId;

/// Replicas of the partitions of internal topics, where there are so many brokers.
pub const INTERNAL_REPLICAS: usize = 3;

/// The next moves, no more than would make `moves_max` under way together. `gone`: brokers that do not come back.
pub fn next_moves(image: &Image, gone: &BTreeSet<BrokerId>, moves_max: usize) -> Vec<Change> {
    let mut plan = Plan::new(image, gone);
    let mut moves = Vec::new();
    let under_way = plan.partitions().filter(|(.., found)| found.is_moving()).count();
    let room = moves_max.saturating_sub(under_way);
    if plan.loads.is_empty() || room == 0 {
        return moves;
    }
    let all: Vec<(&TopicImage, i32, &PartitionImage)> = plan.partitions().collect();
    for step in [Plan::replace, Plan::grow, Plan::even_replicas] {
        for (topic, partition, found) in all.iter().filter(|(.., found)| !found.is_moving()) {
            if moves.len() == room {
                return moves;
            }
            let is_named = |change: &Change| matches!(change, Change::Reassign { topic: named, partition: at, .. } if *named == topic.name && at == partition);
            if !moves.iter().any(is_named)
                && let Some(target) = step(&mut plan, topic, found)
            {
                moves.push(reassign(topic, *partition, target));
            }
        }
        // What is wrong is mended before what is uneven.
        if !moves.is_empty() {
            return moves;
        }
    }
    // Only where nothing moves: what is first in a list counts once replicas are where they belong.
    if under_way == 0 {
        for (topic, partition, found) in all {
            if moves.len() == room {
                break;
            }
            if let Some(target) = plan.even_leaders(found) {
                moves.push(reassign(topic, partition, target));
            }
        }
    }
    moves
}

fn reassign(topic: &TopicImage, partition: i32, target: Vec<BrokerId>) -> Change {
    Change::Reassign { topic: topic.name.clone(), partition, target: Some(target) }
}

struct Plan<'a> {
    image: &'a Image,
    gone: &'a BTreeSet<BrokerId>,
    /// Of the brokers that can be given something, with what was planned for them.
    loads: BTreeMap<BrokerId, Load>,
}

impl<'a> Plan<'a> {
    fn new(image: &'a Image, gone: &'a BTreeSet<BrokerId>) -> Plan<'a> {
        let there = image.brokers_there();
        let there = there.filter(|broker| !gone.contains(&broker.id) && !image.is_draining(broker.id));
        let loads = there.map(|broker| (broker.id, image.load(broker.id))).collect();
        Plan { image, gone, loads }
    }

    fn partitions(&self) -> impl Iterator<Item = (&'a TopicImage, i32, &'a PartitionImage)> + use<'a> {
        let topics = self.image.topics();
        topics.flat_map(|topic| (0..).zip(&topic.partitions).map(|(index, found)| (&**topic, index, found)))
    }

    fn rack(&self, broker: BrokerId) -> Option<&'a str> {
        self.image.brokers.get(&broker)?.rack.as_deref()
    }

    /// Who has least, of those that are none of `replicas`, in a rack that has fewest of them.
    fn best(&self, replicas: &[BrokerId]) -> Option<BrokerId> {
        let in_rack = |rack| replicas.iter().filter(|of| self.rack(**of) == rack).count();
        let free = self.loads.iter().filter(|(id, _)| !replicas.contains(id));
        let best = free.min_by_key(|(id, load)| (in_rack(self.rack(**id)), load.replicas, **id));
        best.map(|(id, _)| *id)
    }

    fn takes(&mut self, broker: BrokerId) {
        self.loads.entry(broker).or_default().replicas += 1;
    }

    /// Replicas on brokers that are gone go elsewhere.
    fn replace(&mut self, _: &TopicImage, found: &PartitionImage) -> Option<Vec<BrokerId>> {
        let is_to_go = |broker: &BrokerId| self.gone.contains(broker) || self.image.is_draining(*broker);
        let at = found.replicas.iter().position(is_to_go)?;
        let mut target = found.replicas.to_vec();
        target.remove(at);
        let best = self.best(&target)?;
        self.takes(best);
        // Who leads now stays in front.
        target.push(best);
        Some(target)
    }

    /// Internal topics were created when there were fewer brokers.
    fn grow(&mut self, topic: &TopicImage, found: &PartitionImage) -> Option<Vec<BrokerId>> {
        let wanted = INTERNAL_REPLICAS.min(self.loads.len());
        if !is_internal(&topic.name) || found.replicas.len() >= wanted {
            return None;
        }
        let mut target = found.replicas.to_vec();
        while target.len() < wanted {
            let best = self.best(&target)?;
            self.takes(best);
            target.push(best);
        }
        Some(target)
    }

    /// From a broker that has more to one that has less.
    fn even_replicas(&mut self, _: &TopicImage, found: &PartitionImage) -> Option<Vec<BrokerId>> {
        let load = |broker: &BrokerId| self.loads.get(broker).map(|load| load.replicas);
        let (from, most) =
            found.replicas.iter().filter_map(|id| Some((*id, load(id)?))).max_by_key(|(_, has)| *has)?;
        let others: Vec<BrokerId> = found.replicas.iter().copied().filter(|id| *id != from).collect();
        let free = self.loads.iter().filter(|(id, _)| !found.replicas.contains(id));
        let racks = |with: BrokerId| {
            let all = others.iter().copied().chain([with]);
            all.map(|id| self.rack(id)).collect::<BTreeSet<_>>().len()
        };
        let fitting = free.filter(|(id, load)| load.replicas + 1 < most && racks(**id) >= racks(from));
        let to = fitting.min_by_key(|(id, load)| (load.replicas, **id)).map(|(id, _)| *id)?;
        self.takes(to);
        self.loads.entry(from).or_default().replicas -= 1;
        Some(found.replicas.iter().map(|id| if *id == from { to } else { *id }).collect())
    }

    /// The same replicas, another one of them first.
    fn even_leaders(&mut self, found: &PartitionImage) -> Option<Vec<BrokerId>> {
        let first = *found.replicas.first()?;
        let leads = |broker: &BrokerId| self.loads.get(broker).map(|load| load.leaders);
        // One that is to be empty leads nothing that another can.
        let most = if self.image.is_draining(first) { usize::MAX } else { leads(&first)? };
        let others = found.replicas.iter().skip(1).filter_map(|id| Some((leads(id)?, *id)));
        let (least, to) = others.min()?;
        if least + 1 >= most {
            return None;
        }
        self.loads.entry(first).and_modify(|load| load.leaders -= 1);
        self.loads.entry(to).or_default().leaders += 1;
        let rest = found.replicas.iter().copied().filter(|id| *id != to);
        Some([to].into_iter().chain(rest).collect())
    }
}

#[cfg(test)]
mod tests {
    use corelog_wire::metadata_records::{MetadataRecord, PartitionChangeRecord, TopicRecord};
    use corelog_wire::{Str, Uuid};
    use proptest::prelude::*;

    use super::super::OFFSETS_TOPIC;
    use super::super::change::partition_record;
    use super::super::delta::Delta;
    use super::super::image::DRAIN as DRAIN_CONFIG;
    use super::super::image::tests::brokers;
    use super::super::reassign::{reassign, settled};
    use super::*;

    fn put(image: &mut Image, record: MetadataRecord) {
        image.apply(&record, &mut Delta::default()).expect("it fits");
    }

    fn with_topic(image: &mut Image, name: &str, partitions: &[Vec<i32>]) {
        let topic_id = Uuid([name.len() as u8; 16]);
        put(image, MetadataRecord::TopicRecord(TopicRecord { name: name.into(), topic_id }));
        for (partition, replicas) in (0..).zip(partitions) {
            let replicas = replicas.iter().copied().map(BrokerId).collect();
            put(image, partition_record(topic_id, partition, replicas));
        }
    }

    /// Makes the moves, and has their groups follow. How many there were.
    fn move_all(image: &mut Image, gone: &BTreeSet<BrokerId>) -> usize {
        let moves = next_moves(image, gone, 8);
        for change in &moves {
            let Change::Reassign { topic, partition, target } = change else { panic!("another change") };
            let records = reassign(image, topic, *partition, target.as_deref()).expect("it can be");
            assert!(!records.is_empty(), "a move that is none: {topic}-{partition}");
            records.into_iter().for_each(|record| put(image, record));
        }
        let topics: Vec<(Str, Uuid)> = image.topics().map(|topic| (topic.name.clone(), topic.id)).collect();
        for (_, topic_id) in topics {
            let count = image.topic_by_id(topic_id).unwrap().partition_count();
            for partition_id in 0..count {
                let found = image.topic_by_id(topic_id).unwrap().partition(partition_id).unwrap().clone();
                if found.is_moving() {
                    let unchanged = PartitionChangeRecord { topic_id, partition_id, ..Default::default() };
                    put(image, MetadataRecord::PartitionChangeRecord(settled(&found, unchanged)));
                }
            }
        }
        moves.len()
    }

    fn spread(image: &Image, of: impl Fn(Load) -> usize) -> usize {
        let loads: Vec<usize> = image.brokers_there().map(|broker| of(image.load(broker.id))).collect();
        loads.iter().max().unwrap() - loads.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn it_becomes_even_and_stays_so(
            count in 1..6usize,
            partitions in prop::collection::vec(prop::collection::btree_set(1..6i32, 1..4), 1..40),
        ) {
            let mut image = brokers(&vec![None; count]);
            let assigned: Vec<Vec<i32>> = partitions
                .iter()
                .map(|replicas| {
                    let there: BTreeSet<i32> = replicas.iter().map(|id| 1 + (id - 1) % count as i32).collect();
                    there.into_iter().collect()
                })
                .collect();
            with_topic(&mut image, "t", &assigned);
            let none = BTreeSet::new();
            let mut rounds = 0;
            while move_all(&mut image, &none) > 0 {
                rounds += 1;
                prop_assert!(rounds < 400, "it does not end");
            }
            prop_assert!(spread(&image, |load| load.replicas) <= 1 || assigned.iter().all(|one| one.len() >= count));
        }
    }

    #[test]
    fn internal_topics_grow_with_the_cluster() {
        let none = BTreeSet::new();
        let mut image = brokers(&[None]);
        with_topic(&mut image, OFFSETS_TOPIC, &[vec![1], vec![1]]);
        with_topic(&mut image, "t", &[vec![1]]);
        assert_eq!(move_all(&mut image, &none), 0);
        let two = brokers(&[None; 3]);
        for id in [2, 3] {
            put(&mut image, two.brokers[&BrokerId(id)].record());
        }
        assert_eq!(move_all(&mut image, &none), 2);
        let offsets = image.topic(OFFSETS_TOPIC).unwrap();
        assert!(offsets.partitions.iter().all(|found| found.replicas.len() == 3 && !found.is_moving()));
        assert_eq!(image.topic("t").unwrap().replication_factor(), 1, "others have what they were given");
    }

    #[test]
    fn what_is_on_brokers_that_are_gone_is_replaced_within_their_racks() {
        let mut image = brokers(&[Some("a"), Some("b"), Some("b"), Some("a")]);
        with_topic(&mut image, "t", &[vec![1, 2], vec![2, 1]]);
        let gone = BTreeSet::from([BrokerId(2)]);
        assert_eq!(move_all(&mut image, &gone), 2);
        for found in &image.topic("t").unwrap().partitions {
            assert_eq!(
                found.replicas.iter().copied().collect::<BTreeSet<_>>(),
                [BrokerId(1), BrokerId(3)].into()
            );
        }
    }

    #[test]
    fn who_is_to_be_empty_gives_what_others_can_take() {
        let mut image = brokers(&[None; 3]);
        with_topic(&mut image, "t", &[vec![2, 1, 3], vec![1, 2, 3]]);
        with_topic(&mut image, "two", &[vec![2, 1], vec![2]]);
        let set = [(DRAIN_CONFIG.to_owned(), "true".to_owned())].into();
        super::super::change::config_records(4, "2".into(), &set).for_each(|record| put(&mut image, record));
        let none = BTreeSet::new();
        let mut rounds = 0;
        while move_all(&mut image, &none) > 0 {
            rounds += 1;
            assert!(rounds < 20, "it does not end");
        }
        assert_eq!(image.load(BrokerId(2)), Load { replicas: 2, leaders: 0 }, "of t there must be three");
    }

    #[test]
    fn few_move_at_once_and_none_where_none_may() {
        let mut image = brokers(&[None; 2]);
        with_topic(&mut image, "t", &vec![vec![1]; 20]);
        let none = BTreeSet::new();
        assert_eq!(next_moves(&image, &none, 3).len(), 3);
        assert!(next_moves(&image, &none, 0).is_empty());
    }
}
