//! `corectl cluster`.

mod brokers;
pub mod dev;
mod drain;
mod health;
mod reassign;
mod restart;
mod view;

use crate::output::{Output, count, tell};
use crate::table::Table;
use crate::topic::{known, setting};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use corelog_client::{Admin, Client, ConfigChange, ConfigResource, ConfigSource};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// The cluster's brokers: who is there, leads, is behind, drains
    #[command(visible_alias = "info")]
    Brokers,
    /// What is wrong, and what to do; fails if anything is
    Health,
    /// Say which brokers are to have the replicas of partitions; show what moves
    Reassign(reassign::Reassign),
    /// Have partitions be led by the first of their replicas, the preferred one
    Elect(reassign::Elect),
    /// Have a broker lead nothing, and give its replicas to others
    Drain(drain::Drain),
    /// Have a drained broker take part again
    Undrain {
        /// The broker's id
        #[arg(value_name = "BROKER")]
        broker: i32,
    },
    /// Have a broker leave the cluster for good
    Decommission(drain::Decommission),
    /// Before a broker's restart: what would stop with it; after it: wait until all is caught up
    RestartCheck(restart::RestartCheck),
    /// Show or change a broker's configs
    Config(Config),
    /// Data directories, and how much each topic takes in them
    LogDirs {
        /// Only of this broker
        #[arg(long, value_name = "ID")]
        broker: Option<i32>,
        /// Each partition by itself
        #[arg(long)]
        partitions: bool,
    },
    /// Which APIs a broker speaks, in which versions
    ApiVersions {
        /// The broker's id; any broker if not given
        #[arg(value_name = "ID")]
        broker: Option<i32>,
    },
    /// Run several brokers of this machine as a cluster, to try things on
    Dev(dev::Dev),
}

#[derive(Args)]
pub struct Config {
    /// The broker's id; all brokers' defaults if not given
    #[arg(value_name = "ID")]
    broker: Option<i32>,
    /// Also configs that have their default, of the broker with this id
    #[arg(long, requires = "broker")]
    all: bool,
    /// What each config is for
    #[arg(long)]
    docs: bool,
    /// Set a config, such as log.retention.ms=7d; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Put a config back to what holds without it
    #[arg(short, long, value_name = "NAME")]
    reset: Vec<String>,
}

pub async fn run(client: &Client, command: Command, out: &Output) -> Result<ExitCode> {
    let admin = client.admin();
    match command {
        Command::Brokers => brokers::run(&admin, out).await,
        Command::Health => health::run(&admin, out).await,
        Command::Reassign(reassign) => reassign::run(&admin, reassign, out).await,
        Command::Elect(elect) => reassign::elect(&admin, elect, out).await,
        Command::Drain(drain) => drain::run(&admin, drain, out).await,
        Command::Undrain { broker } => drain::undrain(&admin, broker, out).await,
        Command::Decommission(decommission) => drain::decommission(&admin, decommission, out).await,
        Command::RestartCheck(check) => restart::run(&admin, check, out).await,
        Command::Config(config) => self::config(&admin, config, out).await,
        Command::LogDirs { broker, partitions } => log_dirs(&admin, broker, partitions, out).await,
        Command::ApiVersions { broker } => api_versions(&admin, broker, out).await,
        Command::Dev(_) => unreachable!("it starts the brokers that the others connect to"),
    }
}

