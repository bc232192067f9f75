//! ListGroups, DescribeGroups, DeleteGroups.

use super::super::Case;
use super::super::session::Session;
use super::group_life::{describe, join, leaving, settle, subscription, sync};
use super::group_offsets::commit;
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::delete_groups_request::DeleteGroupsRequest;
use corelog_wire::messages::describe_groups_request::DescribeGroupsRequest;
use corelog_wire::messages::join_group_request::Protocol;
use corelog_wire::messages::list_groups_request::ListGroupsRequest;

pub const CASES: &[Case] = &[
    Case { name: "list groups", run: list },
    Case { name: "describe groups", run: described },
    Case { name: "delete groups", run: delete },
];

/// A consumer that subscribes to a topic, as its metadata says.
pub fn subscribe(s: &mut Session, group: &Str, topic: &Str) -> Result<()> {
    let mut request = join(group, &Str::new());
    request.protocols = vec![Protocol { name: "range".into(), metadata: subscription(&[topic], None) }];
    let joined = s.quiet(3, &request)?;
    s.quiet(1, &sync(&joined, group, &[(&joined.member_id, b"")]))?;
    Ok(())
}

fn list(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    let stable = s.group("stable")?;
    settle(s, &stable)?;
    let empty = s.group("empty")?;
    let member = settle(s, &empty)?;
    s.quiet(0, &leaving(0, &empty, &member.member_id))?;
    let simple = s.group("simple")?;
    s.quiet(9, &commit(&simple, &[(&t.name, 0, 5)]))?;
    let joining = s.group("joining")?;
    s.quiet(3, &join(&joining, &Str::new()))?;
    let ours = |s: &mut Session, step: &str, v: i16, states: &[&str], types: &[&str]| -> Result<()> {
        let texts = |texts: &[&str]| texts.iter().map(|text| Str::from(*text)).collect();
        let found =
            s.quiet(v, &ListGroupsRequest { states_filter: texts(states), types_filter: texts(types) })?;
        let mut groups: Vec<String> = found
            .groups
            .iter()
            .filter(|group| [&stable, &empty, &simple, &joining].contains(&&group.group_id))
            .map(|group| {
                format!(
                    "{} {:?} {:?} {:?}",
                    group.group_id, group.protocol_type, group.group_state, group.group_type
                )
            })
            .collect();
        groups.sort();
        s.note(&format!("{step}, v{v}"), format!("error {}: {}", found.error_code, groups.join("; ")));
        Ok(())
    };
    for v in s.versions::<ListGroupsRequest>() {
        ours(s, "all", v, &[], &[])?;
        if v >= 4 {
            for state in [
                "Stable",
                "Empty",
                "stable",
                "Dead",
                "PreparingRebalance",
                "CompletingRebalance",
                "Nonsense",
                "",
            ] {
                ours(s, &format!("state {state:?}"), v, &[state], &[])?;
            }
            ours(s, "two states", v, &["Stable", "Empty"], &[])?;
        }
        if v >= 5 {
            for kind in ["classic", "Classic", "consumer", "share", "nonsense"] {
                ours(s, &format!("type {kind:?}"), v, &[], &[kind])?;
            }
            ours(s, "state and type", v, &["Empty"], &["classic"])?;
        }
    }
    Ok(())
}

fn described(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    let group = s.group("g")?;
    let simple = s.group("simple")?;
    settle(s, &group)?;
    s.quiet(9, &commit(&simple, &[(&t.name, 0, 5)]))?;
    let missing = s.name("missing");
    let of = |groups: &[&Str]| DescribeGroupsRequest {
        groups: groups.iter().map(|group| (*group).clone()).collect(),
        ..Default::default()
    };
    // Member ids are learned by a first look.
    describe(s, "stable", &group);
    describe(s, "only offsets", &simple);
    s.each("unknown", |_| of(&[&missing]));
    s.each("no name", |_| of(&[&Str::new()]));
    s.each("several", |_| of(&[&missing, &group, &simple]));
    s.each("twice the same", |_| of(&[&group, &group]));
    s.each("none", |_| of(&[]));
    for v in 3..=s.newest::<DescribeGroupsRequest>() {
        s.ask(
            "operations",
            v,
            &DescribeGroupsRequest { include_authorized_operations: true, ..of(&[&group, &missing]) },
        );
    }
    Ok(())
}

fn delete(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    let missing = s.name("missing");
    let of = |groups: &[&Str]| DeleteGroupsRequest {
        groups_names: groups.iter().map(|group| (*group).clone()).collect(),
    };
    for v in s.versions::<DeleteGroupsRequest>() {
        let busy = s.group(format!("busy-v{v}"))?;
        let empty = s.group(format!("empty-v{v}"))?;
        let simple = s.group(format!("simple-v{v}"))?;
        let member = settle(s, &busy)?;
        let left = settle(s, &empty)?;
        s.quiet(0, &leaving(0, &empty, &left.member_id))?;
        s.quiet(9, &commit(&simple, &[(&t.name, 0, 5)]))?;
        s.ask("unknown", v, &of(&[&missing]));
        s.ask("no name", v, &of(&[&Str::new()]));
        s.ask("none", v, &of(&[]));
        s.ask("with members", v, &of(&[&busy]));
        s.ask("several", v, &of(&[&busy, &empty, &missing]));
        s.ask("only offsets", v, &of(&[&simple]));
        s.ask("again", v, &of(&[&simple]));
        s.ask("twice in one request", v, &of(&[&missing, &missing]));
        for group in [&busy, &empty, &simple] {
            describe(s, "afterwards", group);
        }
        s.quiet(0, &leaving(0, &busy, &member.member_id))?;
        s.ask("when all have left", v, &of(&[&busy]));
    }
    Ok(())
}
