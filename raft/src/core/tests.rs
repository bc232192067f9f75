use super::*;
use crate::message::{Append, AppendAnswer, VoteAnswer};
use crate::testing::Kept;
use bytes::Bytes;

const LEADER: ReplicaId = ReplicaId(1);
const FOLLOWER: ReplicaId = ReplicaId(2);
const OTHER: ReplicaId = ReplicaId(3);

fn open(next: u64) -> Core {
    let log = Kept::new(next, &[LEADER, FOLLOWER, OTHER]);
    let terms = Terms::new(log.start(), log.terms(), log.next_index()).unwrap();
    Core::open(LEADER, &log, terms).unwrap()
}

fn said(from: ReplicaId, term: i32, body: Body) -> Message {
    Message { from, to: LEADER, term: Term(term), body }
}

fn answer(from: ReplicaId, outcome: Outcome) -> Message {
    said(from, 2, Body::AppendAnswer(AppendAnswer { committed: RaftIndex(0), outcome }))
}

/// A leader of term 2 whose log is durable.
fn leader(next: u64) -> Core {
    let mut core = open(next);
    core.campaign(false);
    for pre in [true, false] {
        let committed_term = Term(0);
        let body = VoteAnswer { pre, granted: true, committed: RaftIndex(0), committed_term };
        core.step(&said(FOLLOWER, 2, Body::VoteAnswer(body)));
    }
    assert_eq!((core.role(), core.term()), (Role::Leader, Term(2)));
    core.take_appended();
    core.set_persisted(RaftIndex(next + 1));
    core
}

/// A refusal that was overtaken by a later answer: the follower has 11 entries, and said before that it lacks some.
fn late_refusal() -> (u64, u64) {
    let mut core = leader(10);
    core.step(&answer(FOLLOWER, Outcome::Matched { end: RaftIndex(11) }));
    // A lost connection: it is probed from what it has.
    core.unreachable(FOLLOWER);
    let hint = RaftIndex(4);
    core.step(&answer(FOLLOWER, Outcome::Mismatch { start: RaftIndex(11), hint, hint_term: Term(1) }));
    core.next_of(FOLLOWER)
}

#[test]
fn a_late_refusal_leaves_the_next_index_above_what_matches() {
    let (next, matched) = late_refusal();
    assert_eq!((next, matched), (12, 11));
}

#[test]
fn without_the_guard_raft_rs_lets_it_fall() {
    guard::OFF.set(true);
    let (next, matched) = late_refusal();
    guard::OFF.set(false);
    assert!(next <= matched, "raft-rs has mended it: the guard can go ({next}, {matched})");
}

#[test]
fn a_leader_that_would_replace_what_is_committed_is_told_of() {
    let mut core = leader(10);
    core.step(&answer(FOLLOWER, Outcome::Matched { end: RaftIndex(11) }));
    assert_eq!(core.committed(), RaftIndex(11));
    let index = RaftIndex(10);
    let entry = crate::log::Entry {
        index,
        term: Term(3),
        kind: crate::log::EntryKind::Batch,
        bytes: Bytes::from_static(b"other"),
    };
    let append = |start: u64, entries| {
        let (start, committed) = (RaftIndex(start), RaftIndex(0));
        said(OTHER, 3, Body::Append(Append { start, term_before: Term(1), committed, quiet: false, entries }))
    };
    let committed = RaftIndex(11);
    assert_eq!(
        core.check(&append(10, vec![entry.clone()])),
        Err(Violation::CommittedReplaced { from: OTHER, term: Term(3), index, committed })
    );
    assert!(matches!(core.check(&append(11, vec![entry])), Err(Violation::Malformed { .. })));
}

#[test]
fn a_log_that_forgot_what_its_leader_counts_on_is_told_of() {
    let core = open(10);
    let beat = |committed| {
        let sent = crate::ids::Tick(1);
        let beat = crate::message::Heartbeat { committed: RaftIndex(committed), sent, rest: false };
        core.check(&said(OTHER, 2, Body::Heartbeat(beat)))
    };
    assert_eq!(beat(10), Ok(()));
    assert!(matches!(beat(11), Err(Violation::Forgotten { .. })));
}

