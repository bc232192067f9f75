//! Administration against a running broker; see `common`.

mod common;

use common::{new_topic, unique, with_client, write};
use corelog_client::{
    ApiKey, Client, ClientConfig, ConfigChange, ConfigResource, ConfigSource, Error, ErrorCode, Isolation,
    NewTopic, OffsetSpec, TopicPartition, block_on,
};
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
        let name = new_topic(&client, 1).await;
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
