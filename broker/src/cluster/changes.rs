//! Changes of the metadata, and what they came to, as brokers hand them to each other ([`super::CallKind::Change`]).

use std::rc::Rc;

use bytes::Bytes;
use corelog_wire::cluster_changes::alter_configs_change::AlteredConfig;
use corelog_wire::cluster_changes::create_partitions_change::AddedPartition;
use corelog_wire::cluster_changes::create_topic_change::{AssignedPartition, TopicConfig};
use corelog_wire::cluster_changes::leaders_change::PartitionLeader;
use corelog_wire::cluster_changes::{
    AlterConfigsChange, ChangeAnswer, ClusterChange, CreatePartitionsChange, CreateTopicChange,
    DeleteTopicChange, FenceChange, JoinChange, LeadersChange, ReassignChange, RegisterBrokerChange,
    RenewChange, TakeProducerIdsChange, UnregisterChange,
};
use corelog_wire::coordinator_records::{value_from_bytes, value_to_bytes};
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::{EncodeError, ErrorCode, Message, Str};
use futures_util::FutureExt;

use super::CallKind;
use crate::controller::image::{RESOURCE_BROKER, RESOURCE_TOPIC};
use crate::controller::{
    BrokerImage, Change, ChangeError, ConfigChange, Endpoint, JoinRequest, Led, NewTopic, Placement,
    ResourceKey, TOPIC_PARTITIONS_MAX,
};
use crate::ids::{BrokerId, LeaderEpoch, ReplicaId};
use crate::shard::Shard;
use crate::topic_name;

/// From now on other brokers may ask this one for changes, on shard 0.
pub fn serve(shard: &Rc<Shard>) {
    let Some(member) = &shard.member else { return };
    let shard = Rc::downgrade(shard);
    member.carrier.serve(CallKind::Change, move |call| {
        let shard = shard.upgrade();
        let changed = async { shard.ok_or("this broker is shutting down")?.serve_change(call).await };
        changed.boxed_local()
    });
}

/// As it is called for.
pub fn encode(change: &Change) -> Result<Bytes, EncodeError> {
    wire_form(change)?.to_bytes()
}

fn wire_form(change: &Change) -> Result<ClusterChange, EncodeError> {
    Ok(match change {
        Change::CreateTopic(new) => create_topic(new).into(),
        Change::DeleteTopic { id } => DeleteTopicChange { topic_id: *id }.into(),
        Change::CreatePartitions { topic, count, assigned } => {
            let added = |replicas: &Vec<BrokerId>| AddedPartition { replicas: BrokerId::numbers(replicas) };
            let assigned = assigned.as_ref().map(|assigned| assigned.iter().map(added).collect());
            CreatePartitionsChange { topic: topic.clone(), count: *count, assigned }.into()
        }
        Change::AlterConfigs { resource, change } => alter_configs(resource, change).into(),
        Change::RegisterBroker(broker) => {
            RegisterBrokerChange { registration: broker.record().to_bytes()? }.into()
        }
        Change::Join(request) => join(request).into(),
        Change::Fence { broker, epoch } => {
            FenceChange { broker: broker.0, epoch: *epoch, fenced: true }.into()
        }
        Change::Unfence { broker, epoch } => {
            FenceChange { broker: broker.0, epoch: *epoch, fenced: false }.into()
        }
        Change::Unregister(broker) => UnregisterChange { broker: broker.0 }.into(),
        Change::Reassign { topic, partition, target } => {
            let target = target.as_ref().map(|target| BrokerId::numbers(target));
            ReassignChange { topic: topic.clone(), partition: *partition, target }.into()
        }
        Change::Renew { topic, partition, broker, replica } => RenewChange {
            topic_id: *topic,
            partition: *partition,
            broker: broker.0,
            replica: replica.0 as i64,
        }
        .into(),
        Change::Leaders(reports) => {
            LeadersChange { leaders: reports.iter().map(partition_leader).collect() }.into()
        }
        Change::TakeProducerIds => TakeProducerIdsChange {}.into(),
    })
}

fn create_topic(new: &NewTopic) -> CreateTopicChange {
    let config = |(name, value): (&String, &String)| TopicConfig {
        name: name.as_str().into(),
        value: value.as_str().into(),
    };
    let assigned = |replicas: &Vec<BrokerId>| AssignedPartition { replicas: BrokerId::numbers(replicas) };
    let (partitions, replication_factor, assigned) = match &new.placement {
        Placement::Anywhere { partitions, replication_factor } => (*partitions, *replication_factor, None),
        Placement::Assigned(all) => (-1, -1, Some(all.iter().map(assigned).collect())),
    };
    CreateTopicChange {
        name: new.name.clone(),
        topic_id: new.id,
        partitions,
        replication_factor,
        assigned,
        configs: new.overrides.iter().map(config).collect(),
    }
}

