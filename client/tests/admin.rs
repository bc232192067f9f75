//! Administration against a running broker; see `common`.

mod common;
#[path = "common/fake_broker.rs"]
mod fake_broker;

use common::{new_topic, unique, with_client, write};
use corelog_client::{
    ApiKey, Client, ClientConfig, ConfigChange, ConfigResource, ConfigSource, Error, ErrorCode, Isolation,
    NewTopic, OffsetSpec, TopicPartition, block_on,
};
use fake_broker::cluster::{FakeCluster, TOPIC};
use std::time::{Duration, Instant};

#[test]
fn topics_come_and_go() {
    with_client(async |client| {
        let admin = client.admin();
        let name = unique("admin");
        let topic = || NewTopic::new(&name).partitions(3).replication(1).config("retention.ms", "60000");
        let checked = admin.create_topics(vec![topic()], true).await.unwrap();
        checked[0].1.as_ref().unwrap();
        let error = admin.describe_topic(&name).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));

        let created = admin.create_topic(topic()).await.unwrap();
        let error = admin.create_topic(topic()).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
        let described = admin.describe_topic(&name).await.unwrap();
        assert_eq!((described.partitions.len(), described.id), (3, created.id));
        assert!(described.partitions.iter().all(|it| it.leader.is_some() && it.isr.len() == 1));
        assert!(admin.list_topics().await.unwrap().contains(&described));

        admin.create_partitions(&name, 5, false).await.unwrap();
        assert_eq!(admin.describe_topic(&name).await.unwrap().partitions.len(), 5);
        let error = admin.create_partitions(&name, 4, false).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_PARTITIONS), "{error}");

        let absent = unique("absent");
        let deleted = admin.delete_topics(&[&name, &absent]).await.unwrap();
        let outcome = |name: &str| &deleted.iter().find(|(of, _)| of == name).unwrap().1;
        outcome(&name).as_ref().unwrap();
        let error = outcome(&absent).as_ref().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        let assigned = NewTopic::new(unique("assigned")).assignments(vec![vec![i32::MAX]]);
        assert!(matches!(admin.create_topic(assigned).await, Err(Error::Broker { .. })));
    });
}

#[test]
fn configs_are_changed_one_by_one() {
    with_client(async |client| {
        let admin = client.admin();
        let name = unique("configs");
        admin.create_topic(NewTopic::new(&name)).await.unwrap();
        let resource = ConfigResource::topic(&name);
        let entry = async |config: &str| {
            let described = admin.describe_configs(vec![ConfigResource::topic(&name)], true).await.unwrap();
            let entries = described.into_iter().next().unwrap().1.unwrap();
            entries.into_iter().find(|entry| entry.name == config).unwrap()
        };
        let before = entry("retention.ms").await;
        assert_eq!(before.source, ConfigSource::Default);
        assert!(before.documentation.is_some());
        assert!(!entry("max.message.bytes").await.synonyms.is_empty());
        let changes = vec![
            ConfigChange::Set("retention.ms".into(), "123456".into()),
            ConfigChange::Set("max.message.bytes".into(), "2000000".into()),
        ];
        admin.alter_configs(resource.clone(), changes.clone(), true).await.unwrap();
        assert_eq!(entry("retention.ms").await.value, before.value);
        admin.alter_configs(resource.clone(), changes, false).await.unwrap();
        let after = entry("retention.ms").await;
        assert_eq!((after.value.as_deref(), after.source), (Some("123456"), ConfigSource::Topic));
        admin
            .alter_configs(resource.clone(), vec![ConfigChange::Reset("retention.ms".into())], false)
            .await
            .unwrap();
        assert_eq!(entry("retention.ms").await.value, before.value);
        assert_eq!(entry("max.message.bytes").await.value.as_deref(), Some("2000000"));
        let wrong = vec![ConfigChange::Set("retention.ms".into(), "soon".into())];
        let error = admin.alter_configs(resource, wrong, false).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_CONFIG), "{error}");

        let cluster = admin.describe_cluster().await.unwrap();
        let broker = ConfigResource::broker(cluster.brokers[0].id);
        let described = admin.describe_configs(vec![broker], false).await.unwrap();
        assert!(described[0].1.as_ref().unwrap().len() > 20);
    });
}

