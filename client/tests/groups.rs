//! Consumer groups against a running broker; see `common`.
// What listeners saw: no data core.
#![allow(clippy::disallowed_types)]

mod common;

use common::{new_topic, read, unique, with_client, write};
use corelog_client::{
    Assignor, Client, Consumer, ConsumerConfig, Error, ErrorCode, RebalanceEvent, RebalanceListener,
    TopicPartition,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn config(group: &str) -> ConsumerConfig {
    ConsumerConfig {
        heartbeat_interval: Duration::from_millis(200),
        ..ConsumerConfig::group(group).from_earliest()
    }
}

fn member(client: &Client, config: ConsumerConfig, topic: &str) -> Consumer {
    let consumer = client.consumer(config).unwrap();
    consumer.subscribe([topic]).unwrap();
    consumer
}

const SOON: Duration = Duration::from_millis(50);

/// Lets all of them poll until they share `partitions`, each having at least one. What they read is dropped.
async fn settle(consumers: &[&Consumer], partitions: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stable = 0;
    // Twice in a row, since with some members of the old and some of the new generation it may look so by chance.
    while stable < 4 {
        for consumer in consumers {
            consumer.poll(SOON).await.unwrap();
        }
        let all: Vec<Vec<TopicPartition>> = consumers.iter().map(|consumer| consumer.assignment()).collect();
        let distinct: BTreeSet<&TopicPartition> = all.iter().flatten().collect();
        let shared = distinct.len() == partitions && all.iter().all(|it| !it.is_empty());
        let exact = all.iter().map(Vec::len).sum::<usize>() == partitions;
        stable = if shared && exact { stable + 1 } else { 0 };
        assert!(Instant::now() < deadline, "they do not settle: {all:?}");
    }
}

#[test]
fn a_group_goes_on_where_it_left_off() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 1).await, unique("group"));
        write(&client, &topic, 0, 10).await;
        let first = member(&client, ConsumerConfig { poll_records_max: 4, ..config(&group) }, &topic);
        assert_eq!(read(&first, 4).await.len(), 4);
        assert_eq!(read(&first, 4).await.last().unwrap().offset, 7);
        first.close().await.unwrap();
        let at = TopicPartition::new(&*topic, 0);
        assert_eq!(client.admin().group_offsets(&group).await.unwrap()[&at].offset, 8);
        let second = member(&client, config(&group), &topic);
        assert_eq!(read(&second, 2).await[0].offset, 8);
        // By hand: some, all, and what is committed.
        second.commit_offsets([(at.clone(), 3.into())].into()).await.unwrap();
        assert_eq!(second.committed(std::slice::from_ref(&at)).await.unwrap()[&at], 3);
        second.commit().await.unwrap();
        assert_eq!(second.committed(std::slice::from_ref(&at)).await.unwrap()[&at], 10);
        second.seek(&at, 5).unwrap();
        second.commit_in_background().unwrap();
        assert_eq!(read(&second, 5).await[0].offset, 5);
        second.close().await.unwrap();
        assert_eq!(client.admin().group_offsets(&group).await.unwrap()[&at].offset, 10);
    });
}

#[test]
fn without_automatic_commits_nothing_is_committed() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 1).await, unique("group"));
        write(&client, &topic, 0, 3).await;
        for _ in 0..2 {
            let consumer = member(&client, ConsumerConfig { auto_commit: None, ..config(&group) }, &topic);
            assert_eq!(read(&consumer, 3).await[0].offset, 0);
            consumer.close().await.unwrap();
        }
        assert!(client.admin().group_offsets(&group).await.unwrap().is_empty());
    });
}

#[test]
fn commits_are_made_at_intervals_for_what_is_processed() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 1).await, unique("group"));
        write(&client, &topic, 0, 6).await;
        let config = ConsumerConfig {
            auto_commit: Some(Duration::from_millis(100)),
            poll_records_max: 3,
            ..config(&group)
        };
        let consumer = member(&client, config, &topic);
        let at = TopicPartition::new(&*topic, 0);
        read(&consumer, 3).await;
        // Handed out, but the application may still be at work on them.
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(client.admin().group_offsets(&group).await.unwrap().get(&at), None);
        read(&consumer, 3).await;
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(client.admin().group_offsets(&group).await.unwrap()[&at].offset, 3);
    });
}

