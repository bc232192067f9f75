//! One run: a topic of its own, producers and consumers on their threads, the broker watched from outside, and the check of
//! what was read against what was acknowledged.

use super::consumer::{Consumed, ConsumerThread};
use super::ledger::Verdict;
use super::plan::{Pace, Plan};
use super::producer::{Produced, ProducerThread, nanos};
use super::stage::{self, Stage};
use crate::host::cost::{Cost, CpuCourse, Moment, Watched};
use crate::host::perf::Perf;
use crate::host::process::{self, ThreadTime};
use crate::progress::Progress;
use crate::report::{ClientFigures, RunReport};
use crate::stats::gauge::{Gauge, Reading};
use crate::stats::recorder::{Recorder, times};
use crate::stats::steady::{self, Dips, Finding, Steady, WarmUp};
use anyhow::{Result, bail};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// Threads are given so long to be ready for the common start.
const START_DELAY: Duration = Duration::from_millis(50);
/// And so long to learn when the window begins: none may have gone past that.
const WINDOW_AHEAD: Duration = Duration::from_millis(200);
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
const CPU_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Dips shorter than this are not seen.
const DIP: Duration = Duration::from_millis(500);

/// Runs the plan on a topic that is made for it and deleted afterwards.
pub fn run(name: &str, plan: &Plan, watched: &Watched, progress: &Progress) -> Result<RunReport> {
    let stage = Stage::create(name, plan)?;
    let report = on_stage(name, &stage, watched, progress, |_| ());
    let deleted = stage.delete();
    let report = report?;
    deleted?;
    Ok(report)
}

/// Runs the stage's plan; `measuring` is told when the window begins, a moment ahead.
pub fn on_stage(
    name: &str,
    stage: &Stage,
    watched: &Watched,
    progress: &Progress,
    measuring: impl FnOnce(Instant),
) -> Result<RunReport> {
    let plan = &*stage.plan;
    progress.say("waiting until all partitions serve");
    let ready = stage.serve()?;
    let producers = stage.producers(None)?;
    let mut consumers = Vec::new();
    for _ in 0..plan.groups {
        consumers.extend(stage.consumers(plan.consumers)?);
    }
    let mut sides =
        vec![Side { name: "produced", gauges: producers.iter().map(ProducerThread::gauge).collect() }];
    if !consumers.is_empty() {
        sides.push(Side { name: "read", gauges: consumers.iter().map(ConsumerThread::gauge).collect() });
    }
    let origin = Instant::now() + START_DELAY;
    let sent: Arc<OnceLock<Vec<u64>>> = Arc::default();
    let producing = stage::spawn("produce", producers, move |thread| thread.run(origin))?;
    let consuming = {
        let sent = sent.clone();
        stage::spawn("consume", consumers, move |thread| thread.run(origin, sent.clone()))?
    };
    let runs = || {
        producing.iter().all(|thread| !thread.is_finished())
            && consuming.iter().all(|thread| !thread.is_finished())
    };
    let watch = Watch { stage, origin, watched, progress, sides: &sides, runs: &runs };
    let seen = watch.to_the_end(measuring);
    if seen.is_err() {
        stage.window.abandon();
    }
    progress.say("waiting for what is under way");

    let produced = stage::join(producing);
    let ledger = produced.as_ref().map(|produced| stage.ledger(produced));
    // Consumers read until they have all of it.
    let _ = sent.set(ledger.as_ref().map_or(vec![0; plan.partitions], |ledger| ledger.by_partition()));
    let consumed = stage::join(consuming);
    // What a thread failed of is why the watch ended.
    let (produced, consumed, seen) = (produced?, consumed?, seen?);
    let ledger = stage.ledger(&produced);
    let (verdict, read_back) = match plan.groups {
        0 if !plan.read_back => (Verdict::default(), None),
        0 => {
            progress.say("reading everything back");
            let (verdict, read_back) = stage.read(&ledger, stage.readers())?;
            (verdict, Some(read_back))
        }
        groups => (stage.check(&ledger, &consumed, groups), None),
    };
    let mut report = report(name, plan, produced, consumed, seen, verdict);
    report.problems.extend(stage.explain(&verdict));
    Ok(RunReport { ready_s: ready.as_secs_f64(), read_back, ..report })
}

