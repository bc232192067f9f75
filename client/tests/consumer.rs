//! What a consumer promises, whatever brokers do: against one that misbehaves on demand.
// What listeners saw: no data core.
#![allow(clippy::disallowed_types)]

#[path = "common/fake_broker.rs"]
mod fake_broker;

use corelog_client::{
    ApiKey, Assignor, Client, ClientConfig, Consumer, ConsumerConfig, ConsumerRecord, Error, ErrorCode,
    OffsetReset, OffsetSpec, RebalanceEvent, RebalanceListener, TopicPartition, block_on,
};
use corelog_wire::testing::Random;
use fake_broker::FakeBroker;
use fake_broker::reading::{Asked, Fate, PATIENCE, Reading, Script, State};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(20);
/// Long enough for what must not happen to happen.
const A_WHILE: Duration = Duration::from_millis(400);

fn at(topic: &'static str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn start(nodes: i32, script: impl FnMut(&Asked) -> Fate + Send + 'static) -> (Client, Arc<Reading>) {
    start_with(nodes, script, |_| ())
}

fn start_with(
    nodes: i32,
    script: impl FnMut(&Asked) -> Fate + Send + 'static,
    change: impl FnOnce(&mut ClientConfig),
) -> (Client, Arc<Reading>) {
    let script: Script = Box::new(script);
    let (address, broker) = FakeBroker::start_reading(nodes, script);
    let mut config = ClientConfig::new(&address);
    (config.retry_backoff, config.reconnect_backoff) = (Duration::from_millis(50), Duration::from_millis(1));
    change(&mut config);
    (block_on(Client::connect(config)).unwrap(), broker)
}

/// Does it on a thread of its own, which is left behind if it hangs.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = std::sync::mpsc::channel();
    std::thread::spawn(move || tx.send(work()));
    rx.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

fn answered(_: &Asked) -> Fate {
    Fate::Answered
}

fn config() -> ConsumerConfig {
    ConsumerConfig {
        heartbeat_interval: Duration::from_millis(20),
        auto_commit: None,
        ..ConsumerConfig::group("g").from_earliest()
    }
}

fn by_hand(client: &Client, config: ConsumerConfig, partitions: &[TopicPartition]) -> Consumer {
    let consumer = client.consumer(config).unwrap();
    consumer.assign(partitions.iter().cloned()).unwrap();
    consumer
}

fn member(client: &Client, config: ConsumerConfig, topics: &[&str]) -> Consumer {
    let consumer = client.consumer(config).unwrap();
    consumer.subscribe(topics.iter().copied()).unwrap();
    consumer
}

/// Polls until there are so many records.
fn read(consumer: &Consumer, count: usize) -> Vec<ConsumerRecord> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", records.len());
        records.extend(block_on(consumer.poll(SOON)).unwrap());
    }
    records
}

fn offsets(records: &[ConsumerRecord]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}

fn poll_until(consumer: &Consumer, what: &str, mut until: impl FnMut(&Consumer) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until(consumer) {
        assert!(Instant::now() < deadline, "{what}");
        block_on(consumer.poll(SOON)).unwrap();
    }
}

/// The first error that polling gives.
fn poll_error(consumer: &Consumer) -> Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no error");
        if let Err(error) = block_on(consumer.poll(SOON)) {
            return error;
        }
    }
}

// What is committed.

#[test]
fn dropped_in_the_middle_of_a_batch_a_consumer_commits_what_came_before_it_at_most() {
    for panics in [false, true] {
        let (client, broker) = start(1, answered);
        broker.append(&at("t", 0), 0, 10);
        let auto_commit = Some(Duration::from_secs(3600));
        let consumer =
            member(&client, ConsumerConfig { auto_commit, poll_records_max: 4, ..config() }, &["t"]);
        assert_eq!(offsets(&read(&consumer, 4)), [0, 1, 2, 3]);
        assert_eq!(offsets(&read(&consumer, 4)), [4, 5, 6, 7]);
        let died = catch_unwind(AssertUnwindSafe(|| {
            let _consumer = consumer;
            assert!(!panics, "on purpose, in a test");
        }));
        assert_eq!(died.is_err(), panics);
        broker.wait("it leaves", |state| state.count(ApiKey::LeaveGroup) == 1);
        let committed = broker.lock().commits.clone();
        assert!(committed.iter().all(|(_, offset)| *offset <= 4), "{committed:?}");
    }
}

#[test]
fn closing_commits_what_was_polled() {
    for subscribes in [false, true] {
        let (client, broker) = start(1, answered);
        broker.append(&at("t", 0), 0, 10);
        let config = ConsumerConfig { auto_commit: Some(Duration::from_secs(3600)), ..config() };
        let consumer = match subscribes {
            true => member(&client, config, &["t"]),
            false => by_hand(&client, config, &[at("t", 0)]),
        };
        read(&consumer, 10);
        block_on(consumer.close()).unwrap();
        let committed = broker.lock().committed.get(&at("t", 0)).copied();
        assert_eq!(committed, Some((10, 0)), "subscribes: {subscribes}");
    }
}

#[test]
fn what_the_application_gives_up_is_committed() {
    for subscribes in [true, false] {
        let (client, broker) = start(1, answered);
        broker.append(&at("t", 0), 0, 4);
        let auto_commit = Some(Duration::from_secs(3600));
        let config = ConsumerConfig { auto_commit, poll_records_max: 2, ..config() };
        let consumer = match subscribes {
            true => member(&client, config, &["t"]),
            false => by_hand(&client, config, &[at("t", 0)]),
        };
        read(&consumer, 2);
        read(&consumer, 2);
        if subscribes {
            consumer.unsubscribe();
        }
        consumer.assign([at("u", 0)]).unwrap();
        broker.wait("what is processed is committed", |state| {
            state.committed.get(&at("t", 0)) == Some(&(2, 0))
        });
    }
}

#[test]
fn where_to_begin_is_not_asked_before_what_is_being_committed_is_there() {
    let refuses = Arc::new(AtomicBool::new(true));
    let script = refuses.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::OffsetCommit if script.load(Ordering::SeqCst) => {
            Fate::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
        }
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 2);
    let consumer = by_hand(&client, ConsumerConfig { poll_records_max: 1, ..config() }, &[at("t", 0)]);
    read(&consumer, 1);
    consumer.commit_in_background().unwrap();
    consumer.assign([]).unwrap();
    consumer.assign([at("t", 0)]).unwrap();
    sleep(A_WHILE);
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(offsets(&read(&consumer, 1)), [1]);
}

