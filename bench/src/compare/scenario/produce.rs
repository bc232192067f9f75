//! Saturated producing.

use super::{Options, Outcome, Running, costs, latencies, less, more, plan};
use crate::load;
use crate::load::payload::Sizes;
use crate::load::plan::Plan;
use crate::progress::Progress;
use crate::workload::threads_by_default;
use anyhow::Result;

pub fn one_kilobyte(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    saturated("produce-1k", &busy(running, options)?, running, progress)
}

pub fn large_batches(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    let plan = Plan { batch_bytes: 64 << 10, ..busy(running, options)? };
    saturated("produce-64k", &plan, running, progress)
}

pub fn small_keyed(running: &Running, options: &Options, progress: &Progress) -> Result<Outcome> {
    const PRODUCERS: usize = 50;
    let plan = plan(running, options)?;
    let plan = Plan {
        partitions: 500,
        producers: PRODUCERS,
        producer_threads: threads_by_default(PRODUCERS),
        sizes: Sizes::Fixed(100),
        keys: 100_000,
        buffer_bytes: plan.buffer_bytes / PRODUCERS,
        ..plan
    };
    saturated("small-keyed", &plan, running, progress)
}

/// As many producers as half of the machine can drive: one on two CPUs.
fn busy(running: &Running, options: &Options) -> Result<Plan> {
    let producers = threads_by_default(usize::MAX);
    Ok(Plan { producers, producer_threads: producers, ..plan(running, options)? })
}

fn saturated(name: &str, plan: &Plan, running: &Running, progress: &Progress) -> Result<Outcome> {
    let report = load::run::run(name, plan, &running.watched()?, progress)?;
    let mut outcome = Outcome::default();
    let mut figures = Vec::new();
    if let Some(produced) = &report.produced {
        figures.push(more("throughput", "MB/s", produced.bytes_per_second / 1e6));
        figures.push(more("records", "records/s", produced.records_per_second));
        if let Some(cpu_s) = report.broker_cpu_s() {
            figures.push(more("records per broker CPU s", "records", produced.records as f64 / cpu_s));
        }
        figures.extend(costs(&report, produced.bytes));
        figures.extend(produced.latency.iter().flat_map(|latency| latencies("", latency)));
        if let Some(written) = report.cost.device_written {
            figures.push(less("device writes", "bytes/byte", written as f64 / produced.bytes as f64));
        }
    }
    if let Some(back) = report.read_back.filter(|back| back.seconds > 0.0) {
        figures.push(more("reading it back", "MB/s", back.bytes as f64 / back.seconds / 1e6));
    }
    outcome.add(figures, report);
    Ok(outcome)
}