fn alter_configs(resource: &ResourceKey, change: &ConfigChange) -> AlterConfigsChange {
    let (resource_type, resource_name) = match resource {
        ResourceKey::Topic(name) => (RESOURCE_TOPIC, name.clone()),
        ResourceKey::Broker(name) => (RESOURCE_BROKER, name.as_str().into()),
    };
    let altered = |name: &Str, operation, value: &Option<Str>| AlteredConfig {
        name: name.clone(),
        operation,
        value: value.clone(),
    };
    let (replaces, configs) = match change {
        ConfigChange::Incremental(all) => {
            (false, all.iter().map(|(name, operation, value)| altered(name, *operation, value)).collect())
        }
        ConfigChange::Replace(all) => {
            (true, all.iter().map(|(name, value)| altered(name, 0, value)).collect())
        }
    };
    AlterConfigsChange { resource_type, resource_name, replaces, configs }
}

fn join(request: &JoinRequest) -> JoinChange {
    JoinChange {
        directory: request.directory,
        wanted: BrokerId::number(request.wanted),
        peer_host: request.peer.host.clone(),
        peer_port: request.peer.port,
        shards: request.shards as i32,
        rack: request.rack.clone(),
    }
}

fn partition_leader(led: &Led) -> PartitionLeader {
    PartitionLeader {
        topic_id: led.topic,
        partition: led.partition,
        leader: led.leader.0,
        leader_epoch: led.epoch.0,
        isr: BrokerId::numbers(&led.isr),
        settled: led.settled,
    }
}

/// A change that another broker calls for; the error is for it.
pub fn decode(bytes: Bytes) -> Result<Change, String> {
    let change = ClusterChange::from_bytes(bytes).map_err(|error| format!("no change: {error}"))?;
    Ok(match change {
        ClusterChange::CreateTopicChange(new) => Change::CreateTopic(new_topic(new)?),
        ClusterChange::DeleteTopicChange(delete) => Change::DeleteTopic { id: delete.topic_id },
        ClusterChange::CreatePartitionsChange(create) => {
            let replicas = |added: &AddedPartition| broker_ids(&added.replicas);
            let assigned = create.assigned.map(|assigned| assigned.iter().map(replicas).collect());
            Change::CreatePartitions { topic: create.topic, count: create.count, assigned }
        }
        ClusterChange::AlterConfigsChange(alter) => altered_configs(alter)?,
        ClusterChange::RegisterBrokerChange(register) => {
            match MetadataRecord::from_bytes(register.registration) {
                Ok(MetadataRecord::RegisterBrokerRecord(record)) => {
                    Change::RegisterBroker(BrokerImage::new(&record))
                }
                _ => return Err("a registration that is none".into()),
            }
        }
        ClusterChange::TakeProducerIdsChange(_) => Change::TakeProducerIds,
        ClusterChange::LeadersChange(report) => Change::Leaders(report.leaders.iter().map(led).collect()),
        ClusterChange::JoinChange(join) => Change::Join(join_request(join)?),
        ClusterChange::FenceChange(FenceChange { broker, epoch, fenced }) => {
            let broker = BrokerId(broker);
            if fenced { Change::Fence { broker, epoch } } else { Change::Unfence { broker, epoch } }
        }
        ClusterChange::ReassignChange(ReassignChange { topic, partition, target }) => {
            Change::Reassign { topic, partition, target: target.as_deref().map(broker_ids) }
        }
        ClusterChange::RenewChange(RenewChange { topic_id: topic, partition, broker, replica }) => {
            let (broker, replica) = (BrokerId(broker), ReplicaId(replica as u64));
            Change::Renew { topic, partition, broker, replica }
        }
        ClusterChange::UnregisterChange(unregister) => Change::Unregister(BrokerId(unregister.broker)),
    })
}

