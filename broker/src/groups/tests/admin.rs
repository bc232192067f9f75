//! ListGroups, DescribeGroups, DeleteGroups.

use super::*;
use corelog_wire::messages::describe_groups_response::DescribedGroup;
use corelog_wire::messages::list_groups_request::ListGroupsRequest;

fn list(bench: &mut Bench, states: &[&str], types: &[&str]) -> Vec<(String, String, String, String)> {
    let request = ListGroupsRequest {
        states_filter: states.iter().map(|name| s(name)).collect(),
        types_filter: types.iter().map(|name| s(name)).collect(),
    };
    let GroupResponse::List(response) = bench.call(5, GroupRequest::List(request)) else { panic!() };
    assert_eq!(response.error_code, 0);
    let text = |text: &Str| text.to_string();
    response
        .groups
        .iter()
        .map(|group| {
            (
                text(&group.group_id),
                text(&group.protocol_type),
                text(&group.group_state),
                text(&group.group_type),
            )
        })
        .collect()
}

fn describe(bench: &mut Bench, version: i16, group: &str) -> DescribedGroup {
    let request =
        GroupRequest::Describe { groups: vec![s(group)], include_authorized_operations: version >= 3 };
    let GroupResponse::Describe(mut groups) = bench.call(version, request) else { panic!() };
    groups.remove(0)
}

fn delete(bench: &mut Bench, groups: &[&str]) -> Vec<ErrorCode> {
    let request = GroupRequest::Delete(groups.iter().map(|name| s(name)).collect());
    let GroupResponse::Delete(results) = bench.call(2, request) else { panic!() };
    results.iter().map(|result| ErrorCode(result.error_code)).collect()
}

fn commit_simple(bench: &mut Bench, group: &str) {
    let ticket = bench.send(8, GroupRequest::OffsetCommit(commit_request(group, "", -1, "t", 1)));
    assert_eq!(bench.committed(ticket), ErrorCode::NONE);
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut bench = Bench::new(config());
    bench.stable(1);
    commit_simple(&mut bench, "simple");
    let stable = (G.to_owned(), "consumer".to_owned(), "Stable".to_owned(), "classic".to_owned());
    let simple = ("simple".to_owned(), String::new(), "Empty".to_owned(), "classic".to_owned());
    for (states, types, expected) in [
        (&[][..], &[][..], vec![&stable, &simple]),
        (&["stable"], &[], vec![&stable]),
        (&["Empty", "Stable "], &["Classic"], vec![&stable, &simple]),
        (&["Dead", "nonsense"], &[], vec![]),
        (&[], &["consumer"], vec![]),
    ] {
        assert_eq!(
            list(&mut bench, states, types).iter().collect::<Vec<_>>(),
            expected,
            "{states:?} {types:?}"
        );
    }
}

#[test]
fn a_stable_group_is_described_with_its_members() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(2);
    let group = describe(&mut bench, 6, G);
    assert_eq!((group.error_code, group.error_message), (0, None));
    assert_eq!(
        (&*group.group_state, &*group.protocol_type, &*group.protocol_data),
        ("Stable", "consumer", "range")
    );
    assert_eq!(group.authorized_operations, 3400);
    let member = group.members.iter().find(|member| *member.member_id == *ids[1]).expect("the second member");
    assert_eq!((&*member.client_id, &*member.client_host), ("client", "/127.0.0.1"));
    assert_eq!((&member.member_metadata, &*member.member_assignment), (&subscription(&["t"]), &b"1"[..]));

    bench.join(&Joiner { version: 2, ..Joiner::default() });
    let group = describe(&mut bench, 2, G);
    assert_eq!((&*group.group_state, &*group.protocol_data), ("PreparingRebalance", ""));
    assert!(group.members.len() == 3 && group.members.iter().all(|member| member.member_metadata.is_empty()));
    assert_eq!(group.authorized_operations, i32::MIN);
}

#[test]
fn a_group_that_is_not_there_is_dead_and_from_version_6_on_an_error() {
    let mut bench = Bench::new(config());
    let group = describe(&mut bench, 5, G);
    assert_eq!((group.error_code, &*group.group_state), (0, "Dead"));
    let group = describe(&mut bench, 6, G);
    assert_eq!((ErrorCode(group.error_code), &*group.group_state), (ErrorCode::GROUP_ID_NOT_FOUND, "Dead"));
    assert_eq!(group.error_message.as_deref(), Some("Group group not found."));
    assert_eq!(group.authorized_operations, i32::MIN);
}

#[test]
fn empty_groups_are_deleted_with_their_offsets() {
    let mut bench = Bench::new(config());
    let (ids, _) = bench.stable(1);
    commit_simple(&mut bench, "simple");
    assert_eq!(
        delete(&mut bench, &[G, "simple", "none", "simple"]),
        [ErrorCode::NON_EMPTY_GROUP, ErrorCode::NONE, ErrorCode::GROUP_ID_NOT_FOUND, ErrorCode::NONE]
    );
    bench.leave(&[(&ids[0], None)]);
    assert_eq!(delete(&mut bench, &[G]), [ErrorCode::NONE]);
    for mut bench in [bench.restarted(config()), bench] {
        assert_eq!(list(&mut bench, &[], &[]), []);
        assert_eq!(bench.fetch_all("simple").topics.len(), 0);
    }
}

#[test]
fn while_it_loads_the_coordinator_says_so() {
    let mut bench = Bench::loading(config(), GroupMemory::new(usize::MAX), Topics::default(), 1);
    let loading = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    let ticket = bench.join(&Joiner::default());
    assert_eq!(join_error(&bench.joined(ticket)), loading);
    let ticket = bench.sync("m", 1, &[]);
    assert_eq!(sync_error(&bench.synced(ticket)), loading);
    let ticket = bench.commit("", -1, 1);
    assert_eq!(bench.committed(ticket), loading);
    assert_eq!(ErrorCode(bench.fetch_all(G).error_code), loading);
    assert_eq!(ErrorCode(describe(&mut bench, 5, G).error_code), loading);
    assert_eq!(delete(&mut bench, &[G]), [loading]);
    // A member is told that all is well, rather than be made to join again.
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::NONE);
}
