//! `corelog`: the broker.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use corelog_broker::config::Args;
use corelog_broker::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    let args = Args::parse();
    if args.help_configs {
        print!("{}", corelog_broker::config::markdown::page());
        return ExitCode::SUCCESS;
    }
    if args.help_metrics {
        print!("{}", corelog_broker::metrics::page());
        return ExitCode::SUCCESS;
    }
    match process::run(&args, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelog: {error:#}");
            ExitCode::FAILURE
        }
    }
}
