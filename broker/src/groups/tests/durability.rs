//! What is visible and answered before, when and unless a write is durable; and what a replay brings back.

use super::*;
use crate::coordinator::Record;
use crate::groups::records::GroupRecord;

const REFUSED: Result<(), WriteFailure> = Err(WriteFailure::Unavailable);

#[test]
fn an_offset_is_answered_and_seen_when_it_is_durable() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    bench.durable = false;
    let first = bench.commit(&ids[0], generation, 1);
    let second = bench.commit(&ids[0], generation, 2);
    assert!(bench.is_parked(first) && bench.is_parked(second));
    assert_eq!(bench.fetch(), -1);
    // One that wants stable offsets waits for what is on its way.
    let stable = bench.send_fetch(true);
    assert!(bench.is_parked(stable));
    bench.write(Ok(()));
    assert_eq!(bench.committed(first), ErrorCode::NONE);
    assert_eq!(bench.fetch(), 1);
    assert!(bench.is_parked(stable));
    bench.write(Ok(()));
    assert_eq!(bench.committed(second), ErrorCode::NONE);
    assert_eq!(bench.fetched(stable), 2);
}

#[test]
fn a_failed_commit_changes_nothing() {
    let mut bench = Bench::new(config());
    bench.durable = false;
    for (failure, error) in [
        (WriteFailure::Unavailable, ErrorCode::COORDINATOR_NOT_AVAILABLE),
        (WriteFailure::Failed, ErrorCode::NOT_COORDINATOR),
        (WriteFailure::TooLarge, ErrorCode::UNKNOWN_SERVER_ERROR),
    ] {
        let ticket = bench.commit("", -1, 1);
        assert_eq!(bench.state(), "Dead", "a group that is not durable is not shown");
        bench.write(Err(failure));
        assert_eq!(bench.committed(ticket), error);
        assert_eq!((bench.fetch(), bench.state()), (-1, "Dead".to_owned()));
    }
    assert_eq!(bench.groups().env.memory.used(), 0);
}

/// A member has its answer before the group's first write is durable. Whoever asks then must not be told otherwise.
#[test]
fn a_group_is_seen_as_soon_as_it_has_members() {
    let mut bench = Bench::new(config());
    bench.durable = false;
    let member = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert_eq!(bench.joined(member).error_code, 0);
    assert_eq!(bench.state(), "CompletingRebalance");
    let request = GroupRequest::List(Default::default());
    let GroupResponse::List(listed) = bench.call(4, request) else { panic!("no ListGroups answer") };
    assert_eq!(listed.groups.len(), 1);
    bench.write(Ok(()));
    assert_eq!(bench.state(), "CompletingRebalance");
}

#[test]
fn an_assignment_is_handed_out_when_it_is_durable() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    let generation = bench.joined(a).generation_id;
    bench.joined(b);
    bench.durable = false;
    let leader = bench.sync(&ids[0], generation, &[(&ids[0], "x"), (&ids[1], "y")]);
    let follower = bench.sync(&ids[1], generation, &[]);
    // The leader asks again, with something else: what is on its way stays.
    let again = bench.sync(&ids[0], generation, &[(&ids[0], "z")]);
    assert_eq!(sync_error(&bench.synced(leader)), ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(bench.is_parked(follower) && bench.is_parked(again));
    assert_eq!(bench.state(), "CompletingRebalance");
    assert_eq!(bench.in_flight.len(), 1);
    bench.write(Ok(()));
    assert_eq!(bench.synced(again).assignment, "x");
    assert_eq!(bench.synced(follower).assignment, "y");
    assert_eq!(bench.state(), "Stable");
}

