//! Kafka's own tools beside corebench, with the same load on a broker of its own each: what does another client say?
//!
//! The tools come first in every other round. None of them can begin to measure when figures stand. ProducerPerformance is
//! told how many records are its warm-up, by a rate that a first run finds; of ConsumerPerformance the first seconds are left out; and
//! EndToEndLatency, which tells nothing but sums, runs three times. What they say of successive pieces must be near to each other, as
//! for corebench.

use super::{Figure, Options, Outcome, Running, Subjects, ToolRun, circumstance, less, more, plan_for};
use crate::compare::kafka_tools::{self as kafka, ProducerWindow, Said, Stretch, Tool};
use crate::host::cache;
use crate::load::plan::{Pace, Plan};
use crate::load::reading::{self, Expected};
use crate::load::schedule::Arrivals;
use crate::load::stage::Stage;
use crate::progress::Progress;
use crate::report::RunReport;
use crate::stats::spread::Spread;
use crate::stats::steady::{self, Level, Steady};
use crate::stats::summary::{Latency, Point};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Records of a run that is ended by time.
const NO_END: u64 = 1 << 40;
const RECORD_BYTES: u64 = 1000;
/// A consumer's own start, of which its tool has no account.
const CONSUMER_WARM_UP: Duration = Duration::from_secs(5);
/// What successive figures are gathered to.
const PIECES: usize = 3;
/// Records end to end a second, for corebench: so few that none waits for another.
const END_TO_END_RATE: f64 = 200.0;
const END_TO_END_PROBE: u64 = 1000;

/// Has both done, each on an empty broker, the tool first in odd rounds.
fn both(
    subjects: &Subjects,
    running: &mut Running,
    round: usize,
    mut tool: impl FnMut(&mut Outcome, &Running) -> Result<()>,
    mut own: impl FnMut(&mut Outcome, &Running) -> Result<()>,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    match round.is_multiple_of(2) {
        true => {
            tool(&mut outcome, running)?;
            subjects.start_anew(running)?;
            own(&mut outcome, running)?;
        }
        false => {
            own(&mut outcome, running)?;
            subjects.start_anew(running)?;
            tool(&mut outcome, running)?;
        }
    }
    Ok(outcome)
}

