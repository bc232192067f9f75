//! The cluster's metadata as of one point of the controller's log: what its records say and nothing else, so that all who
//! applied the same records hold the same. A copy shares what has not changed since: a change costs what it touches, however
//! much there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use corelog_wire::metadata_records::register_broker_record::BrokerEndpoint;
use corelog_wire::metadata_records::{
    ConfigRecord, MetadataRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord,
};
use corelog_wire::{Str, Uuid};
use rpds::{RedBlackTreeMapSync, VectorSync};

use super::delta::Delta;
use crate::config::ConfigMap;
use crate::ids::{BrokerId, LeaderEpoch, ReplicaId};
use crate::topic_name;

/// `resource_type` of a config record, as in DescribeConfigs (KIP-133).
pub const RESOURCE_TOPIC: i8 = 2;
pub const RESOURCE_BROKER: i8 = 4;

/// The config of a broker that is to be empty.
pub(super) const DRAIN: &str = "corelog.drain";

/// `leader` of a partition's change that leaves it as it is.
const NO_LEADER_CHANGE: i32 = -2;

#[derive(Debug, Clone, PartialEq)]
pub struct PartitionImage {
    /// `None` while there is none.
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Arc<[BrokerId]>,
    pub isr: Arc<[BrokerId]>,
    /// Those of `replicas` that are to become one, and those that are to be none any more (KIP-455): until their group says so.
    pub adding: Arc<[BrokerId]>,
    pub removing: Arc<[BrokerId]>,
    /// Moves with each change of the partition.
    pub partition_epoch: i32,
    /// Of `replicas`, each in its place: never given to another of this partition, not to one that comes back either.
    pub replica_ids: Arc<[ReplicaId]>,
    /// Its group began with the replicas 1 to this.
    pub founders: i32,
    /// It has one, since it has, or had, several replicas. What has always had one needs none.
    pub has_group: bool,
}

/// Ids that one change of a partition may give out.
const IDS_PER_CHANGE: u64 = 1 << 8;

impl PartitionImage {
    fn new(record: &PartitionRecord) -> PartitionImage {
        let replicas = BrokerId::of_numbers(&record.replicas);
        let is_whole = record.isr == record.replicas;
        PartitionImage {
            leader: BrokerId::known(record.leader),
            leader_epoch: LeaderEpoch(record.leader_epoch),
            isr: if is_whole { replicas.clone() } else { BrokerId::of_numbers(&record.isr) },
            replicas,
            adding: BrokerId::of_numbers(&record.adding_replicas),
            removing: BrokerId::of_numbers(&record.removing_replicas),
            partition_epoch: record.partition_epoch,
            replica_ids: match &record.replica_ids[..] {
                [] => founding_ids(record.replicas.len()),
                ids => ids.iter().map(|id| ReplicaId(*id as u64)).collect(),
            },
            founders: if record.founders == 0 { record.replicas.len() as i32 } else { record.founders },
            has_group: record.founders > 0 || record.replicas.len() > 1,
        }
    }

