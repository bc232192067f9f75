//! The Corelog broker.

use std::process::ExitCode;

use clap::Parser;
use corelog_broker::config::{self, Args};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.help_configs {
        print!("{}", config::markdown::all());
        return ExitCode::SUCCESS;
    }
    ExitCode::SUCCESS
}