pub fn produce(
    subjects: &Subjects,
    running: &mut Running,
    round: usize,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome> {
    let tool = |outcome: &mut Outcome, running: &Running| {
        producer_performance(subjects, running, options, progress, outcome)
    };
    let own = |outcome: &mut Outcome, running: &Running| {
        let plan = plan_for(running, options)?;
        let run = outcome.run("produce", &plan, running, options, progress)?;
        let mut figures = Vec::new();
        if let Some(produced) = &run.produced {
            figures.push(more("corebench: throughput", "MB/s", produced.bytes_per_second / 1e6));
            figures.extend(per_cpu_second("corebench", produced.bytes, run.broker_cpu_s()));
            figures.extend(produced.latency.iter().flat_map(own_latencies));
        }
        outcome.add(figures, run);
        Ok(())
    };
    both(subjects, running, round, tool, own)
}

fn producer_performance(
    subjects: &Subjects,
    running: &Running,
    options: &Options,
    progress: &Progress,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = Tool::ProducerPerformance.name();
    let plan = plan_for(running, options)?;
    let stage = Stage::create("kafka-tools", &plan)?;
    stage.serve()?;
    let watched = running.watched()?;
    progress.say("looking for ProducerPerformance's rate");
    let begun = Instant::now();
    let probe = kafka::run(
        Tool::ProducerPerformance,
        subjects.kafka()?,
        &producer_arguments(&stage, &plan, (NO_END, 0)),
        &watched,
        |line| {
            let is_over = kafka::producer_window(line).is_some() && begun.elapsed() > options.warm_up;
            if is_over { Stretch::Enough } else { Stretch::Aside }
        },
    )?;
    let windows = windows(&probe);
    // The greatest: that of a broker that is still getting faster would be over too early.
    let rate = Spread::of(windows.iter().rev().take(5).map(|it| it.records_per_second))
        .context("ProducerPerformance sent nothing")?;
    let records = |time: Duration| (rate.max * time.as_secs_f64()) as u64;

    outcome.settle(name, running, options, progress)?;
    progress.say("ProducerPerformance");
    let counts = (records(options.warm_up + options.measured), records(options.warm_up));
    let mut is_warm = false;
    let said = kafka::run(
        Tool::ProducerPerformance,
        subjects.kafka()?,
        &producer_arguments(&stage, &plan, counts),
        &watched,
        |line| {
            is_warm |= line == kafka::PRODUCER_STEADY;
            let is_counted =
                is_warm && (line == kafka::PRODUCER_STEADY || kafka::producer_window(line).is_some());
            if is_counted { Stretch::Counted } else { Stretch::Aside }
        },
    )?;
    let verdict = kafka::producer_verdict(&said)?;
    let warm = said.lines.iter().skip_while(|(_, line)| line != kafka::PRODUCER_STEADY);
    // The first of them began before, and is short.
    let levels: Vec<f64> = warm
        .filter_map(|(_, line)| kafka::producer_window(line))
        .skip(1)
        .map(|it| it.bytes_per_second)
        .collect();
    let steady = standing("produced", &levels, options.warm_up);
    let mut figures = vec![
        more(format!("{name}: throughput"), "MB/s", verdict.bytes_per_second / 1e6),
        less(format!("{name}: p50"), "ms", verdict.p50_ms),
        less(format!("{name}: p99"), "ms", verdict.p99_ms),
        less(format!("{name}: p99.9"), "ms", verdict.p999_ms),
    ];
    figures.extend(per_cpu_second(name, verdict.records * RECORD_BYTES, broker_cpu_s(&said)));
    outcome.add_tool(figures, ToolRun { name: name.to_owned(), steady, said });
    Ok(())
}

fn windows(said: &Said) -> Vec<ProducerWindow> {
    said.lines.iter().filter_map(|(_, line)| kafka::producer_window(line)).collect()
}

/// The plan, in the words of Kafka's producer.
fn producer_arguments(stage: &Stage, plan: &Plan, (records, warm_up): (u64, u64)) -> Vec<String> {
    let mut arguments = strings(&["--bootstrap-server", &plan.bootstrap, "--topic", &stage.topic]);
    arguments.extend(strings(&["--throughput", "-1", "--reporting-interval", "1000"]));
    arguments.extend(["--record-size".to_owned(), RECORD_BYTES.to_string()]);
    arguments.extend(["--num-records".to_owned(), records.to_string()]);
    if warm_up > 0 {
        arguments.extend(["--warmup-records".to_owned(), warm_up.to_string()]);
    }
    arguments.extend(strings(&["--command-property", "acks=all"]));
    arguments.push(format!("batch.size={}", plan.batch_bytes));
    arguments.push(format!("linger.ms={}", plan.linger.as_millis()));
    arguments.push(format!("buffer.memory={}", plan.buffer_bytes));
    arguments
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub fn consume(
    subjects: &Subjects,
    running: &mut Running,
    round: usize,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome> {
    let tool = |outcome: &mut Outcome, running: &Running| {
        consumer_performance(subjects, running, options, progress, outcome)
    };
    let own = |outcome: &mut Outcome, running: &Running| {
        let stage = Stage::create("own", &plan_for(running, options)?)?;
        let sent = stage.fill(options.data_bytes, progress)?;
        cache::evict(&running.directory)?;
        outcome.settle("consume", running, options, progress)?;
        let mut run = reading::read("consume", &stage, &Expected::Sent(sent), &running.watched()?, progress)?;
        let mut figures = Vec::new();
        if let Some(consumed) = &run.consumed {
            let levels = after_warm_up(&consumed.course);
            run.steady = standing("read", &levels, CONSUMER_WARM_UP);
            if !levels.is_empty() {
                figures.push(more("corebench: read", "MB/s", mean(&levels) / 1e6));
            }
            figures.extend(per_cpu_second("corebench", consumed.bytes, run.broker_cpu_s()));
        }
        outcome.add(figures, run);
        Ok(())
    };
    both(subjects, running, round, tool, own)
}

fn consumer_performance(
    subjects: &Subjects,
    running: &Running,
    options: &Options,
    progress: &Progress,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = Tool::ConsumerPerformance.name();
    let plan = plan_for(running, options)?;
    let stage = Stage::create("kafka-tools", &plan)?;
    let total = stage.fill(options.data_bytes, progress)?.total();
    cache::evict(&running.directory)?;
    outcome.settle(name, running, options, progress)?;
    progress.say("ConsumerPerformance");
    let mut arguments = strings(&["--bootstrap-server", &plan.bootstrap, "--topic", &stage.topic]);
    arguments.extend(strings(&[
        "--show-detailed-stats",
        "--reporting-interval",
        "500",
        "--timeout",
        "60000",
    ]));
    arguments.extend(["--num-records".to_owned(), total.to_string()]);
    let mut begun = None;
    let mut bytes = (0.0, 0.0);
    let said =
        kafka::run(Tool::ConsumerPerformance, subjects.kafka()?, &arguments, &running.watched()?, |line| {
            let Some(window) = kafka::consumer_window(line) else { return Stretch::Aside };
            let begun = *begun.get_or_insert_with(Instant::now);
            if begun.elapsed() < CONSUMER_WARM_UP {
                bytes.0 = window.bytes;
                return Stretch::Aside;
            }
            bytes.1 = window.bytes;
            Stretch::Counted
        })?;
    let (verdict, levels) = kafka::consumer_verdict(&said, CONSUMER_WARM_UP)?;
    let steady = standing("read", &levels, CONSUMER_WARM_UP);
    let mut figures = vec![more(format!("{name}: read"), "MB/s", verdict.bytes_per_second / 1e6)];
    figures.extend(per_cpu_second(name, verdict.bytes as u64, broker_cpu_s(&said)));
    outcome.add_tool(figures, ToolRun { name: name.to_owned(), steady, said });
    Ok(())
}

pub fn end_to_end(
    subjects: &Subjects,
    running: &mut Running,
    round: usize,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome> {
    let tool = |outcome: &mut Outcome, running: &Running| {
        end_to_end_latency(subjects, running, options, progress, outcome)
    };
    let own = |outcome: &mut Outcome, running: &Running| {
        let pace = Pace::Rate { records_per_second: END_TO_END_RATE, arrivals: Arrivals::Even };
        // As the tool's producer: nothing waits for more.
        let plan =
            Plan { partitions: 1, groups: 1, linger: Duration::ZERO, pace, ..plan_for(running, options)? };
        let mut run: RunReport = outcome.run("e2e", &plan, running, options, progress)?;
        super::reject_unsent(&mut run, END_TO_END_RATE);
        let latency = run.consumed.as_ref().and_then(|consumed| consumed.latency.as_ref());
        let mean = latency.map(|latency| less("corebench: mean", "ms", latency.mean_us / 1e3));
        let figures: Vec<Figure> =
            mean.into_iter().chain(latency.into_iter().flat_map(own_latencies)).collect();
        outcome.add(figures, run);
        Ok(())
    };
    both(subjects, running, round, tool, own)
}

fn end_to_end_latency(
    subjects: &Subjects,
    running: &Running,
    options: &Options,
    progress: &Progress,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = Tool::EndToEndLatency.name();
    let plan = Plan { partitions: 1, ..plan_for(running, options)? };
    let stage = Stage::create("kafka-tools", &plan)?;
    stage.serve()?;
    let watched = running.watched()?;
    let run = |records: u64| {
        let mut arguments = strings(&["--bootstrap-server", &plan.bootstrap, "--topic", &stage.topic]);
        arguments.extend(["--num-records".to_owned(), records.to_string()]);
        arguments.extend(["--producer-acks".to_owned(), "all".to_owned()]);
        arguments.extend(["--record-size".to_owned(), RECORD_BYTES.to_string()]);
        let said =
            kafka::run(Tool::EndToEndLatency, subjects.kafka()?, &arguments, &watched, |_| Stretch::Aside)?;
        Ok::<_, anyhow::Error>((kafka::end_to_end_verdict(&said, records)?, said))
    };
    progress.say("warming up for EndToEndLatency");
    let probe = run(END_TO_END_PROBE)?.0;
    let piece = options.measured.max(options.warm_up) / PIECES as u32;
    let records = (piece.as_secs_f64() * 1e3 / probe.mean_ms.max(0.05)) as u64;
    outcome.settle(name, running, options, progress)?;
    let mut pieces = Vec::new();
    let mut all: Option<Said> = None;
    for at in 1..=PIECES {
        progress.say(&format!("EndToEndLatency, {at} of {PIECES}"));
        let (verdict, said) = run(records.max(END_TO_END_PROBE))?;
        pieces.push(verdict);
        match &mut all {
            None => all = Some(said),
            Some(all) => all.lines.extend(said.lines),
        }
    }
    let levels: Vec<Level> =
        pieces.iter().map(|piece| Level { bytes_per_second: 1.0, p99_us: piece.mean_ms * 1e3 }).collect();
    let found = steady::find("read", &levels);
    let why = found.why.map(|why| why.replace("p99 of what was read", "the mean of successive runs"));
    let steady = Steady { reached: why.is_none(), spread: found.spread, why, ..Default::default() };
    let median = |of: fn(&kafka::EndToEndVerdict) -> f64| {
        Spread::of(pieces.iter().map(of)).map_or(f64::NAN, |pieces| pieces.median)
    };
    let named = |what: &str| format!("{name}: {what}");
    let figures = [
        less(named("mean"), "ms", median(|it| it.mean_ms)),
        // In whole milliseconds: a ratio of 0 and 1 says nothing.
        circumstance(named("p50"), "ms", median(|it| it.p50_ms)),
        circumstance(named("p99"), "ms", median(|it| it.p99_ms)),
        circumstance(named("p99.9"), "ms", median(|it| it.p999_ms)),
    ];
    let Some(said) = all else { bail!("EndToEndLatency did not run") };
    outcome.add_tool(figures, ToolRun { name: name.to_owned(), steady, said });
    Ok(())
}

/// Bytes a second in the pieces that count for ConsumerPerformance too; the last is cut off by the end.
fn after_warm_up(course: &[Point]) -> Vec<f64> {
    let whole = &course[..course.len().saturating_sub(1)];
    let counted = whole.iter().filter(|point| point.seconds >= CONSUMER_WARM_UP.as_secs_f64());
    counted.map(|point| point.bytes_per_second).collect()
}

fn broker_cpu_s(said: &Said) -> Option<f64> {
    said.cost.as_ref()?.broker.as_ref().map(|broker| broker.cpu_s).filter(|cpu_s| *cpu_s > 0.0)
}

fn per_cpu_second(who: &str, bytes: u64, cpu_s: Option<f64>) -> Option<Figure> {
    Some(more(format!("{who}: per broker CPU second"), "MB", bytes as f64 / 1e6 / cpu_s?))
}

fn own_latencies(latency: &Latency) -> [Figure; 3] {
    let of = |name: &str, us: f64| less(format!("corebench: {name}"), "ms", us / 1e3);
    [of("p50", latency.p50_us), of("p99", latency.p99_us), of("p99.9", latency.p999_us)]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Whether bytes a second in successive windows stood; of latency the tools tell too little.
fn standing(side: &str, windows: &[f64], warm_up: Duration) -> Steady {
    let warm_up_s = warm_up.as_secs_f64();
    if windows.len() < PIECES {
        let why = format!("{} windows are too few to tell", windows.len());
        return Steady { warm_up_s, spread: 1.0, why: Some(why), ..Default::default() };
    }
    let piece = windows.len() / PIECES;
    let levels: Vec<Level> = (0..PIECES)
        .map(|at| &windows[at * piece..if at + 1 == PIECES { windows.len() } else { (at + 1) * piece }])
        .map(|windows| Level { bytes_per_second: mean(windows), p99_us: 1.0 })
        .collect();
    let found = steady::find(side, &levels);
    Steady {
        reached: found.why.is_none(),
        warm_up_s,
        spread: found.spread,
        why: found.why,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_rise_are_not_steady() {
        let steady = |windows: &[f64]| standing("produced", windows, Duration::from_secs(20));
        let still: Vec<f64> = (0..30).map(|at| 1e8 + f64::from(at % 7) * 1e6).collect();
        assert!(steady(&still).reached, "{:?}", steady(&still));
        let rising: Vec<f64> = (0..30).map(|at| 1e8 + f64::from(at) * 1e6).collect();
        assert!(steady(&rising).why.unwrap().contains("apart"));
        assert!(steady(&still[..2]).why.unwrap().contains("too few"));
    }
}
