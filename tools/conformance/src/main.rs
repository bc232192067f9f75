//! `conformance differential | crash | hostile`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use corelog_conformance::broker::{Kafka, Program};
use corelog_conformance::differential;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    },
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
    let corelog = Program::Corelog { binary: args.binary, flags: Vec::new() };
    let fresh = |name: &str| -> Result<PathBuf> {
        let directory = args.directory.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(directory.canonicalize()?)
    };
    match args.suite {
        Suite::Differential { filter, verbose } => {
            let kafka = match Kafka::find(root) {
                Ok(kafka) => Program::Kafka(kafka),
                Err(e) if std::env::var("CI").as_deref() == Ok("true") => return Err(e),
                Err(e) => {
                    println!("SKIPPED: the differential suite needs Apache Kafka: {e:#}");
                    return Ok(true);
                }
            };
            let subject = if args.kafka { kafka.clone() } else { corelog };
            let options = differential::Options { filter: &filter, verbose };
            differential::run(&kafka, &subject, &fresh("differential")?, &options)
        }
    }
}
