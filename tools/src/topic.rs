//! `corectl topic`.

use crate::output::{Output, count, tell};
use crate::table::Table;
use crate::{lag, partitions, pattern, time};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use corelog_broker::config::{Unit, WITHOUT_EFFECT, rows};
use corelog_client::{
    Admin, Client, ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ErrorCode, Isolation, NewTopic,
    OffsetSpec, Outcomes, Topic, TopicPartition,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {
    /// List topics: partitions, records, size
    #[command(visible_alias = "ls")]
    List {
        /// Only topics with such a name: * is any text, ? any one character
        #[arg(value_name = "PATTERN")]
        pattern: Option<String>,
        /// Also the broker's own topics
        #[arg(long)]
        internal: bool,
    },
    /// Create topics
    Create(Create),
    /// Show topics: partitions, replicas, offsets, and the configs that were set
    Describe {
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// All configs, also those that have their default
        #[arg(long)]
        all_configs: bool,
    },
    /// Change a topic's configs, or raise its number of partitions
    Alter(Alter),
    /// Delete topics with all their records
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, value_name = "TOPIC")]
        names: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// It is no error if a topic does not exist
        #[arg(long)]
        if_exists: bool,
    },
    /// Delete the oldest records of a topic
    Trim {
        #[arg(value_name = "TOPIC")]
        name: String,
        /// Records before this are deleted: `end` for all, an offset, or a time such as "2h ago" or 2026-11-21T10:00:00
        #[arg(long, value_name = "WHERE")]
        before: String,
        /// Only of these partitions, such as 0,2 or 0-4
        #[arg(short, long, value_parser = partitions::list, value_name = "LIST")]
        partitions: Option<BTreeSet<i32>>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
pub struct Create {
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Number of partitions; the broker's num.partitions if not given
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// Replicas per partition; the broker's default.replication.factor if not given
    #[arg(short, long, alias = "replication-factor", value_name = "COUNT", value_parser = clap::value_parser!(i16).range(1..), allow_negative_numbers = true)]
    replicas: Option<i16>,
    /// A topic config, such as retention.ms=7d or segment.bytes=256MiB; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// It is no error if a topic exists
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be created
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub struct Alter {
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Set a config, such as retention.ms=7d or segment.bytes=256MiB; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Put a config back to what holds without it
    #[arg(short, long, value_name = "NAME")]
    reset: Vec<String>,
    /// Add to a config that is a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    append: Vec<(String, String)>,
    /// Take out of a config that is a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    subtract: Vec<(String, String)>,
    /// Raise the number of partitions to this; keys may then belong to other partitions than before
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..), allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// Only check whether it could be done
    #[arg(long)]
    dry_run: bool,
}

/// `NAME=VALUE`; the value may be empty.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

/// `NAME=VALUE` of a config. Sizes and times may bear a unit, as in a broker's own file; brokers take plain numbers.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = pair(text)?;
    let spec = rows::topic_named(&name).map(|row| &row.spec).or_else(|| rows::broker_named(&name));
    let number = value.trim();
    let has_unit = number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_err();
    match spec.filter(|spec| has_unit && spec.unit != Unit::None) {
        Some(spec) => {
            let plain = spec.canonical_from_person(number).map_err(|bad| bad.to_string())?;
            Ok((name, plain))
        }
        None => Ok((name, value)),
    }
}

pub async fn run(client: &Client, command: Command, out: &Output) -> Result<ExitCode> {
    let admin = client.admin();
    match command {
        Command::List { pattern, internal } => list(&admin, pattern.as_deref(), internal, out).await,
        Command::Create(create) => self::create(&admin, create, out).await,
        Command::Describe { names, all_configs } => describe(&admin, &names, all_configs, out).await,
        Command::Alter(alter) => self::alter(&admin, alter, out).await,
        Command::Delete { names, yes, if_exists } => delete(&admin, &names, yes, if_exists, out).await,
        Command::Trim { name, before, partitions, yes } => {
            let topic = admin.describe_topic(&name).await?;
            trim(&admin, partitions::of(&topic, partitions.as_ref())?, &before, yes, out).await
        }
    }
}

pub fn every_partition(topic: &Topic) -> Vec<TopicPartition> {
    topic.partitions.iter().map(|it| TopicPartition::new(&*topic.name, it.partition)).collect()
}

