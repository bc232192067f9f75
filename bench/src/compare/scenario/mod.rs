//! What is compared: one scenario for each row of the table that Corelog is to be judged by, and each in a file of its own.

mod cold_scan;
mod e2e_half;
mod fanout;
mod memory;
mod partitions;
mod produce;
pub mod quick;
mod recovery;
mod start;
mod tools;
mod under_load;

use super::kafka_tools::Said;
use super::order;
use super::subject::{Kind, Running, Subjects};
use super::{Options, tables};
use crate::ceilings;
use crate::host::settle::{Settled, settle};
use crate::load;
use crate::load::plan::Plan;
use crate::progress::Progress;
use crate::report::RunReport;
use crate::stats::spread::Spread;
use crate::stats::steady::Steady;
use crate::stats::summary::Latency;
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    /// From start to ready: empty; with 5,000 partitions and much data after a clean stop, and after a kill under load
    StartToReady,
    /// Saturated, by Kafka's ProducerPerformance and by corebench: 1 KB records, 100 partitions, batches of 16 KiB
    KafkaProducerPerf,
    /// Reading what is no longer in memory, by Kafka's ConsumerPerformance and by corebench
    KafkaConsumerPerf,
    /// End to end, one record after the other, by Kafka's EndToEndLatency, and by corebench at 200 a second
    KafkaEndToEnd,
    /// End to end at 20 MB/s, then saturated: 1 KB records, 100 partitions, in pairs of short runs
    Quick,
}

impl Scenario {
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    /// What is compared if nothing is named.
    pub fn all() -> Vec<Scenario> {
        Scenario::value_variants().iter().copied().filter(|scenario| *scenario != Scenario::Quick).collect()
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
            | Scenario::StartToReady
            | Scenario::KafkaProducerPerf
            | Scenario::KafkaConsumerPerf
            | Scenario::KafkaEndToEnd
            | Scenario::Quick => false,
        }
    }

    /// Whether Kafka's own clients take part.
    pub fn has_tools_of_kafka(self) -> bool {
        use Scenario::{KafkaConsumerPerf, KafkaEndToEnd, KafkaProducerPerf};
        matches!(self, KafkaProducerPerf | KafkaConsumerPerf | KafkaEndToEnd)
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
    pub ratio: Ratio,
}

/// Whether one broker's figure may be divided by another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    Told,
    /// It says under which circumstances others came about.
    Circumstance,
    /// Why not.
    Refused(String),
}

impl Figure {
    /// Refused for this, unless it is for something else already.
    fn refused(self, why: &Option<String>) -> Figure {
        match (&self.ratio, why) {
            (Ratio::Told, Some(why)) => Figure { ratio: Ratio::Refused(why.clone()), ..self },
            _ => self,
        }
    }
}

fn more(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure { name: name.into(), unit, value, more_is_better: true, ratio: Ratio::Told }
}

fn less(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure { more_is_better: false, ..more(name, unit, value) }
}

fn circumstance(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure { ratio: Ratio::Circumstance, ..more(name, unit, value) }
}

/// What a broker did in its turn: figures, and the runs that they are of.
#[derive(Default)]
pub struct Outcome {
    figures: Vec<Figure>,
    runs: Vec<RunReport>,
    settled: Vec<(String, Settled)>,
    tools: Vec<ToolRun>,
}

impl Outcome {
    fn add(&mut self, figures: impl IntoIterator<Item = Figure>, run: RunReport) {
        let why = unsteady(&run.steady);
        self.add_refused(figures, run, &why);
    }

    /// What is not all there has no figure, and what was not steady has none that can be compared.
    fn add_refused(
        &mut self,
        figures: impl IntoIterator<Item = Figure>,
        run: RunReport,
        why: &Option<String>,
    ) {
        if run.problems.is_empty() {
            self.figures.extend(figures.into_iter().map(|figure| figure.refused(why)));
        }
        self.runs.push(run);
    }

    fn add_tool(&mut self, figures: impl IntoIterator<Item = Figure>, run: ToolRun) {
        let why = unsteady(&run.steady);
        self.figures.extend(figures.into_iter().map(|figure| figure.refused(&why)));
        self.tools.push(run);
    }

