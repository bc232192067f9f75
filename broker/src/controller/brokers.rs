//! Decisions about brokers: who is one, and whether it is there.

use corelog_wire::metadata_records::{MetadataRecord, PartitionChangeRecord, UnregisterBrokerRecord};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::change::{ChangeError, Rules};
use super::image::{BrokerImage, Endpoint, Image, PartitionImage, TopicImage};
use crate::identity::Founder;
use crate::ids::{BrokerId, ReplicaId};

/// Replicas of the controller's log have ids from here on, but for the founders', who are few.
const JOINED_REPLICAS_FROM: u64 = 1 << 8;

/// A data directory that is to be a broker's of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct JoinRequest {
    pub directory: Uuid,
    /// `None`: whichever is free.
    pub wanted: Option<BrokerId>,
    pub peer: Endpoint,
    pub shards: usize,
    pub rack: Option<Str>,
}

impl BrokerImage {
    /// As the cluster begins: it is not there before it registers.
    pub fn of_founder(founder: &Founder) -> BrokerImage {
        let Founder { node_id, directory, replica, peer } = founder;
        BrokerImage {
            id: BrokerId(*node_id),
            epoch: 0,
            endpoints: Default::default(),
            rack: None,
            fenced: true,
            incarnation: 0,
            directory: *directory,
            peer: Some(Endpoint { host: peer.host.as_str().into(), port: peer.port }),
            shards: 0,
            controller_replica: Some(*replica),
        }
    }
}

/// A broker is there, and is reached so.
pub fn register(
    image: &Image,
    rules: &Rules,
    broker: BrokerImage,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let known = image.brokers.get(&broker.id);
    if !rules.is_alone {
        check_directory(known, &broker)?;
    }
    let controller_replica = known.and_then(|known| known.controller_replica).or(broker.controller_replica);
    let broker = BrokerImage { controller_replica, ..broker };
    let is_known = known.is_some_and(|known| BrokerImage { epoch: broker.epoch, ..known.clone() } == broker);
    let broker = BrokerImage { epoch: image.end_offset, ..broker };
    Ok(if is_known { Vec::new() } else { vec![broker.record()] })
}

/// A disk that was wiped, or was never a broker's of this cluster, has joined before it registers.
fn check_directory(known: Option<&BrokerImage>, broker: &BrokerImage) -> Result<(), ChangeError> {
    let id = broker.id.0;
    match known {
        None => Err(ChangeError::new(
            ErrorCode::BROKER_ID_NOT_REGISTERED,
            format!(
                "the cluster has no broker {id}: it was unregistered, or its data directory is another cluster's. To bring \
                 it back as a new broker, start it with an empty --data-dir"
            ),
        )),
        // What it was before directories had ids.
        Some(known) if known.directory.is_zero() || known.directory == broker.directory => Ok(()),
        Some(known) => Err(ChangeError::new(
            ErrorCode::DUPLICATE_BROKER_REGISTRATION,
            format!(
                "broker {id} of the cluster has the data directory {}, and this one's is {}: another broker has taken the id, \
                 with an empty directory. Its data here is out of date",
                known.directory, broker.directory
            ),
        )),
    }
}

/// A directory becomes a broker's: under a new id, or in the place of a disk that was wiped.
pub fn join(image: &Image, request: JoinRequest) -> Result<Vec<MetadataRecord>, ChangeError> {
    let new = |id| BrokerImage {
        id,
        epoch: image.end_offset,
        endpoints: Default::default(),
        rack: request.rack.clone(),
        fenced: true,
        incarnation: 0,
        directory: request.directory,
        peer: Some(request.peer.clone()),
        shards: request.shards,
        controller_replica: Some(ReplicaId(JOINED_REPLICAS_FROM + image.end_offset as u64)),
    };
    if request.directory.is_zero() {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REQUEST,
            "a broker joins under the id of its data directory",
        ));
    }
    if let Some(known) = image.brokers.values().find(|broker| broker.directory == request.directory) {
        return again(known, &request);
    }
    let lowest = || image.brokers.keys().next_back().map_or(1, |last| last.0 + 1);
    let id = request.wanted.unwrap_or_else(|| BrokerId(lowest()));
    let Some(known) = image.brokers.get(&id) else { return Ok(vec![new(id).record()]) };
    if !known.fenced {
        return Err(taken(known, "and is there"));
    }
    let mut records = renewed_replicas(image, id);
    records.push(new(id).record());
    Ok(records)
}