#[test]
fn closing_tells_when_the_last_commit_fails() {
    let (client, broker) = start(1, |asked| match asked.api {
        ApiKey::OffsetCommit => Fate::Refused(ErrorCode::GROUP_AUTHORIZATION_FAILED),
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 1);
    let auto_commit = Some(Duration::from_secs(3600));
    let consumer = member(&client, ConsumerConfig { auto_commit, ..config() }, &["t"]);
    read(&consumer, 1);
    let error = block_on(consumer.close()).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::GROUP_AUTHORIZATION_FAILED));
    assert!(broker.lock().members.is_empty(), "it left all the same");
}

#[test]
fn an_older_commit_never_lands_after_a_newer_one() {
    let refusals = AtomicUsize::new(1);
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::OffsetCommit
            if refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1)).is_ok() =>
        {
            Fate::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
        }
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 2);
    let consumer = by_hand(&client, ConsumerConfig { poll_records_max: 1, ..config() }, &[at("t", 0)]);
    read(&consumer, 1);
    consumer.commit_in_background().unwrap();
    broker.wait("it is refused", |state| state.count(ApiKey::OffsetCommit) == 1);
    read(&consumer, 1);
    block_on(consumer.commit()).unwrap();
    sleep(A_WHILE);
    let commits = broker.lock().commits.clone();
    assert!(commits.is_sorted() && commits.last().unwrap().1 == 2, "{commits:?}");
}

#[test]
fn one_commit_is_under_way_and_the_next_has_the_latest_of_all_others() {
    let (client, broker) = start(1, |asked| match asked.api {
        ApiKey::OffsetCommit => Fate::Held,
        _ => Fate::Answered,
    });
    let consumer = by_hand(&client, config(), &[at("t", 0), at("t", 1)]);
    let commit =
        |partition, offset: i64| consumer.commit_offsets([(at("t", partition), offset.into())].into());
    let background = |partition, offset| {
        consumer.seek(&at("t", partition), offset).unwrap();
        consumer.commit_in_background().unwrap();
    };
    background(0, 1);
    broker.wait("the first goes out", |state| state.count(ApiKey::OffsetCommit) == 1);
    (2..8).for_each(|offset| background(0, offset));
    background(1, 5);
    let releasing = {
        let broker = broker.clone();
        std::thread::spawn(move || {
            sleep(Duration::from_millis(100));
            broker.release();
        })
    };
    block_on(commit(0, 9)).unwrap();
    releasing.join().unwrap();
    assert_eq!(broker.lock().commits, [(at("t", 0), 1), (at("t", 0), 9), (at("t", 1), 5)]);
}

#[test]
fn commits_under_way_are_made_before_the_consumer_ends() {
    for (subscribes, closes) in [(true, true), (true, false), (false, true), (false, false)] {
        let (client, broker) = start(1, |asked| match asked.api {
            ApiKey::OffsetCommit => Fate::Held,
            _ => Fate::Answered,
        });
        broker.append(&at("t", 0), 0, 2);
        let one = ConsumerConfig { poll_records_max: 1, ..config() };
        let consumer = match subscribes {
            true => member(&client, one, &["t"]),
            false => by_hand(&client, one, &[at("t", 0)]),
        };
        for _ in 0..2 {
            read(&consumer, 1);
            consumer.commit_in_background().unwrap();
        }
        let releasing = {
            let broker = broker.clone();
            std::thread::spawn(move || {
                sleep(Duration::from_millis(50));
                broker.release();
            })
        };
        match closes {
            true => block_on(consumer.close()).unwrap(),
            false => drop(consumer),
        }
        broker.wait("both are made", |state| state.committed.get(&at("t", 0)) == Some(&(2, 0)));
        releasing.join().unwrap();
    }
}

#[test]
fn an_automatic_commit_does_not_undo_an_explicit_one() {
    let (client, broker) = start(1, answered);
    broker.append(&at("t", 0), 0, 8);
    let auto_commit = Some(Duration::from_millis(20));
    let consumer =
        by_hand(&client, ConsumerConfig { auto_commit, poll_records_max: 4, ..config() }, &[at("t", 0)]);
    read(&consumer, 4);
    read(&consumer, 4);
    block_on(consumer.commit()).unwrap();
    sleep(A_WHILE);
    let commits = broker.lock().commits.clone();
    assert!(commits.is_sorted() && commits.last().unwrap().1 == 8, "{commits:?}");
}

#[test]
fn a_commit_is_not_retried_for_a_partition_that_was_lost() {
    let refuses = Arc::new(AtomicBool::new(true));
    let script = refuses.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::OffsetCommit if script.load(Ordering::SeqCst) => {
            Fate::Refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
        }
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 1);
    let consumer = member(&client, config(), &["t"]);
    read(&consumer, 1);
    consumer.commit_in_background().unwrap();
    broker.wait("it is tried", |state| state.count(ApiKey::OffsetCommit) > 0);
    broker.lock().heartbeat = Some(ErrorCode::UNKNOWN_MEMBER_ID);
    let told = poll_error(&consumer);
    assert!(matches!(told, Error::NotMember { .. }), "{told}");
    // It gets the same partition again, in a later generation.
    assert_eq!(offsets(&read(&consumer, 1)), [0]);
    refuses.store(false, Ordering::SeqCst);
    sleep(A_WHILE);
    assert_eq!(broker.lock().commits, []);
}

// Membership.

#[test]
fn a_member_that_a_commit_tells_that_it_is_none_joins_again() {
    for is_forgotten in [false, true] {
        let (client, broker) = start(1, answered);
        let config = ConsumerConfig {
            auto_commit: Some(Duration::from_millis(20)),
            // No heartbeat tells.
            heartbeat_interval: Duration::from_secs(40),
            ..config()
        };
        let consumer = member(&client, config, &["t"]);
        broker.append(&at("t", 0), 0, 1);
        read(&consumer, 1);
        {
            let mut state = broker.lock();
            match is_forgotten {
                true => state.members.clear(),
                false => state.members.values_mut().for_each(|generation| *generation += 1),
            }
        }
        broker.append(&at("t", 0), 0, 1);
        let has_committed = |_: &Consumer| broker.lock().committed.get(&at("t", 0)) == Some(&(2, 0));
        poll_until(&consumer, "all is committed", has_committed);
        assert_eq!(broker.lock().count(ApiKey::JoinGroup), 2);
    }
}

