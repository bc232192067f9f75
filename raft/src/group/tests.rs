use super::*;
use crate::log::{Log, LogStart};
use crate::testing::Kept;

const A: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(2);
const C: ReplicaId = ReplicaId(3);

fn open(id: ReplicaId, voters: &[ReplicaId]) -> Group {
    Group::open(id, Timing::default(), id.0, &Kept::new(3, voters), Tick(1)).unwrap()
}

/// What `group` does not make durable by itself.
fn save(group: &mut Group, now: Tick) -> Output {
    let mut all = group.take_output();
    loop {
        let last = all.append.last().map(|last| (last.index.next(), last.term));
        all.hard_state.into_iter().for_each(|saved| group.hard_state_durable(now, saved).unwrap());
        last.into_iter().for_each(|(end, term)| group.durable(now, end, term).unwrap());
        if std::mem::take(&mut all.leave_joint) {
            let _later_if_not_now = group.leave_joint(now);
        }
        if !group.has_output() {
            return all;
        }
        let mut more = group.take_output();
        all.messages.append(&mut more.messages);
        all.orders.append(&mut more.orders);
        all.append.append(&mut more.append);
        all.hard_state = more.hard_state;
        all.committed = more.committed.or(all.committed);
        all.membership = more.membership.or(all.membership);
        all.leadership = more.leadership.or(all.leadership);
        all.removed |= more.removed;
        all.snapshots_wanted.append(&mut more.snapshots_wanted);
        all.leave_joint = more.leave_joint;
    }
}

fn vote(from: ReplicaId, to: ReplicaId, term: i32, pre: bool) -> Message {
    let vote = Vote {
        pre,
        forced: false,
        end: RaftIndex(3),
        last_term: Term(1),
        committed: RaftIndex(0),
        committed_term: Term(0),
    };
    Message { from, to, term: Term(term), body: Body::Vote(vote) }
}

fn append(from: ReplicaId, to: ReplicaId, term: i32, start: u64, committed: u64) -> Message {
    let entry =
        Entry { index: RaftIndex(start), term: Term(term), kind: EntryKind::Batch, bytes: "batch".into() };
    let append = Append {
        start: RaftIndex(start),
        term_before: Term(1),
        committed: RaftIndex(committed),
        quiet: false,
        entries: vec![entry],
    };
    Message { from, to, term: Term(term), body: Body::Append(append) }
}

/// Late enough that nobody is promised anything.
const LATE: Tick = Tick(100);

#[test]
fn a_vote_waits_for_its_term_to_be_durable() {
    let mut group = open(A, &[A, B, C]);
    group.step(LATE, vote(B, A, 2, false)).unwrap();
    let output = group.take_output();
    assert_eq!(output.hard_state, Some(HardState { term: Term(2), vote: Some(B) }));
    assert_eq!(output.messages, []);
    group.hard_state_durable(LATE, HardState { term: Term(2), vote: Some(B) }).unwrap();
    let output = group.take_output();
    let granted = |message: &Message| matches!(message.body, Body::VoteAnswer(answer) if answer.granted);
    assert!(output.messages.len() == 1 && granted(&output.messages[0]));
}

#[test]
fn an_append_waits_for_its_entries_to_be_durable() {
    let mut group = open(A, &[A, B, C]);
    group.step(LATE, append(B, A, 2, 3, 0)).unwrap();
    let output = group.take_output();
    group.hard_state_durable(LATE, output.hard_state.unwrap()).unwrap();
    assert_eq!((output.append.len(), group.take_output().messages.len()), (1, 0));
    group.durable(LATE, RaftIndex(4), Term(2)).unwrap();
    let matched = Outcome::Matched { end: RaftIndex(4) };
    let answered =
        |message: &Message| matches!(message.body, Body::AppendAnswer(answer) if answer.outcome == matched);
    assert!(group.take_output().messages.iter().any(answered));
}

#[test]
fn an_answer_for_entries_that_were_replaced_is_never_given() {
    let mut group = open(A, &[A, B, C]);
    group.step(LATE, append(B, A, 2, 3, 0)).unwrap();
    group.step(LATE, append(C, A, 3, 3, 0)).unwrap();
    let output = save(&mut group, LATE);
    // Nor do they reach the log.
    assert_eq!(output.append.iter().map(|entry| entry.term.0).collect::<Vec<_>>(), [3]);
    let to_b = output.messages.iter().filter(|message| message.to == B);
    assert_eq!(to_b.count(), 0);
    assert_eq!(output.messages.iter().filter(|message| message.to == C).count(), 1);
}

