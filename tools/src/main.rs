//! corectl: topics, groups, produce, consume, log dump, tune.

mod cluster;
mod consume;
mod group;
mod lag;
mod log;
mod output;
mod partitions;
mod pattern;
mod produce;
mod progress;
mod record_format;
mod record_json;
mod table;
mod time;
mod topic;
mod tune;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory, Parser, Subcommand};
use corelog_client::{Client, ClientConfig, block_on, explained};
use output::Output;
use std::process::ExitCode;
use std::time::Duration;

/// Work with a Corelog or Kafka cluster: topics, records, consumer groups.
#[derive(Parser)]
#[command(name = "corectl", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Every command prints tables for people, or JSON with --json.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Some of the cluster's brokers, as HOST:PORT[,HOST:PORT...]
    #[arg(
        short,
        long,
        global = true,
        env = "CORECTL_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        value_name = "BROKERS"
    )]
    bootstrap: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Give up on a request after this long
    #[arg(long, global = true, default_value = "30s", value_parser = time::duration, value_name = "DURATION")]
    timeout: Duration,
    /// The name by which brokers know this client
    #[arg(long, global = true, default_value = "corectl", value_name = "NAME", hide_short_help = true)]
    client_id: String,
}

#[derive(Subcommand)]
enum Command {
    /// List, create, describe, alter and delete topics
    #[command(subcommand, visible_alias = "topics")]
    Topic(topic::Command),
    /// Write records, from standard input, files or the command line
    Produce(produce::Produce),
    /// Read records
    Consume(consume::Consume),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand, visible_alias = "groups")]
    Group(group::Command),
    /// Brokers, their configs, data directories and API versions
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Look into a broker's files, offline
    #[command(subcommand)]
    Log(log::Command),
    /// Check the machine under the broker, explain, change it, and undo
    Tune(Box<tune::Tune>),
    /// Print a completion script, to be sourced by the shell
    Completions { shell: clap_complete::Shell },
}

impl Global {
    async fn connect(&self) -> Result<Client> {
        let mut config = ClientConfig::new(&self.bootstrap);
        config.client_id.clone_from(&self.client_id);
        config.request_timeout = self.timeout;
        config.api_timeout = self.timeout;
        config.connect_timeout = config.connect_timeout.min(self.timeout);
        let hint = || "no broker could be reached; name one with --bootstrap HOST:PORT or CORECTL_BOOTSTRAP";
        Client::connect(config).await.with_context(hint)
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let out = Output { json: cli.global.json };
    let global = &cli.global;
    block_on(async {
        match cli.command {
            Command::Topic(command) => topic::run(&global.connect().await?, command, &out).await,
            Command::Produce(command) => produce::run(&global.connect().await?, command, &out).await,
            Command::Consume(command) => consume::run(&global.connect().await?, command, &out).await,
            Command::Group(command) => group::run(&global.connect().await?, command, &out).await,
            Command::Cluster(command) => cluster::run(&global.connect().await?, command, &out).await,
            Command::Log(command) => log::run(command, &out),
            Command::Tune(command) => tune::run(*command, &out),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Cli::command(), "corectl", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        // Whoever reads has seen enough, such as `head`.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corectl: {}", explained(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