    /// Waits for the machine to come to rest before what has this name.
    fn settle(
        &mut self,
        name: &str,
        running: &Running,
        options: &Options,
        progress: &Progress,
    ) -> Result<()> {
        let settled = settle(&running.directory, options.settle_max, progress)?;
        self.settled.push((name.to_owned(), settled));
        Ok(())
    }

    /// Runs the plan on a machine that has come to rest.
    fn run(
        &mut self,
        name: &str,
        plan: &Plan,
        running: &Running,
        options: &Options,
        progress: &Progress,
    ) -> Result<RunReport> {
        self.settle(name, running, options, progress)?;
        load::run::run(name, plan, &running.watched()?, progress)
    }
}

/// Why a run's figures are not compared.
fn unsteady(steady: &Steady) -> Option<String> {
    let why = || steady.why.clone().unwrap_or_else(|| "it did not stand".to_owned());
    (!steady.reached).then(why)
}

/// Of one of Kafka's own tools.
#[derive(Clone, Debug, Serialize)]
pub struct ToolRun {
    pub name: String,
    pub steady: Steady,
    /// What it said.
    pub said: Said,
}

/// One broker in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    pub round: usize,
    pub kind: Kind,
    pub figures: Vec<Figure>,
    pub runs: Vec<RunReport>,
    /// Before each of them, by name, and before whatever else was measured.
    pub settled: Vec<(String, Settled)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRun>,
}

