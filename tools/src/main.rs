//! corectl: topics, groups, produce, consume, log dump, tune.

mod cluster;
mod config;
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

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use corelog_client::{Client, ClientConfig, block_on, explained};
use output::{Output, tell};
use std::process::ExitCode;
use std::time::Duration;

/// Work with a Corelog or Kafka cluster: topics, records, consumer groups.
#[derive(Parser)]
#[command(name = "corectl", version = corelog_broker::version::version(), propagate_version = true, max_term_width = 100)]
#[command(after_help = "Every command prints tables for people, or JSON with --json.")]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

// For the commands that speak with a broker; the others have no such flags. (No doc comments here and below: they would
// stand in the help in place of the command's own.)
#[derive(Args, Clone)]
#[command(next_help_heading = "Broker")]
struct Connection {
    /// Some of the cluster's brokers, as HOST:PORT[,HOST:PORT...] [default: $CORECTL_BOOTSTRAP, or 127.0.0.1:9092]
    #[arg(short, long, global = true, value_name = "BROKERS")]
    bootstrap: Option<String>,
    /// Give up on a request after this long [default: 30s], on a record's delivery too [default: 2m]
    #[arg(long, global = true, value_parser = time::duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// The name by which brokers know this client [default: corectl]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    client_id: Option<String>,
}

// A command that speaks with a broker.
#[derive(Args)]
struct Online<C: Args> {
    #[command(flatten)]
    command: C,
    #[command(flatten)]
    connection: Connection,
}

// The same, of one that has commands of its own.
#[derive(Args)]
struct OnlineGroup<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand)]
enum Command {
    /// List, create, describe, alter and delete topics
    #[command(visible_alias = "topics")]
    Topic(OnlineGroup<topic::Command>),
    /// Write records, from standard input, files or the command line
    Produce(Online<produce::Produce>),
    /// Read records
    Consume(Online<consume::Consume>),
    /// List, describe, reset and delete consumer groups
    #[command(visible_alias = "groups")]
    Group(OnlineGroup<group::Command>),
    /// Brokers, health, moves of replicas, drains; configs, data directories, API versions
    Cluster(OnlineGroup<cluster::Command>),
    /// A broker's config file: convert Kafka's server.properties
    #[command(subcommand)]
    Config(config::Command),
    /// Look into a broker's files, offline
    #[command(subcommand)]
    Log(log::Command),
    /// Check the machine under the broker, explain, change it, and undo
    Tune(Box<tune::Tune>),
    /// Print a completion script, to be sourced by the shell
    Completions { shell: clap_complete::Shell },
}

impl Connection {
    fn is_given(&self) -> bool {
        self.bootstrap.is_some() || self.timeout.is_some() || self.client_id.is_some()
    }

    /// The flags also stand before the command: `corectl -b HOST:PORT topic list`.
    fn or(self, before: &Connection) -> Connection {
        Connection {
            bootstrap: self.bootstrap.or_else(|| before.bootstrap.clone()),
            timeout: self.timeout.or(before.timeout),
            client_id: self.client_id.or_else(|| before.client_id.clone()),
        }
    }

    async fn connect(&self) -> Result<Client> {
        let from_environment = || std::env::var("CORECTL_BOOTSTRAP").ok();
        let bootstrap = self.bootstrap.clone().or_else(from_environment);
        let mut config = ClientConfig::new(bootstrap.as_deref().unwrap_or("127.0.0.1:9092"));
        let timeout = self.timeout.unwrap_or(Duration::from_secs(30));
        config.client_id = self.client_id.clone().unwrap_or_else(|| "corectl".to_owned());
        config.request_timeout = timeout;
        config.api_timeout = timeout;
        config.connect_timeout = config.connect_timeout.min(timeout);
        let hint = || "no broker could be reached; name one with --bootstrap HOST:PORT or CORECTL_BOOTSTRAP";
        Client::connect(config).await.with_context(hint)
    }
}

/// The command line. The flags of a connection stand before the command as well as behind it, where they belong.
fn command_line() -> clap::Command {
    let flags = Connection::augment_args(clap::Command::new("corectl"));
    // Not global here: commands that need no broker would show them.
    flags.get_arguments().fold(Cli::command(), |command, flag| command.arg(flag.clone().global(false)))
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let before = Connection::from_arg_matches(matches)?;
    let cli = Cli::from_arg_matches(matches)?;
    let out = Output { json: cli.json };
    let none = |connection: &Connection| match connection.is_given() {
        true => bail!(
            "this command uses no broker there is: --bootstrap, --timeout and --client-id mean nothing to it"
        ),
        false => Ok(()),
    };
    let offline = || none(&before);
    block_on(async {
        match cli.command {
            Command::Topic(OnlineGroup { command, connection }) => {
                topic::run(&connection.or(&before).connect().await?, command, &out).await
            }
            Command::Produce(Online { command, connection }) => {
                let connection = connection.or(&before);
                produce::run(&connection.connect().await?, command, connection.timeout, &out).await
            }
            Command::Consume(Online { command, connection }) => {
                consume::run(&connection.or(&before).connect().await?, command, &out).await
            }
            Command::Group(OnlineGroup { command, connection }) => {
                group::run(&connection.or(&before).connect().await?, command, &out).await
            }
            Command::Cluster(OnlineGroup { command: cluster::Command::Dev(dev), connection }) => {
                none(&connection.or(&before))?;
                cluster::dev::run(dev, &out).await
            }
            Command::Cluster(OnlineGroup { command, connection }) => {
                cluster::run(&connection.or(&before).connect().await?, command, &out).await
            }
            Command::Config(command) => offline().and_then(|()| config::run(command, &out)),
            Command::Log(command) => offline().and_then(|()| log::run(command, &out)),
            Command::Tune(command) => offline().and_then(|()| tune::run(*command, &out)),
            Command::Completions { shell } => {
                offline()?;
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command_line(), "corectl", &mut script);
                output::write(&script)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

fn main() -> ExitCode {
    match run(&command_line().get_matches()) {
        Ok(code) => code,
        // Whoever reads has seen enough, such as `head`.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("corectl: {}", explained(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }
}
