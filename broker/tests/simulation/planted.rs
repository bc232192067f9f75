//! Faults that the broker had once, or that a checker is there for, are planted: the plans find them by seed, for the right reason, and find nothing at the
//! same seeds without.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_io::planted::{Fault, Planting};

use crate::plan::{Faults, Plan};
use crate::story;

const SEEDS_MAX: u64 = 20;

/// What a seed fails with.
fn failure(seed: u64, faults: Faults, members: u32) -> Option<String> {
    // A snapshot of the metadata would make the log say what is served.
    let plan = Plan::from_seed(seed, faults);
    let plan = Plan { metadata_bytes: u64::MAX, members: plan.members.max(members), ..plan };
    let run = catch_unwind(AssertUnwindSafe(|| story::run(&plan)));
    let payload = run.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()))
            .expect("a panic has a text"),
    )
}

/// `fault` fails one of the first seeds, and the first that it fails, by one of `signs`: what its kind breaks. Without it
/// that seed is sound.
fn is_found(fault: Fault, faults: Faults, signs: &[&str]) {
    is_found_with(0, fault, faults, signs);
}

/// As [`is_found`], with so many members of a group at the least.
fn is_found_with(members: u32, fault: Fault, faults: Faults, signs: &[&str]) {
    let found = (1..=SEEDS_MAX).find_map(|seed| {
        let _planting = Planting::of(fault);
        Some((seed, failure(seed, faults, members)?))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{fault:?} is not found within {SEEDS_MAX} seeds"));
    eprintln!("{fault:?} is found at seed {seed}: {what}");
    assert!(signs.iter().any(|sign| what.contains(sign)), "seed {seed} fails for another reason: {what}");
    assert_eq!(failure(seed, faults, members), None, "seed {seed} without {fault:?}");
}

#[test]
fn a_change_given_up_halfway_is_found() {
    let signs =
        ["what was served is not what the controller's log says", "controller log, at or after offset"];
    is_found(Fault::ChangeGivenUpHalfway, Faults::Stalls, &signs);
}

#[test]
fn absence_taken_for_empty_is_found() {
    is_found(Fault::AbsenceIsEmpty, Faults::OneDamage, &["without [", "acknowledged up to", "is lost"]);
}

#[test]
fn offsets_that_outlive_their_topic_are_found() {
    is_found(Fault::OffsetsOutliveTheirTopic, Faults::LastingErrors, &["of a former topic of its name"]);
}

#[test]
fn a_refused_log_that_stops_its_shard_is_found() {
    is_found(Fault::RefusedLogKeepsItsPlace, Faults::OneDamage, &["a sound partition takes no batch"]);
}

#[test]
fn a_partial_frame_without_limit_is_found() {
    is_found(Fault::PartialFrameIsWaitedFor, Faults::Stalls, &["not answered after"]);
}

#[test]
fn room_taken_bit_by_bit_is_found() {
    is_found(Fault::RoomIsTakenBitByBit, Faults::Stalls, &["not answered after"]);
}

#[test]
fn a_failed_sync_that_counts_is_found() {
    let signs = [
        "acknowledged up to",
        "is lost",
        "acknowledged at another offset",
        "is out of range",
        "OUT_OF_ORDER_SEQUENCE",
    ];
    is_found(Fault::FailedSyncCounts, Faults::DyingDisk, &signs);
}

#[test]
fn sockets_that_are_kept_are_found() {
    is_found(Fault::SocketsAreKept, Faults::Crashes, &["descriptors after the same clients"]);
}

#[test]
fn a_generation_that_stands_still_is_found() {
    is_found_with(3, Fault::GenerationStandsStill, Faults::Crashes, &["has two owners"]);
}

#[test]
fn a_generation_that_is_over_and_goes_on_is_found() {
    is_found_with(3, Fault::FormerGenerationsGoOn, Faults::Crashes, &["had begun"]);
}

#[test]
fn memory_that_is_kept_is_found() {
    is_found(Fault::FetchesKeepTheirRoom, Faults::Crashes, &["nobody is there, and"]);
}

#[test]
fn files_that_are_kept_are_found() {
    is_found(Fault::DeletedTopicsStay, Faults::LastingErrors, &["is of no topic"]);
}