/// Those who produce, or those who read.
struct Side {
    name: &'static str,
    gauges: Vec<Arc<Gauge>>,
}

/// Looks on while a run goes on.
struct Watch<'a> {
    stage: &'a Stage,
    origin: Instant,
    watched: &'a Watched,
    progress: &'a Progress,
    sides: &'a [Side],
    /// Whether all threads still do.
    runs: &'a dyn Fn() -> bool,
}

struct Seen {
    cost: Cost,
    warm_up: Duration,
    /// How the load stood when the window began.
    standing: Finding,
    dips: Dips,
}

impl Watch<'_> {
    /// Begins the window when the load stands, and waits for its end.
    fn to_the_end(&self, measuring: impl FnOnce(Instant)) -> Result<Seen> {
        let (plan, window, origin) = (&*self.stage.plan, &*self.stage.window, self.origin);
        let interval = Duration::from_nanos(window.interval).max(CPU_INTERVAL_MIN);
        let mut course = CpuCourse::begin(self.watched, origin, interval)?;

        let names: Vec<&str> = self.sides.iter().map(|side| side.name).collect();
        let mut warming = WarmUp::new(plan.warm_up, plan.warm_up_max, &names);
        let end_at_most = origin + plan.warm_up.max(plan.warm_up_max) + plan.measured;
        let (mut at, mut before) = (origin, self.readings());
        let standing = loop {
            self.wait(at + warming.part(), "warm-up", end_at_most, &mut course)?;
            let (now, readings) = (Instant::now(), self.readings());
            let levels = readings.iter().zip(&before).map(|(now_is, was)| now_is.since(was).level(now - at));
            warming.push(&levels.collect::<Vec<_>>());
            (at, before) = (now, readings);
            if let Some(finding) = warming.ended(now - origin) {
                break finding;
            }
        };
        let from = Duration::from_nanos(window.begin(nanos(origin) + WINDOW_AHEAD.as_nanos() as u64));
        let (warm_up, from) = (from, origin + from);
        measuring(from);
        let to = from + plan.measured;
        let counting = match self.watched.pid.filter(|_| self.watched.perf) {
            Some(pid) => Some(Perf::count(pid)?),
            None => None,
        };
        self.wait(from, "warm-up", to, &mut course)?;
        let begun = Moment::now(self.watched)?;
        let (dips, threads) = self.measure(to, &mut course)?;
        let mut cost = Cost::between(&begun, &Moment::now(self.watched)?.with_ended(threads));
        cost.course = course.points();
        if let (Some(counting), Some(broker)) = (counting, &mut cost.broker) {
            broker.counts = counting.stop()?;
        }
        Ok(Seen { cost, warm_up, standing, dips })
    }

    fn readings(&self) -> Vec<Reading> {
        self.sides.iter().map(|side| Reading::of(&side.gauges)).collect()
    }

    /// Looks for dips at the end of the line: where nobody reads, of producing. Returns besides what threads had used shortly before the
    /// window's end, with which those of producers end.
    fn measure(&self, to: Instant, course: &mut CpuCourse) -> Result<(Dips, Vec<ThreadTime>)> {
        let mut threads = process::own_threads();
        let records = || self.sides.last().map_or(0, |side| Reading::of(&side.gauges).records);
        let (mut at, mut before, mut pieces) = (Instant::now(), records(), Vec::new());
        while at < to {
            self.wait((at + DIP).min(to), "measuring", to, course)?;
            let (now, now_are) = (Instant::now(), records());
            // The last piece may be a sliver.
            if now - at >= DIP / 2 {
                pieces
                    .push(((now_are - before) as f64 * DIP.as_secs_f64() / (now - at).as_secs_f64()) as u64);
            }
            (at, before) = (now, now_are);
            if now < to {
                threads = process::own_threads();
            }
        }
        Ok((steady::dips(&pieces, DIP.as_secs_f64()), threads))
    }

    fn wait(&self, until: Instant, phase: &str, end: Instant, course: &mut CpuCourse) -> Result<()> {
        while Instant::now() < until {
            thread::sleep(WATCH_INTERVAL.min(until.saturating_duration_since(Instant::now())));
            let bytes: Vec<u64> = self.readings().iter().map(|reading| reading.bytes).collect();
            self.progress.tick(phase, self.origin, end, (bytes[0], bytes.get(1).copied().unwrap_or(0)));
            course.tick()?;
            if Instant::now() < until && !(self.runs)() {
                bail!("a thread of the load generator ended before its time");
            }
        }
        Ok(())
    }
}

