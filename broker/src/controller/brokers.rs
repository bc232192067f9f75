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

impl JoinRequest {
    /// Without the frame that it came out of.
    pub fn detached(self) -> JoinRequest {
        JoinRequest { peer: self.peer.detached(), rack: self.rack.as_ref().map(Str::detach), ..self }
    }
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
            batch_bytes_max: None,
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
        batch_bytes_max: None,
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
    let id = request.wanted.map_or_else(|| next_id(image), Ok)?;
    let Some(known) = image.brokers.get(&id) else { return Ok(vec![new(id).record()]) };
    if !known.fenced {
        return Err(taken(known, "and is there"));
    }
    let mut records = renewed_replicas(image, id);
    records.push(new(id).record());
    Ok(records)
}

/// Above all that there are.
fn next_id(image: &Image) -> Result<BrokerId, ChangeError> {
    let last = image.brokers.keys().next_back().map_or(0, |last| last.0);
    let next = last.checked_add(1).map(BrokerId);
    next.ok_or_else(|| {
        let what =
            format!("broker {last} has the highest node.id that there can be: give this one a lower one");
        ChangeError::new(ErrorCode::INVALID_REQUEST, what)
    })
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
    // It has nothing, and must not be taken for one that has all when another is to begin anew.
    let others: Vec<BrokerId> = partition.isr.iter().copied().filter(|id| *id != broker).collect();
    let is_fewer = !others.is_empty() && others.len() < partition.isr.len();
    MetadataRecord::PartitionChangeRecord(PartitionChangeRecord {
        partition_id,
        topic_id,
        replicas: Some(BrokerId::numbers(&partition.replicas)),
        replica_ids: ids.map(|id| id.0 as i64).collect(),
        isr: is_fewer.then(|| BrokerId::numbers(&others)),
        ..Default::default()
    })
}