#[test]
fn a_group_of_one_commits_what_is_durable_and_says_nothing() {
    let mut group = open(A, &[A]);
    let output = save(&mut group, Tick(1));
    assert_eq!(output.leadership.map(|leadership| leadership.role), Some(Role::Leader));
    assert_eq!(output.committed, Some(RaftIndex(4)));
    assert_eq!(group.propose(Tick(2), vec!["batch".into(), "more".into()]), Ok(RaftIndex(4)));
    let output = group.take_output();
    assert_eq!((output.append.len(), output.committed), (2, None));
    group.durable(Tick(2), RaftIndex(5), output.append[0].term).unwrap();
    assert_eq!(group.take_output().committed, Some(RaftIndex(5)));
    assert!(group.may_lead(Tick(1_000_000), |_| None) && group.deadline().is_none());
}

#[test]
fn nothing_is_promised_twice_by_a_replica_that_starts() {
    let mut group = open(A, &[A, B, C]);
    group.step(Tick(5), vote(B, A, 2, false)).unwrap();
    assert!(group.take_output().hard_state.is_none());
}

#[test]
fn another_life_of_the_replica_does_not_hear_its_messages() {
    let mut group = open(A, &[A, B, C]);
    group.step(LATE, Message { to: ReplicaId(9), ..vote(B, A, 2, false) }).unwrap();
    assert!(!group.has_output());
}

/// Replicas talk until nothing is left to say. `log`: what leaders appended. Says who wants a snapshot.
fn talk(groups: &mut [Group], log: &mut Vec<Entry>, now: Tick) -> Vec<ReplicaId> {
    let mut wanted = Vec::new();
    loop {
        let mut messages = Vec::new();
        for group in groups.iter_mut() {
            let output = save(group, now);
            log.extend(output.append.iter().filter(|_| group.leadership.role == Role::Leader).cloned());
            for order in &output.orders {
                let entries = log
                    .iter()
                    .filter(|entry| entry.index >= order.start && entry.index < order.end)
                    .cloned()
                    .collect();
                let (start, term_before, committed) = (order.start, order.term_before, order.committed);
                let quiet = order.quiet && order.start == order.end;
                let body = Body::Append(Append { start, term_before, committed, quiet, entries });
                messages.push(Message { from: group.id, to: order.to, term: order.term, body });
            }
            messages.extend(output.messages);
            wanted.extend(output.snapshots_wanted);
        }
        if messages.is_empty() {
            return wanted;
        }
        for message in messages {
            if let Some(group) = groups.iter_mut().find(|group| group.id == message.to) {
                group.step(now, message).unwrap();
            }
        }
    }
}

fn led_by_a(ids: &[ReplicaId]) -> (Vec<Group>, Vec<Entry>) {
    let log = &mut Vec::new();
    let mut groups: Vec<_> = ids.iter().map(|&id| open(id, ids)).collect();
    groups[0].campaign(LATE).unwrap();
    talk(&mut groups, log, LATE);
    groups[0].tick(LATE).unwrap();
    talk(&mut groups, log, LATE);
    assert!(groups[0].may_lead(LATE, |_| None));
    (groups, std::mem::take(log))
}

#[test]
fn a_removed_replica_says_so() {
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    groups[0].change_membership(LATE, vec![A, B], vec![]).unwrap();
    talk(&mut groups, log, LATE);
    assert_eq!(groups[0].membership(), &Membership::of_voters(&[A, B]));
    // It has not heard of it: it asks for votes, and is told.
    let later = LATE.after(60);
    groups[2].tick(later).unwrap();
    groups[0].tick(LATE.after(5)).unwrap();
    talk(&mut groups[..2], log, LATE.after(5));
    let output = save(&mut groups[2], later);
    for message in output.messages.into_iter().filter(|message| message.to == A) {
        groups[0].step(LATE.after(6), message).unwrap();
    }
    for message in groups[0].take_output().messages.into_iter().filter(|message| message.to == C) {
        groups[2].step(later, message).unwrap();
    }
    assert!(groups[2].is_removed() && groups[2].take_output().removed);
    assert_eq!(groups[2].deadline(), None);
}

