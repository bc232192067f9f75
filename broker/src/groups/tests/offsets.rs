//! Committing, fetching and forgetting offsets.

use super::*;
use corelog_wire::messages::offset_delete_request::{self, OffsetDeleteRequest};
use corelog_wire::messages::offset_delete_response::OffsetDeleteResponse;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn delete(bench: &mut Bench, group: &str, topic: &str) -> OffsetDeleteResponse {
    let partitions = vec![offset_delete_request::Partition { partition_index: 0 }];
    let request = OffsetDeleteRequest {
        group_id: s(group),
        topics: vec![offset_delete_request::Topic { name: s(topic), partitions }],
    };
    match bench.call(0, GroupRequest::OffsetDelete(request)) {
        GroupResponse::OffsetDelete(response) => response,
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_commit_in_their_generation() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    for (member, at, error) in [
        (&*ids[0], generation, ErrorCode::NONE),
        (&*ids[0], generation - 1, ErrorCode::ILLEGAL_GENERATION),
        (&*ids[0], -1, ErrorCode::ILLEGAL_GENERATION),
        ("stranger", generation, ErrorCode::UNKNOWN_MEMBER_ID),
        // Without a member: only where there are none.
        ("", -1, ErrorCode::UNKNOWN_MEMBER_ID),
    ] {
        let ticket = bench.commit(member, at, 7);
        assert_eq!(bench.committed(ticket), error, "{member} {at}");
    }
    assert_eq!(bench.fetch(), 7);
}

#[test]
fn commits_of_groups_that_are_not_there() {
    for (version, generation, error) in [
        (8, -1, ErrorCode::NONE),
        (9, -1, ErrorCode::NONE),
        (0, -1, ErrorCode::NONE),
        (8, 3, ErrorCode::ILLEGAL_GENERATION),
        (9, 3, ErrorCode::GROUP_ID_NOT_FOUND),
    ] {
        let mut bench = Bench::new(config());
        let request = commit_request(G, "", generation, "t", 5);
        let ticket = bench.send(version, GroupRequest::OffsetCommit(request));
        assert_eq!(bench.committed(ticket), error, "version {version}");
        assert_eq!(bench.fetch(), if error.is_ok() { 5 } else { -1 });
        assert_eq!(bench.state(), if error.is_ok() { "Empty" } else { "Dead" });
    }
}

#[test]
fn what_happens_to_commits_during_a_rebalance() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    let joiner = Joiner::default();
    let leader = bench.join(&joiner.with_id(&ids[0]));
    assert_eq!(bench.state(), "PreparingRebalance");
    // Before it rejoins a member may still commit what it has done.
    let ticket = bench.commit(&ids[1], generation, 11);
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    let follower = bench.join(&joiner.with_id(&ids[1]));
    bench.joined(leader);
    bench.joined(follower);
    assert_eq!(bench.state(), "CompletingRebalance");
    let ticket = bench.commit(&ids[1], generation + 1, 12);
    assert_eq!(bench.committed(ticket), ErrorCode::REBALANCE_IN_PROGRESS);
    let ticket = bench.commit(&ids[1], generation, 13);
    assert_eq!(bench.committed(ticket), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(bench.fetch(), 11);
}

#[test]
fn a_commit_keeps_the_session() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    for offset in 0..5 {
        bench.pass(SESSION_MS as u64 - 1);
        let ticket = bench.commit(&ids[0], generation, offset);
        assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    }
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
}

#[test]
fn metadata_has_a_limit_by_partition() {
    let mut bench = Bench::new(GroupConfig { offset_metadata_max: 4, ..config() });
    for (metadata, error) in [
        ("abcd", ErrorCode::NONE),
        ("abcde", ErrorCode::OFFSET_METADATA_TOO_LARGE),
        // Four UTF-16 code units in eight bytes of UTF-8.
        ("\u{1F600}\u{1F600}", ErrorCode::NONE),
        ("éééé", ErrorCode::NONE),
        ("ééééé", ErrorCode::OFFSET_METADATA_TOO_LARGE),
    ] {
        let mut request = commit_request(G, "", -1, "t", 1);
        request.topics[0].partitions[0].committed_metadata = Some(s(metadata));
        let mut small = request.topics[0].partitions[0].clone();
        small.partition_index = 1;
        small.committed_metadata = None;
        request.topics[0].partitions.push(small);
        let GroupResponse::OffsetCommit(answer) = bench.call(8, GroupRequest::OffsetCommit(request)) else {
            panic!()
        };
        assert_eq!(first_error(&answer), error, "{metadata}");
        assert_eq!(answer.topics[0].partitions[1].error_code, 0);
    }
}

