//! Random changes, decided and applied one after the other: whoever follows them, by deltas, by a snapshot and what came after
//! it, or from the log's beginning, comes to the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use corelog_io::Dice;
use corelog_io::sim::{Sim, SimConfig};
use corelog_wire::metadata_records::{MetadataRecord, PartitionChangeRecord};
use corelog_wire::{Str, Uuid};

use super::change::Rules;
use super::replay::tests::Replayed;
use super::snapshot::Batches;
use super::snapshot::tests::settings;
use super::task::applied;
use super::*;
use crate::ids::BrokerId;

const SEEDS: u64 = 150;
const STEPS: u64 = 80;
const NODE: i32 = 1;

fn pick<T: Clone>(dice: &mut Dice, from: &[T]) -> Option<T> {
    (!from.is_empty()).then(|| from[dice.index(from.len())].clone())
}

/// Some change; of few names, so that they come again, and collide.
fn change(dice: &mut Dice, image: &Image) -> Change {
    let name: Str = dice.pick(&["a", "b", "a.b", "a_b", "c.d", "e"]).into();
    let topics: Vec<Arc<TopicImage>> = image.topics().cloned().collect();
    if image.brokers.len() < 3 || dice.below(20) == 0 {
        return register(dice, image);
    }
    match (dice.below(10), pick(dice, &topics)) {
        (0 | 1, Some(topic)) => Change::DeleteTopic { id: topic.id },
        (2 | 3, Some(topic)) => {
            let more = [1, 70][dice.below(2) as usize];
            let count = topic.partition_count() + more;
            Change::CreatePartitions { topic: topic.name.clone(), count, assigned: None }
        }
        (4 | 5, _) => alter(dice, ResourceKey::Topic(name), "retention.ms"),
        (6, _) => {
            let broker = dice.pick(&["", "1", "2"]).to_owned();
            let config = ["log.retention.ms", "message.max.bytes"][dice.below(2) as usize];
            alter(dice, ResourceKey::Broker(broker), config)
        }
        (7, _) => Change::TakeProducerIds,
        _ => {
            let overrides = if dice.below(2) == 0 {
                Default::default()
            } else {
                [("segment.bytes".to_owned(), (2_000_000 + dice.below(3)).to_string())].into()
            };
            let id = Uuid((u128::from(dice.below(u64::MAX)) << 64 | 1).to_be_bytes());
            let placement = Placement::Anywhere {
                partitions: 1 + dice.below(5) as i32,
                replication_factor: 1 + dice.below(3) as i32,
            };
            Change::CreateTopic(NewTopic { name, id, placement, overrides })
        }
    }
}

/// One that is new, or is reached at another port.
fn register(dice: &mut Dice, image: &Image) -> Change {
    let id = if image.brokers.len() < 3 { image.brokers.len() as i32 + 1 } else { 1 + dice.below(3) as i32 };
    let id = BrokerId(id);
    let endpoint = Endpoint { host: "host".into(), port: 9092 + dice.below(3) as u16 };
    let endpoints = [(Str::from("PLAINTEXT"), endpoint)].into();
    let directory = Uuid([id.0 as u8; 16]);
    let (peer, controller_replica) = (None, None);
    Change::RegisterBroker(BrokerImage {
        id,
        epoch: -1,
        endpoints,
        rack: None,
        fenced: false,
        incarnation: 0,
        directory,
        peer,
        shards: 1,
        batch_bytes_max: None,
        controller_replica,
    })
}

fn alter(dice: &mut Dice, resource: ResourceKey, config: &str) -> Change {
    let (set, delete) = (0, 1);
    let op = if dice.below(3) == 0 { delete } else { set };
    let value = (op == set).then(|| (3_600_000 + dice.below(3)).to_string().into());
    Change::AlterConfigs { resource, change: ConfigChange::Incremental(vec![(config.into(), op, value)]) }
}

/// What an election would write.
fn elections(dice: &mut Dice, image: &Image) -> Vec<MetadataRecord> {
    let topics: Vec<Arc<TopicImage>> = image.topics().cloned().collect();
    let Some(topic) = pick(dice, &topics) else { return Vec::new() };
    let partitions = (0..topic.partition_count()).filter(|_| dice.below(3) == 0);
    let partitions: Vec<i32> = partitions.collect();
    let election = |partition_id| PartitionChangeRecord {
        partition_id,
        topic_id: topic.id,
        isr: (dice.below(2) == 0).then(|| vec![NODE, dice.below(3) as i32 + 2]),
        leader: if dice.below(3) == 0 { -2 } else { dice.below(3) as i32 },
        ..Default::default()
    };
    partitions.into_iter().map(election).map(MetadataRecord::from).collect()
}

/// What has happened, step by step.
struct History {
    /// The records of each step, one batch in the log.
    batches: Vec<Vec<MetadataRecord>>,
    /// The image after each step; the first is empty.
    images: Vec<Arc<Image>>,
    deltas: Vec<Delta>,
}