#[test]
fn a_commit_while_the_group_has_its_next_generation_already_is_made_in_that() {
    let holds = Arc::new(AtomicBool::new(false));
    let script = holds.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::SyncGroup if script.load(Ordering::SeqCst) => Fate::Held,
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 1);
    let config = ConsumerConfig { assignors: vec![Assignor::CooperativeSticky], ..config() };
    let consumer = member(&client, config, &["t"]);
    read(&consumer, 1);
    holds.store(true, Ordering::SeqCst);
    let syncs = broker.lock().count(ApiKey::SyncGroup);
    broker.lock().heartbeat = Some(ErrorCode::REBALANCE_IN_PROGRESS);
    broker.wait("it syncs", |state| state.count(ApiKey::SyncGroup) > syncs);
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| block_on(consumer.commit()));
        broker.wait("it commits", |state| state.count(ApiKey::OffsetCommit) > 0);
        holds.store(false, Ordering::SeqCst);
        broker.release();
        committing.join().unwrap().unwrap();
    });
    assert_eq!(broker.lock().committed[&at("t", 0)].0, 1);
}

#[test]
fn a_listener_that_panics_is_an_error_of_polls_and_the_client_goes_on() {
    let (client, broker) = start(1, answered);
    broker.append(&at("t", 0), 0, 1);
    let listener = |event: &RebalanceEvent| panic!("on purpose, in a test: {event:?}");
    let config =
        ConsumerConfig { rebalance_listener: Some(RebalanceListener(Arc::new(listener))), ..config() };
    let consumer = member(&client, config, &["t"]);
    let error = poll_error(&consumer);
    assert!(error.to_string().contains("on purpose"), "{error}");
    read(&consumer, 1);
    consumer.unsubscribe();
    assert!(matches!(poll_error(&consumer), Error::ListenerPanicked { .. }));
    let other = by_hand(&client, self::config(), &[at("t", 0)]);
    read(&other, 1);
    block_on(consumer.close()).unwrap();
}

#[test]
fn what_is_no_longer_subscribed_is_given_up_before_joining_again() {
    let (client, broker) = start(1, answered);
    let events = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let (events, broker) = (events.clone(), broker.clone());
        RebalanceListener(Arc::new(move |event| {
            let joins = broker.lock().count(ApiKey::JoinGroup);
            events.lock().unwrap().push((joins, event.clone()));
        }))
    };
    let config = ConsumerConfig {
        assignors: vec![Assignor::CooperativeSticky],
        rebalance_listener: Some(listener),
        ..config()
    };
    let consumer = member(&client, config, &["t", "u"]);
    poll_until(&consumer, "it gets all", |it| it.assignment().len() == 4);
    let joins = broker.lock().count(ApiKey::JoinGroup);
    consumer.subscribe(["u"]).unwrap();
    poll_until(&consumer, "it keeps two", |it| it.assignment().len() == 2);
    broker.wait("it joins again", |state| state.count(ApiKey::JoinGroup) > joins);
    let revoked = RebalanceEvent::Revoked(vec![at("t", 0), at("t", 1)]);
    assert!(events.lock().unwrap().contains(&(joins, revoked)), "{:?}", events.lock().unwrap());
    let state = broker.lock();
    let join = state.asked.iter().filter(|asked| asked.api == ApiKey::JoinGroup).nth(joins).unwrap();
    assert_eq!(join.partitions.keys().collect::<Vec<_>>(), [&at("u", 0), &at("u", 1)]);
}

#[test]
fn whoever_never_polls_leaves_and_comes_back_with_a_poll() {
    let (client, broker) = start(1, answered);
    let events = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let events = events.clone();
        RebalanceListener(Arc::new(move |event| events.lock().unwrap().push(event.clone())))
    };
    let consumer = member(
        &client,
        ConsumerConfig {
            poll_interval_max: Duration::from_millis(200),
            rebalance_listener: Some(listener),
            ..config()
        },
        &["t"],
    );
    broker.wait("it joins", |state| state.count(ApiKey::SyncGroup) == 1);
    broker.wait("it leaves", |state| state.count(ApiKey::LeaveGroup) == 1 && state.members.is_empty());
    assert!(consumer.assignment().is_empty());
    let lost = RebalanceEvent::Lost(vec![at("t", 0), at("t", 1)]);
    assert_eq!(events.lock().unwrap().last(), Some(&lost));
    sleep(A_WHILE);
    assert_eq!(broker.lock().count(ApiKey::JoinGroup), 1, "nobody polls");
    // Who polls without waiting is one who polls.
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    while consumer.assignment().is_empty() {
        assert!(Instant::now() < deadline, "it comes back");
        match block_on(consumer.poll(Duration::ZERO)) {
            Err(Error::NotMember { reason, .. }) => told |= reason.contains("poll_interval_max"),
            polled => drop(polled.unwrap()),
        }
        sleep(Duration::from_millis(1));
    }
    assert!(told);
}

#[test]
fn an_idle_static_member_lets_its_session_end() {
    let (client, broker) = start(1, answered);
    let config = ConsumerConfig {
        poll_interval_max: Duration::from_millis(200),
        instance_id: Some("i".to_owned()),
        ..config()
    };
    let consumer = member(&client, config, &["t"]);
    broker.wait("it joins", |state| state.count(ApiKey::SyncGroup) == 1);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(block_on(consumer.poll(Duration::ZERO)).err(), Some(Error::NotMember { .. })) {
        assert!(Instant::now() < deadline, "it is told");
        sleep(A_WHILE);
    }
    assert_eq!(broker.lock().count(ApiKey::LeaveGroup), 0);
}

#[test]
fn a_poll_that_is_kept_and_not_driven_is_none() {
    let (client, broker) = start(1, answered);
    let poll_interval_max = Duration::from_millis(200);
    let consumer = member(&client, ConsumerConfig { poll_interval_max, ..config() }, &["t"]);
    let mut poll = pin!(consumer.poll(SOON));
    assert!(poll.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    broker.wait("it leaves", |state| state.count(ApiKey::LeaveGroup) == 1);
    // One that takes longer than that is one.
    let (client, broker) = start(1, answered);
    let poll_interval_max = Duration::from_secs(1);
    let consumer = member(&client, ConsumerConfig { poll_interval_max, ..config() }, &["t"]);
    block_on(consumer.poll(poll_interval_max * 5 / 4)).unwrap();
    assert_eq!(broker.lock().count(ApiKey::LeaveGroup), 0);
}

#[test]
fn a_connection_that_died_is_noticed_although_joins_may_take_long() {
    let mut is_first = true;
    let script = move |asked: &Asked| match asked.api {
        ApiKey::Heartbeat if std::mem::take(&mut is_first) => Fate::Held,
        _ => Fate::Answered,
    };
    let (client, broker) =
        start_with(1, script, |config| config.request_timeout = Duration::from_millis(200));
    let session_timeout = Duration::from_millis(500);
    let consumer = member(&client, ConsumerConfig { session_timeout, ..config() }, &["t"]);
    broker.wait("another heartbeat comes", |state| state.count(ApiKey::Heartbeat) > 1);
    drop(consumer);
}

#[test]
fn whoever_cannot_rejoin_gives_up_what_others_may_have_by_then() {
    let cuts = Arc::new(AtomicBool::new(false));
    let script = cuts.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::JoinGroup if script.load(Ordering::SeqCst) => Fate::Cut,
        _ => Fate::Answered,
    });
    let config = ConsumerConfig {
        assignors: vec![Assignor::CooperativeSticky],
        session_timeout: Duration::from_millis(500),
        ..config()
    };
    let consumer = member(&client, config, &["t"]);
    poll_until(&consumer, "it gets all", |it| it.assignment().len() == 2);
    cuts.store(true, Ordering::SeqCst);
    broker.lock().heartbeat = Some(ErrorCode::REBALANCE_IN_PROGRESS);
    poll_until(&consumer, "it has nothing left", |it| it.assignment().is_empty());
    cuts.store(false, Ordering::SeqCst);
    poll_until(&consumer, "it gets all again", |it| it.assignment().len() == 2);
}

