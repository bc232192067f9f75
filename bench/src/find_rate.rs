//! `corebench find-rate`: the highest rate at which the 99th percentile stays under a bound.

use crate::host::cost::Watched;
use crate::load;
use crate::load::plan::{Pace, Plan};
use crate::load::schedule::Arrivals;
use crate::progress::{Progress, say};
use crate::report::RunReport;
use crate::report::terminal::{micros, number};
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// What is found is this near to the limit, as a share of the saturated rate.
const PRECISION: f64 = 1.0 / 64.0;
/// A rate is reached if so much of it was acknowledged within the window.
const REACHED: f64 = 0.99;

/// What a run is held against, as far as it fell short: nothing if it holds. With consumers the bound is on what they see.
fn short_of(report: &RunReport, rate: f64, bound: Duration) -> Vec<String> {
    let side = report.consumed.as_ref().or(report.produced.as_ref());
    let p99 = side.and_then(|side| side.latency.as_ref()).map(|latency| latency.p99_us);
    let produced = report.produced.as_ref().map(|side| side.records_per_second);
    shortfalls(rate, bound, p99, produced, report.client.unsent, &report.problems)
}

fn shortfalls(
    rate: f64,
    bound: Duration,
    p99_us: Option<f64>,
    produced: Option<f64>,
    unsent: u64,
    problems: &[String],
) -> Vec<String> {
    let bound_us = bound.as_secs_f64() * 1e6;
    let mut short = Vec::new();
    match p99_us {
        None => short.push("no latency was measured".to_owned()),
        Some(p99) if p99 > bound_us => {
            short.push(format!("p99 is {} over the bound of {}", micros(p99 - bound_us), micros(bound_us)));
        }
        Some(_) => {}
    }
    let produced = produced.unwrap_or(0.0);
    if produced < rate * REACHED {
        short.push(format!(
            "{} records/s were acknowledged, {:.1} % of the rate where {:.0} % are asked for",
            number(produced),
            produced / rate * 100.0,
            REACHED * 100.0
        ));
    }
    if unsent > 0 {
        short.push(format!("{unsent} records were not sent in time"));
    }
    short.extend(problems.iter().cloned());
    short
}

/// Halves the interval between a rate that holds and one that does not. Returns the highest that holds, if any does.
fn bisect(top: f64, mut holds: impl FnMut(f64) -> Result<bool>) -> Result<Option<f64>> {
    let (mut low, mut high) = (0.0, top);
    while high - low > top * PRECISION {
        let middle = (low + high) / 2.0;
        match holds(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok((low > 0.0).then_some(low))
}

/// Runs the plan at one rate after the other. Returns all runs, the one at the highest rate that holds last.
pub fn find(plan: &Plan, arrivals: Arrivals, bound: Duration, watched: &Watched) -> Result<Vec<RunReport>> {
    let saturated = Plan { pace: Pace::Saturate, groups: plan.groups, read_back: false, ..plan.clone() };
    let report = load::run::run("saturated", &saturated, watched, &Progress::new("saturated"))?;
    if let Some(problem) = report.problems.first() {
        bail!("the saturated run, from which the search begins, has no figure: {problem}");
    }
    let top = report.produced.as_ref().context("it produces")?.records_per_second;
    say(format!("saturated: {} records/s", number(top)));
    let mut runs = vec![report];
    let mut best = None;
    bisect(top, |rate| {
        let pace = Pace::Rate { records_per_second: rate, arrivals };
        let title = format!("{rate:.0} records/s");
        let plan = Plan { pace, ..plan.clone() };
        let report = load::run::run("find-rate", &plan, watched, &Progress::new(&title))?;
        let side = report.consumed.as_ref().or(report.produced.as_ref());
        let p99 = side.and_then(|side| side.latency.as_ref()).map_or("-".to_owned(), |it| micros(it.p99_us));
        let short = short_of(&report, rate, bound);
        let holds = short.is_empty();
        let verdict = if holds { "holds".to_owned() } else { format!("does not hold: {}", short.join("; ")) };
        say(format!("{} records/s: p99 {p99}: {verdict}", number(rate)));
        if holds {
            best = Some(report.clone());
        }
        runs.push(report);
        Ok(holds)
    })?;
    match best {
        Some(best) => runs.push(best),
        None => bail!(
            "not even {} records/s keep p99 within {bound:?}: give a higher --p99",
            number(top * PRECISION)
        ),
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_says_by_how_much() {
        let bound = Duration::from_millis(5);
        let short = |p99, produced, unsent, problems: &[String]| {
            shortfalls(1000.0, bound, p99, produced, unsent, problems).join("; ")
        };
        assert_eq!(short(Some(5000.0), Some(990.0), 0, &[]), "");
        let all = short(Some(7500.0), Some(900.0), 3, &["one was lost".to_owned()]);
        for part in [
            "p99 is ",
            "over the bound of ",
            "90.0 % of the rate where 99 %",
            "3 records were not sent",
            "one was lost",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(short(None, None, 0, &[]).contains("no latency"));
    }

    #[test]
    fn the_limit_is_found() {
        for limit in [120.0, 500.0, 640.0, 1000.0] {
            let mut tries = 0;
            let found = bisect(1000.0, |rate| {
                tries += 1;
                Ok(rate <= limit)
            });
            let found = found.unwrap().unwrap();
            assert!(found <= limit && found >= limit - 1000.0 * PRECISION, "{limit}: {found}");
            assert!(tries <= 6, "{tries}");
        }
        assert_eq!(bisect(1000.0, |_| Ok(false)).unwrap(), None);
    }
}