    /// Its replicas with their ids.
    pub fn replicas_with_ids(&self) -> impl Iterator<Item = (ReplicaId, BrokerId)> + use<'_> {
        self.replica_ids.iter().copied().zip(self.replicas.iter().copied())
    }

    /// Those that its group is to have.
    pub fn wanted(&self) -> impl Iterator<Item = (ReplicaId, BrokerId)> + use<'_> {
        self.replicas_with_ids().filter(|(_, broker)| !self.removing.contains(broker))
    }

    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The record that creates it as it is.
    pub fn record(&self, topic_id: Uuid, partition_id: i32) -> MetadataRecord {
        MetadataRecord::PartitionRecord(PartitionRecord {
            partition_id,
            topic_id,
            replicas: BrokerId::numbers(&self.replicas),
            isr: BrokerId::numbers(&self.isr),
            adding_replicas: BrokerId::numbers(&self.adding),
            removing_replicas: BrokerId::numbers(&self.removing),
            leader: BrokerId::number(self.leader),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            replica_ids: match self.has_founding_ids() {
                true => Vec::new(),
                false => self.replica_ids.iter().map(|id| id.0 as i64).collect(),
            },
            founders: if self.has_founding_ids() { 0 } else { self.founders },
            ..Default::default()
        })
    }

    /// As it was created.
    fn has_founding_ids(&self) -> bool {
        self.founders as usize == self.replicas.len()
            && self.replica_ids == founding_ids(self.replicas.len())
            && self.has_group == (self.founders > 1)
    }

    /// Which id a broker's replica has from this change on: the one it had, or one that nobody has had.
    fn next_id(&self, place: usize, broker: BrokerId) -> ReplicaId {
        let kept = self.replicas_with_ids().find(|(_, known)| *known == broker);
        kept.map_or_else(|| self.new_id(place), |(id, _)| id)
    }

    /// One that no replica has had, for the one that is in this place after the next change.
    pub fn new_id(&self, place: usize) -> ReplicaId {
        ReplicaId((self.partition_epoch + 1) as u64 * IDS_PER_CHANGE + place as u64)
    }

    /// As Kafka does it: a leader that is named begins an epoch, the next one unless the record says which.
    fn change(&mut self, record: &PartitionChangeRecord) {
        if let Some(replicas) = &record.replicas {
            let replicas = BrokerId::of_numbers(replicas);
            let next_ids = replicas.iter().enumerate().map(|(place, broker)| self.next_id(place, *broker));
            self.replica_ids = match &record.replica_ids[..] {
                ids if ids.len() == replicas.len() => ids.iter().map(|id| ReplicaId(*id as u64)).collect(),
                _ => next_ids.collect(),
            };
            self.has_group |= replicas.len() > 1;
            self.replicas = replicas;
        }
        if let Some(adding) = &record.adding_replicas {
            self.adding = BrokerId::of_numbers(adding);
        }
        if let Some(removing) = &record.removing_replicas {
            self.removing = BrokerId::of_numbers(removing);
        }
        if let Some(isr) = &record.isr {
            self.isr = BrokerId::of_numbers(isr);
        }
        if record.leader != NO_LEADER_CHANGE {
            self.leader = BrokerId::known(record.leader);
            self.leader_epoch.0 = match record.leader_epoch {
                -1 => self.leader_epoch.0 + 1,
                epoch => epoch,
            };
        }
        self.partition_epoch += 1;
    }
}

/// Those of a partition that begins.
fn founding_ids(replicas: usize) -> Arc<[ReplicaId]> {
    (1..=replicas as u64).map(ReplicaId).collect()
}

#[derive(Debug, Clone, PartialEq)]
pub struct TopicImage {
    pub name: Str,
    pub id: Uuid,
    pub partitions: VectorSync<PartitionImage>,
    /// What was set on the topic itself.
    pub overrides: Arc<ConfigMap>,
}

impl TopicImage {
    pub fn partition(&self, partition: i32) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    pub fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// Of its first partition, as Kafka has it.
    pub fn replication_factor(&self) -> i32 {
        self.partition(0).map_or(1, |first| first.replicas.len() as i32)
    }
}

/// A broker of the cluster, as it registered itself.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerImage {
    pub id: BrokerId,
    /// Another one for each registration.
    pub epoch: i64,
    /// Where clients reach it, by the name of the listener.
    pub endpoints: BTreeMap<Str, Endpoint>,
    pub rack: Option<Str>,
    /// It is not to serve: it is gone, or not ready.
    pub fenced: bool,
    /// Another one for each life of its process; 0 of one that is alone.
    pub incarnation: u64,
    /// Another one for each life of its disk (KIP-858); zero where it is not known.
    pub directory: Uuid,
    /// Where other brokers reach it.
    pub peer: Option<Endpoint>,
    /// How many it runs; 0 where it is not known.
    pub shards: usize,
    /// The largest record batch that it can take from another broker; `None`: it is not known.
    pub batch_bytes_max: Option<usize>,
    /// Its replica of the controller's log; `None`: it has none, or is alone with it.
    pub controller_replica: Option<ReplicaId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: Str,
    pub port: u16,
}

/// What a broker has of the cluster's partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub replicas: usize,
    /// Those of them that are first in their lists: whom they prefer to be led by.
    pub leaders: usize,
}

/// `SecurityProtocol` of an endpoint, as Kafka numbers them.
const PLAINTEXT: i16 = 0;

impl Endpoint {
    pub fn detached(self) -> Endpoint {
        Endpoint { host: self.host.detach(), ..self }
    }
}

impl BrokerImage {
    /// Without the frame that it came out of.
    pub fn detached(self) -> BrokerImage {
        let endpoints = self.endpoints.into_iter();
        BrokerImage {
            endpoints: endpoints.map(|(name, endpoint)| (name.detach(), endpoint.detached())).collect(),
            rack: self.rack.as_ref().map(Str::detach),
            peer: self.peer.map(Endpoint::detached),
            ..self
        }
    }

