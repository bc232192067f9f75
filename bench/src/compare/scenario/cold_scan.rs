//! A consumer reads much that is no longer in memory, from the beginning, while a producer goes on as before: how fast is the
//! scan, and what does it do to the producer?

use super::{Options, Outcome, Running, circumstance, less, more, plan_for, reject_unsent, unsteady};
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
    // What filling left behind would count as the producer's own.
    outcome.settle("cold-scan-before", running, options, progress)?;
    let mut before = on_stage("cold-scan-before", &quiet, &watched, progress, |_| ())?;
    reject_unsent(&mut before, records_per_second);
    let p99_before = p99(&before);
    let why = unsteady(&before.steady);
    outcome.add(p99_before.map(|ms| less("produce p99 before", "ms", ms)), before);

    progress.say("dropping the page cache");
    cache::evict(&running.directory)?;
    outcome.settle("cold-scan-during", running, options, progress)?;
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
    reject_unsent(&mut during, records_per_second);
    let mut figures = vec![
        more("scan", "MB/s", bytes as f64 / 1e6 / seconds),
        circumstance("scanned", "% of the data", count as f64 / ledger.total() as f64 * 100.0),
    ];
    let p99_during = p99(&during);
    figures.push(circumstance("the scan took", "% of the window", seconds / during.window_s * 100.0));
    let part = over_early(seconds, during.window_s);
    figures.extend(p99_during.map(|ms| less("produce p99 during", "ms", ms).refused(&part)));
    figures.extend(
        p99_before
            .zip(p99_during)
            .map(|(before, during)| less("p99 during / before", "x", during / before).refused(&part)),
    );
    if let Some(cpu_s) = during.broker_cpu_s() {
        let all = bytes + during.produced.as_ref().map_or(0, |side| side.bytes);
        figures.push(more("read and written per broker CPU second", "MB", all as f64 / 1e6 / cpu_s));
    }
    // That the scan moves what is produced beside it is what is to be seen: whether the load stood, the run before tells.
    outcome.add_refused(figures, during, &why);
    Ok(outcome)
}

/// Why a latency of the whole window is not that of producing beside a scan.
fn over_early(seconds: f64, window_s: f64) -> Option<String> {
    const SHARE: f64 = 0.9;
    (seconds < window_s * SHARE).then(|| {
        format!(
            "the scan was over after {seconds:.0} of {window_s:.0} s: more --data, or a shorter --duration"
        )
    })
}

/// Of producing, in milliseconds.
fn p99(run: &RunReport) -> Option<f64> {
    let latency = run.produced.as_ref()?.latency.as_ref().filter(|_| run.problems.is_empty())?;
    Some(latency.p99_us / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_that_was_over_early_says_nothing_of_the_window() {
        assert_eq!(over_early(29.0, 30.0), None);
        assert!(over_early(13.0, 30.0).unwrap().contains("13 of 30 s"));
    }
}
