//! What the commands of `corectl cluster` look at: brokers, replicas, moves and the controller's group, as of one moment.

use anyhow::Result;
use corelog_client::{
    Admin, ConfigResource, Error, Partition, Quorum, Reassignment, RegisteredBroker, Topic, TopicPartition,
};
use std::collections::{BTreeMap, BTreeSet};

/// The dynamic config of a broker that is to be empty.
pub const DRAIN: &str = "corelog.drain";

#[derive(Debug)]
pub struct View {
    pub brokers: BTreeMap<i32, RegisteredBroker>,
    pub topics: Vec<Topic>,
    pub moves: BTreeMap<TopicPartition, Reassignment>,
    /// An error where the controller's group has no leader, or the brokers have none.
    pub quorum: Result<Quorum, Error>,
    /// Brokers that are to be empty, as far as they can be asked.
    pub draining: BTreeSet<i32>,
}

/// What a broker has of the cluster's partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub leads: usize,
    pub replicas: usize,
    /// Replicas that lack something of what their partition has.
    pub behind: usize,
}

impl View {
    pub async fn load(admin: &Admin) -> Result<View> {
        let brokers = brokers(admin).await?;
        let topics = admin.list_topics().await?;
        let moves = match admin.reassignments(None).await {
            // Brokers that are too old for it move nothing.
            Err(Error::Unsupported { .. }) => BTreeMap::new(),
            moves => moves?,
        };
        let draining = draining(admin, brokers.values()).await?;
        let quorum = admin.describe_quorum().await;
        Ok(View { brokers, topics, moves, quorum, draining })
    }

    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.topics.iter().flat_map(|topic| {
            let at = |it: &Partition| TopicPartition::new(&*topic.name, it.partition);
            topic.partitions.iter().map(move |it| (at(it), it))
        })
    }

    pub fn is_there(&self, broker: i32) -> bool {
        self.brokers.get(&broker).is_some_and(|broker| !broker.is_fenced)
    }

    /// Replicas that lack something; one that is being added is not expected to have it yet.
    pub fn behind(&self, at: &TopicPartition, partition: &Partition) -> Vec<i32> {
        let adding = self.moves.get(at).map_or(&[][..], |moving| &moving.adding);
        let is_in_sync = |id: &i32| partition.isr.contains(id) && self.is_there(*id);
        let lacks = |id: &i32| !is_in_sync(id) && !adding.contains(id);
        partition.replicas.iter().copied().filter(lacks).collect()
    }

    /// Whether so many of its replicas are there as decide.
    pub fn has_majority(&self, partition: &Partition) -> bool {
        let there = partition.replicas.iter().filter(|id| self.is_there(**id));
        there.count() >= majority(partition.replicas.len())
    }

    pub fn load_of(&self, broker: i32) -> Load {
        let mut load = Load::default();
        for (at, partition) in self.partitions().filter(|(_, it)| it.replicas.contains(&broker)) {
            load.replicas += 1;
            load.leads += usize::from(partition.leader == Some(broker));
            load.behind += usize::from(self.behind(&at, partition).contains(&broker));
        }
        load
    }

    /// What a broker is in the controller's group.
    pub fn controller_role(&self, broker: i32) -> Option<&'static str> {
        let quorum = self.quorum.as_ref().ok()?;
        let is_in = |replicas: &[corelog_client::QuorumReplica]| {
            replicas.iter().any(|replica| replica.broker == broker)
        };
        match () {
            () if quorum.leader == Some(broker) => Some("leader"),
            () if is_in(&quorum.voters) => Some("voter"),
            () if is_in(&quorum.observers) => Some("observer"),
            () => None,
        }
    }
}

/// All brokers that the cluster knows, by id.
pub async fn brokers(admin: &Admin) -> Result<BTreeMap<i32, RegisteredBroker>> {
    let brokers = match admin.registered_brokers().await {
        Err(Error::Unsupported { .. }) => {
            let brokers = admin.describe_cluster().await?.brokers.into_iter();
            brokers
                .map(|broker| RegisteredBroker {
                    id: broker.id,
                    address: Some(format!("{}:{}", broker.host, broker.port)),
                    rack: broker.rack,
                    is_fenced: false,
                })
                .collect()
        }
        brokers => brokers?,
    };
    Ok(brokers.into_iter().map(|broker| (broker.id, broker)).collect())
}

