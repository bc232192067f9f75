//! What a broker that belongs to no cluster makes of what its seeds say. It decides, and does nothing: [`super::forming`].
//!
//! A cluster is founded by one broker alone, the seed whose address comes first, and is there once that one's identity is
//! durable. Two must never be founded of one list of seeds, whoever is wiped and comes back meanwhile, as long as anybody is
//! left who belongs to the first. So:
//!
//! - **Who founds has asked all others twice**, the second time after the first answers were all there, and each said both
//!   times, with the same directory, that it belongs to no cluster and has heard of none. So there was a moment at which that
//!   was true of all at once: nobody had entered a cluster by then.
//! - **Who hears of a cluster is wary, and asks again**: only what it was told after it had stopped to say that it has heard of
//!   none can make it enter. So nobody enters after that moment on the word of somebody who spoke before it: of a former life
//!   of the founder's, say, whose answer was long on its way.
//! - **Who was counted is who enters as a founder**: by its directory, not by its address. A wiped disk is somebody new.

use std::collections::BTreeMap;

use corelog_io::planted::{Fault, planted};
use corelog_wire::Uuid;

use super::status::{Standing, Status};
use crate::config::Endpoint;
use crate::identity::{Belongs, Founder, Identity, check_founders};
use crate::ids::ReplicaId;

/// A broker that belongs to no cluster.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub directory: Uuid,
    /// None: any.
    pub node_id: Option<i32>,
    pub peer: Endpoint,
    /// In the order that all have them in.
    pub seeds: Vec<Endpoint>,
}

/// What each of the other seeds said, or why nothing was heard of it.
pub type Round = Vec<(Endpoint, Result<Status, String>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// For what these lines say.
    Wait(Vec<String>),
    /// There is a cluster: it is to be asked for again, by somebody who is wary now.
    AskAgain,
    /// As one of these.
    Found(Vec<Founder>),
    /// As a founder that was counted.
    Enter(Identity),
    /// By asking one of these, which belong to it.
    Join {
        cluster_id: String,
        at: Vec<Endpoint>,
    },
    Refuse(String),
}

/// Whether a cluster was heard of.
pub fn is_of_a_cluster(round: &Round) -> bool {
    round.iter().any(|(_, said)| matches!(said, Ok(Status { standing: Standing::Member { .. }, .. })))
}

impl Candidate {
    /// The seeds that are to be asked.
    pub fn others(&self) -> impl Iterator<Item = &Endpoint> {
        self.seeds.iter().filter(|seed| **seed != self.peer)
    }

    /// What to do after this round. `was_wary`: all through it; `before` is the round before it, if the broker was not wary then.
    pub fn step(&self, was_wary: bool, before: Option<&Round>, round: &Round) -> Step {
        let clusters = clusters_of(round);
        let mut ids = clusters.keys();
        match (ids.next(), ids.next()) {
            (None, _) => self.step_among_empty(before, round),
            (Some(_), Some(_)) => Step::Wait(vec![tell_clusters(&clusters)]),
            (Some(_), None) if !was_wary && !planted(Fault::NewsIsBelievedAtOnce) => Step::AskAgain,
            (Some(cluster_id), None) => self.step_to(cluster_id, &clusters[cluster_id]),
        }
    }

    fn step_to(&self, cluster_id: &str, members: &[(&Endpoint, &[Founder])]) -> Step {
        let is_own = |founder: &&Founder| match planted(Fault::AnyDirectoryIsAFounder) {
            false => founder.directory == self.directory,
            true => founder.peer == self.peer,
        };
        let own = members.iter().find_map(|(_, founders)| Some((founders.iter().find(is_own)?, *founders)));
        let Some((own, founders)) = own else {
            let at = members.iter().map(|(seed, _)| (*seed).clone()).collect();
            return Step::Join { cluster_id: cluster_id.to_owned(), at };
        };
        match self.check_node_id(own.node_id) {
            Err(refused) => Step::Refuse(refused),
            Ok(()) => Step::Enter(self.founder_of(cluster_id.to_owned(), own.node_id, founders.to_vec())),
        }
    }

    /// The identity of one of the founders.
    pub fn founder_of(&self, cluster_id: String, node_id: i32, founders: Vec<Founder>) -> Identity {
        Identity { cluster_id, node_id, directory: self.directory, belongs: Belongs::Founder(founders) }
    }

    /// Whether the node id that the cluster has for this directory is the one that its config has.
    pub fn check_node_id(&self, given: i32) -> Result<(), String> {
        match self.node_id {
            Some(wanted) if wanted != given => Err(format!(
                "the cluster knows this data directory as broker {given}, and node.id is {wanted}: correct node.id, or give \
                 an empty directory with --data-dir"
            )),
            _ => Ok(()),
        }
    }