async fn config(admin: &Admin, config: Config, out: &Output) -> Result<ExitCode> {
    let resource = match config.broker {
        Some(id) => ConfigResource::broker(id),
        None => ConfigResource { name: String::new(), ..ConfigResource::broker(0) },
    };
    let named = match config.broker {
        Some(_) => resource.clone(),
        // What is set for all of them is no list of what there is.
        None => ConfigResource::broker(any_broker(admin).await?),
    };
    known(admin, named, &config.reset).await?;
    let set = config.set.into_iter().map(|(name, value)| ConfigChange::Set(name, value));
    let changes: Vec<ConfigChange> = set.chain(config.reset.into_iter().map(ConfigChange::Reset)).collect();
    if !changes.is_empty() {
        let changed = count(changes.len(), "config");
        if let Some(remark) = admin.alter_configs(resource.clone(), changes, false).await? {
            tell!("corectl: {remark}");
        }
        if out.json {
            out.value(&json!({"resource": resource.to_string(), "ok": true}))?;
        }
        out.say(format!("{resource} changed: {changed}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [("name", "name"), ("value", "value"), ("source", "source"), ("read only", "is_read_only")];
    let documented = [&columns[..], &[("documentation", "documentation")]].concat();
    let mut table = Table::new(if config.docs { &documented } else { &columns });
    for (_, entries) in admin.describe_configs(vec![resource], config.docs).await? {
        let mut entries = entries?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries.iter().filter(|entry| config.all || entry.source != ConfigSource::Default) {
            let value = match entry.is_sensitive {
                true => json!("(secret)"),
                false => json!(entry.value),
            };
            let docs = config.docs.then(|| json!(entry.documentation));
            let row = [json!(entry.name), value, json!(entry.source.to_string()), json!(entry.is_read_only)];
            table.row(row.into_iter().chain(docs));
        }
    }
    if table.is_empty() && !out.json {
        out.say(match config.broker {
            Some(_) => "Nothing is set. --all shows defaults as well.",
            None => "Nothing is set for all brokers. `corectl cluster config ID --all` shows all that holds for one.",
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    out.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

async fn log_dirs(admin: &Admin, broker: Option<i32>, partitions: bool, out: &Output) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut dirs = Table::new(&[
        ("broker", "broker"),
        ("directory", "path"),
        ("partitions", "partitions"),
        ("size", "bytes"),
        ("disk", "total_bytes"),
        ("free", "usable_bytes"),
    ]);
    let mut contents = Table::new(&[
        ("broker", "broker"),
        ("topic", "topic"),
        ("partition", "partition"),
        ("size", "bytes"),
        ("lag", "offset_lag"),
    ]);
    let size = |bytes: i64| {
        if out.json { json!(bytes) } else { json!(indicatif::HumanBytes(bytes as u64).to_string()) }
    };
    for (broker, outcome) in admin.log_dirs(broker.map(|id| vec![id])).await? {
        for dir in outcome.unwrap_or_else(|error| vec![Err(error)]) {
            let dir = match dir {
                Ok(dir) => dir,
                Err(error) => {
                    tell!("corectl: {error}");
                    code = ExitCode::FAILURE;
                    continue;
                }
            };
            let mut topics: BTreeMap<(String, Option<i32>), (i64, i64)> = BTreeMap::new();
            for replica in &dir.replicas {
                let at = &replica.partition;
                let key = (at.topic.as_str().to_owned(), partitions.then_some(at.partition));
                let sum = topics.entry(key).or_default();
                sum.0 += replica.bytes;
                sum.1 = sum.1.max(replica.offset_lag);
            }
            for ((topic, partition), (bytes, lag)) in topics {
                contents.row([json!(broker), json!(topic), json!(partition), size(bytes), json!(lag)]);
            }
            let bytes = dir.replicas.iter().map(|replica| replica.bytes).sum();
            dirs.row([
                json!(broker),
                json!(dir.path),
                json!(dir.replicas.len()),
                size(bytes),
                dir.total_bytes.map_or(json!(null), size),
                dir.usable_bytes.map_or(json!(null), size),
            ]);
        }
    }
    if out.json {
        out.value(&json!({"directories": dirs.to_json(), "contents": contents.to_json()}))?;
        return Ok(code);
    }
    if !dirs.is_empty() {
        out.table(&dirs)?;
    }
    if !contents.is_empty() {
        out.say("")?;
        out.table(&contents)?;
    }
    Ok(code)
}

async fn any_broker(admin: &Admin) -> Result<i32> {
    match admin.describe_cluster().await?.brokers.first() {
        Some(broker) => Ok(broker.id),
        None => bail!("the cluster names no broker"),
    }
}

async fn api_versions(admin: &Admin, broker: Option<i32>, out: &Output) -> Result<ExitCode> {
    let broker = match broker {
        Some(broker) => broker,
        None => any_broker(admin).await?,
    };
    let mut table =
        Table::new(&[("key", "key"), ("api", "api"), ("from", "min_version"), ("to", "max_version")]);
    for range in admin.api_versions(broker).await? {
        let name = range.api.map(|api| api.name());
        table.row([json!(range.key), json!(name), json!(range.min_version), json!(range.max_version)]);
    }
    out.table(&table)?;
    Ok(ExitCode::SUCCESS)
}
