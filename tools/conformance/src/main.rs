//! `conformance differential | crash | cluster | hostile`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use corelog_conformance::broker::{Kafka, Program};
use corelog_conformance::random::Random;
use corelog_conformance::{cluster, crash, differential, hostile};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What Corelog must show from outside.
#[derive(Parser)]
struct Args {
    /// The broker to test.
    #[arg(long, global = true, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/corelog"))]
    binary: PathBuf,
    /// Test Apache Kafka instead.
    #[arg(long, global = true)]
    kafka: bool,
    /// Where brokers keep their data and logs; emptied at the start.
    #[arg(long, global = true, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.test/conformance"))]
    directory: PathBuf,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// The same requests to Apache Kafka and to Corelog; the answers compared field by field.
    Differential {
        /// Only cases whose names contain this.
        #[arg(default_value = "")]
        filter: String,
        /// Print every answer of Kafka's.
        #[arg(long, short)]
        verbose: bool,
        /// Write here how many cases passed and how many failed.
        #[arg(long, value_name = "FILE")]
        totals: Option<PathBuf>,
    },
    /// kill -9 under load, again and again: nothing that was acknowledged may be lost.
    Crash {
        #[arg(long, default_value_t = 8)]
        rounds: u32,
        /// Repeats choices, though not timing [default: a new one, which is printed].
        #[arg(long)]
        seed: Option<u64>,
        /// Bytes to write before the first round, such as 10GiB.
        #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
        data: u64,
        /// No start may take longer, in milliseconds. For a quiet machine.
        #[arg(long)]
        ready_max_ms: Option<u64>,
    },
    /// A cluster under load, and brokers killed, paused and restarted: what clients were told holds.
    Cluster {
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        brokers: u8,
        /// Repeats what faults there are and when, though not timing [default: a new one, which is printed].
        #[arg(long)]
        seed: Option<u64>,
        /// How long faults go on, such as 1h, 5m or 60s.
        #[arg(long, default_value = "60s", value_parser = duration)]
        duration: Duration,
        /// Partitions of each of two topics.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=5000))]
        partitions: u32,
        /// Records a second, of all producers together.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Producers write no more than this, such as 2GiB; each replica takes as much.
        #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
        bytes: u64,
        /// A config of the topics, such as min.insync.replicas=2; may be given more than once.
        #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
        config: Vec<(String, String)>,
        /// Only these faults, separated by commas.
        #[arg(default_value = "", value_parser = cluster::kinds)]
        faults: cluster::Kinds,
    },
    /// Hostile clients of many kinds, one after the other and together: others are served, and memory stays within a bound.
    Hostile {
        /// Repeats what attacks there are, in which order and for how long [default: a new one, which is printed].
        #[arg(long)]
        seed: Option<u64>,
        /// How long to go on, such as 1h, 5m or 60s; every attack is made once at the least.
        #[arg(long, default_value = "60s", value_parser = duration)]
        duration: Duration,
        /// Only attacks whose names contain one of these, separated by commas.
        #[arg(default_value = "")]
        filter: String,
    },
}

fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("unit {unit:?}: use KiB, MiB, GiB, or none for bytes")),
    };
    number.parse::<u64>().map(|number| number << shift).map_err(|e| e.to_string())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("unit {unit:?}: use s, m or h")),
    };
    number.parse::<u64>().map(|number| Duration::from_secs(number * seconds)).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<bool> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let corelog = Program::Corelog { binary: args.binary.clone(), flags: Vec::new(), open_files: None };
    let fresh = |name: &str| -> Result<PathBuf> {
        let directory = args.directory.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(directory.canonicalize()?)
    };
    let subject = |kafka: bool| match kafka {
        true => Kafka::find(root).map(Program::Kafka),
        false => Ok(corelog.clone()),
    };
    match args.suite {
        Suite::Hostile { seed, duration, filter } => {
            let options =
                hostile::Options { seed: seed.unwrap_or_else(Random::fresh_seed), duration, filter: &filter };
            let directory = fresh("hostile")?;
            let done = hostile::run(&args.binary, &directory, &options);
            if done.is_ok() {
                std::fs::remove_dir_all(directory.join("data"))?;
            }
            done.with_context(|| {
                format!("seed {}; data and log are in {}", options.seed, directory.display())
            })
        }
        Suite::Cluster { brokers, seed, duration, partitions, rate, bytes, config, faults } => {
            let options = cluster::Options {
                seed: seed.unwrap_or_else(Random::fresh_seed),
                duration,
                brokers: brokers.into(),
                partitions,
                rate: rate.into(),
                bytes_max: bytes,
                kinds: faults,
                configs: config,
            };
            let directory = fresh("cluster")?;
            let done = cluster::run(&args.binary, &directory, &options);
            if let Ok(true) = done {
                std::fs::remove_dir_all(&directory)?;
            } else {
                println!("seed {}; data and logs are in {}", options.seed, directory.display());
            }
            done
        }
        Suite::Crash { rounds, seed, data, ready_max_ms } => {
            let ready_max = ready_max_ms.map(Duration::from_millis);
            let options =
                crash::Options { rounds, seed: seed.unwrap_or_else(Random::fresh_seed), data, ready_max };
            let directory = fresh("crash")?;
            let done = crash::run(&subject(args.kafka)?, &directory, &options);
            if done.is_ok() {
                std::fs::remove_dir_all(&directory)?;
            }
            done.with_context(|| {
                format!("seed {}; data and log are in {}", options.seed, directory.display())
            })
        }
        Suite::Differential { filter, verbose, totals: file } => {
            let totals = match Kafka::find(root) {
                Ok(kafka) => {
                    let kafka = Program::Kafka(kafka);
                    let subject = if args.kafka { kafka.clone() } else { corelog };
                    let options = differential::Options { filter: &filter, verbose };
                    differential::run(&kafka, &subject, &fresh("differential")?, &options)?
                }
                Err(e) if std::env::var("CI").as_deref() == Ok("true") => return Err(e),
                Err(e) => {
                    println!("SKIPPED: the differential suite needs Apache Kafka: {e:#}");
                    differential::Totals::default()
                }
            };
            if let Some(file) = file {
                std::fs::write(&file, format!("{} {}\n", totals.passed, totals.failed))
                    .with_context(|| format!("{}", file.display()))?;
            }
            Ok(totals.failed == 0)
        }
    }
}
