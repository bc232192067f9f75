//! The coordinator on the real storage in the simulated world: power goes, and what was acknowledged is there.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::{Process, Sim};

use corelog_io::{Queue, sleep, spawn};
use corelog_storage::{LogConfig, LogId, Recovered, ShardStorage, StorageConfig, read_journals};
use corelog_wire::Uuid;

use super::*;
use crate::coordinator::StorageLog;
use crate::ids::LeaderEpoch;
use crate::partition::Partition;

const DIR: &str = "/data";
const GROUPS: [&str; 6] = ["g0", "g1", "g2", "g3", "g4", "g5"];

async fn open() -> (Rc<ShardStorage>, Rc<GroupPartition<StorageLog>>) {
    let config = StorageConfig {
        journal_file_bytes: 256 << 10,
        journal_files: 3,
        tail_cache_bytes: 1 << 20,
        group_bytes_max: 64 << 10,
        min_free_bytes: 1 << 20,
        ..StorageConfig::new(DIR, 0, 1)
    };
    let recovered = read_journals(Path::new(DIR), 0, 1).await.expect("journals can be read");
    let storage = ShardStorage::open(config, Recovered::merge([recovered])).await.expect("storage opens");
    let log_config = LogConfig { segment_bytes: 64 << 10, delete_enabled: false, ..LogConfig::default() };
    let id = LogId { topic: Uuid([7; 16]), partition: 3 };
    let log = storage.log(id, "__consumer_offsets", log_config);
    storage.settle_recovery();
    let settings = super::settings(super::config());
    (
        storage,
        Rc::new(GroupPartition::start(
            3,
            StorageLog::new(Partition::alone(log, 5), LeaderEpoch(5), Rc::default()),
            settings,
        )),
    )
}

/// What the clients know, outside of the process.
#[derive(Default)]
struct Known {
    acknowledged: RefCell<BTreeMap<&'static str, i64>>,
    sent: RefCell<BTreeMap<&'static str, i64>>,
    checked: Cell<bool>,
}

async fn fetch(partition: &GroupPartition<StorageLog>, group: &str) -> i64 {
    let context = RequestContext { client_id: s("c"), client_host: s("/h"), api_version: 8 };
    loop {
        let topics = vec![offset_fetch_request::Topics {
            name: s("t"),
            partition_indexes: vec![0],
            ..Default::default()
        }];
        let group =
            offset_fetch_request::Group { group_id: s(group), topics: Some(topics), ..Default::default() };
        let request = GroupRequest::OffsetFetch { group, require_stable: false };
        let GroupResponse::OffsetFetch(answer) = partition.handle(&context, request).await else { panic!() };
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => return answer.topics[0].partitions[0].committed_offset,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => sleep(Duration::from_millis(10)).await,
            other => panic!("{other:?}"),
        }
    }
}

async fn check(partition: &GroupPartition<StorageLog>, known: &Known) {
    for group in GROUPS {
        let found = fetch(partition, group).await;
        let acknowledged = known.acknowledged.borrow().get(group).copied().unwrap_or(-1);
        let sent = known.sent.borrow().get(group).copied().unwrap_or(-1);
        assert!(
            acknowledged <= found && found <= sent,
            "{group}: {acknowledged} is acknowledged, {sent} was sent, {found} is there"
        );
    }
    known.checked.set(true);
}

/// Checks what is there, and goes on committing until the power goes.
fn commit_on(machine: &Process, known: &Rc<Known>) {
    let known = Rc::clone(known);
    machine.start(1, move |_| {
        let known = Rc::clone(&known);
        async move {
            let (_storage, partition) = open().await;
            check(&partition, &known).await;
            let _committers = GROUPS.map(|group| {
                let (partition, known) = (Rc::clone(&partition), Rc::clone(&known));
                spawn(Queue::Control, async move {
                    loop {
                        let offset = known.sent.borrow().get(group).map_or(0, |offset| offset + 1);
                        known.sent.borrow_mut().insert(group, offset);
                        let request = GroupRequest::OffsetCommit(commit_request(group, "", -1, "t", offset));
                        let context =
                            RequestContext { client_id: s("c"), client_host: s("/h"), api_version: 8 };
                        let GroupResponse::OffsetCommit(answer) = partition.handle(&context, request).await
                        else {
                            panic!()
                        };
                        if first_error(&answer).is_ok() {
                            known.acknowledged.borrow_mut().insert(group, offset);
                        }
                    }
                })
            });
            std::future::pending::<()>().await;
        }
    });
}

#[test]
fn acknowledged_offsets_survive_the_power() {
    for seed in 0..5 {
        let sim = Sim::new(seed);
        let machine = sim.process("broker");
        let known = Rc::new(Known::default());
        for _ in 0..5 {
            known.checked.set(false);
            commit_on(&machine, &known);
            while !known.checked.get() {
                assert!(sim.run_steps(100) > 0, "seed {seed}: stuck");
            }
            sim.run_steps(2_000 + sim.random_u64() % 3_000);
            machine.crash();
        }
        let committed: i64 = known.acknowledged.borrow().values().sum();
        assert!(committed > 50, "seed {seed}: only {committed} commits were acknowledged");
    }
}
