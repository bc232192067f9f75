//! What the log tells a person: starts, recoveries, administrative changes, refused clients; and how often.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Once, mpsc};

use corelog_io::sim::Sim;
use corelog_wire::ErrorCode;
use corelog_wire::messages::alter_configs_request::{AlterableConfig, Resource};
use corelog_wire::messages::create_partitions_request;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_records_request;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::offset_commit_request::{self, Partition};
use corelog_wire::messages::offset_delete_request;
use corelog_wire::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, FindCoordinatorRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetDeleteRequest, join_group_request,
};
use tracing::Level;
use tracing::subscriber::set_global_default;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{fmt, registry};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::plan::{Faults, Plan};
use crate::tailer::{connect, create_topic, produce};

/// What a test's thread logs.
struct Lines(mpsc::Receiver<Vec<u8>>);

thread_local! {
    /// Where this thread logs to.
    static SENDER: RefCell<Option<mpsc::Sender<Vec<u8>>>> = const { RefCell::new(None) };
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SENDER.with_borrow(|sender| sender.iter().for_each(|sender| drop(sender.send(bytes.to_vec()))));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One subscriber for all threads: of several, one that comes or goes may hide an event from the others.
fn subscribe() {
    static ONCE: Once = Once::new();
    let is_heard = dynamic_filter_fn(|metadata, _| {
        *metadata.level() <= Level::INFO && SENDER.with_borrow(Option::is_some)
    });
    ONCE.call_once(|| {
        let lines = fmt::layer().with_ansi(false).without_time().with_writer(|| Writer);
        set_global_default(registry().with(lines.with_filter(is_heard))).expect("LOG is for the other tests");
    });
}

impl Lines {
    /// Runs `test` with what its thread logs, from `info` on, one line each.
    fn with(test: impl FnOnce(&Lines)) {
        subscribe();
        let (sender, receiver) = mpsc::channel();
        SENDER.set(Some(sender));
        test(&Lines(receiver));
        SENDER.set(None);
    }

    /// Those since it was last asked.
    fn take(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.try_iter().flatten().collect();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }
}

fn having<'a>(lines: &'a [String], part: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.contains(part)).collect()
}

fn started(sim: &Sim, broker: &mut Broker) {
    broker.start(&Plan::from_seed(1, Faults::Crashes), 2);
    assert_eq!(broker.await_ready(sim), Start::Ready);
    // Coordinators load behind it.
    sim.run_for(std::time::Duration::from_secs(2));
}

/// Joins a group as a new member, with so many bytes to say.
fn join(group: u32, bytes: usize) -> JoinGroupRequest {
    let protocol = join_group_request::Protocol { name: "range".into(), metadata: vec![7; bytes].into() };
    JoinGroupRequest {
        group_id: group.to_string().into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..Default::default()
    }
}

async fn find_coordinator(connection: &mut Connection) {
    let request = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    let answer = connection.call(&request, 3).await.expect("an answer");
    assert_eq!(answer.error_code, 0);
}

#[test]
fn a_recovery_is_one_line_and_coordinators_without_records_are_silent() {
    Lines::with(|lines| {
        let sim = Sim::new(1);
        let mut broker = Broker::new(&sim);
        started(&sim, &mut broker);
        let address: SocketAddr = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let topic = create_topic(&mut connection, 4).await;
            find_coordinator(&mut connection).await;
            produce(&mut connection, topic, 0..4, 10, 100).await;
        });
        let first = lines.take();
        assert!(having(&first, "recovered").is_empty(), "{first:#?}");
        assert!(having(&first, "coordinator is loaded").is_empty(), "{first:#?}");

        broker.machine.kill();
        started(&sim, &mut broker);
        let after_kill = lines.take();
        let [line] = having(&after_kill, "recovered")[..] else { panic!("one line: {after_kill:#?}") };
        for part in ["journal_files=", "entries=", "bytes=", "took_ms="] {
            assert!(line.contains(part) && !line.contains(&format!("{part}0 ")), "{part}: {line}");
        }
        assert!(having(&after_kill, "coordinator is loaded").is_empty(), "{after_kill:#?}");

        broker.stop(&sim);
        lines.take();
        started(&sim, &mut broker);
        let after_stop = lines.take();
        assert!(having(&after_stop, "recovered").is_empty(), "{after_stop:#?}");
    });
}

#[test]
fn each_change_is_told_with_who_made_it_and_refused_ones_sparingly() {
    Lines::with(|lines| {
        let sim = Sim::new(2);
        let mut broker = Broker::new(&sim);
        started(&sim, &mut broker);
        lines.take();
        let address: SocketAddr = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            let topic = create_topic(&mut connection, 2).await;
            produce(&mut connection, topic, 0..2, 10, 100).await;
            change_everything(&mut connection).await;
            for _ in 0..100 {
                let topics = vec![CreatableTopic {
                    name: "no name".into(),
                    num_partitions: 1,
                    replication_factor: 1,
                    ..Default::default()
                }];
                let request = CreateTopicsRequest { topics, timeout_ms: 1000, ..Default::default() };
                let answer = connection.call(&request, 7).await.expect("an answer");
                assert_ne!(answer.topics[0].error_code, 0);
            }
            let request = DeleteTopicsRequest {
                topics: vec![State { name: Some("tailed".into()), ..Default::default() }],
                timeout_ms: 1000,
                ..Default::default()
            };
            let answer = connection.call(&request, 6).await.expect("an answer");
            assert_eq!(answer.responses[0].error_code, 0);
        });
        let told = lines.take();
        for (what, parts) in [
            ("create topic", &["on=\"tailed\"", "partitions=2"][..]),
            ("create topic", &["on=\"__consumer_offsets\""]),
            ("create partitions", &["on=\"tailed\"", "partitions=3, before=2"]),
            ("alter configs", &["on=\"topic:tailed\"", "retention.ms=1234567"]),
            ("delete records", &["on=\"tailed\"", "0 before 5"]),
            ("delete offsets", &["on=\"g\"", "tailed-0"]),
            ("delete group", &["on=\"g\""]),
            ("delete topic", &["on=\"tailed\""]),
        ] {
            let of_it: Vec<_> = having(&told, &format!("audit: {what} on="))
                .into_iter()
                .filter(|line| parts.iter().all(|part| line.contains(part)))
                .collect();
            let [line] = of_it[..] else { panic!("one line of {what}: {told:#?}") };
            for part in ["client=\"tailer\"", "address=", "result=\"ok\""] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
        assert_eq!(having(&told, "create topic: refused").len(), 1, "{told:#?}");
    });
}

