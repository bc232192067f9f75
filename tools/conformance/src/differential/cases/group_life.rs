//! The classic group protocol: join, sync, heartbeat, leave.

use super::super::Case;
use super::super::session::Session;
use anyhow::Result;
use bytes::Bytes;
use corelog_wire::consumer_protocol::{self, ConsumerProtocolSubscription};
use corelog_wire::messages::describe_groups_request::DescribeGroupsRequest;
use corelog_wire::messages::heartbeat_request::HeartbeatRequest;
use corelog_wire::messages::join_group_request::{JoinGroupRequest, Protocol};
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use corelog_wire::messages::sync_group_request::{Assignment, SyncGroupRequest};
use corelog_wire::{ErrorCode, Str};

pub const CASES: &[Case] = &[
    Case { name: "group of one", run: one },
    Case { name: "group of two", run: two },
    Case { name: "join group wrongly", run: join_wrongly },
    Case { name: "join group protocols", run: protocols },
    Case { name: "join group with rubbish", run: rubbish },
    Case { name: "sync group wrongly", run: sync_wrongly },
    Case { name: "heartbeat wrongly", run: heartbeat_wrongly },
    Case { name: "leave group", run: leave },
];

/// From here on a member without an id is given one, and must come again with it (KIP-394).
pub const MEMBER_ID_REQUIRED: i16 = 4;

pub fn join(group: &Str, member: &Str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.clone(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range"), protocol("sticky")],
        ..Default::default()
    }
}

/// A protocol of consumers who subscribe to nothing, and say its name in their user data.
pub fn protocol(name: &str) -> Protocol {
    let user_data = Some(Bytes::from(format!("for {name}")));
    Protocol { name: name.into(), metadata: subscription(&[], user_data) }
}

/// As consumers write it: Kafka reads the metadata of protocol type `consumer` to learn the topics.
pub fn subscription(topics: &[&Str], user_data: Option<Bytes>) -> Bytes {
    let topics = topics.iter().map(|topic| (*topic).clone()).collect();
    let subscription = ConsumerProtocolSubscription { topics, user_data, ..Default::default() };
    consumer_protocol::to_bytes(&subscription, 1).expect("it is small")
}

pub fn sync(
    joined: &JoinGroupResponse,
    group: &Str,
    assignments: &[(&Str, &'static [u8])],
) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.clone(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: assignments
            .iter()
            .map(|(member, assignment)| Assignment {
                member_id: (*member).clone(),
                assignment: Bytes::from_static(assignment),
            })
            .collect(),
        ..Default::default()
    }
}

pub fn heartbeat(group: &Str, generation: i32, member: &Str) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.clone(),
        generation_id: generation,
        member_id: member.clone(),
        group_instance_id: None,
    }
}

pub fn describe(s: &mut Session, step: &str, group: &Str) {
    s.each(step, |_| DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() });
}

pub fn leaving(version: i16, group: &Str, member: &Str) -> LeaveGroupRequest {
    let mut request = LeaveGroupRequest { group_id: group.clone(), ..Default::default() };
    if version < 3 {
        request.member_id = member.clone();
    } else {
        request.members.push(MemberIdentity { member_id: member.clone(), ..Default::default() });
    }
    request
}

/// Joins a group of one and brings its assignment.
pub fn settle(s: &mut Session, group: &Str) -> Result<JoinGroupResponse> {
    let joined = s.quiet(3, &join(group, &Str::new()))?;
    let synced = s.quiet(1, &sync(&joined, group, &[(&joined.member_id, b"all")]))?;
    anyhow::ensure!(synced.error_code == 0, "syncing {group}: {}", ErrorCode(synced.error_code));
    Ok(joined)
}

