//! `corectl group`.

use crate::output::{Output, count, tell};
use crate::table::Table;
use crate::topic::{confirmed, every_partition};
use crate::{lag, partitions, pattern, time};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use corelog_client::{
    Admin, Client, CommittedOffset, GroupDescription, Isolation, ListedOffset, NewOffset, OffsetSpec,
    Outcomes, TopicPartition,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

/// Of groups of every kind, as Kafka names them.
const STATES: [&str; 8] = [
    "Stable",
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "NotReady",
    "Dead",
];

#[derive(Subcommand)]
pub enum Command {
    /// List groups: state, members, and how far behind they are
    #[command(visible_alias = "ls")]
    List {
        /// Only groups with such a name: * is any text, ? any one character
        #[arg(value_name = "PATTERN")]
        pattern: Option<String>,
        /// Only groups in this state
        #[arg(long, value_name = "STATE", ignore_case = true, value_parser = STATES)]
        state: Option<String>,
    },
    /// Show groups: state, members, and how far behind they are, by partition and in all
    Describe {
        /// Names, or patterns such as 'orders-*'
        #[arg(required_unless_present = "all", value_name = "GROUP")]
        names: Vec<String>,
        /// Every group there is
        #[arg(short, long, conflicts_with = "names")]
        all: bool,
        /// Members and what they are assigned
        #[arg(short, long)]
        members: bool,
    },
    /// Show where a group's offsets would be moved to; with --execute, move them. The group must have no members
    Reset(Reset),
    /// Delete groups with all their offsets; they must have no members
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(required = true, value_name = "GROUP")]
        names: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Forget a group's offsets of some topics
    DeleteOffsets {
        #[arg(value_name = "GROUP")]
        name: String,
        /// TOPIC, or TOPIC:LIST for some partitions, as in orders:0,2; may be given more than once
        #[arg(short, long = "topic", required = true, value_name = "TOPIC[:LIST]", value_parser = some_of)]
        topics: Vec<SomeOf>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("where").required(true))]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Reset {
    #[arg(value_name = "GROUP")]
    name: String,
    /// TOPIC, or TOPIC:LIST for some partitions, as in orders:0,2; may be given more than once
    #[arg(short, long = "topic", group = "which", value_name = "TOPIC[:LIST]", value_parser = some_of)]
    topics: Vec<SomeOf>,
    /// All topics that the group has offsets of
    #[arg(long, group = "which")]
    all_topics: bool,
    /// To the first record that is there
    #[arg(long, group = "where")]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long, group = "where")]
    to_latest: bool,
    /// To this offset, or the nearest that is there
    #[arg(long, group = "where", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..), allow_negative_numbers = true)]
    to_offset: Option<i64>,
    /// To the first record at or after a time: 2026-11-21T10:00:00, "2h ago", @MILLISECONDS
    #[arg(long, group = "where", value_name = "TIME", value_parser = time::point)]
    to_datetime: Option<i64>,
    /// By so many records, back if negative
    #[arg(long, alias = "shift-by", group = "where", value_name = "COUNT", allow_hyphen_values = true)]
    shift: Option<i64>,
    /// Do it; without this only the plan is shown
    #[arg(long)]
    execute: bool,
    /// Only show the plan, as without --execute
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
}

/// A topic, and of its partitions some or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SomeOf {
    topic: String,
    partitions: Option<BTreeSet<i32>>,
}

fn some_of(text: &str) -> Result<SomeOf, String> {
    match text.split_once(':') {
        Some((topic, list)) => {
            Ok(SomeOf { topic: topic.to_owned(), partitions: Some(partitions::list(list)?) })
        }
        None => Ok(SomeOf { topic: text.to_owned(), partitions: None }),
    }
}

