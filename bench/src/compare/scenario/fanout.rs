//! One stream, read by five groups as it comes. The rate is the same for all brokers, so that cost is what differs.

use super::{Options, Outcome, Running, costs, latencies, more, plan_for, reject_unsent};
use crate::load::plan::{Pace, Plan};
use crate::load::schedule::Arrivals;
use crate::progress::Progress;
use anyhow::Result;

const GROUPS: usize = 5;
/// Records of 1 KB: what five groups can read on two CPUs beside their broker.
const RECORDS_PER_SECOND: f64 = 20_000.0;

pub fn turn(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let records_per_second = options.rate.unwrap_or(RECORDS_PER_SECOND);
    let pace = Pace::Rate { records_per_second, arrivals: Arrivals::Even };
    let plan = Plan { groups: GROUPS, pace, ..plan_for(running, options)? };
    let mut outcome = Outcome::default();
    let mut report = outcome.run("fanout-5", &plan, running, options, progress)?;
    reject_unsent(&mut report, records_per_second);
    let mut figures = Vec::new();
    if let Some(consumed) = &report.consumed {
        figures.push(more("consumed", "MB/s", consumed.bytes_per_second / 1e6));
        figures.extend(costs(&report, consumed.bytes));
        figures.extend(consumed.latency.iter().flat_map(|latency| latencies("", latency)));
    }
    outcome.add(figures, report);
    Ok(outcome)
}