/// Joins noting every answer, with the id that the group gives where it wants one.
fn join_noted(s: &mut Session, step: &str, version: i16, group: &Str) -> JoinGroupResponse {
    let first = s.ask(step, version, &join(group, &Str::new()));
    if first.error_code != ErrorCode::MEMBER_ID_REQUIRED.0 {
        return first;
    }
    s.ask(&format!("{step} with an id"), version, &join(group, &first.member_id))
}

fn one(s: &mut Session) -> Result<()> {
    for v in s.versions::<JoinGroupRequest>() {
        let group = s.group(format!("g-v{v}"))?;
        describe(s, "before", &group);
        let joined = join_noted(s, "join", v, &group);
        describe(s, "joined", &group);
        // Versions of the others that go with it.
        let with = v.min(s.newest::<SyncGroupRequest>());
        let mut request = sync(&joined, &group, &[(&joined.member_id, b"mine")]);
        if with >= 5 {
            (request.protocol_type, request.protocol_name) = (Some("consumer".into()), Some("range".into()));
        }
        s.ask("sync", with, &request);
        s.ask("sync again", with, &request);
        describe(s, "stable", &group);
        let with = v.min(s.newest::<HeartbeatRequest>());
        s.ask("heartbeat", with, &heartbeat(&group, joined.generation_id, &joined.member_id));
        s.ask("join again, the same", v, &join(&group, &joined.member_id));
        let synced = s.ask("join again as the leader", v, &join(&group, &joined.member_id));
        s.ask(
            "sync of the next generation",
            3,
            &sync(&synced, &group, &[(&joined.member_id, b"mine again")]),
        );
        let with = v.min(s.newest::<LeaveGroupRequest>());
        s.ask("leave", with, &leaving(with, &group, &joined.member_id));
        describe(s, "empty", &group);
        s.ask("heartbeat after leaving", 0, &heartbeat(&group, joined.generation_id, &joined.member_id));
        s.ask("leave again", with, &leaving(with, &group, &joined.member_id));
    }
    Ok(())
}

fn two(s: &mut Session) -> Result<()> {
    for v in s.versions::<JoinGroupRequest>() {
        let group = s.group(format!("g-v{v}"))?;
        let a = join_noted(s, "a joins", v, &group);
        s.ask("a syncs", 3, &sync(&a, &group, &[(&a.member_id, b"all of a")]));

        // The second comes: the first is told by its heartbeat, and both join anew.
        let mut b_id = Str::new();
        if v >= MEMBER_ID_REQUIRED {
            b_id = s.ask("b asks for an id", v, &join(&group, &b_id)).member_id;
        }
        s.send(1, v, &join(&group, &b_id));
        s.until("rebalance", |s| {
            let error = s.quiet(3, &heartbeat(&group, a.generation_id, &a.member_id))?.error_code;
            Ok((error == ErrorCode::REBALANCE_IN_PROGRESS.0).then_some(()))
        })?;
        s.ask("a's heartbeat", 3, &heartbeat(&group, a.generation_id, &a.member_id));
        s.ask("a syncs meanwhile", 3, &sync(&a, &group, &[(&a.member_id, b"all of a")]));
        describe_states(s, "rebalancing", &group);
        let a = s.ask("a joins again", v, &join(&group, &a.member_id));
        let b = s.answer::<JoinGroupRequest>(1, "b has joined", v);
        s.note(&format!("same generation, v{v}"), a.generation_id == b.generation_id);
        describe_states(s, "completing", &group);
        s.ask("a's heartbeat before sync", 3, &heartbeat(&group, a.generation_id, &a.member_id));

        // The follower waits for the leader.
        s.send(1, 3, &sync(&b, &group, &[]));
        s.ask(
            "a brings the assignment",
            3,
            &sync(&a, &group, &[(&a.member_id, b"for a"), (&b.member_id, b"for b")]),
        );
        s.answer::<SyncGroupRequest>(1, "b has its assignment", 3);
        describe(s, "stable", &group);
        s.ask("b joins again, the same", v, &join(&group, &b.member_id));
        s.ask("b leaves", 3, &leaving(3, &group, &b.member_id));
        s.until("the next rebalance", |s| {
            let error = s.quiet(3, &heartbeat(&group, a.generation_id, &a.member_id))?.error_code;
            Ok((error == ErrorCode::REBALANCE_IN_PROGRESS.0).then_some(()))
        })?;
        let a = s.ask("a joins alone", v, &join(&group, &a.member_id));
        s.ask("a syncs alone", 3, &sync(&a, &group, &[(&a.member_id, b"all of a")]));
        describe(s, "at last", &group);
    }
    Ok(())
}

