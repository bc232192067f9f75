//! `corectl cluster health`: what is wrong, and what to do about it.

use super::view::{View, majority, min_in_sync};
use crate::output::{Output, count};
use crate::table::Table;
use anyhow::Result;
use corelog_client::{Admin, TopicPartition};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

pub async fn run(admin: &Admin, out: &Output) -> Result<ExitCode> {
    let mut view = View::load(admin).await?;
    if !voters_behind(&view).is_empty() {
        // While something is changed a voter is behind for a moment.
        std::thread::sleep(SECOND_LOOK);
        view.quorum = admin.describe_quorum().await;
    }
    let reduced = view.partitions().filter(|(_, it)| it.isr.len() < it.replicas.len());
    let topics: BTreeSet<String> = reduced.map(|(at, _)| at.topic.as_str().to_owned()).collect();
    let least = min_in_sync(admin, topics.iter().map(String::as_str).collect()).await?;
    let health = Health::of(&view, &least);
    if out.json {
        out.value(&health.to_json(&view))?;
    } else {
        health.print(&view, out)?;
    }
    Ok(if health.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Voters of the controller's group that are there and lack something.
fn voters_behind(view: &View) -> Vec<i32> {
    let Ok(quorum) = &view.quorum else { return Vec::new() };
    let is_behind = |offset: Option<i64>| offset.is_none_or(|offset| offset < quorum.high_watermark);
    let behind = quorum.voters.iter().filter(|it| view.is_there(it.broker) && is_behind(it.log_end_offset));
    behind.map(|voter| voter.broker).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Problem {
    what: String,
    /// What to do.
    advice: String,
}

#[derive(Debug, Default)]
struct Health {
    problems: Vec<Problem>,
    /// Each with what is wrong with it.
    partitions: Vec<(TopicPartition, &'static str)>,
}

const LEADERLESS: &str = "no leader";
const NO_MAJORITY: &str = "no majority";
const BELOW_LEAST: &str = "below min.insync.replicas";
const BEHIND: &str = "replicas behind";

impl Health {
    fn of(view: &View, least: &BTreeMap<String, usize>) -> Health {
        let mut health = Health::default();
        health.look_at_brokers(view);
        health.look_at_quorum(view);
        for (at, partition) in view.partitions() {
            let least = least.get(at.topic.as_str()).copied().unwrap_or(1).min(partition.replicas.len());
            let wrong = match () {
                () if partition.leader.is_none_or(|leader| !view.is_there(leader)) => LEADERLESS,
                () if !view.has_majority(partition) => NO_MAJORITY,
                () if partition.isr.iter().filter(|id| view.is_there(**id)).count() < least => BELOW_LEAST,
                () if !view.behind(&at, partition).is_empty() => BEHIND,
                () => continue,
            };
            health.partitions.push((at, wrong));
        }
        health.tell_partitions(view);
        health
    }

    fn problem(&mut self, what: String, advice: impl Into<String>) {
        self.problems.push(Problem { what, advice: advice.into() });
    }

    fn look_at_brokers(&mut self, view: &View) {
        for broker in view.brokers.values().filter(|broker| broker.is_fenced) {
            let id = broker.id;
            let place = broker.address.as_ref().map_or(String::new(), |address| format!(" ({address})"));
            let advice = format!(
                "start it again; if it is gone for good, replace it: `corectl cluster decommission {id}`"
            );
            self.problem(format!("broker {id}{place} is not there"), advice);
        }
    }

    fn look_at_quorum(&mut self, view: &View) {
        let quorum = match &view.quorum {
            Ok(quorum) => quorum,
            // Kafka with ZooKeeper has none.
            Err(corelog_client::Error::Unsupported { .. }) => return,
            Err(error) => {
                let advice =
                    "nothing can be changed until a majority of its voters is there: start them again";
                return self.problem(format!("the controller's group has no leader: {error}"), advice);
            }
        };
        let voters = &quorum.voters;
        let whole = voters.iter().filter(|voter| view.is_there(voter.broker)).count();
        if voters.len() > 1 && whole <= majority(voters.len()) && whole < voters.len() {
            let what = format!("{whole} of {} voters of the controller's group are there", voters.len());
            self.problem(what, "if one more stops, nothing can be changed: bring the others back first");
        }
        let behind: Vec<String> = voters_behind(view).into_iter().map(|id| id.to_string()).collect();
        if !behind.is_empty() {
            let what = format!("voters of the controller's group are behind: broker {}", behind.join(", "));
            self.problem(what, "they catch up by themselves; if this stays, see their logs");
        }
    }

    fn tell_partitions(&mut self, view: &View) {
        let all: BTreeMap<_, _> = view.partitions().collect();
        for (wrong, consequence) in [
            (LEADERLESS, "no leader: neither written nor read"),
            (NO_MAJORITY, "no majority of their replicas there: not written"),
            (BELOW_LEAST, "fewer replicas in sync than min.insync.replicas: acks=all is refused"),
            (BEHIND, "replicas that are behind: one more failure may make them unavailable"),
        ] {
            let of: Vec<_> =
                self.partitions.iter().filter(|(_, it)| *it == wrong).map(|(at, _)| all[at]).collect();
            if of.is_empty() {
                continue;
            }
            let replicas: BTreeSet<i32> = of.iter().flat_map(|it| &it.replicas).copied().collect();
            let gone: Vec<String> =
                replicas.into_iter().filter(|id| !view.is_there(*id)).map(|id| id.to_string()).collect();
            let advice = match gone.is_empty() {
                true => "their brokers are there, so it passes by itself; if it stays, see the brokers' logs"
                    .to_owned(),
                false => format!("bring back broker {}", gone.join(", ")),
            };
            self.problem(format!("{} {consequence}", have(of.len())), advice);
        }
    }

    fn table(&self, view: &View) -> Table {
        let mut table = Table::new(&[
            ("topic", "topic"),
            ("partition", "partition"),
            ("wrong", "wrong"),
            ("leader", "leader"),
            ("replicas", "replicas"),
            ("in sync", "isr"),
        ]);
        let all: BTreeMap<_, _> = view.partitions().collect();
        for (at, wrong) in &self.partitions {
            let it = all[at];
            table.row([
                json!(at.topic.as_str()),
                json!(at.partition),
                json!(wrong),
                json!(it.leader),
                json!(it.replicas),
                json!(it.isr),
            ]);
        }
        table
    }

    fn to_json(&self, view: &View) -> Value {
        let problem = |it: &Problem| json!({"problem": it.what, "advice": it.advice});
        json!({
            "healthy": self.problems.is_empty(),
            "problems": self.problems.iter().map(problem).collect::<Value>(),
            "partitions": self.table(view).to_json(),
            "moves": super::reassign::moves_table(&view.moves).to_json(),
            "draining": view.draining,
            "quorum": view.quorum.as_ref().ok().map(|quorum| json!({
                "leader": quorum.leader,
                "epoch": quorum.leader_epoch,
                "voters": quorum.voters.iter().map(|it| it.broker).collect::<Vec<_>>(),
                "observers": quorum.observers.iter().map(|it| it.broker).collect::<Vec<_>>(),
            })),
        })
    }

    fn print(&self, view: &View, out: &Output) -> Result<()> {
        let there = view.brokers.values().filter(|broker| !broker.is_fenced).count();
        let partitions = view.partitions().count();
        out.say(format!("brokers    {there} of {} there", view.brokers.len()))?;
        out.say(format!("partitions {partitions}, {} not as they should be", self.partitions.len()))?;
        if let Ok(quorum) = &view.quorum {
            let leader = quorum.leader.map_or("nobody".to_owned(), |leader| format!("broker {leader}"));
            out.say(format!("controller {leader}, of {}", count(quorum.voters.len(), "voter")))?;
        }
        out.say(format!("moves      {} in progress", view.moves.len()))?;
        for broker in &view.draining {
            out.say(format!("draining   broker {broker}"))?;
        }
        if !view.moves.is_empty() {
            out.say("")?;
            out.table(&super::reassign::moves_table(&view.moves))?;
        }
        if !self.partitions.is_empty() {
            out.say("")?;
            out.table(&self.table(view))?;
        }
        out.say("")?;
        for Problem { what, advice } in &self.problems {
            out.say(format!("WRONG: {what}\n       {advice}"))?;
        }
        if self.problems.is_empty() {
            out.say("All is well.")?;
        }
        Ok(())
    }
}

fn have(partitions: usize) -> String {
    format!("{} {}", count(partitions, "partition"), if partitions == 1 { "has" } else { "have" })
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::view;
    use super::*;

    fn wrong(view: &View, least: usize) -> (Vec<(i32, &'static str)>, Vec<String>) {
        let health = Health::of(view, &BTreeMap::from([("t".to_owned(), least)]));
        let partitions = health.partitions.iter().map(|(at, wrong)| (at.partition, *wrong)).collect();
        (partitions, health.problems.into_iter().map(|it| format!("{}; {}", it.what, it.advice)).collect())
    }

    #[test]
    fn a_whole_cluster_is_well() {
        let view = view(&[(Some(1), &[1, 2, 3], &[1, 2, 3]), (Some(2), &[2], &[2])], &[]);
        assert_eq!(wrong(&view, 2), (vec![], vec![]));
    }

    #[test]
    fn what_a_broker_that_is_gone_leaves_behind_is_told_with_what_to_do() {
        let partitions =
            [(Some(1), &[1, 2, 3][..], &[1, 2][..]), (None, &[3], &[3]), (Some(1), &[1, 3], &[1])];
        let (partitions, problems) = wrong(&view(&partitions, &[3]), 2);
        assert_eq!(partitions, [(0, BEHIND), (1, LEADERLESS), (2, NO_MAJORITY)]);
        let told = problems.join("\n");
        for part in [
            "broker 3 (h3:9092) is not there; start it again",
            "decommission 3",
            "2 of 3 voters",
            "1 partition has no leader: neither written nor read; bring back broker 3",
            "no majority of their replicas there",
            "1 partition has replicas that are behind",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn no_more_is_asked_of_a_partition_than_it_has_replicas() {
        let whole = view(&[(Some(1), &[1], &[1])], &[]);
        assert_eq!(wrong(&whole, 2).0, []);
        let one_behind = view(&[(Some(1), &[1, 2, 3], &[1, 2])], &[3]);
        assert_eq!(wrong(&one_behind, 3).0, [(0, BELOW_LEAST)]);
    }

    #[test]
    fn a_group_without_a_leader_is_wrong() {
        let mut view = view(&[], &[]);
        view.quorum = Err(corelog_client::Error::Closed);
        assert!(wrong(&view, 1).1[0].contains("the controller's group has no leader"));
    }
}