#[test]
fn all_offsets_of_a_group_come_by_topic_and_partition() {
    let mut bench = Bench::new(config());
    for (topic, offset) in [("b", 2), ("a", 1), ("c", 3)] {
        let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(G, "", -1, topic, offset)));
        assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    }
    let all = bench.fetch_all(G);
    let names: Vec<&str> = all.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let first = &all.topics[0].partitions[0];
    assert_eq!((first.committed_offset, first.committed_leader_epoch, first.error_code), (1, -1, 0));
    assert_eq!(first.metadata.as_deref(), Some("note"));
    let none = bench.fetch_all("other");
    assert_eq!((none.error_code, none.topics.len()), (0, 0));
}

#[test]
fn offsets_are_deleted_where_nobody_reads() {
    let mut bench = Bench::new(config());
    let error = |response: &OffsetDeleteResponse| ErrorCode(response.error_code);
    assert_eq!(error(&delete(&mut bench, "", "t")), ErrorCode::INVALID_GROUP_ID);
    assert_eq!(error(&delete(&mut bench, G, "t")), ErrorCode::GROUP_ID_NOT_FOUND);
    let (ids, generation) = bench.stable(1);
    for topic in ["t", "u"] {
        let request = commit_request(G, &ids[0], generation, topic, 5);
        let ticket = bench.send(8, GroupRequest::OffsetCommit(request));
        assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    }
    let by_partition =
        |response: OffsetDeleteResponse| ErrorCode(response.topics[0].partitions[0].error_code);
    assert_eq!(by_partition(delete(&mut bench, G, "t")), ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
    assert_eq!(by_partition(delete(&mut bench, G, "u")), ErrorCode::NONE);
    let left = bench.fetch_all(G);
    assert_eq!(left.topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["t"]);
    bench.leave(&[(&ids[0], None)]);
    assert_eq!(by_partition(delete(&mut bench, G, "t")), ErrorCode::NONE);
    assert_eq!(bench.fetch(), -1);
}

#[test]
fn offsets_of_another_protocol_are_not_deleted_under_its_members() {
    let mut bench = Bench::new(config());
    let ticket = bench.join(&Joiner { version: 2, protocol_type: "connect", ..Joiner::default() });
    bench.joined(ticket);
    assert_eq!(ErrorCode(delete(&mut bench, G, "t").error_code), ErrorCode::NON_EMPTY_GROUP);
}

#[test]
fn offsets_outlive_their_group_by_the_retention() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let ticket = bench.commit(&ids[0], generation, 5);
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    // While it is there and reads the topic, the offset stays, however old.
    for _ in 0..8 * DAY_MS / 9_000 {
        bench.pass(9_000);
        assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    }
    assert_eq!(bench.fetch(), 5);
    bench.leave(&[(&ids[0], None)]);
    bench.pass(7 * DAY_MS - 1);
    assert_eq!(bench.fetch(), 5);
    bench.pass(600_001);
    assert_eq!(bench.fetch(), -1);
    assert_eq!(bench.state(), "Dead");
    let mut after = bench.restarted(config());
    assert_eq!((after.fetch(), after.state()), (-1, "Dead".to_owned()));
}

#[test]
fn offsets_of_a_topic_that_members_no_longer_read_expire() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(G, &ids[0], generation, "old", 5)));
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    for _ in 0..8 * DAY_MS / 9_000 {
        bench.pass(9_000);
        assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    }
    assert_eq!(bench.fetch_all(G).topics.len(), 0);
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn simple_groups_expire_by_their_commits() {
    let mut bench = Bench::new(config());
    for (topic, days) in [("a", 3), ("b", 3)] {
        let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(G, "", -1, topic, 1)));
        assert_eq!(bench.committed(ticket), ErrorCode::NONE);
        bench.pass(days * DAY_MS);
    }
    bench.pass(DAY_MS + 600_000);
    let left = bench.fetch_all(G);
    assert_eq!(left.topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(bench.state(), "Empty");
    bench.pass(3 * DAY_MS);
    assert_eq!(bench.state(), "Dead");
}

#[test]
fn retention_goes_through_many_groups_in_steps() {
    let mut bench = Bench::new(config());
    for group in 0..1_200 {
        bench.send(8, GroupRequest::OffsetCommit(commit_request(&format!("g{group}"), "", -1, "t", 1)));
    }
    bench.pass(7 * DAY_MS);
    let mut steps = 0;
    while !bench.groups().groups.is_empty() {
        let at = bench.coordinator.next_deadline().expect("retention goes on");
        bench.pass(at - bench.now.mono_ms);
        steps += 1;
        assert!(steps < 10);
    }
    assert!(steps >= 3, "{steps} steps");
}

