//! What a refused write leaves: the state as records have it, those on their way included.

use super::*;

const REFUSED: Result<(), WriteFailure> = Err(WriteFailure::Unavailable);

/// A group that was to be removed stays as it was, also where a new one had taken its place meanwhile.
#[test]
fn a_group_whose_removal_is_refused_is_the_one_it_was() {
    for joins in [false, true] {
        let mut bench = Bench::new(config());
        let (ids, generation) = bench.stable(1);
        // Older than offsets are kept; but the group has had members until now.
        let mut request = commit_request(G, &ids[0], generation, "t", 7);
        request.topics[0].partitions[0].commit_timestamp =
            bench.now.wall_ms - 2 * GroupConfig::default().offsets_retention_ms;
        bench.send(1, GroupRequest::OffsetCommit(request));
        bench.leave(&[(&ids[0], None)]);
        bench.durable = false;
        bench.send(2, GroupRequest::Delete(vec![s(G)]));
        let new = if joins {
            bench.join(&Joiner { version: 2, ..Joiner::default() })
        } else {
            bench.commit("", -1, 9)
        };
        bench.write(REFUSED);
        bench.answer(new);
        bench.durable = true;
        assert_eq!((bench.fetch(), bench.state()), (7, "Empty".to_owned()));
        assert_eq!(bench.groups().groups[&s(G)].generation, generation + 1);
        bench.pass(2 * GroupConfig::default().offsets_retention_check_interval_ms);
        assert_eq!(bench.fetch(), 7);
    }
}

/// The removal of the group before is on its way still when the log refuses the new one.
#[test]
fn a_new_group_that_is_refused_leaves_the_removal_before_it() {
    let mut bench = Bench::new(config());
    let ticket = bench.commit("", -1, 1);
    bench.committed(ticket);
    bench.durable = false;
    let deletion = bench.send(2, GroupRequest::Delete(vec![s(G)]));
    let commit = bench.commit("", -1, 2);
    let (id, _) = bench.in_flight.pop_back().expect("two writes");
    bench.coordinator.refused(id, WriteFailure::Unavailable, bench.now);
    bench.settle();
    assert_eq!(bench.committed(commit), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    // Who decides now takes the removal for granted, as before.
    let again = bench.commit("", -1, 3);
    bench.write(Ok(()));
    bench.answer(deletion);
    assert_eq!((bench.fetch(), bench.state()), (-1, "Dead".to_owned()));
    bench.write(Ok(()));
    assert_eq!(bench.committed(again), ErrorCode::NONE);
    for mut bench in [bench.restarted(config()), bench] {
        assert_eq!((bench.fetch(), bench.state()), (3, "Empty".to_owned()));
    }
}

/// The log refuses the second return of an instance while the record of the first is on its way.
#[test]
fn a_refused_return_leaves_the_member_as_the_record_on_its_way_has_it() {
    let mut bench = Bench::new(config());
    let joiner = Joiner { instance_id: Some("i"), ..Joiner::default() };
    let ticket = bench.join(&joiner);
    let id = bench.joined(ticket).member_id.to_string();
    bench.assign(std::slice::from_ref(&id), 1);
    bench.durable = false;
    let (first, second) = (bench.join(&joiner), bench.join(&joiner));
    assert_eq!(join_error(&bench.joined(first)), ErrorCode::FENCED_INSTANCE_ID);
    let (write, _) = bench.in_flight.pop_back().expect("two writes");
    bench.coordinator.refused(write, WriteFailure::Unavailable, bench.now);
    bench.settle();
    assert_eq!(join_error(&bench.joined(second)), ErrorCode::COORDINATOR_NOT_AVAILABLE);
    bench.write(Ok(()));
    let members = |bench: &Bench| bench.groups().groups[&s(G)].member_ids();
    assert_eq!(members(&bench), members(&bench.restarted(config())));
    assert_eq!(bench.heartbeat(&id, 1), ErrorCode::UNKNOWN_MEMBER_ID, "its first id was given up");
}
