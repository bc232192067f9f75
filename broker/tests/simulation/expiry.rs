//! What ends with time: records and commits by the wall clock, which may jump by hours and days; sessions by the clock that
//! does not jump, but may drift.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sim::Sim;
use corelog_io::{Queue, sleep, spawn};
use corelog_wire::messages::join_group_request::Protocol;
use corelog_wire::messages::list_offsets_request::{Partition, Topic};
use corelog_wire::messages::{HeartbeatRequest, JoinGroupRequest, ListOffsetsRequest, SyncGroupRequest};
use corelog_wire::{ErrorCode, Str};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::groups::{commit, committed, find};
use crate::plan::{Faults, Plan};
use crate::tailer::{connect, create_topic_with, produce};

const HOUR_MS: i64 = 3_600_000;
const SESSION: Duration = Duration::from_secs(10);
/// Longer than what looks for expired things waits between two looks.
const LOOKED: Duration = Duration::from_secs(11 * 60);
const EARLIEST: i64 = -2;

fn broker() -> (Sim, Broker) {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: 16 << 20, ..Plan::from_seed(1, Faults::Crashes) };
    broker.start(&plan, 2);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    (sim, broker)
}

/// The only member of a group.
struct Member {
    connection: Connection,
    id: Str,
    generation: i32,
}

const GROUP: &str = "lasting";

impl Member {
    async fn join(address: SocketAddr) -> Member {
        let mut connection = connect(address).await;
        find(&mut connection).await;
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: SESSION.as_millis() as i32,
            rebalance_timeout_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::new() }],
            ..Default::default()
        };
        let joined = connection.call(&request, 3).await.expect("an answer");
        assert_eq!(joined.error_code, 0);
        let (id, generation) = (joined.member_id, joined.generation_id);
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: id.clone(),
            ..Default::default()
        };
        assert_eq!(connection.call(&request, 3).await.expect("an answer").error_code, 0);
        Member { connection, id, generation }
    }

    async fn beat(&mut self) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.id.clone(),
            ..Default::default()
        };
        ErrorCode(self.connection.call(&request, 3).await.expect("an answer").error_code)
    }
}

async fn earliest(address: SocketAddr) -> i64 {
    let partition = Partition { timestamp: EARLIEST, ..Default::default() };
    let topics = vec![Topic { name: "tailed".into(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
    let answer = connect(address).await.call(&request, 7).await.expect("an answer");
    answer.topics[0].partitions[0].offset
}

async fn left_behind(address: SocketAddr) -> i64 {
    committed(&mut connect(address).await, "leaving", "tailed").await
}

#[test]
fn records_and_commits_expire_with_the_wall_clock_and_members_do_not() {
    let (sim, broker) = broker();
    let (address, machine) = (broker.address(), broker.machine.clone());
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let configs = [("retention.ms", "3600000"), ("segment.ms", "1000")];
        let topic = create_topic_with(&mut connection, 1, &configs).await;
        let mut member = Member::join(address).await;
        let beats = spawn(Queue::Control, async move {
            loop {
                assert_eq!(member.beat().await, ErrorCode::NONE, "its clock does not jump");
                sleep(SESSION / 3).await;
            }
        });
        for _ in 0..3 {
            produce(&mut connection, topic, 0..1, 1, 100).await;
            sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(commit(&mut connection, "leaving", "tailed", "").await, ErrorCode::NONE);
        sleep(LOOKED).await;
        assert_eq!(earliest(address).await, 0, "nothing is an hour old");

        machine.set_clock(2 * HOUR_MS, 0);
        sleep(LOOKED).await;
        let start = earliest(address).await;
        assert!(start >= 2, "what is two hours old is gone: {start}");
        assert_eq!(left_behind(address).await, 5);

        // Back to before it began.
        machine.set_clock(-2 * HOUR_MS - HOUR_MS / 2, 0);
        produce(&mut connect(address).await, topic, 0..1, 1, 100).await;
        sleep(LOOKED).await;
        assert!(earliest(address).await <= 3, "what was just written is there");
        assert_eq!(left_behind(address).await, 5);

        machine.set_clock(9 * 24 * HOUR_MS, 0);
        sleep(LOOKED).await;
        assert_eq!(left_behind(address).await, -1, "of a group without members");
        drop(beats);
    });
    broker.stop(&sim);
}

#[test]
fn a_session_lasts_as_long_as_the_brokers_clock_says() {
    for (drift_ppm, silence_ms, outcome) in [
        (0, 9_500, ErrorCode::NONE),
        (0, 10_500, ErrorCode::UNKNOWN_MEMBER_ID),
        (100_000, 9_500, ErrorCode::UNKNOWN_MEMBER_ID),
        (-100_000, 10_500, ErrorCode::NONE),
    ] {
        let (sim, broker) = broker();
        let (address, machine) = (broker.address(), broker.machine.clone());
        sim.block_on(async move {
            let mut member = Member::join(address).await;
            machine.set_clock(5 * HOUR_MS, drift_ppm);
            assert_eq!(member.beat().await, ErrorCode::NONE);
            sleep(Duration::from_millis(silence_ms)).await;
            assert_eq!(member.beat().await, outcome, "{drift_ppm} ppm, {silence_ms} ms");
        });
        broker.stop(&sim);
    }
}
