//! `corectl config`: a broker's config file, offline.

use crate::output::{self, Output, tell};
use anyhow::{Context, Result};
use clap::Subcommand;
use corelog_broker::config::convert;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// Make a corelog.toml of a Kafka broker's server.properties
    ///
    /// What Corelog takes is converted; what it does not take stands in it as a comment, with the reason. The file goes to
    /// standard output, the count to standard error.
    #[command(after_help = "Example:
  corectl config convert /etc/kafka/server.properties > corelog.toml")]
    Convert {
        /// A Java properties file
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
}

pub fn run(command: Command, out: &Output) -> Result<ExitCode> {
    let Command::Convert { path } = command;
    let shown = path.display().to_string();
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {shown}"))?;
    // Java has it in Latin-1; whoever writes more than ASCII today means UTF-8.
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
    let converted = convert::from_properties(&text, &shown);
    if out.json {
        out.value(
            &json!({"toml": converted.toml, "taken": converted.taken, "left_out": converted.left_out}),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    output::write(converted.toml.as_bytes())?;
    tell!("{} settings converted, {} left as comments with the reason", converted.taken, converted.left_out);
    Ok(ExitCode::SUCCESS)
}
