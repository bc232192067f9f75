//! Changes of metadata whose clients leave at any moment, on a disk that stalls for longer than anybody waits: what the
//! broker serves is at all times what its controller's log says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use corelog_io::Dice;
use corelog_io::sim::{DiskOp, Sim};
use corelog_io::{random_u64, sleep, timeout};
use corelog_wire::messages::create_partitions_request;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::describe_configs_request::Resource;
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest,
    metadata_request,
};
use corelog_wire::{ErrorCode, Request, Str, Uuid};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::groups::create;
use crate::plan::{Faults, Plan};
use crate::shared::below;
use crate::tailer::{connect, create_topic, produce};

const NAMES: u64 = 4;
const TOPIC: i8 = 2;
/// Longer than a connection may go on finishing what it owes, and than any client here waits.
const STALL: Duration = Duration::from_secs(70);
/// Every change that was asked for is carried out by then.
const SETTLED: Duration = Duration::from_secs(400);

/// What clients see of the metadata: of each topic its id, partitions and retention.
pub type Seen = BTreeMap<Str, (Uuid, usize, Option<Str>)>;

/// Sends a request and leaves: at once, after a while, or with its answer.
async fn ask_and_leave<R: Request>(address: SocketAddr, request: R, version: i16) {
    let mut connection = connect(address).await;
    let patience = match below(4) {
        0 => Duration::ZERO,
        1 => Duration::from_millis(below(20)),
        2 => Duration::from_millis(below(2_000)),
        _ => Duration::from_secs(100),
    };
    let Ok(id) = connection.send(&request, version).await else { return };
    let _left = timeout(patience, connection.receive::<R::Response>(version, id)).await;
}

/// One change of one of a few topics, so that they meet.
pub async fn change_something(address: SocketAddr) {
    let name: Str = format!("changed-{}", below(NAMES)).into();
    match below(6) {
        0 | 1 => {
            let topic = CreatableTopic {
                name,
                num_partitions: 1 + below(3) as i32,
                replication_factor: 1,
                ..Default::default()
            };
            let request =
                CreateTopicsRequest { topics: vec![topic], timeout_ms: 1_000, ..Default::default() };
            ask_and_leave(address, request, 7).await;
        }
        2 => {
            let topics = vec![State { name: Some(name), ..Default::default() }];
            ask_and_leave(address, DeleteTopicsRequest { topics, ..Default::default() }, 6).await;
        }
        3 => {
            let count = 2 + below(5) as i32;
            let topics = vec![create_partitions_request::Topic { name, count, ..Default::default() }];
            ask_and_leave(address, CreatePartitionsRequest { topics, ..Default::default() }, 3).await;
        }
        4 => {
            let config = AlterableConfig {
                name: "retention.ms".into(),
                config_operation: 0,
                value: Some((1_000_000 + below(1_000)).to_string().into()),
            };
            let resource =
                AlterConfigsResource { resource_type: TOPIC, resource_name: name, configs: vec![config] };
            let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
            ask_and_leave(address, request, 1).await;
        }
        _ => {
            let request =
                FindCoordinatorRequest { coordinator_keys: vec!["group".into()], ..Default::default() };
            ask_and_leave(address, request, 4).await;
        }
    }
}

/// What is served of topics, over connections that may be reset.
pub async fn look(address: SocketAddr) -> Seen {
    for _ in 0..100 {
        if let Ok(seen) = look_once(address).await {
            return seen;
        }
    }
    panic!("the broker does not answer");
}

async fn look_once(address: SocketAddr) -> std::io::Result<Seen> {
    let mut connection = connect(address).await;
    let all = connection.call(&MetadataRequest::default(), 12).await?;
    let mut seen = Seen::new();
    for topic in all.topics {
        let name = topic.name.expect("a topic has a name");
        let resource = Resource {
            resource_type: TOPIC,
            resource_name: name.clone(),
            configuration_keys: Some(vec!["retention.ms".into()]),
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let described = connection.call(&request, 4).await?;
        let retention = described.results[0].configs[0].value.clone();
        seen.insert(name, (topic.topic_id, topic.partitions.len(), retention));
    }
    Ok(seen)
}

async fn producer_id(connection: &mut Connection) -> (ErrorCode, i64) {
    let request = InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() };
    let response = connection.call(&request, 4).await.expect("the broker answers");
    (ErrorCode(response.error_code), response.producer_id)
}

