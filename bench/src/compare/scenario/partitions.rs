//! The same load on few partitions and on many: how much of the throughput is kept?

use super::{Options, Outcome, Running, less, more, plan_for, unsteady};
use crate::load::plan::Plan;
use crate::progress::Progress;
use anyhow::Result;

const FEW: usize = 50;
pub const MANY: usize = 5000;

pub fn turn(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut rates = Vec::new();
    let mut why = None;
    for partitions in [FEW, MANY] {
        let plan = Plan { partitions, ..plan_for(running, options)? };
        let name = format!("partitions-{partitions}");
        let report = outcome.run(&name, &plan, running, options, progress)?;
        why = why.or(unsteady(&report.steady));
        let mut figures = Vec::new();
        if let Some(produced) = report.produced.as_ref().filter(|_| report.problems.is_empty()) {
            let rate = produced.bytes_per_second / 1e6;
            rates.push(rate);
            figures.push(more(format!("throughput, {partitions} partitions"), "MB/s", rate));
            let gb = produced.bytes as f64 / 1e9;
            if let Some(cpu_s) = report.broker_cpu_s() {
                figures.push(less(format!("broker CPU, {partitions} partitions"), "s/GB", cpu_s / gb));
            }
        }
        outcome.add(figures, report);
    }
    if let [few, many] = rates[..] {
        outcome.figures.push(more("throughput kept", "%", many / few * 100.0).refused(&why));
    }
    Ok(outcome)
}