    pub fn new(record: &RegisterBrokerRecord) -> BrokerImage {
        let endpoints = record.end_points.iter();
        let endpoint = |found: &BrokerEndpoint| Endpoint { host: found.host.clone(), port: found.port };
        BrokerImage {
            id: BrokerId(record.broker_id),
            epoch: record.broker_epoch,
            endpoints: endpoints.map(|found| (found.name.clone(), endpoint(found))).collect(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            incarnation: u128::from_be_bytes(record.incarnation_id.0) as u64,
            directory: record.log_dirs.first().copied().unwrap_or_default(),
            peer: record.peer_host.clone().map(|host| Endpoint { host, port: record.peer_port }),
            shards: usize::try_from(record.shards).unwrap_or(0),
            batch_bytes_max: usize::try_from(record.batch_bytes_max).ok().filter(|bytes| *bytes > 0),
            controller_replica: Some(ReplicaId(record.controller_replica as u64)).filter(|id| id.0 > 0),
        }
    }

    /// The record that registers it as it is.
    pub fn record(&self) -> MetadataRecord {
        let endpoints = self.endpoints.iter().map(|(name, found)| BrokerEndpoint {
            name: name.clone(),
            host: found.host.clone(),
            port: found.port,
            security_protocol: PLAINTEXT,
        });
        MetadataRecord::RegisterBrokerRecord(RegisterBrokerRecord {
            broker_id: self.id.0,
            broker_epoch: self.epoch,
            end_points: endpoints.collect(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            incarnation_id: Uuid(u128::from(self.incarnation).to_be_bytes()),
            log_dirs: if self.directory == Uuid::default() { Vec::new() } else { vec![self.directory] },
            peer_host: self.peer.as_ref().map(|peer| peer.host.clone()),
            peer_port: self.peer.as_ref().map_or(0, |peer| peer.port),
            shards: self.shards as i32,
            batch_bytes_max: self.batch_bytes_max.map_or(0, |bytes| i32::try_from(bytes).unwrap_or(i32::MAX)),
            controller_replica: self.controller_replica.map_or(0, |id| id.0 as i64),
            ..Default::default()
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    /// Kafka offset in the controller's log up to which (exclusive) this image holds.
    pub end_offset: i64,
    topics: RedBlackTreeMapSync<Uuid, Arc<TopicImage>>,
    ids: RedBlackTreeMapSync<Str, Uuid>,
    /// Names with '.' or '_', by what Kafka's metrics make of them.
    folded: RedBlackTreeMapSync<Str, Str>,
    partitions: usize,
    pub brokers: Arc<BTreeMap<BrokerId, BrokerImage>>,
    /// Of brokers that have any, registered or not.
    loads: Arc<BTreeMap<BrokerId, Load>>,
    /// Dynamic broker configs: "" is the cluster-wide default, otherwise the node's id.
    pub broker_overrides: Arc<BTreeMap<String, ConfigMap>>,
    pub next_producer_id: i64,
}

impl Image {
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.ids.get(name)?)
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// In the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.ids.values().map(|id| &self.topics[id])
    }

    /// From this name on, in the order of their names.
    pub fn topics_from<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Arc<TopicImage>> + use<'a> {
        let name = Str::from(name);
        self.ids.range(name..).map(|(_, id)| &self.topics[id])
    }

    pub fn topic_count(&self) -> usize {
        self.ids.size()
    }

    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// The brokers that are there, by their ids.
    pub fn brokers_there(&self) -> impl Iterator<Item = &BrokerImage> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Whether a broker is to lead nothing and to have no replicas, as far as others can have them. It may have been told so at its
    /// start: that others do not know.
    pub fn is_draining(&self, broker: BrokerId) -> bool {
        let (own, _) = self.broker_layers(broker.0);
        own.get(DRAIN).is_some_and(|value| value == "true")
    }

    pub fn load(&self, broker: BrokerId) -> Load {
        self.loads.get(&broker).copied().unwrap_or_default()
    }

    /// Adds `more` partitions (-1: takes one away) with these replicas to what their brokers have.
    pub fn count(&mut self, replicas: &[BrokerId], more: isize) {
        let loads = Arc::make_mut(&mut self.loads);
        for (place, broker) in replicas.iter().enumerate() {
            let load = loads.entry(*broker).or_default();
            load.replicas = load.replicas.saturating_add_signed(more);
            load.leaders = load.leaders.saturating_add_signed(if place == 0 { more } else { 0 });
            if *load == Load::default() {
                loads.remove(broker);
            }
        }
    }

    /// Another topic whose name counts as the same in Kafka's metrics, where '.' and '_' are one.
    pub fn colliding(&self, name: &str) -> Option<&Str> {
        self.folded.get(topic_name::folded(name)?.as_str()).filter(|other| **other != name)
    }

    /// Dynamic configs of broker `node_id` and of the whole cluster.
    pub fn broker_layers(&self, node_id: i32) -> (&ConfigMap, &ConfigMap) {
        static NONE: ConfigMap = ConfigMap::new();
        let of = |name: &str| self.broker_overrides.get(name).unwrap_or(&NONE);
        (of(&node_id.to_string()), of(""))
    }

    /// Applies one record, and adds to `delta` what it changes. Records that contradict the image (a partition of a topic that
    /// is not there) mean that the log is not the one this image was built from; the image is worth nothing then.
    pub fn apply(&mut self, record: &MetadataRecord, delta: &mut Delta) -> Result<(), String> {
        match record {
            MetadataRecord::TopicRecord(r) => self.create_topic(&r.name, r.topic_id, delta)?,
            MetadataRecord::RemoveTopicRecord(r) => self.remove_topic(r.topic_id, delta)?,
            MetadataRecord::PartitionRecord(r) => {
                let topic = self.topic_mut(r.topic_id)?;
                if r.partition_id != topic.partition_count() {
                    return Err(format!(
                        "topic {} has {} partitions and partition {} is created",
                        topic.name,
                        topic.partition_count(),
                        r.partition_id
                    ));
                }
                topic.partitions.push_back_mut(PartitionImage::new(r));
                self.partitions += 1;
                self.count(&BrokerId::of_numbers(&r.replicas), 1);
                delta.partition(r.topic_id, r.partition_id);
            }
            MetadataRecord::PartitionChangeRecord(r) => {
                let topic = self.topic_mut(r.topic_id)?;
                let partition = usize::try_from(r.partition_id).ok();
                let changed = partition.and_then(|partition| topic.partitions.get_mut(partition));
                let Some(changed) = changed else {
                    return Err(format!(
                        "partition {} of topic {} changes, which is not there",
                        r.partition_id, topic.name
                    ));
                };
                let before = changed.replicas.clone();
                changed.change(r);
                if let Some(replicas) = &r.replicas {
                    self.count(&before, -1);
                    self.count(&BrokerId::of_numbers(replicas), 1);
                }
                delta.partition(r.topic_id, r.partition_id);
            }
            MetadataRecord::ConfigRecord(r) => self.set_config(r, delta)?,
            MetadataRecord::ProducerIdsRecord(r) => {
                self.next_producer_id = self.next_producer_id.max(r.next_producer_id);
                delta.producer_ids = true;
            }
            MetadataRecord::RegisterBrokerRecord(r) => {
                Arc::make_mut(&mut self.brokers).insert(BrokerId(r.broker_id), BrokerImage::new(r));
                delta.registered.insert(BrokerId(r.broker_id));
            }
            MetadataRecord::UnregisterBrokerRecord(r) => {
                if Arc::make_mut(&mut self.brokers).remove(&BrokerId(r.broker_id)).is_none() {
                    return Err(format!("broker {} is unregistered and not there", r.broker_id));
                }
                delta.registered.insert(BrokerId(r.broker_id));
            }
            // Feature levels come with clusters of more than one broker.
            MetadataRecord::FeatureLevelRecord(r) => {
                return Err(format!("feature {} is unknown here", r.name));
            }
        }
        Ok(())
    }

    fn create_topic(&mut self, name: &Str, id: Uuid, delta: &mut Delta) -> Result<(), String> {
        if self.topics.contains_key(&id) {
            return Err(format!("topic id {id} is created twice"));
        }
        if self.ids.contains_key(name) {
            return Err(format!("topic {name} is created twice"));
        }
        let topic = TopicImage {
            name: name.clone(),
            id,
            partitions: VectorSync::new_sync(),
            overrides: Arc::default(),
        };
        self.topics.insert_mut(id, Arc::new(topic));
        self.ids.insert_mut(name.clone(), id);
        if let Some(folded) = topic_name::folded(name) {
            self.folded.insert_mut(folded.into(), name.clone());
        }
        delta.created(id);
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid, delta: &mut Delta) -> Result<(), String> {
        let Some(topic) = self.topics.get(&id).cloned() else {
            return Err(format!("topic {id} is removed and not there"));
        };
        self.topics.remove_mut(&id);
        self.ids.remove_mut(&topic.name);
        if let Some(folded) = topic_name::folded(&topic.name)
            && self.folded.get(folded.as_str()) == Some(&topic.name)
        {
            self.folded.remove_mut(folded.as_str());
        }
        self.partitions -= topic.partitions.len();
        topic.partitions.iter().for_each(|partition| self.count(&partition.replicas, -1));
        delta.removed(topic);
        Ok(())
    }

    fn set_config(&mut self, record: &ConfigRecord, delta: &mut Delta) -> Result<(), String> {
        let overrides = match record.resource_type {
            RESOURCE_TOPIC => {
                let name = &record.resource_name;
                let Some(id) = self.ids.get(name).copied() else {
                    return Err(format!("config of topic {name}, which is not there"));
                };
                delta.configs(id);
                Arc::make_mut(&mut self.topic_mut(id)?.overrides)
            }
            RESOURCE_BROKER => {
                let name = record.resource_name.to_string();
                delta.brokers.insert(name.clone());
                Arc::make_mut(&mut self.broker_overrides).entry(name).or_default()
            }
            other => return Err(format!("config of unknown resource type {other}")),
        };
        match &record.value {
            Some(value) => overrides.insert(record.name.to_string(), value.to_string()),
            None => overrides.remove(&*record.name),
        };
        // Of what sets nothing a snapshot tells nothing either.
        if record.resource_type == RESOURCE_BROKER {
            Arc::make_mut(&mut self.broker_overrides).retain(|_, overrides| !overrides.is_empty());
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, String> {
        let topic = self.topics.get_mut(&id).ok_or_else(|| format!("topic id {id} is not there"))?;
        Ok(Arc::make_mut(topic))
    }
}

#[cfg(test)]
pub mod tests {
    use corelog_wire::metadata_records::{RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord};

    use super::*;

    /// Brokers 1, 2, ... in these racks.
    pub fn brokers(racks: &[Option<&str>]) -> Image {
        let mut image = Image::default();
        for (id, rack) in (1..).zip(racks) {
            let endpoint = Endpoint { host: format!("host{id}").into(), port: 9092 };
            let broker = BrokerImage {
                id: BrokerId(id),
                epoch: i64::from(id),
                endpoints: [(Str::from("PLAINTEXT"), endpoint)].into(),
                rack: rack.map(Str::from),
                fenced: false,
                incarnation: 0,
                directory: Uuid([id as u8; 16]),
                peer: None,
                shards: 1,
                batch_bytes_max: None,
                controller_replica: None,
            };
            image.apply(&broker.record(), &mut Delta::default()).expect("it fits");
        }
        image
    }

    #[test]
    fn a_broker_is_what_it_registered_last() {
        let mut image = brokers(&[Some("a"), None]);
        let moved = BrokerImage { rack: Some("b".into()), epoch: 9, ..image.brokers[&BrokerId(1)].clone() };
        let mut delta = Delta::default();
        image.apply(&moved.record(), &mut delta).expect("it fits");
        assert_eq!((image.brokers.len(), &image.brokers[&BrokerId(1)]), (2, &moved));
        assert_eq!(delta.registered, [BrokerId(1)].into());
        let gone = UnregisterBrokerRecord { broker_id: 1, broker_epoch: 9 };
        let gone = MetadataRecord::UnregisterBrokerRecord(gone);
        image.apply(&gone, &mut delta).expect("it fits");
        assert!(!image.brokers.contains_key(&BrokerId(1)));
        assert!(image.apply(&gone, &mut delta).is_err());
    }

    #[test]
    fn what_brokers_have_is_counted_through_all_changes() {
        let mut image = brokers(&[None; 3]);
        let (id, mut delta) = (Uuid([7; 16]), Delta::default());
        let mut apply = |image: &mut Image, record| image.apply(&record, &mut delta).expect("it fits");
        apply(&mut image, MetadataRecord::TopicRecord(TopicRecord { name: "t".into(), topic_id: id }));
        for (partition_id, replicas) in [(0, vec![1, 2]), (1, vec![2, 3])] {
            let record = PartitionRecord {
                partition_id,
                topic_id: id,
                leader: replicas[0],
                isr: replicas.clone(),
                replicas,
                ..Default::default()
            };
            apply(&mut image, MetadataRecord::PartitionRecord(record));
        }
        let loads = |image: &Image| {
            [1, 2, 3].map(|id| image.load(BrokerId(id))).map(|load| (load.replicas, load.leaders))
        };
        assert_eq!(loads(&image), [(1, 1), (2, 1), (1, 0)]);
        let change = PartitionChangeRecord {
            partition_id: 0,
            topic_id: id,
            replicas: Some(vec![3, 2]),
            ..Default::default()
        };
        apply(&mut image, MetadataRecord::PartitionChangeRecord(change));
        assert_eq!(loads(&image), [(0, 0), (2, 1), (2, 1)]);
        apply(&mut image, MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: id }));
        assert_eq!(loads(&image), [(0, 0); 3]);
        assert!(image.loads.is_empty());
    }
}