/// OffsetCommit versions 2 to 4 may set a retention of their own; kafka-go sends version 2 with −1.
#[test]
fn a_commit_may_bring_its_own_retention() {
    let mut bench = Bench::new(config());
    let request = OffsetCommitRequest { retention_time_ms: 1_000, ..commit_request(G, "", -1, "t", 1) };
    let ticket = bench.send(2, GroupRequest::OffsetCommit(request));
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    let mut restarted = bench.restarted(config());
    for bench in [&mut bench, &mut restarted] {
        assert_eq!(bench.fetch(), 1);
        bench.pass(600_000);
        assert_eq!(bench.fetch(), -1);
    }
}

#[test]
fn offsets_of_deleted_topics_go() {
    let mut bench = Bench::new(config());
    for (group, topic) in [("g1", "t"), ("g1", "u"), ("g2", "t")] {
        let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(group, "", -1, topic, 1)));
        assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    }
    let deleted = ["t", "never"].map(|name| (s(name), topic_id(name)));
    bench.topics_deleted(&deleted);
    bench.settle();
    for mut bench in [bench.restarted(config()), bench] {
        assert_eq!(bench.fetch_all("g1").topics.len(), 1);
        assert_eq!(bench.fetch_all("g2").topics.len(), 0);
    }
}

#[test]
fn when_memory_is_used_up_known_offsets_move_on_and_new_ones_are_refused() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(8_000));
    let mut refused = None;
    for topic in 0..100 {
        let ticket =
            bench.send(8, GroupRequest::OffsetCommit(commit_request(G, "", -1, &topic.to_string(), 1)));
        let error = bench.committed(ticket);
        if error != ErrorCode::NONE {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::INVALID_COMMIT_OFFSET_SIZE));
    let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(G, "", -1, "0", 2)));
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
}