fn ready(sim: &Sim, broker: &mut Broker, plan: &Plan, cores: usize) {
    broker.start(plan, cores);
    assert_eq!(broker.await_ready(sim), Start::Ready, "the controller's log is sound");
}

fn run(seed: u64) {
    let sim = Sim::new(seed);
    let mut dice = Dice(seed);
    let mut broker = Broker::new(&sim);
    let plan = Plan::from_seed(seed, Faults::Crashes);
    for life in 0..2 {
        let cores = 1 + dice.below(3) as usize;
        ready(&sim, &mut broker, &plan, cores);
        let clients = sim.process(&format!("clients-{life}"));
        let address = broker.address();
        clients.start(1, move |_| async move {
            let clients = (0..6).map(|_| async move {
                for _ in 0..8 {
                    sleep(Duration::from_millis(random_u64() % 3_000)).await;
                    change_something(address).await;
                }
            });
            futures_util::future::join_all(clients).await;
        });
        for _ in 0..2 {
            let calm = dice.millis(4_000);
            sim.run_for(calm);
            broker.machine.disk().set_extra_latency(STALL);
            let stalled = Duration::from_secs(1 + dice.below(60));
            sim.run_for(stalled);
            broker.machine.disk().set_extra_latency(Duration::ZERO);
        }
        sim.run_for(SETTLED);
        let live = sim.block_on(look(address));
        broker.machine.kill();
        ready(&sim, &mut broker, &plan, 1 + (cores % 3));
        let replayed = sim.block_on(look(address));
        assert_eq!(live, replayed, "what was served is what the controller's log says");
        broker.machine.kill();
    }
}

#[test]
fn what_is_served_is_what_the_log_says_whoever_leaves() {
    for seed in 1..=crate::setting("SEEDS").unwrap_or(12) {
        eprintln!("seed {seed}");
        run(seed);
    }
}

/// The write of a change fails and may all the same be in the log: the controller changes nothing more, says why, and
/// goes on after a restart with what the log has.
#[test]
fn a_change_that_may_be_in_the_log_is_the_last_one() {
    for seed in 1..=6 {
        let sim = Sim::new(seed);
        let mut broker = Broker::new(&sim);
        let plan = Plan::from_seed(seed, Faults::IoErrors);
        ready(&sim, &mut broker, &plan, 1);
        let address = broker.address();
        broker.machine.disk().fail_nth(DiskOp::Write, ".journal", 0, std::io::ErrorKind::Other);
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let mut create = async |name: &str| {
                let topic = CreatableTopic {
                    name: name.into(),
                    num_partitions: 1,
                    replication_factor: 1,
                    ..Default::default()
                };
                let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
                let answer = connection.call(&request, 7).await.expect("the broker answers");
                let topic = &answer.topics[0];
                (ErrorCode(topic.error_code), topic.error_message.clone().unwrap_or_default())
            };
            assert_eq!(create("first").await.0, ErrorCode::KAFKA_STORAGE_ERROR);
            let (code, message) = create("second").await;
            assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR);
            assert!(message.contains("restarted"), "{message}");
            assert!(!producer_id(&mut connection).await.0.is_ok(), "an id that may be given again");
        });
        let live = sim.block_on(look(address));
        assert!(live.is_empty(), "{live:?}");
        broker.machine.disk().clear_faults();
        broker.machine.kill();
        ready(&sim, &mut broker, &plan, 1);
        let replayed = sim.block_on(look(address));
        assert!(replayed.keys().all(|name| **name == *"first"), "{replayed:?}");
        broker.machine.kill();
    }
}

