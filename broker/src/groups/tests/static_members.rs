//! Static membership: KIP-345, and KIP-814 for leaders.

use super::*;

fn instance(name: &'static str) -> Joiner {
    Joiner { instance_id: Some(name), ..Joiner::default() }
}

/// A stable group of the instances `a` (which leads) and `b`. Their ids, and the generation.
fn stable(bench: &mut Bench) -> (Vec<String>, i32) {
    let ticket = bench.join(&instance("a"));
    let a = bench.joined(ticket).member_id.to_string();
    assert!(a.starts_with("a-"), "{a}");
    let new = bench.join(&instance("b"));
    let old = bench.join(&instance("a").with_id(&a));
    bench.joined(old);
    let b = bench.joined(new);
    let ids = vec![a, b.member_id.to_string()];
    bench.assign(&ids, b.generation_id);
    (ids, b.generation_id)
}

#[test]
fn a_restarted_follower_keeps_its_assignment_without_a_rebalance() {
    let mut bench = Bench::new(config());
    let (ids, generation) = stable(&mut bench);
    let ticket = bench.join(&instance("b"));
    let back = bench.joined(ticket);
    assert_eq!((back.error_code, back.generation_id, &*back.leader), (0, generation, &*ids[0]));
    assert_ne!(back.member_id, ids[1].as_str());
    assert!(!back.skip_assignment);
    assert_eq!(bench.state(), "Stable");
    let ticket = bench.sync(&back.member_id, generation, &[]);
    assert_eq!(bench.synced(ticket).assignment, "1");
    // Its former self is fenced where it names its instance, and unknown where it does not.
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::UNKNOWN_MEMBER_ID);
    let former = Joiner { member_id: ids[1].clone(), ..instance("b") };
    let ticket = bench.join(&former);
    assert_eq!(join_error(&bench.joined(ticket)), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
}

#[test]
fn a_restarted_leader_is_told_not_to_assign() {
    for version in [5, 8, 9] {
        let mut bench = Bench::new(config());
        let (ids, generation) = stable(&mut bench);
        let ticket = bench.join(&Joiner { version, ..instance("a") });
        let back = bench.joined(ticket);
        assert_eq!((back.error_code, back.generation_id), (0, generation));
        if version >= 9 {
            assert!(back.skip_assignment);
            assert_eq!((&back.leader, back.members.len()), (&back.member_id, 2));
        } else {
            assert_eq!((&*back.leader, back.members.len()), (&*ids[0], 0));
        }
        let ticket = bench.sync(&back.member_id, generation, &[]);
        assert_eq!(bench.synced(ticket).assignment, "0");
        // Whatever it was told: it leads, and may start a rebalance.
        let ticket = bench.join(&instance("a").with_id(&back.member_id));
        assert!(bench.is_parked(ticket));
    }
}

