//! Rebalances: which protocol is chosen, and who is out when it takes too long.

use super::super::Case;
use super::super::session::Session;
use super::group_life::{describe, heartbeat, join, leaving, protocol, sync};
use anyhow::Result;
use corelog_wire::messages::join_group_request::JoinGroupRequest;
use corelog_wire::messages::join_group_response::JoinGroupResponse;
use corelog_wire::messages::sync_group_request::SyncGroupRequest;
use corelog_wire::{ErrorCode, Str};

pub const CASES: &[Case] = &[
    Case { name: "rebalance protocol", run: protocol_chosen },
    Case { name: "rebalance without a member", run: left_behind },
    Case { name: "session expires", run: session_expires },
    Case { name: "sync never comes", run: no_sync },
];

/// The least that both brokers take.
const SESSION_MS: i32 = 6000;

fn await_rebalance(s: &mut Session, group: &Str, member: &JoinGroupResponse) -> Result<()> {
    s.until("rebalance", |s| {
        let error = s.quiet(3, &heartbeat(group, member.generation_id, &member.member_id))?.error_code;
        Ok((error == ErrorCode::REBALANCE_IN_PROGRESS.0).then_some(()))
    })
}

/// The one that all know and most prefer; each votes for the first of its own that all know.
fn protocol_chosen(s: &mut Session) -> Result<()> {
    let preferences: [(&str, &[&str], &[&str]); 5] = [
        ("same", &["range", "sticky"], &["range", "sticky"]),
        ("one in common", &["range", "sticky"], &["other", "sticky"]),
        ("first of one unknown to the other", &["other", "range", "sticky"], &["range", "sticky"]),
        ("last in common", &["a", "b", "c"], &["c"]),
        ("all but one in common", &["x", "range", "sticky"], &["y", "range", "sticky"]),
    ];
    for (step, of_a, of_b) in preferences {
        let group = s.group(step.replace(' ', "-"))?;
        let speaks = |names: &[&str], member: &Str| JoinGroupRequest {
            protocols: names.iter().map(|name| protocol(name)).collect(),
            ..join(&group, member)
        };
        let a = s.ask(&format!("{step}: a joins"), 3, &speaks(of_a, &Str::new()));
        s.ask(&format!("{step}: a syncs"), 3, &sync(&a, &group, &[(&a.member_id, b"a")]));
        s.send(1, 3, &speaks(of_b, &Str::new()));
        await_rebalance(s, &group, &a)?;
        let a = s.ask(&format!("{step}: a joins again"), 3, &speaks(of_a, &a.member_id));
        let b = s.answer::<JoinGroupRequest>(1, &format!("{step}: b has joined"), 3);
        let assignments: [(&Str, &[u8]); 2] = [(&a.member_id, b"a"), (&b.member_id, b"b")];
        s.ask(&format!("{step}: a syncs for both"), 3, &sync(&a, &group, &assignments));
        s.ask(&format!("{step}: b syncs"), 3, &sync(&b, &group, &[]));
        describe(s, &format!("{step}: stable"), &group);
    }
    Ok(())
}

/// Who does not come back within the rebalance timeout is out, and the others go on.
fn left_behind(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    // Long enough for b to sync on a machine that is slow.
    let hurried = |member: &Str| JoinGroupRequest { rebalance_timeout_ms: 3000, ..join(&group, member) };
    let a = s.ask("a joins", 3, &hurried(&Str::new()));
    s.ask("a syncs", 3, &sync(&a, &group, &[(&a.member_id, b"a")]));
    let b = s.ask("b joins, and a does not come", 3, &hurried(&Str::new()));
    s.note("b leads", b.leader == b.member_id);
    s.ask("a's heartbeat", 3, &heartbeat(&group, a.generation_id, &a.member_id));
    s.ask("a syncs late", 3, &sync(&a, &group, &[]));
    s.ask("a joins late", 3, &hurried(&a.member_id));
    s.ask("b syncs", 3, &sync(&b, &group, &[(&b.member_id, b"b")]));
    describe(s, "without a", &group);
    Ok(())
}

/// Who sends no heartbeats is out when its session ends.
fn session_expires(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let short = |member: &Str| JoinGroupRequest { session_timeout_ms: SESSION_MS, ..join(&group, member) };
    let a = s.ask("joins", 3, &short(&Str::new()));
    s.ask("syncs", 3, &sync(&a, &group, &[(&a.member_id, b"a")]));
    s.ask("in time", 3, &heartbeat(&group, a.generation_id, &a.member_id));
    std::thread::sleep(std::time::Duration::from_millis(SESSION_MS as u64 + 1500));
    s.ask("too late", 3, &heartbeat(&group, a.generation_id, &a.member_id));
    describe(s, "empty", &group);
    s.ask("it syncs", 3, &sync(&a, &group, &[]));
    s.ask("it leaves", 3, &leaving(3, &group, &a.member_id));
    s.ask("it joins under its former id", 3, &short(&a.member_id));
    let again = s.ask("it joins anew", 3, &short(&Str::new()));
    s.ask("it syncs anew", 3, &sync(&again, &group, &[(&again.member_id, b"a")]));
    describe(s, "stable again", &group);
    Ok(())
}

/// A leader that has joined and brings no assignment is out after the rebalance timeout, with all who wait for it.
fn no_sync(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let hurried = |member: &Str| JoinGroupRequest { rebalance_timeout_ms: 1000, ..join(&group, member) };
    let a = s.ask("joins", 3, &hurried(&Str::new()));
    s.until("it is out", |s| {
        let error = s.quiet(3, &heartbeat(&group, a.generation_id, &a.member_id))?.error_code;
        Ok((error != 0).then_some(()))
    })?;
    s.ask("its heartbeat", 3, &heartbeat(&group, a.generation_id, &a.member_id));
    let late = sync(&a, &group, &[(&a.member_id, b"a")]);
    s.ask("its sync", 3, &late);
    for v in 0..=s.newest::<SyncGroupRequest>() {
        s.ask("its sync in every version", v, &late);
    }
    describe(s, "empty", &group);
    Ok(())
}