#[test]
fn a_change_of_several_voters_goes_by_way_of_a_joint_configuration() {
    let (d, e) = (ReplicaId(4), ReplicaId(5));
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    groups.extend([d, e].map(|id| open(id, &[A, B, C])));
    groups[0].change_membership(LATE, vec![A, d, e], vec![B]).unwrap();
    assert_eq!(groups[0].change_membership(LATE, vec![A], vec![]), Err(Refused::ChangeUnderWay));
    talk(&mut groups, log, LATE);
    let expected = Membership { learners: vec![B], ..Membership::of_voters(&[A, d, e]) };
    assert_eq!(groups[0].membership(), &expected);
    assert_eq!(groups[3].membership(), &expected);
}

#[test]
fn leadership_is_handed_over_and_the_lease_with_it() {
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    assert_eq!(groups[0].transfer(LATE, ReplicaId(9)), Err(Refused::NotAVoter(ReplicaId(9))));
    groups[0].transfer(LATE, B).unwrap();
    assert!(!groups[0].may_lead(LATE, |_| None));
    assert!(matches!(groups[0].propose(LATE, vec!["batch".into()]), Err(Refused::NotLeading { .. })));
    talk(&mut groups, log, LATE);
    assert_eq!(groups[1].leadership().role, Role::Leader);
}

#[test]
fn a_handover_that_fails_ends_in_a_new_term_of_the_same_leader() {
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    let term = groups[0].leadership().term;
    groups[0].transfer(LATE, B).unwrap();
    // The order is lost.
    save(&mut groups[0], LATE);
    let later = LATE.after(Timing::default().election);
    groups[0].tick(later).unwrap();
    talk(&mut groups, log, later);
    let now = groups[0].leadership();
    assert_eq!((now.role, now.term), (Role::Leader, Term(term.0 + 1)));
}

#[test]
fn a_lease_ends_when_nobody_answers() {
    let (groups, _) = led_by_a(&[A, B, C]);
    let timing = Timing::default();
    let last = LATE.after(timing.election - timing.lease_margin - 1);
    assert!(groups[0].may_lead(last, |_| None));
    assert!(!groups[0].may_lead(last.after(1), |_| None));
}

#[test]
fn a_quiet_group_rests_and_a_proposal_wakes_it() {
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    for ticks in 1..100 {
        groups[0].tick(LATE.after(ticks)).unwrap();
        talk(&mut groups, log, LATE.after(ticks));
    }
    assert!(groups.iter().all(|group| group.is_resting() && group.deadline().is_none()));
    let later = LATE.after(5000);
    assert!(!groups[0].may_lead(later, |_| None));
    assert!(groups[0].may_lead(later, |_| Some(later)));
    groups[0].propose(later, vec!["batch".into()]).unwrap();
    talk(&mut groups, log, later);
    assert!(groups.iter().all(|group| !group.is_resting() && group.deadline().is_some()));
}

/// A leader's append of one change, above the three entries that are kept.
fn change(from: ReplicaId, to: ReplicaId, term: i32, voters: &[ReplicaId]) -> Message {
    let mut message = append(from, to, term, 3, 0);
    let Body::Append(append) = &mut message.body else { unreachable!() };
    append.entries[0].kind = EntryKind::Membership;
    append.entries[0].bytes = Change::To { voters: voters.to_vec(), learners: vec![] }.encode();
    message
}