/// Whoever wants to can cause them as often as he likes.
#[test]
fn what_runs_out_is_told_once_a_minute() {
    Lines::with(|lines| {
        let sim = Sim::new(3);
        let mut broker = Broker::new(&sim);
        started(&sim, &mut broker);
        let address: SocketAddr = broker.address();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            find_coordinator(&mut connection).await;
            // The coordinators of several partitions have no room for them.
            let mut refused = 0;
            for group in 0..20 {
                let answer = connection.call(&join(group, 300 << 10), 3).await.expect("an answer");
                refused += usize::from(ErrorCode(answer.error_code) == ErrorCode::GROUP_MAX_SIZE_REACHED);
            }
            assert!(refused > 10, "{refused} refused");
        });
        let told = lines.take();
        assert!((1..=2).contains(&having(&told, "groups use the memory").len()), "one a core: {told:#?}");

        // Files that are open for a moment would leave room.
        sim.run_for(std::time::Duration::from_secs(5));
        broker.machine.set_descriptor_limit(broker.machine.descriptors());
        sim.block_on(async move {
            let _waits = corelog_io::Stream::connect(address).await;
            corelog_io::sleep(std::time::Duration::from_secs(20)).await;
        });
        let told = lines.take();
        assert_eq!(having(&told, "accepting a connection failed").len(), 1, "{told:#?}");
        broker.machine.set_descriptor_limit(usize::MAX);
    });
}

async fn change_everything(connection: &mut Connection) {
    find_coordinator(connection).await;
    let topics =
        vec![create_partitions_request::Topic { name: "tailed".into(), count: 3, ..Default::default() }];
    let request = CreatePartitionsRequest { topics, timeout_ms: 1000, ..Default::default() };
    assert_eq!(connection.call(&request, 3).await.expect("an answer").results[0].error_code, 0);

    let configs = vec![AlterableConfig { name: "retention.ms".into(), value: Some("1234567".into()) }];
    let resources = vec![Resource { resource_type: 2, resource_name: "tailed".into(), configs }];
    let request = AlterConfigsRequest { resources, ..Default::default() };
    assert_eq!(connection.call(&request, 2).await.expect("an answer").responses[0].error_code, 0);

    let partitions = vec![delete_records_request::Partition { partition_index: 0, offset: 5 }];
    let topics = vec![delete_records_request::Topic { name: "tailed".into(), partitions }];
    let request = DeleteRecordsRequest { topics, timeout_ms: 1000 };
    let answer = connection.call(&request, 2).await.expect("an answer");
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);

    let partitions = (0..2).map(|partition_index| Partition {
        partition_index,
        committed_offset: 7,
        committed_leader_epoch: -1,
        committed_metadata: Some("".into()),
        ..Default::default()
    });
    let topics = vec![offset_commit_request::Topic {
        name: "tailed".into(),
        partitions: partitions.collect(),
        ..Default::default()
    }];
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    };
    let answer = connection.call(&request, 8).await.expect("an answer");
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);

    let partitions = vec![offset_delete_request::Partition { partition_index: 0 }];
    let topics = vec![offset_delete_request::Topic { name: "tailed".into(), partitions }];
    let request = OffsetDeleteRequest { group_id: "g".into(), topics };
    assert_eq!(connection.call(&request, 0).await.expect("an answer").error_code, 0);

    let request = DeleteGroupsRequest { groups_names: vec!["g".into()] };
    assert_eq!(connection.call(&request, 2).await.expect("an answer").results[0].error_code, 0);
}

/// Clients make groups at will, and people look for their lines: there are hundreds a minute, and not as many as are asked for.
#[test]
fn lines_about_groups_are_bounded() {
    Lines::with(|lines| {
        let sim = Sim::new(5);
        let mut broker = Broker::new(&sim);
        broker.start(&Plan { memory_bytes: 64 << 20, ..Plan::from_seed(1, Faults::Crashes) }, 1);
        assert_eq!(broker.await_ready(&sim), Start::Ready);
        let address: SocketAddr = broker.address();
        lines.take();
        sim.block_on(async move {
            let mut connection = connect(address).await;
            find_coordinator(&mut connection).await;
            for group in 0..200 {
                let answer = connection.call(&join(group, 10), 3).await.expect("an answer");
                assert_eq!(answer.error_code, 0);
            }
        });
        let told = lines.take();
        let of_groups = having(&told, "broker::groups").len();
        assert!((290..=310).contains(&of_groups), "{of_groups} of {} lines", told.len());
    });
}
