//! `corectl cluster drain`, `undrain` and `decommission`: a broker gives away what it has, to be stopped or to leave.

use super::reassign::{Wait, wait};
use super::view::{DRAIN, Load, View, brokers};
use crate::output::{Output, count, tell};
use crate::progress::Watch;
use crate::time;
use crate::topic::confirmed;
use anyhow::{Result, bail};
use clap::Args;
use corelog_client::{Admin, ConfigChange, ConfigResource, TopicPartition};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
#[command(
    after_help = "Its leaders go to other replicas; replicas go to other brokers where there are brokers that have none \
    yet. It stays so, over restarts too, until `corectl cluster undrain`."
)]
pub struct Drain {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    broker: i32,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Args)]
#[command(
    after_help = "Drains it, waits until it has no replicas, asks you to stop it, and has the cluster forget it once it is \
    gone. Of a broker that is gone already the replicas are made anew, from the others, on other brokers."
)]
pub struct Decommission {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    broker: i32,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Fail if it is not done within this time; called again, it goes on where it was
    #[arg(long, value_parser = time::duration, value_name = "DURATION")]
    within: Option<Duration>,
}

pub async fn run(admin: &Admin, drain: Drain, out: &Output) -> Result<ExitCode> {
    let id = drain.broker;
    let view = View::load(admin).await?;
    others(&view, id)?;
    if !view.is_there(id) {
        bail!(
            "broker {id} is not there: it leads nothing. To replace it for good: `corectl cluster decommission {id}`"
        );
    }
    set(admin, id, true).await?;
    if !drain.wait.no_wait {
        let mut watch = Watch::new(drain.wait.within);
        loop {
            let Load { leads, replicas, .. } = View::load(admin).await?.load_of(id);
            if leads == 0 {
                break;
            }
            watch.next(format!(
                "broker {id} leads {}, and has {}",
                count(leads, "partition"),
                count(replicas, "replica")
            ))?;
        }
    }
    let load = View::load(admin).await?.load_of(id);
    if out.json {
        out.value(&json!({"broker": id, "draining": true, "leads": load.leads, "replicas": load.replicas}))?;
    }
    out.say(match (load.leads, load.replicas) {
        (0, 0) => format!("Broker {id} is empty."),
        (0, replicas) => format!("Broker {id} leads nothing. It has {}.", count(replicas, "replica")),
        (leads, _) => format!("Broker {id} drains: it leads {}.", count(leads, "partition")),
    })?;
    out.say(format!("To have it take part again: `corectl cluster undrain {id}`"))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn undrain(admin: &Admin, broker: i32, out: &Output) -> Result<ExitCode> {
    set(admin, broker, false).await?;
    if out.json {
        out.value(&json!({"broker": broker, "draining": false}))?;
    }
    out.say(format!("Broker {broker} takes part again: it is given leaders and replicas by and by."))?;
    Ok(ExitCode::SUCCESS)
}

async fn set(admin: &Admin, broker: i32, drains: bool) -> Result<()> {
    let change = match drains {
        true => ConfigChange::Set(DRAIN.into(), "true".into()),
        false => ConfigChange::Reset(DRAIN.into()),
    };
    admin.alter_configs(ConfigResource::broker(broker), vec![change], false).await?;
    Ok(())
}

/// The brokers that could take over: those that are there, and not to be empty themselves.
fn others(view: &View, broker: i32) -> Result<BTreeSet<i32>> {
    if !view.brokers.contains_key(&broker) {
        bail!("the cluster has no broker {broker}: `corectl cluster brokers` shows those that it has");
    }
    let is_free = |id: &i32| *id != broker && view.is_there(*id) && !view.draining.contains(id);
    let others: BTreeSet<i32> = view.brokers.keys().copied().filter(is_free).collect();
    if others.is_empty() {
        bail!("there is no other broker that could take over from broker {broker}");
    }
    Ok(others)
}

pub async fn decommission(admin: &Admin, decommission: Decommission, out: &Output) -> Result<ExitCode> {
    let Decommission { broker: id, yes, within } = decommission;
    let view = View::load(admin).await?;
    let others = others(&view, id)?;
    check_room(&view, id, others.len())?;
    check_majority(&view, id)?;
    let question = format!("Have broker {id} leave the cluster for good?");
    if !yes && !confirmed(&question)? {
        bail!("nothing was changed");
    }
    let mut watch = Watch::new(within);
    match view.is_there(id) {
        true => set(admin, id, true).await?,
        // Nobody waits for it to come back.
        false => move_away(admin, &view, id, &others, within).await?,
    }
    empty(admin, id, &mut watch).await?;
    stopped(admin, id, &mut watch).await?;
    admin.unregister_broker(id).await?;
    drop(watch);
    if out.json {
        out.value(&json!({"broker": id, "unregistered": true}))?;
    }
    out.say(format!("Broker {id} is no part of the cluster any more: its data directory can be deleted."))?;
    Ok(ExitCode::SUCCESS)
}

/// As many replicas as a partition has, so many brokers it needs.
fn check_room(view: &View, broker: i32, others: usize) -> Result<()> {
    let with =
        view.partitions().filter(|(_, it)| it.replicas.contains(&broker) && it.replicas.len() > others);
    let topics: BTreeSet<String> = with.map(|(at, _)| at.topic.as_str().to_owned()).collect();
    if let Some(first) = topics.first() {
        let more = if topics.len() > 1 { format!(" and {} others", topics.len() - 1) } else { String::new() };
        bail!(
            "without broker {broker} there are {}, and there are partitions with more replicas than that (topic {first}{more}): add \
             a broker first, or give them fewer replicas with `corectl cluster reassign`",
            count(others, "broker")
        );
    }
    Ok(())
}

/// Replicas go elsewhere by a decision of the majority: where the broker that is gone was needed for it, nothing can be moved.
fn check_majority(view: &View, broker: i32) -> Result<()> {
    if view.is_there(broker) {
        return Ok(());
    }
    let stuck = view.partitions().filter(|(_, it)| it.replicas.contains(&broker) && !view.has_majority(it));
    let stuck: Vec<String> = stuck.map(|(at, _)| at.to_string()).collect();
    if let Some(first) = stuck.first() {
        bail!(
            "{} ({first} for one) cannot be moved away from broker {broker}: without it no majority of their replicas is there. \
             Start it again, or delete the topics",
            count(stuck.len(), "partition")
        );
    }
    Ok(())
}

async fn empty(admin: &Admin, broker: i32, watch: &mut Watch) -> Result<()> {
    loop {
        let Load { leads, replicas, .. } = View::load(admin).await?.load_of(broker);
        if replicas == 0 {
            return Ok(());
        }
        watch.next(format!(
            "broker {broker} has {}, and leads {}",
            count(replicas, "replica"),
            count(leads, "partition")
        ))?;
    }
}

async fn stopped(admin: &Admin, broker: i32, watch: &mut Watch) -> Result<()> {
    let is_there = async || {
        let brokers = brokers(admin).await?;
        anyhow::Ok(brokers.get(&broker).is_some_and(|broker| !broker.is_fenced))
    };
    if !is_there().await? {
        return Ok(());
    }
    tell!("Broker {broker} is empty. Stop it now.");
    while is_there().await? {
        watch.next(format!("waiting until broker {broker} is stopped"))?;
    }
    Ok(())
}

/// By this command, not by the balancer: a broker that is gone cannot be told to drain.
async fn move_away(
    admin: &Admin,
    view: &View,
    broker: i32,
    others: &BTreeSet<i32>,
    within: Option<Duration>,
) -> Result<()> {
    let targets = away(view, broker, others);
    if targets.is_empty() {
        return Ok(());
    }
    let asked = targets.into_iter().map(|(at, target)| (at, Some(target))).collect();
    let mut moving = Vec::new();
    for (at, outcome) in admin.reassign(asked).await? {
        outcome?;
        moving.push(at);
    }
    wait(admin, moving, &Wait { no_wait: false, within }).await
}

/// For each partition with a replica on the broker, the same ones with another broker in its place: the one that has least.
fn away(view: &View, broker: i32, others: &BTreeSet<i32>) -> BTreeMap<TopicPartition, Vec<i32>> {
    let mut loads: BTreeMap<i32, usize> = others.iter().map(|id| (*id, view.load_of(*id).replicas)).collect();
    let mut targets = BTreeMap::new();
    for (at, it) in view.partitions() {
        // What is on the move already is looked at as it will be.
        let replicas = view.moves.get(&at).map_or_else(|| it.replicas.clone(), |moving| moving.target());
        if !replicas.contains(&broker) {
            continue;
        }
        let free = loads.iter_mut().filter(|(id, _)| !replicas.contains(id));
        let Some((to, load)) = free.min_by_key(|(id, load)| (**load, **id)) else { continue };
        *load += 1;
        let target = replicas.iter().map(|id| if *id == broker { *to } else { *id }).collect();
        targets.insert(at, target);
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    #[test]
    fn who_could_take_over_is_there_and_does_not_drain() {
        let mut view = view(&[], &[3]);
        assert_eq!(others(&view, 1).unwrap(), BTreeSet::from([2]));
        view.draining.insert(2);
        assert!(others(&view, 1).unwrap_err().to_string().contains("no other broker"));
        assert!(others(&view, 9).unwrap_err().to_string().contains("no broker 9"));
    }

    #[test]
    fn more_replicas_than_brokers_are_refused_before_anything_moves() {
        let view = view(&[(Some(1), &[1, 2, 3], &[1, 2, 3])], &[]);
        let told = check_room(&view, 3, 2).unwrap_err().to_string();
        assert!(told.contains("there are 2 brokers") && told.contains("topic t"), "{told}");
        assert!(check_room(&view, 3, 3).is_ok());
    }

    #[test]
    fn what_has_no_majority_left_cannot_be_moved() {
        let partitions = [(Some(1), &[1, 2, 3][..], &[1, 2][..]), (None, &[1, 3], &[1, 3])];
        assert!(check_majority(&view(&partitions, &[]), 3).is_ok());
        assert!(check_majority(&view(&partitions[..1], &[3]), 3).is_ok());
        let told = check_majority(&view(&partitions, &[3]), 3).unwrap_err().to_string();
        assert!(told.contains("1 partition (t-1 for one)"), "{told}");
    }

    #[test]
    fn what_was_on_a_broker_goes_to_those_that_have_least() {
        let view = view(
            &[
                (Some(1), &[3], &[3]),
                (Some(1), &[1], &[1]),
                (Some(3), &[3, 1], &[3, 1]),
                (Some(3), &[3], &[3]),
            ],
            &[],
        );
        let targets = away(&view, 3, &BTreeSet::from([1, 2]));
        let targets: Vec<(i32, Vec<i32>)> = targets.into_iter().map(|(at, to)| (at.partition, to)).collect();
        assert_eq!(targets, [(0, vec![2]), (2, vec![2, 1]), (3, vec![1])]);
    }
}