    fn step_among_empty(&self, before: Option<&Round>, round: &Round) -> Step {
        let mut lines: Vec<String> =
            round.iter().filter_map(|(seed, said)| self.complaint(seed, said)).collect();
        let first = self.seeds.first();
        if !self.seeds.contains(&self.peer) {
            lines.push(format!(
                "this broker, {}, is none of the seeds, and joins their cluster when there is one",
                self.peer
            ));
        } else if first != Some(&self.peer) {
            lines.extend(first.map(|first| format!("seed {first} founds the cluster when it hears of all")));
        } else if let Some(said) = self.all_empty(round) {
            let is_sure = before.and_then(|before| self.all_empty(before)) == Some(said);
            match self.founders(round) {
                Ok(founders) if is_sure || planted(Fault::NewsIsBelievedAtOnce) => {
                    return Step::Found(founders);
                }
                Ok(_) => {}
                Err(what) => lines.push(what),
            }
        }
        Step::Wait(lines)
    }

    /// What is in the way of founding a cluster with this seed.
    fn complaint(&self, seed: &Endpoint, said: &Result<Status, String>) -> Option<String> {
        match said {
            Err(why) => Some(format!("seed {seed} does not answer: {why}")),
            Ok(status) if status.seeds != self.seeds => Some(format!(
                "seed {seed} has other seeds: it has {}, this broker has {}; give all the same --seeds",
                listed(&status.seeds),
                listed(&self.seeds)
            )),
            Ok(Status { standing: Standing::Wary, .. }) => {
                Some(format!("seed {seed} has heard of a cluster"))
            }
            Ok(_) => None,
        }
    }

    /// The directories of all others, if they have the same seeds, and have heard of no cluster.
    fn all_empty(&self, round: &Round) -> Option<Vec<Uuid>> {
        let empty =
            |(seed, said): &(Endpoint, Result<Status, String>)| match (said, self.complaint(seed, said)) {
                (Ok(status), None) => Some(status.directory),
                _ => None,
            };
        let directories: Vec<Uuid> = round.iter().filter_map(empty).collect();
        let enough = match planted(Fault::FoundedByAMajority) {
            false => round.len(),
            true => self.seeds.len() / 2,
        };
        (directories.len() >= enough).then_some(directories)
    }

    /// The founders of a cluster of all seeds: node ids that are wanted, and for the others those that are free.
    fn founders(&self, round: &Round) -> Result<Vec<Founder>, String> {
        let mut found: Vec<(&Endpoint, Uuid, Option<i32>)> = vec![(&self.peer, self.directory, self.node_id)];
        let others = round.iter().filter_map(|(seed, said)| Some((seed, said.as_ref().ok()?)));
        found.extend(others.map(|(seed, status)| (seed, status.directory, status.node_id)));
        found.sort_by_key(|(seed, ..)| self.seeds.iter().position(|other| other == *seed));
        let mut taken: BTreeMap<i32, &Endpoint> = BTreeMap::new();
        for (seed, _, wanted) in &found {
            if let Some(wanted) = wanted
                && let Some(other) = taken.insert(*wanted, *seed)
            {
                return Err(format!(
                    "both {other} and {seed} have node.id {wanted}: give each its own, or none"
                ));
            }
        }
        let mut free = (1..).filter(|id| !taken.contains_key(id));
        let founders: Vec<Founder> = found
            .iter()
            .enumerate()
            .map(|(at, (seed, directory, wanted))| Founder {
                node_id: wanted.unwrap_or_else(|| free.next().expect("there are enough")),
                directory: *directory,
                replica: ReplicaId(at as u64 + 1),
                peer: (*seed).clone(),
            })
            .collect();
        check_founders(&founders)
            .map_err(|what| format!("{what}: has a data directory been copied? Begin with empty ones"))?;
        Ok(founders)
    }
}

/// The seeds of each cluster that was heard of, and which founders each knows.
type Clusters<'a> = BTreeMap<&'a str, Vec<(&'a Endpoint, &'a [Founder])>>;

fn clusters_of(round: &Round) -> Clusters<'_> {
    let mut clusters = Clusters::new();
    for (seed, said) in round {
        if let Ok(Status { standing: Standing::Member { cluster_id, founders }, .. }) = said {
            clusters.entry(cluster_id).or_default().push((seed, founders));
        }
    }
    clusters
}

fn tell_clusters(clusters: &Clusters<'_>) -> String {
    let each = clusters.iter().map(|(id, members)| {
        let seeds: Vec<String> = members.iter().map(|(seed, _)| seed.to_string()).collect();
        format!("{} to {id}", seeds.join(", "))
    });
    let each = each.collect::<Vec<_>>().join("; ");
    format!(
        "the seeds belong to several clusters, {each}: name seeds of one, or begin the others with empty directories"
    )
}

fn listed(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(",")
}
