//! `corelog`: the broker.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use corelog_broker::config::{self, Args};
use corelog_broker::{metrics, process, told::told};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    let args = Args::parse();
    let page = match &args {
        Args { help_configs: true, .. } => Some(config::markdown::page()),
        Args { help_metrics: true, .. } => Some(metrics::page()),
        Args { print_config: true, .. } => Some(config::template::page()),
        _ => None,
    };
    if let Some(page) = page {
        // Whoever has read enough may close the pipe.
        return match std::io::stdout().write_all(page.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                eprintln!("corelog: cannot write to standard output: {error}");
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        };
    }
    match process::run(&args, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelog: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}
