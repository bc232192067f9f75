//! `corectl log`: what a broker keeps on disk, read without the broker, checked, and repaired.

mod data_dir;
mod journal;
mod names;
mod repair;
mod report;
mod segment;

use crate::output::Output;
use crate::partitions;
use crate::table::Table;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use corelog_storage::LogId;
use corelog_wire::Uuid;
use data_dir::{Damaged, DataDir};
use report::Report;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Show and check the batches of a partition, of one file, or of all
    ///
    /// Nothing is written. The broker may run meanwhile: then the end of what it is writing may look torn.
    #[command(after_help = "Examples:
  corectl log dump /var/lib/corelog                             check everything, show what is wrong
  corectl log dump /var/lib/corelog --topic orders -p 0         the batches of one partition
  corectl log dump /var/lib/corelog --topic orders -p 0 -r      with their records
  corectl log dump 00000000000000000000.log                     one segment")]
    Dump(Dump),
    /// List the partitions in a data directory
    List {
        /// The broker's data directory
        #[arg(value_name = "DIR")]
        path: PathBuf,
    },
    /// Rebuild what a broker knows of its logs from their segments, and from what is left of its journal
    ///
    /// For a data directory whose journal/ is missing or damaged, so that the broker refuses to start or refuses
    /// partitions. Without --execute nothing is changed: it says of each log what would be kept and what cannot be.
    /// Nothing is ever deleted: what is replaced goes to before-repair-TIME/ in the data directory. The broker must be
    /// stopped. Topics that the controller's log does not know any more are put back under the names of their
    /// directories, without their configs.
    #[command(after_help = "Examples:
  corectl log repair /var/lib/corelog                           show what it would do
  corectl log repair /var/lib/corelog --execute                 do it; then start the broker
  corectl log repair /var/lib/corelog --partitions orders=12    if topic orders is put back, with 12 partitions")]
    Repair(repair::Repair),
}

#[derive(Args)]
pub struct Dump {
    /// The broker's data directory, or a file in it: a segment (.log), its .index, a .journal, a .checkpoint
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Show this topic, by name or id
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of the topic only these partitions, such as 3, or 0,2, or 0-4
    #[arg(short, long, value_parser = partitions::list, value_name = "LIST", requires = "topic")]
    partitions: Option<BTreeSet<i32>>,
    /// Show records, not only batches
    #[arg(short, long)]
    records: bool,
    /// Check every record, not only the checksums of batches
    #[arg(long)]
    deep: bool,
    /// Show nothing from before this offset
    #[arg(long, value_name = "OFFSET")]
    from: Option<i64>,
    /// Show nothing from this offset on
    #[arg(long, value_name = "OFFSET")]
    until: Option<i64>,
    /// Show only what is wrong
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(command: Command, out: &Output) -> Result<ExitCode> {
    match command {
        Command::Dump(dump) => self::dump(dump, out),
        Command::List { path } => list(&path, out),
        Command::Repair(repair) => repair::run(&repair, out),
    }
}

fn dump(dump: Dump, out: &Output) -> Result<ExitCode> {
    let is_dir = std::fs::metadata(&dump.path)
        .with_context(|| format!("cannot look at {}", dump.path.display()))?
        .is_dir();
    let shows = !dump.quiet && (!is_dir || dump.topic.is_some());
    let mut report =
        Report::new(out.json, shows, dump.records, dump.deep || dump.records, dump.from, dump.until);
    if is_dir {
        let data_dir = DataDir::open(&dump.path, Damaged::Ends, &mut report)?;
        match &dump.topic {
            None => data_dir.check_all(&mut report)?,
            Some(topic) => {
                let logs = chosen(&data_dir, topic, dump.partitions.as_ref())?;
                for log in logs {
                    data_dir.dump(log, &mut report)?;
                }
            }
        }
    } else {
        file(&dump.path, &mut report)?;
    }
    report.finish()
}

fn file(path: &Path, report: &mut Report) -> Result<()> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => segment::dump(path, None, None, report).map(drop),
        Some("index") => segment::dump_index(path, report),
        Some("journal") => journal::dump(path, report),
        Some("checkpoint") => data_dir::dump_checkpoint(path, report),
        _ => bail!("{} is no .log, .index, .journal or .checkpoint file", path.display()),
    }
}

fn chosen(data_dir: &DataDir, topic: &str, partitions: Option<&BTreeSet<i32>>) -> Result<Vec<LogId>> {
    let id: Option<Uuid> = topic.parse().ok();
    let is_it = |log: &LogId| data_dir.names.of(log.topic) == Some(topic) || id == Some(log.topic);
    let logs: Vec<LogId> = data_dir.logs().into_iter().filter(is_it).collect();
    if logs.is_empty() {
        bail!("no topic {topic:?} has anything here; `corectl log list` shows what has");
    }
    let wanted = |log: &LogId| partitions.is_none_or(|wanted| wanted.contains(&log.partition));
    let logs: Vec<LogId> = logs.into_iter().filter(wanted).collect();
    if logs.is_empty() {
        bail!("topic {topic:?} has nothing in these partitions");
    }
    Ok(logs)
}

fn list(path: &Path, out: &Output) -> Result<ExitCode> {
    let mut report = Report::new(out.json, false, false, false, None, None);
    let data_dir = DataDir::open(path, Damaged::Ends, &mut report)?;
    let mut table = Table::new(&[
        ("topic", "topic"),
        ("partition", "partition"),
        ("id", "topic_id"),
        ("first", "log_start_offset"),
        ("next", "next_offset"),
        ("segments", "segments"),
        ("size", "segment_bytes"),
        ("in journal", "journal_bytes"),
    ]);
    for log in data_dir.logs() {
        let size = |bytes: u64| match out.json {
            true => json!(bytes),
            false => json!(indicatif::HumanBytes(bytes).to_string()),
        };
        let summary = data_dir.summary(log)?;
        table.row([
            json!(data_dir.names.of(log.topic)),
            json!(log.partition),
            json!(log.topic.to_string()),
            json!(summary.log_start_offset),
            json!(summary.next_offset),
            json!(summary.segments),
            size(summary.segment_bytes),
            size(summary.journal_bytes),
        ]);
    }
    out.table(&table)?;
    report.finish_quietly()
}
