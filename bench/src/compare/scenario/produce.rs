//! Saturated producing.

use super::{Options, Outcome, Running, Scenario, costs, latencies, less, more};
use crate::ceilings::Sink;
use crate::endpoint::Endpoint;
use crate::host::cost::Watched;
use crate::load;
use crate::load::payload::Sizes;
use crate::load::plan::Plan;
use crate::progress::Progress;
use crate::workload::threads_by_default;
use anyhow::Result;
use std::time::Duration;

/// What the scenario makes of a plan; none for scenarios of other kinds.
pub fn plan(scenario: Scenario, plan: Plan) -> Option<Plan> {
    // As many producers as half of the machine can drive: one on two CPUs.
    let producers = threads_by_default(usize::MAX);
    let busy = Plan { producers, producer_threads: producers, ..plan.clone() };
    Some(match scenario {
        Scenario::Produce1k100p => busy,
        Scenario::Produce64kBatches => Plan { batch_bytes: 64 << 10, ..busy },
        Scenario::SmallKeyed => {
            const PRODUCERS: usize = 50;
            Plan {
                partitions: 500,
                producers: PRODUCERS,
                producer_threads: threads_by_default(PRODUCERS),
                sizes: Sizes::Fixed(100),
                keys: 100_000,
                buffer_bytes: plan.buffer_bytes / PRODUCERS,
                ..plan
            }
        }
        _ => return None,
    })
}

/// What the load generator reaches against an endpoint that does nothing, in bytes a second.
pub fn own_limit(scenario: Scenario, options: &Options, progress: &Progress) -> Result<Option<f64>> {
    let endpoint = Endpoint::start(0)?;
    let plan = super::plan(&endpoint.address.to_string(), options);
    let Some(plan) = self::plan(scenario, plan) else { return Ok(None) };
    let (warm_up, measured) = (Duration::from_secs(2), Duration::from_secs(4));
    let plan = Plan { read_back: false, warm_up, measured, ..plan };
    let report = load::run::run("self", &plan, &Watched::default(), progress)?;
    Ok(report.produced.map(|produced| produced.bytes_per_second))
}

pub fn turn(
    name: &str,
    plan: &Plan,
    sinks: &[Sink],
    running: &Running,
    progress: &Progress,
) -> Result<Outcome> {
    let report = load::run::run(name, plan, &running.watched()?, progress)?;
    let mut outcome = Outcome::default();
    let mut figures = Vec::new();
    if let Some(produced) = &report.produced {
        figures.push(more("throughput", "MB/s", produced.bytes_per_second / 1e6));
        figures.push(more("records", "records/s", produced.records_per_second));
        if let Some(cpu_s) = report.broker_cpu_s() {
            figures.push(more("records per broker CPU second", "records", produced.records as f64 / cpu_s));
        }
        figures.extend(costs(&report, produced.bytes));
        figures.extend(produced.latency.iter().flat_map(|latency| latencies("", latency)));
        if let Some(written) = report.cost.device_written {
            figures.push(less("device writes", "bytes/byte", written as f64 / produced.bytes as f64));
        }
        for sink in sinks {
            let what = if sink.synced { "share of synced bare sink" } else { "share of bare sink" };
            figures.push(more(what, "%", produced.bytes_per_second / sink.bytes_per_second * 100.0));
        }
    }
    if let Some(back) = report.read_back.filter(|back| back.seconds > 0.0) {
        figures.push(more("reading it back", "MB/s", back.bytes as f64 / back.seconds / 1e6));
    }
    outcome.add(figures, report);
    Ok(outcome)
}