/// It was offered a later state than the one that it has, and waits for no more.
#[test]
fn a_follower_that_reaches_the_log_needs_no_snapshot() {
    let mut core = leader(10);
    core.step(&answer(OTHER, Outcome::Matched { end: RaftIndex(11) }));
    core.apply(RaftIndex(11));
    core.drop_below(RaftIndex(5));
    let (start, hint) = (RaftIndex(10), RaftIndex(0));
    core.step(&answer(FOLLOWER, Outcome::Mismatch { start, hint, hint_term: Term(0) }));
    assert_eq!(core.take_wanted_snapshots(), [FOLLOWER]);
    let membership = Membership::of_voters(&[LEADER, FOLLOWER, OTHER]);
    core.offer_snapshot(FOLLOWER, &SnapshotOffer { end: RaftIndex(11), term: Term(2), membership });
    let waits = |core: &Core| core.followers().any(|follower| follower.snapshot);
    assert!(waits(&core));
    core.step(&answer(FOLLOWER, Outcome::Matched { end: RaftIndex(4) }));
    assert!(waits(&core));
    core.step(&answer(FOLLOWER, Outcome::Matched { end: RaftIndex(5) }));
    assert!(!waits(&core));
}

#[test]
fn an_answer_for_what_was_not_sent_is_refused() {
    let core = leader(10);
    let matched = |end| core.check(&answer(OTHER, Outcome::Matched { end: RaftIndex(end) }));
    assert_eq!(matched(11), Ok(()));
    assert!(matches!(matched(12), Err(Violation::Malformed { .. })));
}

/// A long log of one term is searched in one step, not entry by entry.
#[test]
fn the_place_where_logs_match_is_found_at_once() {
    let mut core = leader(10_000_000);
    core.take_said();
    let (start, hint) = (RaftIndex(10_000_000), RaftIndex(10_000_000));
    core.step(&answer(FOLLOWER, Outcome::Mismatch { start, hint, hint_term: Term(0) }));
    assert_eq!(core.next_of(FOLLOWER), (1, 0));
}

/// A leader whose log begins at 8, and that offered a follower without any of it what ends there.
fn offered() -> Core {
    let mut core = leader(10);
    core.step(&answer(OTHER, Outcome::Matched { end: RaftIndex(11) }));
    core.apply(RaftIndex(11));
    core.drop_below(RaftIndex(8));
    let (start, hint) = (RaftIndex(10), RaftIndex(0));
    core.step(&answer(FOLLOWER, Outcome::Mismatch { start, hint, hint_term: Term(0) }));
    assert_eq!(core.take_wanted_snapshots(), [FOLLOWER]);
    let membership = core.membership();
    core.offer_snapshot(FOLLOWER, &SnapshotOffer { end: RaftIndex(8), term: Term(1), membership });
    assert!(core.followers().any(|of| of.replica == FOLLOWER && of.snapshot));
    core
}

#[test]
fn a_follower_with_what_it_was_to_fetch_waits_for_no_more() {
    let mut core = offered();
    for (committed, waits) in [(7, true), (8, false)] {
        let body = crate::message::HeartbeatAnswer {
            committed: RaftIndex(committed),
            sent: crate::Tick(0),
            rest: false,
        };
        core.step(&said(FOLLOWER, 2, Body::HeartbeatAnswer(body)));
        assert!(core.followers().any(|of| of.replica == FOLLOWER && of.snapshot == waits));
    }
    assert_eq!(core.next_of(FOLLOWER).0, 9);
}

#[test]
fn a_follower_that_needs_no_snapshot_is_asked_from_the_end() {
    let mut core = offered();
    core.snapshot_unneeded(FOLLOWER);
    assert_eq!(core.next_of(FOLLOWER), (12, 0));
}
