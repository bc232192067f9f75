//! `corectl cluster reassign` and `elect`: where replicas are, and which of them leads.

use crate::output::{Output, count, tell};
use crate::progress::Watch;
use crate::table::Table;
use crate::{partitions, time};
use anyhow::{Context, Result, bail};
use clap::Args;
use corelog_client::{Admin, Reassignment, TopicPartition};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Examples:
  corectl cluster reassign                                        what moves just now
  corectl cluster reassign -t orders -p 0 --replicas 2,3,1        broker 2 is preferred to lead
  corectl cluster reassign --file moves.json                      as kafka-reassign-partitions.sh takes it:
      {\"version\": 1, \"partitions\": [{\"topic\": \"orders\", \"partition\": 0, \"replicas\": [2, 3, 1]}]}
  corectl cluster reassign --cancel                               all that moves stays where it was")]
pub struct Reassign {
    /// Where replicas are to be, in a JSON file; - for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["topic", "replicas"])]
    file: Option<String>,
    #[command(flatten)]
    named: Named,
    /// The brokers that are to have them, the one that is preferred to lead first
    #[arg(short, long, value_name = "IDS", value_delimiter = ',', requires = "partition", conflicts_with = "cancel", value_parser = clap::value_parser!(i32).range(0..))]
    replicas: Vec<i32>,
    /// Take moves back: those of the partitions that are named, or all
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
pub struct Elect {
    #[command(flatten)]
    named: Named,
}

/// Partitions of one topic.
#[derive(Args)]
struct Named {
    /// Partitions of this topic
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only these partitions, such as 0,2 or 0-4
    #[arg(short, long, value_parser = partitions::list, value_name = "LIST", requires = "topic")]
    partition: Option<BTreeSet<i32>>,
}

#[derive(Args)]
pub struct Wait {
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// Fail if it is not done within this time; it goes on all the same
    #[arg(long, value_parser = time::duration, value_name = "DURATION", conflicts_with = "no_wait")]
    pub within: Option<Duration>,
}

type Targets = BTreeMap<TopicPartition, Vec<i32>>;

impl Named {
    async fn partitions(&self, admin: &Admin) -> Result<Option<Vec<TopicPartition>>> {
        let Some(name) = &self.topic else { return Ok(None) };
        let topic = admin.describe_topic(name).await?;
        partitions::of(&topic, self.partition.as_ref()).map(Some)
    }
}

impl Reassign {
    async fn targets(&self, admin: &Admin) -> Result<Option<Targets>> {
        if let Some(file) = &self.file {
            return read(file).map(Some);
        }
        let Some(partitions) = self.named.partitions(admin).await? else { return Ok(None) };
        if self.replicas.is_empty() && !self.cancel {
            bail!("say where they are to be: --replicas 1,2,3; or --cancel");
        }
        Ok(Some(partitions.into_iter().map(|at| (at, self.replicas.clone())).collect()))
    }
}

pub async fn run(admin: &Admin, reassign: Reassign, out: &Output) -> Result<ExitCode> {
    let targets = reassign.targets(admin).await?;
    if reassign.cancel {
        return cancel(admin, targets, &reassign.wait, out).await;
    }
    let Some(targets) = targets else {
        let moving = admin.reassignments(None).await?;
        if moving.is_empty() && !out.json {
            out.say("Nothing moves.")?;
        } else {
            out.table(&moves_table(&moving))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let asked = targets.iter().map(|(at, replicas)| (at.clone(), Some(replicas.clone()))).collect();
    let outcomes = admin.reassign(asked).await?;
    let taken: Targets = (outcomes.iter())
        .filter(|(_, outcome)| outcome.is_ok())
        .filter_map(|(at, _)| Some((at.clone(), targets.get(at)?.clone())))
        .collect();
    if !reassign.wait.no_wait {
        wait(admin, taken.keys().cloned().collect(), &reassign.wait).await?;
        check(admin, &taken).await?;
    }
    let verb = if reassign.wait.no_wait { "moves to" } else { "is on" };
    out.outcomes(&outcomes, "partition", |at, ()| format!("{at} {verb} {}", ids(&targets[at])))
}

async fn cancel(admin: &Admin, named: Option<Targets>, wait_for: &Wait, out: &Output) -> Result<ExitCode> {
    let moving = admin.reassignments(named.map(|named| named.into_keys().collect())).await?;
    if moving.is_empty() {
        out.say("Nothing moves.")?;
    }
    let asked: Vec<TopicPartition> = moving.into_keys().collect();
    let outcomes = match asked.is_empty() {
        true => Vec::new(),
        false => admin.reassign(asked.iter().map(|at| (at.clone(), None)).collect()).await?,
    };
    if !wait_for.no_wait {
        wait(admin, asked, wait_for).await?;
    }
    out.outcomes(&outcomes, "partition", |at, ()| format!("{at} stays where it was"))
}

/// Until none of them moves any more.
pub async fn wait(admin: &Admin, partitions: Vec<TopicPartition>, wait: &Wait) -> Result<()> {
    let mut watch = Watch::new(wait.within);
    let all = partitions.len();
    while !partitions.is_empty() {
        let moving = admin.reassignments(Some(partitions.clone())).await?;
        if moving.is_empty() {
            break;
        }
        watch.next(format!("{} of {} moved", all - moving.len(), count(all, "partition")))?;
    }
    Ok(())
}

/// Somebody else may have moved them elsewhere meanwhile.
async fn check(admin: &Admin, targets: &Targets) -> Result<()> {
    let topics: BTreeSet<&str> = targets.keys().map(|at| at.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    for (name, topic) in admin.describe_topics(&topics).await? {
        let topic = topic?;
        for (at, target) in targets.iter().filter(|(at, _)| *at.topic == *name) {
            let has = topic.partition(at.partition).map(|it| it.replicas.clone()).unwrap_or_default();
            if has != *target {
                bail!(
                    "{at} is on {}, not on {}: it was moved elsewhere, or its move taken back",
                    ids(&has),
                    ids(target)
                );
            }
        }
    }
    Ok(())
}

pub fn moves_table(moving: &BTreeMap<TopicPartition, Reassignment>) -> Table {
    let mut table = Table::new(&[
        ("topic", "topic"),
        ("partition", "partition"),
        ("replicas", "replicas"),
        ("adding", "adding"),
        ("removing", "removing"),
    ]);
    for (at, it) in moving {
        table.row([
            json!(at.topic.as_str()),
            json!(at.partition),
            json!(it.target()),
            json!(it.adding),
            json!(it.removing),
        ]);
    }
    table
}

fn ids(brokers: &[i32]) -> String {
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// As kafka-reassign-partitions.sh reads it.
#[derive(Deserialize)]
struct Plan {
    version: i64,
    partitions: Vec<Planned>,
}

#[derive(Deserialize)]
struct Planned {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
    /// Which data directory of each; "any" is all that there is here.
    #[serde(default)]
    log_dirs: Vec<String>,
}

fn read(file: &str) -> Result<Targets> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {file}"))?;
    parse(&text)
        .with_context(|| format!("{file} is no list of moves as kafka-reassign-partitions.sh takes it"))
}

fn parse(text: &str) -> Result<Targets> {
    let plan: Plan = serde_json::from_str(text)?;
    if plan.version != 1 {
        bail!("version {} is not known, only 1", plan.version);
    }
    let mut targets = Targets::new();
    for Planned { topic, partition, replicas, log_dirs } in plan.partitions {
        let at = TopicPartition::new(topic, partition);
        if let Some(dir) = log_dirs.iter().find(|dir| *dir != "any") {
            tell!("corectl: {at}: the directory {dir:?} is not looked at: each broker has one");
        }
        if targets.insert(at.clone(), replicas).is_some() {
            bail!("{at} is named twice");
        }
    }
    if targets.is_empty() {
        bail!("it names no partition");
    }
    Ok(targets)
}

pub async fn elect(admin: &Admin, elect: Elect, out: &Output) -> Result<ExitCode> {
    let named = elect.named.partitions(admin).await?;
    let outcomes = admin.elect_preferred_leaders(named).await?;
    if outcomes.is_empty() {
        out.say("All partitions are led by the replicas that are preferred.")?;
    }
    out.outcomes(&outcomes, "partition", |at, ()| format!("{at} is led by the first of its replicas"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_files_are_read() {
        let text = r#"{"version":1,"partitions":[
            {"topic":"a","partition":0,"replicas":[1,2],"log_dirs":["any","any"]},
            {"topic":"b","partition":3,"replicas":[3]}]}"#;
        let expected = [(TopicPartition::new("a", 0), vec![1, 2]), (TopicPartition::new("b", 3), vec![3])];
        assert_eq!(parse(text).unwrap(), Targets::from(expected));
        for (wrong, why) in [
            ("{", "EOF"),
            (r#"{"version":2,"partitions":[]}"#, "version 2"),
            (r#"{"version":1,"partitions":[]}"#, "no partition"),
            (r#"{"version":1,"partitions":[{"topic":"a","partition":0}]}"#, "missing field `replicas`"),
            (
                r#"{"version":1,"partitions":[{"topic":"a","partition":0,"replicas":[1]},{"topic":"a","partition":0,"replicas":[2]}]}"#,
                "a-0 is named twice",
            ),
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
