//! `corectl cluster restart-check`: what stops with a broker; and, after it was restarted, when all is caught up.

use super::view::{View, majority, min_in_sync};
use crate::output::{Output, count};
use crate::progress::Watch;
use crate::table::Table;
use crate::time;
use anyhow::{Result, bail};
use clap::Args;
use corelog_client::{Admin, TopicPartition};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
#[command(after_help = "Before a restart it fails if something would stop, and says what:
  corectl cluster restart-check 2 && systemctl restart corelog      (on broker 2)
  corectl cluster restart-check 2 --wait                            until broker 2 is back and has caught up")]
pub struct RestartCheck {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    broker: i32,
    /// After the restart: wait until the broker is there, and nothing is behind any more
    #[arg(long)]
    wait: bool,
    /// Fail if that is not so within this time
    #[arg(long, value_parser = time::duration, value_name = "DURATION", requires = "wait")]
    within: Option<Duration>,
}

pub async fn run(admin: &Admin, check: RestartCheck, out: &Output) -> Result<ExitCode> {
    let broker = check.broker;
    if check.wait {
        return wait(admin, broker, check.within, out).await;
    }
    let view = View::load(admin).await?;
    known(&view, broker)?;
    let with = view.partitions().filter(|(_, it)| it.replicas.contains(&broker));
    let topics: BTreeSet<String> = with.map(|(at, _)| at.topic.as_str().to_owned()).collect();
    let least = min_in_sync(admin, topics.iter().map(String::as_str).collect()).await?;
    let stops = stops(&view, broker, &least);
    let table = table(&stops);
    let controller_stops = controller_stops(&view, broker);
    let is_safe = stops.is_empty() && !controller_stops;
    if out.json {
        let value = json!({
            "broker": broker,
            "is_safe": is_safe,
            "controller_stops": controller_stops,
            "partitions": table.to_json(),
        });
        out.value(&value)?;
    } else if is_safe {
        out.say(format!("Broker {broker} can be stopped: every partition goes on without it."))?;
    } else {
        if controller_stops {
            out.say(
                "The controller's group would have no majority of its voters: nothing could be changed.\n",
            )?;
        }
        if !table.is_empty() {
            out.table(&table)?;
            out.say("")?;
        }
        out.say(advice(&view, broker, &stops))?;
    }
    Ok(if is_safe { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn known(view: &View, broker: i32) -> Result<()> {
    if !view.brokers.contains_key(&broker) {
        bail!("the cluster has no broker {broker}: `corectl cluster brokers` shows those that it has");
    }
    Ok(())
}

/// What of a partition stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// No majority of its replicas is left that has all.
    Whole,
    /// Producers with acks=all are refused.
    AcksAll,
    /// As it has no other replica.
    Only,
}

impl Stops {
    fn what(self) -> &'static str {
        match self {
            Stops::Whole => "unavailable: no majority of its replicas is left in sync",
            Stops::AcksAll => "acks=all is refused: fewer in sync than min.insync.replicas",
            Stops::Only => "unavailable: it has no other replica",
        }
    }
}

/// The partitions that do not go on without a broker. One that is not led now does not either.
fn stops(
    view: &View,
    broker: i32,
    least: &BTreeMap<String, usize>,
) -> Vec<(TopicPartition, Stops, Vec<i32>)> {
    let mut stops = Vec::new();
    for (at, it) in view.partitions().filter(|(_, it)| it.replicas.contains(&broker)) {
        let is_left = |id: &i32| *id != broker && view.is_there(*id);
        let left: Vec<i32> = it.isr.iter().copied().filter(is_left).collect();
        let least = least.get(at.topic.as_str()).copied().unwrap_or(1).min(it.replicas.len());
        let stop = match () {
            () if it.replicas.len() == 1 => Stops::Only,
            () if left.len() < majority(it.replicas.len()) => Stops::Whole,
            () if left.len() < least => Stops::AcksAll,
            () => continue,
        };
        stops.push((at, stop, left));
    }
    stops
}

fn controller_stops(view: &View, broker: i32) -> bool {
    let Ok(quorum) = &view.quorum else { return false };
    let is_voter = quorum.voters.iter().any(|voter| voter.broker == broker);
    let left = quorum.voters.iter().filter(|voter| voter.broker != broker && view.is_there(voter.broker));
    is_voter && quorum.voters.len() > 1 && left.count() < majority(quorum.voters.len())
}

fn table(stops: &[(TopicPartition, Stops, Vec<i32>)]) -> Table {
    let mut table = Table::new(&[
        ("topic", "topic"),
        ("partition", "partition"),
        ("left in sync", "left_in_sync"),
        ("what stops", "stops"),
    ]);
    for (at, stop, left) in stops {
        table.row([json!(at.topic.as_str()), json!(at.partition), json!(left), json!(stop.what())]);
    }
    table
}

fn advice(view: &View, broker: i32, stops: &[(TopicPartition, Stops, Vec<i32>)]) -> String {
    let gone: Vec<String> = (view.brokers.values())
        .filter(|it| it.is_fenced && it.id != broker)
        .map(|it| it.id.to_string())
        .collect();
    let mut advice = vec![format!("Do not stop broker {broker} now.")];
    if !gone.is_empty() {
        advice.push(format!("Bring back broker {} first.", gone.join(", ")));
    }
    if stops.iter().any(|(_, stop, _)| *stop == Stops::Only) {
        advice
            .push(format!("What has no other replica can be moved away: `corectl cluster drain {broker}`."));
    }
    if stops.iter().any(|(_, stop, _)| *stop != Stops::Only) {
        advice.push(
            "Where replicas are behind, wait until they have caught up: `corectl cluster health`.".into(),
        );
    }
    advice.join(" ")
}

async fn wait(admin: &Admin, broker: i32, within: Option<Duration>, out: &Output) -> Result<ExitCode> {
    let mut watch = Watch::new(within);
    loop {
        let view = View::load(admin).await?;
        known(&view, broker)?;
        let Some(lacking) = lacking(&view, broker) else { break };
        watch.next(lacking)?;
    }
    drop(watch);
    if out.json {
        out.value(&json!({"broker": broker, "is_caught_up": true}))?;
    }
    out.say(format!("Broker {broker} is there, and all is caught up."))?;
    Ok(ExitCode::SUCCESS)
}

/// What there is still to be waited for.
fn lacking(view: &View, broker: i32) -> Option<String> {
    if !view.is_there(broker) {
        return Some(format!("broker {broker} is not there yet"));
    }
    let leaderless = view.partitions().filter(|(_, it)| it.leader.is_none()).count();
    if leaderless > 0 {
        return Some(format!("{} without a leader", count(leaderless, "partition")));
    }
    let behind = view.partitions().filter(|(at, it)| !view.behind(at, it).is_empty()).count();
    if behind > 0 {
        return Some(format!("{} with replicas that are behind", count(behind, "partition")));
    }
    match &view.quorum {
        Err(corelog_client::Error::Unsupported { .. }) => None,
        Err(error) => Some(format!("the controller's group has no leader: {error}")),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    fn without(view: &View, broker: i32, least: usize) -> Vec<(i32, Stops)> {
        let stops = stops(view, broker, &BTreeMap::from([("t".to_owned(), least)]));
        stops.into_iter().map(|(at, stop, _)| (at.partition, stop)).collect()
    }

    #[test]
    fn what_stops_with_a_broker_is_named() {
        let view = view(
            &[
                (Some(1), &[1, 2, 3], &[1, 2, 3]),
                (Some(1), &[1, 2, 3], &[1, 2]),
                (Some(2), &[2], &[2]),
                (Some(1), &[1, 3], &[1, 3]),
            ],
            &[],
        );
        assert_eq!(without(&view, 1, 1), [(1, Stops::Whole), (3, Stops::Whole)]);
        assert_eq!(without(&view, 3, 1), [(3, Stops::Whole)]);
        assert_eq!(without(&view, 2, 3), [(0, Stops::AcksAll), (1, Stops::Whole), (2, Stops::Only)]);
        assert!(!controller_stops(&view, 1));
    }

    #[test]
    fn one_that_is_gone_makes_the_others_count() {
        let view = view(&[(Some(1), &[1, 2, 3], &[1, 2, 3])], &[3]);
        assert_eq!(without(&view, 1, 1), [(0, Stops::Whole)]);
        assert!(controller_stops(&view, 1) && !controller_stops(&view, 3));
        assert!(advice(&view, 1, &[]).contains("Bring back broker 3 first"));
    }

    #[test]
    fn all_is_caught_up_when_nothing_lacks() {
        let whole = [(Some(1), &[1, 2, 3][..], &[1, 2, 3][..])];
        assert_eq!(lacking(&view(&whole, &[]), 3), None);
        assert_eq!(lacking(&view(&whole, &[3]), 3).unwrap(), "broker 3 is not there yet");
        let behind = [(Some(1), &[1, 2, 3][..], &[1, 2][..])];
        assert_eq!(lacking(&view(&behind, &[]), 3).unwrap(), "1 partition with replicas that are behind");
    }
}