#[test]
fn members_share_and_take_over() {
    with_client(async |client| {
        for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky] {
            let (topic, group) = (new_topic(&client, 6).await, unique("group"));
            let config = ConsumerConfig { assignors: vec![assignor], ..config(&group) };
            let first = member(&client, config.clone(), &topic);
            settle(&[&first], 6).await;
            let second = member(&client, config.clone(), &topic);
            settle(&[&first, &second], 6).await;
            let third = member(&client, config.clone(), &topic);
            settle(&[&first, &second, &third], 6).await;
            assert!([&first, &second, &third].iter().all(|it| it.assignment().len() == 2), "{assignor}");

            let described = client.admin().describe_group(&group).await.unwrap();
            assert_eq!((described.state.as_str(), described.protocol.as_str()), ("Stable", assignor.name()));
            assert_eq!(described.members.len(), 3);
            let assigned: BTreeSet<_> = described.members.iter().flat_map(|it| it.assigned.clone()).collect();
            assert_eq!(assigned.len(), 6);

            second.close().await.unwrap();
            settle(&[&first, &third], 6).await;
            for partition in 0..6 {
                write(&client, &topic, partition, 10).await;
            }
            let mut seen = BTreeSet::new();
            let deadline = Instant::now() + Duration::from_secs(20);
            while seen.len() < 60 {
                for consumer in [&first, &third] {
                    for record in consumer.poll(SOON).await.unwrap() {
                        assert!(seen.insert((record.partition, record.offset)), "read once");
                    }
                }
                assert!(Instant::now() < deadline);
            }
            first.close().await.unwrap();
            third.close().await.unwrap();
        }
    });
}

#[test]
fn cooperative_members_keep_what_stays_theirs() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 4).await, unique("group"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let events = events.clone();
            RebalanceListener(Arc::new(move |event| events.lock().unwrap().push(event.clone())))
        };
        let config = ConsumerConfig { assignors: vec![Assignor::CooperativeSticky], ..config(&group) };
        let first =
            member(&client, ConsumerConfig { rebalance_listener: Some(listener), ..config.clone() }, &topic);
        settle(&[&first], 4).await;
        let before = first.assignment();
        let second = member(&client, config, &topic);
        settle(&[&first, &second], 4).await;
        let events = events.lock().unwrap();
        let revoked = events.iter().filter_map(|event| match event {
            RebalanceEvent::Revoked(partitions) => Some(partitions.clone()),
            RebalanceEvent::Lost(partitions) => panic!("lost {partitions:?}"),
            RebalanceEvent::Assigned(_) => None,
        });
        let revoked: Vec<_> = revoked.flatten().collect();
        assert_eq!(revoked.len(), 2, "only what moves is revoked: {events:?}");
        assert!(first.assignment().iter().all(|at| before.contains(at) && !revoked.contains(at)));
        assert!(matches!(&events[0], RebalanceEvent::Assigned(all) if all.len() == 4));
    });
}

#[test]
fn no_partition_has_two_owners_when_a_cooperative_member_drops_a_topic() {
    with_client(async |client| {
        let (kept, dropped, group) =
            (new_topic(&client, 2).await, new_topic(&client, 6).await, unique("group"));
        let (owned, twice) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(Vec::new())));
        let listener = || {
            let (owned, twice) = (owned.clone(), twice.clone());
            RebalanceListener(Arc::new(move |event: &RebalanceEvent| {
                let mut owned = owned.lock().unwrap();
                match event {
                    RebalanceEvent::Assigned(new) => {
                        let taken = new.iter().filter(|at| !owned.insert((*at).clone()));
                        twice.lock().unwrap().extend(taken.cloned());
                    }
                    RebalanceEvent::Revoked(gone) | RebalanceEvent::Lost(gone) => {
                        owned.retain(|at| !gone.contains(at));
                    }
                }
            }))
        };
        let member = || {
            let config = ConsumerConfig {
                assignors: vec![Assignor::CooperativeSticky],
                rebalance_listener: Some(listener()),
                ..config(&group)
            };
            let consumer = client.consumer(config).unwrap();
            consumer.subscribe([&*kept, &*dropped]).unwrap();
            consumer
        };
        let (first, second) = (member(), member());
        settle(&[&first, &second], 8).await;
        first.subscribe([&*kept]).unwrap();
        // As long as it does not poll it may be at work on what it had.
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            second.poll(SOON).await.unwrap();
        }
        settle(&[&first, &second], 8).await;
        assert!(first.assignment().iter().all(|at| at.topic == *kept));
        assert_eq!(*twice.lock().unwrap(), []);
    });
}

