//! Consumers: one that reads all partitions from the beginning, and members of groups that come and go.

use super::checker::Rule;
use super::history::{Commit, Consumer, Poll};
use super::world::{Told, World};
use crate::random::Random;
use anyhow::{Context, Result};
use corelog_client::{Assignor, ConsumerConfig, ConsumerRecord, OffsetReset, RebalanceListener, block_on};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
/// How long a consumer goes on, after the producers have stopped, while nothing comes: longer than a member that left without a
/// word keeps its partitions.
const END_IDLE: Duration = Duration::from_secs(25);
/// Then it ends in any case.
const END_TIMEOUT: Duration = Duration::from_secs(90);
/// A member stays for this long, and is away for that long.
const STAY_MS: (u64, u64) = (5_000, 60_000);
const AWAY_MS: (u64, u64) = (0, 3_000);

/// What consumers of one thread have seen.
#[derive(Default)]
pub struct Seen {
    pub lives: Vec<Consumer>,
    pub told: Told,
    pub wrong: Vec<(Rule, String)>,
}

/// Reads all partitions, until the producers have stopped and nothing comes.
pub fn alone(name: &str, world: &World) -> Result<Seen> {
    let mut seen = Seen::default();
    let config =
        ConsumerConfig { offset_reset: OffsetReset::Earliest, fetch_wait_max: POLL, ..Default::default() };
    let (_client, consumer) = open(name, config, world)?;
    consumer.assign(world.partitions())?;
    let mut life = Life::new(name, None, consumer, Arc::default(), world);
    let mut end = End::default();
    while !end.is_reached(world) {
        if life.poll(&mut seen) {
            end.active();
        }
    }
    seen.lives.push(life.history);
    Ok(seen)
}

/// A member of a group that leaves it and comes back, until the producers have stopped and nothing comes.
pub fn member(name: &str, group: &str, seed: u64, world: &World) -> Result<Seen> {
    let mut random = Random::new(seed);
    let mut seen = Seen::default();
    let mut end = End::default();
    for life in 1.. {
        let name = format!("{name}/{life}");
        let until = Instant::now() + Duration::from_millis(random.between(STAY_MS.0, STAY_MS.1));
        let rebalances = Arc::new(AtomicU32::new(0));
        let counted = rebalances.clone();
        let listener = move |_: &corelog_client::RebalanceEvent| {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let all = [Assignor::CooperativeSticky, Assignor::Range];
        let assignors = all[random.below(2) as usize..].to_vec();
        let config = ConsumerConfig {
            auto_commit: None,
            fetch_wait_max: POLL,
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(1),
            assignors,
            rebalance_listener: Some(RebalanceListener(Arc::new(listener))),
            ..ConsumerConfig::group(group).from_earliest()
        };
        let (_client, consumer) = open(&name, config, world)?;
        let topics: Vec<&str> = world.target.topics.iter().map(|topic| topic.as_str()).collect();
        consumer.subscribe(topics)?;
        let mut life = Life::new(&name, Some(group), consumer, rebalances, world);
        let commit_each = random.between(1, 20);
        let mut polls = 0;
        while !end.is_reached(world) && (world.stopped() || Instant::now() < until) {
            if life.poll(&mut seen) {
                end.active();
                polls += 1;
                if polls % commit_each == 0 {
                    life.commit(&mut seen);
                }
            }
        }
        // One in three leaves without a word.
        let is_last = end.is_reached(world);
        if is_last || random.below(3) > 0 {
            life.commit(&mut seen);
            if let Err(error) = block_on(life.consumer.close()) {
                seen.told.add(&error);
            }
        }
        seen.lives.push(life.history);
        if is_last {
            break;
        }
        std::thread::sleep(Duration::from_millis(random.between(AWAY_MS.0, AWAY_MS.1)));
    }
    Ok(seen)
}

fn open(
    name: &str,
    config: ConsumerConfig,
    world: &World,
) -> Result<(corelog_client::Client, corelog_client::Consumer)> {
    block_on(async {
        let client = world.connect(name).await?;
        let consumer = client.consumer(config)?;
        Ok((client, consumer))
    })
    .map_err(|error: corelog_client::Error| error)
    .with_context(|| name.to_owned())
}

/// When a consumer has read enough.
struct End {
    /// When something came last, from when the producers stopped on.
    active: Instant,
    stopped: Option<Instant>,
}

impl Default for End {
    fn default() -> Self {
        End { active: Instant::now(), stopped: None }
    }
}

impl End {
    fn active(&mut self) {
        self.active = Instant::now();
    }

    fn is_reached(&mut self, world: &World) -> bool {
        if !world.stopped() {
            return false;
        }
        let stopped = *self.stopped.get_or_insert_with(Instant::now);
        self.active.max(stopped).elapsed() > END_IDLE || stopped.elapsed() > END_TIMEOUT
    }
}

struct Life<'a> {
    consumer: corelog_client::Consumer,
    rebalances: Arc<AtomicU32>,
    world: &'a World<'a>,
    history: Consumer,
}

impl<'a> Life<'a> {
    fn new(
        name: &str,
        group: Option<&str>,
        consumer: corelog_client::Consumer,
        rebalances: Arc<AtomicU32>,
        world: &'a World<'a>,
    ) -> Self {
        let history = Consumer {
            name: name.to_owned(),
            group: group.map(str::to_owned),
            began: world.now(),
            ..Default::default()
        };
        Life { consumer, rebalances, world, history }
    }

    /// Whether something came.
    fn poll(&mut self, seen: &mut Seen) -> bool {
        let began = self.world.now();
        let before = self.rebalances.load(Ordering::SeqCst);
        let records: Vec<ConsumerRecord> = match block_on(self.consumer.poll(POLL)) {
            Ok(records) => records,
            Err(error) => {
                seen.told.add(&error);
                // An error at once, again and again, is not to take the machine.
                std::thread::sleep(Duration::from_millis(10));
                Vec::new()
            }
        };
        let rebalances = (before, self.rebalances.load(Ordering::SeqCst));
        let first = self.history.seen.len();
        for record in &records {
            match self.world.seen(record) {
                Ok(record) => self.history.seen.push(record),
                Err(what) => seen.wrong.push((Rule::Broken, format!("{}: {what}", self.history.name))),
            }
        }
        let records_seen = first..self.history.seen.len();
        // An empty poll tells as well: where the consumer was to begin, it asked for after the poll before.
        self.history.polls.push(Poll { began, ended: self.world.now(), rebalances, records: records_seen });
        self.forget_idle();
        !records.is_empty()
    }

    /// Of empty polls in a row the last two are enough.
    fn forget_idle(&mut self) {
        let polls = &mut self.history.polls;
        if let [.., a, b, c] = polls.as_slice()
            && [a, b, c].iter().all(|poll| poll.records.is_empty())
        {
            let keep = polls.len() - 2;
            polls.remove(keep - 1);
        }
    }

    fn commit(&mut self, seen: &mut Seen) {
        let positions = self.consumer.assignment().into_iter().filter_map(|at| {
            let offset = self.consumer.position(&at).ok()??;
            Some((self.world.number(&at.topic, at.partition)?, offset))
        });
        let offsets: Vec<(u32, i64)> = positions.collect();
        let asked = self.world.now();
        let committed = block_on(self.consumer.commit());
        let answered = committed.is_ok().then(|| self.world.now());
        self.history.commits.push(Commit { asked, answered, offsets });
        if let Err(error) = committed {
            seen.told.add(&error);
        }
    }
}
