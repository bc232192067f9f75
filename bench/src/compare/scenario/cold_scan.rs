//! A consumer reads much that is no longer in memory, from the beginning, while a producer goes on as before: how fast is the
//! scan, and what does it do to the producer?

use super::{Options, Outcome, Running, less, more, plan_for};
use crate::host::cache;
use crate::load::consumer::ConsumerThread;
use crate::load::ledger::Faults;
use crate::load::plan::{Pace, Plan};
use crate::load::run::on_stage;
use crate::load::schedule::Arrivals;
use crate::load::stage::{Stage, join, spawn};
use crate::progress::Progress;
use crate::report::RunReport;
use anyhow::{Context, Result};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

/// Records of 1 KB, produced meanwhile.
const RECORDS_PER_SECOND: f64 = 10_000.0;

pub fn turn(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let watched = running.watched()?;
    let old = Arc::new(Stage::create("cold", &plan_for(running, options)?)?);
    let ledger = old.fill(options.data_bytes, progress)?;
    let records_per_second = options.rate.unwrap_or(RECORDS_PER_SECOND);
    let pace = Pace::Rate { records_per_second, arrivals: Arrivals::Even };
    let producing = Plan { pace, ..plan_for(running, options)? };

    let mut outcome = Outcome::default();
    let quiet = Stage::create("quiet", &producing)?;
    let before = on_stage("cold-scan-before", &quiet, &watched, progress, |_| ())?;
    let p99_before = p99(&before);
    outcome.add(p99_before.map(|ms| less("produce p99 before", "ms", ms)), before);

    progress.say("dropping the page cache");
    cache::evict(&running.directory)?;
    let busy = Stage::create("busy", &producing)?;
    let counts = Arc::new(OnceLock::from(ledger.by_partition()));
    let measured = options.measured;
    let mut scanning = None;
    let mut during = on_stage("cold-scan-during", &busy, &watched, progress, |from| {
        // The scan begins with the window and ends with it, if it has not come to its end before.
        let until = from + measured;
        let stage = old.clone();
        let scan = move |partitions: Vec<i32>| {
            // Consumers fetch ahead as soon as they are connected.
            thread::sleep(from.saturating_duration_since(Instant::now()));
            let consumer = ConsumerThread::connect(&stage, partitions)?;
            consumer.untimed().until(until).run(from, counts.clone())
        };
        scanning = Some(spawn("scan", old.dealt(old.readers()), scan));
    })?;
    let scanned = join(scanning.context("the run started")??)?;
    let bytes: u64 = scanned.iter().map(|one| one.bytes).sum();
    let count: u64 = scanned.iter().map(|one| one.count).sum();
    let seconds = scanned.iter().map(|one| one.reading.as_secs_f64()).fold(0.0, f64::max);
    let faults = scanned.iter().fold(Faults::default(), |all, one| all.merge(one.ledger.faults()));
    if faults != Faults::default() {
        during.problems.push(format!("the scan read what was not written: {faults:?}"));
    }
    let mut figures = vec![
        more("scan", "MB/s", bytes as f64 / 1e6 / seconds),
        more("scanned", "% of the data", count as f64 / ledger.total() as f64 * 100.0),
    ];
    let p99_during = p99(&during);
    figures.extend(p99_during.map(|ms| less("produce p99 during", "ms", ms)));
    figures.extend(
        p99_before.zip(p99_during).map(|(before, during)| less("p99 during / before", "x", during / before)),
    );
    if let Some(cpu_s) = during.broker_cpu_s() {
        let all = bytes + during.produced.as_ref().map_or(0, |side| side.bytes);
        figures.push(more("read and written per broker CPU second", "MB", all as f64 / 1e6 / cpu_s));
    }
    outcome.add(figures, during);
    Ok(outcome)
}

/// Of producing, in milliseconds.
fn p99(run: &RunReport) -> Option<f64> {
    Some(run.produced.as_ref()?.latency.as_ref()?.p99_us / 1e3)
}
