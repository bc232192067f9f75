//! The identity file: what of a data directory's identity is written, and how.

use corelog_wire::Uuid;
use serde::Deserialize;

use super::{Belongs, FOUNDERS_MAX, Founder, Identity, LAYOUT_VERSION, Life, check_founders, is_cluster_id};
use crate::config::Endpoint;
use crate::ids::ReplicaId;

/// An identity as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub life: Life,
    /// The broker has been ready: there is a journal from then on.
    pub has_been_ready: bool,
}

/// Why a text is no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    Damaged(String),
    Version(u32),
}

impl From<String> for Bad {
    fn from(what: String) -> Bad {
        Bad::Damaged(what)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    layout_version: u32,
    cluster_id: Option<String>,
    node_id: Option<i32>,
    /// Missing in files of brokers that knew of no cluster.
    directory: Option<String>,
    #[serde(default)]
    has_been_ready: bool,
    /// Of a broker that joined its cluster.
    replica: Option<u64>,
    /// Beside it: how many replicas the controller's group began with.
    founding_replicas: Option<u32>,
    /// Of a broker that founded it.
    #[serde(default)]
    founders: Vec<FounderEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FounderEntry {
    node_id: i32,
    directory: String,
    replica: u64,
    peer: String,
}

/// A directory id that the file does not have yet is [`Uuid::ZERO`]: only who is alone may lack it.
pub(super) fn parse(text: &str) -> Result<Kept, Bad> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    if file.layout_version != LAYOUT_VERSION {
        return Err(Bad::Version(file.layout_version));
    }
    let has_been_ready = file.has_been_ready;
    let directory = file.directory.as_deref().map(parse_directory).transpose()?;
    let Some(cluster_id) = file.cluster_id else {
        let says_more =
            file.node_id.is_some() || file.replica.is_some() || !file.founders.is_empty() || has_been_ready;
        return match directory {
            Some(directory) if !says_more => Ok(Kept { life: Life::Forming(directory), has_been_ready }),
            _ => Err("it has no cluster_id, and speaks of a cluster".to_owned().into()),
        };
    };
    if !is_cluster_id(&cluster_id) {
        return Err("its cluster_id is none".to_owned().into());
    }
    let node_id = file.node_id.filter(|id| *id >= 0).ok_or("it has no node_id".to_owned())?;
    let belongs = match (file.founders, file.replica) {
        (founders, None) if founders.is_empty() => Belongs::Alone,
        (founders, None) => Belongs::Founder(
            founders.into_iter().map(FounderEntry::read).collect::<Result<Vec<_>, String>>()?,
        ),
        (founders, Some(replica)) if founders.is_empty() => {
            let founders =
                file.founding_replicas.filter(|founders| (1..=FOUNDERS_MAX as u32).contains(founders));
            let founders = founders.ok_or("it does not say how many founders its cluster had".to_owned())?;
            if replica <= u64::from(founders) {
                return Err("its broker joined later, and has a founder's replica".to_owned().into());
            }
            Belongs::Joined { replica: ReplicaId(replica), founders }
        }
        _ => {
            return Err("it says both that its broker founded the cluster and that it joined"
                .to_owned()
                .into());
        }
    };
    if directory.is_none() && belongs != Belongs::Alone {
        return Err("it has no directory, and its broker is one of several".to_owned().into());
    }
    let identity = Identity { cluster_id, node_id, directory: directory.unwrap_or_default(), belongs };
    identity.check()?;
    Ok(Kept { life: Life::Member(identity), has_been_ready })
}

fn parse_directory(text: &str) -> Result<Uuid, String> {
    let directory: Uuid = text.parse().map_err(|error: corelog_wire::ParseUuidError| error.to_string())?;
    if directory.is_zero() { Err("a directory of zeros".to_owned()) } else { Ok(directory) }
}

impl FounderEntry {
    fn read(self) -> Result<Founder, String> {
        Ok(Founder {
            node_id: self.node_id,
            directory: parse_directory(&self.directory)?,
            replica: ReplicaId(self.replica),
            peer: Endpoint::parse(&self.peer)?,
        })
    }
}

impl Identity {
    /// What does not go together.
    fn check(&self) -> Result<(), String> {
        let Belongs::Founder(founders) = &self.belongs else { return Ok(()) };
        check_founders(founders)?;
        let is_own = |founder: &&Founder| founder.directory == self.directory;
        match founders.iter().find(is_own) {
            Some(own) if own.node_id == self.node_id => Ok(()),
            Some(own) => {
                Err(format!("its node_id is {}, and {} among the founders", self.node_id, own.node_id))
            }
            None => Err("its directory is not among the founders".to_owned()),
        }
    }
}

/// The text of the file.
pub(super) fn write(kept: &Kept) -> String {
    let mut text = "# Written by Corelog: who this directory belongs to. Do not edit.\n".to_owned();
    text += &format!("layout_version = {LAYOUT_VERSION}\n");
    let identity = match &kept.life {
        Life::Forming(directory) => return text + &format!("directory = \"{directory}\"\n"),
        Life::Member(identity) => identity,
    };
    text += &format!(
        "cluster_id = \"{}\"\nnode_id = {}\ndirectory = \"{}\"\nhas_been_ready = {}\n",
        identity.cluster_id, identity.node_id, identity.directory, kept.has_been_ready
    );
    match &identity.belongs {
        Belongs::Alone => {}
        Belongs::Joined { replica, founders } => {
            text += &format!("replica = {replica}\nfounding_replicas = {founders}\n");
        }
        Belongs::Founder(founders) => {
            for Founder { node_id, directory, replica, peer } in founders {
                text += &format!(
                    "\n[[founders]]\nnode_id = {node_id}\ndirectory = \"{directory}\"\nreplica = {replica}\npeer = \"{peer}\"\n"
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(number: u8) -> Founder {
        Founder {
            node_id: i32::from(number),
            directory: Uuid([number; 16]),
            replica: ReplicaId(u64::from(number)),
            peer: Endpoint { host: format!("b{number}"), port: 9093 },
        }
    }

    fn member(belongs: Belongs) -> Kept {
        let identity = Identity { cluster_id: "c".repeat(22), node_id: 2, directory: Uuid([2; 16]), belongs };
        Kept { life: Life::Member(identity), has_been_ready: true }
    }

    #[test]
    fn what_is_written_is_read() {
        let forming = Kept { life: Life::Forming(Uuid([9; 16])), has_been_ready: false };
        for kept in [
            forming,
            member(Belongs::Alone),
            member(Belongs::Joined { replica: ReplicaId(7), founders: 3 }),
            member(Belongs::Founder((1..4).map(founder).collect())),
        ] {
            assert_eq!(parse(&write(&kept)), Ok(kept));
        }
    }

    #[test]
    fn files_of_brokers_that_knew_no_cluster_are_read() {
        let text = "layout_version = 1\ncluster_id = \"any 22 characters, say\"\nnode_id = 3\n";
        let kept = parse(text).unwrap();
        let identity = Identity::alone("any 22 characters, say".into(), 3, Uuid::ZERO);
        assert_eq!(kept, Kept { life: Life::Member(identity), has_been_ready: false });
    }

    #[test]
    fn contradictions_are_refused() {
        let founded = write(&member(Belongs::Founder((1..4).map(founder).collect())));
        let joined = write(&member(Belongs::Joined { replica: ReplicaId(7), founders: 3 }));
        let ids = [1, 2, 3].map(|number: u8| Uuid([number; 16]).to_string());
        for (from, to, part) in [
            (
                &founded,
                [("node_id = 2\ndirectory", "node_id = 3\ndirectory")].as_slice(),
                "among the founders",
            ),
            (
                &founded,
                &[(
                    &format!("directory = \"{}\"\nhas", ids[1]),
                    "directory = \"BAAAAAAAAAAAAAAAAAAAAA\"\nhas",
                )],
                "not among the founders",
            ),
            (&founded, &[("replica = 3", "replica = 1")], "replica"),
            (&founded, &[("replica = 3", "replica = 0")], "replica"),
            (&founded, &[("node_id = 3", "node_id = 1")], "node id"),
            (&founded, &[(ids[2].as_str(), ids[0].as_str())], "directory"),
            (&founded, &[("b3:9093", "b1:9093")], "peer"),
            (&founded, &[("b3:9093", "b3")], "no port"),
            (&founded, &[("has_been_ready", "replica = 7\nhas_been_ready")], "both"),
            (&joined, &[("replica = 7", "replica = 0")], "founder's replica"),
            (&joined, &[("founding_replicas = 3", "founding_replicas = 0")], "how many founders"),
            (&joined, &[("directory = ", "# ")], "no directory"),
            (&joined, &[(ids[1].as_str(), "AAAAAAAAAAAAAAAAAAAAAA")], "zeros"),
            (&joined, &[("cluster_id = ", "# ")], "no cluster_id"),
            (&joined, &[("node_id = 2", "node_id = -2")], "no node_id"),
            (&joined, &[("cccccccccccccccccccccc", "")], "cluster_id"),
            (&joined, &[("replica = 7", "replica = 7\nmore = 1")], "more"),
        ] {
            let text = to.iter().fold(from.clone(), |text, (from, to)| text.replacen(from, to, 1));
            assert_ne!(&text, from);
            match parse(&text) {
                Err(Bad::Damaged(what)) => assert!(what.contains(part), "{part}: {what}"),
                other => panic!("{part}: {other:?}"),
            }
        }
        let newer = joined.replace("layout_version = 1", "layout_version = 99");
        assert_eq!(parse(&newer), Err(Bad::Version(99)));
    }
}