/// The group's state alone: who of the two has joined is a matter of timing.
fn describe_states(s: &mut Session, step: &str, group: &Str) {
    let request = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
    if let Ok(found) = s.quiet(3, &request) {
        s.note(
            step,
            found.groups.iter().map(|group| group.group_state.to_string()).collect::<Vec<_>>().join(" "),
        );
    }
}

fn join_wrongly(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let nobody = Str::new();
    for v in s.versions::<JoinGroupRequest>() {
        let good = join(&group, &nobody);
        s.ask("no group", v, &JoinGroupRequest { group_id: Str::new(), ..good.clone() });
        s.ask("unknown member", v, &join(&group, &"nobody".into()));
        for session_timeout_ms in [0, 5999, 1_800_001, -1] {
            s.ask(
                &format!("session timeout {session_timeout_ms}"),
                v,
                &JoinGroupRequest { session_timeout_ms, ..good.clone() },
            );
        }
        s.ask("no protocol type", v, &JoinGroupRequest { protocol_type: Str::new(), ..good.clone() });
        s.ask("no protocols", v, &JoinGroupRequest { protocols: Vec::new(), ..good.clone() });
    }
    describe(s, "nothing came of it", &group);
    let old = s.newest::<JoinGroupRequest>();
    let fresh = s.group("fresh")?;
    s.ask("unknown member of an unknown group", old, &join(&fresh, &"nobody".into()));
    describe(s, "nothing came of that", &fresh);
    Ok(())
}

fn protocols(s: &mut Session) -> Result<()> {
    let newest = s.newest::<JoinGroupRequest>();
    let group = s.group("g")?;
    let a = settle(s, &group)?;
    let b = join(&group, &Str::new());
    for v in [3, newest] {
        s.ask("another protocol type", v, &JoinGroupRequest { protocol_type: "connect".into(), ..b.clone() });
        s.ask(
            "no protocol in common",
            v,
            &JoinGroupRequest { protocols: vec![protocol("other")], ..b.clone() },
        );
        s.ask(
            "an unknown id and no protocol in common",
            v,
            &JoinGroupRequest { protocols: vec![protocol("other")], member_id: "x".into(), ..b.clone() },
        );
    }
    // The leader itself may change what it speaks, as it is alone.
    let other = JoinGroupRequest {
        protocols: vec![protocol("sticky"), protocol("other")],
        ..join(&group, &a.member_id)
    };
    let a = s.ask("other protocols", newest, &other);
    s.ask(
        "sync with a wrong protocol",
        5,
        &SyncGroupRequest {
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            ..sync(&a, &group, &[])
        },
    );
    s.ask(
        "sync with a wrong protocol type",
        5,
        &SyncGroupRequest {
            protocol_type: Some("connect".into()),
            protocol_name: Some("sticky".into()),
            ..sync(&a, &group, &[])
        },
    );
    s.ask(
        "sync",
        5,
        &SyncGroupRequest {
            protocol_type: Some("consumer".into()),
            protocol_name: Some("sticky".into()),
            ..sync(&a, &group, &[(&a.member_id, b"x")])
        },
    );
    describe(s, "described", &group);
    // The type of any group that is not of consumers is as good.
    let connect = s.group("connect")?;
    let request = JoinGroupRequest {
        protocol_type: "connect".into(),
        protocols: vec![protocol("eager")],
        ..join(&connect, &Str::new())
    };
    let joined = s.ask("connect", 3, &request);
    s.ask("connect syncs without an assignment", 3, &sync(&joined, &connect, &[]));
    describe(s, "connect described", &connect);
    Ok(())
}

