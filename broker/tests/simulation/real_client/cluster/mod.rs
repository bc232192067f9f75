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
    run_seeds(Ordeal::Power, 3);
}

#[test]
fn links() {
    run_seeds(Ordeal::Links, 3);
}

#[test]
fn clocks() {
    run_seeds(Ordeal::Clocks, 3);
}

#[test]
fn disks() {
    run_seeds(Ordeal::Disks, 3);
}

#[test]
fn damage() {
    run_seeds(Ordeal::Damage, 3);
}

#[test]
fn wipes() {
    run_seeds(Ordeal::Wipes, 3);
}

#[test]
fn moves() {
    run_seeds(Ordeal::Moves, 3);
}