async fn delete(connection: &mut Connection, name: &str) {
    let topics = vec![State { name: Some(name.into()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let answer = connection.call(&request, 6).await.expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0);
}

/// How often the controller's log has begun anew since the start.
fn snapshots(sim: &Sim, broker: &Broker) -> u64 {
    let scraper = broker.scraper();
    let page = sim.block_on(async move { scraper.scrape().await });
    let text: String = page.pieces().collect();
    let line = text.lines().find(|line| line.starts_with("corelog_metadata_snapshots_total "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("there is such a series")
}

/// Power fails at any step of a snapshot, and of what goes before it.
#[test]
fn a_snapshot_says_what_all_before_it_said_or_does_not_count() {
    let mut begun = 0;
    for seed in 1..=60 {
        let sim = Sim::new(seed);
        let mut broker = Broker::new(&sim);
        let plan = Plan { metadata_bytes: 3_000, ..Plan::from_seed(1, Faults::Crashes) };
        ready(&sim, &mut broker, &plan, 2);
        let address = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            for number in 0..20 {
                create(&mut connection, &format!("topic-{number}")).await;
                if number % 3 > 0 {
                    delete(&mut connection, &format!("topic-{number}")).await;
                }
            }
        });
        let before = sim.block_on(look(address));
        // The last change, after which the snapshot that was under way may be anywhere.
        sim.run_steps(seed * seed);
        if seed % 3 == 0 {
            broker.machine.kill()
        } else {
            broker.machine.crash()
        }
        // Now a snapshot is due from the start on.
        ready(&sim, &mut broker, &Plan { metadata_bytes: 200, ..plan.clone() }, 1 + (seed % 3) as usize);
        let address = broker.address();
        assert_eq!(before, sim.block_on(look(address)), "seed {seed}");
        sim.run_for(Duration::from_secs(1));
        begun += i32::from(snapshots(&sim, &broker) > 0);
        sim.block_on(async move { create(&mut connect(address).await, "another").await });
        broker.machine.kill();
        ready(&sim, &mut broker, &plan, 2);
        assert!(sim.block_on(look(broker.address())).contains_key("another"), "seed {seed}");
        broker.machine.kill();
    }
    assert!(begun > 30, "in {begun} of 60 the log began anew");
}

/// What a snapshot leaves out a start takes for unknown: it keeps what is left of a deleted topic until that is gone.
#[test]
fn a_snapshot_tells_of_deleted_topics_whose_files_are_there() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let plan = Plan { metadata_bytes: 1_000, ..Plan::from_seed(1, Faults::Crashes) };
    ready(&sim, &mut broker, &plan, 2);
    let (address, disk) = (broker.address(), broker.machine.disk());
    let left = |part: &str| disk.files().iter().any(|file| file.to_string_lossy().contains(part));
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 2).await;
        produce(&mut connection, topic, 0..2, 3, 100).await;
    });
    // Into its segments.
    broker.stop(&sim);
    ready(&sim, &mut broker, &plan, 2);
    assert!(left("topics/tailed"));
    disk.fail_until_cleared(DiskOp::Metadata, "topics/tailed", 5);
    let address = broker.address();
    sim.block_on(async move { delete(&mut connect(address).await, "tailed").await });
    for round in 0..3 {
        let before = snapshots(&sim, &broker);
        sim.block_on(async move {
            let mut connection = connect(address).await;
            for number in 0..10 {
                create(&mut connection, &format!("topic-{round}-{number}")).await;
                delete(&mut connection, &format!("topic-{round}-{number}")).await;
            }
        });
        sim.run_for(Duration::from_secs(5));
        assert!(snapshots(&sim, &broker) > before, "a snapshot was made");
    }
    assert!(left("topics/tailed"), "they could not be removed");
    broker.machine.kill();
    disk.clear_faults();
    ready(&sim, &mut broker, &plan, 2);
    sim.run_for(Duration::from_secs(5));
    assert!(!left("topics/tailed"), "the start knows that they are a deleted topic's");
    broker.machine.kill();
}

