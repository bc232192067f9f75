//! Members that come, go, fail and come back.

use super::*;

#[test]
fn a_member_without_an_id_is_given_one_first() {
    let mut bench = Bench::new(config());
    let ticket = bench.join(&Joiner::default());
    let first = bench.joined(ticket);
    assert_eq!(join_error(&first), ErrorCode::MEMBER_ID_REQUIRED);
    assert!(first.member_id.starts_with("client-"), "{}", first.member_id);
    assert_eq!(first.member_id.len(), "client-".len() + 36);
    assert_eq!(&first.member_id[21..22], "4", "a version 4 UUID: {}", first.member_id);
    assert_eq!(bench.state(), "Empty");

    let ticket = bench.join(&Joiner::default().with_id(&first.member_id));
    let second = bench.joined(ticket);
    assert_eq!(join_error(&second), ErrorCode::NONE);
    assert_eq!((second.generation_id, &second.leader), (1, &first.member_id));
    assert_eq!(second.member_id, first.member_id);
    assert_eq!(second.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(second.protocol_name.as_deref(), Some("range"));
    assert_eq!(second.members.len(), 1);
    assert_eq!(second.members[0].metadata, subscription(&["t"]));
}

#[test]
fn old_versions_join_in_one_step() {
    for version in 0..4 {
        let mut bench = Bench::new(config());
        let ticket = bench.join(&Joiner { version, rebalance_timeout_ms: -1, ..Joiner::default() });
        let joined = bench.joined(ticket);
        assert_eq!(join_error(&joined), ErrorCode::NONE, "version {version}");
        assert_eq!(joined.leader, joined.member_id);
    }
}

#[test]
fn two_members_share_a_generation() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    assert_eq!(generation, 2);
    assert_eq!(bench.state(), "Stable");
    for id in &ids {
        assert_eq!(bench.heartbeat(id, generation), ErrorCode::NONE);
        assert_eq!(bench.heartbeat(id, generation - 1), ErrorCode::ILLEGAL_GENERATION);
    }
    assert_eq!(bench.heartbeat("stranger", generation), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_new_member_makes_the_others_rejoin() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let new = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert!(bench.is_parked(new));
    assert_eq!(bench.state(), "PreparingRebalance");
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    let sync = bench.sync(&ids[0], generation, &[]);
    assert_eq!(sync_error(&bench.synced(sync)), ErrorCode::REBALANCE_IN_PROGRESS);

    let old = bench.join(&Joiner { version: 2, ..Joiner::default() }.with_id(&ids[0]));
    let (old, new) = (bench.joined(old), bench.joined(new));
    assert_eq!((old.generation_id, new.generation_id), (generation + 1, generation + 1));
    assert_eq!(old.leader, old.member_id);
    assert_eq!((old.members.len(), new.members.len()), (2, 0));
    assert_eq!(bench.state(), "CompletingRebalance");
}

#[test]
fn only_the_leaders_assignment_counts() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let (leader, follower) = (Joiner::default().with_id(&ids[0]), Joiner::default().with_id(&ids[1]));
    let (a, b) = (bench.join(&leader), bench.join(&follower));
    let generation = bench.joined(a).generation_id;
    bench.joined(b);
    // The follower claims to assign: nothing comes of it.
    let by_follower = bench.sync(&ids[1], generation, &[(&ids[0], "mine"), (&ids[1], "mine too")]);
    assert!(bench.is_parked(by_follower));
    let by_leader = bench.sync(&ids[0], generation, &[(&ids[0], "x"), ("nobody", "y")]);
    assert_eq!(bench.synced(by_leader).assignment, "x");
    let left_out = bench.synced(by_follower);
    assert_eq!((left_out.error_code, left_out.assignment.len()), (0, 0));
    // Asked again, everybody gets the same.
    let again = bench.sync(&ids[0], generation, &[(&ids[0], "z")]);
    assert_eq!(bench.synced(again).assignment, "x");
}

