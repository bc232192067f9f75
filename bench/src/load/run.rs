//! One run: a topic of its own, producers and consumers on their threads, the broker watched from outside, and the check of
//! what was read against what was acknowledged.

use super::consumer::{Consumed, ConsumerThread};
use super::ledger::{Ledger, Verdict};
use super::plan::Plan;
use super::producer::{Produced, ProducerThread};
use crate::host::cost::{Cost, Moment, Watched};
use crate::progress::Progress;
use crate::report::{ClientFigures, ReadBack, RunReport};
use crate::stats::recorder::Recorder;
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use corelog_client::{Client, ClientConfig, NewTopic, block_on};
use corelog_conformance::random::Random;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes so far, for those who watch.
#[derive(Default)]
pub struct Counters {
    pub produced: AtomicU64,
    pub consumed: AtomicU64,
}

/// Threads are given so long to be ready for the common start.
const START_DELAY: Duration = Duration::from_millis(50);
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the plan on a topic that is made for it and deleted afterwards.
pub fn run(name: &str, plan: &Plan, watched: &Watched, progress: &Progress) -> Result<RunReport> {
    plan.check()?;
    let client = block_on(Client::connect(ClientConfig::new(&plan.bootstrap)))?;
    let run = Random::fresh_seed() as u32;
    let topic = format!("corebench-{name}-{run:08x}");
    let new = NewTopic::new(&topic).partitions(plan.partitions as i32);
    let new = plan.topic_configs.iter().fold(new, |new, (name, value)| new.config(name, value));
    block_on(client.admin().create_topic(new))?;
    let report = on_topic(name, plan, &topic, run, watched, progress);
    let deleted = block_on(client.admin().delete_topics(&[&topic]));
    if report.is_ok() {
        for (_, outcome) in deleted? {
            outcome?;
        }
    }
    report
}

fn on_topic(
    name: &str,
    plan: &Plan,
    topic: &str,
    run: u32,
    watched: &Watched,
    progress: &Progress,
) -> Result<RunReport> {
    let plan = Arc::new(plan.clone());
    let counters = Arc::new(Counters::default());
    let keys: Arc<[Bytes]> = (0..plan.keys).map(|key| Bytes::from(format!("key-{key:08}"))).collect();
    let mut producers = Vec::new();
    for (index, lanes) in shares(plan.producers, plan.producer_threads).into_iter().enumerate() {
        let thread =
            ProducerThread::connect(&plan, topic, run, index, lanes, keys.clone(), counters.clone())?;
        producers.push(thread);
    }
    let mut consumers = Vec::new();
    for _ in 0..plan.groups {
        consumers.extend(connect_consumers(&plan, plan.consumers, topic, run, &counters)?);
    }

    let origin = Instant::now() + START_DELAY;
    let sent: Arc<OnceLock<Vec<u64>>> = Arc::default();
    let producing = spawn("produce", producers, move |thread| thread.run(origin))?;
    let consuming = {
        let sent = sent.clone();
        spawn("consume", consumers, move |thread| thread.run(origin, sent.clone()))?
    };
    let cost = watch(&plan, origin, watched, &counters, progress)?;
    progress.say("waiting for what is under way");

    let produced = join(producing)?;
    let mut ledger = Ledger::new(run, plan.producers, plan.partitions);
    produced.iter().for_each(|one| ledger.merge(&one.ledger));
    // Consumers read until they have all of it.
    let _ = sent.set(ledger.by_partition());
    let consumed = join(consuming)?;
    let (verdict, read_back) = match plan.groups {
        0 if !plan.read_back => (Verdict::default(), None),
        0 => {
            progress.say("reading everything back");
            let readers = connect_consumers(&plan, read_back_threads(&plan), topic, run, &counters)?;
            let reading = spawn("consume", readers, move |thread| thread.run(origin, sent.clone()))?;
            let read = join(reading)?;
            let bytes = read.iter().map(|one| one.bytes).sum();
            let seconds = read.iter().map(|one| one.reading.as_secs_f64()).fold(0.0, f64::max);
            (check(&ledger, &read, &plan, 1, run), Some(ReadBack { bytes, seconds }))
        }
        groups => (check(&ledger, &consumed, &plan, groups, run), None),
    };
    let report = report(name, &plan, produced, consumed, cost, verdict);
    Ok(RunReport { read_back, ..report })
}

