//! Members of a consumer group: they join, get partitions, commit, beat, and leave or vanish.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::sleep;
use corelog_wire::messages::join_group_request::Protocol;
use corelog_wire::messages::leave_group_request::MemberIdentity;
use corelog_wire::messages::sync_group_request::Assignment;
use corelog_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use corelog_wire::{ErrorCode, Str};

use crate::committer::{self, Membership, is_fencing, is_transient};
use crate::connection::Connection;
use crate::shared::{Shared, below};
use crate::truth::Place;

pub const GROUP: &str = "group";

pub async fn member(shared: Rc<Shared>) {
    let mut id = Str::default();
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("member").await else { return };
        if committer::find(&shared, &mut connection, GROUP).await.is_none() {
            continue;
        }
        while !shared.stopped() {
            if take_part(&shared, &mut connection, &mut id).await.is_err() {
                break;
            }
            shared.pause().await;
        }
    }
}

/// One generation, from joining to its end. `Err`: the connection is gone.
async fn take_part(shared: &Shared, connection: &mut Connection, id: &mut Str) -> std::io::Result<()> {
    let Some(joined) = join(connection, id).await? else { return Ok(()) };
    let key = (GROUP.to_owned(), joined.generation_id);
    let mut assignments = Vec::new();
    if joined.leader == *id {
        let dealt = deal(shared, &joined);
        assignments = dealt
            .iter()
            .map(|(member, assignment)| Assignment {
                member_id: member.as_str().into(),
                assignment: assignment.clone(),
            })
            .collect();
        shared.truth.borrow_mut().assignments.entry(key.clone()).or_default().push(dealt);
    }
    let request = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: joined.generation_id,
        member_id: id.clone(),
        assignments,
        ..Default::default()
    };
    let response = connection.call(&request, below(5) as i16).await?;
    if !went_well(ErrorCode(response.error_code), id, "SyncGroup") {
        return Ok(());
    }
    let mine = response.assignment;
    {
        let truth = shared.truth.borrow();
        let sent = truth.assignments.get(&key).map(Vec::as_slice).unwrap_or_default();
        let known = sent.iter().any(|dealt| dealt.get(&**id) == Some(&mine));
        assert!(
            known,
            "generation {}: member {id} has an assignment that no leader sent",
            joined.generation_id
        );
    }
    let places = shared.places();
    let mine: Vec<Place> = mine.iter().map(|index| places[*index as usize]).collect();
    shared.truth.borrow_mut().owns(GROUP, joined.generation_id, id, &mine);
    let membership = Membership { generation: joined.generation_id, member: id.clone() };
    for _ in 0..2 + below(30) {
        sleep(shared.plan.pace * (1 + below(30) as u32)).await;
        if shared.stopped() {
            return Ok(());
        }
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: joined.generation_id,
            member_id: id.clone(),
            ..Default::default()
        };
        let response = connection.call(&request, below(5) as i16).await?;
        if !went_well(ErrorCode(response.error_code), id, "Heartbeat") {
            return Ok(());
        }
        if !mine.is_empty() {
            let place = mine[below(mine.len() as u64) as usize];
            let code = committer::commit(shared, connection, GROUP, place, &membership).await?;
            if !code.is_ok() {
                return Ok(());
            }
        }
    }
    match below(4) {
        // Vanishes: its session runs out.
        0 => *id = Str::default(),
        1 => {
            let request = LeaveGroupRequest {
                group_id: GROUP.into(),
                members: vec![MemberIdentity { member_id: id.clone(), ..Default::default() }],
                ..Default::default()
            };
            connection.call(&request, 3 + below(3) as i16).await?;
            *id = Str::default();
        }
        // Joins again.
        _ => {}
    }
    Ok(())
}

async fn join(connection: &mut Connection, id: &mut Str) -> std::io::Result<Option<JoinGroupResponse>> {
    let version = 1 + below(9) as i16;
    let request = JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 3_000,
        rebalance_timeout_ms: 2_000,
        member_id: id.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(b"all") }],
        ..Default::default()
    };
    let response = connection.call(&request, version).await?;
    let code = ErrorCode(response.error_code);
    if code == ErrorCode::MEMBER_ID_REQUIRED {
        *id = response.member_id;
        return Ok(None);
    }
    if !went_well(code, id, "JoinGroup") {
        return Ok(None);
    }
    assert!(id.is_empty() || *id == response.member_id, "a member keeps its id");
    *id = response.member_id.clone();
    Ok(Some(response))
}

/// Whether the answer is none of an error. A member that is not known forgets its id.
fn went_well(code: ErrorCode, id: &mut Str, what: &str) -> bool {
    if code.is_ok() {
        return true;
    }
    assert!(is_transient(code) || is_fencing(code), "{what}: {}", code.message());
    if code == ErrorCode::UNKNOWN_MEMBER_ID {
        *id = Str::default();
    }
    false
}

/// Deals the partitions, by their places in the list of all, to the members.
fn deal(shared: &Shared, joined: &JoinGroupResponse) -> BTreeMap<String, Bytes> {
    let places = shared.places().len();
    let count = joined.members.len();
    let dealt = joined.members.iter().enumerate().map(|(n, member)| {
        let mine: Vec<u8> = (0..places).filter(|place| place % count == n).map(|place| place as u8).collect();
        (member.member_id.to_string(), Bytes::from(mine))
    });
    dealt.collect()
}