fn history(seed: u64, rules: &Rules) -> History {
    let mut dice = Dice(seed * 2 + 1);
    let mut history = History { batches: Vec::new(), images: vec![Arc::default()], deltas: Vec::new() };
    for _ in 0..STEPS {
        let image = history.images.last().expect("the first").clone();
        let records = if dice.below(4) == 0 {
            elections(&mut dice, &image)
        } else {
            let change = change(&mut dice, &image);
            let decided = change.clone().decide(&image, rules);
            assert_eq!(decided, change.decide(&image, rules), "a decision has nothing of chance");
            // A refusal changes nothing.
            decided.unwrap_or_default()
        };
        if records.is_empty() {
            continue;
        }
        let (mut next, delta) = applied(&image, &records).expect("what is decided fits");
        next.end_offset += records.len() as i64;
        history.batches.push(records);
        history.images.push(Arc::new(next));
        history.deltas.push(delta);
    }
    history
}

fn rules() -> Rules {
    Rules { node_id: NODE, partitions_max: 10_000, settings: Arc::new(settings()), is_alone: true }
}

fn each_history(check: impl Fn(&History, &Rules)) {
    let rules = rules();
    for seed in 1..=SEEDS {
        check(&history(seed, &rules), &rules);
    }
}

#[test]
fn a_view_that_follows_deltas_is_the_one_made_from_scratch() {
    for seed in 1..=SEEDS {
        Sim::new(seed).block_on(async move {
            let rules = rules();
            let history = history(seed, &rules);
            let mut view = View::new(history.images[0].clone(), rules.viewer());
            for (image, delta) in history.images[1..].iter().zip(&history.deltas) {
                let next = view.follow(image.clone(), delta, rules.viewer()).await;
                let fresh = View::new(image.clone(), rules.viewer());
                assert!(next == fresh, "after {delta:?}");
                view = next;
            }
        });
    }
}

/// A config that all topics' rest on is resolved anew for each that sets some: others have their turns meanwhile.
#[test]
fn a_new_default_for_many_topics_is_taken_in_many_turns() {
    let sim = Sim::with_config(1, SimConfig { yield_one_in: 0, ..SimConfig::default() });
    sim.block_on(async {
        let rules = rules();
        let mut image = super::image::tests::brokers(&[None]);
        let mut make = |change: Change| {
            let (next, delta) =
                applied(&image, &change.decide(&image, &rules).expect("a change")).expect("it fits");
            image = next;
            (Arc::new(image.clone()), delta)
        };
        for n in 1..=1_000 {
            let overrides = [("segment.bytes".to_owned(), "2000000".to_owned())].into();
            let (name, id) = (format!("t{n}").as_str().into(), Uuid(u128::to_be_bytes(n + 2)));
            let placement = Placement::Assigned(vec![vec![BrokerId(1)]]);
            make(Change::CreateTopic(NewTopic { name, id, placement, overrides }));
        }
        let set = vec![("log.retention.ms".into(), 0, Some("3600000".into()))];
        let (resource, change) = (ResourceKey::Broker(String::new()), ConfigChange::Incremental(set));
        let (after, delta) = make(Change::AlterConfigs { resource, change });
        let view = View::new(after.clone(), rules.viewer());
        let (mut turns, mut follow) = (0, std::pin::pin!(view.follow(after, &delta, rules.viewer())));
        std::future::poll_fn(|cx| {
            turns += 1;
            follow.as_mut().poll(cx)
        })
        .await;
        assert!(turns > 5, "{turns} turns");
    });
}

#[test]
fn a_delta_names_all_that_changed_and_the_rest_is_shared() {
    each_history(|history, _| {
        for (images, delta) in history.images.windows(2).zip(&history.deltas) {
            let [before, after] = images else { unreachable!("two") };
            for topic in after.topics() {
                let was = before.topic_by_id(topic.id);
                match delta.topics.get(&topic.id) {
                    None => {
                        assert!(was.is_some_and(|was| Arc::ptr_eq(was, topic)), "{} is shared", topic.name)
                    }
                    Some(told) => {
                        assert_eq!(told.is_new, was.is_none());
                        let Some(was) = was else { continue };
                        assert!(told.configs || was.overrides == topic.overrides);
                        for index in 0..topic.partition_count() {
                            let same = was.partition(index) == topic.partition(index);
                            assert!(same || told.partitions.contains(&index));
                        }
                    }
                }
            }
            let gone: BTreeSet<Uuid> =
                before.topics().map(|topic| topic.id).filter(|id| after.topic_by_id(*id).is_none()).collect();
            assert_eq!(delta.removed.iter().map(|topic| topic.id).collect::<BTreeSet<_>>(), gone);
            assert!(before.broker_overrides == after.broker_overrides || !delta.brokers.is_empty());
            assert!(before.brokers == after.brokers || !delta.registered.is_empty());
            let partitions = after.topics().map(|topic| topic.partitions.len()).sum::<usize>();
            assert_eq!(after.partition_count(), partitions);
        }
    });
}