#[test]
fn a_failed_leader_is_replaced() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    for _ in 0..3 {
        bench.pass(4_000);
        bench.heartbeat(&ids[1], generation);
    }
    // The leader was last heard of 12 seconds ago.
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UNKNOWN_MEMBER_ID);
    let ticket = bench.join(&Joiner::default().with_id(&ids[1]));
    let joined = bench.joined(ticket);
    assert_eq!(joined.leader, ids[1].as_str());
    assert_eq!(joined.generation_id, generation + 1);
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn a_leader_that_fails_to_rejoin_in_time_is_replaced() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    let changed = Joiner { protocols: vec![("range", subscription(&["t", "u"]))], ..Joiner::default() };
    let ticket = bench.join(&changed.with_id(&ids[1]));
    // It heartbeats all along, but doesn't join.
    for _ in 0..REBALANCE_MS / 5_000 {
        assert!(bench.is_parked(ticket));
        assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
        bench.pass(5_000);
    }
    let joined = bench.joined(ticket);
    assert_eq!((joined.leader, joined.members.len()), (s(&ids[1]), 1));
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_never_syncs_is_put_out() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    let generation = bench.joined(a).generation_id;
    bench.joined(b);
    let waiting = bench.sync(&ids[1], generation, &[]);
    for _ in 0..REBALANCE_MS / 5_000 {
        assert!(bench.is_parked(waiting));
        bench.heartbeat(&ids[0], generation);
        bench.pass(5_000);
    }
    assert_eq!(sync_error(&bench.synced(waiting)), ErrorCode::REBALANCE_IN_PROGRESS);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::UNKNOWN_MEMBER_ID);
    let ticket = bench.join(&Joiner::default().with_id(&ids[1]));
    assert_eq!(bench.joined(ticket).leader, ids[1].as_str());
}

#[test]
fn the_initial_delay_gathers_members_and_ends() {
    let delay_ms = 3_000;
    let mut bench = Bench::new(GroupConfig { initial_rebalance_delay_ms: delay_ms, ..config() });
    let joiner = Joiner { version: 2, rebalance_timeout_ms: 8_000, ..Joiner::default() };
    let mut tickets = vec![bench.join(&joiner)];
    // One more every two seconds: each prolongs the delay, but not beyond the rebalance timeout.
    for _ in 0..3 {
        bench.pass(2_000);
        tickets.push(bench.join(&joiner));
    }
    assert!(tickets.iter().all(|ticket| bench.is_parked(*ticket)));
    bench.pass(1_999);
    assert!(bench.is_parked(tickets[0]));
    bench.pass(1);
    let joined: Vec<_> = tickets.into_iter().map(|ticket| bench.joined(ticket)).collect();
    assert!(joined.iter().all(|joined| joined.generation_id == 1 && joined.error_code == 0));
    assert_eq!(joined.iter().filter(|joined| joined.leader == joined.member_id).count(), 1);
    assert_eq!(joined.iter().map(|joined| joined.members.len()).max(), Some(4));
}

#[test]
fn a_lone_member_waits_one_initial_delay() {
    let mut bench = Bench::new(GroupConfig { initial_rebalance_delay_ms: 3_000, ..config() });
    let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
    bench.pass(2_999);
    assert!(bench.is_parked(ticket));
    bench.pass(1);
    assert_eq!(bench.joined(ticket).generation_id, 1);
}

/// KafkaJS joins with a rebalance timeout of 0.
#[test]
fn a_rebalance_timeout_of_zero_is_the_session_timeout() {
    let mut bench = Bench::new(config());
    let joiner = Joiner { version: 5, rebalance_timeout_ms: 0, ..Joiner::default() };
    let ticket = bench.join(&joiner);
    let id = bench.joined(ticket).member_id;
    let ticket = bench.join(&joiner.with_id(&id));
    let generation = bench.joined(ticket).generation_id;
    bench.pass(1_000);
    let ticket = bench.sync(&id, generation, &[(&id, "all")]);
    assert_eq!(bench.synced(ticket).assignment, "all");
}

#[test]
fn session_timeouts_have_bounds() {
    let mut bench = Bench::new(config());
    for (timeout, error) in [
        (5_999, ErrorCode::INVALID_SESSION_TIMEOUT),
        (6_000, ErrorCode::MEMBER_ID_REQUIRED),
        (1_800_000, ErrorCode::MEMBER_ID_REQUIRED),
        (1_800_001, ErrorCode::INVALID_SESSION_TIMEOUT),
        (-1, ErrorCode::INVALID_SESSION_TIMEOUT),
    ] {
        let ticket = bench.join(&Joiner { session_timeout_ms: timeout, ..Joiner::default() });
        assert_eq!(join_error(&bench.joined(ticket)), error, "{timeout}");
    }
}

