//! A cluster of real processes under faults and load: what clients did and were told is kept ([`history`]), and held against
//! the rules ([`checker`]) when the faults have ended.
//!
//! Producers and consumers are this repository's own client, a thread each ([`producer`], [`consumer`]). The main thread does to
//! the brokers ([`brokers`]) what a seed says ([`faults`]), and after each fault waits until every partition takes writes again.

mod brokers;
mod checker;
mod consumer;
mod faults;
mod gaps;
mod history;
mod producer;
mod reading;
mod world;

use crate::random::Random;
use crate::record::{Pool, Target};
use anyhow::{Context, Result, anyhow, bail};
use brokers::Brokers;
use checker::{Rule, Violation};
use corelog_client::{NewTopic, block_on};
use corelog_wire::Str;
use faults::Fault;
use gaps::Span;
use history::History;
use producer::Manner;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use world::{Told, World};

pub use faults::{Kinds, kinds};

const TOPICS: [&str; 2] = ["cluster-a", "cluster-b"];
const REPLICAS_MAX: usize = 3;
const GROUPS: [(&str, u32); 2] = [("group-a", 3), ("group-b", 1)];
const PRODUCERS: u32 = 6;
/// Half of the producers give up a record after the shorter time.
const DELIVERY_TIMEOUTS: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(4)];
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// After the last fault has ended, every partition takes writes within this.
const LIVENESS: Duration = Duration::from_secs(30);
const QUIET_MS: (u64, u64) = (1000, 5000);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Of each rule so many violations are told in full.
const TOLD_MAX: usize = 10;
const MIB: f64 = (1 << 20) as f64;

pub struct Options {
    pub seed: u64,
    pub duration: Duration,
    pub brokers: usize,
    /// Of each of the topics.
    pub partitions: u32,
    /// Records a second, of all producers together.
    pub rate: f64,
    /// Of values, before replication; the load is made to fit.
    pub bytes_max: u64,
    pub kinds: Kinds,
    /// Of the topics.
    pub configs: Vec<(String, String)>,
}

/// Returns whether nothing was violated.
pub fn run(binary: &Path, directory: &Path, options: &Options) -> Result<bool> {
    println!("cluster: {} brokers, {:?}, seed {}", options.brokers, options.duration, options.seed);
    let mut random = Random::new(options.seed);
    let pool = Pool::new(options.seed);
    let topics = TOPICS.map(Str::from_static);
    let target = Target { topics: &topics, partitions_per_topic: options.partitions, pool: &pool };
    let mut brokers = Brokers::new(binary, directory, options.brokers, &mut random);
    (0..options.brokers).try_for_each(|index| brokers.start(index))?;
    let formed = brokers.await_all(FORM_TIMEOUT).context("forming the cluster")?;
    println!("{} brokers formed a cluster in {:.0} ms", options.brokers, millis(formed));
    let world = World::new(brokers.bootstrap(), target);
    create_topics(&world, options)?;
    let (mut history, told, spans) = load(&world, &mut brokers, options, random)?;
    readings(&world, &mut brokers, &mut history);
    report(&world, &history, &told, &spans)
}

fn create_topics(world: &World, options: &Options) -> Result<()> {
    let replicas = options.brokers.min(REPLICAS_MAX) as i16;
    block_on(async {
        let client = world.connect("admin").await?;
        for topic in world.target.topics {
            let topic =
                NewTopic::new(topic.as_str()).partitions(options.partitions as i32).replication(replicas);
            let topic = options.configs.iter().fold(topic, |topic, (name, value)| topic.config(name, value));
            client.admin().create_topic(topic).await?;
        }
        anyhow::Ok(())
    })
    .context("creating topics")
}