#[test]
fn a_failed_assignment_makes_everybody_join_again() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    let generation = bench.joined(a).generation_id;
    bench.joined(b);
    bench.durable = false;
    let leader = bench.sync(&ids[0], generation, &[(&ids[0], "x")]);
    let follower = bench.sync(&ids[1], generation, &[]);
    bench.write(REFUSED);
    for ticket in [leader, follower] {
        let answer = bench.synced(ticket);
        assert_eq!((sync_error(&answer), answer.assignment.len()), (ErrorCode::COORDINATOR_NOT_AVAILABLE, 0));
    }
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn an_assignment_that_a_rebalance_has_overtaken_is_of_no_use() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let ticket = bench.join(&Joiner::default().with_id(&ids[0]));
    assert_eq!(bench.joined(ticket).generation_id, generation + 1);
    bench.durable = false;
    let leader = bench.sync(&ids[0], generation + 1, &[(&ids[0], "x")]);
    let new = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert_eq!(sync_error(&bench.synced(leader)), ErrorCode::REBALANCE_IN_PROGRESS);
    bench.write(Ok(()));
    assert_eq!(bench.state(), "PreparingRebalance");
    assert!(bench.is_parked(new));
}

#[test]
fn a_static_member_is_back_when_its_new_id_is_durable() {
    let mut bench = Bench::new(config());
    let joiner = Joiner { instance_id: Some("i"), ..Joiner::default() };
    let ticket = bench.join(&joiner);
    let id = bench.joined(ticket).member_id.to_string();
    bench.assign(std::slice::from_ref(&id), 1);
    bench.durable = false;

    let back = bench.join(&joiner);
    assert!(bench.is_parked(back));
    bench.write(REFUSED);
    assert_eq!(join_error(&bench.joined(back)), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(bench.heartbeat(&id, 1), ErrorCode::NONE, "its former id stays");

    let back = bench.join(&joiner);
    bench.write(Ok(()));
    let back = bench.joined(back);
    assert_eq!((back.error_code, back.generation_id), (0, 1));
    assert_eq!(bench.heartbeat(&id, 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.heartbeat(&back.member_id, 1), ErrorCode::NONE);
}

#[test]
fn a_deletion_is_seen_when_it_is_durable() {
    let mut bench = Bench::new(config());
    let ticket = bench.commit("", -1, 1);
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    bench.durable = false;
    let errors = |bench: &mut Bench, ticket| match bench.answer(ticket) {
        GroupResponse::Delete(results) => ErrorCode(results[0].error_code),
        other => panic!("{other:?}"),
    };

    let refused = bench.send(2, GroupRequest::Delete(vec![s(G)]));
    assert!(bench.is_parked(refused));
    assert_eq!((bench.fetch(), bench.state()), (1, "Empty".to_owned()));
    bench.write(REFUSED);
    assert_eq!(errors(&mut bench, refused), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!((bench.fetch(), bench.state()), (1, "Empty".to_owned()));

    let deleted = bench.send(2, GroupRequest::Delete(vec![s(G)]));
    // What comes behind it meets a group that is gone, and makes a new one.
    let twice = bench.send(2, GroupRequest::Delete(vec![s(G)]));
    assert_eq!(errors(&mut bench, twice), ErrorCode::GROUP_ID_NOT_FOUND);
    let commit = bench.commit("", -1, 9);
    bench.write(Ok(()));
    assert_eq!(errors(&mut bench, deleted), ErrorCode::NONE);
    assert_eq!((bench.fetch(), bench.state()), (-1, "Dead".to_owned()));
    bench.write(Ok(()));
    assert_eq!(bench.committed(commit), ErrorCode::NONE);
    assert_eq!((bench.fetch(), bench.state()), (9, "Empty".to_owned()));
    assert_eq!(bench.restarted(config()).fetch(), 9);
}

#[test]
fn a_deletion_takes_commits_along_that_are_on_their_way() {
    let mut bench = Bench::new(config());
    bench.durable = false;
    let commit = bench.commit("", -1, 1);
    let deletion = bench.send(2, GroupRequest::Delete(vec![s(G)]));
    bench.write(Ok(()));
    assert_eq!(bench.committed(commit), ErrorCode::NONE);
    bench.write(Ok(()));
    bench.answer(deletion);
    for mut bench in [bench.restarted(config()), bench] {
        assert_eq!((bench.fetch(), bench.state()), (-1, "Dead".to_owned()));
    }
}

#[test]
fn a_new_group_whose_record_fails_is_not_there_and_its_members_are_told() {
    let mut bench = Bench::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..config() });
    bench.durable = false;
    let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert!(bench.is_parked(ticket));
    bench.write(REFUSED);
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(bench.state(), "Dead");
    assert_eq!(bench.groups().env.memory.used(), 0);
}

#[test]
fn leaving_as_the_last_is_answered_when_it_is_durable() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(1);
    bench.durable = false;
    let members = vec![MemberIdentity { member_id: s(&ids[0]), ..Default::default() }];
    let request = LeaveGroupRequest { group_id: s(G), members, ..Default::default() };
    let ticket = bench.send(5, GroupRequest::Leave(request));
    assert!(bench.is_parked(ticket));
    bench.write(Ok(()));
    let GroupResponse::Leave(answer) = bench.answer(ticket) else { panic!() };
    assert_eq!((answer.error_code, answer.members[0].error_code), (0, 0));
}

