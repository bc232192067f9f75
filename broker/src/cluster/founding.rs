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

    /// What to do about a cluster that does not take this broker, where it is seen why: so many of its founders are somebody else
    /// now that it can decide nothing.
    pub fn lost(&self, round: &Round) -> Option<String> {
        let (cluster_id, founders) = round.iter().find_map(|(_, said)| match said {
            Ok(Status { standing: Standing::Member { cluster_id, founders }, .. })
                if !founders.is_empty() =>
            {
                Some((cluster_id, founders))
            }
            _ => None,
        })?;
        let is_gone = |founder: &&Founder| match round.iter().find(|(seed, _)| *seed == founder.peer) {
            // Who has entered the cluster is one of those that it has now.
            Some((_, Ok(Status { standing: Standing::Member { .. }, .. }) | Err(_))) => false,
            Some((_, Ok(status))) => status.directory != founder.directory,
            None => founder.peer == self.peer && founder.directory != self.directory,
        };
        let gone: Vec<String> =
            founders.iter().filter(is_gone).map(|founder| founder.peer.to_string()).collect();
        (founders.len() - gone.len() <= founders.len() / 2).then(|| {
            format!(
                "cluster {cluster_id} was founded with data directories that are gone, of {}, and cannot decide anything without a \
                 majority: put them back; or, if it has no data yet, begin all seeds with empty directories",
                gone.join(", ")
            )
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(number: u8) -> Endpoint {
        Endpoint { host: format!("b{number}"), port: 9093 }
    }

    fn candidate(number: u8, node_id: Option<i32>) -> Candidate {
        let seeds = (1..4).map(seed).collect();
        Candidate { directory: Uuid([number; 16]), node_id, peer: seed(number), seeds }
    }

    fn status(number: u8, standing: Standing) -> Status {
        let Candidate { directory, node_id, seeds, .. } = candidate(number, None);
        Status { directory, node_id, seeds, standing }
    }

    fn member(cluster_id: &str, founders: Vec<Founder>) -> Standing {
        Standing::Member { cluster_id: cluster_id.into(), founders }
    }

    fn round(said: Vec<(u8, Result<Status, String>)>) -> Round {
        said.into_iter().map(|(number, said)| (seed(number), said)).collect()
    }

    fn empty(numbers: &[u8]) -> Round {
        round(numbers.iter().map(|number| (*number, Ok(status(*number, Standing::Empty)))).collect())
    }

    fn lines(step: Step) -> String {
        match step {
            Step::Wait(lines) => lines.join("; "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_founds_when_it_has_asked_all_twice() {
        let (first, all) = (candidate(1, Some(7)), empty(&[2, 3]));
        assert_eq!(first.step(false, None, &all), Step::Wait(vec![]));
        let Step::Found(founders) = first.step(false, Some(&all), &all) else { panic!("it does not") };
        let ids: Vec<i32> = founders.iter().map(|founder| founder.node_id).collect();
        let replicas: Vec<u64> = founders.iter().map(|founder| founder.replica.0).collect();
        assert_eq!((ids, replicas), (vec![7, 1, 2], vec![1, 2, 3]));
        let second = candidate(2, None);
        let all = empty(&[1, 3]);
        assert!(lines(second.step(false, Some(&all), &all)).contains("seed b1:9093 founds the cluster"));
    }

    #[test]
    fn whoever_was_wiped_between_the_two_is_asked_twice_again() {
        let (first, all) = (candidate(1, None), empty(&[2, 3]));
        let mut wiped = all.clone();
        wiped[0].1.as_mut().unwrap().directory = Uuid([9; 16]);
        assert_eq!(first.step(false, Some(&all), &wiped), Step::Wait(vec![]));
        assert!(matches!(first.step(false, Some(&wiped), &wiped), Step::Found(_)));
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let first = candidate(1, Some(2));
        let with = |change: fn(&mut Result<Status, String>)| {
            let mut round = empty(&[2, 3]);
            change(&mut round[1].1);
            lines(first.step(false, Some(&round), &round))
        };
        let silent = with(|said| *said = Err("gone".into()));
        assert_eq!(silent, "seed b3:9093 does not answer: gone");
        let other = with(|said| said.as_mut().unwrap().seeds.truncate(2));
        assert!(other.contains("it has b1:9093,b2:9093, this broker has b1:9093,b2:9093,b3:9093"), "{other}");
        assert!(
            with(|said| said.as_mut().unwrap().standing = Standing::Wary).contains("has heard of a cluster")
        );
        let twice = with(|said| said.as_mut().unwrap().node_id = Some(2));
        assert!(twice.contains("both b1:9093 and b3:9093 have node.id 2"), "{twice}");
        let copied = with(|said| said.as_mut().unwrap().directory = Uuid([1; 16]));
        assert!(copied.contains("been copied"), "{copied}");
        let late = Candidate { peer: seed(8), ..candidate(1, None) };
        let all = empty(&[1, 2, 3]);
        assert!(lines(late.step(false, Some(&all), &all)).contains("b8:9093, is none of the seeds"));
    }

    #[test]
    fn who_is_wary_enters_as_the_founder_that_was_counted() {
        let Step::Found(founders) = candidate(1, None).step(false, Some(&empty(&[2, 3])), &empty(&[2, 3]))
        else {
            panic!("nobody founds")
        };
        let said = round(vec![
            (1, Ok(status(1, member("c", founders.clone())))),
            (3, Ok(status(3, Standing::Empty))),
        ]);
        let counted = candidate(2, None);
        assert_eq!(counted.step(false, None, &said), Step::AskAgain);
        let entered = counted.founder_of("c".into(), 2, founders);
        assert_eq!(counted.step(true, None, &said), Step::Enter(entered));
        let wiped = Candidate { directory: Uuid([9; 16]), ..candidate(2, None) };
        let join = Step::Join { cluster_id: "c".into(), at: vec![seed(1)] };
        assert_eq!(wiped.step(true, None, &said), join);
        assert!(matches!(candidate(2, Some(5)).step(true, None, &said), Step::Refuse(_)));
        let two =
            round(vec![(1, Ok(status(1, member("c", vec![])))), (3, Ok(status(3, member("d", vec![]))))]);
        assert!(lines(wiped.step(true, None, &two)).contains("several clusters, b1:9093 to c; b3:9093 to d"));
    }
}