/// Taken at the commit instead, a replica that has yet to hear of one is elected by a majority of the old voters that
/// shares nobody with the majority that committed it.
#[test]
fn a_change_is_in_force_once_it_is_in_the_log() {
    let (d, e) = (ReplicaId(4), ReplicaId(5));
    let mut group = open(B, &[A, B, C]);
    group.step(LATE, change(A, B, 2, &[B, d, e])).unwrap();
    save(&mut group, LATE);
    assert_eq!(group.committed(), RaftIndex(0));
    let joint = Membership { outgoing: vec![A, B, C], ..Membership::of_voters(&[B, d, e]) };
    assert_eq!(group.membership(), &joint);
    // It wins among the old voters, and does not lead for that.
    let later = LATE.after(60);
    group.tick(later).unwrap();
    let granted = |pre, from| {
        let (committed, committed_term) = (RaftIndex(0), Term(0));
        let body = Body::VoteAnswer(VoteAnswer { pre, granted: true, committed, committed_term });
        Message { from, to: B, term: Term(3), body }
    };
    for pre in [true, false] {
        save(&mut group, later);
        group.step(later, granted(pre, C)).unwrap();
        assert_eq!(group.leadership().role, Role::Candidate);
        group.step(later, granted(pre, d)).unwrap();
    }
    assert_eq!(group.leadership().role, Role::Leader);
}

#[test]
fn a_change_that_is_cut_was_never_in_force() {
    let mut group = open(B, &[A, B, C]);
    group.step(LATE, change(A, B, 2, &[A, B])).unwrap();
    assert!(group.membership().is_joint());
    group.step(LATE, append(C, B, 3, 3, 0)).unwrap();
    assert_eq!(group.membership(), &Membership::of_voters(&[A, B, C]));
    assert_eq!(group.core.membership(), Membership::of_voters(&[A, B, C]));
}

#[test]
fn who_joined_after_a_snapshot_takes_it() {
    let joined = ReplicaId(4);
    let mut group = open(joined, &[A, B, C]);
    let membership = Membership::of_voters(&[A, B, C]);
    let offer = SnapshotOffer { end: RaftIndex(9), term: Term(2), membership: membership.clone() };
    let body = Body::SnapshotOffer(offer.clone());
    group.step(LATE, Message { from: A, to: joined, term: Term(2), body }).unwrap();
    assert_eq!(group.take_output().install, Some(offer.clone()));
    assert!(group.snapshot_installed(LATE, &offer));
    assert_eq!((group.next_index(), group.core.membership()), (RaftIndex(9), membership));
    assert!(!group.is_removed());
}

/// Else two leaders could each begin one that the other has not heard of.
#[test]
fn a_leader_changes_nothing_before_it_has_committed_in_its_term() {
    let mut group = open(A, &[A, B, C]);
    let later = LATE.after(60);
    group.tick(later).unwrap();
    for pre in [true, false] {
        save(&mut group, later);
        let (committed, committed_term) = (RaftIndex(3), Term(1));
        let body = Body::VoteAnswer(VoteAnswer { pre, granted: true, committed, committed_term });
        group.step(later, Message { from: B, to: A, term: Term(2), body }).unwrap();
    }
    assert_eq!(group.leadership().role, Role::Leader);
    assert_eq!(group.change_membership(later, vec![A, B], vec![]), Err(Refused::ChangeUnderWay));
}

#[test]
fn one_that_has_nothing_is_not_removed_yet() {
    for (next, removed) in [(0, false), (3, true)] {
        let mut group = Group::open(C, Timing::default(), 3, &Kept::new(next, &[A, B]), Tick(1)).unwrap();
        let said = Message { from: A, to: C, term: Term(4), body: Body::Removed };
        group.step(LATE, said).unwrap();
        assert_eq!((group.is_removed(), group.take_output().removed), (removed, removed));
    }
}

/// A log whose membership is known to hold from beyond its end, as in the middle of taking in a leader's state.
struct Ahead(Kept);

impl Log for Ahead {
    fn membership(&self) -> (RaftIndex, Membership) {
        (RaftIndex(5), self.0.membership().1)
    }

    fn start(&self) -> LogStart {
        self.0.start()
    }

    fn next_index(&self) -> RaftIndex {
        self.0.next_index()
    }

    fn durable_index(&self) -> RaftIndex {
        self.0.durable_index()
    }

    fn commit_index(&self) -> RaftIndex {
        self.0.commit_index()
    }

    fn terms(&self) -> Vec<(RaftIndex, Term)> {
        self.0.terms()
    }

    fn hard_state(&self) -> HardState {
        self.0.hard_state()
    }

    fn membership_entries(&self) -> Vec<(RaftIndex, Bytes)> {
        Vec::new()
    }
}