#[test]
fn a_restart_brings_groups_back_with_fresh_sessions() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    let ticket = bench.commit(&ids[0], generation, 42);
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
    bench.pass(SESSION_MS as u64 - 1);
    let mut bench = bench.restarted(config());
    assert_eq!((bench.fetch(), bench.state()), (42, "Stable".to_owned()));
    bench.pass(SESSION_MS as u64 - 1);
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(bench.heartbeat(id, generation), ErrorCode::NONE);
        let ticket = bench.sync(id, generation, &[]);
        assert_eq!(bench.synced(ticket).assignment, index.to_string());
    }
    // The leader is still the leader, and the generation goes on.
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    assert_eq!((bench.joined(a).leader, bench.joined(b).generation_id), (s(&ids[0]), generation + 1));
    bench.pass(REBALANCE_MS as u64 + SESSION_MS as u64);
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_coordinator_that_unloads_refuses_whatever_waits() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    bench.durable = false;
    let commit = bench.commit(&ids[0], generation, 1);
    let fetch = bench.send_fetch(true);
    let join = bench.join(&Joiner::default().with_id(&ids[0]));
    let mut errors = BTreeMap::new();
    for effect in bench.coordinator.unload() {
        let Effect::Respond { ticket, response } = effect else { panic!("nothing is written any more") };
        let error = match response {
            GroupResponse::Join(response) => response.error_code,
            GroupResponse::OffsetCommit(response) => first_error(&response).code(),
            GroupResponse::OffsetFetch(group) => group.error_code,
            other => panic!("{other:?}"),
        };
        errors.insert(ticket, ErrorCode(error));
    }
    let not_here = ErrorCode::NOT_COORDINATOR;
    assert_eq!(errors, BTreeMap::from([(commit, not_here), (fetch, not_here), (join, not_here)]));
}