/// A directory that is not there any more comes back with a power cut, until its removal is durable.
#[test]
fn a_snapshot_forgets_a_deleted_topic_when_it_is_gone_for_good() {
    let mut forgot = 0;
    for seed in 1..=20 {
        let sim = Sim::new(seed);
        let mut broker = Broker::new(&sim);
        let plan = Plan { metadata_bytes: 1_000, ..Plan::from_seed(1, Faults::Crashes) };
        ready(&sim, &mut broker, &plan, 2);
        let (address, disk) = (broker.address(), broker.machine.disk());
        let left = || disk.files().iter().any(|file| file.to_string_lossy().contains("topics/tailed"));
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let topic = create_topic(&mut connection, 2).await;
            produce(&mut connection, topic, 0..2, 3, 100).await;
        });
        // Into its segments, and the former journals out of the way.
        broker.stop(&sim);
        ready(&sim, &mut broker, &plan, 2);
        sim.run_for(Duration::from_secs(2));
        assert!(left());
        let address = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            delete(&mut connection, "tailed").await;
            for number in 0..20 {
                create(&mut connection, &format!("topic-{number}")).await;
                delete(&mut connection, &format!("topic-{number}")).await;
            }
        });
        sim.run_for(Duration::from_secs(2));
        assert!(!left() && snapshots(&sim, &broker) > 0, "seed {seed}");
        broker.machine.crash();
        forgot += i32::from(!left());
        ready(&sim, &mut broker, &plan, 2);
        sim.run_for(Duration::from_secs(5));
        assert!(!left(), "seed {seed}: nobody knows that these files are a deleted topic's");
        broker.machine.kill();
    }
    assert!(forgot > 0, "a power cut left it removed");
}

/// What is left of a full disk is for what frees space. A snapshot takes it all, and can wait.
#[test]
fn a_snapshot_leaves_a_full_disk_to_deletions() {
    for metadata_bytes in [u64::MAX, 1_000] {
        let sim = Sim::new(1);
        let mut broker = Broker::new(&sim);
        let plan = Plan {
            metadata_bytes: u64::MAX,
            memory_bytes: 1 << 30,
            journal_file_bytes: 128 << 10,
            journal_files: 2,
            ..Plan::from_seed(1, Faults::FullDisk)
        };
        ready(&sim, &mut broker, &plan, 1);
        let (address, disk) = (broker.address(), broker.machine.disk());
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let topics = (0..60).map(|number| CreatableTopic {
                name: format!("topic-{number}").into(),
                num_partitions: 60,
                replication_factor: 1,
                ..Default::default()
            });
            let request =
                CreateTopicsRequest { topics: topics.collect(), timeout_ms: 30_000, ..Default::default() };
            let answer = connection.call(&request, 7).await.expect("an answer");
            for topic in &answer.topics {
                assert!(ErrorCode(topic.error_code).is_ok(), "{:?}", topic.error_message);
            }
        });
        broker.stop(&sim);
        let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
        disk.set_capacity(used / 4096 * 4096);
        let full = Plan { metadata_bytes, ..plan.clone() };
        ready(&sim, &mut broker, &full, 1);
        sim.run_for(Duration::from_secs(10));
        let address = broker.address();
        let deleted = sim.block_on(async move {
            let mut connection = connect(address).await;
            timeout(Duration::from_secs(30), delete(&mut connection, "topic-1")).await
        });
        assert!(deleted.is_ok(), "with snapshots from {metadata_bytes} bytes on: a deletion is carried out");
        disk.set_capacity(1 << 40);
        sim.run_for(Duration::from_secs(60));
        if metadata_bytes < u64::MAX {
            assert!(snapshots(&sim, &broker) > 0, "it is made when there is space");
        }
        broker.machine.kill();
    }
}