#[test]
fn the_cluster_is_described() {
    with_client(async |client| {
        let admin = client.admin();
        let topic = new_topic(&client, 2).await;
        write(&client, &topic, 0, 100).await;
        let cluster = admin.describe_cluster().await.unwrap();
        let broker = cluster.brokers[0].id;
        assert!(cluster.id.is_some());
        let apis = admin.api_versions(broker).await.unwrap();
        assert!(apis.iter().any(|range| range.api == Some(ApiKey::Produce) && range.max_version >= 8));
        let dirs = admin.log_dirs(None).await.unwrap();
        let replicas: Vec<_> = dirs
            .iter()
            .flat_map(|(_, dirs)| dirs.as_ref().unwrap())
            .flat_map(|dir| &dir.as_ref().unwrap().replicas)
            .filter(|replica| replica.partition.topic == *topic)
            .collect();
        assert_eq!(replicas.len(), 2);
        assert!(replicas.iter().any(|replica| replica.bytes > 100));
        let error = admin.api_versions(i32::MAX).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BROKER_NOT_AVAILABLE));
    });
}

#[test]
fn records_are_deleted_from_the_front() {
    with_client(async |client| {
        let admin = client.admin();
        let topic = new_topic(&client, 2).await;
        let (a, b) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
        write(&client, &topic, 0, 10).await;
        write(&client, &topic, 1, 10).await;
        let before = vec![(a.clone(), 4), (b.clone(), -1), (TopicPartition::new(&*topic, 7), 0)];
        for (at, outcome) in admin.delete_records(before).await.unwrap() {
            match at.partition {
                0 => assert_eq!(outcome.unwrap(), 4),
                1 => assert_eq!(outcome.unwrap(), 10),
                _ => assert_eq!(outcome.unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)),
            }
        }
        let listed = admin.list_offsets(
            vec![(a, OffsetSpec::Earliest), (b, OffsetSpec::Earliest)],
            Isolation::ReadCommitted,
        );
        let first: Vec<_> = listed.await.into_iter().map(|(_, listed)| listed.unwrap().offset).collect();
        assert_eq!(first, [Some(4), Some(10)]);
    });
}

fn of_fake(cluster: &FakeCluster, test: impl AsyncFnOnce(corelog_client::Admin)) {
    block_on(async {
        let client = Client::connect(ClientConfig::new(&cluster.address)).await.unwrap();
        test(client.admin()).await;
    });
}

