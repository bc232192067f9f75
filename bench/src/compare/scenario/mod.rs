//! What is compared: one scenario for each row of the table that Corelog is to be judged by, and each in a file of its own.

mod cold_scan;
mod e2e_half;
mod fanout;
mod memory;
mod partitions;
mod produce;
mod start;

use super::Options;
use super::subject::{Kind, Running, Subjects};
use crate::ceilings;
use crate::load::plan::Plan;
use crate::progress::Progress;
use crate::report::RunReport;
use crate::stats::summary::Latency;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Saturated, acks=all, 1 KB records, 100 partitions, batches of 16 KiB
    #[value(name = "produce-1k-100p")]
    Produce1k100p,
    /// The same with batches of 64 KiB
    #[value(name = "produce-64k-batches")]
    Produce64kBatches,
    /// Saturated, 100-byte records, 50 producers with keys, 500 partitions
    SmallKeyed,
    /// End to end at half of the highest rate of each Kafka
    E2eHalf,
    /// One stream of 1 KB records, read by five groups as it comes
    #[value(name = "fanout-5")]
    Fanout5,
    /// A long read of what is no longer in memory, while producing goes on
    ColdScan,
    /// The same load on 50 partitions and on 5,000
    #[value(name = "partitions-5000")]
    Partitions5000,
    /// Resident memory, idle: empty, and with 5,000 partitions
    IdleMemory,
    /// From start to ready: empty, then with 5,000 partitions and much data, after a clean stop and after a kill
    StartToReady,
}

impl Scenario {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    /// Whether a broker that syncs is another one in it.
    pub fn is_about_durability(self) -> bool {
        match self {
            Scenario::Produce1k100p
            | Scenario::Produce64kBatches
            | Scenario::SmallKeyed
            | Scenario::E2eHalf => true,
            Scenario::Fanout5
            | Scenario::ColdScan
            | Scenario::Partitions5000
            | Scenario::IdleMemory
            | Scenario::StartToReady => false,
        }
    }

    pub fn about(self) -> String {
        self.to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string))
            .unwrap_or_default()
    }
}

/// A figure that is compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub value: f64,
    /// Whether more is better; else less is.
    pub more_is_better: bool,
}

fn more(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure { name: name.into(), unit, value, more_is_better: true }
}

fn less(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure { name: name.into(), unit, value, more_is_better: false }
}

/// What a broker did in its turn: figures, and the runs that they are of.
#[derive(Default)]
pub struct Outcome {
    figures: Vec<Figure>,
    runs: Vec<RunReport>,
}

impl Outcome {
    fn add(&mut self, figures: impl IntoIterator<Item = Figure>, run: RunReport) {
        // What is not all there has no figure.
        if run.problems.is_empty() {
            self.figures.extend(figures);
        }
        self.runs.push(run);
    }
}

/// One broker in one round.
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
    pub about: String,
    /// What the load generator reaches by itself, in bytes a second, where it saturates.
    pub own_limit: Option<f64>,
    pub turns: Vec<Turn>,
}