#[test]
fn a_join_that_nobody_answers_does_not_keep_what_others_have_by_then() {
    let holds = Arc::new(AtomicBool::new(false));
    let script = holds.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::JoinGroup if script.load(Ordering::SeqCst) => Fate::Held,
        _ => Fate::Answered,
    });
    let config = ConsumerConfig { assignors: vec![Assignor::CooperativeSticky], ..config() };
    let consumer = member(&client, config, &["t"]);
    poll_until(&consumer, "it gets all", |it| it.assignment().len() == 2);
    holds.store(true, Ordering::SeqCst);
    let joins = broker.lock().count(ApiKey::JoinGroup);
    broker.lock().heartbeat = Some(ErrorCode::REBALANCE_IN_PROGRESS);
    broker.wait("it joins again", |state| state.count(ApiKey::JoinGroup) > joins);
    sleep(A_WHILE);
    assert_eq!(consumer.assignment().len(), 2, "it keeps what it has as long as the group knows it");
    broker.lock().heartbeat = Some(ErrorCode::UNKNOWN_MEMBER_ID);
    poll_until(&consumer, "it has nothing left", |it| it.assignment().is_empty());
    holds.store(false, Ordering::SeqCst);
    broker.release();
    poll_until(&consumer, "it gets all again", |it| it.assignment().len() == 2);
}

#[test]
fn a_topic_that_a_broker_does_not_know_for_a_moment_is_taken_from_nobody() {
    let unknown_until: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (script, armed) = (unknown_until.clone(), Arc::new(AtomicBool::new(false)));
    let arm = armed.clone();
    let (client, broker) = start(1, move |asked| {
        let mut until = script.lock().unwrap();
        match asked.api {
            ApiKey::JoinGroup if arm.swap(false, Ordering::SeqCst) => {
                *until = Some(Instant::now() + A_WHILE);
                Fate::Answered
            }
            ApiKey::Metadata if until.is_some_and(|until| Instant::now() < until) => {
                Fate::Refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
            }
            _ => Fate::Answered,
        }
    });
    let assigned: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = assigned.clone();
    let listener = move |event: &RebalanceEvent| {
        if let RebalanceEvent::Assigned(partitions) = event {
            seen.lock().unwrap().push(partitions.len());
        }
    };
    let config = ConsumerConfig {
        assignors: vec![Assignor::Range],
        rebalance_listener: Some(RebalanceListener(Arc::new(listener))),
        ..config()
    };
    let consumer = member(&client, config, &["t"]);
    poll_until(&consumer, "it gets all", |it| it.assignment().len() == 2);
    armed.store(true, Ordering::SeqCst);
    broker.lock().heartbeat = Some(ErrorCode::REBALANCE_IN_PROGRESS);
    poll_until(&consumer, "it joins again", |_| assigned.lock().unwrap().len() > 1);
    assert_eq!(*assigned.lock().unwrap(), [2, 2]);
}

#[test]
fn a_commit_in_the_middle_of_a_rebalance_is_made_after_it() {
    let mut is_first = true;
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::OffsetCommit if std::mem::take(&mut is_first) => {
            Fate::Refused(ErrorCode::REBALANCE_IN_PROGRESS)
        }
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 3);
    let consumer = member(&client, config(), &["t"]);
    read(&consumer, 3);
    block_on(consumer.commit()).unwrap();
    assert_eq!(broker.lock().committed[&at("t", 0)].0, 3);
}

#[test]
fn polls_at_the_same_time_each_keep_to_their_time() {
    let (client, _broker) = start(1, answered);
    let consumer = Arc::new(member(&client, config(), &["t"]));
    let polls = [100, 300].map(|millis| {
        let consumer = consumer.clone();
        std::thread::spawn(move || block_on(consumer.poll(Duration::from_millis(millis))).unwrap())
    });
    let polled = in_time("both polls", move || polls.map(|poll| poll.join().unwrap().len()));
    assert_eq!(polled, [0, 0]);
}

#[test]
fn a_coordinator_that_forgets_its_members_at_once_is_not_asked_without_end() {
    let (client, broker) = start(1, |asked| match asked.api {
        ApiKey::SyncGroup => Fate::Refused(ErrorCode::UNKNOWN_MEMBER_ID),
        _ => Fate::Answered,
    });
    let consumer = member(&client, config(), &["t"]);
    broker.wait("it joins", |state| state.count(ApiKey::JoinGroup) > 1);
    sleep(A_WHILE);
    let joins = broker.lock().count(ApiKey::JoinGroup);
    assert!(joins < 20, "{joins} joins");
    drop(consumer);
}

#[test]
fn what_is_assigned_by_hand_stays_when_the_group_is_left() {
    let (client, broker) = start(1, answered);
    broker.append(&at("t", 0), 0, 1);
    let consumer = member(&client, config(), &["t"]);
    read(&consumer, 1);
    consumer.unsubscribe();
    consumer.assign([at("t", 0)]).unwrap();
    broker.wait("it leaves", |state| state.count(ApiKey::LeaveGroup) == 1);
    broker.append(&at("t", 0), 0, 1);
    assert_eq!(offsets(&read(&consumer, 1)), [1]);
    assert_eq!(consumer.assignment(), [at("t", 0)]);
}