#[test]
fn replicas_are_moved_and_moves_are_taken_back() {
    let cluster = FakeCluster::start(&[&[1], &[2, 3]]);
    of_fake(&cluster, async |admin| {
        let (first, second, absent) =
            (TopicPartition::new(TOPIC, 0), TopicPartition::new(TOPIC, 1), TopicPartition::new(TOPIC, 7));
        assert!(admin.reassignments(None).await.unwrap().is_empty());
        let targets = vec![
            (first.clone(), Some(vec![1, 2])),
            (second.clone(), Some(vec![1, 3])),
            (absent.clone(), Some(vec![1])),
        ];
        let outcomes = admin.reassign(targets).await.unwrap();
        let refused: Vec<_> =
            outcomes.into_iter().filter_map(|(at, it)| Some((at, it.err()?.code()))).collect();
        assert_eq!(refused, [(absent, Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))]);
        let moving = admin.reassignments(None).await.unwrap();
        assert_eq!((&moving[&first].adding, &moving[&first].removing), (&vec![2], &vec![]));
        assert_eq!((moving[&second].target(), &moving[&second].removing), (vec![1, 3], &vec![2]));
        admin.reassign(vec![(second.clone(), None)]).await.unwrap().remove(0).1.unwrap();
        let again = admin.reassign(vec![(second, None)]).await.unwrap().remove(0).1.unwrap_err();
        assert_eq!(again.code(), Some(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
        while !admin.reassignments(None).await.unwrap().is_empty() {}
        let topic = admin.describe_topic(TOPIC).await.unwrap();
        let replicas: Vec<_> = topic.partitions.into_iter().map(|it| it.replicas).collect();
        assert_eq!(replicas, [vec![1, 2], vec![2, 3]]);
    });
}

#[test]
fn preferred_leaders_are_elected() {
    let cluster = FakeCluster::start(&[&[1, 2], &[2, 3]]);
    cluster.state.lock().unwrap().partitions[1].leader = 3;
    of_fake(&cluster, async |admin| {
        let elected = admin.elect_preferred_leaders(None).await.unwrap();
        let elected: Vec<_> =
            elected.into_iter().map(|(at, outcome)| (at.partition, outcome.is_ok())).collect();
        assert_eq!(elected, [(1, true)]);
        // It is as was asked for.
        let named = vec![TopicPartition::new(TOPIC, 0)];
        admin.elect_preferred_leaders(Some(named)).await.unwrap().remove(0).1.unwrap();
    });
}

#[test]
fn brokers_that_are_not_there_are_told_and_can_be_forgotten() {
    let cluster = FakeCluster::start(&[&[1, 2]]);
    cluster.state.lock().unwrap().fenced.insert(3);
    of_fake(&cluster, async |admin| {
        let brokers = admin.registered_brokers().await.unwrap();
        let told: Vec<_> = brokers.iter().map(|broker| (broker.id, broker.is_fenced)).collect();
        assert_eq!(told, [(1, false), (2, false), (3, true)]);
        assert_eq!(admin.describe_cluster().await.unwrap().brokers.len(), 2);
        let error = admin.unregister_broker(1).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{error}");
        admin.unregister_broker(3).await.unwrap();
        assert_eq!(admin.registered_brokers().await.unwrap().len(), 2);
        let error = admin.unregister_broker(3).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BROKER_ID_NOT_REGISTERED));
    });
}

#[test]
fn the_controllers_group_is_described() {
    let cluster = FakeCluster::start(&[]);
    of_fake(&cluster, async |admin| {
        let quorum = admin.describe_quorum().await.unwrap();
        assert_eq!((quorum.leader, quorum.leader_epoch, quorum.high_watermark), (Some(1), 4, 9));
        let voters: Vec<_> = quorum.voters.iter().map(|it| (it.broker, it.log_end_offset)).collect();
        assert_eq!(voters, [(1, Some(9)), (2, Some(9)), (3, Some(9))]);
        cluster.state.lock().unwrap().has_no_quorum = true;
        assert_eq!(admin.describe_quorum().await.unwrap_err().code(), Some(ErrorCode::INVALID_REQUEST));
    });
}

#[test]
fn whoever_cannot_be_reached_is_named() {
    let started = Instant::now();
    // Port 1 of the loopback interface: nothing listens there.
    let error = block_on(Client::connect(ClientConfig::new("127.0.0.1:1"))).unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(block_on(Client::connect(ClientConfig::new("nonsense:port"))).is_err());
}

/// The futures run on any executor and may move between threads.
#[test]
fn futures_are_send() {
    fn send<T: Send>(_: T) {}
    with_client(async |client| {
        let topic = new_topic(&client, 1).await;
        let producer = client.producer(Default::default()).unwrap();
        let consumer = client.consumer(Default::default()).unwrap();
        send(producer.send(corelog_client::ProducerRecord::to(&*topic)));
        send(producer.flush());
        send(consumer.poll(Duration::ZERO));
        send(consumer.commit());
        send(client.admin().list_topics());
        send(client.admin().describe_groups(&["g"]));
    });
}