#[test]
fn a_change_that_the_membership_knows_of_is_passed_over() {
    let log = Ahead(Kept::new(3, &[A, B, C]));
    let mut group = Group::open(A, Timing::default(), 1, &log, Tick(1)).unwrap();
    // Of entry 3, below where the membership holds: it says nothing new, and would not follow it.
    group.step(LATE, change(B, A, 2, &[A, B, C])).unwrap();
    assert_eq!(group.membership(), &Membership::of_voters(&[A, B, C]));
    // Nor does another leader's entry in its place.
    group.step(LATE, append(C, A, 3, 3, 0)).unwrap();
    assert_eq!(group.membership(), &Membership::of_voters(&[A, B, C]));
}

/// Else a log that knows the commit, and is durable before this replica hears of it, keeps the membership before as that of
/// what is committed.
#[test]
fn a_membership_is_told_no_later_than_its_commit() {
    let mut group = open(B, &[A, B, C]);
    let with_another = [A, B, C, ReplicaId(4)];
    let mut message = change(A, B, 2, &with_another);
    let Body::Append(append) = &mut message.body else { unreachable!() };
    append.committed = RaftIndex(4);
    group.step(LATE, message).unwrap();
    let output = group.take_output();
    assert_eq!((output.committed, output.append.len()), (Some(RaftIndex(4)), 1));
    assert_eq!(output.membership, Some((RaftIndex(4), Membership::of_voters(&with_another))));
}

fn rested() -> (Vec<Group>, Vec<Entry>) {
    let (mut groups, mut log) = led_by_a(&[A, B, C]);
    for ticks in 1..100 {
        groups[0].tick(LATE.after(ticks)).unwrap();
        talk(&mut groups, &mut log, LATE.after(ticks));
    }
    assert!(groups.iter().all(Group::is_resting));
    (groups, log)
}

/// Who rests with a leader promised it, and it alone, not to vote: it may be the only one that asks.
#[test]
fn a_leader_that_resigned_has_the_votes_of_who_rests_with_it() {
    let (mut groups, _) = rested();
    let now = LATE.after(100);
    groups[0].doubt(now, B, now);
    let asked = (1..200).find_map(|ticks| {
        groups[0].tick(now.after(ticks)).unwrap();
        let said = save(&mut groups[0], now.after(ticks)).messages;
        said.into_iter().find(|message| message.to == B && matches!(message.body, Body::Vote(_)))
    });
    groups[1].keep_promise(now.after(200));
    groups[1].step(now.after(200), asked.expect("a leader without followers")).unwrap();
    let answers = save(&mut groups[1], now.after(200)).messages;
    assert!(answers.iter().any(|answer| matches!(answer.body, Body::VoteAnswer(answer) if answer.granted)));
}

#[test]
fn an_answer_that_comes_late_wakes_no_follower() {
    let (mut groups, _) = rested();
    let (committed, committed_term) = (RaftIndex(0), Term(0));
    let body = Body::VoteAnswer(VoteAnswer { pre: true, granted: false, committed, committed_term });
    groups[1].step(LATE.after(100), Message { from: C, to: B, term: Term(1), body }).unwrap();
    assert!(groups[1].is_resting());
}

/// An answer that agrees to a rest and is not sent yet would outlive it.
#[test]
fn who_wakes_takes_back_that_it_rests() {
    let (mut groups, _) = rested();
    let (now, term) = (LATE.after(100), groups[0].leadership().term);
    let beat = Heartbeat { committed: groups[1].next_index(), sent: now, rest: true };
    let beat = Message { from: A, to: B, term, body: Body::Heartbeat(beat) };
    groups[1].step(now, beat).unwrap();
    groups[1].doubt(now, A, now);
    let agrees = |message: &Message| matches!(message.body, Body::HeartbeatAnswer(answer) if answer.rest);
    let output = groups[1].take_output();
    assert!(!output.messages.is_empty() && !output.messages.iter().any(agrees));
}

#[test]
fn an_answer_from_before_the_last_word_agrees_to_no_rest() {
    let (mut groups, _) = rested();
    let now = LATE.after(100);
    groups[0].propose(now, vec!["batch".into()]).unwrap();
    let answer = HeartbeatAnswer { committed: RaftIndex(0), sent: LATE.after(99), rest: true };
    let term = groups[0].leadership().term;
    groups[0].step(now, Message { from: B, to: A, term, body: Body::HeartbeatAnswer(answer) }).unwrap();
    assert!(!groups[0].lease.rests(B));
}

