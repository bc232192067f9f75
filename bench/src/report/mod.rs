//! What is told of runs: on the terminal, as JSON, as a page.

mod chart;
mod html;
pub mod terminal;

use crate::ceilings::Ceilings;
use crate::compare::scenario::Results;
use crate::host::cost::Cost;
use crate::host::machine::Machine;
use crate::load::ledger::Verdict;
use crate::stats::steady::Steady;
use crate::stats::summary::Summary;
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where a report goes besides the terminal.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Report")]
pub struct Files {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one page with plots, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Files {
    pub fn write(&self, report: &Report) -> Result<()> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.json {
            write(path, serde_json::to_string_pretty(report)? + "\n")?;
        }
        if let Some(path) = &self.html {
            write(path, html::page(report))?;
        }
        Ok(())
    }
}

/// All that came of one command.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub corebench: &'static str,
    pub command: Vec<String>,
    /// When it was begun, in UTC.
    pub started: String,
    pub machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Ceilings>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Results>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunReport>,
}

impl Report {
    /// Of what is begun now; brokers' data is in the directory.
    pub fn begin(directory: Option<&Path>) -> Report {
        Report {
            corebench: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::here(directory),
            ceilings: None,
            comparisons: Vec::new(),
            runs: Vec::new(),
        }
    }
}

/// One run against one broker.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    pub name: String,
    pub parameters: Vec<(String, String)>,
    /// From asking for the topic until every partition took a record and gave it.
    pub ready_s: f64,
    pub steady: Steady,
    pub window_s: f64,
    pub produced: Option<Summary>,
    /// Of transactions: each counts as a record, and its latency is that of the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<Summary>,
    /// By all groups together.
    pub consumed: Option<Summary>,
    /// Afterwards, where nobody read while it was written.
    pub read_back: Option<ReadBack>,
    pub cost: Cost,
    pub client: ClientFigures,
    pub verdict: Verdict,
    /// Why the figures do not count; none if they do.
    pub problems: Vec<String>,
}

/// Reading a topic from its beginning to its end, as fast as it goes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReadBack {
    pub bytes: u64,
    pub seconds: f64,
    /// The longest time in which a consumer got nothing.
    pub pause_s: f64,
}

/// What the load generator says of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ClientFigures {
    /// Between a record's due time and its handing over to the client: part of the latencies.
    pub lag_p99_us: f64,
    /// Due in the window and never sent: the rate was not reached, and latencies are too low.
    pub unsent: u64,
}

/// From this share of a CPU on a thread may be what limits a run.
const THREAD_BUSY: f64 = 0.9;
/// A reader that has all there is ahead of it should not wait so long, in seconds.
const PAUSE_LONG_S: f64 = 5.0;
/// From this share of the machine on others disturb a run.
const OTHERS_BUSY: f64 = 0.1;

/// What counters of the same may differ by: samples are not exact.
const COUNTERS_APART: f64 = 0.02;
/// And what is counted in ticks, in seconds.
const TICKS_S: f64 = 0.05;

impl RunReport {
    /// Bytes that clients wrote and read in the window.
    pub fn bytes(&self) -> u64 {
        let of = |side: &Option<Summary>| side.as_ref().map_or(0, |side| side.bytes);
        of(&self.produced) + of(&self.consumed)
    }

    pub fn broker_cpu_s(&self) -> Option<f64> {
        self.cost.broker.as_ref().map(|broker| broker.cpu_s).filter(|cpu| *cpu > 0.0)
    }

    /// What to keep in mind with these figures.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        remarks.extend(self.steady.why.as_ref().map(|why| format!("not steady: {why}")));
        remarks.extend(self.steady.dips.text());
        if self.client.unsent > 0 {
            remarks.push(format!(
                "the rate was not reached: {} records due were never sent, and latencies are lower than the truth",
                self.client.unsent
            ));
        }
        if let Some((name, share)) = self.cost.client_busiest_thread.as_ref().filter(|it| it.1 > THREAD_BUSY)
        {
            remarks.push(format!(
                "client-bound: its thread {name} was busy {:.0} % of the time; more --threads, or `corebench self` for its limit",
                share * 100.0
            ));
        }
        if let Some(back) = self.read_back.filter(|back| back.pause_s > PAUSE_LONG_S) {
            remarks.push(format!("reading it back paused for {:.1} s", back.pause_s));
        }
        // Where the broker is elsewhere, others are not known.
        if self.cost.broker.is_some() {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
            let share = |cpu_s: f64| cpu_s / (self.cost.seconds * cpus);
            let (others, stolen) = (share(self.cost.others_cpu_s), share(self.cost.stolen_cpu_s));
            if others.max(0.0) + stolen > OTHERS_BUSY {
                remarks.push(format!(
                    "noisy: other processes and interrupts took {:.0} % of the machine, and its hypervisor {:.0} %",
                    others * 100.0,
                    stolen * 100.0
                ));
            }
            if others < -COUNTERS_APART {
                remarks.push(format!(
                    "the kernel's counters disagree: processes used {:.0} % of the machine more than its ticks saw it busy; what is told of the machine is too low by at least that",
                    -others * 100.0
                ));
            }
            if let Some(broker) = &self.cost.broker
                && (broker.user_s + broker.system_s - broker.cpu_s).abs()
                    > COUNTERS_APART * broker.cpu_s + TICKS_S
            {
                remarks.push(format!(
                    "the kernel's counters disagree: the broker used {:.2} CPU seconds by its clock, and {:.2} in user and kernel mode",
                    broker.cpu_s,
                    broker.user_s + broker.system_s
                ));
            }
        }
        remarks
    }
}
