//! Brokers of a cluster are struck harder, several at once; and what they hold is looked at in the end.

mod joining;
mod judge;
pub mod mover;
pub mod observer;
mod plan;
mod strikes;
mod view;

pub use plan::Ordeal;

use super::plan::Plan;

fn run_seeds(ordeal: Ordeal, seeds: u64) {
    super::run_seeds(&format!("cluster, {ordeal:?}"), seeds, |seed| Plan::of_ordeal(seed, ordeal));
}

#[test]
fn power() {
    run_seeds(Ordeal::Power, 2);
}

#[test]
fn links() {
    run_seeds(Ordeal::Links, 2);
}

#[test]
fn clocks() {
    run_seeds(Ordeal::Clocks, 2);
}

#[test]
fn disks() {
    run_seeds(Ordeal::Disks, 2);
}

#[test]
fn damage() {
    run_seeds(Ordeal::Damage, 2);
}

#[test]
fn wipes() {
    run_seeds(Ordeal::Wipes, 2);
}

#[test]
fn moves() {
    run_seeds(Ordeal::Moves, 2);
}

/// Runs that found something, once it was mended. Later changes of the code move what a seed does: these are worth their time, and no
/// proof.
#[test]
fn found_before() {
    for (seed, ordeal) in [
        // Who joined a cluster whose metadata had been snapshotted knew nobody's place, and could not fetch them.
        (1, Ordeal::Wipes),
        // Damage that was met long after the start was never mended.
        (2, Ordeal::Damage),
    ] {
        super::run_seed(&format!("cluster, {ordeal:?}"), Plan::of_ordeal(seed, ordeal));
    }
}