/// What was found before the window, and in it.
fn steady(plan: &Plan, seen: &Seen, producing: Option<&Recorder>, consuming: Option<&Recorder>) -> Steady {
    let mut all = seen.standing.clone().when("when the window began");
    let sides = [("produced", producing, 1), ("read", consuming, plan.groups)];
    for (side, recorder, times) in sides.into_iter().filter_map(|(side, it, times)| Some((side, it?, times)))
    {
        all = all.and(recorder.drift(side).when("from the window's first third to its last"));
        if let Pace::Rate { records_per_second, .. } = plan.pace {
            let seconds = plan.measured.as_secs_f64();
            let due = records_per_second * seconds * times as f64;
            // Of a transaction all is read at once.
            let at_once = plan.transaction_every.unwrap_or_default().as_secs_f64() / seconds;
            all = all.and(steady::keeps(side, due, recorder.records(), at_once));
        }
    }
    Steady {
        reached: all.why.is_none(),
        warm_up_s: seen.warm_up.as_secs_f64(),
        spread: all.spread,
        why: all.why,
        dips: seen.dips,
    }
}

fn report(
    name: &str,
    plan: &Plan,
    produced: Vec<Produced>,
    consumed: Vec<Consumed>,
    seen: Seen,
    verdict: Verdict,
) -> RunReport {
    let merged = |all: Vec<&Recorder>| {
        all.into_iter().cloned().reduce(|mut all, one| {
            all.merge(&one);
            all
        })
    };
    let mut lag = times::<u64>(3);
    produced.iter().for_each(|one| lag += &one.lag);
    let mut problems = Vec::new();
    let failed: u64 = produced.iter().map(|one| one.failed).sum();
    if failed > 0 {
        let first = produced.iter().find_map(|one| one.first_error.as_ref());
        let why = first.map_or(String::new(), |error| format!(": {error}"));
        problems.push(format!("{failed} records were not written{why}"));
    }
    let unsent = produced.iter().map(|one| one.unsent).sum();
    let producing = merged(produced.iter().map(|one| &one.recorder).collect());
    let consuming = merged(consumed.iter().map(|one| &one.recorder).collect());
    RunReport {
        name: name.to_owned(),
        parameters: plan.parameters(),
        ready_s: 0.0,
        steady: steady(plan, &seen, producing.as_ref(), consuming.as_ref()),
        window_s: plan.measured.as_secs_f64(),
        produced: producing.map(|all| all.summary()),
        committed: plan
            .transaction_every
            .and(merged(produced.iter().map(|one| &one.commits).collect()))
            .map(|all| all.summary()),
        consumed: consuming.map(|all| all.summary()),
        read_back: None,
        cost: seen.cost,
        client: ClientFigures { lag_p99_us: lag.value_at_quantile(0.99) as f64 / 1e3, unsent },
        verdict,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::endpoint::faults::{Faults, Wrong};
    use crate::load::payload::{Filler, Sizes};
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
            warm_up_max: Duration::ZERO,
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
        let endpoint =
            Endpoint::start_with(1 << 30, Faults { wrongs: Some((Wrong::Lose, 20)), ..Default::default() })
                .unwrap();
        let report = measured(&plan(&endpoint));
        assert!(report.verdict.lost > 0 && !report.problems.is_empty(), "{:?}", report.verdict);
    }
}
