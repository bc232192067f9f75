//! The driver in the simulated world, over a log in memory that is slow, refuses and loses writes when told to.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::Sim;
use corelog_io::{Queue, sleep, spawn};

use super::*;
use crate::coordinator::tests::FakeLog;

fn context(version: i16) -> RequestContext {
    RequestContext { client_id: s("client"), client_host: s("/127.0.0.1"), api_version: version }
}

type Partition = GroupPartition<Rc<FakeLog>>;

fn start(log: &Rc<FakeLog>, config: GroupConfig) -> Rc<Partition> {
    Rc::new(GroupPartition::start(0, Rc::clone(log), settings(config)))
}

async fn join(partition: &Partition, joiner: &Joiner) -> JoinGroupResponse {
    match partition.handle(&context(joiner.version), GroupRequest::Join(joiner.request())).await {
        GroupResponse::Join(response) => response,
        other => panic!("{other:?}"),
    }
}

async fn commit(partition: &Partition, offset: i64) -> ErrorCode {
    let request = GroupRequest::OffsetCommit(commit_request(G, "", -1, "t", offset));
    match partition.handle(&context(8), request).await {
        GroupResponse::OffsetCommit(response) => first_error(&response),
        other => panic!("{other:?}"),
    }
}

async fn fetch(partition: &Partition) -> (ErrorCode, i64) {
    let topics =
        vec![offset_fetch_request::Topics { name: s("t"), partition_indexes: vec![0], ..Default::default() }];
    let group = offset_fetch_request::Group { group_id: s(G), topics: Some(topics), ..Default::default() };
    match partition.handle(&context(8), GroupRequest::OffsetFetch { group, require_stable: false }).await {
        GroupResponse::OffsetFetch(group) => {
            let offset = group.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset);
            (ErrorCode(group.error_code), offset)
        }
        other => panic!("{other:?}"),
    }
}