fn manners(options: &Options) -> Vec<Manner> {
    let fitting = options.bytes_max as f64 / producer::VALUE_LEN_MEAN as f64 / options.duration.as_secs_f64();
    let each = options.rate.min(fitting) / f64::from(PRODUCERS);
    let manner = |id: u32| Manner {
        id,
        // Two in three are, and of both kinds some are patient and some are not.
        idempotent: !id.is_multiple_of(3),
        delivery_timeout: DELIVERY_TIMEOUTS[(id / 3) as usize % 2],
        records_per_second: each,
    };
    (0..PRODUCERS).map(manner).collect()
}

/// Clients at work, and faults, for the time given.
fn load(
    world: &World,
    brokers: &mut Brokers,
    options: &Options,
    random: Random,
) -> Result<(History, Told, Vec<Span>)> {
    thread::scope(|scope| {
        let seed = options.seed;
        let producers: Vec<_> = manners(options)
            .into_iter()
            .map(|manner| scope.spawn(move || producer::run(manner, seed, world)))
            .collect();
        let mut consumers = vec![scope.spawn(move || consumer::alone("alone", world))];
        for (group, members) in GROUPS {
            for member in 0..members {
                let name = format!("{group}/{member}");
                let seed = seed ^ u64::from(member + 1) << 32 ^ u64::from(members) << 40;
                consumers.push(scope.spawn(move || consumer::member(&name, group, seed, world)));
            }
        }
        let mut history = History::default();
        let struck = strike(world, brokers, options, random, &mut history);
        world.stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        for producer in producers {
            let (producer, its) = joined(producer)?;
            history.producers.push(producer);
            told.merge(its);
        }
        for consumer in consumers {
            let seen = joined(consumer)?;
            history.consumers.extend(seen.lives);
            history.wrong.extend(seen.wrong);
            told.merge(seen.told);
        }
        Ok((history, told, struck?))
    })
}

fn joined<T>(thread: ScopedJoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
}

/// One fault after the other. Ends early where the cluster does not come back.
fn strike(
    world: &World,
    brokers: &mut Brokers,
    options: &Options,
    mut random: Random,
    history: &mut History,
) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    if let Err(error) = await_writes(world, brokers, 0) {
        history.wrong.push((Rule::Unavailable, format!("before any fault: {error:#}")));
        return Ok(spans);
    }
    println!("{:>8}  {:16} {:10} {:>8} {:>11}", "at s", "fault", "brokers", "away ms", "writable ms");
    while world.began.elapsed() < options.duration {
        thread::sleep(Duration::from_millis(random.between(QUIET_MS.0, QUIET_MS.1)));
        let fault = Fault::draw(&options.kinds, options.brokers, brokers.controller(), &mut random);
        let led = led(world, brokers, &fault);
        let began = world.now();
        let struck = brokers.look().and_then(|()| fault.strike(brokers));
        let healed = world.now();
        let well = struck
            .map_err(|error| (Rule::Broken, error))
            .and_then(|()| await_writes(world, brokers, healed).map_err(|error| (Rule::Unavailable, error)));
        let ended = world.now();
        let names: Vec<String> = fault.brokers.iter().map(|index| (index + 1).to_string()).collect();
        let (away, writable) = (fault.away.as_millis(), (ended - healed) / 1000);
        println!(
            "{:>8.1}  {:16} {:10} {away:>8} {writable:>11}",
            began as f64 / 1e6,
            fault.name,
            names.join(",")
        );
        spans.push(Span { kind: fault.name, began, ended, led });
        if let Err((rule, error)) = well {
            history.wrong.push((rule, format!("after {fault:?} at {} ms: {error:#}", began / 1000)));
            break;
        }
    }
    Ok(spans)
}

/// The partitions that the brokers of a fault lead; all of them where it is not known.
fn led(world: &World, brokers: &Brokers, fault: &Fault) -> HashSet<u32> {
    let Ok(leaders) = brokers.leaders(world.target.topics) else {
        return (0..world.target.partitions()).collect();
    };
    let leaders = leaders.into_iter().flatten().enumerate();
    let is_led = |leader: Option<usize>| leader.is_none_or(|leader| fault.brokers.contains(&leader));
    leaders.filter(|(_, leader)| is_led(*leader)).map(|(partition, _)| partition as u32).collect()
}

