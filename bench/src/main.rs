//! corebench: load for Corelog or any Kafka broker, and what comes of it.
//!
//! Open loop by a schedule, so that a stalled broker is charged for all that it keeps waiting; closed loop for saturation. What
//! was read is checked against what was acknowledged, or there is no figure. `README.md` tells how figures are made.
// Locks and shared counters are for data cores to avoid: these are threads of a load generator.
#![allow(clippy::disallowed_types)]

mod args;
mod ceilings;
mod compare;
mod endpoint;
mod find_rate;
mod host;
mod load;
mod progress;
mod report;
mod stats;
mod workload;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use corelog_client::explained;
use endpoint::Endpoint;
use host::cost::Watched;
use host::process;
use load::plan::Plan;
use load::reading::{self, Expected};
use load::schedule::Arrivals;
use load::stage::Stage;
use progress::Progress;
use report::{Files, Report, RunReport};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use workload::{Consuming, Producing, Records, Timing};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure a Corelog or Kafka broker: throughput, latency, cost
#[derive(Parser)]
#[command(name = "corebench", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write records, and read them back afterwards to check them
    Produce {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        timing: Timing,
    },
    /// Read a topic that is there, from its beginning to its end
    Consume {
        #[command(flatten)]
        target: Target,
        /// The topic
        topic: String,
        #[command(flatten)]
        consuming: Consuming,
    },
    /// Write a backlog as fast as it is taken, then read it
    Drain {
        #[command(flatten)]
        target: Target,
        /// Bytes to write
        #[arg(long, default_value = "1GiB", value_parser = args::size, value_name = "SIZE")]
        backlog: u64,
        /// Drop the files under --data-dir from the page cache before reading
        #[arg(long, requires = "data_dir")]
        cold: bool,
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        consuming: Consuming,
    },
    /// Write records and read them as they come: latency from when each was due until it is read
    E2e {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        consuming: Consuming,
        #[command(flatten)]
        timing: Timing,
    },
    /// Write records once, and have several groups read all of them as they come
    Fanout {
        #[command(flatten)]
        target: Target,
        /// Groups, each of which reads everything
        #[arg(short, long, default_value_t = 5, value_name = "COUNT")]
        groups: usize,
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        consuming: Consuming,
        #[command(flatten)]
        timing: Timing,
    },
    /// Find the highest rate at which p99 stays within a bound
    FindRate {
        #[command(flatten)]
        target: Target,
        /// The bound
        #[arg(long, default_value = "10ms", value_parser = args::duration, value_name = "DURATION")]
        p99: Duration,
        /// Of producing alone, without consumers
        #[arg(long)]
        produce_only: bool,
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        consuming: Consuming,
        #[command(flatten)]
        timing: Timing,
    },
    /// Find this tool's own limit: the same load against an endpoint that does nothing with it
    #[command(name = "self")]
    Own {
        #[command(flatten)]
        records: Records,
        #[command(flatten)]
        producing: Producing,
        #[command(flatten)]
        consuming: Consuming,
        #[command(flatten)]
        timing: Timing,
        #[command(flatten)]
        files: Files,
    },
    /// Measure what the machine can do without a broker: raw writes, loopback, a bare sink
    Ceilings {
        /// On the disk to be measured
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
        /// Of each of about a dozen measurements
        #[arg(short, long, default_value = "2s", value_parser = args::duration, value_name = "DURATION")]
        duration: Duration,
        #[command(flatten)]
        files: Files,
    },
    /// Start Apache Kafka and Corelog in turn on this machine, and compare them
    Compare(compare::Compare),
}

/// The broker, and the process that is charged.
#[derive(Args, Clone, Debug)]
struct Target {
    /// Some of the cluster's brokers, as HOST:PORT[,HOST:PORT...]
    #[arg(
        short,
        long,
        env = "COREBENCH_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        value_name = "BROKERS"
    )]
    bootstrap: String,
    /// The broker's process; found by its port if the broker is on this machine and may be looked at
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// The broker's data directory, to tell what its device writes
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Have perf count the broker's system calls and instructions, which costs it a little
    #[arg(long)]
    perf: bool,
    #[command(flatten)]
    files: Files,
}

impl Target {
    /// Whom to watch; says who it is.
    fn found(&self) -> Result<Watched> {
        let first = self.bootstrap.split(',').next().unwrap_or_default();
        let pid = self.broker_pid.or_else(|| process::listener(first));
        match pid {
            Some(pid) => eprintln!("broker: process {pid}: {}", process::command(pid)?),
            None => eprintln!(
                "broker: no process of this machine that may be looked at (--broker-pid): its CPU and memory are not told"
            ),
        }
        Ok(Watched { perf: self.perf, ..Watched::new(pid, self.data_dir.as_deref()) })
    }

