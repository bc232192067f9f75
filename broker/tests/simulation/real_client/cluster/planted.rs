//! Faults of replication are planted in the brokers: some seed finds each, for the right reason, and is sound without it.

use corelog_io::planted::{Fault, Planting};

use super::plan::Ordeal;
use crate::real_client::plan::Plan;
use crate::real_client::planted::failure_of;

const SEEDS_MAX: u64 = 60;

/// What may be missing, doubled or told where replicas part.
const LOST: [&str; 8] = [
    "was acknowledged, and",
    "has two records at",
    "and it ended at",
    "ends before offset",
    "is not the same on brokers",
    "went back from",
    "was told that",
    "two brokers lead",
];

fn is_found(fault: Fault, ordeal: Ordeal) {
    let plan = |seed| Plan::of_ordeal(seed, ordeal);
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let _planting = Planting::of(fault);
        let what = failure_of(&plan(seed))?;
        LOST.iter().any(|sign| what.contains(sign)).then_some((seed, what))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{fault:?} is not found within {SEEDS_MAX} seeds"));
    eprintln!("{fault:?} is found at seed {seed}: {what}");
    assert_eq!(failure_of(&plan(seed)), None, "seed {seed} without {fault:?}");
}

#[test]
fn an_answer_before_the_sync_is_found() {
    is_found(Fault::AnsweredBeforeSync, Ordeal::Power);
}

#[test]
fn a_commit_by_one_is_found() {
    is_found(Fault::CommittedByOne, Ordeal::Links);
}

#[test]
fn terms_that_are_ignored_are_found() {
    is_found(Fault::TermsIgnored, Ordeal::Links);
}

#[test]
fn a_leader_that_is_enough_is_found() {
    is_found(Fault::LeaderIsEnough, Ordeal::Links);
}

#[test]
fn followers_that_serve_are_found() {
    is_found(Fault::FollowersServe, Ordeal::Links);
}

#[test]
fn former_leaders_that_serve_are_found() {
    is_found(Fault::FormerLeadersServe, Ordeal::Links);
}