#[test]
fn joins_that_come_to_nothing() {
    let mut bench = Bench::new(config());
    bench.stable(1);
    let unknown = Joiner { member_id: "no-such-member".to_owned(), ..Joiner::default() };
    for (joiner, error) in [
        (Joiner { group: "", ..Joiner::default() }, ErrorCode::INVALID_GROUP_ID),
        (unknown.clone(), ErrorCode::UNKNOWN_MEMBER_ID),
        (Joiner { group: "other", ..unknown.clone() }, ErrorCode::UNKNOWN_MEMBER_ID),
        (Joiner { protocol_type: "connect", ..Joiner::default() }, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (
            Joiner { protocol_type: "", group: "other", ..Joiner::default() },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            Joiner { protocols: vec![], group: "other", ..Joiner::default() },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
        (
            Joiner { protocols: vec![("sticky", Bytes::new())], ..Joiner::default() },
            ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
        ),
    ] {
        for version in [5, 9] {
            let ticket = bench.join(&Joiner { version, ..joiner.clone() });
            let answer = bench.joined(ticket);
            assert_eq!(join_error(&answer), error, "{} {}", joiner.group, joiner.protocol_type);
            assert_eq!(answer.generation_id, -1);
            // Null is a value of version 7 and later.
            assert_eq!(answer.protocol_name.is_none(), version >= 7);
        }
    }
}

#[test]
fn the_protocol_that_most_members_prefer_is_selected() {
    let protocols =
        |names: &[&'static str]| names.iter().map(|name| (*name, subscription(&["t"]))).collect::<Vec<_>>();
    let mut bench = Bench::new(GroupConfig { initial_rebalance_delay_ms: 100, ..config() });
    let joiners = [
        protocols(&["sticky", "range", "roundrobin"]),
        protocols(&["range", "roundrobin"]),
        protocols(&["roundrobin", "range", "sticky"]),
        protocols(&["range", "sticky", "roundrobin"]),
    ];
    let tickets: Vec<Ticket> = joiners
        .into_iter()
        .map(|protocols| bench.join(&Joiner { version: 2, protocols, ..Joiner::default() }))
        .collect();
    bench.pass(1_000);
    for ticket in tickets {
        // sticky is not known to all; range has two votes and, that of the first member now falling to it, a third.
        assert_eq!(bench.joined(ticket).protocol_name.as_deref(), Some("range"));
    }
}

#[test]
fn the_leaders_rejoin_starts_a_rebalance_and_a_followers_does_not() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    let follower = bench.join(&Joiner::default().with_id(&ids[1]));
    let answer = bench.joined(follower);
    assert_eq!((answer.error_code, answer.generation_id, answer.members.len()), (0, generation, 0));
    assert_eq!(bench.state(), "Stable");

    let leader = bench.join(&Joiner::default().with_id(&ids[0]));
    assert!(bench.is_parked(leader));
    assert_eq!(bench.state(), "PreparingRebalance");
}

#[test]
fn a_join_that_missed_its_answer_gets_it_again() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    let (leader, follower) = (bench.joined(a), bench.joined(b));
    assert_eq!(bench.state(), "CompletingRebalance");
    let (a, b) =
        (bench.join(&Joiner::default().with_id(&ids[0])), bench.join(&Joiner::default().with_id(&ids[1])));
    assert_eq!(bench.joined(a), leader);
    assert_eq!(bench.joined(b), follower);
    assert_eq!(bench.state(), "CompletingRebalance");
}

/// A client whose connection broke sends its JoinGroup again on a new one.
#[test]
fn of_two_parked_joins_the_later_counts() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    let first = bench.join(&Joiner::default().with_id(&ids[0]));
    let second = bench.join(&Joiner::default().with_id(&ids[0]));
    assert_eq!(join_error(&bench.joined(first)), ErrorCode::REBALANCE_IN_PROGRESS);
    let other = bench.join(&Joiner::default().with_id(&ids[1]));
    assert_eq!(bench.joined(second).generation_id, generation + 1);
    bench.joined(other);

    let first = bench.sync(&ids[1], generation + 1, &[]);
    let second = bench.sync(&ids[1], generation + 1, &[]);
    assert_eq!(sync_error(&bench.synced(first)), ErrorCode::REBALANCE_IN_PROGRESS);
    bench.sync(&ids[0], generation + 1, &[(&ids[1], "part")]);
    assert_eq!(bench.synced(second).assignment, "part");
}

