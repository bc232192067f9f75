//! For those who want to see for themselves in some minutes: a rate that both brokers hold, for latency and cost; then as much as they take.

use super::produce;
use super::{Options, Outcome, Running, Scenario, less, more, plan_for, reject_unsent, unsteady};
use crate::load::plan::{Pace, Plan};
use crate::load::schedule::Arrivals;

use crate::progress::Progress;
use crate::stats::steady::Steady;
use anyhow::{Context, Result};

/// Records of 1 KB.
const RECORDS_PER_SECOND: f64 = 20_000.0;
/// What the verdict is about.
pub const THROUGHPUT: &str = "throughput";
pub const COST: &str = "per broker CPU second";
pub const P50: &str = "p50 at 20 MB/s";
pub const P99: &str = "p99 at 20 MB/s";
pub const COST_AT_RATE: &str = "per broker CPU second at 20 MB/s";
pub const TOLD: [&str; 5] = [THROUGHPUT, COST, P50, P99, COST_AT_RATE];

pub fn turn(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let pace = Pace::Rate { records_per_second: RECORDS_PER_SECOND, arrivals: Arrivals::Even };
    let at_rate = Plan { pace, groups: 1, ..plan_for(running, options)? };
    let mut run = outcome.run("e2e", &at_rate, running, options, progress)?;
    reject_unsent(&mut run, RECORDS_PER_SECOND);
    let mut figures = Vec::new();
    if let Some((consumed, latency)) =
        run.consumed.as_ref().and_then(|side| Some((side, side.latency.as_ref()?)))
    {
        figures.push(less(P50, "ms", latency.p50_us / 1e3));
        figures.push(less(P99, "ms", latency.p99_us / 1e3));
        let mb = consumed.bytes as f64 / 1e6;
        figures.extend(run.broker_cpu_s().map(|cpu_s| more(COST_AT_RATE, "MB", mb / cpu_s)));
    }
    let why = unfit(&run.steady, run.disturbed());
    outcome.add_refused(figures, run, &why);

    let plan = produce::plan(Scenario::Quick, plan_for(running, options)?).context("it produces")?;
    // The broker has been at work for half a minute. Reading everything would take as long again; what was read at the rate is checked.
    let plan = Plan { warm_up: plan.warm_up / 2, read_back: false, ..plan };
    let run = outcome.run("produce", &plan, running, options, progress)?;
    let mut figures = Vec::new();
    if let Some(produced) = &run.produced {
        figures.push(more(THROUGHPUT, "MB/s", produced.bytes_per_second / 1e6));
        let mb = produced.bytes as f64 / 1e6;
        figures.extend(run.broker_cpu_s().map(|cpu_s| more(COST, "MB", mb / cpu_s)));
    }
    let why = unfit(&run.steady, run.disturbed());
    outcome.add_refused(figures, run, &why);
    Ok(outcome)
}

/// Why nothing is concluded from a run. What others take of the machine does not slow both brokers alike, and in so few
/// pairs of short runs it does not show as an outlier.
fn unfit(steady: &Steady, disturbed: Option<f64>) -> Option<String> {
    let disturbed = disturbed.map(|share| format!("others took {:.0} % of the machine", share * 100.0));
    unsteady(steady).or(disturbed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_disturbed_is_left_out_alone() {
        let steady = Steady { reached: true, ..Steady::default() };
        assert_eq!(unfit(&steady, None), None);
        assert_eq!(unfit(&steady, Some(0.4)).unwrap(), "others took 40 % of the machine");
        let cold = Steady { why: Some("it was cold".to_owned()), ..Steady::default() };
        assert_eq!(unfit(&cold, Some(0.4)).unwrap(), "it was cold");
    }
}