#[test]
fn what_a_consumer_reads_no_more_is_not_asked_for_any_more() {
    let (client, broker) =
        start_with(1, answered, |config| config.metadata_max_age = Duration::from_millis(20));
    let consumer = by_hand(&client, config(), &[at("t", 0), at("u", 0)]);
    let asks = |state: &State, topics: &[&'static str]| {
        let latest = state.asked.iter().rev().find(|asked| asked.api == ApiKey::Metadata).unwrap();
        let topics: Vec<_> = topics.iter().map(|topic| at(topic, -1)).collect();
        latest.partitions.keys().eq(topics.iter())
    };
    broker.wait("it asks for both", |state| asks(state, &["t", "u"]));
    consumer.assign([at("u", 0)]).unwrap();
    broker.wait("it asks for one", |state| asks(state, &["u"]));
    sleep(A_WHILE);
    assert!(asks(&broker.lock(), &["u"]), "it asks for that as long as it reads it");
    consumer.assign([at("t", 0)]).unwrap();
    broker.append(&at("t", 0), 0, 1);
    read(&consumer, 1);
    broker.wait("it asks for the other", |state| asks(state, &["t"]));
}

// Where to begin.

#[test]
fn a_broker_that_goes_and_comes_back_is_read_from_again() {
    let cuts = Arc::new(AtomicBool::new(true));
    let script = cuts.clone();
    let script = move |asked: &Asked| match (asked.node, asked.api) {
        (2, ApiKey::ApiVersions) if script.load(Ordering::SeqCst) => Fate::Cut,
        _ => Fate::Answered,
    };
    let (client, broker) = start_with(2, script, |config| {
        config.metadata_max_age = Duration::from_millis(50);
        // Longer than metadata takes to tell that the broker is gone.
        config.reconnect_backoff = Duration::from_millis(600);
    });
    broker.lock().leaders.insert(at("t", 1), (2, 0));
    broker.append(&at("t", 1), 0, 1);
    let consumer = by_hand(&client, config(), &[at("t", 1)]);
    broker.wait("it connects", |state| {
        state.asked.iter().any(|asked| asked.node == 2 && asked.api == ApiKey::ApiVersions)
    });
    sleep(Duration::from_millis(250));
    broker.lock().gone.insert(2);
    sleep(Duration::from_millis(700));
    cuts.store(false, Ordering::SeqCst);
    broker.lock().gone.clear();
    assert_eq!(offsets(&read(&consumer, 1)), [0]);
}

#[test]
fn what_is_refused_for_a_while_is_asked_for_again() {
    for (api, code) in [
        (ApiKey::OffsetFetch, ErrorCode::GROUP_AUTHORIZATION_FAILED),
        (ApiKey::ListOffsets, ErrorCode::UNKNOWN_SERVER_ERROR),
    ] {
        let mut is_first = true;
        let (client, broker) = start(1, move |asked| match asked.api == api {
            true if std::mem::take(&mut is_first) => Fate::RefusedFor(at("t", 0), code),
            _ => Fate::Answered,
        });
        broker.append(&at("t", 0), 0, 1);
        let consumer = by_hand(&client, config(), &[at("t", 0)]);
        assert_eq!(poll_error(&consumer).code(), Some(code));
        read(&consumer, 1);
    }
}

#[test]
fn the_answer_of_an_earlier_leader_does_not_repeat_what_the_next_one_gave() {
    let script = |asked: &Asked| match (asked.node, asked.api) {
        (1, ApiKey::Fetch) => Fate::Late,
        _ => Fate::Answered,
    };
    let (client, broker) =
        start_with(2, script, |config| config.metadata_max_age = Duration::from_millis(50));
    broker.append(&at("t", 0), 0, 3);
    let consumer = by_hand(&client, config(), &[at("t", 0)]);
    broker.wait("it fetches", |state| state.count(ApiKey::Fetch) == 1);
    sleep(SOON);
    broker.lock().leaders.insert(at("t", 0), (2, 1));
    broker.append(&at("t", 0), 1, 2);
    assert_eq!(offsets(&read(&consumer, 5)), [0, 1, 2, 3, 4]);
    broker.release();
    let until = Instant::now() + A_WHILE;
    while Instant::now() < until {
        assert_eq!(offsets(&block_on(consumer.poll(SOON)).unwrap()), []);
    }
    assert_eq!(consumer.position(&at("t", 0)).unwrap(), Some(5));
}

#[test]
fn a_leader_that_always_says_elsewhere_is_not_asked_without_end() {
    let (client, broker) = start(1, |asked| match asked.api {
        ApiKey::Fetch => Fate::Refused(ErrorCode::OFFSET_OUT_OF_RANGE),
        _ => Fate::Answered,
    });
    let consumer = by_hand(&client, config(), &[at("t", 0)]);
    broker.wait("it fetches", |state| state.count(ApiKey::Fetch) > 1);
    sleep(A_WHILE);
    let fetches = broker.lock().count(ApiKey::Fetch);
    assert!(fetches < 20, "{fetches} fetches");
    drop(consumer);
}

#[test]
fn a_leader_that_does_not_know_its_own_end_is_asked_again_with_patience() {
    for reset in [OffsetReset::Earliest, OffsetReset::Latest] {
        let (client, broker) = start(1, answered);
        broker.append(&at("t", 0), 0, 1);
        broker.lock().listed = Some(-1);
        let consumer = by_hand(&client, ConsumerConfig { offset_reset: reset, ..config() }, &[at("t", 0)]);
        broker.wait("it asks", |state| state.count(ApiKey::ListOffsets) > 1);
        sleep(A_WHILE);
        let asked = broker.lock().count(ApiKey::ListOffsets);
        assert!(asked < 20, "asked {asked} times");
        broker.lock().listed = Some(0);
        read(&consumer, 1);
    }
}

#[test]
fn fetches_that_are_refused_are_not_made_without_end() {
    for code in [ErrorCode::FETCH_SESSION_ID_NOT_FOUND, ErrorCode::INCONSISTENT_TOPIC_ID] {
        let (client, broker) = start(1, move |asked| match asked.api {
            ApiKey::Fetch => Fate::SessionRefused(code),
            _ => Fate::Answered,
        });
        let consumer = by_hand(&client, config(), &[at("t", 0)]);
        broker.wait("it fetches", |state| state.count(ApiKey::Fetch) > 1);
        sleep(A_WHILE);
        let fetches = broker.lock().count(ApiKey::Fetch);
        assert!(fetches < 20, "{fetches} fetches");
        drop(consumer);
    }
}

// Times that are no times.

