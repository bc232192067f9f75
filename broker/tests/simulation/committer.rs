//! Commits of offsets without membership, and what the coordinator says was committed.

use std::rc::Rc;

use corelog_io::sleep;
use corelog_wire::messages::offset_commit_request::{Partition, Topic};
use corelog_wire::messages::{
    FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest, offset_fetch_request,
};
use corelog_wire::{ErrorCode, Str};

use crate::connection::Connection;
use crate::shared::{Shared, below, topic_name};
use crate::truth::Place;

/// OffsetFetch asks of several groups from this version on (KIP-709).
const GROUPS_FROM: i16 = 8;

/// Errors that say: look for the coordinator, and try again. What was asked may have happened.
pub fn is_transient(code: ErrorCode) -> bool {
    [
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::NOT_COORDINATOR,
    ]
    .contains(&code)
}

/// Errors of a member that does not belong, or not now: what it asked has not happened.
pub fn is_fencing(code: ErrorCode) -> bool {
    [ErrorCode::ILLEGAL_GENERATION, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::REBALANCE_IN_PROGRESS]
        .contains(&code)
}

/// Asks who coordinates `group`, which has the broker make its offsets topic. `None`: not over this connection.
pub async fn find(shared: &Shared, connection: &mut Connection, group: &str) -> Option<()> {
    loop {
        let version = below(7) as i16;
        let request = match version >= 4 {
            true => FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() },
            false => FindCoordinatorRequest { key: group.into(), ..Default::default() },
        };
        let response = connection.call(&request, version).await.ok()?;
        let code = match version >= 4 {
            true => response.coordinators[0].error_code,
            false => response.error_code,
        };
        if code == 0 {
            return Some(());
        }
        assert!(is_transient(ErrorCode(code)), "FindCoordinator: {}", ErrorCode(code).message());
        shared.pause().await;
        if shared.damaged() {
            return None;
        }
    }
}

/// As whom a group is written to.
#[derive(Clone)]
pub struct Membership {
    pub generation: i32,
    pub member: Str,
}

/// Commits the next offset of a partition. `Err`: the connection is to be given up.
pub async fn commit(
    shared: &Shared,
    connection: &mut Connection,
    group: &str,
    place: Place,
    member: &Membership,
) -> std::io::Result<ErrorCode> {
    let offset = shared.truth.borrow_mut().committing(group, place);
    let newest = shared.truth.borrow().generation(group);
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: member.generation,
        member_id: member.member.clone(),
        topics: vec![Topic {
            name: topic_name(place.0),
            partitions: vec![Partition {
                partition_index: place.1,
                committed_offset: offset,
                committed_metadata: Some("as of now".into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let version = 2 + below(8) as i16;
    let response = connection.call(&request, version).await?;
    let code = ErrorCode(response.topics[0].partitions[0].error_code);
    if code.is_ok() {
        let is_current = member.generation == -1 || member.generation >= newest;
        assert!(is_current, "{group}: generation {} commits, and {newest} had begun", member.generation);
        shared.truth.borrow_mut().committed(group, place, offset);
    } else if is_fencing(code) {
        shared.truth.borrow_mut().commit_refused(group, place, offset);
    } else if !is_transient(code) {
        shared.expect_explained(code, "OffsetCommit");
    }
    Ok(code)
}

/// Has the truth check what is committed. The offset; `None`: ask again.
pub async fn check(
    shared: &Shared,
    connection: &mut Connection,
    group: &str,
    place: Place,
) -> std::io::Result<Option<i64>> {
    let asked = shared.truth.borrow_mut().asking();
    let version = 1 + below(9) as i16;
    let request = match version >= GROUPS_FROM {
        true => OffsetFetchRequest {
            groups: vec![offset_fetch_request::Group {
                group_id: group.into(),
                topics: Some(vec![offset_fetch_request::Topics {
                    name: topic_name(place.0),
                    partition_indexes: vec![place.1],
                    ..Default::default()
                }]),
                ..Default::default()
            }],
            ..Default::default()
        },
        false => OffsetFetchRequest {
            group_id: group.into(),
            topics: Some(vec![offset_fetch_request::Topic {
                name: topic_name(place.0),
                partition_indexes: vec![place.1],
            }]),
            ..Default::default()
        },
    };
    let response = connection.call(&request, version).await?;
    let (code, partition) = match version >= GROUPS_FROM {
        true => {
            let group = &response.groups[0];
            let found = group.topics.first().map(|topic| &topic.partitions[0]);
            (group.error_code, found.map(|found| (found.committed_offset, found.error_code)))
        }
        false => {
            let found = response.topics.first().map(|topic| &topic.partitions[0]);
            (response.error_code, found.map(|found| (found.committed_offset, found.error_code)))
        }
    };
    let code = if code != 0 { code } else { partition.map_or(0, |(_, code)| code) };
    if code != 0 {
        assert!(
            is_transient(ErrorCode(code)) || shared.truth.borrow_mut().explains(code),
            "OffsetFetch: {}",
            ErrorCode(code).message()
        );
        return Ok(None);
    }
    let (offset, _) = partition.expect("the partition that was asked for");
    shared.truth.borrow().check_committed(group, place, offset, asked);
    Ok(Some(offset))
}

/// Commits and looks, in a group of its own.
pub async fn solo(shared: Rc<Shared>, group: String) {
    let member = Membership { generation: -1, member: Str::default() };
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("committer").await else { return };
        if find(&shared, &mut connection, &group).await.is_none() {
            continue;
        }
        while !shared.stopped() {
            sleep(shared.plan.pace * (1 + below(20) as u32)).await;
            let places = shared.places();
            let place = places[below(places.len() as u64) as usize];
            let done = match below(3) {
                0 => check(&shared, &mut connection, &group, place).await.map(drop),
                _ => commit(&shared, &mut connection, &group, place, &member).await.map(drop),
            };
            if done.is_err() {
                break;
            }
        }
    }
}

/// Checks what every group has committed, when nothing is under way. The offsets; `None`: damage was found, or the
/// coordinators cannot serve for a fault of the plan.
pub async fn audit(shared: Rc<Shared>) -> Option<Vec<i64>> {
    let groups = shared.truth.borrow().groups();
    let mut offsets = Vec::new();
    let mut connection = shared.connect_to_finish("auditor").await?;
    let mut patience = 500;
    while offsets.len() < groups.len() {
        let (group, place) = &groups[offsets.len()];
        match check(&shared, &mut connection, group, *place).await {
            Ok(Some(offset)) => offsets.push(offset),
            Ok(None) => {
                shared.pause().await;
                patience -= 1;
                if patience == 0 {
                    assert!(
                        shared.truth.borrow().storage_may_fail,
                        "the coordinator of {group} does not come back"
                    );
                    return None;
                }
            }
            Err(_) => connection = shared.connect_to_finish("auditor").await?,
        }
    }
    Some(offsets)
}
