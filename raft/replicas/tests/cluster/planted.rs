//! Faults that the code does not have: were one there, the simulation would find it.

use crate::run_seed;
use corelog_io::planted::{Fault, Planting};
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: u64 = 40;

/// By one of the seeds from `first` on: where one is known the others need not be gone through.
fn is_found(fault: Fault, first: u64) {
    let _planting = Planting::of(fault);
    let found =
        (first..first + SEEDS).find(|&seed| catch_unwind(AssertUnwindSafe(|| run_seed(seed))).is_err());
    let seed = found.unwrap_or_else(|| panic!("{SEEDS} seeds from {first} on do not find {fault:?}"));
    println!("seed {seed} finds {fault:?}");
}

#[test]
fn an_answer_before_the_sync_is_found() {
    is_found(Fault::AnsweredBeforeSync, 1);
}

#[test]
fn a_commit_that_one_replica_counts_is_found() {
    is_found(Fault::CommittedByOne, 1);
}

#[test]
fn a_leader_of_an_earlier_term_is_found() {
    is_found(Fault::TermsIgnored, 216);
}
