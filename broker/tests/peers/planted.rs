//! Faults that are planted are found, and nothing is without them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog_io::planted::{Fault, Planting};

use crate::{refusals, silence};

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