impl Turn {
    /// Why figures are not compared, where it is not that a run was not steady, which is told of the run.
    fn not_compared(&self) -> Vec<String> {
        let of_runs =
            self.runs.iter().map(|run| &run.steady).chain(self.tools.iter().map(|tool| &tool.steady));
        let known: Vec<String> = of_runs.filter_map(unsteady).collect();
        let of = |figure: &Figure| match &figure.ratio {
            Ratio::Refused(why) if !known.contains(why) => {
                Some(format!("{} is not compared: {why}", figure.name))
            }
            _ => None,
        };
        self.figures.iter().filter_map(of).collect()
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub scenario: Scenario,
    pub about: String,
    /// What the load generator reaches by itself in each round, in bytes a second, where it saturates.
    pub own_limits: Vec<f64>,
    /// In each round.
    pub order: Vec<Vec<Kind>>,
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
            let settled = turn
                .settled
                .iter()
                .filter_map(|(name, settled)| Some(format!("{name}: {}", settled.remark()?)));
            let runs = turn
                .runs
                .iter()
                .flat_map(|run| run.remarks().into_iter().map(|remark| format!("{}: {remark}", run.name)));
            let tools = turn
                .tools
                .iter()
                .filter_map(|run| Some(format!("{}: not steady: {}", run.name, unsteady(&run.steady)?)));
            let all = settled.chain(runs).chain(tools).chain(turn.not_compared());
            all.map(move |remark| format!("{title}, round {round}: {remark}")).collect::<Vec<_>>()
        };
        self.own_limit_remarks().into_iter().chain(self.turns.iter().flat_map(of))
    }

    fn own_limit_remarks(&self) -> Vec<String> {
        let Some(spread) = Spread::of(self.own_limits.iter().map(|limit| limit / 1e6)) else {
            return Vec::new();
        };
        let mut remarks = vec![format!(
            "the load generator alone reaches {} MB/s with this load",
            tables::spread_text(&spread)
        )];
        for turn in &self.turns {
            let throughput = turn.figures.iter().find(|figure| figure.name == "throughput");
            let limit = self.own_limits.get(turn.round).or(self.own_limits.last()).copied();
            let limit = limit.unwrap_or(f64::INFINITY);
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

    /// One figure by broker and round.
    pub fn values(&self, name: &str) -> BTreeMap<Kind, BTreeMap<usize, &Figure>> {
        let mut values: BTreeMap<Kind, BTreeMap<usize, &Figure>> = BTreeMap::new();
        for turn in &self.turns {
            if let Some(figure) = turn.figures.iter().find(|figure| figure.name == name) {
                values.entry(turn.kind).or_default().insert(turn.round, figure);
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
    let has_ceiling =
        matches!(scenario, Scenario::Produce1k100p | Scenario::Produce64kBatches | Scenario::SmallKeyed);
    let about = scenario.about();
    let mut results =
        Results { scenario, about, own_limits: Vec::new(), order: Vec::new(), turns: Vec::new() };
    let all = subjects.of(scenario);
    let mut longest = Duration::ZERO;
    for (round, kinds) in order::balanced(&all, options.rounds).into_iter().enumerate() {
        let begun = Instant::now();
        if !is_time_for(round, order::cycle(all.len()), longest, options.deadline) {
            break;
        }
        // In every round anew: what else goes on in the machine changes.
        if round == 0 || options.deadline.is_none() {
            let progress = Progress::new("the load generator's own limit");
            results.own_limits.extend(produce::own_limit(scenario, options, &progress)?);
        }
        let sinks = match has_ceiling {
            true => ceilings::sinks(&subjects.directory, SINK_TIME)?,
            false => Vec::new(),
        };
        for kind in kinds.iter().copied() {
            let name = scenario.name();
            let title = format!("{name}, round {}, {}", round + 1, kind.title());
            eprintln!("{title}");
            let progress = Progress::new(&title);
            // Elsewhere it is done before what is measured.
            let settled = match scenario {
                Scenario::StartToReady => Some(settle(&subjects.directory, options.settle_max, &progress)?),
                _ => None,
            };
            let mut running = subjects.start(kind)?;
            let done = match scenario {
                Scenario::Produce1k100p | Scenario::Produce64kBatches | Scenario::SmallKeyed => {
                    let plan = produce::plan(scenario, plan_for(&running, options)?);
                    let plan = plan.context("the scenario produces")?;
                    produce::turn(&name, &plan, &sinks, &running, options, &progress)
                }
                Scenario::E2eHalf => e2e_half::turn(&running, options, &rates, &progress),
                Scenario::Fanout5 => fanout::turn(&running, options, &progress),
                Scenario::ColdScan => cold_scan::turn(&running, options, &progress),
                Scenario::Partitions5000 => partitions::turn(&running, options, &progress),
                Scenario::IdleMemory => memory::turn(&running, options, &progress),
                Scenario::StartToReady => start::turn(subjects, &mut running, options, &progress),
                Scenario::KafkaProducerPerf => {
                    tools::produce(subjects, &mut running, round, options, &progress)
                }
                Scenario::KafkaConsumerPerf => {
                    tools::consume(subjects, &mut running, round, options, &progress)
                }
                Scenario::KafkaEndToEnd => {
                    tools::end_to_end(subjects, &mut running, round, options, &progress)
                }
                Scenario::Quick => quick::turn(&running, options, &progress),
            };
            let log = || running.broker().map(|broker| broker.log_tail()).unwrap_or_default();
            let mut outcome = done.with_context(|| format!("{title}; the broker's log ends:\n{}", log()))?;
            outcome.settled.splice(0..0, settled.map(|settled| ("the start".to_owned(), settled)));
            results.turns.push(Turn {
                round,
                kind,
                figures: outcome.figures,
                runs: outcome.runs,
                settled: outcome.settled,
                tools: outcome.tools,
            });
        }
        results.order.push(kinds);
        longest = longest.max(begun.elapsed());
    }
    Ok(results)
}

/// Whether another round, or at the beginning of a cycle a whole one, is over before the deadline; at least one round is made.
fn is_time_for(round: usize, cycle: usize, longest: Duration, deadline: Option<Instant>) -> bool {
    let rounds = if round.is_multiple_of(cycle) { cycle } else { 1 };
    round == 0 || deadline.is_none_or(|deadline| Instant::now() + longest * rounds as u32 <= deadline)
}

/// What scenarios begin from.
fn plan(bootstrap: &str, options: &Options) -> Plan {
    let Options { warm_up, warm_up_max, measured, .. } = *options;
    Plan { warm_up, warm_up_max, measured, ..Plan::new(bootstrap) }
}

fn plan_for(running: &Running, options: &Options) -> Result<Plan> {
    Ok(Plan { topic_configs: running.kind.topic_configs(), ..plan(&running.bootstrap()?, options) })
}

/// Records that were due and never sent: what is told of the others is better than the truth.
fn reject_unsent(report: &mut RunReport, records_per_second: f64) {
    if report.client.unsent > 0 {
        let unsent = report.client.unsent;
        report
            .problems
            .push(format!("{records_per_second:.0} records/s were not reached: {unsent} were not sent"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::host::cost::Watched;

    fn cold_run() -> RunReport {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let (warm_up, measured) = (Duration::from_millis(1), Duration::from_millis(200));
        let plan = Plan { partitions: 3, warm_up, warm_up_max: warm_up, measured, ..Plan::new("") };
        let plan = Plan { bootstrap: endpoint.address.to_string(), ..plan };
        load::run::run("cold", &plan, &Watched::default(), &Progress::new("test")).unwrap()
    }

    #[test]
    fn what_was_not_steady_is_not_compared() {
        let run = cold_run();
        assert!(!run.steady.reached && run.problems.is_empty(), "{:?}", run.problems);
        let mut warm = run.clone();
        warm.steady = Steady { reached: true, ..Default::default() };
        let mut outcome = Outcome::default();
        outcome.add([more("cold", "MB/s", 1.0), circumstance("rate", "MB/s", 2.0)], run);
        outcome.add([more("warm", "MB/s", 3.0)], warm.clone());
        outcome.add_refused([more("beside", "MB/s", 4.0)], warm, &Some("the scan was over".to_owned()));
        let ratios: Vec<&Ratio> = outcome.figures.iter().map(|figure| &figure.ratio).collect();
        let [Ratio::Refused(why), Ratio::Circumstance, Ratio::Told, Ratio::Refused(scan)] = &ratios[..]
        else {
            panic!("{ratios:?}");
        };
        assert!(why.contains("too short to tell") && scan == "the scan was over", "{why}, {scan}");
        let Outcome { figures, runs, settled, tools } = outcome;
        let turn = Turn { round: 0, kind: Kind::Corelog, figures, runs, settled, tools };
        // The first is told of its run.
        assert_eq!(turn.not_compared(), ["beside is not compared: the scan was over"]);
    }

    #[test]
    fn with_a_deadline_cycles_are_whole_if_they_can_be() {
        let seconds = Duration::from_secs;
        let is_time = |round, left| is_time_for(round, 2, seconds(140), Some(Instant::now() + seconds(left)));
        assert!(is_time(0, 0) && is_time(1, 150) && is_time(2, 290));
        // One more would fit, but not the one that balances it.
        assert!(!is_time(2, 270) && !is_time(1, 130));
        assert!(is_time_for(7, 2, seconds(1000), None));
    }

    #[test]
    fn a_rate_that_was_not_reached_has_no_figure() {
        let mut run = cold_run();
        reject_unsent(&mut run, 20_000.0);
        assert!(run.problems.is_empty());
        run.client.unsent = 7;
        reject_unsent(&mut run, 20_000.0);
        assert!(run.problems[0].contains("20000 records/s were not reached: 7"), "{:?}", run.problems);
        let mut outcome = Outcome::default();
        outcome.add([more("p99", "ms", 1.0)], run);
        assert!(outcome.figures.is_empty() && outcome.runs.len() == 1);
    }

    #[test]
    fn a_throughput_near_the_load_generators_own_of_that_round_is_told() {
        let turn = |round| Turn {
            round,
            kind: Kind::Corelog,
            figures: vec![more("throughput", "MB/s", 90.0)],
            runs: Vec::new(),
            settled: Vec::new(),
            tools: Vec::new(),
        };
        let results = Results {
            scenario: Scenario::Produce1k100p,
            about: String::new(),
            own_limits: vec![200e6, 100e6],
            order: vec![vec![Kind::Corelog]; 2],
            turns: vec![turn(0), turn(1)],
        };
        let remarks: Vec<String> = results.remarks().collect();
        assert!(remarks[0].contains("150 (100 - 200) MB/s"), "{remarks:?}");
        let bound: Vec<&String> =
            remarks.iter().filter(|remark| remark.starts_with("client-bound")).collect();
        assert!(bound.len() == 1 && bound[0].contains("round 2") && bound[0].contains("90 %"), "{remarks:?}");
    }
}