fn broker_ids(numbers: &[i32]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

fn new_topic(new: CreateTopicChange) -> Result<NewTopic, String> {
    let CreateTopicChange { partitions, replication_factor, .. } = new;
    let replicas = |assigned: &AssignedPartition| broker_ids(&assigned.replicas);
    let placement = match new.assigned {
        Some(all) => Placement::Assigned(all.iter().map(replicas).collect()),
        None => Placement::Anywhere { partitions, replication_factor },
    };
    let partitions = placement.partitions();
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&partitions) {
        return Err(format!("a topic of {partitions} partitions"));
    }
    topic_name::check(&new.name).map_err(|why| format!("a topic's name: {why}"))?;
    let overrides = new.configs.iter().map(|config| (config.name.to_string(), config.value.to_string()));
    Ok(NewTopic { name: new.name, id: new.topic_id, placement, overrides: overrides.collect() })
}

fn altered_configs(alter: AlterConfigsChange) -> Result<Change, String> {
    let AlterConfigsChange { resource_type, resource_name, replaces, configs } = alter;
    let resource = match resource_type {
        RESOURCE_TOPIC => ResourceKey::Topic(resource_name),
        RESOURCE_BROKER => ResourceKey::Broker(resource_name.to_string()),
        other => return Err(format!("configs of a resource of type {other}")),
    };
    let configs = configs.into_iter();
    let change = match replaces {
        true => ConfigChange::Replace(configs.map(|config| (config.name, config.value)).collect()),
        false => ConfigChange::Incremental(
            configs.map(|config| (config.name, config.operation, config.value)).collect(),
        ),
    };
    Ok(Change::AlterConfigs { resource, change })
}

fn join_request(join: JoinChange) -> Result<JoinRequest, String> {
    Ok(JoinRequest {
        directory: join.directory,
        wanted: BrokerId::known(join.wanted),
        peer: Endpoint { host: join.peer_host, port: join.peer_port },
        shards: usize::try_from(join.shards).map_err(|_| format!("a broker with {} shards", join.shards))?,
        rack: join.rack,
    })
}

fn led(report: &PartitionLeader) -> Led {
    Led {
        topic: report.topic_id,
        partition: report.partition,
        leader: BrokerId(report.leader),
        epoch: LeaderEpoch(report.leader_epoch),
        isr: broker_ids(&report.isr),
        settled: report.settled,
    }
}

/// Where a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Who has applied the controller's log up to here (exclusive) has it.
    pub end_offset: i64,
    /// As the change has left it, whatever came later.
    pub next_producer_id: i64,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer(pub Result<Place, ChangeError>);