async fn list(admin: &Admin, pattern: Option<&str>, internal: bool, out: &Output) -> Result<ExitCode> {
    let mut topics = admin.list_topics().await?;
    topics.retain(|topic| {
        pattern::matches(pattern.unwrap_or("*"), &topic.name) && (internal || !topic.is_internal)
    });
    if topics.is_empty() {
        match pattern {
            Some(pattern) => out.say(format!("No topic has a name like {pattern:?}."))?,
            None => out.say("No topics. `corectl topic create NAME` makes one.")?,
        }
        if !out.json {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let partitions: BTreeSet<TopicPartition> = topics.iter().flat_map(every_partition).collect();
    let starts = lag::list(admin, partitions.clone(), OffsetSpec::Earliest).await;
    let ends = lag::list(admin, partitions, OffsetSpec::Latest).await;
    let sizes = if topics.is_empty() { BTreeMap::new() } else { sizes(admin).await };
    let mut table = Table::new(&[
        ("name", "name"),
        ("partitions", "partitions"),
        ("records", "records"),
        ("size", "bytes"),
        ("replicas", "replicas"),
        ("under-replicated", "under_replicated"),
        ("id", "id"),
    ]);
    for topic in &topics {
        let replicas = topic.partitions.iter().map(|it| it.replicas.len()).max();
        let under = topic.partitions.iter().filter(|it| it.isr.len() < it.replicas.len()).count();
        let id = Some(topic.id).filter(|id| !id.is_zero()).map(|id| id.to_string());
        // A sum that lacks a partition would say too little.
        let all = every_partition(topic);
        let records: Option<i64> = all.iter().map(|at| Some(ends.get(at)? - starts.get(at)?)).sum();
        let bytes: Option<i64> = all.iter().map(|at| sizes.get(at).copied()).sum();
        let size = |bytes: i64| match out.json {
            true => json!(bytes),
            false => json!(indicatif::HumanBytes(bytes as u64).to_string()),
        };
        table.row([
            json!(topic.name),
            json!(topic.partitions.len()),
            json!(records),
            json!(bytes.map(size)),
            json!(replicas),
            json!(under),
            json!(id),
        ]);
    }
    out.table(&table)?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes of each partition, of one replica: the largest. Where brokers do not tell, there is nothing.
async fn sizes(admin: &Admin) -> BTreeMap<TopicPartition, i64> {
    let mut sizes = BTreeMap::new();
    for (_, dirs) in admin.log_dirs(None).await.unwrap_or_default() {
        for replica in dirs.into_iter().flatten().flatten().flat_map(|dir| dir.replicas) {
            let size = sizes.entry(replica.partition).or_insert(0);
            *size = replica.bytes.max(*size);
        }
    }
    sizes
}

async fn create(admin: &Admin, create: Create, out: &Output) -> Result<ExitCode> {
    let new = |name: &String| {
        let mut topic = NewTopic::new(name);
        if let Some(count) = create.partitions {
            topic = topic.partitions(count);
        }
        if let Some(count) = create.replicas {
            topic = topic.replication(count);
        }
        create.config.iter().fold(topic, |topic, (name, value)| topic.config(name, value))
    };
    let topics = create.names.iter().map(new).collect();
    let mut outcomes: Outcomes<String, Option<i32>> = Vec::new();
    let mut remarks = Vec::new();
    for (name, outcome) in admin.create_topics(topics, create.dry_run).await? {
        let exists = |error: &corelog_client::Error| error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS);
        let outcome = match outcome {
            Err(error) if create.if_not_exists && exists(&error) => Ok(None),
            outcome => outcome.map(|created| {
                remarks.extend(created.remark.map(|remark| format!("corectl: {name}: {remark}")));
                Some(created.partitions.unwrap_or(-1))
            }),
        };
        outcomes.push((name, outcome));
    }
    for remark in remarks {
        tell!("{remark}");
    }
    let verb = if create.dry_run { "could be created" } else { "created" };
    out.outcomes(&outcomes, "topic", |name, created| match created {
        None => format!("{name} exists"),
        Some(-1) => format!("{name} {verb}"),
        Some(partitions) => format!("{name} {verb} with {}", count(*partitions as usize, "partition")),
    })
}

async fn describe(admin: &Admin, names: &[String], all_configs: bool, out: &Output) -> Result<ExitCode> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut code = ExitCode::SUCCESS;
    let mut described = Vec::new();
    let configs =
        admin.describe_configs(names.iter().map(|name| ConfigResource::topic(*name)).collect(), true).await?;
    let mut configs: HashMap<String, Vec<ConfigEntry>> =
        configs.into_iter().filter_map(|(resource, entries)| Some((resource.name, entries.ok()?))).collect();
    for (name, outcome) in admin.describe_topics(&names).await? {
        match outcome {
            Ok(topic) => {
                let offsets = Offsets::of(admin, &topic).await;
                let mut entries = configs.remove(&name).unwrap_or_default();
                entries.retain(|entry| all_configs || entry.source == ConfigSource::Topic);
                described.push((topic, offsets, entries));
            }
            Err(error) => {
                tell!("corectl: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if out.json {
        let all = described.iter().map(|(topic, offsets, configs)| {
            json!({
                "name": topic.name,
                "id": topic.id.to_string(),
                "is_internal": topic.is_internal,
                "configs": configs.iter().map(config_json).collect::<Value>(),
                "partitions": partitions_table(topic, offsets).to_json(),
            })
        });
        out.value(&Value::Array(all.collect()))?;
        return Ok(code);
    }
    for (at, (topic, offsets, configs)) in described.iter().enumerate() {
        if at > 0 {
            out.say("")?;
        }
        let replicas = topic.partitions.iter().map(|it| it.replicas.len()).max().unwrap_or(0);
        out.say(format!("topic      {}{}", topic.name, if topic.is_internal { " (internal)" } else { "" }))?;
        out.say(format!("id         {}", topic.id))?;
        out.say(format!("partitions {}, {} each", topic.partitions.len(), count(replicas, "replica")))?;
        out.say(format!("records    {}", crate::table::text(&json!(offsets.total()))))?;
        for entry in configs {
            let source = if all_configs { format!("  ({})", entry.source) } else { String::new() };
            out.say(format!("config     {}={}{source}", entry.name, entry.value.as_deref().unwrap_or("-")))?;
            if let Some(why) = without_effect(entry) {
                out.say(format!("           without effect here: {why}"))?;
            }
        }
        out.say("")?;
        out.table(&partitions_table(topic, offsets))?;
    }
    Ok(code)
}

pub fn config_json(entry: &ConfigEntry) -> (String, Value) {
    let mut described = json!({"value": entry.value, "source": entry.source.to_string()});
    if let Some(why) = without_effect(entry) {
        described["without_effect"] = json!(why);
    }
    (entry.name.clone(), described)
}

/// Why a Corelog broker accepts the config, or this value of it, without effect: it says so in the documentation.
fn without_effect(entry: &ConfigEntry) -> Option<&str> {
    Some(entry.documentation.as_deref()?.split_once(WITHOUT_EFFECT)?.1)
}

/// First and last offsets of a topic's partitions, where their leaders tell.
struct Offsets {
    earliest: BTreeMap<i32, i64>,
    latest: BTreeMap<i32, i64>,
}

impl Offsets {
    async fn of(admin: &Admin, topic: &Topic) -> Offsets {
        let ask = async |spec| {
            let asked = every_partition(topic).into_iter().map(|at| (at, spec)).collect();
            let listed = admin.list_offsets(asked, Isolation::ReadUncommitted).await;
            let offset =
                |(at, listed): (TopicPartition, corelog_client::Result<corelog_client::ListedOffset>)| {
                    Some((at.partition, listed.ok()?.offset?))
                };
            listed.into_iter().filter_map(offset).collect()
        };
        Offsets { earliest: ask(OffsetSpec::Earliest).await, latest: ask(OffsetSpec::Latest).await }
    }

    fn total(&self) -> Option<i64> {
        let count = |(partition, latest): (&i32, &i64)| Some(latest - self.earliest.get(partition)?);
        self.latest.iter().map(count).sum()
    }
}

fn partitions_table(topic: &Topic, offsets: &Offsets) -> Table {
    let mut table = Table::new(&[
        ("partition", "partition"),
        ("leader", "leader"),
        ("epoch", "leader_epoch"),
        ("replicas", "replicas"),
        ("in sync", "isr"),
        ("first", "earliest_offset"),
        ("next", "latest_offset"),
    ]);
    for it in &topic.partitions {
        table.row([
            json!(it.partition),
            json!(it.leader),
            json!(it.leader_epoch),
            json!(it.replicas),
            json!(it.isr),
            json!(offsets.earliest.get(&it.partition)),
            json!(offsets.latest.get(&it.partition)),
        ]);
    }
    table
}

async fn alter(admin: &Admin, alter: Alter, out: &Output) -> Result<ExitCode> {
    known(admin, ConfigResource::topic(&alter.name), &alter.reset).await?;
    let set = alter.set.into_iter().map(|(name, value)| ConfigChange::Set(name, value));
    let reset = alter.reset.into_iter().map(ConfigChange::Reset);
    let append = alter.append.into_iter().map(|(name, value)| ConfigChange::Append(name, value));
    let subtract = alter.subtract.into_iter().map(|(name, value)| ConfigChange::Subtract(name, value));
    let changes: Vec<ConfigChange> = set.chain(reset).chain(append).chain(subtract).collect();
    if changes.is_empty() && alter.partitions.is_none() {
        bail!("nothing to change: give --set, --reset, --append, --subtract or --partitions");
    }
    let changed = changes.len();
    if changed > 0 {
        let altered = admin.alter_configs(ConfigResource::topic(&alter.name), changes, alter.dry_run).await?;
        if let Some(remark) = altered {
            tell!("corectl: {}: {remark}", alter.name);
        }
    }
    if let Some(count) = alter.partitions {
        admin.create_partitions(&alter.name, count, alter.dry_run).await?;
    }
    let verb = if alter.dry_run { "could be changed" } else { "changed" };
    let mut what = Vec::new();
    if changed > 0 {
        what.push(count(changed, "config"));
    }
    what.extend(alter.partitions.map(|partitions| count(partitions as usize, "partition")));
    if out.json {
        out.value(&json!({"topic": alter.name, "ok": true}))?;
    }
    out.say(format!("{} {verb}: {}", alter.name, what.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Brokers take the reset of a config that they do not know: whoever mistyped its name would think it done.
pub async fn known(admin: &Admin, resource: ConfigResource, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    for (resource, entries) in admin.describe_configs(vec![resource], false).await? {
        let entries = entries?;
        if let Some(name) = names.iter().find(|name| entries.iter().all(|entry| entry.name != **name)) {
            bail!("there is no config {name:?} of {resource} to reset: check the name");
        }
    }
    Ok(())
}

async fn delete(
    admin: &Admin,
    names: &[String],
    yes: bool,
    if_exists: bool,
    out: &Output,
) -> Result<ExitCode> {
    if !yes && !confirmed(&format!("Delete {} with all records?", names.join(", ")))? {
        bail!("nothing was deleted");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut outcomes: Outcomes<String, bool> = Vec::new();
    for (name, outcome) in admin.delete_topics(&names).await? {
        let unknown =
            |error: &corelog_client::Error| error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let outcome = match outcome {
            Err(error) if if_exists && unknown(&error) => Ok(false),
            outcome => outcome.map(|()| true),
        };
        outcomes.push((name, outcome));
    }
    out.outcomes(&outcomes, "topic", |name, deleted| match deleted {
        true => format!("{name} deleted"),
        false => format!("{name} does not exist"),
    })
}

/// Asks on the terminal; without one, nobody can answer.
pub fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} Confirm with --yes");
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn trim(
    admin: &Admin,
    partitions: Vec<TopicPartition>,
    before: &str,
    yes: bool,
    out: &Output,
) -> Result<ExitCode> {
    let before: Vec<(TopicPartition, i64)> = match (before, before.parse::<i64>()) {
        ("end", _) => partitions.into_iter().map(|at| (at, -1)).collect(),
        (_, Ok(offset)) if offset >= 0 => partitions.into_iter().map(|at| (at, offset)).collect(),
        _ => {
            let millis = time::point(before).map_err(anyhow::Error::msg).context("--before")?;
            let asked = partitions.into_iter().map(|at| (at, OffsetSpec::Timestamp(millis))).collect();
            let mut found = Vec::new();
            for (at, listed) in admin.list_offsets(asked, Isolation::ReadUncommitted).await {
                // No record is as late: all are before.
                found.push((at, listed?.offset.unwrap_or(-1)));
            }
            found
        }
    };
    if !yes && !confirmed(&format!("Delete records of {}?", count(before.len(), "partition")))? {
        bail!("nothing was deleted");
    }
    let outcomes = admin.delete_records(before).await?;
    out.outcomes(&outcomes, "partition", |at, first| format!("{at} begins at offset {first}"))
}