#[test]
fn what_is_due_all_the_time_leaves_time_for_everything_else() {
    let (address, broker) = FakeBroker::start_reading(1, Box::new(answered));
    broker.append(&at("t", 0), 0, 1);
    // A broker that cannot be reached.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    broker.lock().ports.push(closed);
    broker.lock().leaders.insert(at("t", 1), (2, 0));
    in_time("reading", move || {
        let config = ClientConfig {
            metadata_max_age: Duration::ZERO,
            retry_backoff: Duration::ZERO,
            reconnect_backoff: Duration::ZERO,
            ..ClientConfig::new(&address)
        };
        let client = block_on(Client::connect(config)).unwrap();
        let config = ConsumerConfig {
            auto_commit: Some(Duration::ZERO),
            heartbeat_interval: Duration::ZERO,
            ..self::config()
        };
        let consumer = member(&client, config, &["t"]);
        read(&consumer, 1);
        block_on(consumer.close()).unwrap();
    });
    assert_eq!(broker.lock().committed.get(&at("t", 0)), Some(&(1, 0)));
}

#[test]
fn times_may_be_as_long_as_can_be() {
    const MAX: Duration = Duration::MAX;
    let (address, broker) = FakeBroker::start_reading(1, Box::new(answered));
    broker.append(&at("t", 0), 0, 1);
    in_time("reading", move || {
        let config = ClientConfig {
            connect_timeout: MAX,
            request_timeout: MAX,
            api_timeout: MAX,
            retry_backoff_max: MAX,
            reconnect_backoff_max: MAX,
            metadata_max_age: MAX,
            ..ClientConfig::new(&address)
        };
        let client = block_on(Client::connect(config)).unwrap();
        let config = ConsumerConfig {
            auto_commit: Some(MAX),
            fetch_wait_max: MAX,
            session_timeout: MAX,
            poll_interval_max: MAX,
            close_timeout: MAX,
            ..self::config()
        };
        let consumer = member(&client, config, &["t"]);
        read(&consumer, 1);
        block_on(consumer.commit()).unwrap();
        block_on(consumer.offsets(vec![(at("t", 0), OffsetSpec::Latest)])).unwrap();
        block_on(consumer.close()).unwrap();
    });
}

#[test]
fn one_slow_broker_does_not_hold_back_the_others_partitions() {
    let (client, broker) = start(2, |asked| match (asked.api, asked.node) {
        (ApiKey::ListOffsets, 2) => Fate::Held,
        _ => Fate::Answered,
    });
    broker.lock().leaders.insert(at("t", 1), (2, 0));
    (0..2).for_each(|partition| broker.append(&at("t", partition), 0, 3));
    let consumer = by_hand(&client, config(), &[at("t", 0), at("t", 1)]);
    assert!(read(&consumer, 3).iter().all(|record| record.partition == 0));
    // Nor those that come later.
    consumer.assign([at("u", 0), at("t", 1)]).unwrap();
    broker.append(&at("u", 0), 0, 3);
    assert!(read(&consumer, 3).iter().all(|record| record.topic == "u"));
    broker.release();
    assert!(read(&consumer, 3).iter().all(|record| record.partition == 1));
}

#[test]
fn one_partition_that_is_refused_does_not_hold_back_the_others() {
    for (api, code) in [
        (ApiKey::ListOffsets, ErrorCode::OFFSET_NOT_AVAILABLE),
        (ApiKey::OffsetFetch, ErrorCode::UNSTABLE_OFFSET_COMMIT),
    ] {
        let refuses = Arc::new(AtomicBool::new(true));
        let script = refuses.clone();
        let (client, broker) = start(1, move |asked| match script.load(Ordering::SeqCst) {
            true if asked.api == api => Fate::RefusedFor(at("t", 1), code),
            _ => Fate::Answered,
        });
        (0..2).for_each(|partition| broker.append(&at("t", partition), 0, 3));
        let consumer = by_hand(&client, config(), &[at("t", 0), at("t", 1)]);
        assert!(read(&consumer, 3).iter().all(|record| record.partition == 0));
        refuses.store(false, Ordering::SeqCst);
        assert!(read(&consumer, 3).iter().all(|record| record.partition == 1));
    }
}

// The end.

#[test]
fn a_consumer_dropped_while_it_connects_leaves_no_connection() {
    let holds = Arc::new(AtomicBool::new(false));
    let script = holds.clone();
    let (client, broker) = start(1, move |asked| match asked.api {
        ApiKey::ApiVersions if script.load(Ordering::SeqCst) => Fate::Held,
        _ => Fate::Answered,
    });
    let consumer = client.consumer(ConsumerConfig::default()).unwrap();
    block_on(consumer.offsets(vec![(at("t", 0), OffsetSpec::Latest)])).unwrap();
    let connections = broker.lock().connections;
    holds.store(true, Ordering::SeqCst);
    consumer.assign([at("t", 0)]).unwrap();
    consumer.seek(&at("t", 0), 0).unwrap();
    broker.wait("it connects", |state| state.connections > connections);
    drop(consumer);
    // The client's thread has seen that when it has answered this.
    block_on(client.admin().describe_topic("t")).unwrap();
    broker.release();
    broker.wait("no connection is left", |state| state.connections == connections);
}

#[test]
fn closing_keeps_to_its_limit_whatever_does_not_answer() {
    let records = |broker: &Reading| broker.append(&at("t", 0), 0, 1);
    let config = ConsumerConfig {
        auto_commit: Some(Duration::from_secs(3600)),
        close_timeout: Duration::from_millis(300),
        ..config()
    };
    let close = |consumer: Consumer| {
        let started = Instant::now();
        let error = block_on(consumer.close()).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    };
    // No broker.
    let (client, broker) = start(1, answered);
    records(&broker);
    let consumer = member(&client, config.clone(), &["t"]);
    read(&consumer, 1);
    broker.lock().is_down = true;
    close(consumer);
    // One that is there and does not answer.
    for api in [ApiKey::OffsetCommit, ApiKey::LeaveGroup] {
        let (client, broker) = start(1, move |asked| match asked.api {
            asked if asked == api => Fate::Held,
            _ => Fate::Answered,
        });
        records(&broker);
        let consumer = member(&client, config.clone(), &["t"]);
        read(&consumer, 1);
        close(consumer);
    }
}

#[test]
fn fetch_sessions_are_closed_with_the_consumer() {
    let (client, broker) = start(1, answered);
    broker.append(&at("t", 0), 0, 1);
    for closes in [true, false] {
        let consumer = by_hand(&client, config(), &[at("t", 0)]);
        read(&consumer, 1);
        broker.wait("it has a session", |state| {
            state.open_sessions() == 1 && state.asked.iter().any(|asked| asked.session.1 > 0)
        });
        broker.lock().asked.clear();
        match closes {
            true => block_on(consumer.close()).unwrap(),
            false => drop(consumer),
        }
        broker.wait("its session is closed", |state| state.open_sessions() == 0);
    }
}

