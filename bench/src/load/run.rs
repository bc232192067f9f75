//! One run: a topic of its own, producers and consumers on their threads, the broker watched from outside, and the check of
//! what was read against what was acknowledged.

use super::consumer::Consumed;
use super::ledger::Verdict;
use super::plan::Plan;
use super::producer::Produced;
use super::stage::{self, Stage};
use crate::host::cost::{Cost, CpuCourse, Moment, Watched};
use crate::host::perf::Perf;
use crate::progress::Progress;
use crate::report::{ClientFigures, RunReport};
use crate::stats::recorder::{Recorder, Window};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
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
/// CPU time is told in hundredths of a second.
const CPU_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Runs the plan on a topic that is made for it and deleted afterwards.
pub fn run(name: &str, plan: &Plan, watched: &Watched, progress: &Progress) -> Result<RunReport> {
    let stage = Stage::create(name, plan)?;
    let report = on_stage(name, &stage, watched, progress, |_| ());
    let deleted = stage.delete();
    let report = report?;
    deleted?;
    Ok(report)
}

/// Runs the stage's plan; `started` is told when the run begins, a moment ahead.
pub fn on_stage(
    name: &str,
    stage: &Stage,
    watched: &Watched,
    progress: &Progress,
    started: impl FnOnce(Instant),
) -> Result<RunReport> {
    let plan = &*stage.plan;
    let producers = stage.producers(None)?;
    let mut consumers = Vec::new();
    for _ in 0..plan.groups {
        consumers.extend(stage.consumers(plan.consumers)?);
    }
    let origin = Instant::now() + START_DELAY;
    started(origin);
    let sent: Arc<OnceLock<Vec<u64>>> = Arc::default();
    let producing = stage::spawn("produce", producers, move |thread| thread.run(origin))?;
    let consuming = {
        let sent = sent.clone();
        stage::spawn("consume", consumers, move |thread| thread.run(origin, sent.clone()))?
    };
    let cost = watch(plan, origin, watched, &stage.counters, progress)?;
    progress.say("waiting for what is under way");

    let produced = stage::join(producing)?;
    let ledger = stage.ledger(&produced);
    // Consumers read until they have all of it.
    let _ = sent.set(ledger.by_partition());
    let consumed = stage::join(consuming)?;
    let (verdict, read_back) = match plan.groups {
        0 if !plan.read_back => (Verdict::default(), None),
        0 => {
            progress.say("reading everything back");
            let (verdict, read_back) = stage.read(&ledger, stage.readers())?;
            (verdict, Some(read_back))
        }
        groups => (stage.check(&ledger, &consumed, groups), None),
    };
    let mut report = report(name, plan, produced, consumed, cost, verdict);
    report.problems.extend(stage.explain(&verdict));
    Ok(RunReport { read_back, ..report })
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
    let interval = Duration::from_nanos(Window::new(plan.warm_up, plan.measured).interval);
    let mut course = CpuCourse::begin(watched, origin, interval.max(CPU_INTERVAL_MIN))?;
    let mut wait = |until: Instant, phase: &str| -> Result<()> {
        while Instant::now() < until {
            thread::sleep(WATCH_INTERVAL.min(until.saturating_duration_since(Instant::now())));
            let [produced, consumed] = [&counters.produced, &counters.consumed];
            let bytes = (produced.load(Ordering::Relaxed), consumed.load(Ordering::Relaxed));
            progress.tick(phase, origin, to, bytes);
            course.tick()?;
        }
        Ok(())
    };
    wait(from, "warm-up")?;
    let counting = match watched.pid.filter(|_| watched.perf) {
        Some(pid) => Some(Perf::count(pid)?),
        None => None,
    };
    let before = Moment::now(watched)?;
    wait(to, "measuring")?;
    let mut cost = Cost::between(&before, &Moment::now(watched)?);
    cost.course = course.points();
    if let (Some(counting), Some(broker)) = (counting, &mut cost.broker) {
        broker.counts = counting.stop()?;
    }
    Ok(cost)
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
    let unsent = produced.iter().map(|one| one.unsent).sum();
    RunReport {
        name: name.to_owned(),
        parameters: plan.parameters(),
        window_s: plan.measured.as_secs_f64(),
        warm_up_s: plan.warm_up.as_secs_f64(),
        produced: merged(produced.iter().map(|one| &one.recorder).collect()).map(|all| all.summary()),
        committed: plan
            .transaction_every
            .and(merged(produced.iter().map(|one| &one.commits).collect()))
            .map(|all| all.summary()),
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
    use corelog_client::Compression;

    fn plan(endpoint: &Endpoint) -> Plan {
        Plan {
            partitions: 7,
            producers: 3,
            producer_threads: 2,
            sizes: Sizes::Uniform { least: 32, most: 300 },
            filler: Filler::Json,
            keys: 50,
            encoding: Compression::Lz4.into(),
            batch_bytes: 4096,
            linger: Duration::from_millis(1),
            buffer_bytes: 1 << 20,
            consumers: 2,
            patience: Duration::from_secs(1),
            warm_up: Duration::from_millis(100),
            measured: Duration::from_millis(300),
            ..Plan::new(&endpoint.address.to_string())
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
    fn transactions_are_committed_and_counted() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let every = Duration::from_millis(20);
        let rate = Pace::Rate { records_per_second: 5000.0, arrivals: Arrivals::Even };
        for (pace, groups) in [(Pace::Saturate, 0), (rate, 2)] {
            let report = measured(&Plan { pace, groups, transaction_every: Some(every), ..plan(&endpoint) });
            assert_eq!(report.problems, Vec::<String>::new());
            assert!(report.verdict.acknowledged > 0);
            let committed = report.committed.unwrap();
            // Three producers for 0.3 seconds, on a machine that may be busy with other tests.
            assert!((3..=45).contains(&committed.records), "{}", committed.records);
            assert!(committed.latency.is_some_and(|latency| latency.count > 0));
        }
    }

    #[test]
    fn a_broker_that_loses_has_no_figure() {
        let endpoint = Endpoint::start_losing(1 << 30, 20).unwrap();
        let report = measured(&plan(&endpoint));
        assert!(report.verdict.lost > 0 && !report.problems.is_empty(), "{:?}", report.verdict);
    }
}