impl Answer {
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let answer = match &self.0 {
            Ok(Place { end_offset, next_producer_id }) => ChangeAnswer {
                end_offset: *end_offset,
                next_producer_id: *next_producer_id,
                ..ChangeAnswer::default()
            },
            Err(ChangeError { code, message, in_doubt }) => ChangeAnswer {
                error_code: code.0,
                message: Some(message.as_str().into()),
                in_doubt: *in_doubt,
                ..ChangeAnswer::default()
            },
        };
        value_to_bytes(&answer, ChangeAnswer::MAX_VERSION)
    }

    pub fn decode(bytes: Bytes) -> Result<Answer, String> {
        let answer: ChangeAnswer = value_from_bytes(bytes).map_err(|error| error.to_string())?;
        let ChangeAnswer { error_code, message, in_doubt, end_offset, next_producer_id } = answer;
        Ok(Answer(match ErrorCode(error_code) {
            ErrorCode::NONE => Ok(Place { end_offset, next_producer_id }),
            code => {
                let message = message.as_deref().unwrap_or_else(|| code.message()).to_owned();
                Err(ChangeError { code, message, in_doubt })
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use corelog_wire::Uuid;

    use super::*;
    use crate::ids::ReplicaId;

    fn broker() -> BrokerImage {
        BrokerImage {
            id: BrokerId(3),
            epoch: 7,
            endpoints: [("PLAINTEXT".into(), Endpoint { host: "there".into(), port: 9092 })].into(),
            rack: Some("a".into()),
            fenced: true,
            incarnation: 11,
            directory: Uuid([4; 16]),
            peer: Some(Endpoint { host: "there".into(), port: 9191 }),
            shards: 5,
            batch_bytes_max: Some(1 << 20),
            controller_replica: Some(ReplicaId(300)),
        }
    }

    fn topic(placement: Placement) -> Change {
        let overrides = BTreeMap::from([("segment.bytes".to_owned(), "2000000".to_owned())]);
        Change::CreateTopic(NewTopic { name: "t".into(), id: Uuid([1; 16]), placement, overrides })
    }

    /// One of each kind, and of each form that it has.
    fn all() -> Vec<Change> {
        let (id, assigned) =
            (Uuid([1; 16]), vec![vec![BrokerId(1), BrokerId(2)], vec![BrokerId(2), BrokerId(3)]]);
        let name = || Str::from("segment.bytes");
        let alter = |resource, change| Change::AlterConfigs { resource, change };
        let incremental = vec![(name(), 0, Some("7".into())), (name(), 1, None)];
        let led = Led {
            topic: id,
            partition: 2,
            leader: BrokerId(1),
            epoch: LeaderEpoch(9),
            isr: vec![BrokerId(1), BrokerId(3)],
            settled: true,
        };
        let target = Some(vec![BrokerId(3), BrokerId(1)]);
        let reassign = |target| Change::Reassign { topic: "t".into(), partition: 3, target };
        let (peer, rack) = (Endpoint { host: "there".into(), port: 9191 }, Some("b".into()));
        let join = JoinRequest { directory: Uuid([5; 16]), wanted: None, peer, shards: 2, rack };
        vec![
            topic(Placement::Anywhere { partitions: 3, replication_factor: -1 }),
            topic(Placement::Assigned(assigned.clone())),
            Change::DeleteTopic { id },
            Change::CreatePartitions { topic: "t".into(), count: 4, assigned: None },
            Change::CreatePartitions { topic: "t".into(), count: 4, assigned: Some(assigned) },
            alter(ResourceKey::Topic("t".into()), ConfigChange::Incremental(incremental)),
            alter(ResourceKey::Broker(String::new()), ConfigChange::Replace(vec![(name(), None)])),
            Change::RegisterBroker(broker()),
            Change::Join(JoinRequest { wanted: Some(BrokerId(8)), rack: None, ..join.clone() }),
            Change::Join(join),
            Change::Fence { broker: BrokerId(3), epoch: 7 },
            Change::Unfence { broker: BrokerId(3), epoch: 7 },
            Change::Unregister(BrokerId(3)),
            reassign(target),
            reassign(None),
            Change::Renew { topic: id, partition: 1, broker: BrokerId(2), replica: ReplicaId(1 << 40) },
            Change::Leaders(vec![led.clone(), Led { partition: 1, ..led }]),
            Change::TakeProducerIds,
        ]
    }

    #[test]
    fn every_change_comes_back_as_it_was() {
        for change in all() {
            let bytes = encode(&change).expect("it can be said");
            let again = decode(bytes.clone()).expect("it is a change");
            assert_eq!(again, change);
            assert_eq!(encode(&again).expect("it can be said"), bytes);
        }
    }

    #[test]
    fn bytes_that_are_no_change_are_refused() {
        for change in all() {
            let bytes = encode(&change).expect("it can be said");
            for len in 0..bytes.len() {
                assert!(decode(bytes.slice(..len)).is_err(), "{len} bytes of {change:?}");
            }
            for at in 0..bytes.len() {
                for lie in [0, 0x7f, 0x80, 0xff] {
                    let mut bent = bytes.to_vec();
                    bent[at] = lie;
                    // Nothing panics; what is a change can be said again.
                    if let Ok(change) = decode(bent.into()) {
                        encode(&change).expect("it can be said");
                    }
                }
            }
        }
        for partitions in [-1, 0, i32::MAX] {
            let change = topic(Placement::Anywhere { partitions, replication_factor: 1 });
            assert!(decode(encode(&change).expect("it can be said")).is_err());
        }
        let Change::CreateTopic(new) = topic(Placement::Anywhere { partitions: 1, replication_factor: 1 })
        else {
            panic!("it is a topic");
        };
        for name in ["", "..", "a/b"] {
            let change = Change::CreateTopic(NewTopic { name: name.into(), ..new.clone() });
            assert!(decode(encode(&change).expect("it can be said")).is_err(), "{name:?}");
        }
    }

    #[test]
    fn answers_say_what_a_change_came_to() {
        let refused = ChangeError::in_doubt(ErrorCode::REQUEST_TIMED_OUT, "too late");
        for answer in [Ok(Place { end_offset: 7, next_producer_id: 3_000 }), Err(refused)].map(Answer) {
            let bytes = answer.encode().expect("it can be said");
            assert_eq!(Answer::decode(bytes.clone()), Ok(answer));
            assert!((0..bytes.len()).all(|len| Answer::decode(bytes.slice(..len)).is_err()));
        }
    }
}