/// Waits until every broker is back and shows all of them, and a record sent after `since` is acknowledged in each partition.
fn await_writes(world: &World, brokers: &mut Brokers, since: history::Micros) -> Result<()> {
    let began = Instant::now();
    loop {
        let late = world.without_writes_since(since);
        if late.is_empty() {
            break;
        }
        brokers.look()?;
        if began.elapsed() > LIVENESS {
            let named: Vec<String> =
                late.iter().take(TOLD_MAX).map(|at| world.named(*at).to_string()).collect();
            bail!(
                "{} partitions took no writes within {LIVENESS:?}, such as {}",
                late.len(),
                named.join(", ")
            );
        }
        thread::sleep(LOOK_INTERVAL);
    }
    brokers.await_all(LIVENESS).map(drop)
}

/// Reads all, and reads it again without each of the brokers: leaders are others then.
fn readings(world: &World, brokers: &mut Brokers, history: &mut History) {
    let read = |what: String, history: &mut History| match reading::read_all(&what, world, &mut history.wrong)
    {
        Ok(reading) => history.readings.push(reading),
        Err(error) => history.wrong.push((Rule::Unavailable, format!("reading {what}: {error:#}"))),
    };
    read("with all brokers".to_owned(), history);
    let count = brokers.count();
    for index in (0..count).filter(|_| count > 2) {
        let away = brokers.kill(index);
        read(format!("without broker {}", index + 1), history);
        let back = away.and_then(|()| brokers.start(index)).and_then(|()| brokers.await_all(LIVENESS));
        if let Err(error) = back {
            history.wrong.push((Rule::Broken, format!("broker {} away and back: {error:#}", index + 1)));
            return;
        }
    }
    read("with all brokers again".to_owned(), history);
    for index in 0..count {
        if let Err(error) = brokers.stop(index) {
            history.wrong.push((Rule::Broken, format!("at the end: {error:#}")));
        }
    }
}

fn report(world: &World, history: &History, told: &Told, spans: &[Span]) -> Result<bool> {
    let violations = checker::check(history);
    let sends = history.producers.iter().flat_map(|producer| &producer.sent);
    let (mut written, mut refused, mut unknown) = (0u64, 0u64, 0u64);
    for sent in sends {
        match sent.outcome {
            history::Outcome::Written { .. } => written += 1,
            history::Outcome::Refused => refused += 1,
            history::Outcome::Unknown => unknown += 1,
        }
    }
    let read: usize = history.consumers.iter().map(|consumer| consumer.seen.len()).sum();
    let there: usize = history.readings.last().map_or(0, |last| last.partitions.iter().map(Vec::len).sum());
    println!("{}", gaps::table(&gaps::gaps(history, spans, world.target.partitions())));
    println!(
        "{} faults; {:.0} MiB sent: {written} records acknowledged, {refused} given up unsent, {unknown} unknown; {read} read by {} consumers; {there} there at the end, read {} times",
        spans.len(),
        world.sent_bytes() as f64 / MIB,
        history.consumers.len(),
        history.readings.len()
    );
    if !told.0.is_empty() {
        let list: Vec<String> = told.0.iter().map(|(error, count)| format!("{error} {count}")).collect();
        println!("clients were told: {}", list.join(", "));
    }
    tell(&violations);
    Ok(violations.is_empty())
}

fn tell(violations: &[Violation]) {
    let mut rules: Vec<Rule> = violations.iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    for rule in &rules {
        let of: Vec<&Violation> = violations.iter().filter(|violation| violation.rule == *rule).collect();
        println!("VIOLATED: {rule:?}, {} times", of.len());
        of.iter().take(TOLD_MAX).for_each(|violation| println!("  {violation}"));
    }
    if rules.is_empty() {
        println!("nothing lost, nothing twice, all in order, all replicas alike, nothing passed over");
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
