//! Faults are planted in the client, one for each promise: some seed finds each, for the right reason, and is sound without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_client::simulation::{Fault, Planting};

use super::plan::Plan;
use super::story;

const SEEDS_MAX: u64 = 150;

/// What a seed fails with.
fn failure(seed: u64) -> Option<String> {
    let run = catch_unwind(AssertUnwindSafe(|| story::run(&Plan::from_seed(seed))));
    let payload = run.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()))
            .expect("a panic has a text"),
    )
}

/// `fault` fails one of the first seeds, and the first that it fails, by one of `signs`. Without it that seed is sound.
fn is_found(fault: Fault, signs: &[&str]) {
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let _planting = Planting::of(fault);
        Some((seed, failure(seed)?))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{fault:?} is not found within {SEEDS_MAX} seeds"));
    eprintln!("{fault:?} is found at seed {seed}: {what}");
    assert!(signs.iter().any(|sign| what.contains(sign)), "seed {seed} fails for another reason: {what}");
    assert_eq!(failure(seed), None, "seed {seed} without {fault:?}");
}

#[test]
fn a_lost_answer_taken_for_yes_is_found() {
    is_found(Fault::LostAnswerIsYes, &["was acknowledged, and"]);
}

#[test]
fn doubt_told_as_no_is_found() {
    is_found(Fault::DoubtIsNo, &["failed as not written, and"]);
}

#[test]
fn unnumbered_batches_are_found() {
    is_found(Fault::BatchesAreUnnumbered, &["twice", "out of order"]);
}

#[test]
fn a_dropped_consumer_that_commits_is_found() {
    is_found(Fault::DroppedIsProcessed, &["nobody has worked through"]);
}

#[test]
fn partitions_kept_while_joining_are_found() {
    is_found(Fault::AllIsKeptWhileJoining, &["has two owners", "went back from"]);
}

#[test]
fn an_expelled_member_that_goes_on_is_found() {
    is_found(Fault::ExpelledGoesOn, &["has two owners", "without faults"]);
}

#[test]
fn closing_that_waits_is_found() {
    is_found(Fault::ClosingWaits, &["close took", "abandon took"]);
}

#[test]
fn lanes_that_are_left_are_found() {
    is_found(Fault::LanesAreLeft, &["connections are left"]);
}

#[test]
fn an_end_told_as_no_is_found() {
    is_found(Fault::EndIsNo, &["failed as not written, and"]);
}

#[test]
fn a_former_generation_told_as_a_failure_is_found() {
    is_found(Fault::FormerGenerationIsAFailure, &["ILLEGAL_GENERATION"]);
}

#[test]
fn a_poll_that_is_not_woken_is_found() {
    is_found(Fault::OnePollIsWoken, &["poll took", "without faults"]);
}
