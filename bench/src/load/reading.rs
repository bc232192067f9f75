//! Reading a topic from its beginning to its end, as fast as it goes, watched as any run.

use super::consumer::ConsumerThread;
use super::ledger::{Faults, Ledger, Verdict};
use super::stage::{self, Stage};
use crate::host::cost::{Cost, Moment, Watched};
use crate::progress::Progress;
use crate::report::{ClientFigures, RunReport};
use crate::stats::gauge::Reading;
use crate::stats::steady::Steady;
use anyhow::Result;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// What is known of the records to be read.
pub enum Expected {
    /// They were written here.
    Sent(Ledger),
    /// How many there are in each partition.
    Counts(Vec<u64>),
}

/// Reads with the plan's consumers.
pub fn read(
    name: &str,
    stage: &Stage,
    expected: &Expected,
    watched: &Watched,
    progress: &Progress,
) -> Result<RunReport> {
    let counts = match expected {
        Expected::Sent(ledger) => ledger.by_partition(),
        Expected::Counts(counts) => counts.clone(),
    };
    let total: u64 = counts.iter().sum();
    // They fetch as soon as they are connected.
    let before = Moment::now(watched)?;
    let origin = Instant::now();
    let consumers = stage.consumers(stage.plan.consumers)?.into_iter().map(|thread| match expected {
        Expected::Sent(_) => thread.untimed(),
        Expected::Counts(_) => thread.untimed().of_strangers(),
    });
    let consumers: Vec<ConsumerThread> = consumers.collect();
    let gauges: Vec<_> = consumers.iter().map(ConsumerThread::gauge).collect();
    let counts = Arc::new(OnceLock::from(counts));
    let reading = stage::spawn("consume", consumers, move |thread| thread.run(origin, counts.clone()))?;
    while reading.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        progress.say(&format!("read {} MB", Reading::of(&gauges).bytes / 1_000_000));
    }
    let cost = Cost::between(&before, &Moment::now(watched)?);
    let consumed = stage::join(reading)?;
    let seconds = consumed.iter().map(|one| one.reading.as_secs_f64()).fold(0.0, f64::max);
    let merged = consumed.iter().map(|one| one.recorder.clone()).reduce(|mut all, one| {
        all.merge(&one);
        all
    });
    let verdict = match expected {
        Expected::Sent(ledger) => stage.check(ledger, &consumed, 1),
        Expected::Counts(_) => {
            let read = consumed.iter().map(|one| one.count).sum();
            let faults = consumed.iter().fold(Faults::default(), |all, one| all.merge(one.ledger.faults()));
            Verdict {
                acknowledged: total,
                read,
                lost: total.saturating_sub(read),
                faults,
                counted: true,
                ..Default::default()
            }
        }
    };
    Ok(RunReport {
        name: name.to_owned(),
        parameters: stage.plan.parameters(),
        ready_s: 0.0,
        // There is nothing to wait for: it begins cold, and ends when all is read.
        steady: Steady { reached: true, ..Default::default() },
        window_s: seconds,
        produced: None,
        committed: None,
        consumed: merged.map(|all| all.summary_of(seconds)),
        read_back: None,
        cost,
        client: ClientFigures { lag_p99_us: 0.0, unsent: 0 },
        verdict,
        problems: stage.explain(&verdict).into_iter().collect(),
    })
}