impl Results {
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let of = |turn: &Turn| {
            let (title, round) = (turn.kind.title(), turn.round + 1);
            let all = turn.runs.iter().flat_map(|run| run.problems.clone());
            all.map(move |problem| format!("{title}, round {round}: {problem}")).collect::<Vec<_>>()
        };
        self.turns.iter().flat_map(of)
    }

    pub fn remarks(&self) -> impl Iterator<Item = String> {
        let of = |turn: &Turn| {
            let (title, round) = (turn.kind.title(), turn.round + 1);
            let all = turn.runs.iter().flat_map(RunReport::remarks);
            all.map(move |remark| format!("{title}, round {round}: {remark}")).collect::<Vec<_>>()
        };
        self.own_limit_remarks().into_iter().chain(self.turns.iter().flat_map(of))
    }

    fn own_limit_remarks(&self) -> Vec<String> {
        let Some(limit) = self.own_limit else { return Vec::new() };
        let mut remarks =
            vec![format!("the load generator alone reaches {:.0} MB/s with this load", limit / 1e6)];
        for turn in &self.turns {
            let throughput = turn.figures.iter().find(|figure| figure.name == "throughput");
            let share = throughput.map_or(0.0, |figure| figure.value * 1e6 / limit);
            if share > OWN_LIMIT_SHARE {
                let (title, round) = (turn.kind.title(), turn.round + 1);
                remarks.push(format!(
                    "client-bound: {title}, round {round}: its throughput is {:.0} % of that, and may be the client's limit",
                    share * 100.0
                ));
            }
        }
        remarks
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

/// From this share of the load generator's own limit on a throughput may be the client's and not the broker's.
const OWN_LIMIT_SHARE: f64 = 0.8;
/// For each of some bare sinks.
const SINK_TIME: Duration = Duration::from_secs(1);

pub fn run(scenario: Scenario, subjects: &Subjects, options: &Options) -> Result<Results> {
    let rates = match scenario {
        Scenario::E2eHalf => e2e_half::rates(subjects, options)?,
        _ => BTreeMap::new(),
    };
    let saturates = produce::plan(scenario, plan("", options)).is_some();
    let own_limit = produce::own_limit(scenario, options, &Progress::new("the load generator's own limit"))?;
    let mut turns = Vec::new();
    let mut kinds = subjects.of(scenario);
    for round in 0..options.rounds {
        // In every round anew: what else goes on in the machine changes.
        let sinks = match saturates {
            true => ceilings::sinks(&subjects.directory, SINK_TIME)?,
            false => Vec::new(),
        };
        for kind in kinds.iter().copied() {
            let (rounds, name) = (options.rounds, scenario.name());
            let title = format!("{name}, round {} of {rounds}, {}", round + 1, kind.title());
            eprintln!("{title}");
            let progress = Progress::new(&title);
            let mut running = subjects.start(kind)?;
            let done = match scenario {
                Scenario::Produce1k100p | Scenario::Produce64kBatches | Scenario::SmallKeyed => {
                    let plan = produce::plan(scenario, plan_for(&running, options)?);
                    let plan = plan.context("the scenario produces")?;
                    produce::turn(&name, &plan, &sinks, &running, &progress)
                }
                Scenario::E2eHalf => e2e_half::turn(&running, options, &rates, &progress),
                Scenario::Fanout5 => fanout::turn(&running, options, &progress),
                Scenario::ColdScan => cold_scan::turn(&running, options, &progress),
                Scenario::Partitions5000 => partitions::turn(&running, options, &progress),
                Scenario::IdleMemory => memory::turn(&running, options, &progress),
                Scenario::StartToReady => start::turn(subjects, &mut running, options, &progress),
            };
            let log = || running.broker().map(|broker| broker.log_tail()).unwrap_or_default();
            let outcome = done.with_context(|| format!("{title}; the broker's log ends:\n{}", log()))?;
            turns.push(Turn { round, kind, figures: outcome.figures, runs: outcome.runs });
        }
        // Who comes first meets a machine that rested: another one each time.
        kinds.rotate_left(1);
    }
    Ok(Results { scenario, about: scenario.about(), own_limit, turns })
}

/// What scenarios begin from.
fn plan(bootstrap: &str, options: &Options) -> Plan {
    let (warm_up, measured) = (options.warm_up, options.measured);
    Plan { warm_up, measured, ..Plan::new(bootstrap) }
}

fn plan_for(running: &Running, options: &Options) -> Result<Plan> {
    Ok(Plan { topic_configs: running.kind.topic_configs(), ..plan(&running.bootstrap()?, options) })
}

/// Cost of `bytes` in the run's window.
fn costs(report: &RunReport, bytes: u64) -> Vec<Figure> {
    let gb = bytes as f64 / 1e9;
    let mut figures = Vec::new();
    if let Some(cpu_s) = report.broker_cpu_s() {
        figures.push(more("per broker CPU second", "MB", gb * 1e3 / cpu_s));
        figures.push(less("broker CPU", "s/GB", cpu_s / gb));
    }
    figures.push(less("machine less client", "CPU s/GB", report.cost.machine_less_client_cpu_s / gb));
    if let Some(broker) = &report.cost.broker {
        let switches = (broker.switches.voluntary + broker.switches.forced) as f64;
        figures.push(less("context switches", "per MB", switches / gb / 1e3));
        if let Some(calls) = broker.counts.system_calls {
            figures.push(less("system calls", "per MB", calls as f64 / gb / 1e3));
        }
        if let Some(instructions) = broker.counts.instructions {
            figures.push(less("instructions", "per byte", instructions as f64 / gb / 1e9));
        }
        figures.push(less("resident, peak", "MB", broker.resident_peak as f64 / 1e6));
    }
    figures
}

fn latencies(suffix: &str, latency: &Latency) -> [Figure; 5] {
    let of = |name: &str, us: f64| less(format!("{name}{suffix}"), "ms", us / 1e3);
    [
        of("p50", latency.p50_us),
        of("p99", latency.p99_us),
        of("p99.9", latency.p999_us),
        of("p99.99", latency.p9999_us),
        of("max", latency.max_us),
    ]
}