pub async fn run(client: &Client, command: Command, out: &Output) -> Result<ExitCode> {
    let admin = client.admin();
    match command {
        Command::List { pattern, state } => list(&admin, pattern.as_deref(), state.as_deref(), out).await,
        Command::Describe { names, all, members } => {
            let wanted = if all { vec!["*".to_owned()] } else { names };
            let names = named(&admin, &wanted).await?;
            if names.is_empty() {
                out.say(if all { "No groups.".to_owned() } else { nothing_like(&wanted.join(" ")) })?;
            }
            describe(&admin, &names, members, out).await
        }
        Command::Reset(reset) => self::reset(&admin, reset, out).await,
        Command::Delete { names, yes } => {
            if !yes && !confirmed(&format!("Delete {} with all offsets?", names.join(", ")))? {
                bail!("nothing was deleted");
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let outcomes = admin.delete_groups(&names).await;
            out.outcomes(&outcomes, "group", |name, ()| format!("{name} deleted"))
        }
        Command::DeleteOffsets { name, topics, yes } => {
            let partitions = chosen(&admin, &topics).await?;
            let what = count(partitions.len(), "partition");
            if !yes && !confirmed(&format!("Delete the offsets of {name} in {what}?"))? {
                bail!("nothing was deleted");
            }
            let outcomes = admin.delete_group_offsets(&name, partitions).await?;
            out.outcomes(&outcomes, "partition", |at, ()| format!("{name}: offset of {at} deleted"))
        }
    }
}

fn nothing_like(pattern: &str) -> String {
    format!("No group has a name like {pattern:?}.")
}

async fn list(admin: &Admin, pattern: Option<&str>, state: Option<&str>, out: &Output) -> Result<ExitCode> {
    let mut groups = admin.list_groups().await?;
    groups.retain(|group| {
        pattern::matches(pattern.unwrap_or("*"), &group.name)
            && state.is_none_or(|state| group.state.eq_ignore_ascii_case(state))
    });
    if groups.is_empty() && !out.json {
        out.say(match (state, pattern) {
            (Some(state), _) => format!("No such group is {state}."),
            (None, Some(pattern)) => nothing_like(pattern),
            (None, None) => "No groups.".to_owned(),
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let (described, code) = described(admin, &names).await;
    let lags = lag::of(admin, &described).await?;
    let lags: BTreeMap<&str, (usize, i64)> = described
        .iter()
        .zip(&lags)
        .map(|(group, lag)| (group.name.as_str(), (group.members.len(), lag.total())))
        .collect();
    let mut table = Table::new(&[
        ("name", "name"),
        ("state", "state"),
        ("members", "members"),
        ("lag", "lag"),
        ("protocol", "protocol_type"),
        ("kind", "kind"),
    ]);
    let known = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    for group in &groups {
        let behind = lags.get(group.name.as_str());
        table.row([
            json!(group.name),
            known(&group.state),
            json!(behind.map(|(members, _)| members)),
            json!(behind.map(|(_, lag)| lag)),
            known(&group.protocol_type),
            known(&group.kind),
        ]);
    }
    out.table(&table)?;
    Ok(code)
}

/// Those that can be described; what went wrong with others is told.
async fn described(admin: &Admin, names: &[&str]) -> (Vec<GroupDescription>, ExitCode) {
    let mut groups = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for (_, outcome) in admin.describe_groups(names).await {
        match outcome {
            Ok(group) => groups.push(group),
            Err(error) => {
                tell!("corectl: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    (groups, code)
}

/// The groups that are named, or whose names are as patterns say.
async fn named(admin: &Admin, wanted: &[String]) -> Result<Vec<String>> {
    if !wanted.iter().any(|name| pattern::is_pattern(name)) {
        return Ok(wanted.to_vec());
    }
    let there = admin.list_groups().await?;
    let mut names = Vec::new();
    for wanted in wanted {
        if !pattern::is_pattern(wanted) {
            names.push(wanted.clone());
            continue;
        }
        let matching = there.iter().map(|group| &group.name).filter(|name| pattern::matches(wanted, name));
        names.extend(matching.cloned());
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

async fn describe(admin: &Admin, names: &[String], members: bool, out: &Output) -> Result<ExitCode> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (groups, code) = described(admin, &names).await;
    let lags = lag::of(admin, &groups).await?;
    let mut all = Vec::new();
    for (at, (group, lag)) in groups.iter().zip(&lags).enumerate() {
        let (lag_table, member_table) = (lag.table(group), member_table(group));
        if out.json {
            all.push(json!({
                "name": group.name,
                "state": group.state,
                "protocol_type": group.protocol_type,
                "assignor": group.protocol,
                "coordinator": group.coordinator,
                "lag": lag.total(),
                "members": member_table.to_json(),
                "offsets": lag_table.to_json(),
            }));
            continue;
        }
        if at > 0 {
            out.say("")?;
        }
        let assignor = if group.protocol.is_empty() { "-" } else { &group.protocol };
        out.say(format!("group       {}", group.name))?;
        out.say(format!("state       {}, {}", group.state, count(group.members.len(), "member")))?;
        out.say(format!("assignor    {assignor}"))?;
        out.say(format!("coordinator {}", group.coordinator))?;
        out.say(format!("lag         {} in {}", lag.total(), count(lag.partitions.len(), "partition")))?;
        if !lag_table.is_empty() {
            out.say("")?;
            out.table(&lag_table)?;
        }
        if members && !member_table.is_empty() {
            out.say("")?;
            out.table(&member_table)?;
        }
    }
    if out.json {
        out.value(&Value::Array(all))?;
    }
    Ok(code)
}

fn member_table(group: &GroupDescription) -> Table {
    let mut table = Table::new(&[
        ("member", "member_id"),
        ("instance", "instance_id"),
        ("client", "client_id"),
        ("host", "host"),
        ("topics", "topics"),
        ("assigned", "assigned"),
    ]);
    for member in &group.members {
        let assigned: Vec<String> = member.assigned.iter().map(TopicPartition::to_string).collect();
        table.row([
            json!(member.member_id),
            json!(member.instance_id),
            json!(member.client_id),
            json!(member.host),
            json!(member.topics),
            json!(assigned),
        ]);
    }
    table
}

async fn chosen(admin: &Admin, topics: &[SomeOf]) -> Result<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    for some in topics {
        match &some.partitions {
            Some(list) => partitions.extend(list.iter().map(|it| TopicPartition::new(&*some.topic, *it))),
            None => partitions.extend(every_partition(&admin.describe_topic(&some.topic).await?)),
        }
    }
    Ok(partitions)
}

async fn reset(admin: &Admin, reset: Reset, out: &Output) -> Result<ExitCode> {
    let committed = admin.group_offsets(&reset.name).await?;
    let partitions = match reset.all_topics {
        true => committed.keys().cloned().collect(),
        false => chosen(admin, &reset.topics).await?,
    };
    if partitions.is_empty() {
        bail!("group {:?} has no offsets; name topics with --topic", reset.name);
    }
    let target = targets(admin, &reset, &partitions, &committed).await?;
    let mut table = Table::new(&[
        ("topic", "topic"),
        ("partition", "partition"),
        ("before", "before"),
        ("after", "after"),
    ]);
    for (at, offset) in &target {
        let before = committed.get(at).map(|committed| committed.offset);
        table.row([json!(at.topic.as_str()), json!(at.partition), json!(before), json!(offset)]);
    }
    if reset.execute {
        let offsets = target.iter().map(|(at, offset)| (at.clone(), NewOffset::from(*offset))).collect();
        let outcomes: Outcomes<TopicPartition, ()> = admin.set_group_offsets(&reset.name, offsets).await?;
        for (_, outcome) in outcomes {
            outcome.with_context(|| format!("group {:?} was not reset, or only in part", reset.name))?;
        }
    }
    out.table(&table)?;
    if !reset.execute {
        out.say("\nNothing was changed: this is the plan. --execute carries it out.")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn targets(
    admin: &Admin,
    reset: &Reset,
    partitions: &[TopicPartition],
    committed: &BTreeMap<TopicPartition, CommittedOffset>,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let list = async |spec: OffsetSpec| {
        let asked = partitions.iter().map(|at| (at.clone(), spec)).collect();
        let mut offsets: BTreeMap<TopicPartition, Option<i64>> = BTreeMap::new();
        for (at, listed) in admin.list_offsets(asked, Isolation::ReadUncommitted).await {
            let listed: ListedOffset = listed?;
            offsets.insert(at, listed.offset);
        }
        Ok::<_, anyhow::Error>(offsets)
    };
    let earliest = list(OffsetSpec::Earliest).await?;
    let latest = list(OffsetSpec::Latest).await?;
    let by_time = match reset.to_datetime {
        Some(millis) => list(OffsetSpec::Timestamp(millis)).await?,
        None => BTreeMap::new(),
    };
    let mut targets = BTreeMap::new();
    for at in partitions {
        let first = earliest.get(at).copied().flatten().unwrap_or(0);
        let end = latest.get(at).copied().flatten().unwrap_or(first);
        let target = if reset.to_earliest {
            first
        } else if reset.to_latest {
            end
        } else if let Some(offset) = reset.to_offset {
            offset
        } else if let Some(count) = reset.shift {
            let now = committed.get(at).map(|committed| committed.offset);
            now.with_context(|| format!("nothing is committed for {at}: there is nothing to shift"))?
                .saturating_add(count)
        } else {
            by_time.get(at).copied().flatten().unwrap_or(end)
        };
        targets.insert(at.clone(), target.clamp(first, end));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_some_of_their_partitions() {
        assert_eq!(some_of("t"), Ok(SomeOf { topic: "t".into(), partitions: None }));
        assert_eq!(
            some_of("t:0-1"),
            Ok(SomeOf { topic: "t".into(), partitions: Some(BTreeSet::from([0, 1])) })
        );
        assert!(some_of("t:x").is_err());
    }
}
