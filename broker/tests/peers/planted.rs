//! Faults that are planted are found, and nothing is without them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_io::planted::{Fault, Planting};

use crate::{forming, refusals, silence};

fn is_found(fault: Fault, run: impl Fn(), signs: &[&str]) {
    let found = {
        let _planting = Planting::of(fault);
        catch_unwind(AssertUnwindSafe(&run))
    };
    let payload = found.expect_err("it is not found");
    let text = payload.downcast_ref::<String>().expect("a panic has a text");
    assert!(signs.iter().any(|sign| text.contains(sign)), "found for another reason: {text}");
    run();
}

#[test]
fn silent_peers_that_are_kept_are_found() {
    is_found(Fault::SilentPeersAreKept, || silence::cut(1), &["is missed"]);
}

#[test]
fn two_brokers_of_one_id_are_found() {
    is_found(Fault::AnyIncarnationIsTaken, || refusals::two_of_one_id(1, true), &["Welcome"]);
}

#[test]
fn clusters_founded_by_a_majority_are_found() {
    let signs = ["founded by all seeds", "place of another"];
    is_found(Fault::FoundedByAMajority, || forming::together(1, 3), &signs);
}

#[test]
fn founders_that_are_taken_by_their_address_are_found() {
    is_found(
        Fault::AnyDirectoryIsAFounder,
        || forming::counted_and_away(1, true),
        &["it is whole", "place of another"],
    );
}

#[test]
fn news_that_is_believed_at_once_is_found() {
    is_found(Fault::NewsIsBelievedAtOnce, || forming::until_found(300), &["two clusters of one list"]);
}