#[test]
fn an_unused_member_id_expires_and_no_longer_holds_up_the_others() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    let ticket = bench.join(&Joiner::default());
    let pending = bench.joined(ticket).member_id;
    let leader = bench.join(&Joiner::default().with_id(&ids[0]));
    assert!(bench.is_parked(leader), "the new member is waited for");
    bench.pass(SESSION_MS as u64);
    assert_eq!(bench.joined(leader).generation_id, generation + 1);
    let ticket = bench.join(&Joiner::default().with_id(&pending));
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn the_last_member_to_leave_leaves_an_empty_group() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(2);
    assert_eq!(bench.leave(&[(&ids[0], None)]).members[0].error_code, 0);
    assert_eq!(bench.state(), "PreparingRebalance");
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    let left = bench.leave(&[(&ids[1], None), ("stranger", None)]);
    assert_eq!(left.members[0].error_code, 0);
    assert_eq!(ErrorCode(left.members[1].error_code), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(bench.state(), "Empty");
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::UNKNOWN_MEMBER_ID);
    // The next generation goes on from there.
    let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert_eq!(bench.joined(ticket).generation_id, generation + 2);
}

/// kafka-go: LeaveGroup v0, Heartbeat v0, SyncGroup v0.
#[test]
fn version_0_leaves_by_a_field_of_its_own() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(1);
    for (member, error) in [("stranger", ErrorCode::UNKNOWN_MEMBER_ID), (&*ids[0], ErrorCode::NONE)] {
        let request = LeaveGroupRequest { group_id: s(G), member_id: s(member), ..Default::default() };
        let GroupResponse::Leave(answer) = bench.call(0, GroupRequest::Leave(request)) else { panic!() };
        assert_eq!((ErrorCode(answer.error_code), answer.members.len()), (error, 0));
    }
    assert_eq!(bench.state(), "Empty");
}