/// Those of the brokers that are to be empty; each has to be asked itself.
async fn draining(admin: &Admin, brokers: impl Iterator<Item = &RegisteredBroker>) -> Result<BTreeSet<i32>> {
    let there: Vec<i32> = brokers.filter(|broker| !broker.is_fenced).map(|broker| broker.id).collect();
    let resources = there.iter().map(|id| ConfigResource::broker(*id)).collect();
    let described = admin.describe_configs(resources, false).await?;
    let drains = |entries: Vec<corelog_client::ConfigEntry>| {
        entries.iter().any(|entry| entry.name == DRAIN && entry.value.as_deref() == Some("true"))
    };
    let of = there.into_iter().zip(described);
    // One that has just gone does not tell, and leads nothing either.
    Ok(of.filter(|(_, (_, entries))| entries.clone().is_ok_and(drains)).map(|(id, _)| id).collect())
}

/// The topic's min.insync.replicas; 1 where the topic is gone.
pub async fn min_in_sync(admin: &Admin, topics: BTreeSet<&str>) -> Result<BTreeMap<String, usize>> {
    let resources = topics.into_iter().map(ConfigResource::topic).collect();
    let mut least = BTreeMap::new();
    for (resource, entries) in admin.describe_configs(resources, false).await? {
        let entries = entries.unwrap_or_default();
        let entry = entries.into_iter().find(|entry| entry.name == "min.insync.replicas");
        let value = entry.and_then(|entry| entry.value).and_then(|value| value.parse().ok());
        least.insert(resource.name, value.unwrap_or(1));
    }
    Ok(least)
}

/// As many replicas as decide.
pub fn majority(replicas: usize) -> usize {
    replicas / 2 + 1
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use corelog_client::{QuorumReplica, Uuid};

    /// Leader, replicas, and replicas in sync.
    type Led<'a> = (Option<i32>, &'a [i32], &'a [i32]);

    /// A topic `t` whose partitions have these leaders, replicas, and replicas in sync; `gone` are brokers that are not there.
    pub fn view(partitions: &[Led], gone: &[i32]) -> View {
        let broker = |id| RegisteredBroker {
            id,
            address: Some(format!("h{id}:9092")),
            rack: None,
            is_fenced: gone.contains(&id),
        };
        let voter = |broker| QuorumReplica {
            broker,
            log_end_offset: Some(if gone.contains(&broker) { 1 } else { 9 }),
            last_caught_up_ms: None,
        };
        let partition = |(partition, (leader, replicas, isr)): (i32, &Led)| Partition {
            partition,
            leader: *leader,
            leader_epoch: 1,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            offline_replicas: replicas.iter().copied().filter(|id| gone.contains(id)).collect(),
        };
        let topic = Topic {
            name: "t".into(),
            id: Uuid::ZERO,
            is_internal: false,
            partitions: (0..).zip(partitions).map(partition).collect(),
        };
        View {
            brokers: (1..=3).map(|id| (id, broker(id))).collect(),
            topics: vec![topic],
            moves: BTreeMap::new(),
            quorum: Ok(Quorum {
                leader: (1..=3).find(|id| !gone.contains(id)),
                leader_epoch: 4,
                high_watermark: 9,
                voters: (1..=3).map(voter).collect(),
                observers: Vec::new(),
            }),
            draining: BTreeSet::new(),
        }
    }

    #[test]
    fn loads_are_counted_and_a_replica_that_is_being_added_is_not_behind() {
        let mut view = view(&[(Some(1), &[1, 2, 3], &[1, 2]), (Some(2), &[2, 3], &[2])], &[]);
        assert_eq!(view.load_of(1), Load { leads: 1, replicas: 1, behind: 0 });
        assert_eq!(view.load_of(3), Load { leads: 0, replicas: 2, behind: 2 });
        let moving = Reassignment { replicas: vec![2, 3], adding: vec![3], removing: vec![] };
        view.moves.insert(TopicPartition::new("t", 1), moving);
        assert_eq!(view.load_of(3).behind, 1);
        assert_eq!(view.controller_role(1), Some("leader"));
        assert_eq!((view.controller_role(2), view.controller_role(4)), (Some("voter"), None));
    }
}
