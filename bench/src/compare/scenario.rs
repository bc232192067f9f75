//! What is compared: one scenario for each row of the table that Corelog is to be judged by.

use super::Options;
use super::subject::{Kind, Running, Subjects};
use crate::load;
use crate::load::payload::{Filler, Sizes};
use crate::load::plan::{PATIENCE, Pace, Plan};
use crate::progress::Progress;
use crate::report::RunReport;
use crate::workload::threads_by_default;
use anyhow::{Context, Result};
use clap::ValueEnum;
use corelog_client::{Acks, Encoding};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Saturated, acks=all, 1 KB records, 100 partitions
    #[value(name = "produce-1k-100p")]
    Produce1k100p,
}

impl Scenario {
    pub const ALL: [Scenario; 1] = [Scenario::Produce1k100p];

    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }
}

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    /// Whether more is better; else less is.
    pub more_is_better: bool,
}

/// What one broker did in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    pub round: usize,
    pub kind: Kind,
    pub figures: Vec<Figure>,
    pub runs: Vec<RunReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub scenario: Scenario,
    pub turns: Vec<Turn>,
}

impl Results {
    pub fn has_problems(&self) -> bool {
        self.turns.iter().flat_map(|turn| &turn.runs).any(|run| !run.problems.is_empty())
    }

    /// One figure's values by broker and round.
    pub fn values(&self, name: &str) -> BTreeMap<Kind, BTreeMap<usize, f64>> {
        let mut values: BTreeMap<Kind, BTreeMap<usize, f64>> = BTreeMap::new();
        for turn in &self.turns {
            if let Some(figure) = turn.figures.iter().find(|figure| figure.name == name) {
                values.entry(turn.kind).or_default().insert(turn.round, figure.value);
            }
        }
        values
    }
}

pub fn run(scenario: Scenario, subjects: &Subjects, options: &Options) -> Result<Results> {
    let mut turns = Vec::new();
    for round in 0..options.rounds {
        for kind in subjects.in_round(round) {
            let title =
                format!("{}, round {} of {}, {}", scenario.name(), round + 1, options.rounds, kind.title());
            eprintln!("{title}");
            let running = subjects.start(kind)?;
            let turn = match scenario {
                Scenario::Produce1k100p => produce_1k_100p(&running, options, &Progress::new(&title)),
            };
            let log = || running.broker().map(|broker| broker.log_tail()).unwrap_or_default();
            let (figures, runs) =
                turn.with_context(|| format!("{title}; the broker's log ends:\n{}", log()))?;
            turns.push(Turn { round, kind, figures, runs });
        }
    }
    Ok(Results { scenario, turns })
}

/// What scenarios begin from: one saturating producer as Kafka's own is by default.
fn plan(running: &Running, options: &Options) -> Result<Plan> {
    Ok(Plan {
        bootstrap: running.bootstrap()?,
        partitions: 100,
        topic_configs: Vec::new(),
        producers: 1,
        producer_threads: threads_by_default(1),
        pace: Pace::Saturate,
        sizes: Sizes::Fixed(1000),
        filler: Filler::Random,
        keys: 0,
        acks: Acks::All,
        idempotent: true,
        encoding: Encoding::default(),
        batch_bytes: 16 << 10,
        linger: Duration::from_millis(5),
        buffer_bytes: 32 << 20,
        requests_in_flight: 5,
        groups: 0,
        read_back: true,
        consumers: 1,
        fetch_bytes_min: 1,
        patience: PATIENCE,
        warm_up: options.warm_up,
        measured: options.measured,
        seed: 1,
    })
}

fn produce_1k_100p(
    running: &Running,
    options: &Options,
    progress: &Progress,
) -> Result<(Vec<Figure>, Vec<RunReport>)> {
    let plan = plan(running, options)?;
    let report = load::run::run("produce-1k-100p", &plan, &running.watched()?, progress)?;
    Ok((produce_figures(&report), vec![report]))
}

fn more(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value, more_is_better: true }
}

fn less(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value, more_is_better: false }
}

/// None where the records were not all there.
fn produce_figures(report: &RunReport) -> Vec<Figure> {
    let mut figures = Vec::new();
    let Some(produced) = report.produced.as_ref().filter(|_| report.problems.is_empty()) else {
        return figures;
    };
    figures.push(more("throughput", "MB/s", produced.bytes_per_second / 1e6));
    figures.push(more("records", "records/s", produced.records_per_second));
    if let Some(cpu_s) = report.broker_cpu_s() {
        figures.push(more("per broker CPU second", "MB", produced.bytes as f64 / 1e6 / cpu_s));
        figures.push(less("broker CPU", "s/GB", cpu_s / (produced.bytes as f64 / 1e9)));
    }
    let machine = report.cost.machine_less_client_cpu_s / (produced.bytes as f64 / 1e9);
    figures.push(less("machine less client", "CPU s/GB", machine));
    if let Some(latency) = &produced.latency {
        figures.push(less("p50", "ms", latency.p50_us / 1e3));
        figures.push(less("p99", "ms", latency.p99_us / 1e3));
        figures.push(less("p99.9", "ms", latency.p999_us / 1e3));
        figures.push(less("max", "ms", latency.max_us / 1e3));
    }
    if let Some(broker) = &report.cost.broker {
        figures.push(less("resident, peak", "MB", broker.resident_peak as f64 / 1e6));
        if let Some(written) = report.cost.device_written {
            figures.push(less("device writes", "bytes/byte", written as f64 / produced.bytes as f64));
        }
    }
    figures
}
