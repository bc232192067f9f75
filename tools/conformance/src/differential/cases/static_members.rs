//! Members that come back under the name of their instance (KIP-345, KIP-814).

use super::super::Case;
use super::super::session::Session;
use super::group_life::{describe, heartbeat, join, sync};
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::heartbeat_request::HeartbeatRequest;
use corelog_wire::messages::join_group_request::JoinGroupRequest;
use corelog_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use corelog_wire::messages::offset_commit_request::OffsetCommitRequest;
use corelog_wire::messages::sync_group_request::SyncGroupRequest;

pub const CASES: &[Case] = &[
    Case { name: "static member", run: comes_back },
    Case { name: "static member fenced", run: fenced },
    Case { name: "static member leaves", run: leaves },
];

fn instance(group: &Str, member: &Str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(instance.into()), ..join(group, member) }
}

fn identity(member: &Str, instance: Option<&str>) -> MemberIdentity {
    MemberIdentity { member_id: member.clone(), group_instance_id: instance.map(Str::from), reason: None }
}

fn versions(s: &Session) -> std::ops::RangeInclusive<i16> {
    5..=s.newest::<JoinGroupRequest>()
}

fn comes_back(s: &mut Session) -> Result<()> {
    for v in versions(s) {
        let group = s.group(format!("g-v{v}"))?;
        let a = s.ask("joins", v, &instance(&group, &Str::new(), "i"));
        s.ask(
            "syncs",
            3,
            &SyncGroupRequest {
                group_instance_id: Some("i".into()),
                ..sync(&a, &group, &[(&a.member_id, b"mine")])
            },
        );
        describe(s, "stable", &group);
        // No rebalance: the same generation, and the assignment that it had.
        let again = s.ask("comes back", v, &instance(&group, &Str::new(), "i"));
        s.note(&format!("its id is new, v{v}"), again.member_id != a.member_id);
        s.ask(
            "syncs again",
            3,
            &SyncGroupRequest { group_instance_id: Some("i".into()), ..sync(&again, &group, &[]) },
        );
        describe(s, "stable again", &group);
        let other = JoinGroupRequest {
            protocols: vec![join(&group, &Str::new()).protocols[1].clone()],
            ..instance(&group, &Str::new(), "i")
        };
        let changed = s.ask("comes back with other protocols", v, &other);
        s.ask(
            "syncs with them",
            3,
            &SyncGroupRequest {
                group_instance_id: Some("i".into()),
                ..sync(&changed, &group, &[(&changed.member_id, b"new")])
            },
        );
        describe(s, "stable with them", &group);
    }
    Ok(())
}

fn fenced(s: &mut Session) -> Result<()> {
    for v in versions(s) {
        let group = s.group(format!("g-v{v}"))?;
        let a = s.ask("joins", v, &instance(&group, &Str::new(), "i"));
        s.ask("syncs", 3, &sync(&a, &group, &[(&a.member_id, b"mine")]));
        let b = s.ask("another takes its place", v, &instance(&group, &Str::new(), "i"));
        let old = Some(Str::from("i"));
        for hv in 3..=s.newest::<HeartbeatRequest>() {
            s.ask(
                "heartbeat of the first",
                hv,
                &HeartbeatRequest {
                    group_instance_id: old.clone(),
                    ..heartbeat(&group, a.generation_id, &a.member_id)
                },
            );
            s.ask(
                "heartbeat of the first without its instance",
                hv,
                &heartbeat(&group, a.generation_id, &a.member_id),
            );
            s.ask(
                "heartbeat of the second",
                hv,
                &HeartbeatRequest {
                    group_instance_id: old.clone(),
                    ..heartbeat(&group, b.generation_id, &b.member_id)
                },
            );
            s.ask(
                "heartbeat of the second without its instance",
                hv,
                &heartbeat(&group, b.generation_id, &b.member_id),
            );
        }
        s.ask(
            "sync of the first",
            3,
            &SyncGroupRequest { group_instance_id: old.clone(), ..sync(&a, &group, &[]) },
        );
        s.ask("join of the first", v, &instance(&group, &a.member_id, "i"));
        s.ask("join with an unknown id", v, &instance(&group, &"nobody".into(), "i"));
        s.ask("join of an unknown instance with an id", v, &instance(&group, &"nobody".into(), "j"));
        for cv in 7..=9 {
            let commit = OffsetCommitRequest {
                group_id: group.clone(),
                generation_id_or_member_epoch: a.generation_id,
                member_id: a.member_id.clone(),
                group_instance_id: old.clone(),
                ..super::group_offsets::commit(&group, &[("t", 0, 5)])
            };
            s.ask("commit of the first", cv, &commit);
        }
        describe(s, "stable", &group);
    }
    Ok(())
}

fn leaves(s: &mut Session) -> Result<()> {
    for v in 3..=s.newest::<LeaveGroupRequest>() {
        let group = s.group(format!("g-v{v}"))?;
        let a = s.ask("joins", 5, &instance(&group, &Str::new(), "i"));
        s.ask("syncs", 3, &sync(&a, &group, &[(&a.member_id, b"mine")]));
        let leave = |members: Vec<MemberIdentity>| LeaveGroupRequest {
            group_id: group.clone(),
            members,
            ..Default::default()
        };
        s.ask("unknown instance", v, &leave(vec![identity(&Str::new(), Some("j"))]));
        s.ask("unknown id of the instance", v, &leave(vec![identity(&"nobody".into(), Some("i"))]));
        s.ask("by instance", v, &leave(vec![identity(&Str::new(), Some("i"))]));
        describe(s, "gone", &group);
        let b = s.ask("joins again", 5, &instance(&group, &Str::new(), "i"));
        s.ask("by instance and id", v, &leave(vec![identity(&b.member_id, Some("i"))]));
        let c = s.ask("joins once more", 5, &instance(&group, &Str::new(), "i"));
        s.ask("by id", v, &leave(vec![identity(&c.member_id, None)]));
        describe(s, "gone again", &group);
    }
    Ok(())
}
