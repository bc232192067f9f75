//! End to end at half of the highest rate that each Kafka reaches with a consumer beside the producer. Corelog is measured at
//! both rates, and compared at each with the Kafka that it comes from.

use super::{
    Options, Outcome, Running, Scenario, Subjects, circumstance, costs, latencies, more, plan_for,
    reject_unsent, unsteady,
};
use crate::compare::subject::Kind;
use crate::endpoint::Endpoint;
use crate::host::cost::Watched;
use crate::load;
use crate::load::plan::{Pace, Plan};
use crate::load::schedule::Arrivals;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// Records a second, by the Kafka that they are half of.
pub type Rates = BTreeMap<Kind, f64>;

pub fn rates(subjects: &Subjects, options: &Options) -> Result<Rates> {
    let mut rates = Rates::new();
    for kind in subjects.of(Scenario::E2eHalf).into_iter().filter(|kind| !kind.is_corelog()) {
        let rate = match options.rate {
            Some(rate) => rate,
            None => highest(subjects, kind, options)? / 2.0,
        };
        eprintln!("e2e-half: {rate:.0} records/s for {}", kind.title());
        rates.insert(kind, rate);
    }
    if let (true, Some(rate)) = (rates.is_empty(), options.rate) {
        rates.insert(Kind::Corelog, rate);
    }
    if rates.is_empty() {
        bail!("e2e-half takes its rate from Kafka: add kafka to --brokers, or give a --rate");
    }
    Ok(rates)
}

fn highest(subjects: &Subjects, kind: Kind, options: &Options) -> Result<f64> {
    let title = format!("e2e-half, the highest rate of {}", kind.title());
    eprintln!("{title}");
    let running = subjects.start(kind)?;
    let plan = Plan { groups: 1, ..plan_for(&running, options)? };
    let report = Outcome::default().run("e2e-highest", &plan, &running, options, &Progress::new(&title))?;
    if let Some(problem) = report.problems.first() {
        bail!("{title}: {problem}");
    }
    // Half of what does not stand is a rate like any other: it is the same for all, and is told.
    if let Some(why) = unsteady(&report.steady) {
        eprintln!("{title}: not steady: {why}");
    }
    let produced = report.produced.context("a producing run has a producing side")?;
    Ok(produced.records_per_second)
}

pub fn turn(running: &Running, options: &Options, rates: &Rates, progress: &Progress) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (of, rate) in rates.iter().filter(|(of, _)| running.kind.is_corelog() || running.kind == **of) {
        let pace = Pace::Rate { records_per_second: *rate, arrivals: Arrivals::Even };
        let plan = Plan { groups: 1, pace, ..plan_for(running, options)? };
        let mut report = outcome.run("e2e-half", &plan, running, options, progress)?;
        reject_unsent(&mut report, *rate);
        let suffix = match of {
            Kind::Kafka => ", half of Kafka",
            Kind::KafkaFsync => ", half of fsync",
            Kind::Corelog | Kind::CorelogCaching | Kind::CorelogOther => "",
        };
        let mut figures = Vec::new();
        if let Some(consumed) = &report.consumed {
            figures.extend(consumed.latency.iter().flat_map(|latency| latencies(suffix, latency)));
            for figure in costs(&report, consumed.bytes).into_iter().take(1) {
                figures.push(more(format!("{}{suffix}", figure.name), figure.unit, figure.value));
            }
        }
        figures.push(circumstance(format!("rate{suffix}"), "records/s", *rate));
        outcome.add(figures, report);
        if running.kind == Kind::Corelog {
            alone(&plan, suffix, &mut outcome, running, options, progress)?;
        }
    }
    Ok(outcome)
}

/// What the same load shows with an endpoint that does nothing: of any broker's latencies so much is the load generator's and the
/// machine's.
fn alone(
    plan: &Plan,
    suffix: &str,
    outcome: &mut Outcome,
    running: &Running,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    outcome.settle("e2e-alone", running, options, progress)?;

    progress.say("the load generator alone");
    let endpoint = Endpoint::start(Endpoint::BYTES_MAX)?;
    let plan = Plan { bootstrap: endpoint.address.to_string(), ..plan.clone() };
    let report = load::run::run("e2e-alone", &plan, &Watched::default(), progress)?;
    let suffix = format!(" of the load generator alone{suffix}");
    let latency = report.consumed.as_ref().and_then(|consumed| consumed.latency.as_ref());
    let figures: Vec<_> = latency.iter().flat_map(|latency| latencies(&suffix, latency)).collect();
    outcome.add(figures, report);
    Ok(())
}