/// It was answered before, and asks again: it may be elsewhere now.
fn again(known: &BrokerImage, request: &JoinRequest) -> Result<Vec<MetadataRecord>, ChangeError> {
    if request.wanted.is_some_and(|wanted| wanted != known.id) {
        let wanted = request.wanted.map_or(-1, |wanted| wanted.0);
        return Err(ChangeError::new(
            ErrorCode::DUPLICATE_BROKER_REGISTRATION,
            format!(
                "the data directory {} is broker {}'s, and it asks to be {wanted}: set node.id to {}, or begin with an empty \
                 --data-dir",
                known.directory, known.id.0, known.id.0
            ),
        ));
    }
    let (peer, shards, rack) = (Some(request.peer.clone()), request.shards, request.rack.clone());
    let now = BrokerImage { peer, shards, rack, ..known.clone() };
    Ok(if now == *known { Vec::new() } else { vec![now.record()] })
}

fn taken(known: &BrokerImage, why: &str) -> ChangeError {
    ChangeError::new(
        ErrorCode::DUPLICATE_BROKER_REGISTRATION,
        format!(
            "node.id {} is a broker's of the cluster that has another data directory, {why}. If its disk was wiped, and this is \
             the same machine: it is let in some seconds after the former process has ended. If this is to be a new broker: \
             give it another node.id, or none (--set node.id=-1)",
            known.id.0
        ),
    )
}

/// All that a broker has is gone: its replicas are new ones, that never had anything, under ids of their own.
fn renewed_replicas(image: &Image, broker: BrokerId) -> Vec<MetadataRecord> {
    let of_topic = |topic: &TopicImage| {
        let (topic_id, all) = (topic.id, (0..).zip(&topic.partitions));
        let of_broker = all.filter(|(_, partition)| partition.replicas.contains(&broker));
        of_broker.map(|(index, partition)| renewed_replica(topic_id, index, partition, broker)).collect()
    };
    image.topics().flat_map(|topic| -> Vec<MetadataRecord> { of_topic(topic) }).collect()
}

fn renewed_replica(
    topic_id: Uuid,
    partition_id: i32,
    partition: &PartitionImage,
    broker: BrokerId,
) -> MetadataRecord {
    let ids = partition.replicas.iter().zip(&*partition.replica_ids).enumerate();
    let ids = ids.map(|(place, (of, id))| if *of == broker { partition.new_id(place) } else { *id });
    MetadataRecord::PartitionChangeRecord(PartitionChangeRecord {
        partition_id,
        topic_id,
        replicas: Some(BrokerId::numbers(&partition.replicas)),
        replica_ids: ids.map(|id| id.0 as i64).collect(),
        ..Default::default()
    })
}

/// A broker that registered with this epoch is there no more, or again.
pub fn fence(
    image: &Image,
    broker: BrokerId,
    epoch: i64,
    fenced: bool,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let known = image.brokers.get(&broker).ok_or_else(|| unknown(broker))?;
    // It has registered since.
    let is_former = known.epoch != epoch;
    if is_former || known.fenced == fenced {
        return Ok(Vec::new());
    }
    Ok(vec![BrokerImage { fenced, ..known.clone() }.record()])
}

/// A broker is none any more.
pub fn unregister(image: &Image, broker: BrokerId) -> Result<Vec<MetadataRecord>, ChangeError> {
    let known = image.brokers.get(&broker).ok_or_else(|| unknown(broker))?;
    let refused = |what: String| Err(ChangeError::new(ErrorCode::INVALID_REQUEST, what));
    if !known.fenced {
        return refused(format!("broker {} is there: stop it before it is unregistered", broker.0));
    }
    let has = image.load(broker).replicas;
    if has > 0 {
        return refused(format!(
            "broker {} has replicas of {has} partitions: move them to others before it is unregistered",
            broker.0
        ));
    }
    let record = UnregisterBrokerRecord { broker_id: broker.0, broker_epoch: known.epoch };
    Ok(vec![MetadataRecord::UnregisterBrokerRecord(record)])
}

fn unknown(broker: BrokerId) -> ChangeError {
    ChangeError::new(ErrorCode::BROKER_ID_NOT_REGISTERED, format!("the cluster has no broker {}", broker.0))
}
