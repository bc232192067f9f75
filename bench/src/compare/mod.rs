//! `corebench compare`: brokers in turn on one machine, run after run, and ratios of what they did in the same round.

mod kafka_tools;
mod order;
pub mod scenario;
mod subject;
pub mod tables;

use crate::args;
use crate::ceilings;
use crate::report::{Files, Report};
use anyhow::{Context, Result, bail};
use clap::Args;
use scenario::Scenario;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use subject::{Kind, Subjects};

#[derive(Args)]
pub struct Compare {
    /// What to compare; all of it if nothing is named
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Whom to compare, separated by commas; if nothing is named, those that the scenario has a target against
    #[arg(long, value_enum, value_delimiter = ',', value_name = "BROKERS")]
    brokers: Vec<Kind>,
    /// Rounds; in each, every broker has its turn. Orders are balanced in as many as there are brokers, or twice that if they are an odd number
    #[arg(long, default_value_t = 4, value_name = "COUNT")]
    rounds: usize,
    /// Under ten minutes in all: latency and cost at 20 MB/s, then as much as they take, in as many pairs of short runs as there is time
    /// for, and what can be concluded
    #[arg(long, conflicts_with_all = ["scenarios", "rounds", "duration", "warm_up", "warm_up_max", "rate", "data"])]
    quick: bool,
    /// Of each run, before anything counts: at least. It begins to count when figures stand
    #[arg(long, default_value = "20s", value_parser = args::duration, value_name = "DURATION")]
    warm_up: Duration,
    /// At most: if they do not stand by then, no ratio is told
    #[arg(long, default_value = "2m", value_parser = args::duration, value_name = "DURATION")]
    warm_up_max: Duration,
    /// Of each run
    #[arg(short, long, default_value = "30s", value_parser = args::duration, value_name = "DURATION")]
    duration: Duration,
    /// Before each run everything is written, and the device has to be quiet; waits at most so long for that
    #[arg(long, default_value = "2m", value_parser = args::duration, value_name = "DURATION")]
    settle: Duration,
    /// Have perf count system calls and instructions of the brokers, which costs them a little
    #[arg(long)]
    perf: bool,
    /// Records a second, for scenarios that have a rate, in place of their own
    #[arg(long, value_parser = args::rate, value_name = "RATE")]
    rate: Option<args::Rate>,
    /// How much is there for cold-scan and start-to-ready
    #[arg(long, default_value = "10GiB", value_parser = args::size, value_name = "SIZE")]
    data: u64,
    /// The Corelog binary
    #[arg(long, default_value = "target/release/corelog", value_name = "FILE")]
    corelog: PathBuf,
    /// The Corelog binary that corelog-other is, in --brokers
    #[arg(long, value_name = "FILE")]
    other: Option<PathBuf>,
    /// A flag for Corelog, such as --corelog-flag=--cores=0; may be given more than once
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    corelog_flag: Vec<String>,
    /// The repository, whose tools/clients/kafka fetches Apache Kafka through Maven
    #[arg(long, default_value = ".", value_name = "DIR")]
    repository: PathBuf,
    /// For the brokers' data, on the disk to be measured; each has a folder there, which is deleted after each turn
    #[arg(long, default_value = "corebench-data", value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    files: Files,
}

pub struct Options {
    pub warm_up: Duration,
    pub warm_up_max: Duration,
    pub measured: Duration,
    pub settle_max: Duration,
    pub rounds: usize,
    /// Rounds that would end later are not begun, but for the first.
    pub deadline: Option<Instant>,
    /// Records of 1 KB a second, in place of a scenario's own.
    pub rate: Option<f64>,
    pub data_bytes: u64,
}

/// A Java machine takes this long to compile what matters: shorter, and Kafka's figures are those of an interpreter.
const QUICK_WARM_UP: Duration = Duration::from_secs(20);
const QUICK_WARM_UP_MAX: Duration = Duration::from_secs(30);
const QUICK_MEASURED: Duration = Duration::from_secs(10);
const QUICK_SETTLE: Duration = Duration::from_secs(10);
const QUICK_ROUNDS_MAX: usize = 8;
const QUICK_TIME: Duration = Duration::from_secs(9 * 60 + 45);
/// For each of about a dozen.
const CEILING_TIME: Duration = Duration::from_millis(500);

impl Compare {
    fn options(&self) -> Options {
        let rate = self.rate.map(|rate| rate.records_per_second(1000.0));
        match self.quick {
            true => Options {
                warm_up: QUICK_WARM_UP,
                warm_up_max: QUICK_WARM_UP_MAX,
                measured: QUICK_MEASURED,
                settle_max: QUICK_SETTLE,
                rounds: QUICK_ROUNDS_MAX,
                deadline: Some(Instant::now() + QUICK_TIME),
                rate,
                data_bytes: self.data,
            },
            false => Options {
                warm_up: self.warm_up,
                warm_up_max: self.warm_up_max,
                measured: self.duration,
                settle_max: self.settle,
                rounds: self.rounds,
                deadline: None,
                rate,
                data_bytes: self.data,
            },
        }
    }
}

pub fn run(compare: &Compare) -> Result<ExitCode> {
    let options = compare.options();
    if options.rounds == 0 {
        bail!("--rounds is 0: use at least 1, better 4");
    }
    std::fs::create_dir_all(&compare.dir).with_context(|| format!("--dir {}", compare.dir.display()))?;
    let scenarios = match compare.scenarios.as_slice() {
        _ if compare.quick => vec![Scenario::Quick],
        [] => Scenario::all(),
        named => named.to_vec(),
    };
    let subjects = Subjects::new(compare, &scenarios)?;
    let mut report = Report::begin(Some(&compare.dir));
    crate::progress::say(tables::machine(&report.machine));
    if !compare.quick {
        let ceilings = ceilings::measure(&compare.dir, CEILING_TIME)?;
        crate::progress::say(ceilings::text(&ceilings));
        report.ceilings = Some(ceilings);
    }
    let mut code = ExitCode::SUCCESS;
    for scenario in scenarios {
        let results = scenario::run(scenario, &subjects, &options)?;
        crate::progress::say(tables::scenario(&results));
        if results.problems().next().is_some() {
            code = ExitCode::FAILURE;
        }
        report.comparisons.push(results);
        // What is done is kept, whatever comes.
        compare.files.write(&report)?;
    }
    Ok(code)
}