#[test]
fn a_member_that_leaves_while_it_joins_is_refused() {
    let mut bench = Bench::new(config());
    bench.stable(1);
    let joining = bench.join(&Joiner { version: 2, instance_id: Some("i"), ..Joiner::default() });
    assert!(bench.is_parked(joining));
    assert_eq!(bench.leave(&[("", Some("i"))]).members[0].error_code, 0);
    assert_eq!(join_error(&bench.joined(joining)), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn syncs_name_the_protocol_of_their_generation() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(1);
    for (protocol_type, protocol_name, error) in [
        (Some("consumer"), Some("range"), ErrorCode::NONE),
        (Some("connect"), Some("range"), ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (Some("consumer"), Some("sticky"), ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (None, Some("range"), ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
        (Some("consumer"), None, ErrorCode::INCONSISTENT_GROUP_PROTOCOL),
    ] {
        let request = SyncGroupRequest {
            protocol_type: protocol_type.map(s),
            protocol_name: protocol_name.map(s),
            ..sync_request(&ids[0], generation, &[])
        };
        let ticket = bench.send(5, GroupRequest::Sync(request));
        assert_eq!(sync_error(&bench.synced(ticket)), error, "{protocol_type:?} {protocol_name:?}");
    }
    let old = SyncGroupRequest {
        protocol_type: None,
        protocol_name: None,
        ..sync_request(&ids[0], generation, &[])
    };
    let ticket = bench.send(4, GroupRequest::Sync(old));
    assert_eq!(sync_error(&bench.synced(ticket)), ErrorCode::NONE);
    for (member, generation, error) in [
        ("stranger", generation, ErrorCode::UNKNOWN_MEMBER_ID),
        (&*ids[0], generation - 1, ErrorCode::ILLEGAL_GENERATION),
    ] {
        let ticket = bench.sync(member, generation, &[]);
        assert_eq!(sync_error(&bench.synced(ticket)), error);
    }
}

/// KIP-429: clients rejoin right after a generation, twice, and only the generations move.
#[test]
fn cooperative_rebalances_bump_the_generation_cleanly() {
    let mut bench = Bench::new(config());
    let (ids, mut generation) = bench.stable(3);
    for round in 0..4 {
        let metadata = subscription(&["t", ["a", "b"][round % 2]]);
        let joiner = Joiner { protocols: vec![("range", metadata)], ..Joiner::default() };
        let tickets: Vec<Ticket> = ids.iter().map(|id| bench.join(&joiner.with_id(id))).collect();
        for ticket in tickets {
            let joined = bench.joined(ticket);
            assert_eq!((joined.generation_id, &*joined.leader), (generation + 1, &*ids[0]));
        }
        generation += 1;
        bench.assign(&ids, generation);
        assert_eq!(bench.state(), "Stable");
    }
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut bench = Bench::new(GroupConfig { group_members_max: 2, ..config() });
    let (ids, generation) = bench.stable(2);
    let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
}

#[test]
fn a_group_loaded_above_the_limit_sheds_members() {
    let mut bench = Bench::new(config());
    let (ids, generation) = bench.stable(3);
    let mut bench = bench.restarted(GroupConfig { group_members_max: 2, ..config() });
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    let tickets: Vec<Ticket> = ids.iter().map(|id| bench.join(&Joiner::default().with_id(id))).collect();
    assert_eq!(join_error(&bench.joined(tickets[2])), ErrorCode::GROUP_MAX_SIZE_REACHED);
    bench.pass(REBALANCE_MS as u64);
    assert_eq!(bench.joined(tickets[0]).generation_id, generation + 1);
}

#[test]
fn when_memory_is_used_up_members_stay_and_nobody_comes() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(16_000));
    let (ids, generation) = bench.stable(1);
    let mut refused = None;
    for _ in 0..100 {
        let ticket = bench.join(&Joiner::default());
        let error = join_error(&bench.joined(ticket));
        if error != ErrorCode::MEMBER_ID_REQUIRED {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    // The ids that nobody joins with go, and make room.
    bench.pass(SESSION_MS as u64 / 2);
    bench.heartbeat(&ids[0], generation);
    bench.pass(SESSION_MS as u64 / 2);
    let ticket = bench.join(&Joiner::default());
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::MEMBER_ID_REQUIRED);
}

fn with_metadata(bytes: usize) -> Joiner {
    Joiner { protocol_type: "other", protocols: vec![("range", vec![7; bytes].into())], ..Joiner::default() }
}

/// A member id is asked for with little, and given back with all there is.
#[test]
fn a_member_id_that_is_given_back_brings_no_more_than_there_is_room_for() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(100_000));
    let joined = Joiner { group: "other", ..with_metadata(10) };
    for large in [60_000, 40_000] {
        let ticket = bench.join(&with_metadata(10));
        let id = bench.joined(ticket).member_id;
        let ticket = bench.join(&with_metadata(large).with_id(&id));
        let error = join_error(&bench.joined(ticket));
        match large {
            60_000 => assert_eq!(error, ErrorCode::GROUP_MAX_SIZE_REACHED, "more than one group may have"),
            _ => assert_eq!(error, ErrorCode::NONE),
        }
    }
    // Another group has room yet.
    let ticket = bench.join(&joined);
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::MEMBER_ID_REQUIRED);
    let memory = &bench.groups().env.memory;
    assert!(memory.used() <= memory.limit());
}

#[test]
fn what_a_group_calls_its_protocol_counts() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(200_000));
    let name = String::from_utf8(vec![b'p'; 30_000]).expect("text").leak();
    for (group, error) in [
        ("a", ErrorCode::NONE),
        ("b", ErrorCode::NONE),
        ("c", ErrorCode::NONE),
        ("d", ErrorCode::NONE),
        ("e", ErrorCode::NONE),
        ("f", ErrorCode::GROUP_MAX_SIZE_REACHED),
    ] {
        let ticket = bench.join(&Joiner { version: 2, group, protocol_type: name, ..Joiner::default() });
        assert_eq!(join_error(&bench.joined(ticket)), error, "{group}");
    }
}

#[test]
fn nor_does_the_first_member_of_a_group() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(100_000));
    for (bytes, error) in [(60_000, ErrorCode::GROUP_MAX_SIZE_REACHED), (40_000, ErrorCode::NONE)] {
        let ticket = bench.join(&Joiner { version: 2, ..with_metadata(bytes) });
        assert_eq!(join_error(&bench.joined(ticket)), error, "{bytes}");
    }
}