/// Kafka reads the subscriptions of consumers when all have joined; what it cannot read leaves the group without an answer.
fn rubbish(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let rubbish = Protocol { name: "range".into(), metadata: Bytes::from_static(b"rubbish") };
    s.ask_in_vain("join", 3, &JoinGroupRequest { protocols: vec![rubbish], ..join(&group, &Str::new()) });
    Ok(())
}

fn sync_wrongly(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let a = settle(s, &group)?;
    let good = sync(&a, &group, &[]);
    s.each("no group", |_| SyncGroupRequest { group_id: Str::new(), ..good.clone() });
    s.each("unknown group", |_| SyncGroupRequest { group_id: "nothing".into(), ..good.clone() });
    s.each("unknown member", |_| SyncGroupRequest { member_id: "nobody".into(), ..good.clone() });
    s.each("no member", |_| SyncGroupRequest { member_id: Str::new(), ..good.clone() });
    for generation_id in [0, a.generation_id + 1, -1] {
        s.each(&format!("generation {generation_id}"), |_| SyncGroupRequest {
            generation_id,
            ..good.clone()
        });
    }
    s.each("the assignment again", |_| good.clone());
    for v in 3..=s.newest::<SyncGroupRequest>() {
        s.ask(
            "unknown instance",
            v,
            &SyncGroupRequest { group_instance_id: Some("i".into()), ..good.clone() },
        );
    }
    Ok(())
}

fn heartbeat_wrongly(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let a = settle(s, &group)?;
    let good = heartbeat(&group, a.generation_id, &a.member_id);
    s.each("good", |_| good.clone());
    s.each("no group", |_| HeartbeatRequest { group_id: Str::new(), ..good.clone() });
    s.each("unknown group", |_| HeartbeatRequest { group_id: "nothing".into(), ..good.clone() });
    s.each("unknown member", |_| HeartbeatRequest { member_id: "nobody".into(), ..good.clone() });
    s.each("no member", |_| HeartbeatRequest { member_id: Str::new(), ..good.clone() });
    for generation_id in [0, a.generation_id + 1, -1] {
        s.each(&format!("generation {generation_id}"), |_| HeartbeatRequest {
            generation_id,
            ..good.clone()
        });
    }
    for v in 3..=s.newest::<HeartbeatRequest>() {
        s.ask(
            "unknown instance",
            v,
            &HeartbeatRequest { group_instance_id: Some("i".into()), ..good.clone() },
        );
    }
    Ok(())
}

fn leave(s: &mut Session) -> Result<()> {
    for v in s.versions::<LeaveGroupRequest>() {
        let group = s.group(format!("g-v{v}"))?;
        s.ask("a group that is not", v, &leaving(v, &group, &"nobody".into()));
        let a = settle(s, &group)?;
        s.ask("no group", v, &leaving(v, &Str::new(), &a.member_id));
        s.ask("unknown member", v, &leaving(v, &group, &"nobody".into()));
        s.ask("no member", v, &leaving(v, &group, &Str::new()));
        if v >= 3 {
            s.ask("none of them", v, &LeaveGroupRequest { group_id: group.clone(), ..Default::default() });
            let mut several = leaving(v, &group, &"nobody".into());
            several.members.extend(leaving(v, &group, &a.member_id).members);
            several
                .members
                .push(MemberIdentity { group_instance_id: Some("i".into()), ..Default::default() });
            s.ask("several", v, &several);
        } else {
            s.ask("a leaves", v, &leaving(v, &group, &a.member_id));
        }
        describe(s, "afterwards", &group);
    }
    Ok(())
}