/// The bytes that Kafka's own coordinator writes, which monitors such as Burrow read.
#[test]
fn records_are_kafkas_bytes() {
    let mut bench = Bench::new(config());
    bench.now = Now { mono_ms: 0, wall_ms: 0x0102_0304_0506_0708 };
    let ticket = bench.commit("", -1, 5);
    bench.committed(ticket);
    assert_eq!(bench.log.len(), 1);
    assert_eq!(&*bench.log[0].key, b"\0\x01\0\x05group\0\x01t\0\0\0\0");
    // Version 4: compact strings, and the topic's id under tag 0.
    let mut value =
        b"\0\x04\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\x05note\x01\x02\x03\x04\x05\x06\x07\x08\x01\0\x10"
            .to_vec();
    value.extend_from_slice(&topic_id("t").0);
    assert_eq!(bench.log[0].value.as_deref(), Some(&value[..]));

    bench.log.clear();
    let request = OffsetCommitRequest { retention_time_ms: 1, ..commit_request(G, "", -1, "t", 5) };
    bench.send(2, GroupRequest::OffsetCommit(request));
    let value =
        b"\0\x01\0\0\0\0\0\0\0\x05\0\x04note\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07\x09";
    assert_eq!(bench.log[0].value.as_deref(), Some(&value[..]));

    bench.log.clear();
    bench.send(2, GroupRequest::Delete(vec![s(G)]));
    assert_eq!(bench.log.len(), 2);
    assert_eq!((&*bench.log[0].key, &bench.log[0].value), (&b"\0\x01\0\x05group\0\x01t\0\0\0\0"[..], &None));
    assert_eq!((&*bench.log[1].key, &bench.log[1].value), (&b"\0\x02\0\x05group"[..], &None));

    bench.log.clear();
    let joiner =
        Joiner { version: 2, protocols: vec![("range", Bytes::from_static(b"meta"))], ..Joiner::default() };
    let ticket = bench.join(&joiner);
    let id = bench.joined(ticket).member_id;
    let new_group = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0";
    assert_eq!(&*bench.log[0].key, b"\0\x02\0\x05group");
    assert_eq!(bench.log[0].value.as_deref(), Some(&new_group[..]));
    let ticket = bench.sync(&id, 1, &[(&id, "part")]);
    bench.synced(ticket);
    let mut value = Vec::new();
    value.extend_from_slice(b"\0\x03\0\x08consumer\0\0\0\x01\0\x05range\0\x2b");
    value.extend_from_slice(id.as_bytes());
    value.extend_from_slice(b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x01\0\x2b");
    value.extend_from_slice(id.as_bytes());
    value.extend_from_slice(
        b"\xff\xff\0\x06client\0\x0a/127.0.0.1\0\0\xea\x60\0\0\x27\x10\0\0\0\x04meta\0\0\0\x04part",
    );
    assert_eq!(bench.log[1].value.as_deref(), Some(&value[..]));
}

#[test]
fn records_of_other_kinds_are_passed_over_and_damaged_ones_reported() {
    let mut bench = Bench::loading(config(), GroupMemory::new(usize::MAX), Topics::default(), 1);
    let now = bench.now;
    let mut replay = |key: &'static [u8], value: Option<&'static [u8]>| {
        let raw = RawRecord { key: Bytes::from_static(key), value: value.map(Bytes::from_static) };
        bench.coordinator.replay(raw, now)
    };
    // ConsumerGroupMetadata (KIP-848).
    assert_eq!(replay(b"\0\x03\0\x05group", Some(b"\0\0\0\0\0\x01")), Ok(()));
    // An offset as Kafka before 2.1 wrote it, and of the future.
    assert_eq!(
        replay(b"\0\0\0\x05group\0\x01t\0\0\0\0", Some(b"\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\x01")),
        Ok(())
    );
    assert!(replay(b"\0\x01\0\x05group\0\x01t\0\0\0\0", Some(b"\0\x09")).is_err());
    assert!(replay(b"\0\x02\0\x05gro", None).is_err());
    bench.wake();
    assert_eq!(bench.fetch(), 7);
}

#[test]
fn a_record_that_names_a_member_twice_is_loaded_once() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let record = bench.log.last_mut().expect("the assignment");
    let mut value = record.value.take().expect("a value").to_vec();
    // The count of members stands before the first of them, and the rest of the value is that member.
    let count_at = 2 + 2 + "consumer".len() + 4 + 2 + "range".len() + 2 + ids[0].len() + 8;
    assert_eq!(value[count_at..count_at + 4], [0, 0, 0, 1]);
    value[count_at + 3] = 2;
    let member = value[count_at + 4..].to_vec();
    value.extend_from_slice(&member);
    record.value = Some(value.into());
    let mut bench = bench.restarted(config());
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    assert_eq!(bench.groups().groups[&s(G)].member_count(), 1);
}