/// First and count of each thread's producers.
fn shares(all: usize, threads: usize) -> Vec<(usize, usize)> {
    let threads = threads.min(all).max(1);
    (0..threads)
        .map(|thread| (all * thread / threads, all * (thread + 1) / threads - all * thread / threads))
        .collect()
}

fn read_back_threads(plan: &Plan) -> usize {
    thread::available_parallelism().map_or(1, |cpus| cpus.get() / 2).clamp(1, plan.partitions)
}

/// One group: partitions are dealt to its consumers in turn.
fn connect_consumers(
    plan: &Plan,
    count: usize,
    topic: &str,
    run: u32,
    counters: &Arc<Counters>,
) -> Result<Vec<ConsumerThread>> {
    let dealt = |to: usize| (to..plan.partitions).step_by(count).map(|at| at as i32).collect();
    (0..count).map(|at| ConsumerThread::connect(plan, topic, run, dealt(at), counters.clone())).collect()
}

fn spawn<T: Send + 'static, R: Send + 'static>(
    name: &str,
    threads: Vec<T>,
    run: impl Fn(T) -> Result<R> + Clone + Send + 'static,
) -> Result<Vec<JoinHandle<Result<R>>>> {
    let start = |(index, thread): (usize, T)| {
        let run = run.clone();
        thread::Builder::new().name(format!("{name}-{index}")).spawn(move || run(thread))
    };
    threads.into_iter().enumerate().map(start).collect::<std::io::Result<_>>().context("no thread to be had")
}

fn join<R>(threads: Vec<JoinHandle<Result<R>>>) -> Result<Vec<R>> {
    let join = |thread: JoinHandle<Result<R>>| thread.join().map_err(|_| anyhow!("a thread panicked"))?;
    threads.into_iter().map(join).collect()
}

/// Waits for the window's end; returns the cost between its two ends.
fn watch(
    plan: &Plan,
    origin: Instant,
    watched: &Watched,
    counters: &Counters,
    progress: &Progress,
) -> Result<Cost> {
    let from = origin + plan.warm_up;
    let to = from + plan.measured;
    let wait = |until: Instant, phase: &str| {
        while Instant::now() < until {
            thread::sleep(WATCH_INTERVAL.min(until.saturating_duration_since(Instant::now())));
            let [produced, consumed] = [&counters.produced, &counters.consumed];
            let bytes = (produced.load(Ordering::Relaxed), consumed.load(Ordering::Relaxed));
            progress.tick(phase, origin, to, bytes);
        }
    };
    wait(from, "warm-up");
    let before = Moment::now(watched)?;
    wait(to, "measuring");
    let cost = Cost::between(&before, &Moment::now(watched)?);
    Ok(cost)
}

/// Every group must have read everything.
fn check(sent: &Ledger, consumed: &[Consumed], plan: &Plan, groups: usize, run: u32) -> Verdict {
    let per_group = consumed.len() / groups;
    let verdicts = consumed.chunks(per_group.max(1)).map(|group| {
        let mut read = Ledger::new(run, plan.producers, plan.partitions);
        group.iter().for_each(|one| read.merge(&one.ledger));
        sent.verdict(&read)
    });
    verdicts.reduce(Verdict::merge).unwrap_or_default()
}