/// The transfer dies, and nobody says so.
#[test]
fn a_snapshot_that_is_never_answered_is_wanted_again() {
    let joined = ReplicaId(4);
    let (mut groups, ref mut log) = led_by_a(&[A, B, C]);
    groups[0].propose(LATE, vec!["batch".into(), "more".into()]).unwrap();
    talk(&mut groups, log, LATE);
    let applied = groups[0].applied();
    groups[0].drop_below(applied);
    groups.push(Group::open(joined, Timing::default(), 4, &Kept::new(0, &[A, B, C]), Tick(1)).unwrap());
    groups[0].change_membership(LATE, vec![A, B, C], vec![joined]).unwrap();
    let mut wanted = talk(&mut groups, log, LATE);
    wanted.dedup();
    assert_eq!(wanted, [joined]);
    let (term, end) = (groups[0].leadership().term, groups[0].applied());
    let offer = SnapshotOffer { end, term, membership: groups[0].membership().clone() };
    groups[0].offer_snapshot(LATE, joined, &offer);
    let timing = Timing::default();
    let again = (1..2 * timing.snapshot).find(|&ticks| {
        groups[0].tick(LATE.after(ticks)).unwrap();
        !talk(&mut groups, log, LATE.after(ticks)).is_empty()
    });
    let due = timing.snapshot..=timing.snapshot + 2 * timing.heartbeat;
    assert!(again.is_some_and(|ticks| due.contains(&ticks)), "{again:?}");
}

#[test]
fn what_is_committed_is_heard_without_an_answer_and_a_mismatch_is_not() {
    let mut group = open(B, &[A, B, C]);
    let notice = |start: u64, term| {
        let mut message = append(A, B, term, start, 3);
        let Body::Append(append) = &mut message.body else { unreachable!() };
        (append.quiet, append.entries) = (true, Vec::new());
        message
    };
    group.step(LATE, notice(3, 2)).unwrap();
    let output = save(&mut group, LATE);
    assert_eq!((output.committed, output.messages), (Some(RaftIndex(3)), vec![]));
    group.step(LATE, notice(7, 2)).unwrap();
    group.step(LATE, notice(3, 1)).unwrap();
    let answers = save(&mut group, LATE).messages;
    let terms: Vec<_> = answers.iter().map(|answer| (answer.term.0, answer.body.clone())).collect();
    assert!(matches!(
        terms[..],
        [
            (2, Body::AppendAnswer(AppendAnswer { outcome: Outcome::Mismatch { .. }, .. })),
            (2, Body::AppendAnswer(_)),
        ]
    ));
}

/// Without that the leader would offer it again and again: it keeps no entries that far below.
#[test]
fn a_snapshot_of_what_the_log_has_is_known_as_committed() {
    let mut group = open(B, &[A, B, C]);
    let membership = Membership::of_voters(&[A, B, C]);
    let body = Body::SnapshotOffer(SnapshotOffer { end: RaftIndex(2), term: Term(1), membership });
    group.step(LATE, Message { from: A, to: B, term: Term(2), body }).unwrap();
    let output = save(&mut group, LATE);
    assert_eq!((output.committed, output.install), (Some(RaftIndex(2)), None));
    let outcome = Outcome::Matched { end: RaftIndex(2) };
    let matched =
        |message: &Message| matches!(message.body, Body::AppendAnswer(answer) if answer.outcome == outcome);
    assert!(output.messages.iter().any(matched));
}

/// A leader that knew less could offer no snapshot: it has no membership from before.
#[test]
fn a_kept_membership_is_committed() {
    let log = Kept::new(3, &[A, B, C]).since(2);
    let group = Group::open(A, Timing::default(), 1, &log, Tick(1)).unwrap();
    assert_eq!((group.committed(), group.applied()), (RaftIndex(2), RaftIndex(2)));
    // One that came with another replica's segments may hold from behind what came with it.
    let log = Kept::new(3, &[A, B, C]).since(4);
    let group = Group::open(A, Timing::default(), 1, &log, Tick(1)).unwrap();
    assert_eq!(group.committed(), RaftIndex(3));
}