/// What a broker has of a partition is damaged: it begins anew, as long as another that is there has all of it.
pub fn renew(
    image: &Image,
    topic: Uuid,
    partition: i32,
    broker: BrokerId,
    replica: ReplicaId,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let found = image.topic_by_id(topic).and_then(|topic| topic.partition(partition));
    let Some(found) = found.filter(|found| found.replicas_with_ids().any(|own| own == (replica, broker)))
    else {
        // It is none any more, or was renewed before.
        return Ok(Vec::new());
    };
    let is_there = |id: &BrokerId| image.brokers.get(id).is_some_and(|broker| !broker.fenced);
    if !found.isr.iter().any(|id| *id != broker && is_there(id)) {
        return Err(ChangeError::new(
            ErrorCode::INELIGIBLE_REPLICA,
            format!(
                "no other broker that is there has all of the partition that is damaged on broker {}",
                broker.0
            ),
        ));
    }
    Ok(vec![renewed_replica(topic, partition, found, broker)])
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corelog_wire::metadata_records::TopicRecord;

    use super::super::change::partition_record;
    use super::super::image::tests::brokers;
    use super::super::snapshot::tests::settings;
    use super::super::task::applied;
    use super::*;

    const TOPIC: Uuid = Uuid([9; 16]);

    fn rules() -> Rules {
        Rules { node_id: 1, partitions_max: 100, settings: Arc::new(settings()), is_alone: false }
    }

    fn request(directory: u8, wanted: Option<i32>) -> JoinRequest {
        JoinRequest {
            directory: Uuid([directory; 16]),
            wanted: wanted.map(BrokerId),
            peer: Endpoint { host: "there".into(), port: 9191 },
            shards: 4,
            rack: None,
        }
    }

    fn make(image: &mut Image, records: &[MetadataRecord]) {
        let (mut next, _) = applied(image, records).expect("what is decided fits");
        next.end_offset += records.len() as i64;
        *image = next;
    }

    fn joined(image: &mut Image, request: JoinRequest) -> BrokerImage {
        let directory = request.directory;
        let records = join(image, request).expect("it may join");
        make(image, &records);
        let found = image.brokers.values().find(|broker| broker.directory == directory);
        found.expect("it is there").clone()
    }

    /// Three brokers, and a topic that all of them have.
    fn cluster() -> Image {
        let mut image = brokers(&[None, None, None]);
        let topic = MetadataRecord::TopicRecord(TopicRecord { name: "t".into(), topic_id: TOPIC });
        let partition = partition_record(TOPIC, 0, [1, 2, 3].map(BrokerId).to_vec());
        make(&mut image, &[topic, partition]);
        image
    }

    #[test]
    fn who_joins_has_an_id_for_good_and_asks_again_as_often_as_it_likes() {
        let mut image = cluster();
        let first = joined(&mut image, request(40, None));
        let second = joined(&mut image, request(50, Some(9)));
        assert_eq!((first.id, second.id), (BrokerId(4), BrokerId(9)));
        assert_ne!(first.controller_replica, second.controller_replica);
        assert!(first.fenced && first.controller_replica.is_some_and(|id| id.0 >= JOINED_REPLICAS_FROM));
        assert_eq!(join(&image, request(40, None)), Ok(Vec::new()));
        assert_eq!(joined(&mut image, request(40, Some(4))), first);
        let moved = JoinRequest { shards: 8, ..request(40, None) };
        let now = joined(&mut image, moved);
        assert_eq!((now.id, now.shards, now.controller_replica), (first.id, 8, first.controller_replica));
        let other = join(&image, request(40, Some(9))).expect_err("it is broker 4");
        assert!(other.message.contains("is broker 4's, and it asks to be 9"), "{other}");
        assert_eq!(joined(&mut image, request(60, None)).id, BrokerId(10));
        assert!(join(&image, request(0, None)).is_err());
        joined(&mut image, request(70, Some(i32::MAX)));
        let refused = join(&image, request(80, None)).expect_err("there is no higher id");
        assert!(refused.message.contains("give this one a lower one"), "{refused}");
    }

    #[test]
    fn two_replicas_that_are_damaged_do_not_begin_anew_from_each_other() {
        let mut image = cluster();
        let replica = |image: &Image, id| {
            let found = &image.topic_by_id(TOPIC).expect("it is there").partitions[0];
            found.replicas_with_ids().find(|(_, broker)| *broker == id).expect("it has one").0
        };
        let damaged = |image: &Image, id| renew(image, TOPIC, 0, BrokerId(id), replica(image, BrokerId(id)));
        let records = damaged(&image, 2).expect("the others have all of it");
        make(&mut image, &records);
        let isr = BrokerId::numbers(&image.topic_by_id(TOPIC).expect("it is there").partitions[0].isr);
        assert_eq!(isr, [1, 3], "who begins anew has nothing");
        let records = fence(&image, BrokerId(1), image.brokers[&BrokerId(1)].epoch, true);
        make(&mut image, &records.expect("it is known"));
        let refused = damaged(&image, 3).expect_err("nobody who is there has all of it");
        assert_eq!(refused.code, ErrorCode::INELIGIBLE_REPLICA);
    }

    #[test]
    fn a_wiped_disk_comes_back_with_new_replicas_once_the_former_process_is_gone() {
        let mut image = cluster();
        let refused = join(&image, request(40, Some(2))).expect_err("it is there");
        assert_eq!(refused.code, ErrorCode::DUPLICATE_BROKER_REGISTRATION);
        let (id, former) = (BrokerId(2), image.brokers[&BrokerId(2)].epoch);
        assert_eq!(fence(&image, id, former - 1, true), Ok(Vec::new()), "it has registered since");
        let records = fence(&image, id, former, true).expect("it is known");
        make(&mut image, &records);
        assert_eq!(fence(&image, id, former, true), Ok(Vec::new()), "it is fenced");
        let before = image.topic_by_id(TOPIC).expect("it is there").partitions[0].clone();
        let back = joined(&mut image, request(40, Some(2)));
        assert_eq!((back.id, back.directory, back.fenced), (id, Uuid([40; 16]), true));
        let after = &image.topic_by_id(TOPIC).expect("it is there").partitions[0];
        assert_eq!((&after.replicas, after.leader_epoch), (&before.replicas, before.leader_epoch));
        let kept = |place: usize| after.replica_ids[place] == before.replica_ids[place];
        assert_eq!([0, 1, 2].map(kept), [true, false, true]);
        assert!(!before.replica_ids.contains(&after.replica_ids[1]));
        // The former disk is found after all.
        let former = BrokerImage { directory: Uuid([2; 16]), fenced: false, ..back.clone() };
        let refused = register(&image, &rules(), former).expect_err("its data is out of date");
        assert!(refused.message.contains("another broker has taken the id"), "{refused}");
        let itself = BrokerImage { fenced: false, controller_replica: None, ..back.clone() };
        let records = register(&image, &rules(), itself).expect("it is the one that joined");
        make(&mut image, &records);
        let now = &image.brokers[&id];
        assert_eq!((now.fenced, now.controller_replica), (false, back.controller_replica));
    }

    #[test]
    fn brokers_register_under_what_they_joined_as() {
        let image = cluster();
        let stranger = BrokerImage { id: BrokerId(7), ..image.brokers[&BrokerId(1)].clone() };
        let refused = register(&image, &rules(), stranger.clone()).expect_err("it has not joined");
        assert_eq!(refused.code, ErrorCode::BROKER_ID_NOT_REGISTERED);
        let alone = Rules { is_alone: true, ..rules() };
        assert_eq!(register(&image, &alone, stranger).expect("a cluster of one").len(), 1);
        let known = image.brokers[&BrokerId(1)].clone();
        assert_eq!(register(&image, &rules(), known.clone()), Ok(Vec::new()));
        // One that was alone, and is to be joined by others.
        let mut image = image;
        make(&mut image, &[BrokerImage { directory: Uuid::default(), ..known.clone() }.record()]);
        let opened = BrokerImage { controller_replica: Some(ReplicaId(1)), ..known };
        let records = register(&image, &rules(), opened.clone()).expect("its directory has an id now");
        make(&mut image, &records);
        assert_eq!(image.brokers[&BrokerId(1)].controller_replica, opened.controller_replica);
    }

    #[test]
    fn who_has_replicas_or_is_there_stays_a_broker() {
        let mut image = cluster();
        let told = |image: &Image, id| unregister(image, BrokerId(id)).map_err(|error| error.message);
        assert!(told(&image, 2).is_err_and(|what| what.contains("stop it before")));
        assert!(told(&image, 8).is_err());
        let epoch = image.brokers[&BrokerId(2)].epoch;
        let records = fence(&image, BrokerId(2), epoch, true).expect("it is known");
        make(&mut image, &records);
        assert!(told(&image, 2).is_err_and(|what| what.contains("has replicas of 1 partitions")));
        joined(&mut image, request(40, None));
        let records = told(&image, 4).expect("it has nothing");
        make(&mut image, &records);
        assert!(!image.brokers.contains_key(&BrokerId(4)));
    }
}