fn report(
    name: &str,
    plan: &Plan,
    produced: Vec<Produced>,
    consumed: Vec<Consumed>,
    cost: Cost,
    verdict: Verdict,
) -> RunReport {
    let merged = |all: Vec<&Recorder>| {
        all.into_iter().cloned().reduce(|mut all, one| {
            all.merge(&one);
            all
        })
    };
    let mut lag = Histogram::<u64>::new(3).expect("constant");
    produced.iter().for_each(|one| lag += &one.lag);
    let mut problems = Vec::new();
    let failed: u64 = produced.iter().map(|one| one.failed).sum();
    if failed > 0 {
        let first = produced.iter().find_map(|one| one.first_error.as_ref());
        let why = first.map_or(String::new(), |error| format!(": {error}"));
        problems.push(format!("{failed} records were not written{why}"));
    }
    if !verdict.is_good() {
        problems.push(format!("what was read is not what was acknowledged: {verdict:?}"));
    }
    let unsent = produced.iter().map(|one| one.unsent).sum();
    RunReport {
        name: name.to_owned(),
        parameters: plan.parameters(),
        window_s: plan.measured.as_secs_f64(),
        warm_up_s: plan.warm_up.as_secs_f64(),
        produced: merged(produced.iter().map(|one| &one.recorder).collect()).map(|all| all.summary()),
        consumed: merged(consumed.iter().map(|one| &one.recorder).collect()).map(|all| all.summary()),
        read_back: None,
        cost,
        client: ClientFigures { lag_p99_us: lag.value_at_quantile(0.99) as f64 / 1e3, unsent },
        verdict,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::load::payload::{Filler, Sizes};
    use crate::load::plan::Pace;
    use crate::load::schedule::Arrivals;
    use corelog_client::{Acks, Compression};

    fn plan(endpoint: &Endpoint) -> Plan {
        Plan {
            bootstrap: endpoint.address.to_string(),
            partitions: 7,
            topic_configs: Vec::new(),
            producers: 3,
            producer_threads: 2,
            pace: Pace::Saturate,
            sizes: Sizes::Uniform { least: 32, most: 300 },
            filler: Filler::Json,
            keys: 50,
            acks: Acks::All,
            idempotent: true,
            encoding: Compression::Lz4.into(),
            batch_bytes: 4096,
            linger: Duration::from_millis(1),
            buffer_bytes: 1 << 20,
            requests_in_flight: 5,
            groups: 0,
            read_back: true,
            consumers: 2,
            fetch_bytes_min: 1,
            patience: Duration::from_secs(1),
            warm_up: Duration::from_millis(100),
            measured: Duration::from_millis(300),
            seed: 1,
        }
    }

    fn measured(plan: &Plan) -> RunReport {
        run("test", plan, &Watched::default(), &Progress::new("test")).unwrap()
    }

    #[test]
    fn a_run_reads_what_it_wrote() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        for keys in [0, 50] {
            let report = measured(&Plan { keys, ..plan(&endpoint) });
            assert_eq!(report.problems, Vec::<String>::new());
            let produced = report.produced.unwrap();
            assert!(produced.records > 0 && report.verdict.acknowledged >= produced.records);
            assert_eq!(report.verdict.acknowledged, report.verdict.read);
        }
    }

    #[test]
    fn groups_each_read_everything_by_schedule() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let pace = Pace::Rate { records_per_second: 5000.0, arrivals: Arrivals::Poisson };
        let report = measured(&Plan { groups: 3, pace, ..plan(&endpoint) });
        assert_eq!(report.problems, Vec::<String>::new());
        let (produced, consumed) = (report.produced.unwrap(), report.consumed.unwrap());
        let latency = |side: &crate::stats::summary::Summary| side.latency.as_ref().unwrap().count;
        assert_eq!(latency(&consumed), 3 * latency(&produced));
        // By the schedule, and not by what the endpoint takes: 0.3 seconds of it.
        assert!((1200..1800).contains(&latency(&produced)), "{}", latency(&produced));
    }

    #[test]
    fn a_broker_that_loses_has_no_figure() {
        let endpoint = Endpoint::start_losing(1 << 30, 20).unwrap();
        let report = measured(&plan(&endpoint));
        assert!(report.verdict.lost > 0 && !report.problems.is_empty(), "{:?}", report.verdict);
    }

    #[test]
    fn every_producer_is_on_one_thread() {
        for (all, threads) in [(1, 1), (50, 1), (50, 2), (50, 3), (2, 8)] {
            let shares = shares(all, threads);
            let mut next = 0;
            for (first, count) in shares {
                assert_eq!(first, next);
                assert!(count > 0);
                next += count;
            }
            assert_eq!(next, all);
        }
    }
}