async fn state(partition: &Partition) -> String {
    let request = GroupRequest::Describe { groups: vec![s(G)], include_authorized_operations: false };
    match partition.handle(&context(5), request).await {
        GroupResponse::Describe(groups) => groups[0].group_state.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_commit_is_answered_when_it_is_durable_and_survives() {
    Sim::new(1).block_on(async {
        let log = Rc::new(FakeLog::default());
        log.durable_takes.set(Duration::from_millis(50));
        let partition = start(&log, config());
        let begin = corelog_io::now();
        assert_eq!(commit(&partition, 7).await, ErrorCode::NONE);
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert_eq!(fetch(&partition).await, (ErrorCode::NONE, 7));
        partition.close();
        let again = start(&log, config());
        assert_eq!(fetch(&again).await, (ErrorCode::NONE, 7), "the request waits for the log to be loaded");
    });
}

#[test]
fn commits_that_come_while_the_log_is_busy_go_to_it_together() {
    Sim::new(2).block_on(async {
        let log = Rc::new(FakeLog::default());
        log.append_takes.set(Duration::from_millis(10));
        let partition = start(&log, config());
        let tasks: Vec<_> = (1..=100)
            .map(|offset| {
                let partition = Rc::clone(&partition);
                spawn(Queue::Produce, async move { commit(&partition, offset).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await, ErrorCode::NONE);
        }
        let (_, records) = log.batches.borrow().last().cloned().unwrap();
        assert_eq!(records, 100);
        assert!(log.batches.borrow().len() < 10, "{} batches", log.batches.borrow().len());
        let again = start(&log, config());
        assert_eq!(fetch(&partition).await, fetch(&again).await, "the last of them in the log counts");
    });
}

#[test]
fn deadlines_are_kept() {
    Sim::new(3).block_on(async {
        let log = Rc::new(FakeLog::default());
        let partition = start(&log, GroupConfig::default());
        let begin = corelog_io::now();
        let joined = join(&partition, &Joiner { version: 2, ..Joiner::default() }).await;
        assert_eq!(joined.generation_id, 1);
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_secs(3) && waited < Duration::from_millis(3_010), "{waited:?}");
        let request = GroupRequest::Sync(sync_request(&joined.member_id, 1, &[(&joined.member_id, "all")]));
        let GroupResponse::Sync(synced) = partition.handle(&context(5), request).await else { panic!() };
        assert_eq!(synced.assignment, "all");
        sleep(Duration::from_millis(SESSION_MS as u64 - 100)).await;
        assert_eq!(state(&partition).await, "Stable");
        sleep(Duration::from_millis(200)).await;
        assert_eq!(state(&partition).await, "Empty");
    });
}

#[test]
fn a_refused_write_is_told_and_a_lost_one_begins_anew() {
    Sim::new(4).block_on(async {
        let log = Rc::new(FakeLog::default());
        let partition = start(&log, config());
        assert_eq!(commit(&partition, 1).await, ErrorCode::NONE);
        log.refuse.set(Some(WriteFailure::Unavailable));
        assert_eq!(commit(&partition, 2).await, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        assert_eq!(fetch(&partition).await.1, 1);

        log.refuse.set(None);
        log.lose.set(true);
        assert_eq!(commit(&partition, 3).await, ErrorCode::NOT_COORDINATOR);
        log.lose.set(false);
        assert_eq!(fetch(&partition).await.0, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        sleep(Duration::from_secs(2)).await;
        // It was in the log after all: what the coordinator serves is what the log has.
        assert_eq!(fetch(&partition).await, (ErrorCode::NONE, 3));
        assert_eq!(commit(&partition, 4).await, ErrorCode::NONE);
    });
}

#[test]
fn closing_answers_whoever_waits() {
    Sim::new(5).block_on(async {
        let log = Rc::new(FakeLog::default());
        let partition = start(&log, GroupConfig::default());
        let waiting = {
            let partition = Rc::clone(&partition);
            spawn(Queue::Control, async move {
                join(&partition, &Joiner { version: 2, ..Joiner::default() }).await
            })
        };
        sleep(Duration::from_millis(100)).await;
        partition.close();
        assert_eq!(join_error(&waiting.await), ErrorCode::NOT_COORDINATOR);
        assert_eq!(fetch(&partition).await.0, ErrorCode::NOT_COORDINATOR);
    });
}

#[test]
fn a_client_that_goes_leaves_its_request_behind() {
    Sim::new(6).block_on(async {
        let log = Rc::new(FakeLog::default());
        log.durable_takes.set(Duration::from_millis(50));
        let partition = start(&log, config());
        let gone = {
            let partition = Rc::clone(&partition);
            spawn(Queue::Control, async move { commit(&partition, 5).await })
        };
        sleep(Duration::from_millis(10)).await;
        drop(gone);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(fetch(&partition).await, (ErrorCode::NONE, 5));
    });
}

#[test]
fn a_damaged_log_is_not_served() {
    Sim::new(7).block_on(async {
        let log = Rc::new(FakeLog::default());
        let partition = start(&log, config());
        assert_eq!(commit(&partition, 5).await, ErrorCode::NONE);
        partition.close();
        {
            let (batch, _) = &mut log.batches.borrow_mut()[0];
            let mut bytes = batch.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            *batch = bytes.into();
        }
        let again = start(&log, config());
        assert_eq!(commit(&again, 6).await, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        // Of the groups that it has nothing is known; those of other partitions are listed.
        let list = GroupRequest::List(Default::default());
        let GroupResponse::List(listed) = again.handle(&context(5), list).await else { panic!() };
        assert_eq!((listed.error_code, listed.groups.len()), (0, 0));
        // Its records are deleted.
        log.batches.borrow_mut().clear();
        again.load_again();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(commit(&again, 6).await, ErrorCode::NONE);
    });
}

/// Commits whose clients have gone hold their room until the log has them; when it is used up, and the line for it is,
/// more are refused.
#[test]
fn commits_that_wait_for_a_slow_log_are_bounded() {
    Sim::new(9).block_on(async {
        let log = Rc::new(FakeLog::default());
        let room = GroupSettings {
            commit_room: Semaphore::new(2_000),
            commit_line: Semaphore::new(2_000),
            ..settings(config())
        };
        let partition = Rc::new(GroupPartition::start(0, Rc::clone(&log), room.clone()));
        assert_eq!(commit(&partition, 1).await, ErrorCode::NONE);
        log.append_takes.set(Duration::from_secs(60));
        let send = |offset| {
            let partition = Rc::clone(&partition);
            spawn(Queue::Control, async move { commit(&partition, offset).await })
        };
        let gone: Vec<_> = (2..9).map(send).collect();
        sleep(Duration::from_millis(10)).await;
        drop(gone);
        sleep(Duration::from_millis(10)).await;
        assert!(room.commit_room.available() < 300, "{} are free", room.commit_room.available());
        let waiting: Vec<_> = (9..16).map(send).collect();
        sleep(Duration::from_millis(10)).await;
        assert_eq!(commit(&partition, 16).await, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        log.append_takes.set(Duration::ZERO);
        for answer in waiting {
            assert_eq!(answer.await, ErrorCode::NONE);
        }
        assert_eq!(room.commit_room.available(), 2_000);
    });
}

#[test]
fn a_shard_serves_the_partitions_it_leads() {
    Sim::new(8).block_on(async {
        let shard: GroupShard<Rc<FakeLog>> =
            GroupShard::new(config(), 1 << 20, Topics::default().ids(), Rc::default());
        let led = Cell::new(false);
        let commit_to = |partition: i32, group: &'static str| {
            let (shard, led) = (&shard, &led);
            async move {
                let request = GroupRequest::OffsetCommit(commit_request(group, "", -1, "t", 1));
                let open = || led.get().then(Rc::default);
                match shard.ask(partition, &context(8), request, open).await {
                    GroupResponse::OffsetCommit(response) => first_error(&response),
                    other => panic!("{other:?}"),
                }
            }
        };
        for (partition, group) in [(3, "three"), (7, "seven")] {
            led.set(false);
            assert_eq!(commit_to(partition, group).await, ErrorCode::NOT_COORDINATOR);
            led.set(true);
            assert_eq!(commit_to(partition, group).await, ErrorCode::NONE);
            led.set(false);
            assert_eq!(commit_to(partition, group).await, ErrorCode::NONE, "it is at work");
        }
        assert_eq!(shard.groups_by_state(), BTreeMap::from([(GroupState::Empty, 2)]));
        shard.topics_deleted(&[(s("t"), topic_id("t"))]);
        sleep(Duration::from_millis(10)).await;
        shard.stop(3);
        assert_eq!(commit_to(3, "three").await, ErrorCode::NOT_COORDINATOR);
        shard.stop_all();
        assert_eq!(shard.memory().used(), 0);
    });
}

/// Requests and answers go between cores.
#[test]
fn requests_and_answers_are_send() {
    fn is_send<T: Send>() {}
    is_send::<(RequestContext, GroupRequest, GroupResponse)>();
}