#[test]
fn a_session_that_cannot_be_closed_does_not_hold_up_the_consumers_end() {
    let (client, broker) = start(1, |asked| match asked.session.1 {
        -1 => Fate::Held,
        _ => Fate::Answered,
    });
    broker.append(&at("t", 0), 0, 1);
    let consumer = by_hand(&client, config(), &[at("t", 0)]);
    read(&consumer, 1);
    broker.wait("it has a session", |state| state.asked.iter().any(|asked| asked.session.1 > 0));
    let started = Instant::now();
    block_on(consumer.close()).unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    broker.wait("it was asked to", |state| state.asked.iter().any(|asked| asked.session.1 == -1));
}

#[test]
fn fetch_sessions_are_closed_where_nothing_is_left_to_fetch() {
    let (client, broker) = start(2, answered);
    broker.lock().leaders.insert(at("t", 1), (2, 0));
    (0..2).for_each(|partition| broker.append(&at("t", partition), 0, 1));
    let consumer = by_hand(&client, config(), &[at("t", 0), at("t", 1)]);
    read(&consumer, 2);
    broker.wait("it has two sessions", |state| {
        let uses = |node| state.asked.iter().any(|asked| asked.node == node && asked.session.1 > 0);
        uses(1) && uses(2)
    });
    consumer.assign([at("t", 0)]).unwrap();
    broker.wait("one is closed", |state| state.open_sessions() == 1);
    broker.append(&at("t", 0), 0, 1);
    assert_eq!(offsets(&read(&consumer, 1)), [1]);
}

#[test]
fn a_fetch_session_does_not_outlive_a_lost_answer() {
    let (mut fetches, mut cuts) = (0, 0);
    let (client, broker) = start(1, move |asked| {
        fetches += usize::from(asked.api == ApiKey::Fetch);
        if asked.api == ApiKey::Fetch && fetches > 3 && cuts < 3 {
            (fetches, cuts) = (0, cuts + 1);
            return Fate::Cut;
        }
        Fate::Answered
    });
    broker.append(&at("t", 0), 0, 1);
    let consumer = by_hand(&client, config(), &[at("t", 0)]);
    read(&consumer, 1);
    broker.wait("three answers were lost", |state| {
        state.asked.iter().filter(|asked| asked.api == ApiKey::Fetch && asked.session.1 == 0).count() > 3
    });
    broker.append(&at("t", 0), 0, 1);
    read(&consumer, 1);
    assert_eq!(broker.lock().open_sessions(), 1);
}

// Logs that are cut (KIP-320).

/// Ten records of epoch 0 are read; then a new leader has the first five of them, and ten of its own.
fn cut(config: ConsumerConfig, has_epochs: bool) -> (Client, Arc<Reading>, Consumer) {
    let (client, broker) = start(1, answered);
    broker.lock().hides_epochs = !has_epochs;
    let t = at("t", 0);
    broker.append(&t, 0, 10);
    let polled = config.poll_records_max.min(10);
    let consumer = by_hand(&client, config, std::slice::from_ref(&t));
    consumer.seek(&t, 0).unwrap();
    assert_eq!(offsets(&read(&consumer, polled)), (0..polled as i64).collect::<Vec<_>>());
    broker.wait("all is fetched", |state| {
        state.asked.iter().any(|asked| asked.api == ApiKey::Fetch && asked.partitions.get(&t) == Some(&10))
    });
    {
        let mut state = broker.lock();
        let log = state.logs.get_mut(&t).unwrap();
        log.truncate(5);
        log.extend([1; 10]);
        state.leaders.insert(t, (1, 1));
    }
    (client, broker, consumer)
}

#[test]
fn reading_goes_on_where_a_cut_log_parts_from_what_was_read() {
    for has_epochs in [true, false] {
        let (_client, broker, consumer) = cut(config(), has_epochs);
        let records = read(&consumer, 10);
        assert_eq!(offsets(&records), (5..15).collect::<Vec<_>>(), "has_epochs: {has_epochs}");
        assert!(records.iter().all(|record| record.leader_epoch == Some(1)));
        assert_eq!(broker.lock().count(ApiKey::OffsetForLeaderEpoch) > 0, has_epochs);
        block_on(consumer.commit()).unwrap();
        assert_eq!(broker.lock().committed[&at("t", 0)], (15, 1));
    }
}

#[test]
fn a_cut_log_is_an_error_without_an_offset_reset() {
    for has_epochs in [true, false] {
        let config = ConsumerConfig { offset_reset: OffsetReset::Fail, ..config() };
        let (_client, broker, consumer) = cut(config, has_epochs);
        let error = poll_error(&consumer);
        assert!(
            matches!(error, Error::LogCut { partition: 0, position: 10, offset: Some(5), .. }),
            "{error}"
        );
        sleep(A_WHILE);
        assert!(block_on(consumer.poll(SOON)).unwrap().is_empty(), "it goes on only where it is told to");
        consumer.seek(&at("t", 0), 5).unwrap();
        assert_eq!(read(&consumer, 10)[0].leader_epoch, Some(1));
        drop(broker);
    }
}

#[test]
fn nothing_is_skipped_of_what_was_fetched_and_not_polled_when_the_log_is_cut() {
    let (_client, broker, consumer) = cut(ConsumerConfig { poll_records_max: 3, ..config() }, true);
    broker.wait("it fetches anew", |state| {
        let asked = state.asked.iter().rev();
        let mut fetches = asked.filter(|asked| asked.api == ApiKey::Fetch);
        fetches.any(|asked| asked.partitions.get(&at("t", 0)) == Some(&3))
    });
    let records = read(&consumer, 12);
    assert_eq!(offsets(&records), (3..15).collect::<Vec<_>>());
    assert!(records.iter().all(|record| record.leader_epoch == Some(i32::from(record.offset >= 5))));
}

#[test]
fn a_committed_offset_beyond_the_cut_is_noticed() {
    let (client, broker) = start(1, answered);
    let t = at("t", 0);
    broker.append(&t, 0, 5);
    broker.append(&t, 1, 10);
    broker.lock().leaders.insert(t.clone(), (1, 1));
    broker.lock().committed.insert(t.clone(), (8, 0));
    let consumer = by_hand(&client, config(), &[t]);
    assert_eq!(offsets(&read(&consumer, 10)), (5..15).collect::<Vec<_>>());
}

#[test]
fn an_offset_committed_for_a_topic_that_was_made_anew_is_noticed() {
    let (client, broker) = start(1, answered);
    let t = at("t", 0);
    broker.append(&t, 0, 10);
    // No leader was ever in this epoch.
    broker.lock().committed.insert(t.clone(), (8, 1));
    let consumer = by_hand(&client, config(), &[t]);
    assert_eq!(offsets(&read(&consumer, 10)), (0..10).collect::<Vec<_>>());
}