/// Who was given another log than it had follows the difference.
#[test]
fn the_delta_between_two_images_leads_from_one_to_the_other() {
    for seed in 1..=SEEDS {
        Sim::new(seed).block_on(async move {
            let rules = rules();
            let images = history(seed, &rules).images;
            let before = &images[Dice(seed).below(images.len() as u64) as usize];
            let after = images.last().expect("the first");
            let delta = Delta::between(before, after).await;
            let view = View::new(before.clone(), rules.viewer());
            let followed = view.follow(after.clone(), &delta, rules.viewer()).await;
            assert!(followed == View::new(after.clone(), rules.viewer()), "{delta:?}");
            for topic in after.topics() {
                let was = before.topic_by_id(topic.id);
                let told = delta.topics.get(&topic.id);
                assert_eq!(told.is_some_and(|told| told.is_new), was.is_none());
                let same = |index| was.and_then(|was| was.partition(index)) == topic.partition(index);
                let of = told.map(|told| told.partitions.clone()).unwrap_or_default();
                let named = |index| was.is_none() || of.contains(&index);
                assert!((0..topic.partition_count()).all(|index| same(index) != named(index)));
            }
            let gone = before.topics().filter(|topic| after.topic_by_id(topic.id).is_none());
            assert!(gone.eq(&delta.removed));
            assert_eq!(delta.brokers.is_empty(), before.broker_overrides == after.broker_overrides);
            assert_eq!(delta.registered.is_empty(), before.brokers == after.brokers);
            assert!(Delta::between(after, after).await.is_empty());
        });
    }
}

#[test]
fn a_replay_and_a_snapshot_with_its_tail_come_to_the_same() {
    Sim::new(1).block_on(async {
        let rules =
            Rules { node_id: NODE, partitions_max: 10_000, settings: Arc::new(settings()), is_alone: true };
        for seed in 1..=SEEDS {
            let history = history(seed, &rules);
            let last = history.images.last().expect("the first").clone();
            let snapshot_at = Dice(seed).below(history.images.len() as u64) as usize;
            let replay = &history.batches;
            let (image, none) = (history.images[snapshot_at].clone(), BTreeSet::new());
            let mut batches = Batches::new(&image, &none, NODE);
            let mut with_snapshot: Vec<_> = std::iter::from_fn(|| Some(batches.next()?.1)).collect();
            with_snapshot.extend_from_slice(&replay[snapshot_at..]);
            for batches in [replay, &with_snapshot] {
                let mut log = Replayed::new(0);
                for batch in batches {
                    log.take(batch).await.expect("it fits");
                }
                let mut image = log.image;
                image.end_offset = last.end_offset;
                assert!(image == *last, "seed {seed}");
            }
        }
    });
}

/// Who looks at what has changed since misses nothing.
#[test]
fn recent_changes_name_every_partition_that_is_not_as_it_was() {
    each_history(|history, _| {
        let mut recent = RecentChanges::default();
        for (now, delta) in history.images[1..].iter().zip(&history.deltas) {
            recent.note(now, delta);
        }
        let now = history.images.last().expect("the first");
        for before in &history.images {
            let changed: BTreeSet<Changed> =
                recent.since(before.end_offset).expect("few").map(|it| it.0).collect();
            let topics = before.topics().chain(now.topics());
            for (id, count) in topics.map(|topic| (topic.id, topic.partition_count())) {
                for index in 0..count {
                    let of =
                        |image: &Image| image.topic_by_id(id).and_then(|it| it.partition(index).cloned());
                    let named = |partition| changed.contains(&Changed { topic: id, partition });
                    assert!(of(before) == of(now) || named(None) || named(Some(index)));
                }
            }
            assert!(before.end_offset < now.end_offset || changed.is_empty());
        }
    });
}

#[test]
fn of_many_changes_the_oldest_are_forgotten() {
    let mut recent = RecentChanges::default();
    let mut image = Image::default();
    for version in 1..=5_000 {
        let mut delta = Delta::default();
        let topic_id = Uuid((version as u128).to_be_bytes());
        let topic =
            corelog_wire::metadata_records::TopicRecord { name: format!("t{version}").into(), topic_id };
        image.apply(&topic.into(), &mut delta).expect("it fits");
        image.end_offset = version;
        recent.note(&image, &delta);
    }
    assert!(recent.since(1_000).is_none());
    assert_eq!(recent.since(4_990).expect("it is recent").count(), 10);
    let everything = Delta::of_all(&image);
    image.end_offset += 1;
    recent.note(&image, &everything);
    assert!(recent.since(5_000).is_none() && recent.since(5_001).is_some());
}