#[test]
fn growing_metadata_of_known_offsets_is_refused_when_memory_is_used_up() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(40_000));
    let commit = |bench: &mut Bench, metadata: &str| {
        let mut request = commit_request(G, "", -1, "t", 1);
        request.topics[0].partitions = (0..50)
            .map(|partition_index| offset_commit_request::Partition {
                partition_index,
                committed_metadata: Some(s(metadata)),
                ..request.topics[0].partitions[0].clone()
            })
            .collect();
        match bench.call(8, GroupRequest::OffsetCommit(request)) {
            GroupResponse::OffsetCommit(response) => response.topics[0]
                .partitions
                .iter()
                .filter(|partition| partition.error_code != 0)
                .map(|partition| ErrorCode(partition.error_code))
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(commit(&mut bench, ""), []);
    let refused = commit(&mut bench, &"x".repeat(4_000));
    assert!(refused.len() > 40, "{} are refused", refused.len());
    assert!(refused.iter().all(|error| *error == ErrorCode::INVALID_COMMIT_OFFSET_SIZE));
    let memory = &bench.groups().env.memory;
    assert!(memory.used() <= memory.limit(), "{} of {}", memory.used(), memory.limit());
    assert_eq!(commit(&mut bench, ""), [], "what takes no more goes on");
}

fn commit_for(bench: &mut Bench, version: i16, id: Uuid, offset: i64) -> ErrorCode {
    let mut request = commit_request(G, "", -1, "t", offset);
    request.topics[0].topic_id = id;
    let ticket = bench.send(version, GroupRequest::OffsetCommit(request));
    bench.committed(ticket)
}

/// The deletion found nobody who removes the offsets: the coordinator was loading, or died before it could.
#[test]
fn a_topic_created_anew_has_no_offsets_of_the_former() {
    let (old, new) = (topic_id("t"), topic_id("another"));
    let mut bench = Bench::new(config());
    assert_eq!(commit_for(&mut bench, 8, old, 5), ErrorCode::NONE);
    assert_eq!(bench.fetch(), 5);
    bench.topics.set("t", Some(new));
    for mut bench in [bench.restarted(config()), bench] {
        assert_eq!(bench.fetch(), -1);
        assert_eq!(bench.fetch_all(G).topics.len(), 0);
        // Passed its check where the topic's deletion was not known yet.
        assert_eq!(commit_for(&mut bench, 8, old, 6), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(commit_for(&mut bench, 10, old, 6), ErrorCode::UNKNOWN_TOPIC_ID);
        assert_eq!(bench.fetch(), -1);
        assert_eq!(commit_for(&mut bench, 10, new, 2), ErrorCode::NONE);
        assert_eq!(bench.fetch(), 2);
        assert_eq!(bench.fetch_all(G).topics[0].topic_id, new);
        // Comes late, and takes nothing of the new topic.
        bench.topics_deleted(&[(s("t"), old)]);
        bench.settle();
        assert_eq!(bench.restarted(config()).fetch(), 2);
    }
}

/// Of those whose deletion found nobody to remove them, or whose tombstones were refused. Not before: right after a start the
/// metadata may be older than the log, and the topic one that is not known yet.
#[test]
fn offsets_of_topics_that_are_gone_go_with_retention() {
    let tombstone = (&b"\0\x01\0\x05group\0\x01t\0\0\0\0"[..], None);
    let has_tombstone =
        |bench: &Bench| bench.log.iter().any(|record| (&*record.key, record.value.as_deref()) == tombstone);
    let mut bench = Bench::new(config());
    assert_eq!(commit_for(&mut bench, 8, topic_id("t"), 5), ErrorCode::NONE);
    bench.topics.set("t", None);
    let mut missed = bench.restarted(config());
    assert!(!has_tombstone(&missed));
    missed.pass(config().offsets_retention_check_interval_ms);
    assert!(has_tombstone(&missed));

    bench.durable = false;
    bench.topics_deleted(&[(s("t"), topic_id("t"))]);
    bench.write(Err(WriteFailure::Unavailable));
    bench.durable = true;
    bench.pass(config().offsets_retention_check_interval_ms);
    assert!(has_tombstone(&bench));
}

#[test]
fn offsets_of_topics_that_become_known_later_stay() {
    let mut bench = Bench::new(config());
    assert_eq!(commit_for(&mut bench, 8, topic_id("t"), 5), ErrorCode::NONE);
    bench.topics.set("t", None);
    let mut bench = bench.restarted(config());
    bench.topics.set("t", Some(topic_id("t")));
    bench.pass(2 * config().offsets_retention_check_interval_ms);
    assert_eq!(bench.fetch(), 5);
}

/// Whoever asks for the offsets of another topic than the one there is learns that not all shards agree yet, and not
/// that there are none: it would begin anew somewhere.
#[test]
fn who_means_another_topic_asks_again() {
    let mut bench = Bench::new(config());
    assert_eq!(commit_for(&mut bench, 8, topic_id("t"), 5), ErrorCode::NONE);
    let topics = vec![offset_fetch_request::Topics {
        name: s("t"),
        topic_id: topic_id("another"),
        partition_indexes: vec![0],
    }];
    let group = offset_fetch_request::Group { group_id: s(G), topics: Some(topics), ..Default::default() };
    match bench.call(8, GroupRequest::OffsetFetch { group, require_stable: false }) {
        GroupResponse::OffsetFetch(group) => {
            assert_eq!(ErrorCode(group.error_code), ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        }
        other => panic!("{other:?}"),
    }
}

/// Records of logs that are older than ids, and those with an expiry of their own.
#[test]
fn offsets_without_an_id_go_by_the_name() {
    let mut bench = Bench::new(config());
    let request = OffsetCommitRequest { retention_time_ms: 1_000_000, ..commit_request(G, "", -1, "t", 5) };
    let ticket = bench.send(2, GroupRequest::OffsetCommit(request));
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    let mut bench = bench.restarted(config());
    assert_eq!(bench.fetch(), 5);
    bench.topics_deleted(&[(s("t"), topic_id("t"))]);
    bench.settle();
    assert_eq!(bench.restarted(config()).fetch(), -1);
}

#[test]
fn fetches_that_wait_for_writes_are_bounded() {
    let mut bench = Bench::new(config());
    bench.durable = false;
    let commit = bench.commit("", -1, 5);
    let tickets: Vec<Ticket> = (0..1_001).map(|_| bench.send_fetch(true)).collect();
    let GroupResponse::OffsetFetch(last) = bench.answer(tickets[1_000]) else { panic!() };
    assert_eq!(ErrorCode(last.error_code), ErrorCode::UNSTABLE_OFFSET_COMMIT);
    assert!(bench.is_parked(tickets[999]));
    bench.write(Ok(()));
    assert_eq!(bench.committed(commit), ErrorCode::NONE);
    assert_eq!(bench.fetched(tickets[999]), 5);
}