/// The controller makes changes one after the other, on a slow disk for minutes: other requests do not wait for them.
#[test]
fn who_creates_many_topics_keeps_nobody_waiting() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: 64 << 20, ..Plan::from_seed(1, Faults::Crashes) };
    ready(&sim, &mut broker, &plan, 1);
    let address = broker.address();
    broker.machine.disk().set_extra_latency(Duration::from_millis(100));
    let clients = sim.process("clients");
    clients.start(1, move |_| async move {
        let create = async |client: usize| {
            let mut connection = connect(address).await;
            let topics = (0..1_000).map(|number| CreatableTopic {
                name: format!("{client}-{number:_<230}").into(),
                num_partitions: 1,
                replication_factor: 1,
                ..Default::default()
            });
            let request = CreateTopicsRequest { topics: topics.collect(), ..Default::default() };
            let _ = connection.call(&request, 7).await;
        };
        futures_util::future::join_all((0..4).map(create)).await;
    });
    sim.run_for(Duration::from_secs(5));
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topics = (0..100).map(|number| metadata_request::Topic {
            name: Some(format!("{number:_<200}").into()),
            ..Default::default()
        });
        let request = MetadataRequest {
            topics: Some(topics.collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = timeout(Duration::from_secs(10), connection.call(&request, 12)).await;
        assert_eq!(answer.expect("within a moment").expect("an answer").topics.len(), 100);
    });
    clients.kill();
    broker.machine.kill();
}

/// Who has waited as long as it said it would is told so, and the change goes on; what was not begun by then is not made.
#[test]
fn a_change_is_waited_for_as_long_as_its_client_says() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    ready(&sim, &mut broker, &Plan::from_seed(1, Faults::Crashes), 2);
    let address = broker.address();
    broker.machine.disk().set_extra_latency(Duration::from_secs(5));
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = |name: &str| CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let topics = vec![topic("late"), topic("later")];
        let request = CreateTopicsRequest { topics, timeout_ms: 500, ..Default::default() };
        let began = corelog_io::now();
        let answer = connection.call(&request, 7).await.expect("an answer");
        let waited = corelog_io::now() - began;
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        for topic in answer.topics {
            assert_eq!(ErrorCode(topic.error_code), ErrorCode::REQUEST_TIMED_OUT, "{}", topic.name);
        }
        corelog_io::sleep(Duration::from_secs(30)).await;
        let there: Vec<Str> = look(address).await.into_keys().collect();
        assert_eq!(there, ["late"]);
        // It says no time: it waits.
        let topics = vec![State { name: Some("late".into()), ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 0, ..Default::default() };
        let answer = connection.call(&request, 6).await.expect("an answer");
        assert_eq!(ErrorCode(answer.responses[0].error_code), ErrorCode::NONE);
    });
    broker.machine.kill();
}

/// As with CreateTopics, where Metadata creates the topics that it names.
#[test]
fn who_has_many_topics_created_by_metadata_keeps_nobody_waiting() {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: 64 << 20, auto_create: true, ..Plan::from_seed(1, Faults::Crashes) };
    ready(&sim, &mut broker, &plan, 1);
    let address = broker.address();
    broker.machine.disk().set_extra_latency(Duration::from_millis(100));
    let named = |client: usize, count: usize| {
        let topics = (0..count).map(|number| metadata_request::Topic {
            name: Some(format!("{client}-{number:_<230}").into()),
            ..Default::default()
        });
        let topics = Some(topics.collect());
        MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() }
    };
    let clients = sim.process("clients");
    clients.start(1, move |_| async move {
        let ask = async |client: usize| {
            let request = MetadataRequest { allow_auto_topic_creation: true, ..named(client, 1_000) };
            let _ = connect(address).await.call(&request, 12).await;
        };
        futures_util::future::join_all((0..4).map(ask)).await;
    });
    sim.run_for(Duration::from_secs(5));
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let answer = timeout(Duration::from_secs(10), connection.call(&named(9, 100), 12)).await;
        assert_eq!(answer.expect("within a moment").expect("an answer").topics.len(), 100);
    });
    clients.kill();
    broker.machine.kill();
}