/// A name of some bytes is a place in a set. Those that are too many are taken for all there are.
#[test]
fn the_topics_that_members_subscribe_to_count() {
    for (topics, known) in [(5_000, true), (20_000, false)] {
        let mut metadata = vec![0, 0];
        metadata.extend(i32::to_be_bytes(topics));
        for topic in 0..topics {
            metadata.extend([0, 5]);
            metadata.extend(format!("{topic:05}").bytes());
        }
        metadata.extend(i32::to_be_bytes(-1));
        let bytes = metadata.len();
        let mut bench = Bench::with_memory(config(), GroupMemory::new(10_000_000));
        let joiner = Joiner {
            version: 2,
            protocol_type: "consumer",
            protocols: vec![("range", metadata.into())],
            ..Joiner::default()
        };
        let ticket = bench.join(&joiner);
        assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::NONE);
        let group = &bench.groups().groups[G];
        assert_eq!((group.knows_subscriptions(), group.is_subscribed_to("other")), (known, !known));
        let beside = bench.groups().env.memory.used() - bytes;
        assert_eq!(beside > topics as usize * 96, known, "{beside} bytes");
    }
}

#[test]
fn a_member_that_comes_back_with_more_is_refused_and_stays_as_it_was() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(60_000));
    let (ids, generation) = bench.stable(1);
    let more = Joiner { protocols: vec![("range", vec![7; 50_000].into())], ..Joiner::default() };
    let ticket = bench.join(&more.with_id(&ids[0]));
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::GROUP_MAX_SIZE_REACHED);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    let ticket = bench.join(&Joiner::default().with_id(&ids[0]));
    assert_eq!(bench.joined(ticket).generation_id, generation + 1, "what takes no more goes on");
}

#[test]
fn an_assignment_that_there_is_no_room_for_is_refused() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(60_000));
    let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
    let joined = bench.joined(ticket);
    let large = "x".repeat(50_000);
    let ticket = bench.sync(&joined.member_id, joined.generation_id, &[(&joined.member_id, &large)]);
    assert_eq!(sync_error(&bench.synced(ticket)), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    let memory = &bench.groups().env.memory;
    assert!(memory.used() < 10_000, "{}", memory.used());
    let ticket = bench.join(&Joiner::default().with_id(&joined.member_id));
    let joined = bench.joined(ticket);
    let ticket = bench.sync(&joined.member_id, joined.generation_id, &[(&joined.member_id, "small")]);
    assert_eq!(bench.synced(ticket).assignment, "small");
}

/// Offsets take all that they may, and are kept by a broker that comes back with half of the memory.
#[test]
fn members_come_back_to_their_group_whatever_offsets_take() {
    let mut bench = Bench::with_memory(config(), GroupMemory::new(64_000));
    let (ids, _) = bench.stable(1);
    let mut last = ErrorCode::NONE;
    for topic in 0..1000 {
        let request = commit_request("other", "", -1, &topic.to_string(), 1);
        let ticket = bench.send(8, GroupRequest::OffsetCommit(request));
        last = bench.committed(ticket);
    }
    assert_eq!(last, ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
    bench.leave(&[(&ids[0], None)]);
    for bench in [&mut bench.restarted_with(config(), GroupMemory::new(32_000)), &mut bench] {
        let ticket = bench.join(&Joiner { version: 2, ..Joiner::default() });
        let joined = bench.joined(ticket);
        assert_eq!(join_error(&joined), ErrorCode::NONE);
        let ticket = bench.sync(&joined.member_id, joined.generation_id, &[(&joined.member_id, "all")]);
        assert_eq!(bench.synced(ticket).assignment, "all");
    }
}

/// New groups leave some of the memory to those that are there.
#[test]
fn groups_that_are_there_go_on_when_there_is_no_room_for_new_ones() {
    const NAMES: [&str; 40] = {
        let mut names = ["g"; 40];
        let all = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
        let mut n = 0;
        while n < 40 {
            names[n] = all.split_at(n).1.split_at(1).0;
            n += 1;
        }
        names
    };
    let mut bench = Bench::with_memory(config(), GroupMemory::new(64_000));
    let (ids, generation) = bench.stable(1);
    let refused = NAMES.into_iter().any(|group| {
        let ticket = bench.join(&Joiner { version: 2, group, ..Joiner::default() });
        join_error(&bench.joined(ticket)) == ErrorCode::GROUP_MAX_SIZE_REACHED
    });
    assert!(refused);
    // One more member, and its offsets.
    let new = bench.join(&Joiner { version: 2, ..Joiner::default() });
    let old = bench.join(&Joiner::default().with_id(&ids[0]));
    assert_eq!(bench.joined(old).generation_id, generation + 1);
    let joined = bench.joined(new);
    assert_eq!(join_error(&joined), ErrorCode::NONE);
    bench.assign(&[ids[0].clone(), joined.member_id.to_string()], generation + 1);
    let ticket = bench.commit(&ids[0], generation + 1, 5);
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
}