#[test]
fn new_partitions_and_new_subscriptions_are_shared_out() {
    with_client(async |client| {
        let (topic, other, group) =
            (new_topic(&client, 1).await, new_topic(&client, 2).await, unique("group"));
        let consumer = member(&client, config(&group), &topic);
        settle(&[&consumer], 1).await;
        consumer.subscribe([&*topic, &*other]).unwrap();
        settle(&[&consumer], 3).await;
        client.admin().create_partitions(&topic, 3, false).await.unwrap();
        settle(&[&consumer], 5).await;
        consumer.unsubscribe();
        let deadline = Instant::now() + Duration::from_secs(10);
        while client.admin().describe_group(&group).await.is_ok_and(|group| !group.members.is_empty()) {
            assert!(Instant::now() < deadline, "it leaves");
        }
        assert!(consumer.assignment().is_empty());
    });
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 2).await, unique("group"));
        let events = Arc::new(Mutex::new(0));
        let listener = {
            let events = events.clone();
            RebalanceListener(Arc::new(move |_| *events.lock().unwrap() += 1))
        };
        let with_id = |id: &str| ConsumerConfig { instance_id: Some(id.to_owned()), ..config(&group) };
        let first =
            member(&client, ConsumerConfig { rebalance_listener: Some(listener), ..with_id("a") }, &topic);
        let second = member(&client, with_id("b"), &topic);
        settle(&[&first, &second], 2).await;
        let (had, told) = (second.assignment(), *events.lock().unwrap());
        second.close().await.unwrap();
        let second = member(&client, with_id("b"), &topic);
        settle(&[&first, &second], 2).await;
        assert_eq!(second.assignment(), had);
        assert_eq!(*events.lock().unwrap(), told, "the other one noticed nothing");
        // A third one by the same name takes its place.
        let usurper = member(&client, with_id("b"), &topic);
        settle(&[&first, &usurper], 2).await;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match second.poll(SOON).await {
                Err(Error::NotMember { reason, .. }) => {
                    break assert!(reason.contains("instance_id"), "{reason}");
                }
                Err(error) => panic!("{error}"),
                Ok(_) => assert!(Instant::now() < deadline, "it is fenced"),
            }
        }
    });
}

#[test]
fn whoever_does_not_poll_loses_its_partitions_and_gets_them_back() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 2).await, unique("group"));
        let idle = ConsumerConfig { poll_interval_max: Duration::from_secs(1), ..config(&group) };
        let (first, second) = (member(&client, idle, &topic), member(&client, config(&group), &topic));
        settle(&[&first, &second], 2).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while second.assignment().len() < 2 {
            second.poll(SOON).await.unwrap();
            assert!(Instant::now() < deadline, "the other one takes over");
        }
        assert!(matches!(first.poll(SOON).await, Err(Error::NotMember { .. })));
        settle(&[&first, &second], 2).await;
    });
}

#[test]
fn groups_are_listed_moved_and_deleted() {
    with_client(async |client| {
        let (topic, group) = (new_topic(&client, 2).await, unique("group"));
        write(&client, &topic, 0, 10).await;
        let admin = client.admin();
        let (a, b) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
        let consumer = member(&client, config(&group), &topic);
        read(&consumer, 10).await;
        let set = admin.set_group_offsets(&group, [(a.clone(), 4.into())].into()).await.unwrap();
        assert!(set[0].1.is_err(), "it has a member");
        let deleted = admin.delete_groups(&[&group]).await;
        assert_eq!(deleted[0].1.as_ref().unwrap_err().code(), Some(ErrorCode::NON_EMPTY_GROUP));
        let listed = admin.list_groups().await.unwrap();
        let listed = listed.iter().find(|listed| listed.name == group).unwrap();
        assert_eq!((listed.state.as_str(), listed.protocol_type.as_str()), ("Stable", "consumer"));
        consumer.close().await.unwrap();

        let set =
            admin.set_group_offsets(&group, [(a.clone(), 4.into()), (b.clone(), 0.into())].into()).await;
        assert!(set.unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
        assert_eq!(admin.group_offsets(&group).await.unwrap().len(), 2);
        let consumer = member(&client, config(&group), &topic);
        assert_eq!(read(&consumer, 6).await[0].offset, 4);
        consumer.close().await.unwrap();
        let outcomes = admin.delete_group_offsets(&group, vec![b.clone()]).await.unwrap();
        assert!(outcomes[0].1.is_ok());
        assert_eq!(admin.group_offsets(&group).await.unwrap().keys().collect::<Vec<_>>(), [&a]);
        admin.delete_groups(&[&group]).await[0].1.as_ref().unwrap();
        let error = admin.describe_group(&group).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::GROUP_ID_NOT_FOUND));
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    with_client(async |client| {
        let consumer = client.consumer(ConsumerConfig::default()).unwrap();
        assert!(consumer.subscribe(["t"]).unwrap_err().to_string().contains("no group"));
        assert!(consumer.commit().await.is_err());
        let consumer = client.consumer(config("g")).unwrap();
        assert!(consumer.subscribe([]).is_err());
        consumer.subscribe(["t"]).unwrap();
        assert!(consumer.assign([TopicPartition::new("t", 0)]).is_err());
    });
}