#[test]
fn the_new_id_survives_a_restart_of_the_broker() {
    let mut bench = Bench::new(config());
    let (ids, generation) = stable(&mut bench);
    let ticket = bench.join(&instance("b"));
    let back = bench.joined(ticket);
    let mut bench = bench.restarted(config());
    assert_eq!(bench.heartbeat(&back.member_id, generation), ErrorCode::NONE);
    assert_eq!(bench.heartbeat(&ids[1], generation), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_return_that_changes_the_protocol_is_a_rebalance() {
    let mut bench = Bench::new(config());
    let both = |first: &'static str, second: &'static str| Joiner {
        protocols: vec![(first, subscription(&["t"])), (second, subscription(&["t"]))],
        ..instance("a")
    };
    let ticket = bench.join(&both("range", "sticky"));
    let joined = bench.joined(ticket);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    bench.assign(&[joined.member_id.to_string()], 1);
    let ticket = bench.join(&both("sticky", "range"));
    let joined = bench.joined(ticket);
    assert_eq!((joined.generation_id, joined.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_return_while_the_assignment_is_awaited_starts_over() {
    let mut bench = Bench::new(config());
    let (ids, _) = stable(&mut bench);
    let (a, b) = (bench.join(&instance("a").with_id(&ids[0])), bench.join(&instance("b").with_id(&ids[1])));
    bench.joined(a);
    // The leader's join changed nothing for b, which is a follower of a stable group when it is alone; both rejoin.
    let generation = bench.joined(b).generation_id;
    let waiting = bench.sync(&ids[1], generation, &[]);
    let back = bench.join(&instance("b"));
    assert_eq!(sync_error(&bench.synced(waiting)), ErrorCode::FENCED_INSTANCE_ID);
    assert!(bench.is_parked(back));
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    let leader = bench.join(&instance("a").with_id(&ids[0]));
    assert_eq!(bench.joined(leader).generation_id, generation + 1);
    assert_eq!(bench.joined(back).generation_id, generation + 1);
}

#[test]
fn a_return_during_the_join_phase_takes_the_place_of_the_parked_join() {
    let mut bench = Bench::new(config());
    let (ids, generation) = stable(&mut bench);
    let changed = Joiner { protocols: vec![("range", subscription(&["t", "u"]))], ..instance("b") };
    let parked = bench.join(&changed.with_id(&ids[1]));
    assert!(bench.is_parked(parked));
    let back = bench.join(&changed);
    assert_eq!(join_error(&bench.joined(parked)), ErrorCode::FENCED_INSTANCE_ID);
    let leader = bench.join(&instance("a").with_id(&ids[0]));
    assert_eq!(bench.joined(back).generation_id, generation + 1);
    assert_eq!(bench.joined(leader).members.len(), 2);
}

#[test]
fn an_absent_static_member_holds_its_place_for_its_session() {
    let mut bench = Bench::new(config());
    let (ids, generation) = stable(&mut bench);
    bench.pass(SESSION_MS as u64 - 1);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::NONE);
    bench.pass(1);
    assert_eq!(bench.heartbeat(&ids[0], generation), ErrorCode::REBALANCE_IN_PROGRESS);
    let ticket = bench.join(&instance("a").with_id(&ids[0]));
    assert_eq!(bench.joined(ticket).members.len(), 1);
}

#[test]
fn a_rebalance_goes_on_with_a_static_member_that_is_late() {
    let mut bench = Bench::new(config());
    let long = |name| Joiner { session_timeout_ms: 600_000, ..instance(name) };
    let ticket = bench.join(&long("a"));
    let a = bench.joined(ticket).member_id;
    let new = bench.join(&long("b"));
    let old = bench.join(&long("a").with_id(&a));
    bench.joined(old);
    let b = bench.joined(new);
    bench.assign(&[a.to_string(), b.member_id.to_string()], b.generation_id);
    // The leader joins again; b does not come within the rebalance timeout, but its session goes on.
    let leader = bench.join(&long("a").with_id(&a));
    bench.pass(REBALANCE_MS as u64);
    let joined = bench.joined(leader);
    assert_eq!((joined.generation_id, joined.members.len()), (b.generation_id + 1, 2));
    assert_eq!(bench.heartbeat(&b.member_id, joined.generation_id), ErrorCode::NONE);
}

#[test]
fn administrators_remove_members_by_instance() {
    let mut bench = Bench::new(config());
    let (ids, _) = stable(&mut bench);
    let left = bench.leave(&[("", Some("b")), ("", Some("zz")), (&ids[1], Some("a")), ("", None)]);
    let errors: Vec<ErrorCode> = left.members.iter().map(|member| ErrorCode(member.error_code)).collect();
    assert_eq!(
        errors,
        [
            ErrorCode::NONE,
            ErrorCode::UNKNOWN_MEMBER_ID,
            ErrorCode::FENCED_INSTANCE_ID,
            ErrorCode::UNKNOWN_MEMBER_ID
        ]
    );
    assert_eq!(left.members[0].group_instance_id.as_deref(), Some("b"));
    let ticket = bench.join(&instance("a").with_id(&ids[0]));
    assert_eq!(bench.joined(ticket).members.len(), 1);
}

/// It comes back before it has synced, and the time for that runs out while its new id is being written.
#[test]
fn a_return_is_answered_when_the_time_to_sync_ends_meanwhile() {
    let mut bench = Bench::new(config());
    let long = |name| Joiner { session_timeout_ms: 600_000, ..instance(name) };
    let ticket = bench.join(&long("a"));
    let a = bench.joined(ticket).member_id;
    let new = bench.join(&long("b"));
    let old = bench.join(&long("a").with_id(&a));
    let generation = bench.joined(old).generation_id;
    let b = bench.joined(new).member_id;
    // The leader assigns; b has not asked for its part.
    let leader = bench.sync(&a, generation, &[(&a, "0"), (&b, "1")]);
    assert_eq!(bench.synced(leader).assignment, "0");
    bench.durable = false;
    let back = bench.join(&long("b"));
    assert!(bench.is_parked(back));
    bench.pass(REBALANCE_MS as u64);
    assert_eq!(join_error(&bench.joined(back)), ErrorCode::UNKNOWN_MEMBER_ID);
    bench.write(Ok(()));
}