/// What was decided on records that never came to the log is as void as they are.
#[test]
fn a_refused_write_takes_along_what_was_decided_on_it() {
    let mut bench = Bench::new(config());
    let joiner = |name| Joiner { instance_id: Some(name), ..Joiner::default() };
    let ticket = bench.join(&joiner("a"));
    let a = bench.joined(ticket).member_id.to_string();
    let new = bench.join(&joiner("b"));
    let old = bench.join(&joiner("a").with_id(&a));
    let generation = bench.joined(old).generation_id;
    let b = bench.joined(new).member_id.to_string();
    bench.assign(&[a.clone(), b.clone()], generation);
    bench.durable = false;
    // The record of the second return names the new id of the first.
    let (back_a, back_b) = (bench.join(&joiner("a")), bench.join(&joiner("b")));
    let commit = bench.commit("", -1, 1);
    assert_eq!(bench.committed(commit), ErrorCode::UNKNOWN_MEMBER_ID);
    bench.write(REFUSED);
    for back in [back_a, back_b] {
        assert_eq!(join_error(&bench.joined(back)), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    }
    for bench in [&mut bench.restarted(config()), &mut bench] {
        for (id, assignment) in [(&a, "0"), (&b, "1")] {
            assert_eq!(bench.heartbeat(id, generation), ErrorCode::NONE);
            let ticket = bench.sync(id, generation, &[]);
            assert_eq!(bench.synced(ticket).assignment, assignment);
        }
    }
    // The leader is still the leader.
    let leader = bench.join(&joiner("a").with_id(&a));
    assert!(bench.is_parked(leader));
}

#[test]
fn a_fetch_that_wants_stable_offsets_waits_for_what_a_refusal_leaves() {
    let mut bench = Bench::new(config());
    bench.durable = false;
    let first = bench.commit("", -1, 1);
    let second = bench.commit("", -1, 2);
    let stable = bench.send_fetch(true);
    // The log refuses the second while the first is still on its way.
    let (id, _) = bench.in_flight.pop_back().expect("two writes");
    bench.coordinator.refused(id, WriteFailure::Unavailable, bench.now);
    bench.settle();
    assert_eq!(bench.committed(second), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert!(bench.is_parked(stable));
    bench.write(Ok(()));
    assert_eq!(bench.committed(first), ErrorCode::NONE);
    assert_eq!(bench.fetched(stable), 1);
}

/// What is read of an encoded record is the record: so what is loaded is what was live.
#[test]
fn records_are_read_as_they_were_written() {
    let mut bench = Bench::new(config());
    let joiner = Joiner { instance_id: Some("i"), ..Joiner::default() };
    let ticket = bench.join(&joiner);
    let id = bench.joined(ticket).member_id.to_string();
    bench.assign(std::slice::from_ref(&id), 1);
    let commit = bench.commit(&id, 1, 5);
    assert_eq!(bench.committed(commit), ErrorCode::NONE);
    for retention_time_ms in [1, -1 - bench.now.wall_ms] {
        let request = OffsetCommitRequest { retention_time_ms, ..commit_request("other", "", -1, "t", 5) };
        bench.send(2, GroupRequest::OffsetCommit(request));
    }
    bench.send(2, GroupRequest::Delete(vec![s("other")]));
    let ticket = bench.join(&joiner);
    bench.joined(ticket);
    let restarted = bench.restarted(config());
    assert_eq!(bench.groups().state.stored, restarted.groups().state.stored);
    for raw in &bench.log {
        let record = GroupRecord::decode(raw.clone()).expect("our own record").expect("of a known kind");
        assert_eq!(record.encode(), *raw);
    }
    assert!(bench.log.len() >= 7, "{} records", bench.log.len());
}

/// More than get their soft state in one turn.
#[test]
fn many_groups_come_back_with_their_sessions() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    for index in 0..1_200 {
        let request = commit_request(&format!("simple-{index}"), "", -1, "t", 1);
        bench.send(8, GroupRequest::OffsetCommit(request));
    }
    let mut again = bench.restarted(config());
    assert_eq!(again.groups().groups.len(), 1_201);
    assert_eq!(again.groups().env.memory.used(), bench.groups().env.memory.used());
    assert_eq!(again.heartbeat(&ids[0], generation), ErrorCode::NONE);
    again.pass(SESSION_MS as u64);
    assert_eq!(again.state(), "Empty");
}
