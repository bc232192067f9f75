//! Who asks for changes, and what they may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use corelog_io::sleep;
use corelog_wire::Uuid;

use super::*;

/// What is known of a topic by the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    There,
    Gone,
    /// Something was asked of it whose answer nobody knows.
    Open,
}

/// What changes came to.
#[derive(Debug, Default)]
pub struct Answers {
    pub topics: BTreeMap<Uuid, Known>,
    /// Where blocks of producer ids end.
    pub blocks: Vec<i64>,
    pub blocks_open: usize,
    /// The highest epoch that was reported of a topic's first partition, and answered.
    pub epochs: BTreeMap<Uuid, i32>,
    pub made: usize,
    pub open: usize,
}

/// Asks for one change after the other.
pub async fn ask(world: Rc<World>, broker: usize, shard: Rc<Shard>) {
    let mut own: Vec<Uuid> = Vec::new();
    loop {
        sleep(MS * below(80) as u32).await;
        if world.settling.get() {
            return;
        }
        let terms = Terms::new(false, [None, Some(3_000), Some(500)][below(3) as usize]);
        match below(8) {
            0..3 => create(&world, &shard, terms, &mut own).await,
            3 if !own.is_empty() => {
                let id = own.swap_remove(below(own.len() as u64) as usize);
                delete(&world, &shard, terms, id).await;
            }
            4 if !own.is_empty() => {
                let topic = own[below(own.len() as u64) as usize];
                report(&world, &shard, terms, topic, broker).await;
            }
            5 => {
                let value = Some((3_600_000 + below(1_000)).to_string().as_str().into());
                let change = ConfigChange::Incremental(vec![("log.retention.ms".into(), 0, value)]);
                let resource = ResourceKey::Broker(String::new());
                let _any = shard.change(Change::AlterConfigs { resource, change }, terms).await;
            }
            _ => take_ids(&world, &shard, terms).await,
        }
    }
}

/// Whether it is made, where that is known.
fn outcome(world: &World, result: &Result<Made, ChangeError>) -> Option<bool> {
    let mut answers = world.answers.borrow_mut();
    answers.made += usize::from(result.is_ok());
    match result {
        Ok(_) => Some(true),
        Err(error) if error.in_doubt => {
            answers.open += 1;
            None
        }
        Err(_) => Some(false),
    }
}

async fn create(world: &World, shard: &Rc<Shard>, terms: Terms, own: &mut Vec<Uuid>) {
    let number = world.number();
    let id = Uuid((u128::from(number) << 64 | 7).to_be_bytes());
    world.answers.borrow_mut().topics.insert(id, Known::Open);
    let new = NewTopic {
        name: format!("topic-{number}").as_str().into(),
        id,
        placement: Placement::Anywhere {
            partitions: 1 + below(3) as i32,
            replication_factor: 1 + below(3) as i32,
        },
        overrides: ConfigMap::new(),
    };
    let made = shard.change(Change::CreateTopic(new), terms).await;
    let Some(is_made) = outcome(world, &made) else { return };
    let known = if is_made { Known::There } else { Known::Gone };
    world.answers.borrow_mut().topics.insert(id, known);
    if is_made {
        assert!(shard.image().topic_by_id(id).is_some(), "who is answered knows of it");
        own.push(id);
    }
}

async fn delete(world: &World, shard: &Rc<Shard>, terms: Terms, id: Uuid) {
    world.answers.borrow_mut().topics.insert(id, Known::Open);
    let made = shard.change(Change::DeleteTopic { id }, terms).await;
    let Some(is_made) = outcome(world, &made) else { return };
    let known = if is_made { Known::Gone } else { Known::There };
    world.answers.borrow_mut().topics.insert(id, known);
    assert!(!is_made || shard.image().topic_by_id(id).is_none(), "who is answered knows that it is gone");
}

async fn report(world: &World, shard: &Rc<Shard>, terms: Terms, topic: Uuid, broker: usize) {
    let (epoch, leader) = (LeaderEpoch(world.number() as i32), id_of(broker));
    // A broker tells of what it leads itself.
    let found = shard.image().topic_by_id(topic).map(|topic| topic.partitions[0].replicas.clone());
    if found.is_some_and(|replicas| !replicas.contains(&leader)) {
        return;
    }
    let led = Led { topic, partition: 0, leader, epoch, isr: vec![leader], settled: false };
    let made = shard.change(Change::Leaders(vec![led]), terms).await;
    if outcome(world, &made) == Some(true) {
        let known = shard.image().topic_by_id(topic).expect("it is there").partitions[0].leader_epoch;
        assert!(known >= epoch, "{known:?} is known, {epoch:?} was reported");
        let mut answers = world.answers.borrow_mut();
        let last = answers.epochs.entry(topic).or_default();
        *last = epoch.0.max(*last);
    }
}

async fn take_ids(world: &World, shard: &Rc<Shard>, terms: Terms) {
    world.answers.borrow_mut().blocks_open += 1;
    let made = shard.change(Change::TakeProducerIds, terms).await;
    let is_made = outcome(world, &made);
    let mut answers = world.answers.borrow_mut();
    if is_made.is_some() {
        answers.blocks_open -= 1;
    }
    answers.blocks.extend(made.ok().map(|made| made.next_producer_id));
}

/// In the end.
pub fn check(world: &World, image: &Image) {
    let answers = world.answers.borrow();
    for (id, known) in &answers.topics {
        let is_there = image.topic_by_id(*id).is_some();
        assert!(*known == Known::Open || is_there == (*known == Known::There), "{id}: {known:?}");
    }
    for topic in image.topics() {
        assert!(answers.topics.contains_key(&topic.id), "{} was never asked for", topic.name);
        let reported = answers.epochs.get(&topic.id).copied().unwrap_or(-1);
        assert!(topic.partitions[0].leader_epoch.0 >= reported, "{}", topic.name);
    }
    let blocks: BTreeSet<i64> = answers.blocks.iter().copied().collect();
    assert_eq!(blocks.len(), answers.blocks.len(), "each block once");
    let taken = (image.next_producer_id / PRODUCER_ID_BLOCK) as usize;
    assert!(
        (blocks.len()..=blocks.len() + answers.blocks_open).contains(&taken),
        "{taken} blocks were taken"
    );
}