    fn run(&self, name: &str, plan: &Plan) -> Result<ExitCode> {
        let begun = Report::begin(self.data_dir.as_deref());
        let measured = load::run::run(name, plan, &self.found()?, &Progress::new(name));
        told(begun, measured.with_context(|| format!("measuring {}", self.bootstrap))?, &self.files)
    }

    fn consume(&self, topic: &str, consuming: &Consuming) -> Result<ExitCode> {
        let begun = Report::begin(self.data_dir.as_deref());
        let (stage, counts) = Stage::existing(topic, &consuming.plan(&self.bootstrap))?;
        let progress = Progress::new("consume");
        let read = reading::read("consume", &stage, &Expected::Counts(counts), &self.found()?, &progress);
        told(begun, read?, &self.files)
    }

    fn drain(&self, backlog: u64, cold: bool, plan: &Plan) -> Result<ExitCode> {
        let begun = Report::begin(self.data_dir.as_deref());
        let watched = self.found()?;
        let progress = Progress::new("drain");
        let stage = Stage::create("drain", plan)?;
        let sent = stage.fill(backlog, &progress)?;
        if let Some(directory) = self.data_dir.as_deref().filter(|_| cold) {
            host::cache::evict(directory)?;
        }
        let report = reading::read("drain", &stage, &Expected::Sent(sent), &watched, &progress);
        stage.delete()?;
        told(begun, report?, &self.files)
    }

    fn find_rate(&self, plan: &Plan, arrivals: Arrivals, bound: Duration) -> Result<ExitCode> {
        let begun = Report::begin(self.data_dir.as_deref());
        let runs = find_rate::find(plan, arrivals, bound, &self.found()?)?;
        if let Some(best) = runs.last() {
            print!("\nthe highest that holds:\n{}", report::terminal::run(best));
        }
        self.files.write(&Report { runs, ..begun })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints and writes the report of one run.
fn told(begun: Report, run: RunReport, files: &Files) -> Result<ExitCode> {
    print!("{}", report::terminal::run(&run));
    let code = if run.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    files.write(&Report { runs: vec![run], ..begun })?;
    Ok(code)
}

fn own(
    records: &Records,
    producing: &Producing,
    consuming: &Consuming,
    timing: &Timing,
    files: &Files,
) -> Result<ExitCode> {
    let begun = Report::begin(None);
    let watched = Watched::default();
    let endpoint = Endpoint::start(0)?;
    let plan = producing.plan(&endpoint.address.to_string(), records, timing);
    let produce = Plan { read_back: false, ..plan };
    let alone = load::run::run("self-produce", &produce, &watched, &Progress::new("produce"))?;
    print!("producing alone\n{}", report::terminal::run(&alone));
    let endpoint = Endpoint::start(Endpoint::BYTES_MAX)?;
    let plan = producing.plan(&endpoint.address.to_string(), records, timing);
    let e2e = consuming.add_to(plan, 1);
    let both = load::run::run("self-e2e", &e2e, &watched, &Progress::new("e2e"))?;
    print!("\nproducing and consuming\n{}", report::terminal::run(&both));
    files.write(&Report { runs: vec![alone, both], ..begun })?;
    Ok(ExitCode::SUCCESS)
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Produce { target, records, producing, timing } => {
            target.run("produce", &producing.plan(&target.bootstrap, &records, &timing))
        }
        Command::Consume { target, topic, consuming } => target.consume(&topic, &consuming),
        Command::Drain { target, backlog, cold, records, producing, consuming } => {
            let plan = producing.plan(&target.bootstrap, &records, &Timing::none());
            target.drain(backlog, cold, &consuming.add_to(plan, 0))
        }
        Command::E2e { target, records, producing, consuming, timing } => {
            let plan = producing.plan(&target.bootstrap, &records, &timing);
            target.run("e2e", &consuming.add_to(plan, 1))
        }
        Command::Fanout { target, groups, records, producing, consuming, timing } => {
            let plan = producing.plan(&target.bootstrap, &records, &timing);
            target.run("fanout", &consuming.add_to(plan, groups))
        }
        Command::FindRate { target, p99, produce_only, records, producing, consuming, timing } => {
            let plan = producing.plan(&target.bootstrap, &records, &timing);
            let plan = consuming.add_to(plan, usize::from(!produce_only));
            target.find_rate(&plan, records.arrivals, p99)
        }
        Command::Own { records, producing, consuming, timing, files } => {
            own(&records, &producing, &consuming, &timing, &files)
        }
        Command::Ceilings { dir, duration, files } => {
            let begun = Report::begin(Some(&dir));
            let ceilings = ceilings::measure(&dir, duration)?;
            crate::progress::say(ceilings::text(&ceilings));
            files.write(&Report { ceilings: Some(ceilings), ..begun })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Compare(compare) => compare::run(&compare),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("corebench: {}", explained(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