// All of that.

#[test]
fn whatever_brokers_do_records_come_once_and_in_order_and_commits_do_not_go_back() {
    const COUNT: i64 = 60;
    for seed in 8..16 {
        let mut dice = Random(seed);
        let script = move |asked: &Asked| match (asked.api, dice.below(16)) {
            (ApiKey::ApiVersions | ApiKey::Metadata | ApiKey::FindCoordinator, _) => Fate::Answered,
            (_, 0) => Fate::Cut,
            (_, 1) => Fate::After(Duration::from_millis(15)),
            (ApiKey::Fetch, 2 | 3) => Fate::After(Duration::from_millis(40)),
            (ApiKey::Fetch, 4) => Fate::SessionRefused(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            (ApiKey::Fetch | ApiKey::ListOffsets | ApiKey::OffsetForLeaderEpoch, 5) => {
                Fate::Refused(ErrorCode::NOT_LEADER_OR_FOLLOWER)
            }
            (ApiKey::OffsetCommit | ApiKey::OffsetFetch, 6..10) => Fate::Refused(ErrorCode::NOT_COORDINATOR),
            _ => Fate::Answered,
        };
        let (client, broker) = start_with(2, script, |config| {
            config.metadata_max_age = Duration::from_millis(5);
            config.retry_backoff = Duration::from_millis(2);
            config.retry_backoff_max = Duration::from_millis(5);
            config.reconnect_backoff_max = Duration::from_millis(5);
        });
        let t = at("t", 0);
        let config = ConsumerConfig { poll_records_max: 3, ..config() };
        let consumer = by_hand(&client, config, std::slice::from_ref(&t));
        let (mut dice, mut epoch, mut next) = (Random(seed + 1000), 0, 0);
        let deadline = Instant::now() + PATIENCE;
        while next < COUNT {
            assert!(Instant::now() < deadline, "seed {seed}: {next} of {COUNT} came");
            if dice.below(4) == 0 {
                epoch += 1;
                broker.lock().leaders.insert(t.clone(), (1 + dice.below(2) as i32, epoch));
            }
            if broker.lock().logs.get(&t).map_or(0, Vec::len) < COUNT as usize {
                broker.append(&t, epoch, dice.below(3) as usize);
            }
            for record in block_on(consumer.poll(Duration::from_millis(dice.below(20)))).unwrap() {
                assert_eq!(record.offset, next, "seed {seed}");
                next += 1;
            }
            consumer.commit_in_background().unwrap();
        }
        block_on(consumer.commit()).unwrap();
        let commits = broker.lock().commits.clone();
        assert!(commits.is_sorted() && commits.last().unwrap().1 == next, "seed {seed}: {commits:?}");
    }
}

#[test]
fn whatever_a_coordinator_does_a_member_skips_nothing_and_commits_do_not_go_back() {
    const COUNT: i64 = 40;
    for seed in 0..8 {
        let mut dice = Random(seed);
        let script = move |asked: &Asked| match (asked.api, dice.below(16)) {
            (ApiKey::ApiVersions | ApiKey::Metadata | ApiKey::Fetch | ApiKey::ListOffsets, _) => {
                Fate::Answered
            }
            (_, 0) => Fate::Cut,
            (_, 1) => Fate::After(Duration::from_millis(15)),
            (ApiKey::SyncGroup, 2..5) => Fate::Refused(ErrorCode::REBALANCE_IN_PROGRESS),
            (ApiKey::SyncGroup, 5) => Fate::Refused(ErrorCode::UNKNOWN_MEMBER_ID),
            (ApiKey::OffsetCommit | ApiKey::OffsetFetch, 2..6) => Fate::Refused(ErrorCode::NOT_COORDINATOR),
            _ => Fate::Answered,
        };
        let (client, broker) = start_with(1, script, |config| {
            config.retry_backoff = Duration::from_millis(2);
            config.retry_backoff_max = Duration::from_millis(5);
            config.reconnect_backoff_max = Duration::from_millis(5);
        });
        let t = at("t", 0);
        let assignor = if seed % 2 == 0 { Assignor::Range } else { Assignor::CooperativeSticky };
        let config = ConsumerConfig {
            poll_records_max: 3,
            heartbeat_interval: Duration::from_millis(5),
            auto_commit: Some(Duration::from_millis(5)),
            assignors: vec![assignor],
            ..config()
        };
        let consumer = member(&client, config, &["t"]);
        let (mut dice, mut next) = (Random(seed + 1000), 0);
        let deadline = Instant::now() + PATIENCE;
        while next < COUNT || broker.lock().committed.get(&t) != Some(&(next, 0)) {
            assert!(
                Instant::now() < deadline,
                "seed {seed}: {next} of {COUNT} came, {:?} is assigned, {:?} committed",
                consumer.assignment(),
                broker.lock().commits.last()
            );
            let is_quiet = next >= COUNT;
            match dice.below(16) {
                _ if is_quiet => {}
                0 => broker.lock().heartbeat = Some(ErrorCode::REBALANCE_IN_PROGRESS),
                1 => broker.lock().heartbeat = Some(ErrorCode::UNKNOWN_MEMBER_ID),
                2 => broker.lock().heartbeat = Some(ErrorCode::NOT_COORDINATOR),
                3 => {
                    consumer.unsubscribe();
                    if dice.below(2) == 0 {
                        consumer.assign([t.clone()]).unwrap();
                        let _ = block_on(consumer.poll(Duration::from_millis(dice.below(10))));
                        consumer.unsubscribe();
                    }
                    consumer.subscribe(["t"]).unwrap();
                }
                4 => drop(consumer.commit_in_background()),
                5 => consumer.subscribe(["t", "u"]).unwrap(),
                _ => {}
            }
            if !is_quiet {
                broker.append(&t, 0, dice.below(3) as usize);
            }
            // What it is told of its membership is no end.
            for record in block_on(consumer.poll(Duration::from_millis(dice.below(20)))).unwrap_or_default() {
                assert!(record.offset <= next, "seed {seed}: {next} is skipped, {} came", record.offset);
                next = next.max(record.offset + 1);
            }
        }
        let commits = broker.lock().commits.clone();
        let commits: Vec<_> = commits.into_iter().filter(|(of, _)| *of == t).collect();
        assert!(commits.is_sorted(), "seed {seed}: {commits:?}");
        // In the midst of a rebalance its last commit may fail.
        let _ = block_on(consumer.close());
    }
}
